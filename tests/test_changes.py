"""A finished study after a changed parameter, bad input or damage: only dependent stages rerun, and nothing is lost."""

import json

import pandas as pd
import pytest
import yaml
from small_study import call, digests, stage


def test_a_changed_parameter_reruns_only_what_depends_on_it(study, copied):
    folder = copied
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["policy"]["steps"] += 1
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    done = call(folder, "dvc", "repro", "policy@llama-small")
    assert [line for line in done.stdout.splitlines() if line.startswith("Running stage")] == [
        "Running stage 'policy@llama-small':"
    ]
    waiting = json.loads(call(folder, "dvc", "status", "--json", "dvc.yaml").stdout)
    assert waiting.keys() == {"evaluate", "reasoning"}  # later stages are listed once these have run
    assert digests(folder, "data/debates") == digests(study, "data/debates")
    assert digests(folder, "data/students") != digests(study, "data/students")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["03_debate", "agnets=3"], "agnets"),
        (["03_debate", "agents=three"], "agents='three' is not of type int"),
        (["03_debate", "train_task=algebra"], "task 'algebra' is unknown"),
        (["03_debate", "teacher=data/models/nobody"], "no model here"),
        (["07_poilcy"], "no such notebook"),
        (["05_distill", "method=osmosis"], "method 'osmosis' is unknown"),
    ],
)
def test_bad_input_is_reported_in_one_line_and_loses_nothing(copied, arguments, message):
    before = digests(copied, "data/debates", "data/students", "reports")
    done = stage(copied, *arguments, check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0 and len(errors) == 1 and message in errors[0]
    assert digests(copied, "data/debates", "data/students", "reports") == before


@pytest.mark.parametrize("damage", ["truncated", "no answer"])
def test_damaged_table_is_reported_in_one_line_and_loses_nothing(copied, damage):
    folder = copied
    table = folder / "data" / "questions" / "questions.parquet"
    original, before = table.read_bytes(), digests(folder, "data/debates", "reports")
    try:
        if damage == "truncated":
            table.write_bytes(original[: len(original) // 2])
        else:
            broken = pd.read_parquet(table)
            broken.loc[broken["split"] == "train", "answer"] = ""
            broken.to_parquet(table)
        done = stage(folder, "04_extract", check=False)
    finally:
        table.write_bytes(original)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0 and len(errors) == 1
    assert ("questions.parquet" in errors[0]) or (damage == "no answer" and "without a gold answer" in errors[0])
    assert digests(folder, "data/debates", "reports") == before

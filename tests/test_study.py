"""The whole study, small, through the same notebooks: it runs, it reruns only what changed, its bytes repeat."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_study import SMALL, call, digests, stage

from agentark import experiments, plan, report


def test_it_ends_in_a_report_with_every_part(studies):
    page = (studies[0] / "reports" / "index.html").read_text()
    for heading in (
        "What was found",
        "Accuracy against cost",
        "The reward model",
        "Learning curves",
        "followed through",
    ):
        assert heading in page
    assert page.count("data:image/png") >= 8
    assert "3 agents and up to 2 rounds, on the task" in page
    scores = pd.read_csv(studies[0] / "reports" / "scores.csv", keep_default_na=False)
    assert {"single", "vote", "debate", "greedy", "base", "rsft", "da", "pad"} <= set(scores["method"])
    assert {"accuracy", "accuracy_gain", "step_accuracy", "prm_step_auroc"} <= set(scores["metric"])
    assert scores[scores["metric"] == "accuracy"]["test_task"].nunique() == 7
    assert not scores["value"].isna().any()


def test_two_clean_runs_give_the_same_bytes(studies):
    made = (
        "data/questions",
        "data/debates",
        "data/extracted",
        "data/students",
        "data/reward_models",
        "data/predictions",
    )
    tables = [digests(s, *made, "reports") for s in studies]
    assert len(tables[0]) > 40
    pages = {
        name for name in tables[0] if name in ("reports/index.html", "reports/notebooks/10_report.html")
    }  # show seconds
    assert {k: v for k, v in tables[0].items() if k not in pages} == {
        k: v for k, v in tables[1].items() if k not in pages
    }


def test_a_second_repro_does_nothing(studies):
    done = call(studies[0], "dvc", "repro")
    assert "Running stage" not in done.stdout


def test_a_changed_parameter_reruns_only_what_depends_on_it(studies, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(studies[0], folder, symlinks=True)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["policy"]["steps"] += 1
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    done = call(folder, "dvc", "repro", "policy@llama-small")
    assert [line for line in done.stdout.splitlines() if line.startswith("Running stage")] == [
        "Running stage 'policy@llama-small':"
    ]
    waiting = json.loads(call(folder, "dvc", "status", "--json", "dvc.yaml").stdout)
    assert waiting.keys() == {"evaluate", "reasoning"}  # what follows from these is told when they have run
    assert digests(folder, "data/debates") == digests(studies[0], "data/debates")
    assert digests(folder, "data/students") != digests(studies[0], "data/students")


def test_the_report_is_redrawn_from_tables_alone(studies):
    before = (studies[1] / "reports" / "index.html").read_bytes()
    stage(studies[1], "10_report")
    assert (studies[1] / "reports" / "index.html").read_bytes() == before


def test_a_changed_table_changes_the_sentence_that_quotes_it(studies):
    scores = pd.read_csv(studies[1] / "reports" / "scores.csv", dtype={"seed": str}, keep_default_na=False)
    first = report.debate_findings(scores, "equation").splitlines()[0].removeprefix("- ")
    assert first in (studies[1] / "reports" / "index.html").read_text()
    at = (scores["method"] == "debate") & (scores["metric"] == "accuracy") & (scores["experiment"] == "hard")
    scores.loc[at, "value"] = 0.12345
    assert "0.123" in report.debate_findings(scores, "equation")


def test_cost_experiments_and_claims_are_drawn_of_whatever_has_been_run(studies):
    for name in (n for n, command in experiments.MADE_BY.items() if command != "dvc repro"):
        table = studies[1] / "reports" / f"{name}.csv"
        table.write_text(table.read_text().partition("\n")[0] + "\n")
    for name in ("cost", "11_experiments", "claims"):
        stage(studies[1], name)
    paid = pd.read_csv(studies[1] / "reports" / "cost.csv", keep_default_na=False)
    assert {"once", "a question", "break-even"} <= set(paid["experiment"])
    timed = paid[(paid["experiment"] == "once") & (paid["metric"] == "seconds")]
    assert set(timed["method"]) == {"debate", "rsft", "da", "pad"} and (timed["value"] > 0).all()
    assert "not run yet: <code>make grid</code>" in (studies[1] / "reports" / "experiments.html").read_text()
    assert "claim 3 not run" in (studies[1] / "reports" / "claims.html").read_text()


def test_the_headline_tells_sameness_and_difference(studies):
    folder = studies[0]
    call(folder, "git", "add", "--all", "reports")
    call(folder, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "results")
    assert "identical, byte for byte" in call(folder, sys.executable, "-m", "agentark.headline").stdout
    kept = (folder / "reports" / "scores.csv").read_text()
    first = kept.splitlines()[1]
    (folder / "reports" / "scores.csv").write_text(kept.replace(first, first.replace(",main,", ",other,", 1), 1))
    changed = pd.read_csv(folder / "reports" / "scores.csv", keep_default_na=False)
    changed.loc[3, "value"] += 0.5
    changed.to_csv(folder / "reports" / "scores.csv", index=False)
    assert "1 differ" in call(folder, sys.executable, "-m", "agentark.headline").stdout
    (folder / "reports" / "scores.csv").write_text(kept)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["03_debate", "agnets=3"], "agnets"),
        (["03_debate", "agents=three"], "agents='three' is not of type int"),
        (["03_debate", "train_task=algebra"], "task 'algebra' is unknown"),
        (["03_debate", "teacher=data/models/nobody"], "no model here"),
        (["07_poilcy"], "no such notebook"),
        (["05_distill", "method=osmosis"], "method 'osmosis' is unknown"),
    ],
)
def test_bad_input_is_told_in_one_line_and_loses_nothing(studies, arguments, said):
    before = digests(studies[0], "data/debates", "data/students", "reports")
    done = stage(studies[0], *arguments, check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0 and len(errors) == 1 and said in errors[0]
    assert digests(studies[0], "data/debates", "data/students", "reports") == before


@pytest.mark.parametrize("damage", ["truncated", "no answer"])
def test_a_damaged_table_is_named(studies, damage):
    folder = studies[1]
    table = folder / "data" / "questions" / "questions.parquet"
    kept, before = table.read_bytes(), digests(folder, "data/debates", "reports")
    try:
        if damage == "truncated":
            table.write_bytes(kept[: len(kept) // 2])
        else:
            broken = pd.read_parquet(table)
            broken.loc[broken["split"] == "train", "answer"] = ""
            broken.to_parquet(table)
        done = stage(folder, "04_extract", check=False)
    finally:
        table.write_bytes(kept)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0 and len(errors) == 1
    assert ("questions.parquet" in errors[0]) or (damage == "no answer" and "without a gold answer" in errors[0])
    assert digests(folder, "data/debates", "reports") == before


def test_the_plan_of_the_small_study_is_near_what_it_used(studies):
    folder = studies[0]
    planned = stage(folder, "plan", "pilot_main=32", "pilot_other=8")
    assert "debate@hard" in planned.stdout and "licence of teacher" in planned.stdout
    told = call(folder, sys.executable, "-m", "agentark.plan", "--check", check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    ratios = {row.split()[0]: float(row.split()[-1]) for row in told.stdout.splitlines()[1:-1]}
    assert len(ratios) == 9 and abs(ratios["total"] - 1) <= plan.BAR
    table = folder / "reports" / "plan.csv"
    table.write_text(table.read_text().replace(",mini,", ",full,"))
    other = call(folder, sys.executable, "-m", "agentark.plan", "--check", check=False)
    assert other.returncode == 1 and "run `make plan`" in other.stderr


def test_a_base_model_is_built_with_its_card(studies):
    folder = studies[0]
    stage(
        folder, "02_base_models", "name=tiny", "hidden=32", "layers=1", "drill_steps=6", "steps=6",
        "examined=2", "out=data/models/tiny",
    )  # fmt: skip
    card = json.loads((folder / "data" / "models" / "tiny" / "card.json").read_text())
    assert card["tokens_read"] > 0 and set(card["accuracy"]["greedy"]) >= {"word", "digest"}
    assert "| word |" in (folder / "data" / "models" / "tiny" / "README.md").read_text()


def test_small_is_the_same_study_with_smaller_numbers():
    params = yaml.safe_load((Path(__file__).parent.parent / "params.yaml").read_text())
    assert SMALL.keys() <= params.keys()
    for name, section in SMALL.items():
        if isinstance(section, dict):
            assert section.keys() <= params[name].keys()

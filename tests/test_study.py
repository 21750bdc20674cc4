"""The complete study at a small setting, through the same notebooks: it ends in a report, and a rerun does nothing."""

import sys
from pathlib import Path

import pandas as pd
import yaml
from small_study import SMALL, call, stage

from agentark.paper import experiments
from agentark.report import sentences
from agentark.schemas import read_scores


def test_study_ends_in_a_report_with_every_part(study):
    page = (study / "reports" / "index.html").read_text()
    for heading in (
        "Does communication help?",
        "Accuracy against cost",
        "The reward model",
        "Learning curves",
        "Three questions in full",
    ):
        assert heading in page
    assert page.count("data:image/png") >= 8
    assert "of 3 agents in up to 2 rounds, on the task" in page
    scores = pd.read_csv(study / "reports" / "scores.csv", keep_default_na=False)
    assert {"single", "vote", "debate", "greedy", "base", "rsft", "da", "pad"} <= set(scores["method"])
    assert {"accuracy", "accuracy_gain", "step_accuracy", "prm_step_auroc"} <= set(scores["metric"])
    assert scores[scores["metric"] == "accuracy"]["test_task"].nunique() == 7
    assert not scores["value"].isna().any()


def test_a_changed_table_changes_the_sentence_that_quotes_it(study):
    scores = read_scores(study / "reports" / "scores.csv")
    first = sentences.debate_findings(scores, "equation").splitlines()[0].removeprefix("- ")
    assert first in (study / "reports" / "index.html").read_text()
    at = (scores["method"] == "debate") & (scores["metric"] == "accuracy") & (scores["setting"] == "hard")
    scores.loc[at, "value"] = 0.12345
    assert "0.123" in sentences.debate_findings(scores, "equation")


def test_a_second_repro_does_nothing(copied):
    done = call(copied, "dvc", "repro")
    assert "Running stage" not in done.stdout


def test_report_is_redrawn_from_the_tables_only(copied):
    before = (copied / "reports" / "index.html").read_bytes()
    stage(copied, "10_report")
    assert (copied / "reports" / "index.html").read_bytes() == before


def test_summary_reports_identical_and_different_results(copied):
    folder = copied
    call(folder, "git", "add", "--all", "reports")
    call(folder, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "results")
    assert "identical, byte for byte" in call(folder, sys.executable, "-m", "agentark.stage.summary").stdout
    kept = (folder / "reports" / "scores.csv").read_text()
    first = kept.splitlines()[1]
    (folder / "reports" / "scores.csv").write_text(kept.replace(first, first.replace(",main,", ",other,", 1), 1))
    changed = pd.read_csv(folder / "reports" / "scores.csv", keep_default_na=False)
    changed.loc[3, "value"] += 0.5
    changed.to_csv(folder / "reports" / "scores.csv", index=False)
    assert "1 differ" in call(folder, sys.executable, "-m", "agentark.stage.summary").stdout
    (folder / "reports" / "scores.csv").write_text(kept)


def test_cost_experiments_and_claims_are_drawn_from_whatever_has_been_run(copied):
    for name in (n for n, command in experiments.MADE_BY.items() if command != "dvc repro"):
        table = copied / "reports" / f"{name}.csv"
        table.write_text(table.read_text().partition("\n")[0] + "\n")
    for name in ("paper/cost", "paper/experiments", "paper/claims"):
        stage(copied, name)
    costs = pd.read_csv(copied / "reports" / "cost.csv", keep_default_na=False)
    assert {"once", "answer", "break-even"} <= set(costs["setting"])
    seconds = costs[(costs["setting"] == "once") & (costs["metric"] == "seconds")]
    assert set(seconds["method"]) == {"debate", "rsft", "da", "pad"} and (seconds["value"] > 0).all()
    assert "not run yet: <code>make grid</code>" in (copied / "reports" / "experiments.html").read_text()
    assert "claim 3 not run" in (copied / "reports" / "claims.html").read_text()


def test_small_setting_changes_only_existing_parameters():
    params = yaml.safe_load((Path(__file__).parent.parent / "params.yaml").read_text())
    assert SMALL.keys() <= params.keys()
    for name, section in SMALL.items():
        if isinstance(section, dict):
            assert section.keys() <= params[name].keys()

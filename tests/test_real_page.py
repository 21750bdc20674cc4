"""The page of the run with real models is generated from its tables only, and its sentences follow their values."""

import re
from pathlib import Path

import pandas as pd
import pytest
from small_study import call, copy_of_project

from agentark import root
from agentark.answers.correct import is_correct, same, stated_answer
from agentark.models.checkpoints import source_of
from agentark.report import small
from agentark.schemas import read_scores

TABLES = root() / "reports" / "small"
MARKS = root() / "data" / "marks" / "small.csv"
STUDENT = "qwen2.5-coder-0.5b"


def test_page_is_generated_from_the_tables_in_git(tmp_path):
    copy = copy_of_project(tmp_path)
    page, html = copy / "reports" / "small.html", copy / "reports" / "notebooks" / "small-page.html"
    committed = [file.read_bytes() for file in (page, html)]
    page.unlink()
    call(copy, "dvc", "repro", "--force", "-s", "notebooks/small/dvc.yaml:page")
    assert [file.read_bytes() for file in (page, html)] == committed


def changed(scores: pd.DataFrame, value: float, **where: str) -> pd.DataFrame:
    """The table with `value`, and an interval of 0.02 on both sides, in the rows that match `where`."""
    matching = (scores[list(where)] == pd.Series(where)).all(axis=1)
    assert matching.any()
    return scores.mask(matching, scores.assign(value=value, lo=value - 0.02, hi=value + 0.02))


@pytest.mark.parametrize(("gain", "words"), [(0.1, "better"), (-0.1, "worse"), (0.0, "no difference detected")])
def test_main_finding_follows_the_table(gain, words):
    scores = read_scores(TABLES / "scores.csv")
    gains = {"metric": "accuracy_gain", "test_task": "gsm8k"}
    scores = changed(scores, gain, method="debate", baseline="vote", **gains)
    scores = changed(scores, gain, method="rsft", baseline_variant="greedy", **gains)
    debate, student = small.main_finding(scores, STUDENT, "gsm8k").split(f"**{STUDENT}**")
    assert f"majority vote (0.653): {gain:+.3f}" in debate and debate.strip().endswith(f"({words}).")
    assert "R-SFT on traces of greedy decoding" in student and student.endswith(f"({words}).")


def test_main_finding_compares_with_the_best_baseline():
    scores = read_scores(TABLES / "scores.csv")
    base = {"metric": "accuracy", "test_task": "gsm8k", "method": "base"}
    assert f"the untrained base ({0.9:.3f})" in small.main_finding(changed(scores, 0.9, **base), STUDENT, "gsm8k")


def test_traces_that_name_an_agent_are_counted_by_source():
    rows = [("kept for R-SFT", "debate", 8), ("kept for R-SFT that name an agent", "debate", 2)]
    rows += [("kept for R-SFT", "greedy", 5), ("kept for R-SFT that name an agent", "greedy", 0)]
    found = small.naming_findings(pd.DataFrame(rows, columns=["what", "source", "count"]))
    assert "25.0% of those from the debate" in found and "0.0% of those from greedy decoding" in found


def test_served_model_is_recorded_with_the_source_of_its_folder(tmp_path: Path, monkeypatch):
    folder = tmp_path / "data" / "models" / "coder-int8"
    folder.mkdir(parents=True)
    (folder / "card.json").write_text('{"source": "Qwen/Coder"}')
    monkeypatch.setattr("agentark.models.checkpoints.root", lambda: tmp_path)
    name = "http://127.0.0.1:1/v1,http://127.0.0.1:2/v1#coder-int8@e5a32bdf"
    assert source_of(name) == "Qwen/Coder"
    (folder / "config.json").write_text('{"quantization_config": {"quant_method": "compressed-tensors"}}')
    assert re.fullmatch(r"Qwen/Coder, quantised \(compressed-tensors.*\)", source_of(name))
    assert source_of("http://127.0.0.1:1/v1#Qwen/Other") == "Qwen/Other"


def test_current_checker_agrees_with_the_marks_of_a_reader():
    sampled, marks = (pd.read_csv(file, keep_default_na=False) for file in (TABLES / "sampled_replies.csv", MARKS))
    assert len(sampled.merge(marks, on="reply")) == 200
    for row, text in enumerate(sampled["text"]):
        answer = stated_answer(text, "number", cut=bool(sampled["cut"][row]))
        sampled.loc[row, ["answer", "right"]] = answer or "", is_correct(answer, str(sampled["gold"][row]), "number")
    share = float(re.search(r"\((0\.\d+|1\.0+)\)", small.agreement_with_marks(sampled, marks, same))[1])
    assert share >= 0.99


@pytest.mark.parametrize(
    ("answer", "right", "agreed"), [("1,200.0", True, 1), ("1300", True, 0), ("", True, 0), ("1200", False, 0)]
)
def test_mark_agrees_if_both_the_answer_and_the_verdict_agree(answer, right, agreed):
    sampled = pd.DataFrame({"reply": ["a"], "answer": [answer], "right": [right]})
    marks = pd.DataFrame({"reply": ["a"], "answer": ["1200"], "right": [True]})
    assert f"agrees on {agreed} of them" in small.agreement_with_marks(sampled, marks, same)

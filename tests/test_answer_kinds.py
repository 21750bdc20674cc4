"""Grading of answers from public bug reports about graders: the rows of cases_numbers.py and cases_others.py."""

import time

import cases_numbers
import cases_others
import pytest

from agentark import StudyError
from agentark.answers import gradable, grader, is_correct, stated_answer

CASES = cases_numbers.CASES | cases_others.CASES
GROUPS = [pytest.param(kind, rows, id=f"{kind}: {report}") for (kind, report), rows in CASES.items()]


def test_most_reports_have_correct_and_incorrect_answers():
    verdicts = [{right for *_, right in rows} for rows in CASES.values()]
    assert sum(map(len, CASES.values())) > 600 and sum(v == {True, False} for v in verdicts) > len(verdicts) / 2


@pytest.mark.parametrize(("kind", "rows"), GROUPS)
def test_an_answer_is_graded_by_its_meaning(kind, rows):
    graded = [(prediction, gold, is_correct(prediction, gold, kind)) for prediction, gold, _ in rows]
    assert graded == rows


@pytest.mark.parametrize(("kind", "rows"), GROUPS)
def test_the_extracted_answer_gets_the_same_grade_as_the_full_text(kind, rows):
    assert [
        prediction
        for prediction, gold, right in rows
        if right != is_correct(f"\\boxed{{{stated_answer(prediction, kind)}}}", gold, kind) and kind != "text"
    ] == []


@pytest.mark.parametrize(("kind", "rows"), GROUPS)
def test_a_gold_answer_is_correct_against_itself(kind, rows):
    for _, gold, _ in rows:
        gradable(gold, kind)
        assert is_correct(gold, gold, kind)


@pytest.mark.parametrize(
    ("gold", "kind"),
    [
        ("", "text"), (" ", "choice"), ("hm", "number"), ("eighteen", "number"), ("1/0", "number"), ("18 or 19", "number"),
        ("$$", "latex"), ("1/0", "latex"), (r"\boxed{}", "latex"), ("99999999!", "latex"),
    ],
)  # fmt: skip
def test_an_ungradable_gold_answer_is_an_error_before_any_prediction(gold, kind):
    with pytest.raises(StudyError, match="gold answer") as error:
        gradable(gold, kind)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        ((r"\boxed{\frac12}", r"\boxed{\frac{1}{2}}", r"$\dfrac{1}{2}$", "0.5", "1/2", r"\frac{2}{4}"), "latex"),
        (("1,000", "1000.0", "1e3", "1 thousand", r"\boxed{1\,000}"), "number"),
        (("2\u00bd", "2 1/2", "2.5", r"2\tfrac12", "5/2"), "latex"),
        (("-0.25", "\u22121/4", r"-\frac14", "- 1/4"), "latex"),
    ],
)
def test_equal_numbers_are_extracted_in_the_same_spelling(texts, kind):
    assert len({stated_answer(f"The answer is {text}." if "box" not in text else text, kind) for text in texts}) == 1


def test_a_remark_after_a_short_text_answer_is_not_part_of_it():
    assert stated_answer("They met there.\nAnswer: Paris\n\nLet me know if you want more details!", "text") == "Paris"
    assert stated_answer("Answer: \\boxed{Paris}", "text") == "Paris"
    assert stated_answer("Answer: " + "long " * 40 + "\n\nand longer", "text").endswith("and longer")


@pytest.mark.parametrize(
    "piece",
    ["100 ", "1,00,", "1.000", "1 1/2 ", "\u00bd", "1\u2075", "1 x 10^", "1 million ", "1:00", "1 to ", "1 km/", "1 a ",
     "wait ", "Ans. ", "A, B, ", "answer is A ", "So 1 = 1. ", "0.1212...", r"\text{", r"\boxed 1 ", "(a", "- ", "**1**"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["number", "latex", "choice", "text"])
def test_answer_extraction_takes_linear_time(piece, kind, monkeypatch):
    monkeypatch.setattr(grader, "compare", lambda *_: "different")
    text = (piece * 8_000)[:8_000]
    start = time.process_time()
    for prediction in (text, f"{text}\nAnswer: {text[:500]}", f"\\boxed{{{text[:7_000]}}}"):
        assert not is_correct(prediction, "271828", kind)
    assert time.process_time() - start < 2

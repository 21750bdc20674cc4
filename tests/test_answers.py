import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentark import StudyError
from agentark.answers import is_correct

NO_DIGITS = st.text(st.characters(exclude_categories=["N", "Cs"]))


@pytest.mark.parametrize("prediction", ["15", " 15 ", "015", "15.0", "$15$", "\\boxed{15}"])
def test_a_number_is_right_in_any_spelling(prediction):
    assert is_correct(prediction, "15", "number")


@pytest.mark.parametrize("prediction", ["5", "1", "-15", "150", "15.5", "115", "1/0", "", " ", None])
def test_another_number_is_wrong(prediction):
    assert not is_correct(prediction, "15", "number")


def test_decimals_are_compared_whole():
    assert is_correct("30.5", "30.5", "number")
    assert not is_correct("5", "30.5", "number")


@pytest.mark.parametrize(
    ("prediction", "gold"), [(r"$\frac{1}{2}$", "$0.5$"), ("$x + 1$", "$1 + x$"), (r"$\{1, 2\}$", r"$\{2, 1\}$")]
)
def test_latex_is_compared_by_meaning(prediction, gold):
    assert is_correct(prediction, gold, "latex")
    assert not is_correct("$x + 2$", gold, "latex")


def test_choices_and_texts_are_compared_without_case_and_spacing():
    assert is_correct(" B", "b", "choice")
    assert not is_correct("c", "b", "choice")
    assert is_correct("Chair 3 ,  bed 4", "chair 3 , bed 4", "text")
    assert not is_correct("bed 4 , chair 3", "chair 3 , bed 4", "text")


@pytest.mark.parametrize("kind", ["number", "latex", "choice", "text"])
def test_no_answer_is_wrong_for_every_kind(kind):
    assert not is_correct(None, "15", kind)
    assert not is_correct("", "15", kind)


@pytest.mark.parametrize("kind", ["number", "latex", "choice", "text"])
@pytest.mark.parametrize("gold", ["", "  "])
def test_an_empty_gold_answer_is_an_error_even_for_an_empty_prediction(gold, kind):
    with pytest.raises(StudyError, match="gold answer"):
        is_correct("", gold, kind)


def test_an_unreadable_gold_answer_is_an_error():
    with pytest.raises(StudyError, match="'hm' is not readable as number"):
        is_correct("15", "hm", "number")


@pytest.mark.parametrize("kind", ["number", "latex", "choice", "text"])
def test_a_very_long_prediction_is_wrong(kind):
    assert is_correct("15" + " " * 100, "15", kind)
    assert not is_correct("15" + " " * 10_000, "15", kind)


def test_grading_works_outside_the_main_thread():
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(is_correct, r"$\frac{30}{2}$", "15", "latex").result(timeout=60)


@pytest.mark.parametrize("prediction", ["9**9**9**9", "9^{9^{9^{9}}}"])
def test_a_tower_of_powers_does_not_stall_the_grader(prediction):
    program = f"from agentark.answers import is_correct; print(is_correct({prediction!r}, '15', 'number'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "False\n"


@given(st.text(), st.sampled_from(["number", "latex", "choice", "text"]))
@example("²", "number")
@example("\\frac{1}{", "latex")
@example("$" * 1_999, "latex")
def test_no_text_makes_the_grader_fail(text, kind):
    assert is_correct(text, "15", kind) in (True, False)


@given(NO_DIGITS, st.sampled_from(["number", "latex", "choice", "text"]))
def test_a_text_without_a_number_is_not_a_right_number(text, kind):
    assert not is_correct(text, "15", kind)

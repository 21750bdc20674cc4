import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentark import StudyError
from agentark.answers import is_correct, stated_answer

NO_DIGITS = st.text(st.characters(exclude_categories=["N", "Cs"]))


@pytest.mark.parametrize("prediction", ["15", " 15 ", "015", "15.0", "$15$", "\\boxed{15}"])
def test_a_number_is_correct_in_every_notation(prediction):
    assert is_correct(prediction, "15", "number")


@pytest.mark.parametrize("prediction", ["5", "1", "-15", "150", "15.5", "115", "1/0", "", " ", None])
def test_a_different_number_is_wrong(prediction):
    assert not is_correct(prediction, "15", "number")


def test_decimals_are_compared_in_full():
    assert is_correct("30.5", "30.5", "number")
    assert not is_correct("5", "30.5", "number")


@pytest.mark.parametrize(
    ("prediction", "gold"), [(r"$\frac{1}{2}$", "$0.5$"), ("$x + 1$", "$1 + x$"), (r"$\{1, 2\}$", r"$\{2, 1\}$")]
)
def test_latex_is_compared_mathematically(prediction, gold):
    assert is_correct(prediction, gold, "latex")
    assert not is_correct("$x + 2$", gold, "latex")


@pytest.mark.parametrize(
    "text",
    [
        "She sells 13 and keeps 5.\n#### 18",
        "12 + 6 = 18\nA: 18",
        "12 + 6 = 18\nanswer : 18",
        "The answer is: 18",
        "The answer is 18 because 20 - 2 = 18.",
        "So the final answer is **18**. I hope it is correct.",
        "# Answer\n\n    \\$18\n",
        "**Final Answer:** $\\boxed{18}$ dollars",
        "\\boxed{12} is wrong. The total is \\boxed{18\\text{ eggs}}, which settles it for the 7 of them.",
        "<think>Is it 17? The answer is 17.</think>\n\nShe has 18 eggs left.",
        "She pays 12 + 6 = $18.00 every day.",
        "Twice 9 equals 18.",
        "It is 18 (not 20).",
    ],
)
def test_the_last_stated_number_of_a_text_is_graded(text):
    assert is_correct(text, "Long before. 5 + 13 = <<5+13=18>>18\n#### 18", "number")
    assert not is_correct(text, "17", "number")


@pytest.mark.parametrize(
    "text",
    [
        "<think>The answer is 18",
        "<think>The answer is 18</think>",
        "The answer is 18. Wait, let me count again.",
        "The answer is 18 or 19.",
        "The answer is not 18",
        "\\boxed{18}. Hmm, that cannot be right.",
        "#### 18\n#### 19",
    ],
)
def test_a_text_with_a_retracted_ambiguous_or_unfinished_answer_is_wrong(text):
    assert not is_correct(text, "18", "number")


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("Thus the answer is $x + 1$.", "1 + x"),
        ("The answer is \\(\\frac{1}{2}\\).", "1/2"),
        ("\\[ x = \\boxed{\\dfrac{3}{4}} \\]", "0.75"),
        ("Thus $n = \\boxed{1}$ or $n = \\boxed{-2}$.", "-2, 1"),
        ("The final answer is Evelyn", "\\text{Evelyn}"),
        ("\\boxed{4210_5}", "4210_{5}"),
        ("10 square units", "10"),
        ("\\boxed{2x + 3}", "y = 2x + 3"),
    ],
)
def test_the_last_stated_formula_of_a_text_is_graded(text, gold):
    assert is_correct(text, gold)


@pytest.mark.parametrize(
    ("text", "gold"),
    [("\\boxed{(2, 1)}", "(1, 2)"), ("$[1, 2)$", "$(1, 2)$"), ("\\boxed{2516_7}", "2516_8"), ("\\boxed{4}", "3, 4")],
)
def test_a_formula_similar_to_the_gold_answer_is_wrong(text, gold):
    assert not is_correct(text, gold)


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "(b)",
        "**B**",
        "B. It cannot be A or C.",
        "The answer: B, it makes no sense for it to be A",
        "A is tempting. Therefore, the best choice is:\n\n(B) Huggins",
        "I'll go with option B.",
        "So B is correct, and the rest is not.",
        "\\boxed{\\text{(B)}}",
        "Therefore, B.",
        "A was close.\n\nThe capital market (B) fits best.",
        "<think>The answer is A.</think>\n\nB",
    ],
)
def test_the_last_chosen_option_of_a_text_is_graded(text):
    assert is_correct(text, "B", "choice")
    assert not is_correct(text, "A", "choice")


@pytest.mark.parametrize(
    "text",
    ["A or B", "A patient needs B", "The answer is not A", "It is A. Wait, B fits too", "A) 1\nB) 2\nNone of these"],
)
def test_a_text_that_chooses_no_option_is_wrong(text):
    assert not is_correct(text, "A", "choice")
    assert not is_correct(text, "B", "choice")


def test_choices_and_texts_are_compared_ignoring_case_and_spacing():
    assert is_correct(" B", "b", "choice")
    assert not is_correct("c", "b", "choice")
    assert is_correct("Chair 3 ,  bed 4", "chair 3 , bed 4", "text")
    assert not is_correct("bed 4 , chair 3", "chair 3 , bed 4", "text")


@pytest.mark.parametrize("kind", ["number", "latex", "choice", "text"])
def test_a_missing_answer_is_wrong_for_every_kind(kind):
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
def test_no_text_crashes_the_grader(text, kind):
    assert is_correct(text, "15", kind) in (True, False)


@given(NO_DIGITS, st.sampled_from(["number", "latex", "choice", "text"]))
def test_a_text_without_a_number_is_wrong(text, kind):
    assert not is_correct(text, "15", kind)


SOLVED = "Four boxes hold 4 * 6 = 24 cups. The final answer is \\boxed{24}."


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (SOLVED, "24"),
        (f"{SOLVED}\n\nChecked the other way: 24 / 6 = 4, so the 4", "24"),
        ("Four boxes hold 4 * 6 = 24 cups. The answer is 24. To check this, divide 24", "24"),
        ("Four boxes hold 4 * 6 = 24 cups. The final answer is \\boxed{2", None),
        ("Four boxes hold 4 * 6 = 24 cups. The final answer is 2", None),
        ("1. There are 4 boxes.\n2. A box holds 6 cups, which is 5 more than what", None),
        ("Four boxes hold \\( 4 * 6 = 2", None),
        ("```python\nboxes = 4\ncups = boxes * 6\n\n# Print", None),
    ],
)
@pytest.mark.parametrize("kind", ["number", "latex"])
def test_a_truncated_text_has_the_answer_that_it_already_stated(text, answer, kind):
    assert stated_answer(text, kind, cut=True) == answer


@given(st.text(max_size=200))
def test_the_cut_flag_may_remove_an_answer_but_never_changes_it(text):
    assert stated_answer(f"{SOLVED} {text}".replace("<", ""), "number", cut=True) in (
        None,
        stated_answer(f"{SOLVED} {text}".replace("<", ""), "number"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "1. Count the boxes.\n2. Count the cups of a box.\n3. The total is their product.",
        "1. Four boxes of 6 cups.\n2. Multiply them: \\( 4 \\times 6 \\)",
        "Cups in the boxes: 4 boxes * 6 cups/box\nAll cups: cups in the boxes and the one on the table",
    ],
)
def test_steps_without_a_result_have_no_answer(text):
    assert stated_answer(text, "number") is None


@pytest.mark.parametrize(
    "text",
    ["1. Four boxes of 6 cups.\n2. 4 * 6 = 24 cups.", "1. Four boxes of 6 cups.\n2. So there are 24 cups.", "4 * 6"],
)
def test_a_result_in_the_last_step_is_the_answer(text):
    assert is_correct(text, "24", "number")

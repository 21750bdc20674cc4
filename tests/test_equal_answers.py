"""Every comparison treats equal answers as equal, and accepts every reference answer that a question lists."""

import pytest
from examples import KEYS
from hypothesis import given
from hypothesis import strategies as st
from test_traces import EGGS, trace_by

from agentark.answers import is_right, same
from agentark.debate.protocols import ranked
from agentark.distill.rewards import outcome_reward
from agentark.evaluate.predictions import predict
from agentark.traces.check import accuracy_by_round, check_traces
from agentark.traces.reading import (
    agreed,
    answer_of,
    claim_of,
    distance,
    groups,
    majority,
    structure,
    traces_with_answer,
    unanimous,
)

# Each list has the spellings of one answer that agents of different models write.
EQUAL = {
    "number": [["1000", "1,000", "1000.0", "1 000", "1e3"], ["0.5", "1/2", ".5", "0.50"], ["-3", "−3", "-3.0"]],
    "latex": [
        [r"\frac{1}{2}", r"\frac12", r"\dfrac{1}{2}", "1/2", "0.5"],
        [r"\sqrt{2}/2", r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt2}"],
        [r"(-\infty, 3]", r"\left(-\infty,3\right]"],
        ["x^2+1", "1 + x^2"],
        ["3", "x=3", "3.0"],
    ],
    "choice": [["B", "b", "(B)"], ["C", "c.", "(c)"]],
    "text": [["Paris", "paris", "Paris."], ["the red fox", "The Red Fox", "red fox"]],
}  # fmt: skip
SPELLINGS = [(kind, spellings) for kind, answers in EQUAL.items() for spellings in answers]


def question_of(kind, answer="9", **fields):
    return EGGS.model_copy(update={"kind": kind, "answer": answer, **fields})


@pytest.mark.parametrize(("kind", "spellings"), SPELLINGS)
def test_equal_answers_are_the_same_in_both_directions(kind, spellings):
    for first in spellings:
        for second in spellings:
            assert same(first, second, kind), (first, second)


@pytest.mark.parametrize("kind", EQUAL)
def test_different_answers_are_not_the_same(kind):
    for i, first in enumerate(EQUAL[kind]):
        for second in EQUAL[kind][i + 1 :]:
            assert not same(first[0], second[0], kind) and not same(second[-1], first[-1], kind)


@pytest.mark.parametrize(("kind", "spellings"), SPELLINGS)
def test_one_answer_in_several_spellings_outvotes_a_more_frequent_spelling(kind, spellings):
    # facebookresearch/deepconf#15
    other = next(candidate[0] for candidate in EQUAL[kind] if candidate is not spellings)
    answers = [other, spellings[0], other, spellings[1], spellings[2 % len(spellings)]]
    assert majority(answers, question_of(kind)) == spellings[0]
    assert sorted(map(len, groups(answers, question_of(kind)))) == [2, 3]


@given(st.permutations([*EQUAL["latex"][0], *EQUAL["latex"][3], None, "7", "7"]))
def test_groups_do_not_depend_on_the_order_of_the_answers(answers):
    found = {frozenset(group) for group in groups(answers, question_of("latex"))}
    assert found == {frozenset(EQUAL["latex"][0]), frozenset(EQUAL["latex"][3]), frozenset(["7"])}


def test_answers_of_generated_questions_are_compared_as_exact_strings():
    assert groups(["12", "012", "12"], KEYS) == [["12", "12"], ["012"]]


@pytest.mark.parametrize(("kind", "spellings"), [row for row in SPELLINGS if row[0] in ("number", "latex")])
def test_unanimity_agreement_and_selection_compare_answers_not_spellings(kind, spellings):
    question = question_of(kind)
    traces = [rf"We work it out. \boxed{{{s}}}" for s in spellings]
    different = r"No. \boxed{77}"
    assert unanimous(traces, question) and not unanimous([*traces, different], question)
    assert agreed([*traces, *traces, different], question)
    assert traces_with_answer(answer_of(traces[0], question), [different, *traces], question) == traces


def test_ranking_follows_the_listed_numbers_then_the_most_frequent_answer():
    traces = [r"\boxed{1,000}", r"\boxed{7}", r"\boxed{1000}"]
    assert ranked("[2, 1]", traces, question_of("number")) == [1, 0, 2]
    assert ranked("no order", traces, question_of("number")) == [
        0,
        2,
        1,
    ]  # by the number of traces with the same answer


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("4 * 250 = 1,000 pins.", "4 * 250 = 1000 pins."),
        ("It costs $1,000.", "It costs $1000.00."),
        ("Half is \\frac{1}{2}.", "Half is 1/2."),
        ("That is 0.5.", "That is 1/2."),
        ("3 + 4 = 7 eggs in 1 box.", "3 + 4 = 7."),
        ("Left: 1 000 coins", "Left: 1000 coins"),
    ],
)
def test_the_claim_of_a_step_does_not_depend_on_the_spelling_of_its_number(first, second):
    assert claim_of(first, EGGS) == claim_of(second, EGGS) is not None


def test_a_step_in_another_spelling_agrees_with_the_consensus():
    traces = [
        trace_by(1, "2 * 500 = 1,000 pins.\n991 go.\n\\boxed{9}"),
        trace_by(2, "2 × 500 = 1000.0 pins.\n992 go.\n\\boxed{8}"),
    ]
    assert [t.step_agrees for t in check_traces(traces, [EGGS])] == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("3 * 4 = 12", "3 × 4 = 12"),
        ("3 * 4 = 12", "4 * 3 = 12"),
        ("3 * 4 = 12", "3 x 4 = 12"),
        ("3 * 4 = 12", r"$3 \times 4 = 12$"),
        ("3 * 4 = 12", r"3\cdot4=12"),
        ("12 / 4 = 3", "12 ÷ 4 = 3"),
        ("12 / 4 = 3", r"\frac{12}{4} = 3"),
        ("12 - 4 = 8", "12 − 4 = 8"),
        ("1000 - 4 = 996", "1,000 - 4 = 996"),
        ("3 * $4 = $12", "3 * 4 = 12"),
        ("(3 + 4) = 7", "3 + 4 = 7"),
    ],
)
def test_typography_of_a_computation_does_not_change_its_structure(first, second):
    assert distance(structure(first, EGGS), structure(second, EGGS)) == 0


def test_different_computations_have_different_structures():
    for first, second in (("12 - 4 = 8", "4 - 12 = -8"), ("3 * 4 = 12", "3 + 4 = 7"), ("12 / 4 = 3", "4 / 12 = 1/3")):
        assert distance(structure(first, EGGS), structure(second, EGGS)) == 1


@pytest.mark.parametrize(
    ("kind", "answer", "references", "prediction", "right"),
    [
        ("text", "LSTM", ["a GRU cell"], "Answer: a GRU cell", True),  # allenai/qasper-led-baseline#27
        ("text", "LSTM", ["a GRU cell"], "Answer: LSTM", True),
        ("text", "LSTM", ["a GRU cell"], "Answer: RNN", False),
        ("text", "yes", ["unanswerable"], "Answer: Unanswerable", True),
        ("latex", "3", ["4"], r"\boxed{4.0}", True),
        ("number", "3", ["4"], "#### 5", False),
        ("text", "LSTM", [], "Answer: a GRU cell", False),
    ],
)
def test_every_listed_answer_is_right_in_extraction_reward_and_evaluation(kind, answer, references, prediction, right):
    question = question_of(kind, answer, references=references)
    trace = trace_by(1, prediction).model_copy(update={"answer": answer_of(prediction, question)})
    assert is_right(prediction, question) is right
    assert [t.correct for t in check_traces([trace], [question])] == [right]
    assert [p.correct for p in predict([trace], [question], "test", "single")] == [right]
    (reward,) = outcome_reward([question])([], [[{"content": prediction}]], [question.question_id])
    assert reward == right
    checked = check_traces([trace], [question])
    assert accuracy_by_round(checked, [question], rounds=1)["vote"].tolist() == [right]

"""Traces in natural language, parsed by rules; for the generated world's grammar see test_tasks and test_extract."""

import json

import pytest
from examples import GOLD, KEYS, WRONG_STEP, shared_data
from examples import trace_of as trace

from agentark.answers import is_correct, stated_answer
from agentark.schemas import Question, Trace
from agentark.traces.check import check_traces
from agentark.traces.reading import answer_of, answer_only, claim_of, distance, structure
from agentark.traces.selection import diverse

EGGS = Question(
    question_id="eggs", task="gsm8k", split="train", level=0, text="How many eggs are left?", solution="", answer="9",
    kind="number", content="eggs", quantities=[],
)  # fmt: skip
RIGHT = "She has 16 - 3 = 13 eggs.\n\nThen 13 - 4 = 9 are left.\nSo \\boxed{9}."
# Spellings of a claim, as in open-compass/opencompass#2426
SPELLINGS = {
    "3\u00bd cups": "7/2", "She uses 3 1/2 cups": "7/2", r"= 2\frac{1}{2}": "5/2", r"= -\frac{1}{2}": "-1/2",
    "x = \u00bd": "1/2", r"x = \frac12": "1/2", "It costs $1.5 million": "1500000", "= 1.5 \u00d7 10^6": "1500000",
    "x = - 5": "-5", "= 12'400": "12400", "7 - 2 = 5": "5",
}  # fmt: skip
SAME_PATHS = (
    (r"\frac12 \times 8 = 4", "\u00bd \u00d7 8 = 4", "(1/2) * 8 = 4"), ("2\u00b3 = 8", "2^{3} = 8", "2**3 = 8"),
    (r"50\% * 8 = 4", "50% * 8 = 4"), ("3 * 4.00 = 12", "3 * 4 = 12", "4 * 3 = 12"), (".5 + 8 = 8.5", "0.5 + 8 = 8.5"),
)  # fmt: skip
OTHER = "Gone are 3 + 4 = 7 eggs.\nLeft are 16 - 7 = 9.\n\\boxed{9}"
WRONG = "She has 16 - 3 = 13 eggs.\nThen 13 - 4 = 8 are left.\nHappy hens.\n\\boxed{8}"


def trace_by(agent: int, text: str, round: int = 1) -> Trace:
    return trace(agent, round, text, "eggs").model_copy(update={"answer": answer_of(text, EGGS)})


@pytest.mark.parametrize(
    ("text", "kind", "answer"),
    [
        ("so \\boxed{1,000}", "number", "1000"),
        ("#### 0.50", "number", "1/2"),
        ("The answer is: \\frac{1}{2}", "latex", "\\frac{1}{2}"),
        ("The answer is (b).", "choice", "B"),
        ("Because of this.\nAnswer: the red fox", "text", "the red fox"),
        ("**Answer:** two words", "text", "two words"),
        ("nobody knows", "number", None),
        ("<think>it is 4", "number", None),
        ("", "text", None),
    ],
)
def test_stated_answer_is_parsed_and_normalised(text, kind, answer):
    assert stated_answer(text, kind) == answer


@pytest.mark.parametrize(
    ("file", "kind"), [("gsm8k/debate_messages_labelled.jsonl", "number"), ("math/qwq_outputs_labelled.jsonl", "latex")]
)
def test_stated_answer_is_graded_like_the_complete_text(file, kind):
    rows = [json.loads(line) for line in (shared_data() / file).read_text().splitlines()]
    texts = [row.get("text") or "\n\n".join(row["solution_steps"]) for row in rows]
    golds = [row["gold"].rpartition("####")[2].strip() for row in rows]
    graded = [
        (is_correct(stated_answer(t, kind), g, kind), is_correct(t, g, kind)) for t, g in zip(texts, golds, strict=True)
    ]
    print(f"{file}: {sum(a for a, _ in graded)} right of {len(graded)}")
    assert all(stated == complete for stated, complete in graded)
    assert sum(stated for stated, _ in graded) > len(graded) / 3


def test_traces_are_parsed_by_the_kind_of_their_question():
    assert answer_of(GOLD, KEYS) == "39" and answer_of(RIGHT, EGGS) == "9"
    assert claim_of("bob = 12 + 3 = 15", KEYS) == ("bob", "15")
    assert claim_of("Then 13 - 4 = 9 are left.", EGGS) == ("9", "9")
    assert claim_of("Happy hens.", EGGS) is None
    for line, claim in SPELLINGS.items():
        assert claim_of(line, EGGS) == (claim, claim)
    assert claim_of("Option 3 it is", EGGS.model_copy(update={"kind": "choice"})) is None


def test_answer_only_reply_has_the_requested_form_and_is_parsed_back():
    assert answer_only("39", KEYS) == "answer : 39"
    for kind, answer in (("number", "9"), ("latex", "\\frac{1}{2}"), ("choice", "B"), ("text", "a red fox")):
        question = EGGS.model_copy(update={"kind": kind})
        assert answer_of(answer_only(answer, question), question) == answer


def test_structure_of_a_trace_is_its_normalised_formulas():
    assert structure(RIGHT, EGGS) == ["16-3", "13-4"]
    assert distance(structure(RIGHT, EGGS), structure(RIGHT.replace("eggs", "of them"), EGGS)) == 0
    assert distance(structure(RIGHT, EGGS), structure(OTHER, EGGS)) == 1
    for formulas in SAME_PATHS:
        assert len({tuple(structure(formula, EGGS)) for formula in formulas}) == 1
    assert structure("It is red.\nSo B", EGGS) == ["it is red.", "so b"]


def test_step_agrees_if_its_value_is_reached_by_traces_of_the_majority():
    right, other, wrong = check_traces([trace_by(1, RIGHT), trace_by(2, OTHER), trace_by(3, WRONG)], [EGGS])
    assert (right.correct, other.correct, wrong.correct) == (True, True, False)
    assert all(right.step_agrees) and all(other.step_agrees)
    assert wrong.step_agrees == [True, False, False, False]  # 13 is reached, 8 is not; no claim: the answer decides
    assert wrong.step_right == [] and len(wrong.steps) == 4


def test_steps_of_a_wrong_majority_agree_with_its_consensus():
    wrong, _, right = check_traces([trace_by(1, WRONG), trace_by(2, WRONG), trace_by(3, RIGHT)], [EGGS])
    assert all(wrong.step_agrees) and not all(right.step_agrees)


def test_diverse_traces_have_different_solution_paths():
    checked = check_traces([trace_by(1, RIGHT), trace_by(2, RIGHT + " "), trace_by(3, OTHER)], [EGGS])
    assert [t.agent for t in diverse(checked, 3, EGGS)] == [1, 3]
    assert WRONG_STEP not in [t.text for t in checked]

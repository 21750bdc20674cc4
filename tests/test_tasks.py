import itertools
import operator
import random
import re

import pytest
from examples import EVERY_LEVEL, GOLD, KEYS, WRONG_STEP, question_from_family
from hypothesis import example, given
from hypothesis import strategies as st

from agentark import StudyError
from agentark.tasks import TASKS, task
from agentark.tasks.splits import SHARES, split_of
from agentark.tasks.world.steps import answer_of, check, evaluate, lines_of, normal
from agentark.tasks.world.words import VOCABULARY

NUMBERS = st.integers(0, 9999)
WORDS = st.sampled_from(
    ["bob", "fix", "answer", ":", "=", "+", "/", "0", "12", "15", "39", "½", "²", "-3", "", "\n", "\t"]
)
RANDOM_TEXT = st.lists(WORDS, max_size=30).map(" ".join)


def errors(text):
    return [step.error for step in check(KEYS, text)]


@pytest.mark.parametrize(("name", "level"), EVERY_LEVEL)
def test_gold_solutions_are_right_and_grounded_line_by_line(name, level):
    for question in TASKS[name].questions(40, "train", seed=1, levels=(level,)):
        assert all(step.right and step.grounded and not step.error for step in check(question, question.solution))
        assert answer_of(question.solution) == question.answer
        assert len(lines_of(question.solution)) == level + 1


@given(st.sampled_from(EVERY_LEVEL), st.integers(0, 10_000), st.lists(st.integers(), min_size=3, max_size=3))
def test_every_derivation_in_every_valid_order_is_right(kind, seed, order_seeds):
    draft, question = question_from_family(*kind, seed)
    for order_seed in order_seeds:
        verdicts = check(question, "\n".join(draft.solve(random.Random(order_seed))))
        assert all(step.right and step.grounded for step in verdicts)


@given(st.sampled_from(EVERY_LEVEL), st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_a_changed_value_is_detected_in_any_line(kind, seed, rng):
    _, question = question_from_family(*kind, seed)
    lines = lines_of(question.solution)
    index = rng.randrange(len(lines))
    lines[index] = re.sub(r"\S+$", lambda value: "oslo0" if not value[0].isdigit() else f"{value[0]}1", lines[index])
    verdicts = check(question, "\n".join(lines))
    assert not verdicts[index].right and verdicts[index].error
    assert all(step.right for step in verdicts[:index])


@pytest.mark.parametrize("name", TASKS)
def test_questions_and_solutions_use_only_words_of_the_vocabulary(name):
    levels = (*TASKS[name].levels, *TASKS[name].hard)
    for question in TASKS[name].questions(120, "corpus", seed=2, levels=levels):
        assert set(f"{question.text} {question.solution}".split()) <= set(VOCABULARY)


@pytest.mark.parametrize("name", TASKS)
def test_splits_share_no_content(name):
    contents = {}
    for split in SHARES:
        questions = TASKS[name].questions(250, split, seed=3)
        assert all(q.split == split for q in questions)
        contents[split] = {q.content for q in questions}
        assert len(contents[split]) == 250
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(contents.values(), 2))


@pytest.mark.parametrize("name", ["word", "meta"])
def test_the_order_of_people_in_a_joint_question_does_not_make_a_new_question(name):
    contents = [q.content for split in SHARES for q in TASKS[name].questions(200, split, seed=4, levels=(2,))]
    together = re.compile(r"\? how many items do (.+) have together")
    unordered = {together.sub(lambda m: " and ".join(sorted(m[1].split(" and "))), content) for content in contents}
    assert len(unordered) == len(contents)


def test_split_sizes_follow_their_shares():
    counts = dict.fromkeys(SHARES, 0)
    for i in range(10_000):
        counts[split_of(f"content {i}")] += 1
    assert counts == pytest.approx({split: 100 * share for split, share in SHARES.items()}, abs=200)


@pytest.mark.parametrize("name", TASKS)
def test_only_the_seed_determines_the_questions(name):
    first, again, other = (TASKS[name].questions(20, "test", seed) for seed in (5, 5, 6))
    assert first == again
    assert [q.text for q in first] != [q.text for q in other]


def test_levels_are_taken_in_turn():
    assert [q.level for q in TASKS["word"].questions(6, "test", seed=0)] == [2, 3, 4, 2, 3, 4]


def test_requesting_more_questions_than_exist_is_an_error():
    with pytest.raises(StudyError, match=r"facts: only .* distinct questions in test"):
        TASKS["facts"].questions(30, "test", seed=0, levels=(1,))


def test_a_level_without_questions_is_an_error():
    with pytest.raises(StudyError, match="word: no question of level 0"):
        TASKS["word"].questions(1, "test", seed=0, levels=(0,))


def test_an_unknown_task_is_an_error_that_names_the_known_ones():
    with pytest.raises(StudyError, match=f"'chess' is unknown.*{', '.join(TASKS)}"):
        task("chess")


def test_a_miscalculation_is_arithmetic_and_errors_that_follow_from_it_are_carried():
    assert errors(WRONG_STEP) == ["arithmetic", "", "carried", "carried"]


@pytest.mark.parametrize(
    "line", ["bob = 12 * 3 = 36", "bob = 12 + 2 = 14", "bob = 15", "dora = 12 + 3 = 15", "answer : 38"]
)
def test_an_invalid_derivation_is_a_reasoning_error(line):
    assert errors(line) == ["reasoning"]


@pytest.mark.parametrize(
    "line", ["bob", "bob =", "= 15", "hello world", "bob = 12 + 3 = 15 = 15", "fix", "fix answer : 39"]
)
def test_a_line_outside_the_grammar_is_unreadable(line):
    assert errors(line) == ["unreadable"]


@pytest.mark.parametrize("line", ["answer = 39", "answer = 15 + 24 = 39"])
def test_an_answer_in_the_form_of_a_step_is_not_right(line):
    assert answer_of(line) is None
    assert not check(KEYS, line)[0].right


def test_operands_in_either_order_are_right():
    assert errors(GOLD.replace("12 + 3", "3 + 12").replace("12 * 2", "2 * 12")) == ["", "", "", ""]


def test_a_right_step_whose_operands_were_not_derived_is_not_grounded():
    (step,) = check(KEYS, "total = 15 + 24 = 39")
    assert step.right and not step.grounded


def test_a_fix_makes_the_steps_that_follow_right():
    steps = check(
        KEYS, "bob = 12 + 3 = 16\nfix bob = 12 + 3 = 15\ncarl = 12 * 2 = 24\ntotal = 15 + 24 = 39\nanswer : 39"
    )
    assert [s.error for s in steps] == ["arithmetic", "", "", "", ""]
    assert [s.fixes for s in steps] == [False, True, False, False, False]
    assert all(s.grounded for s in steps)


def test_an_error_after_a_fixed_value_is_not_carried():
    assert errors("bob = 12 + 3 = 16\nfix bob = 12 + 3 = 15\nanswer : 38") == ["arithmetic", "", "reasoning"]


def test_a_wrong_fix_is_an_arithmetic_error():
    steps = check(KEYS, "bob = 12 + 3 = 15\nfix bob = 12 + 3 = 17\ntotal = 17 + 24 = 41")
    assert [s.error for s in steps][1:] == ["arithmetic", "reasoning"]


@given(st.text() | RANDOM_TEXT, st.sampled_from(EVERY_LEVEL))
@example("answer : \n\nanswer :", ("word", 2))
def test_arbitrary_text_gets_one_verdict_per_line(text, kind):
    _, question = question_from_family(*kind, 0)
    verdicts = check(question, text)
    assert [step.text for step in verdicts] == lines_of(text)
    assert all(step.right == (step.error == "") for step in verdicts)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("answer : 4\nanswer : 5", "5"),
        ("answer : chair 3 , bed 4", "chair 3 , bed 4"),
        ("answer :", None),
        ("15", None),
    ],
)
def test_the_answer_is_taken_from_the_last_answer_line(text, answer):
    assert answer_of(text) == answer


@given(NUMBERS, st.sampled_from("+-*"), NUMBERS)
def test_evaluate_agrees_with_python(a, symbol, b):
    python = {"+": operator.add, "-": operator.sub, "*": operator.mul}[symbol]
    assert evaluate(f"{a} {symbol} {b}") == str(python(a, b))


@given(NUMBERS, st.integers(1, 99))
def test_evaluate_divides_only_without_a_remainder_and_not_by_zero(a, b):
    assert evaluate(f"{a * b % 10_000 // b * b} / {b}") == str(a * b % 10_000 // b)
    assert evaluate(f"{a} / {b}") == (str(a // b) if a % b == 0 else None)
    assert evaluate(f"{a} / 0") is None


@pytest.mark.parametrize(
    "expression", ["", "3", "3 + ", "3+4", "3 ** 4", "-3 + 4", "12345 + 1", "1.5 + 1", "a + b", "1 + 2 + 3"]
)
def test_an_expression_other_than_one_operation_on_two_integers_has_no_value(expression):
    assert evaluate(expression) is None


@given(NUMBERS, NUMBERS)
def test_normal_is_commutative_where_the_operation_is(a, b):
    for symbol in "+*":
        assert normal(f"{a} {symbol} {b}") == normal(f"{b} {symbol} {a}")
        assert evaluate(normal(f"{a} {symbol} {b}")) == evaluate(f"{a} {symbol} {b}")
    for symbol in "-/":
        assert normal(f"{a} {symbol} {b}") == f"{a} {symbol} {b}"

import itertools
import random
import re

import pytest
from examples import EVERY_LEVEL, GOLD, KEYS, REORDERED, UNANSWERED, WRONG_STEP, question_from_family, trace_of
from hypothesis import given, settings
from hypothesis import strategies as st

from agentark.traces.check import accuracy_by_round, check_traces, consensus
from agentark.traces.reading import SUMMARISER, distance, lines_of, structure
from agentark.traces.selection import MIN_DISTANCE, diverse, select

TEXTS = [GOLD, REORDERED, WRONG_STEP, UNANSWERED, GOLD.replace("12 + 3", "3 + 12"), "answer : 39"]
SEEDS = st.integers(0, 10_000)


def checked(*traces):
    return check_traces(traces, [KEYS])


def path_distance(a: str, b: str) -> float:
    return distance(structure(a, KEYS), structure(b, KEYS))


def selected(*traces, most_diverse=3):
    return select(checked(*traces), [KEYS], most_diverse)


@st.composite
def debates(draw):
    agents, rounds = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    texts = st.sampled_from(TEXTS)
    by_agents = [trace_of(a, r, draw(texts)) for r in range(1, rounds + 1) for a in range(1, agents + 1)]
    return [*by_agents, trace_of(SUMMARISER, rounds + 1, draw(texts))]


@st.composite
def solutions(draw, n):
    draft, _ = question_from_family(*draw(st.sampled_from(EVERY_LEVEL)), draw(SEEDS))
    return ["\n".join(draft.solve(random.Random(draw(SEEDS)))) for _ in range(n)]


def test_consensus_is_the_most_frequent_value_of_each_quantity():
    assert consensus([trace_of(1, 1, GOLD), trace_of(2, 1, REORDERED), trace_of(3, 1, WRONG_STEP)], KEYS) == {
        "bob": "15",
        "carl": "24",
        "total": "39",
        "answer": "39",
    }


def test_consensus_leaves_out_ties():
    assert consensus([trace_of(1, 1, GOLD), trace_of(2, 1, WRONG_STEP)], KEYS) == {"carl": "24"}


def test_agent_votes_once_with_its_last_value_of_a_quantity():
    corrected = "bob = 12 + 3 = 16\nbob = 12 + 3 = 16\nfix bob = 12 + 3 = 15"
    assert consensus([trace_of(1, 1, corrected)], KEYS) == {"bob": "15"}


def test_correct_trace_is_corrective_if_its_agent_was_wrong_before():
    traces = checked(
        trace_of(1, 1, WRONG_STEP), trace_of(2, 1, GOLD), trace_of(3, 1, UNANSWERED),
        trace_of(1, 2, GOLD), trace_of(2, 2, WRONG_STEP), trace_of(3, 2, REORDERED),
        trace_of(1, 3, GOLD), trace_of(2, 3, GOLD), trace_of(3, 3, WRONG_STEP),
        trace_of(SUMMARISER, 4, GOLD),
    )  # fmt: skip
    assert {(t.agent, t.round) for t in traces if t.correct} == {
        (2, 1),
        (1, 2),
        (3, 2),
        (1, 3),
        (2, 3),
        (SUMMARISER, 4),
    }
    assert {(t.agent, t.round) for t in traces if t.corrective} == {(1, 2), (3, 2), (1, 3), (2, 3)}


def test_steps_are_marked_by_truth_and_by_the_consensus_on_the_majority_answer():
    _, _, slipped, _ = checked(
        trace_of(1, 1, GOLD), trace_of(2, 1, GOLD), trace_of(3, 1, WRONG_STEP), trace_of(SUMMARISER, 2, WRONG_STEP)
    )
    assert slipped.steps == lines_of(WRONG_STEP)
    assert slipped.step_right == [False, True, False, False]
    assert slipped.step_agrees == [False, True, False, False]


def test_agreement_needs_an_answer_but_not_a_correct_one():
    wrong_majority = checked(
        trace_of(1, 1, WRONG_STEP), trace_of(2, 1, WRONG_STEP), trace_of(3, 1, GOLD), trace_of(SUMMARISER, 2, GOLD)
    )
    assert all(wrong_majority[0].step_agrees) and not wrong_majority[0].correct
    unanswered = checked(trace_of(1, 1, UNANSWERED), trace_of(SUMMARISER, 2, GOLD))
    assert not any(agrees for t in unanswered for agrees in t.step_agrees)


def test_each_debate_is_checked_against_its_own_question():
    other = KEYS.model_copy(update={"question_id": "other", "answer": "40"})
    traces = check_traces([trace_of(1, 1, GOLD), trace_of(1, 1, GOLD, "other")], [KEYS, other])
    assert [t.correct for t in traces] == [True, False]


def test_accuracy_by_round_counts_corrected_and_spoilt_agents():
    traces = checked(
        trace_of(1, 1, WRONG_STEP),
        trace_of(2, 1, GOLD),
        trace_of(1, 2, GOLD),
        trace_of(2, 2, WRONG_STEP),
        trace_of(SUMMARISER, 3, GOLD),
    )
    first, second = accuracy_by_round(traces, [KEYS], rounds=2).to_dict("records")
    assert first == {"round": 1, "single": 0.5, "vote": 0.0, "corrected": 0.0, "spoilt": 0.0, "n": 1}
    assert second == {"round": 2, "single": 0.5, "vote": 1.0, "corrected": 0.5, "spoilt": 0.5, "n": 1}


@given(solutions(2))
def test_distance_is_symmetric_between_0_and_1_and_0_for_equal_structures(pair):
    a, b = pair
    assert path_distance(a, a) == 0
    assert path_distance(a, b) == path_distance(b, a)
    assert 0 <= path_distance(a, b) <= 1
    assert (path_distance(a, b) == 0) == (structure(a, KEYS) == structure(b, KEYS))


@given(solutions(2))
def test_distance_ignores_computed_values(pair):
    a, b = pair
    assert path_distance(a, b) == path_distance(re.sub(r"(?<= = )\S+$", "7", a, flags=re.MULTILINE), b)


@given(solutions(1), st.randoms(use_true_random=False))
def test_distance_depends_on_the_order_of_steps(texts, rng):
    lines = lines_of(texts[0])[:-1]
    shuffled = rng.sample(lines, len(lines))
    assert (path_distance("\n".join(lines), "\n".join(shuffled)) > 0) == (lines != shuffled)


@pytest.mark.parametrize(
    ("a", "b", "expected"), [(GOLD, REORDERED, 2 / 3), (GOLD, "", 1), ("", "", 0), (GOLD, WRONG_STEP, 1 / 3)]
)
def test_distance_of_hand_checked_pairs(a, b, expected):
    assert path_distance(a, b) == pytest.approx(expected)


@given(st.lists(st.sampled_from(TEXTS), max_size=6), st.integers(0, 4))
def test_diverse_keeps_the_first_trace_and_none_too_similar_or_too_many(texts, most):
    traces = checked(*(trace_of(agent, 1, text) for agent, text in enumerate(texts, start=1)))
    kept = diverse(traces, most, KEYS)
    assert len(kept) <= most
    assert kept[:1] == traces[: min(most, 1)]
    assert all(path_distance(a.text, b.text) >= MIN_DISTANCE for a, b in itertools.combinations(kept, 2))


def test_diverse_takes_the_farthest_trace_first():
    near, far = GOLD.replace("12 + 3", "3 + 12"), "answer : 39"
    traces = checked(trace_of(1, 1, GOLD), trace_of(2, 1, near), trace_of(3, 1, far))
    assert [t.text for t in diverse(traces, 2, KEYS)] == [GOLD, far]


@given(debates())
def test_selection_keeps_only_correct_traces_and_counts_all(traces):
    rows, count = selected(*traces)
    assert all(row.answer == "39" for row in rows)
    assert len({row.text for row in rows}) == len(rows) == count["correct and distinct"]
    assert count["trajectories"] == len({t.agent for t in traces})
    assert count["trajectories"] == sum(n for name, n in count.items() if name.startswith("dropped")) + len(rows)
    assert sum(row.for_rsft for row in rows) == count["kept for R-SFT"] == bool(rows)
    assert sum(row.for_da for row in rows) == count["kept for DA"] <= 3


@settings(max_examples=300)
@given(debates())
def test_corrective_trajectories_rank_first(traces):
    rows, count = selected(*traces)
    assert [row.rank for row in rows] == list(range(len(rows)))
    assert [row.corrective for row in rows] == sorted((row.corrective for row in rows), reverse=True)
    assert sum(row.corrective for row in rows) == count["corrective among them"]


def test_repeated_text_keeps_the_rank_of_its_first_trajectory():
    rows, _ = selected(
        trace_of(1, 1, WRONG_STEP), trace_of(2, 1, REORDERED), trace_of(3, 1, GOLD),
        trace_of(1, 2, GOLD), trace_of(2, 2, REORDERED), trace_of(3, 2, GOLD),
    )  # fmt: skip
    assert [(row.agent, row.corrective, row.for_rsft) for row in rows] == [(1, True, True), (2, False, False)]


def test_trajectory_is_the_last_trace_of_an_agent():
    rows, count = selected(
        trace_of(1, 1, REORDERED), trace_of(2, 1, WRONG_STEP), trace_of(1, 2, GOLD), trace_of(2, 2, UNANSWERED)
    )
    assert [(row.agent, row.round, row.text, row.prompt) for row in rows] == [(1, 2, GOLD, KEYS.text)]
    assert count["dropped: no answer stated"] == 1
    assert count["dropped: wrong answer"] == 0


def test_summary_ranks_after_the_agents():
    rows, _ = selected(trace_of(1, 1, GOLD), trace_of(2, 1, WRONG_STEP), trace_of(SUMMARISER, 2, REORDERED))
    assert [row.agent for row in rows] == [1, SUMMARISER]


def test_da_needs_two_correct_agents_besides_the_summary():
    one_correct, _ = selected(trace_of(1, 1, GOLD), trace_of(2, 1, WRONG_STEP), trace_of(SUMMARISER, 2, REORDERED))
    two_correct, _ = selected(trace_of(1, 1, GOLD), trace_of(2, 1, REORDERED), trace_of(SUMMARISER, 2, GOLD))
    assert [row.for_da for row in one_correct] == [False, False]
    assert [row.for_da for row in two_correct] == [True, True]


def test_da_takes_at_most_the_given_number_of_traces():
    rows, count = selected(
        trace_of(1, 1, GOLD), trace_of(2, 1, REORDERED), trace_of(3, 1, "answer : 39"), most_diverse=2
    )
    assert count["kept for DA"] == sum(row.for_da for row in rows) == 2
    assert len(rows) == 3

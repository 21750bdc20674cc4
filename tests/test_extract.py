import itertools
import random
import re

import pytest
from examples import EVERY_LEVEL, GOLD, KEYS, MUTE, SLIPPED, SWAPPED, posed, said
from hypothesis import given, settings
from hypothesis import strategies as st

from agentark.traces.check import accuracy_by_round, check_traces, consensus
from agentark.traces.reading import SUMMARISER, distance, lines_of, structure
from agentark.traces.selection import MIN_DISTANCE, diverse, select

TEXTS = [GOLD, SWAPPED, SLIPPED, MUTE, GOLD.replace("12 + 3", "3 + 12"), "answer : 39"]
SEEDS = st.integers(0, 10_000)


def checked(*traces):
    return check_traces(traces, [KEYS])


def apart(a: str, b: str) -> float:
    return distance(structure(a, KEYS), structure(b, KEYS))


def selected(*traces, most_diverse=3):
    return select(checked(*traces), [KEYS], most_diverse)


@st.composite
def debates(draw):
    agents, rounds = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    texts = st.sampled_from(TEXTS)
    said_by_all = [said(a, r, draw(texts)) for r in range(1, rounds + 1) for a in range(1, agents + 1)]
    return [*said_by_all, said(SUMMARISER, rounds + 1, draw(texts))]


@st.composite
def solutions(draw, n):
    draft, _ = posed(*draw(st.sampled_from(EVERY_LEVEL)), draw(SEEDS))
    return ["\n".join(draft.solve(random.Random(draw(SEEDS)))) for _ in range(n)]


def test_consensus_is_the_value_most_agents_give():
    assert consensus([said(1, 1, GOLD), said(2, 1, SWAPPED), said(3, 1, SLIPPED)], KEYS) == {
        "bob": "15",
        "carl": "24",
        "total": "39",
        "answer": "39",
    }


def test_consensus_leaves_ties_out():
    assert consensus([said(1, 1, GOLD), said(2, 1, SLIPPED)], KEYS) == {"carl": "24"}


def test_an_agent_votes_once_with_its_last_word_on_a_quantity():
    fixed = "bob = 12 + 3 = 16\nbob = 12 + 3 = 16\nfix bob = 12 + 3 = 15"
    assert consensus([said(1, 1, fixed)], KEYS) == {"bob": "15"}


def test_a_trace_is_corrective_when_its_agent_was_wrong_before():
    traces = checked(
        said(1, 1, SLIPPED), said(2, 1, GOLD), said(3, 1, MUTE),
        said(1, 2, GOLD), said(2, 2, SLIPPED), said(3, 2, SWAPPED),
        said(1, 3, GOLD), said(2, 3, GOLD), said(3, 3, SLIPPED),
        said(SUMMARISER, 4, GOLD),
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


def test_steps_are_marked_by_truth_and_by_the_consensus_of_the_most_frequent_answer():
    _, _, slipped, _ = checked(said(1, 1, GOLD), said(2, 1, GOLD), said(3, 1, SLIPPED), said(SUMMARISER, 2, SLIPPED))
    assert slipped.steps == lines_of(SLIPPED)
    assert slipped.step_right == [False, True, False, False]
    assert slipped.step_agrees == [False, True, False, False]


def test_agreement_needs_no_right_answer_but_some_answer():
    wrong = checked(said(1, 1, SLIPPED), said(2, 1, SLIPPED), said(3, 1, GOLD), said(SUMMARISER, 2, GOLD))
    assert all(wrong[0].step_agrees) and not wrong[0].correct
    silent = checked(said(1, 1, MUTE), said(SUMMARISER, 2, GOLD))
    assert not any(agrees for t in silent for agrees in t.step_agrees)


def test_debates_are_checked_each_by_its_own_question():
    other = KEYS.model_copy(update={"question_id": "other", "answer": "40"})
    traces = check_traces([said(1, 1, GOLD), said(1, 1, GOLD, "other")], [KEYS, other])
    assert [t.correct for t in traces] == [True, False]


def test_accuracy_by_round_counts_the_corrected_and_the_spoilt():
    traces = checked(
        said(1, 1, SLIPPED), said(2, 1, GOLD), said(1, 2, GOLD), said(2, 2, SLIPPED), said(SUMMARISER, 3, GOLD)
    )
    first, second = accuracy_by_round(traces, [KEYS], rounds=2).to_dict("records")
    assert first == {"round": 1, "single": 0.5, "vote": 0.0, "corrected": 0.0, "spoilt": 0.0, "n": 1}
    assert second == {"round": 2, "single": 0.5, "vote": 1.0, "corrected": 0.5, "spoilt": 0.5, "n": 1}


@given(solutions(2))
def test_distance_is_a_symmetric_share_and_zero_on_itself(pair):
    a, b = pair
    assert apart(a, a) == 0
    assert apart(a, b) == apart(b, a)
    assert 0 <= apart(a, b) <= 1
    assert (apart(a, b) == 0) == (structure(a, KEYS) == structure(b, KEYS))


@given(solutions(2))
def test_distance_ignores_computed_values(pair):
    a, b = pair
    assert apart(a, b) == apart(re.sub(r"(?<= = )\S+$", "7", a, flags=re.MULTILINE), b)


@given(solutions(1), st.randoms(use_true_random=False))
def test_distance_counts_order(only, rng):
    lines = lines_of(only[0])[:-1]
    shuffled = rng.sample(lines, len(lines))
    assert (apart("\n".join(lines), "\n".join(shuffled)) > 0) == (lines != shuffled)


@pytest.mark.parametrize(
    ("a", "b", "far"), [(GOLD, SWAPPED, 2 / 3), (GOLD, "", 1), ("", "", 0), (GOLD, SLIPPED, 1 / 3)]
)
def test_distance_by_hand(a, b, far):
    assert apart(a, b) == pytest.approx(far)


@given(st.lists(st.sampled_from(TEXTS), max_size=6), st.integers(0, 4))
def test_diverse_keeps_the_first_and_none_too_close_or_too_many(texts, most):
    traces = checked(*(said(agent, 1, text) for agent, text in enumerate(texts, start=1)))
    kept = diverse(traces, most, KEYS)
    assert len(kept) <= most
    assert kept[:1] == traces[: min(most, 1)]
    assert all(apart(a.text, b.text) >= MIN_DISTANCE for a, b in itertools.combinations(kept, 2))


def test_diverse_takes_the_farthest_first():
    near, far = GOLD.replace("12 + 3", "3 + 12"), "answer : 39"
    traces = checked(said(1, 1, GOLD), said(2, 1, near), said(3, 1, far))
    assert [t.text for t in diverse(traces, 2, KEYS)] == [GOLD, far]


@given(debates())
def test_selection_keeps_right_traces_only_and_accounts_for_all(traces):
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


def test_a_text_said_twice_keeps_the_rank_of_its_first():
    rows, _ = selected(
        said(1, 1, SLIPPED), said(2, 1, SWAPPED), said(3, 1, GOLD),
        said(1, 2, GOLD), said(2, 2, SWAPPED), said(3, 2, GOLD),
    )  # fmt: skip
    assert [(row.agent, row.corrective, row.for_rsft) for row in rows] == [(1, True, True), (2, False, False)]


def test_a_trajectory_is_the_last_trace_of_each_agent():
    rows, count = selected(said(1, 1, SWAPPED), said(2, 1, SLIPPED), said(1, 2, GOLD), said(2, 2, MUTE))
    assert [(row.agent, row.round, row.text, row.prompt) for row in rows] == [(1, 2, GOLD, KEYS.text)]
    assert count["dropped: no answer stated"] == 1
    assert count["dropped: wrong answer"] == 0


def test_the_summary_ranks_after_the_agents():
    rows, _ = selected(said(1, 1, GOLD), said(2, 1, SLIPPED), said(SUMMARISER, 2, SWAPPED))
    assert [row.agent for row in rows] == [1, SUMMARISER]


def test_da_needs_two_agents_right_besides_the_summary():
    alone, _ = selected(said(1, 1, GOLD), said(2, 1, SLIPPED), said(SUMMARISER, 2, SWAPPED))
    both, _ = selected(said(1, 1, GOLD), said(2, 1, SWAPPED), said(SUMMARISER, 2, GOLD))
    assert [row.for_da for row in alone] == [False, False]
    assert [row.for_da for row in both] == [True, True]


def test_da_takes_no_more_than_it_is_told():
    rows, count = selected(said(1, 1, GOLD), said(2, 1, SWAPPED), said(3, 1, "answer : 39"), most_diverse=2)
    assert count["kept for DA"] == sum(row.for_da for row in rows) == 2
    assert len(rows) == 3

"""Variants of the training data: traces are selected as requested, and gains are paired by question."""

import random
from collections import Counter

import matplotlib.pyplot as plt
import pytest
from examples import GOLD, KEYS, REORDERED, WRONG_STEP, trace_of
from hypothesis import given
from hypothesis import strategies as st
from test_protocols import disagreeing_reply, prompt_of, turns_of

from agentark import StudyError
from agentark.debate.protocols import Debate
from agentark.evaluate.scores import scores, trace_yield, with_conditions
from agentark.report import charts, sentences
from agentark.schemas import Prediction, Trajectory, frame
from agentark.traces import selection
from agentark.traces.check import check_traces
from agentark.traces.reading import SUMMARISER
from agentark.traces.selection import select

QUESTIONS = [f"q{i}" for i in range(8)]


def debate_with(agents: int, reads: int) -> Debate:
    return Debate(agents, rounds=3, temperature=1.0, revision_temperature=0.2, order="shared", reads=reads)


def trajectory(question: str, agent: int, first: bool) -> Trajectory:
    return Trajectory(
        question_id=question, agent=agent, round=1, prompt=question, text=f"trace {agent}", answer="1",
        answer_only="answer : 1", corrective=False, rank=0 if first else 1, for_rsft=first, for_da=True,
    )  # fmt: skip


def trajectories(counts: dict[str, int]) -> list[Trajectory]:
    return [trajectory(q, agent, agent == 0) for q, n in counts.items() for agent in range(n)]


def prediction(number: int, experiment: str, method: str, student: str, seed: int, correct: bool) -> Prediction:
    return Prediction(
        question_id=f"q{number}", task="word", setting=experiment, method=method, student=student, seed=seed, text="",
        answer=None, correct=correct, steps_needed=1, steps_present=1, steps_written=1, steps_right=1, steps_grounded=1,
        errors=0, errors_noticed=0, errors_mended=0, tokens=10, calls=1 + number % 2,
    )  # fmt: skip


@pytest.mark.parametrize(("agents", "reads"), [(5, 0), (5, 4), (5, 9), (3, 2)])
def test_agents_that_may_read_all_others_debate_as_in_the_paper(agents, reads):
    turns, others = (turns_of(debate_with(agents, r), disagreeing_reply) for r in (reads, 0))
    assert turns == others


@given(st.integers(4, 20), st.data())
def test_each_of_many_agents_reads_its_own_trace_and_the_set_number_of_others(agents, data):
    reads = data.draw(st.integers(1, agents - 2))
    _, second, *_ = turns_of(debate_with(agents, reads), disagreeing_reply)
    read = Counter()
    for turn in second:
        visible = [a for a in range(1, agents + 1) if f"agent {a} says 1\n" in prompt_of(turn)]
        place = visible.index(turn.agent) + 1
        assert len(visible) == reads + 1 and prompt_of(turn).endswith(f"revise agent {place}")
        read.update(visible)
    assert set(read.values()) == {reads + 1}  # all traces are read equally often


def test_the_summariser_of_many_agents_reads_only_the_most_frequent_answer():
    def reply(agent, round):
        return f"{GOLD if agent in (1, 3, 5, 7) else disagreeing_reply(agent, round)}\n"

    (last,) = turns_of(debate_with(8, 2), reply)[-1]
    assert last.agent == SUMMARISER and prompt_of(last).count(GOLD) == 3 and "says" not in prompt_of(last)


def test_plain_traces_can_be_selected_before_corrective_ones():
    debate = [trace_of(1, 1, WRONG_STEP), trace_of(2, 1, REORDERED), trace_of(1, 2, GOLD), trace_of(2, 2, REORDERED)]
    checked = check_traces(debate, [KEYS])
    for first in (True, False):
        rows, _ = select(checked, [KEYS], 3, corrective_first=first)
        assert [r.corrective for r in rows if r.for_rsft] == [first] and len(rows) == 2


COUNTS = st.dictionaries(st.sampled_from(QUESTIONS), st.integers(1, 4), min_size=1)


@given(COUNTS, COUNTS, st.sampled_from(sorted(selection.KEPT)))
def test_trimmed_traces_match_the_number_and_where_possible_the_questions_of_others(available, like, method):
    counts_of = {
        name: {q: n if method == "da" else 1 for q, n in counts.items()}
        for name, counts in (("available", available), ("like", like))
    }
    wanted = sum(counts_of["like"].values())
    if sum(counts_of["available"].values()) < wanted:
        with pytest.raises(StudyError, match=f"cannot be cut to {wanted}"):
            selection.trimmed(trajectories(available), trajectories(like), method)
        return
    rows = selection.trimmed(trajectories(available), trajectories(like), method)
    assert len(rows) == wanted and [r for r in trajectories(available) if r in rows] == rows
    selected = Counter(r.question_id for r in rows)
    assert all(selected[q] >= min(n, counts_of["like"].get(q, 0)) for q, n in counts_of["available"].items())


def test_the_yield_of_sources_is_paired_by_question_and_given_by_level():
    questions = [KEYS.model_copy(update={"question_id": q, "level": 2 + i % 2}) for i, q in enumerate(QUESTIONS)]
    sources = {"debates": trajectories({"q0": 1, "q1": 2}), "samples": trajectories(dict.fromkeys(QUESTIONS[1:], 1))}
    table = selection.yielded(sources, questions)
    assert table["debates"].sum() == 2 and table["samples"].sum() == 7
    rows = {(r.source, r.level, r.metric): r for r in trace_yield(table, "data", "t", "word", "debates")}
    gain = rows["samples", None, "yield_gain"]
    assert gain.value == pytest.approx(5 / 8) and gain.n == 8 and gain.baseline_variant == "debates"
    assert rows["debates", 2, "yield"].value == 1 / 4 and ("debates", None, "yield_gain") not in rows


@pytest.fixture(scope="module")
def table():
    """Student "more", two seeds: correct where the base model is and on every third question. Vote: 15 of 20."""
    rng = random.Random(0)
    base_correct = [rng.random() < 0.4 for _ in range(30)]
    rows = [prediction(i, "base", "base", "s", 0, base_correct[i]) for i in range(30)]
    rows += [prediction(i, "more", "rsft", "s", s, base_correct[i] or i % 3 == s) for i in range(30) for s in (0, 1)]
    rows += [prediction(i, "more", "vote", "", 0, i < 15) for i in range(20)]
    rivals = {"rsft": [{"method": "base", "label": "base"}, {"method": "vote"}, {"label": "none"}]}
    conditions = {"base": {"variant": ""}, "more": {"variant": "questions", "questions": 400, "source": "debates"}}
    found = scores(with_conditions(rows, conditions), "data", "t", "word", lambda s: rivals.get(s["method"], []))
    return base_correct, frame(found)


def test_gains_of_the_mean_over_seeds_are_paired_by_question(table):
    base_correct, scores = table
    gain = scores[scores["metric"] == "accuracy_gain"].set_index("baseline")
    own = [(base_correct[i] or i % 3 == 0) / 2 + (base_correct[i] or i % 3 == 1) / 2 for i in range(30)]
    assert gain.loc["base", "value"] == pytest.approx(sum(a - b for a, b in zip(own, base_correct, strict=True)) / 30)
    assert gain.loc["base", "lo"] > 0 and gain.loc["base", "n"] == 30
    assert gain.loc["vote", "value"] == pytest.approx(sum(own[:20]) / 20 - 15 / 20) and gain.loc["vote", "n"] == 20
    assert set(gain.index) == {"base", "vote"}
    assert set(scores.query("method == 'rsft' and metric == 'accuracy'")["seed"]) == {"0", "1", "all"}
    assert scores.query("method == 'vote'")["calls_per_question"].iloc[0] == 1.5
    assert set(scores.query("method != 'rsft'")["train_task"]) == {""}
    assert set(scores.query("method == 'base'")["source"]) == {""}  # a fact that its condition lacks
    more = scores.query("method == 'rsft'")
    assert (
        set(more["variant"]) == {"questions"} and set(more["questions"]) == {400} and set(more["setting"]) == {"test"}
    )
    assert set(gain["baseline_variant"]) == {""} and scores.query("method == 'base'")["questions"].isna().all()


def test_findings_follow_the_intervals(table):
    lines = sentences.variant_findings(table[1])
    assert len(lines) == 2 and lines[0].startswith("questions, R-SFT, s vs. the base: +0.") and "(better)" in lines[0]


def test_figures_show_every_experiment(table):
    rows = table[1].query("metric == 'accuracy' and variant == 'questions'")
    bars = charts.intervals(rows, "variant", "accuracy")
    assert [t.get_text() for t in bars.axes[0].get_xticklabels()] == ["questions"]
    trend = charts.trends(rows, "questions", "training questions")
    assert [t.get_text() for t in trend.legends[0].get_texts()] == ["R-SFT", "teacher, vote"]
    plt.close("all")

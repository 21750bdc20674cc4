"""Variants of a student's data: what is kept is as asked for, gains are paired by question, finished trainings stay."""

import random
from collections import Counter

import matplotlib.pyplot as plt
import pytest
from examples import GOLD, KEYS, SLIPPED, SWAPPED, said
from hypothesis import given
from hypothesis import strategies as st
from test_protocols import held, quarrel, told

from agentark import StudyError
from agentark.debate.protocols import Debate
from agentark.evaluate.scores import conditioned, scores, yields
from agentark.report import charts, sentences
from agentark.schemas import Prediction, Trajectory, frame
from agentark.traces import selection
from agentark.traces.check import check_traces
from agentark.traces.reading import SUMMARISER
from agentark.traces.selection import select

QUESTIONS = [f"q{i}" for i in range(8)]


def crowd(agents: int, reads: int) -> Debate:
    return Debate(agents, rounds=3, temperature=1.0, revision_temperature=0.2, order="shared", reads=reads)


def kept(question: str, agent: int, first: bool) -> Trajectory:
    return Trajectory(
        question_id=question, agent=agent, round=1, prompt=question, text=f"trace {agent}", answer="1",
        answer_only="answer : 1", corrective=False, rank=0 if first else 1, for_rsft=first, for_da=True,
    )  # fmt: skip


def trajectories(counts: dict[str, int]) -> list[Trajectory]:
    return [kept(q, agent, agent == 0) for q, n in counts.items() for agent in range(n)]


def prediction(number: int, experiment: str, method: str, student: str, seed: int, correct: bool) -> Prediction:
    return Prediction(
        question_id=f"q{number}", task="word", setting=experiment, method=method, student=student, seed=seed, text="",
        answer=None, correct=correct, steps_needed=1, steps_present=1, steps_written=1, steps_right=1, steps_grounded=1,
        errors=0, errors_noticed=0, errors_mended=0, tokens=10, calls=1 + number % 2,
    )  # fmt: skip


@pytest.mark.parametrize(("agents", "reads"), [(5, 0), (5, 4), (5, 9), (3, 2)])
def test_who_may_read_all_debates_as_in_the_paper(agents, reads):
    turns, others = (held(crowd(agents, r), quarrel) for r in (reads, 0))
    assert turns == others


@given(st.integers(4, 20), st.data())
def test_in_a_crowd_each_agent_is_told_its_own_trace_and_as_many_others_as_it_may_read(agents, data):
    reads = data.draw(st.integers(1, agents - 2))
    _, second, *_ = held(crowd(agents, reads), quarrel)
    heard = Counter()
    for turn in second:
        agents_told = [a for a in range(1, agents + 1) if f"agent {a} says 1\n" in told(turn)]
        place = agents_told.index(turn.agent) + 1
        assert len(agents_told) == reads + 1 and told(turn).endswith(f"revise agent {place}")
        heard.update(agents_told)
    assert set(heard.values()) == {reads + 1}  # nobody's trace weighs more than another's


def test_a_crowd_s_summariser_reads_the_most_frequent_answer_alone():
    def says(agent, round):
        return f"{GOLD if agent in (1, 3, 5, 7) else quarrel(agent, round)}\n"

    (last,) = held(crowd(8, 2), says)[-1]
    assert last.agent == SUMMARISER and told(last).count(GOLD) == 3 and "says" not in told(last)


def test_plain_traces_can_be_told_to_come_first():
    debate = [said(1, 1, SLIPPED), said(2, 1, SWAPPED), said(1, 2, GOLD), said(2, 2, SWAPPED)]
    checked = check_traces(debate, [KEYS])
    for first in (True, False):
        rows, _ = select(checked, [KEYS], 3, corrective_first=first)
        assert [r.corrective for r in rows if r.for_rsft] == [first] and len(rows) == 2


COUNTS = st.dictionaries(st.sampled_from(QUESTIONS), st.integers(1, 4), min_size=1)


@given(COUNTS, COUNTS, st.sampled_from(sorted(selection.KEPT)))
def test_trimmed_traces_are_as_many_and_of_the_same_questions_as_far_as_there_are(has, like, method):
    of = {
        name: {q: n if method == "da" else 1 for q, n in counts.items()}
        for name, counts in (("has", has), ("like", like))
    }
    wanted = sum(of["like"].values())
    if sum(of["has"].values()) < wanted:
        with pytest.raises(StudyError, match=f"cannot be cut to {wanted}"):
            selection.trimmed(trajectories(has), trajectories(like), method)
        return
    rows = selection.trimmed(trajectories(has), trajectories(like), method)
    assert len(rows) == wanted and [r for r in trajectories(has) if r in rows] == rows
    got = Counter(r.question_id for r in rows)
    assert all(got[q] >= min(n, of["like"].get(q, 0)) for q, n in of["has"].items())


def test_the_yield_of_sources_is_paired_by_question_and_told_by_level():
    questions = [KEYS.model_copy(update={"question_id": q, "level": 2 + i % 2}) for i, q in enumerate(QUESTIONS)]
    sources = {"debates": trajectories({"q0": 1, "q1": 2}), "samples": trajectories(dict.fromkeys(QUESTIONS[1:], 1))}
    table = selection.yielded(sources, questions)
    assert table["debates"].sum() == 2 and table["samples"].sum() == 7
    rows = {(r.source, r.level, r.metric): r for r in yields(table, "data", "t", "word", "debates")}
    gain = rows["samples", None, "yield_gain"]
    assert gain.value == pytest.approx(5 / 8) and gain.n == 8 and gain.baseline_variant == "debates"
    assert rows["debates", 2, "yield"].value == 1 / 4 and ("debates", None, "yield_gain") not in rows


@pytest.fixture(scope="module")
def table():
    """Two seeds of each: "more" answers whatever the base does and every third question; the vote half as many."""
    rng = random.Random(0)
    known = [rng.random() < 0.4 for _ in range(30)]
    rows = [prediction(i, "base", "base", "s", 0, known[i]) for i in range(30)]
    rows += [prediction(i, "more", "rsft", "s", s, known[i] or i % 3 == s) for i in range(30) for s in (0, 1)]
    rows += [prediction(i, "more", "vote", "", 0, i < 15) for i in range(20)]
    rivals = {"rsft": [{"method": "base", "label": "base"}, {"method": "vote"}, {"label": "none"}]}
    conditions = {"base": {"variant": ""}, "more": {"variant": "questions", "questions": 400}}
    found = scores(conditioned(rows, conditions), "data", "t", "word", lambda s: rivals.get(s["method"], []))
    return known, frame(found)


def test_gains_are_paired_by_question_of_the_mean_over_seeds(table):
    known, scores = table
    gain = scores[scores["metric"] == "accuracy_gain"].set_index("baseline")
    own = [(known[i] or i % 3 == 0) / 2 + (known[i] or i % 3 == 1) / 2 for i in range(30)]
    assert gain.loc["base", "value"] == pytest.approx(sum(a - b for a, b in zip(own, known, strict=True)) / 30)
    assert gain.loc["base", "lo"] > 0 and gain.loc["base", "n"] == 30
    assert gain.loc["vote", "value"] == pytest.approx(sum(own[:20]) / 20 - 15 / 20) and gain.loc["vote", "n"] == 20
    assert set(gain.index) == {"base", "vote"}
    assert set(scores.query("method == 'rsft' and metric == 'accuracy'")["seed"]) == {"0", "1", "all"}
    assert scores.query("method == 'vote'")["calls_per_question"].iloc[0] == 1.5
    assert set(scores.query("method != 'rsft'")["train_task"]) == {""}
    more = scores.query("method == 'rsft'")
    assert (
        set(more["variant"]) == {"questions"} and set(more["questions"]) == {400} and set(more["setting"]) == {"test"}
    )
    assert set(gain["baseline_variant"]) == {""} and scores.query("method == 'base'")["questions"].isna().all()


def test_findings_say_what_the_intervals_allow(table):
    lines = sentences.variant_findings(table[1])
    assert len(lines) == 2 and lines[0].startswith("questions, R-SFT, s vs. the base: +0.") and "(better)" in lines[0]


def test_figures_draw_every_experiment(table):
    rows = table[1].query("metric == 'accuracy' and variant == 'questions'")
    bars = charts.intervals(rows, "variant", "accuracy")
    assert [t.get_text() for t in bars.axes[0].get_xticklabels()] == ["questions"]
    trend = charts.trends(rows, "questions", "training questions")
    assert [t.get_text() for t in trend.legends[0].get_texts()] == ["R-SFT", "teacher, vote"]
    plt.close("all")

"""MAD, MAV and DyLAN on generated and published questions: order of calls, prompts and the end of the debate."""

import pytest
from examples import GOLD, KEYS, MAX_TOKENS, REORDERED, WRONG_STEP
from examples import trace_of as trace
from test_protocols import disagreeing_reply, prompt_of, turns_of

from agentark import StudyError, root
from agentark.debate.protocols import MAD, MAV, Debate, DyLAN, approves, make_protocol, ranked
from agentark.debate.run import run_debates, run_group
from agentark.engines import Store, engine
from agentark.evaluate.predictions import predict
from agentark.tasks import task
from agentark.traces.check import accuracy_by_round, check_traces
from agentark.traces.reading import SUMMARISER
from agentark.traces.selection import select

PUBLISHED = KEYS.model_copy(update={"task": "gsm8k", "quantities": [], "text": "How many keys do they have?"})
QUESTIONS = [KEYS, PUBLISHED]
NO_ANSWER = "dora = 1"  # states no answer and is no part of another trace
NAMES = ["debate", "mad", "mav", "dylan"]


def mad(rounds=3):
    return MAD(rounds, temperature=1.0, revision_temperature=0.2)


def mav(candidates=3, verifiers=2):
    return MAV(candidates, verifiers, temperature=1.0, verifier_temperature=0.2)


def dylan(agents=5, rounds=3, keep=2):
    return DyLAN(agents, rounds, temperature=1.0, revision_temperature=0.2, order="shared", keep=keep)


def protocol_named(name, agents=3, rounds=3):
    return make_protocol(name, agents, rounds, 1.0, 0.2, "shared")


def agents_and_rounds(turns):
    return [[(t.agent, t.round) for t in step] for step in turns]


def undecided(agent, round):
    return "UNDECIDED" if agent == SUMMARISER else disagreeing_reply(agent, round)


# MAD


@pytest.mark.parametrize("question", QUESTIONS, ids=["world", "published"])
def test_mad_runs_both_sides_and_then_the_moderator_in_each_round(question):
    turns = turns_of(mad(rounds=3), undecided, question)
    assert agents_and_rounds(turns) == [[(agent, k)] for k in (1, 2, 3) for agent in (1, 2, SUMMARISER)]
    assert [t.temperature for (t,) in turns] == [1.0, 1.0, 0.2] + 6 * [0.2]


@pytest.mark.parametrize("agreed", [1, 2])
def test_mad_on_generated_questions_ends_when_the_sides_agree(agreed):
    turns = turns_of(mad(rounds=3), lambda agent, round: GOLD if round >= agreed else disagreeing_reply(agent, round))
    assert agents_and_rounds(turns)[-1] == [(SUMMARISER, agreed)]


@pytest.mark.parametrize("deciding_round", [1, 2])
def test_mad_on_published_questions_ends_when_the_moderator_decides(deciding_round):
    def reply_text(agent, round):
        return (
            f"The answer is {9 if agent == SUMMARISER else agent}."
            if round == deciding_round
            else undecided(agent, round)
        )

    assert agents_and_rounds(turns_of(mad(rounds=3), reply_text, PUBLISHED))[-1] == [(SUMMARISER, deciding_round)]


@pytest.mark.parametrize(
    "verdict", ["UNDECIDED", "", "<think>The answer is 9. UNDECIDED?", "<think>9</think>UNDECIDED"]
)
def test_a_moderator_reply_without_an_answer_is_not_a_decision(verdict):
    turns = turns_of(mad(2), lambda agent, round: disagreeing_reply(agent, round) if agent else verdict, PUBLISHED)
    assert agents_and_rounds(turns)[-1] == [(SUMMARISER, 2)]


def test_undecided_in_the_moderator_s_thought_does_not_prolong_the_debate():
    verdict = "<think>UNDECIDED, or not?</think>The answer is 9."
    turns = turns_of(mad(2), lambda agent, round: disagreeing_reply(agent, round) if agent else verdict, PUBLISHED)
    assert agents_and_rounds(turns)[-1] == [(SUMMARISER, 1)]


def test_mad_prompts_on_generated_questions_have_the_last_trace_of_both_sides():
    (one,), (two,), _, (one_again,), (two_again,), (moderator,) = turns_of(mad(rounds=2), disagreeing_reply)
    assert one.messages == two.messages == [{"role": "user", "content": KEYS.text}]
    for turn, traces in (
        (one_again, [disagreeing_reply(1, 1), disagreeing_reply(2, 1)]),
        (two_again, [disagreeing_reply(1, 2), disagreeing_reply(2, 1)]),
        (moderator, [disagreeing_reply(1, 2), disagreeing_reply(2, 2)]),
    ):
        listed = "".join(f"agent {i}\n{text}\n" for i, text in enumerate(traces, start=1))
        order = f"revise agent {turn.agent}" if turn.agent else "summarise"
        assert prompt_of(turn) == f"{KEYS.text}\n{listed}{order}"


def test_mad_on_published_questions_sends_the_opponent_s_traces_as_user_turns():
    turns = [step[0] for step in turns_of(mad(rounds=3), undecided, PUBLISHED)]
    assert turns[0].messages == [{"role": "user", "content": PUBLISHED.text}]
    for side, other in ((1, 2), (2, 1)):
        last = next(t for t in turns if (t.agent, t.round) == (side, 3))
        assert [m["role"] for m in last.messages] == ["user", "assistant", "user", "assistant", "user"]
        assert last.messages[0]["content"].startswith(PUBLISHED.text)
        assert [m["content"] for m in last.messages[1::2]] == [disagreeing_reply(side, 1), disagreeing_reply(side, 2)]
        read = [(other, k) for k in (1, 2, 3) if disagreeing_reply(other, k) in prompt_of(last)]
        assert read == ([(2, 1), (2, 2)] if side == 1 else [(1, 1), (1, 2), (1, 3)])
        assert disagreeing_reply(*read[-1]) in last.messages[-1]["content"]


def test_the_mad_moderator_reads_all_traces_and_must_decide_after_the_last_round():
    turns = [step[0] for step in turns_of(mad(rounds=2), undecided, PUBLISHED)]
    first, last = (t for t in turns if t.agent == SUMMARISER)
    assert all(disagreeing_reply(side, 1) in prompt_of(first) for side in (1, 2))
    assert all(disagreeing_reply(side, k) in prompt_of(last) for side in (1, 2) for k in (1, 2))
    assert ("UNDECIDED" in prompt_of(first), "UNDECIDED" in prompt_of(last)) == (True, False)


# MAV


@pytest.mark.parametrize("question", QUESTIONS, ids=["world", "published"])
def test_each_mav_verifier_reads_exactly_one_candidate(question):
    candidates, checks, (last,) = turns_of(mav(candidates=3, verifiers=2), disagreeing_reply, question)
    assert agents_and_rounds([candidates]) == [[(1, 1), (2, 1), (3, 1)]]
    assert all(t.messages == [{"role": "user", "content": question.text}] for t in candidates)
    assert agents_and_rounds([checks]) == [[(SUMMARISER, k) for k in range(2, 8)]]
    read = [[agent for agent in (1, 2, 3) if disagreeing_reply(agent, 1) in prompt_of(t)] for t in checks]
    assert read == [[1], [1], [2], [2], [3], [3]]
    assert (last.agent, last.round) == (SUMMARISER, 8)
    assert [{t.temperature for t in step} for step in (candidates, checks, [last])] == [{1.0}, {0.2}, {0.2}]


def test_mav_verifiers_of_published_questions_check_different_aspects():
    _, checks, _ = turns_of(mav(candidates=1, verifiers=5), disagreeing_reply, PUBLISHED)
    assert len({prompt_of(t) for t in checks}) == 5


def test_a_mav_verifier_of_a_generated_question_revises_the_candidate():
    _, checks, _ = turns_of(mav(candidates=2, verifiers=1), disagreeing_reply)
    assert prompt_of(checks[1]) == f"{KEYS.text}\nagent 1\n{disagreeing_reply(2, 1)}\nrevise agent 1"


def chosen(verdicts, texts=(WRONG_STEP, GOLD, NO_ANSWER, REORDERED), question=KEYS):
    """The candidates that the summariser reads, for the verifiers' replies in the order of the candidates."""

    def reply_text(agent, round):
        return texts[agent - 1] if agent else verdicts[round - 2] if round - 2 < len(verdicts) else GOLD

    *_, (last,) = turns_of(mav(len(texts), len(verdicts) // len(texts)), reply_text, question)
    return [i for i, text in enumerate(texts, start=1) if text in prompt_of(last)]


def test_mav_on_generated_questions_selects_the_answer_that_most_verifiers_give():
    # Only candidate 4 has two approvals; candidate 2 states the same answer.
    assert chosen([GOLD, GOLD, GOLD, WRONG_STEP, NO_ANSWER, NO_ANSWER, GOLD, GOLD]) == [2, 4]
    assert chosen([WRONG_STEP, WRONG_STEP, GOLD, NO_ANSWER, NO_ANSWER, NO_ANSWER, GOLD, NO_ANSWER]) == [1]
    assert chosen([NO_ANSWER] * 8) == [1]  # no approvals: the earliest


def test_mav_on_published_questions_counts_the_verdicts_of_each_candidate():
    yes, no = "No slip found.\nVerdict: approve", "Step 2 is wrong.\n**Verdict:** Reject"
    assert chosen([yes, no, yes, yes, no, no, no, yes], question=PUBLISHED) == [2, 4]
    assert chosen([yes, yes, yes, no, no, no, yes, no], question=PUBLISHED) == [1]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Verdict: approve", True),
        ("**Verdict: Approve**", True),
        ("Verdict: approve\nBut wait.\nVerdict: reject", False),
        ("I approve.", False),
        ("", False),
    ],
)
def test_only_the_last_verdict_of_a_verifier_counts(reply, verdict):
    assert approves(reply, GOLD, PUBLISHED) is verdict


# DyLAN


@pytest.mark.parametrize("question", QUESTIONS, ids=["world", "published"])
def test_dylan_runs_all_agents_for_two_rounds_and_then_only_the_best(question):
    *turns, last = turns_of(dylan(agents=5, rounds=4), disagreeing_reply, question)
    all_agents, best = [1, 2, 3, 4, 5], [1, 2]
    rounds = {k: [t.agent for step in turns for t in step if t.agent and t.round == k] for k in (1, 2, 3, 4)}
    assert rounds == {1: all_agents, 2: all_agents, 3: best, 4: best}
    ranking = [step for step in turns if step[0].agent == SUMMARISER]
    assert agents_and_rounds(ranking) == ([[(SUMMARISER, 2)]] if question is PUBLISHED else [])
    assert agents_and_rounds([last]) == [[(SUMMARISER, 5)]]


def test_dylan_prompts_have_all_traces_of_the_previous_round():
    *_, third, fourth, _ = turns_of(dylan(agents=5, rounds=4), disagreeing_reply)
    assert all(disagreeing_reply(agent, 2) in prompt_of(t) for t in third for agent in range(1, 6))
    assert [prompt_of(t).rsplit("\n", 1)[1] for t in third] == ["revise agent 1", "revise agent 2"]
    assert [[a for a in range(1, 6) if disagreeing_reply(a, 3) in prompt_of(t)] for t in fourth] == [[1, 2], [1, 2]]


@pytest.mark.parametrize(("agents", "enough"), [(3, 3), (4, 3), (5, 4), (6, 5)])
def test_dylan_stops_as_soon_as_more_than_two_thirds_agree(agents, enough):
    for agreeing in (enough - 1, enough):
        turns = turns_of(dylan(agents), lambda a, k, n=agreeing: GOLD if a > agents - n else disagreeing_reply(a, k))
        assert turns[-1][0].round == (2 if agreeing == enough else 4)


def test_dylan_on_generated_questions_keeps_agents_with_the_most_frequent_answer():
    third = turns_of(
        dylan(5, 3), lambda a, k: {2: WRONG_STEP, 3: GOLD, 4: NO_ANSWER, 5: REORDERED}.get(a, disagreeing_reply(a, k))
    )[2]
    assert [t.agent for t in third] == [3, 5]


def test_dylan_on_published_questions_keeps_the_agents_that_the_ranker_lists():
    third = turns_of(dylan(5, 3), lambda a, k: disagreeing_reply(a, k) if a else "Best are agents [5, 3].", PUBLISHED)[
        3
    ]
    assert [t.agent for t in third] == [3, 5]


def test_the_dylan_summariser_reads_the_traces_with_the_most_frequent_answer():
    replies = {1: GOLD, 2: WRONG_STEP, 3: REORDERED, 4: WRONG_STEP.replace("40", "41"), 5: NO_ANSWER}
    *_, (last,) = turns_of(dylan(5, 2), lambda a, k: replies.get(a, GOLD))
    assert [a for a in replies if replies[a] in prompt_of(last)] == [1, 3]


@pytest.mark.parametrize(
    ("reply", "order"),
    [
        ("[3, 1]", [2, 0, 1, 3]),
        ("Not [1, 2] but [ 4,2 ].", [3, 1, 0, 2]),
        ("[9, 2, 2, 0]", [1, 0, 2, 3]),
        ("", [0, 2, 1, 3]),
    ],
)
def test_a_ranking_is_read_from_the_last_brackets_and_completed_by_agreement(reply, order):
    assert (
        ranked(reply, [GOLD, WRONG_STEP, REORDERED, NO_ANSWER], PUBLISHED.model_copy(update={"kind": "number"}))
        == order
    )


# All protocols


@pytest.mark.parametrize("question", QUESTIONS, ids=["world", "published"])
@pytest.mark.parametrize("agents", [1, 2, 5])
@pytest.mark.parametrize(("name", "rounds"), [(n, k) for n in NAMES for k in (1, 2, 3, 4) if (n, k) != ("mav", 1)])
def test_the_longest_debate_makes_the_stated_calls_with_unique_agent_and_round(name, rounds, agents, question):
    protocol = protocol_named(name, agents, rounds)
    turns = turns_of(protocol, undecided if agents > 1 else lambda agent, round: "", question)
    calls = [call for step in agents_and_rounds(turns) for call in step]
    no_ranker = name == "dylan" and question is KEYS and agents > 2 and rounds > 2
    assert len(calls) == protocol.calls - no_ranker
    assert len(set(calls)) == len(calls)
    assert calls[-1][0] == SUMMARISER


def test_protocols_are_built_by_name_with_their_number_of_calls():
    assert protocol_named("debate") == Debate(3, 3, 1.0, 0.2, "shared")
    assert [type(protocol_named(name)) for name in NAMES] == [Debate, MAD, MAV, DyLAN]
    assert [protocol_named(name, 5, 3).calls for name in NAMES] == [16, 9, 16, 14]


@pytest.mark.parametrize(
    ("name", "rounds", "line"),
    [
        ("deabte", 3, "protocol 'deabte' is unknown; choose one of debate, mad, mav, dylan"),
        ("mav", 1, "protocol mav with rounds=1 has no verifier; use 2 rounds or more"),
    ],
)
def test_an_unknown_protocol_or_too_few_rounds_is_a_one_line_error(name, rounds, line):
    with pytest.raises(StudyError) as error:
        protocol_named(name, rounds=rounds)
    assert str(error.value) == line


def test_the_prediction_is_the_last_answer_of_agent_0_or_else_the_majority():
    traces = [trace(1, 1, WRONG_STEP), trace(2, 1, WRONG_STEP), trace(0, 2, WRONG_STEP), trace(0, 3, GOLD)]
    assert [p.answer for p in predict(traces, [KEYS], "test", "mav")] == ["39"]
    assert [p.answer for p in predict(traces[:2] + [trace(3, 1, GOLD)], [KEYS], "test", "vote")] == ["40"]


@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_runs_each_protocol_and_all_later_steps_read_its_traces(name, tmp_path):
    questions, protocol = task("equation").questions(4, "validation", 0), protocol_named(name, agents=5)
    arguments = dict(model="data/models/teacher", store=tmp_path, seed=0, max_tokens=MAX_TOKENS)
    traces, _ = run_debates(protocol, questions, **arguments)
    assert run_debates(protocol, questions, **arguments)[0] == traces
    for question in questions:
        own = [t for t in traces if t.question_id == question.question_id]
        assert 3 <= len(own) <= protocol.calls
        assert len({(t.agent, t.round) for t in own}) == len(own)
        assert own[-1].agent == SUMMARISER
    predictions = predict(traces, questions, "test", name)
    assert [p.answer for p in predictions] == [
        next(t.answer for t in reversed(traces) if t.question_id == q.question_id) for q in questions
    ]
    assert sum(p.correct for p in predictions) >= 2
    checked = check_traces(traces, questions)
    assert accuracy_by_round(checked, questions, 3)["n"].tolist() == [4, 4, 4]
    rows, counts = select(checked, questions, 3)
    assert counts["questions"] == 4 and 2 <= counts["kept for R-SFT"] == sum(r.for_rsft for r in rows)


def test_all_requests_of_one_debate_are_distinct(tmp_path):
    """Equal requests would share one sample, and on generated questions all verifiers of a candidate get one prompt."""
    (question,) = task("equation").questions(1, "validation", 0)
    recorded = []

    class RecordingStore(Store):
        def generate(self, engine, requests):
            recorded.extend(requests)
            return super().generate(engine, requests)

    run_group(mav(3, 2), [question], [engine(root() / "data/models/teacher")], RecordingStore(tmp_path), 0, MAX_TOKENS)
    assert len(recorded) == 10 and len({r.seed for r in recorded}) == 10

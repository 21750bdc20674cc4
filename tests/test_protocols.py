from dataclasses import replace

import pytest
from examples import GOLD, KEYS, REORDERED, UNANSWERED, WRONG_STEP
from hypothesis import given
from hypothesis import strategies as st

from agentark import StudyError
from agentark.debate.controls import check_controls
from agentark.debate.independent import Vote
from agentark.debate.prompts import ORDERS
from agentark.debate.protocols import Debate
from agentark.debate.run import run_debates
from agentark.engines import Reply, Request
from agentark.engines.requests import separate_thought
from agentark.traces.reading import SUMMARISER, majority, unanimous


def parsed_reply(text, turn):
    """A reply as the store returns it, with the thought separated from the text."""
    return separate_thought(Reply(text, 9, 9, "stop", 0.0), Request(turn.messages, turn.temperature, 72, 0))


def turns_of(protocol, reply_text, question=KEYS):
    """All turns of a debate in lists of simultaneous turns, where each reply is `reply_text(agent, round)`."""
    generator = protocol.turns(question)
    steps, turns = [], next(generator)
    while turns:
        steps.append(turns)
        try:
            turns = generator.send([parsed_reply(reply_text(t.agent, t.round), t) for t in turns])
        except StopIteration:
            return steps


def debate(agents=3, rounds=3, order="shared"):
    return Debate(agents, rounds, temperature=1.0, revision_temperature=0.2, order=order)


def disagreeing_reply(agent, round):
    return f"agent {agent} says {round}\nanswer : {agent}"


def prompt_of(turn):
    return "\n".join(message["content"] for message in turn.messages)


def test_vote_sends_the_same_question_to_all_agents_at_once():
    (turns,) = turns_of(Vote(calls=4, temperature=0.7), disagreeing_reply)
    assert [(t.agent, t.round, t.temperature) for t in turns] == [(a, 1, 0.7) for a in (1, 2, 3, 4)]
    assert all(t.messages == [{"role": "user", "content": KEYS.text}] for t in turns)


@pytest.mark.parametrize("rounds", [1, 2, 3, 5])
@pytest.mark.parametrize("agents", [1, 2, 5])
def test_a_debate_without_agreement_runs_all_rounds_and_then_the_summariser(agents, rounds):
    reply_text = disagreeing_reply if agents > 1 else lambda agent, round: UNANSWERED
    *debate_turns, last = turns_of(debate(agents, rounds), reply_text)
    assert [[(t.agent, t.round) for t in turns] for turns in debate_turns] == [
        [(agent, k) for agent in range(1, agents + 1)] for k in range(1, rounds + 1)
    ]
    assert [(t.agent, t.round) for t in last] == [(SUMMARISER, rounds + 1)]


@pytest.mark.parametrize("agreed", [1, 2, 3])
def test_a_debate_ends_with_the_round_in_which_all_agree(agreed):
    turns = turns_of(
        debate(rounds=4), lambda agent, round: GOLD if round >= agreed else disagreeing_reply(agent, round)
    )
    assert [t[0].round for t in turns] == list(range(1, agreed + 2))
    assert turns[-1][0].agent == SUMMARISER


def test_agents_without_an_answer_do_not_agree():
    assert len(turns_of(debate(rounds=3), lambda agent, round: UNANSWERED)) == 4


def test_only_first_answers_are_sampled_at_the_high_temperature():
    assert [{t.temperature for t in turns} for turns in turns_of(debate(rounds=2), disagreeing_reply)] == [
        {1.0},
        {0.2},
        {0.2},
    ]


@pytest.mark.parametrize("order", ORDERS)
def test_revision_prompts_have_the_question_and_all_traces_of_the_previous_round(order):
    _, second, third, _ = turns_of(debate(agents=4, order=order), disagreeing_reply)
    for turns, previous in ((second, 1), (third, 2)):
        for turn in turns:
            assert KEYS.text in prompt_of(turn)
            assert all(prompt_of(turn).count(disagreeing_reply(agent, previous)) == 1 for agent in (1, 2, 3, 4))
            assert f"says {previous - 1}" not in prompt_of(turn) and f"says {previous + 1}" not in prompt_of(turn)


def test_prompts_in_shared_order_differ_only_in_their_last_line():
    _, second, _, _ = turns_of(debate(), disagreeing_reply)
    heads, tails = zip(*(prompt_of(turn).rsplit("\n", 1) for turn in second), strict=True)
    assert len(set(heads)) == 1
    assert tails == ("revise agent 1", "revise agent 2", "revise agent 3")


def test_in_chat_order_the_own_trace_is_the_assistant_turn_and_peers_come_after():
    _, second, _, _ = turns_of(debate(order="chat"), disagreeing_reply)
    for turn in second:
        question, own, peers = turn.messages
        assert (question["role"], own["role"], peers["role"]) == ("user", "assistant", "user")
        assert own["content"] == disagreeing_reply(turn.agent, 1)
        assert [a for a in (1, 2, 3) if disagreeing_reply(a, 1) in peers["content"]] == [
            a for a in (1, 2, 3) if a != turn.agent
        ]


def test_the_summariser_prompt_has_the_last_trace_of_every_agent():
    *_, (last,) = turns_of(debate(rounds=2), disagreeing_reply)
    assert all(disagreeing_reply(agent, 2) in prompt_of(last) for agent in (1, 2, 3))
    assert "says 1" not in prompt_of(last)
    assert prompt_of(last).endswith("\nsummarise")


@pytest.mark.parametrize(
    ("traces", "agree"),
    [
        ([GOLD, REORDERED], True),
        ([GOLD, WRONG_STEP], False),
        ([GOLD, UNANSWERED], False),
        ([UNANSWERED, UNANSWERED], False),
        ([GOLD], True),
    ],
)
def test_traces_are_unanimous_if_all_state_the_same_answer(traces, agree):
    assert unanimous(traces, KEYS) is agree


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["1", "2", "2"], "2"),
        (["2", "1", "1", "2"], "2"),
        ([None, None, "3"], "3"),
        ([None, "4", "3", None], "4"),
        ([None], None),
        ([], None),
    ],
)
def test_the_majority_is_the_most_frequent_answer_and_the_earliest_in_a_tie(answers, winner):
    assert majority(answers) == winner


@given(st.lists(st.none() | st.sampled_from("abc"), max_size=9))
def test_no_answer_is_more_frequent_than_the_majority(answers):
    stated = [a for a in answers if a is not None]
    assert majority(answers) == max(stated, key=stated.count, default=None)


@pytest.mark.parametrize("order", ORDERS)
def test_without_communication_an_agent_reads_copies_of_its_own_trace(order):
    """Calls, rounds and the summary are the same as in the debate; only the peers' traces are replaced."""
    on, off = (turns_of(replace(debate(order=order), communication=c), disagreeing_reply) for c in ("on", "off"))
    assert [[(t.agent, t.round, t.temperature) for t in turns] for turns in on] == [
        [(t.agent, t.round, t.temperature) for t in turns] for turns in off
    ]
    assert on[0] == off[0]
    (summary,) = off[-1]
    assert prompt_of(summary).count(disagreeing_reply(1, 3)) == 3 and disagreeing_reply(2, 3) not in prompt_of(
        summary
    )  # the earliest trace in a tie
    for turn in (turn for turns in off[1:-1] for turn in turns):
        for agent in (1, 2, 3):
            copies = prompt_of(turn).count(disagreeing_reply(agent, turn.round - 1))
            assert copies == (3 if agent == turn.agent else 0)


def test_without_communication_the_author_of_the_majority_s_trace_summarises():
    """This also holds when agents read few traces: there are as many copies as traces in the debate's summary."""
    for reads, copies in ((0, 4), (1, 2)):
        protocol = replace(debate(agents=4), reads=reads, communication="off")
        (summary,) = turns_of(protocol, lambda agent, _: WRONG_STEP if agent == 1 else GOLD)[-1]
        assert summary.played_by == 2 and prompt_of(summary).count(GOLD) == copies


def test_traces_of_another_question_replace_those_of_the_peers():
    foreign = {KEYS.question_id: ["foreign 1\nanswer : 1", "foreign 2\nanswer : 2", "foreign 3\nanswer : 3"]}
    turns = turns_of(replace(debate(), communication="other", foreign=foreign), disagreeing_reply)[1]
    for turn in turns:
        prompt = prompt_of(turn)
        assert disagreeing_reply(turn.agent, 1) in prompt
        assert [f"foreign {i}" in prompt for i in (1, 2, 3)] == [i != turn.agent for i in (1, 2, 3)]


def test_one_agent_revises_its_own_trace_in_every_round():
    turns = turns_of(debate(agents=1, rounds=3), disagreeing_reply)
    assert [(t.agent, t.round) for (t,) in turns] == [(1, 1), (1, 2), (1, 3), (SUMMARISER, 4)]
    assert all(disagreeing_reply(1, t.round - 1) in prompt_of(t) for (t,) in turns[1:3])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"agents": 0}, "debate: agents=0 is below 1"), ({"rounds": -1}, "debate: rounds=-1 is below 1"),
        ({"temperature": -0.1}, "temperature=-0.1 is below 0"), ({"temperature": float("nan")}, "temperature=nan"),
        ({"revision_temperature": -1.0}, "revision_temperature=-1.0 is below 0"),
        ({"order": "Shared"}, "order='Shared' is unknown; choose one of shared, chat"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_reported_before_any_call(changed, message, tmp_path):
    with pytest.raises(StudyError, match=message):
        run_debates(replace(debate(), **changed), [KEYS], "data/models/none", tmp_path, 0, 72)


def test_invalid_limits_and_controls_are_reported_before_any_call(tmp_path):
    with pytest.raises(StudyError, match="debate: max_tokens=0 is below 1; choose 1 or more"):
        run_debates(debate(), [KEYS], "data/models/none", tmp_path, 0, 0)
    with pytest.raises(StudyError, match="vote: calls=0 is below 1"):
        run_debates(Vote(0, 1.0), [KEYS], "data/models/none", tmp_path, 0, 72)
    with pytest.raises(StudyError, match="controls: 'off' is none of greedy, vote, vote_tokens"):
        check_controls(["greedy", "off"], debate(), 1.0)
    with pytest.raises(StudyError, match="controls: 'debate_off' is none of greedy, vote"):
        check_controls(["debate_off"], Vote(3, 1.0), 1.0)
    with pytest.raises(StudyError, match=r"vote_temperature=-1\.0 is below 0"):
        check_controls([], debate(), -1.0)

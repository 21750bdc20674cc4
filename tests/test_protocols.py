from dataclasses import replace

import pytest
from examples import GOLD, KEYS, MUTE, SLIPPED, SWAPPED
from hypothesis import given
from hypothesis import strategies as st

from agentark import StudyError
from agentark.debate.controls import check_controls
from agentark.debate.independent import Vote
from agentark.debate.prompts import ORDERS
from agentark.debate.protocols import Debate
from agentark.debate.run import run_debates
from agentark.engines import Reply, Request
from agentark.engines.requests import parted
from agentark.traces.reading import SUMMARISER, majority, unanimous


def heard(text, turn):
    """A reply as the store hands it on: its thought is apart."""
    return parted(Reply(text, 9, 9, "stop", 0.0), Request(turn.messages, turn.temperature, 72, 0))


def held(protocol, says, question=KEYS):
    """All turns of a conversation by what is spoken at once, each agent saying `says(agent, round)`."""
    conversation = protocol.turns(question)
    rounds, turns = [], next(conversation)
    while turns:
        rounds.append(turns)
        try:
            turns = conversation.send([heard(says(t.agent, t.round), t) for t in turns])
        except StopIteration:
            return rounds


def debate(agents=3, rounds=3, order="shared"):
    return Debate(agents, rounds, temperature=1.0, revision_temperature=0.2, order=order)


def quarrel(agent, round):
    return f"agent {agent} says {round}\nanswer : {agent}"


def told(turn):
    return "\n".join(message["content"] for message in turn.messages)


def test_a_vote_asks_all_at_once_and_the_same():
    (turns,) = held(Vote(calls=4, temperature=0.7), quarrel)
    assert [(t.agent, t.round, t.temperature) for t in turns] == [(a, 1, 0.7) for a in (1, 2, 3, 4)]
    assert all(t.messages == [{"role": "user", "content": KEYS.text}] for t in turns)


@pytest.mark.parametrize("rounds", [1, 2, 3, 5])
@pytest.mark.parametrize("agents", [1, 2, 5])
def test_a_quarrel_lasts_all_rounds_and_the_summariser_speaks_last(agents, rounds):
    says = quarrel if agents > 1 else lambda agent, round: MUTE
    *spoken, last = held(debate(agents, rounds), says)
    assert [[(t.agent, t.round) for t in turns] for turns in spoken] == [
        [(agent, k) for agent in range(1, agents + 1)] for k in range(1, rounds + 1)
    ]
    assert [(t.agent, t.round) for t in last] == [(SUMMARISER, rounds + 1)]


@pytest.mark.parametrize("agreed", [1, 2, 3])
def test_a_debate_ends_with_the_round_in_which_all_agree(agreed):
    turns = held(debate(rounds=4), lambda agent, round: GOLD if round >= agreed else quarrel(agent, round))
    assert [t[0].round for t in turns] == list(range(1, agreed + 2))
    assert turns[-1][0].agent == SUMMARISER


def test_agents_who_state_no_answer_do_not_agree():
    assert len(held(debate(rounds=3), lambda agent, round: MUTE)) == 4


def test_only_first_answers_are_drawn_hot():
    assert [{t.temperature for t in turns} for turns in held(debate(rounds=2), quarrel)] == [{1.0}, {0.2}, {0.2}]


@pytest.mark.parametrize("order", ORDERS)
def test_each_agent_revises_with_the_question_and_all_traces_of_the_round_before(order):
    _, second, third, _ = held(debate(agents=4, order=order), quarrel)
    for turns, before in ((second, 1), (third, 2)):
        for turn in turns:
            assert KEYS.text in told(turn)
            assert all(told(turn).count(quarrel(agent, before)) == 1 for agent in (1, 2, 3, 4))
            assert f"says {before - 1}" not in told(turn) and f"says {before + 1}" not in told(turn)


def test_in_shared_order_agents_differ_in_their_last_line_only():
    _, second, _, _ = held(debate(), quarrel)
    heads, tails = zip(*(told(turn).rsplit("\n", 1) for turn in second), strict=True)
    assert len(set(heads)) == 1
    assert tails == ("revise agent 1", "revise agent 2", "revise agent 3")


def test_in_chat_order_the_own_trace_is_the_own_turn_and_the_peers_come_after():
    _, second, _, _ = held(debate(order="chat"), quarrel)
    for turn in second:
        question, own, peers = turn.messages
        assert (question["role"], own["role"], peers["role"]) == ("user", "assistant", "user")
        assert own["content"] == quarrel(turn.agent, 1)
        assert [a for a in (1, 2, 3) if quarrel(a, 1) in peers["content"]] == [a for a in (1, 2, 3) if a != turn.agent]


def test_the_summariser_reads_the_last_trace_of_all():
    *_, (last,) = held(debate(rounds=2), quarrel)
    assert all(quarrel(agent, 2) in told(last) for agent in (1, 2, 3))
    assert "says 1" not in told(last)
    assert told(last).endswith("\nsummarise")


@pytest.mark.parametrize(
    ("traces", "agree"),
    [([GOLD, SWAPPED], True), ([GOLD, SLIPPED], False), ([GOLD, MUTE], False), ([MUTE, MUTE], False), ([GOLD], True)],
)
def test_unanimity_is_one_stated_answer(traces, agree):
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
def test_the_most_frequent_answer_wins_and_the_earliest_among_equals(answers, winner):
    assert majority(answers) == winner


@given(st.lists(st.none() | st.sampled_from("abc"), max_size=9))
def test_no_answer_is_more_frequent_than_the_winner(answers):
    stated = [a for a in answers if a is not None]
    assert majority(answers) == max(stated, key=stated.count, default=None)


@pytest.mark.parametrize("order", ORDERS)
def test_without_communication_an_agent_reads_copies_of_its_own_trace(order):
    """Calls, rounds and the summary are those of the debate; only the peers' traces are replaced."""
    on, off = (held(replace(debate(order=order), communication=c), quarrel) for c in ("on", "off"))
    assert [[(t.agent, t.round, t.temperature) for t in turns] for turns in on] == [
        [(t.agent, t.round, t.temperature) for t in turns] for turns in off
    ]
    assert on[0] == off[0]
    (summary,) = off[-1]
    assert told(summary).count(quarrel(1, 3)) == 3 and quarrel(2, 3) not in told(summary)  # the earliest in a tie
    for turn in (turn for turns in off[1:-1] for turn in turns):
        for agent in (1, 2, 3):
            copies = told(turn).count(quarrel(agent, turn.round - 1))
            assert copies == (3 if agent == turn.agent else 0)


def test_without_communication_the_author_of_the_majority_s_trace_summarises():
    """Also where agents read few traces: the number of copies is that of the debate's summary."""
    for reads, copies in ((0, 4), (1, 2)):
        asked = replace(debate(agents=4), reads=reads, communication="off")
        (summary,) = held(asked, lambda agent, _: SLIPPED if agent == 1 else GOLD)[-1]
        assert summary.played_by == 2 and told(summary).count(GOLD) == copies


def test_peers_of_another_question_take_the_places_of_the_peers():
    foreign = {KEYS.question_id: ["foreign 1\nanswer : 1", "foreign 2\nanswer : 2", "foreign 3\nanswer : 3"]}
    turns = held(replace(debate(), communication="other", foreign=foreign), quarrel)[1]
    for turn in turns:
        shown = told(turn)
        assert quarrel(turn.agent, 1) in shown
        assert [f"foreign {i}" in shown for i in (1, 2, 3)] == [i != turn.agent for i in (1, 2, 3)]


def test_one_agent_revises_its_own_trace_in_every_round():
    turns = held(debate(agents=1, rounds=3), quarrel)
    assert [(t.agent, t.round) for (t,) in turns] == [(1, 1), (1, 2), (1, 3), (SUMMARISER, 4)]
    assert all(quarrel(1, t.round - 1) in told(t) for (t,) in turns[1:3])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"agents": 0}, "debate: agents=0 is below 1"), ({"rounds": -1}, "debate: rounds=-1 is below 1"),
        ({"temperature": -0.1}, "temperature=-0.1 is below 0"), ({"temperature": float("nan")}, "temperature=nan"),
        ({"revision_temperature": -1.0}, "revision_temperature=-1.0 is below 0"),
        ({"order": "Shared"}, "order='Shared' is unknown; choose one of shared, chat"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_told_before_a_call(changed, told, tmp_path):
    with pytest.raises(StudyError, match=told):
        run_debates(replace(debate(), **changed), [KEYS], "data/models/none", tmp_path, 0, 72)


def test_limits_and_controls_are_told_before_a_call(tmp_path):
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

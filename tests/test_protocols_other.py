"""MAD, MAV and DyLAN: who speaks when, what each sees, when it ends; in the generated world and for published questions."""

import pytest
from examples import GOLD, KEYS, MAX_TOKENS, SLIPPED, SWAPPED
from examples import said as trace
from test_protocols import held, quarrel, told

from agentark import StudyError, root
from agentark.debate.protocols import MAD, MAV, Debate, DyLAN, approves, named, ranked
from agentark.debate.run import run_debates, run_group
from agentark.engines import Store, engine
from agentark.evaluate.predictions import predict
from agentark.tasks import task
from agentark.traces.check import accuracy_by_round, check_traces
from agentark.traces.reading import SUMMARISER
from agentark.traces.selection import select

PUBLISHED = KEYS.model_copy(update={"task": "gsm8k", "quantities": [], "text": "How many keys do they have?"})
QUESTIONS = [KEYS, PUBLISHED]
SILENT = "dora = 1"  # no answer, and no part of another trace
NAMES = ["debate", "mad", "mav", "dylan"]


def mad(rounds=3):
    return MAD(rounds, temperature=1.0, revision_temperature=0.2)


def mav(candidates=3, verifiers=2):
    return MAV(candidates, verifiers, temperature=1.0, verifier_temperature=0.2)


def dylan(agents=5, rounds=3, keep=2):
    return DyLAN(agents, rounds, temperature=1.0, revision_temperature=0.2, order="shared", keep=keep)


def talk(name, agents=3, rounds=3):
    return named(name, agents, rounds, 1.0, 0.2, "shared")


def speakers(turns):
    return [[(t.agent, t.round) for t in spoken] for spoken in turns]


def undecided(agent, round):
    return "UNDECIDED" if agent == SUMMARISER else quarrel(agent, round)


# MAD


@pytest.mark.parametrize("question", QUESTIONS, ids=["world", "published"])
def test_the_sides_argue_by_turns_and_the_moderator_speaks_after_each_round(question):
    turns = held(mad(rounds=3), undecided, question)
    assert speakers(turns) == [[(agent, k)] for k in (1, 2, 3) for agent in (1, 2, SUMMARISER)]
    assert [t.temperature for (t,) in turns] == [1.0, 1.0, 0.2] + 6 * [0.2]


@pytest.mark.parametrize("agreed", [1, 2])
def test_in_the_world_mad_ends_when_the_sides_agree(agreed):
    turns = held(mad(rounds=3), lambda agent, round: GOLD if round >= agreed else quarrel(agent, round))
    assert speakers(turns)[-1] == [(SUMMARISER, agreed)]


@pytest.mark.parametrize("decides", [1, 2])
def test_a_published_mad_ends_when_the_moderator_decides_though_the_sides_do_not_agree(decides):
    def says(agent, round):
        return f"The answer is {9 if agent == SUMMARISER else agent}." if round == decides else undecided(agent, round)

    assert speakers(held(mad(rounds=3), says, PUBLISHED))[-1] == [(SUMMARISER, decides)]


@pytest.mark.parametrize(
    "verdict", ["UNDECIDED", "", "<think>The answer is 9. UNDECIDED?", "<think>9</think>UNDECIDED"]
)
def test_a_moderator_who_states_nothing_has_not_decided(verdict):
    turns = held(mad(2), lambda agent, round: quarrel(agent, round) if agent else verdict, PUBLISHED)
    assert speakers(turns)[-1] == [(SUMMARISER, 2)]


def test_what_a_moderator_thought_of_does_not_keep_the_debate_open():
    verdict = "<think>UNDECIDED, or not?</think>The answer is 9."
    turns = held(mad(2), lambda agent, round: quarrel(agent, round) if agent else verdict, PUBLISHED)
    assert speakers(turns)[-1] == [(SUMMARISER, 1)]


def test_in_the_world_each_side_answers_alone_then_revises_and_sees_only_the_opponent():
    (one,), (two,), _, (one_again,), (two_again,), (moderator,) = held(mad(rounds=2), quarrel)
    assert one.messages == two.messages == [{"role": "user", "content": KEYS.text}]
    for turn, traces in (
        (one_again, [quarrel(1, 1), quarrel(2, 1)]),
        (two_again, [quarrel(1, 2), quarrel(2, 1)]),
        (moderator, [quarrel(1, 2), quarrel(2, 2)]),
    ):
        listed = "".join(f"agent {i}\n{text}\n" for i, text in enumerate(traces, start=1))
        order = f"revise agent {turn.agent}" if turn.agent else "summarise"
        assert told(turn) == f"{KEYS.text}\n{listed}{order}"


def test_a_published_side_hears_the_other_as_its_partner_in_a_chat():
    turns = [spoken[0] for spoken in held(mad(rounds=3), undecided, PUBLISHED)]
    assert turns[0].messages == [{"role": "user", "content": PUBLISHED.text}]
    for side, other in ((1, 2), (2, 1)):
        last = next(t for t in turns if (t.agent, t.round) == (side, 3))
        assert [m["role"] for m in last.messages] == ["user", "assistant", "user", "assistant", "user"]
        assert last.messages[0]["content"].startswith(PUBLISHED.text)
        assert [m["content"] for m in last.messages[1::2]] == [quarrel(side, 1), quarrel(side, 2)]
        heard = [(other, k) for k in (1, 2, 3) if quarrel(other, k) in told(last)]
        assert heard == ([(2, 1), (2, 2)] if side == 1 else [(1, 1), (1, 2), (1, 3)])
        assert quarrel(*heard[-1]) in last.messages[-1]["content"]


def test_the_published_moderator_reads_all_arguments_and_may_not_wait_after_the_last_round():
    turns = [spoken[0] for spoken in held(mad(rounds=2), undecided, PUBLISHED)]
    first, last = (t for t in turns if t.agent == SUMMARISER)
    assert all(quarrel(side, 1) in told(first) for side in (1, 2))
    assert all(quarrel(side, k) in told(last) for side in (1, 2) for k in (1, 2))
    assert ("UNDECIDED" in told(first), "UNDECIDED" in told(last)) == (True, False)


# MAV


@pytest.mark.parametrize("question", QUESTIONS, ids=["world", "published"])
def test_each_verifier_is_alone_with_each_candidate(question):
    candidates, checks, (last,) = held(mav(candidates=3, verifiers=2), quarrel, question)
    assert speakers([candidates]) == [[(1, 1), (2, 1), (3, 1)]]
    assert all(t.messages == [{"role": "user", "content": question.text}] for t in candidates)
    assert speakers([checks]) == [[(SUMMARISER, k) for k in range(2, 8)]]
    seen = [[agent for agent in (1, 2, 3) if quarrel(agent, 1) in told(t)] for t in checks]
    assert seen == [[1], [1], [2], [2], [3], [3]]
    assert (last.agent, last.round) == (SUMMARISER, 8)
    assert [{t.temperature for t in spoken} for spoken in (candidates, checks, [last])] == [{1.0}, {0.2}, {0.2}]


def test_published_verifiers_of_one_candidate_look_at_different_aspects():
    _, checks, _ = held(mav(candidates=1, verifiers=5), quarrel, PUBLISHED)
    assert len({told(t) for t in checks}) == 5


def test_in_the_world_a_verifier_revises_the_candidate():
    _, checks, _ = held(mav(candidates=2, verifiers=1), quarrel)
    assert told(checks[1]) == f"{KEYS.text}\nagent 1\n{quarrel(2, 1)}\nrevise agent 1"


def chosen(verdicts, texts=(SLIPPED, GOLD, SILENT, SWAPPED), question=KEYS):
    """Which candidates the summariser reads, given the verifiers' words, candidate by candidate."""

    def says(agent, round):
        return texts[agent - 1] if agent else verdicts[round - 2] if round - 2 < len(verdicts) else GOLD

    *_, (last,) = held(mav(len(texts), len(verdicts) // len(texts)), says, question)
    return [i for i, text in enumerate(texts, start=1) if text in told(last)]


def test_in_the_world_the_candidate_wins_whose_answer_most_verifiers_come_to():
    assert chosen([GOLD, GOLD, GOLD, SLIPPED, SILENT, SILENT, GOLD, GOLD]) == [2, 4]  # the last alone has two approvals
    assert chosen([SLIPPED, SLIPPED, GOLD, SILENT, SILENT, SILENT, GOLD, SILENT]) == [1]
    assert chosen([SILENT] * 8) == [1]  # none approved: the earliest


def test_published_verdicts_are_counted_for_each_candidate():
    yes, no = "No slip found.\nVerdict: approve", "Step 2 is wrong.\n**Verdict:** Reject"
    assert chosen([yes, no, yes, yes, no, no, no, yes], question=PUBLISHED) == [2, 4]
    assert chosen([yes, yes, yes, no, no, no, yes, no], question=PUBLISHED) == [1]


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ("Verdict: approve", True),
        ("**Verdict: Approve**", True),
        ("Verdict: approve\nBut wait.\nVerdict: reject", False),
        ("I approve.", False),
        ("", False),
    ],
)
def test_a_verifier_approves_by_its_last_verdict_only(words, verdict):
    assert approves(words, GOLD, PUBLISHED) is verdict


# DyLAN


@pytest.mark.parametrize("question", QUESTIONS, ids=["world", "published"])
def test_all_answer_and_revise_once_then_the_best_go_on(question):
    *turns, last = held(dylan(agents=5, rounds=4), quarrel, question)
    everyone, best = [1, 2, 3, 4, 5], [1, 2]
    rounds = {k: [t.agent for spoken in turns for t in spoken if t.agent and t.round == k] for k in (1, 2, 3, 4)}
    assert rounds == {1: everyone, 2: everyone, 3: best, 4: best}
    ranking = [spoken for spoken in turns if spoken[0].agent == SUMMARISER]
    assert speakers(ranking) == ([[(SUMMARISER, 2)]] if question is PUBLISHED else [])
    assert speakers([last]) == [[(SUMMARISER, 5)]]


def test_who_goes_on_sees_all_of_the_round_before():
    *_, third, fourth, _ = held(dylan(agents=5, rounds=4), quarrel)
    assert all(quarrel(agent, 2) in told(t) for t in third for agent in range(1, 6))
    assert [told(t).rsplit("\n", 1)[1] for t in third] == ["revise agent 1", "revise agent 2"]
    assert [[a for a in range(1, 6) if quarrel(a, 3) in told(t)] for t in fourth] == [[1, 2], [1, 2]]


@pytest.mark.parametrize(("agents", "enough"), [(3, 3), (4, 3), (5, 4), (6, 5)])
def test_dylan_stops_as_soon_as_more_than_two_thirds_agree(agents, enough):
    for agreeing in (enough - 1, enough):
        turns = held(dylan(agents), lambda a, k, n=agreeing: GOLD if a > agents - n else quarrel(a, k))
        assert turns[-1][0].round == (2 if agreeing == enough else 4)


def test_in_the_world_those_go_on_with_whom_most_agree():
    third = held(dylan(5, 3), lambda a, k: {2: SLIPPED, 3: GOLD, 4: SILENT, 5: SWAPPED}.get(a, quarrel(a, k)))[2]
    assert [t.agent for t in third] == [3, 5]


def test_a_published_ranker_chooses_who_goes_on():
    third = held(dylan(5, 3), lambda a, k: quarrel(a, k) if a else "Best are agents [5, 3].", PUBLISHED)[3]
    assert [t.agent for t in third] == [3, 5]


def test_the_summariser_reads_those_who_state_the_most_frequent_answer():
    says = {1: GOLD, 2: SLIPPED, 3: SWAPPED, 4: SLIPPED.replace("40", "41"), 5: SILENT}
    *_, (last,) = held(dylan(5, 2), lambda a, k: says.get(a, GOLD))
    assert [a for a in says if says[a] in told(last)] == [1, 3]


@pytest.mark.parametrize(
    ("words", "order"),
    [
        ("[3, 1]", [2, 0, 1, 3]),
        ("Not [1, 2] but [ 4,2 ].", [3, 1, 0, 2]),
        ("[9, 2, 2, 0]", [1, 0, 2, 3]),
        ("", [0, 2, 1, 3]),
    ],
)
def test_a_ranking_is_read_from_the_last_brackets_and_completed_by_agreement(words, order):
    assert ranked(words, [GOLD, SLIPPED, SWAPPED, SILENT], PUBLISHED.model_copy(update={"kind": "number"})) == order


# All of them


@pytest.mark.parametrize("question", QUESTIONS, ids=["world", "published"])
@pytest.mark.parametrize("agents", [1, 2, 5])
@pytest.mark.parametrize(("name", "rounds"), [(n, k) for n in NAMES for k in (1, 2, 3, 4) if (n, k) != ("mav", 1)])
def test_the_longest_conversation_has_the_calls_stated_each_with_an_agent_and_round_of_its_own(
    name, rounds, agents, question
):
    protocol = talk(name, agents, rounds)
    turns = held(protocol, undecided if agents > 1 else lambda agent, round: "", question)
    calls = [call for spoken in speakers(turns) for call in spoken]
    no_ranker = name == "dylan" and question is KEYS and agents > 2 and rounds > 2
    assert len(calls) == protocol.calls - no_ranker
    assert len(set(calls)) == len(calls)
    assert calls[-1][0] == SUMMARISER


def test_all_are_called_by_name():
    assert talk("debate") == Debate(3, 3, 1.0, 0.2, "shared")
    assert [type(talk(name)) for name in NAMES] == [Debate, MAD, MAV, DyLAN]
    assert [talk(name, 5, 3).calls for name in NAMES] == [16, 9, 16, 14]


@pytest.mark.parametrize(
    ("name", "rounds", "line"),
    [
        ("deabte", 3, "protocol 'deabte' is unknown; choose one of debate, mad, mav, dylan"),
        ("mav", 1, "protocol mav with rounds=1 has no verifier; use 2 rounds or more"),
    ],
)
def test_a_name_that_cannot_be_held_is_told_in_one_line(name, rounds, line):
    with pytest.raises(StudyError) as error:
        talk(name, rounds=rounds)
    assert str(error.value) == line


def test_a_conversation_is_read_by_the_last_word_of_agent_0_and_without_one_by_the_majority():
    judged = [trace(1, 1, SLIPPED), trace(2, 1, SLIPPED), trace(0, 2, SLIPPED), trace(0, 3, GOLD)]
    assert [p.answer for p in predict(judged, [KEYS], "test", "mav")] == ["39"]
    assert [p.answer for p in predict(judged[:2] + [trace(3, 1, GOLD)], [KEYS], "test", "vote")] == ["40"]


@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_holds_it_and_all_that_follows_reads_it(name, tmp_path):
    asked, protocol = task("equation").questions(4, "validation", 0), talk(name, agents=5)
    call = dict(model="data/models/teacher", store=tmp_path, seed=0, max_tokens=MAX_TOKENS)
    traces, _ = run_debates(protocol, asked, **call)
    assert run_debates(protocol, asked, **call)[0] == traces
    for question in asked:
        own = [t for t in traces if t.question_id == question.question_id]
        assert 3 <= len(own) <= protocol.calls
        assert len({(t.agent, t.round) for t in own}) == len(own)
        assert own[-1].agent == SUMMARISER
    predictions = predict(traces, asked, "test", name)
    assert [p.answer for p in predictions] == [
        next(t.answer for t in reversed(traces) if t.question_id == q.question_id) for q in asked
    ]
    assert sum(p.correct for p in predictions) >= 2
    checked = check_traces(traces, asked)
    assert accuracy_by_round(checked, asked, 3)["n"].tolist() == [4, 4, 4]
    rows, counts = select(checked, asked, 3)
    assert counts["questions"] == 4 and 2 <= counts["kept for R-SFT"] == sum(r.for_rsft for r in rows)


def test_no_two_calls_of_a_conversation_are_one_request(tmp_path):
    """Equal requests would share one sample: a candidate's verifiers in the world are asked the same."""
    (question,) = task("equation").questions(1, "validation", 0)
    asked = []

    class Overheard(Store):
        def generate(self, engine, requests):
            asked.extend(requests)
            return super().generate(engine, requests)

    run_group(mav(3, 2), [question], [engine(root() / "data/models/teacher")], Overheard(tmp_path), 0, MAX_TOKENS)
    assert len(asked) == 10 and len({r.seed for r in asked}) == 10

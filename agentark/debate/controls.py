"""The controls of a debate: cheaper or equally expensive ways to use the same teacher, without what agents say to each
other."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from agentark import StudyError
from agentark.debate.independent import Vote
from agentark.debate.protocols import Debate
from agentark.debate.turns import Protocol
from agentark.schemas import CONTROLS, Question, Trace


def check_controls(names: Sequence[str], protocol: Protocol, vote_temperature: float) -> None:
    """Raise StudyError for a control that `protocol` does not have, or a temperature below 0, before anything runs."""
    known = ("greedy", *(CONTROLS if isinstance(protocol, Debate) else ("vote",)))
    if unknown := [name for name in names if name not in known]:
        raise StudyError(f"controls: {unknown[0]!r} is none of {', '.join(known)}")
    if not vote_temperature >= 0:
        raise StudyError(f"vote_temperature={vote_temperature} is below 0; choose 0 or more")


def controls(
    debate: Debate, traces: Sequence[Trace], questions: Sequence[Question], vote_temperature: float | None = None
) -> dict[str, Protocol]:
    """The controls of a finished debate (its `traces`), by the names of CONTROLS.

    vote: as many samples as the debate has calls at most, decided by majority; vote_tokens: as many samples as have the
    debate's mean number of tokens, read and generated; both at `vote_temperature` (None: the debate's); self_revision:
    one agent revises its greedy answer in every round; debate_off: communication off; debate_other: peers' first traces
    come from the next question.
    """
    warm = debate.temperature if vote_temperature is None else vote_temperature
    return {
        "vote": Vote(debate.calls, warm),
        "vote_tokens": Vote(samples_of_equal_tokens(traces), warm),
        "self_revision": replace(debate, agents=1, temperature=0.0, revision_temperature=0.0),
        "debate_off": replace(debate, communication="off"),
        "debate_other": replace(debate, communication="other", foreign=foreign(traces, questions)),
    }


def chosen(
    names: Sequence[str], protocol: Protocol, traces: Sequence[Trace], questions: Sequence[Question],
    vote_temperature: float,
) -> dict[str, Protocol]:  # fmt: skip
    """The named controls of finished conversations: "greedy" (greedy decoding), and those of CONTROLS, of which a
    protocol other than the debate has only "vote".

    Raises StudyError for an unknown name.
    """
    check_controls(names, protocol, vote_temperature)
    known: dict[str, Protocol] = {"greedy": Vote(1, 0.0), "vote": Vote(protocol.calls, vote_temperature)}
    if isinstance(protocol, Debate):
        known |= controls(protocol, traces, questions, vote_temperature)
    return {name: known[name] for name in names}


def samples_of_equal_tokens(traces: Sequence[Trace]) -> int:
    """The number of single samples with as many tokens, read and generated, as a debate has on average; rounded up."""
    total = sum(t.prompt_tokens + t.completion_tokens for t in traces)
    first = [t.prompt_tokens + t.completion_tokens for t in traces if t.round == 1 and t.agent > 0]
    debates = len({t.question_id for t in traces})
    return math.ceil(total / debates / (sum(first) / len(first)))


def foreign(traces: Sequence[Trace], questions: Sequence[Question]) -> dict[str, list[str]]:
    """question_id -> the agents' first traces about the next question of the same task (for the last, the first)."""
    firsts: dict[str, list[str]] = {q.question_id: [] for q in questions}
    for trace in traces:
        if trace.round == 1 and trace.agent > 0:
            firsts[trace.question_id].append(trace.text)
    found: dict[str, list[str]] = {}
    for _, group in itertools.groupby(sorted(questions, key=lambda q: q.task), key=lambda q: q.task):
        keys = [q.question_id for q in group]
        found |= {key: firsts[other] for key, other in zip(keys, [*keys[1:], keys[0]], strict=True)}
    return found

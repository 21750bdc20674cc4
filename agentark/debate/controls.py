"""Controls of a debate: uses of the same teacher at lower or equal cost, without communication between agents about the
question."""

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
    """Return the controls of a finished debate, by the names of CONTROLS. traces: those of the debate.

    vote: a majority vote over as many samples as a full debate has calls; vote_tokens: one over as many samples as use
    a debate's mean number of tokens, read and generated; both at `vote_temperature` (None: the debate's).
    self_revision: one agent revises its greedy answer in every round; debate_off: communication off; debate_other: the
    peers' first traces come from the next question.
    """
    temperature = debate.temperature if vote_temperature is None else vote_temperature
    return {
        "vote": Vote(debate.calls, temperature),
        "vote_tokens": Vote(samples_of_equal_tokens(traces), temperature),
        "self_revision": replace(debate, agents=1, temperature=0.0, revision_temperature=0.0),
        "debate_off": replace(debate, communication="off"),
        "debate_other": replace(debate, communication="other", foreign=traces_of_next_question(traces, questions)),
    }


def named_controls(
    names: Sequence[str], protocol: Protocol, traces: Sequence[Trace], questions: Sequence[Question],
    vote_temperature: float,
) -> dict[str, Protocol]:  # fmt: skip
    """Return the named controls of finished conversations: "greedy" (greedy decoding) and those of CONTROLS.

    A protocol other than the debate has only "greedy" and "vote". Raises StudyError for other names.
    """
    check_controls(names, protocol, vote_temperature)
    known: dict[str, Protocol] = {"greedy": Vote(1, 0.0), "vote": Vote(protocol.calls, vote_temperature)}
    if isinstance(protocol, Debate):
        known |= controls(protocol, traces, questions, vote_temperature)
    return {name: known[name] for name in names}


def samples_of_equal_tokens(traces: Sequence[Trace]) -> int:
    """Return how many single samples use the mean number of tokens (read and generated) of a debate; rounded up."""
    total = sum(t.prompt_tokens + t.completion_tokens for t in traces)
    first = [t.prompt_tokens + t.completion_tokens for t in traces if t.round == 1 and t.agent > 0]
    debates = len({t.question_id for t in traces})
    return math.ceil(total / debates / (sum(first) / len(first)))


def traces_of_next_question(traces: Sequence[Trace], questions: Sequence[Question]) -> dict[str, list[str]]:
    """Return question_id -> the agents' first traces on the next question of its task (after the last, the first)."""
    firsts: dict[str, list[str]] = {q.question_id: [] for q in questions}
    for trace in traces:
        if trace.round == 1 and trace.agent > 0:
            firsts[trace.question_id].append(trace.text)
    found: dict[str, list[str]] = {}
    for _, group in itertools.groupby(sorted(questions, key=lambda q: q.task), key=lambda q: q.task):
        keys = [q.question_id for q in group]
        found |= {key: firsts[other] for key, other in zip(keys, [*keys[1:], keys[0]], strict=True)}
    return found

"""Protocols: who is asked what, and when it ends (method, section 1).

A protocol is a frozen set of parameters with one method, `turns(question)`: a generator that yields the turns to be
spoken next, receives their replies, and returns when the conversation is over. It knows nothing of batches, engines or
other questions; the runner advances many conversations in step.
"""

from collections import Counter
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Protocol as Interface

from agentark.debate.prompts import Messages, revise_prompt, solve_prompt, summarise_prompt
from agentark.engines import Reply
from agentark.schemas import Question
from agentark.traces import answer_of

SUMMARISER = 0  # agents count from 1


@dataclass(frozen=True)
class Turn:
    """One call: which agent speaks in which round (both from 1), to what, at what temperature."""

    agent: int
    round: int
    messages: Messages
    temperature: float


Conversation = Generator[list[Turn], list[Reply], None]


class Protocol(Interface):
    def turns(self, question: Question) -> Conversation: ...


@dataclass(frozen=True)
class Vote:
    """Independent answers, the most frequent wins (self-consistency); with one call, a single pass."""

    calls: int
    temperature: float

    def turns(self, question: Question) -> Conversation:
        prompt = solve_prompt(question.text)
        yield [Turn(agent, 1, prompt, self.temperature) for agent in range(1, self.calls + 1)]


@dataclass(frozen=True)
class Debate:
    """n agents, up to K rounds, early stop at consensus, then one summary.

    From round 2 each agent sees the question, its own last trace and all others' of the round before, and revises. The
    paper debates at one temperature; here revisions may be cooler than first answers, which keeps the first round
    diverse and the later ones careful.
    """

    agents: int
    rounds: int
    temperature: float
    revision_temperature: float
    order: str

    def turns(self, question: Question) -> Conversation:
        everyone = range(1, self.agents + 1)
        prompt = solve_prompt(question.text)
        replies = yield [Turn(agent, 1, prompt, self.temperature) for agent in everyone]
        traces, last = [r.text for r in replies], 1
        while last < self.rounds and not unanimous(traces, question):
            last += 1
            replies = yield [
                Turn(agent, last, revise_prompt(question, traces, agent - 1, self.order), self.revision_temperature)
                for agent in everyone
            ]
            traces = [r.text for r in replies]
        yield [Turn(SUMMARISER, last + 1, summarise_prompt(question, traces), self.revision_temperature)]


def unanimous(traces: Iterable[str], question: Question) -> bool:
    """Whether all traces state one and the same answer."""
    answers = {answer_of(trace, question) for trace in traces}
    return len(answers) == 1 and None not in answers


def majority(answers: Iterable[str | None]) -> str | None:
    """The most frequent answer, the earliest among equals; None if no trace states any."""
    counts = Counter(answer for answer in answers if answer is not None)
    return counts.most_common(1)[0][0] if counts else None

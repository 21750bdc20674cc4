"""Protocols: the turns of a conversation and when it ends (method, section 1).

A protocol is a frozen set of parameters with one method, `turns(question)`: a generator that yields the next turns,
receives their replies, and returns at the end of the conversation. It is independent of batches, engines and other
questions; the runner advances many conversations in step.

Agents from 1 on solve the question. Agent 0 judges: it is the summariser, moderator, verifier or ranker. In every
protocol except `Vote`, agent 0 takes the last turn, and `predictions.predict` uses its answer; without agent 0 it uses
the majority of all answers. If a protocol ends in a count (approvals, a majority), the summariser gets only the
solutions that the count selects; its answer can still differ from theirs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from agentark import StudyError
from agentark.debate.prompts import (
    UNDECIDED,
    argue_prompt,
    moderate_prompt,
    rank_prompt,
    revise_prompt,
    summarise_prompt,
    verify_prompt,
)
from agentark.debate.turns import Conversation, Protocol, Turn
from agentark.models.chat import solve_prompt
from agentark.schemas import Question
from agentark.traces.reading import (
    SUMMARISER,
    agreed,
    answer_of,
    groups,
    in_world,
    majority,
    traces_with_answer,
    unanimous,
)

VERDICT = re.compile(r"verdict\W*(approve|reject)", re.IGNORECASE)
RANKING = re.compile(r"\[\s*\d+(?:\s*,\s*\d+)*\s*\]")


@dataclass(frozen=True)
class Debate:
    """n agents, up to K rounds, early stop at consensus, then one summary.

    From round 2 on each agent reads the question, its own last trace and the others' traces of the previous round, and
    revises. The paper uses one temperature; here revisions may have a lower one than first answers, which keeps the
    first round diverse and later rounds accurate.

    If `reads` is above 0 and below n - 1, each agent reads that number of the others' traces, from its successors in a
    ring (sparse debate, arXiv 2406.11776). The summariser reads up to `reads` + 1 traces with the most frequent answer.
    The length of the prompts is then independent of n.

    `communication` is the control for what agents learn from each other. "on": the debate. "off": an agent reads copies
    of its own trace in place of the others' traces. The first agent with the most frequent answer generates the summary
    from copies of its own trace. The number of calls and the prompt lengths stay the same; only a vote connects the
    agents. "other": as "off", but an agent reads traces of another question (`foreign`) in place of the others' traces.

    One agent cannot stop at consensus: it revises its own trace in every round (self-revision).
    """

    agents: int
    rounds: int
    temperature: float
    revision_temperature: float
    order: str
    reads: int = 0  # 0: all, as in the paper
    communication: Literal["on", "off", "other"] = "on"
    foreign: Mapping[str, list[str]] = field(default_factory=dict)  # question_id -> traces of another question

    @property
    def calls(self) -> int:
        return self.agents * self.rounds + 1

    @property
    def sparse(self) -> bool:
        return 0 < self.reads < self.agents - 1

    def readers(self, question: Question, traces: list[str], own: int) -> tuple[list[str], int]:
        """Return the traces in an agent's prompt, ordered by agent, and the index of its own trace among them."""
        if self.communication == "off":
            traces = [traces[own]] * self.agents
        elif self.communication == "other":
            others = self.foreign[question.question_id]
            traces = [traces[own] if i == own else others[i % len(others)] for i in range(self.agents)]
        if not self.sparse:
            return traces, own
        among = sorted((own + step) % self.agents for step in range(self.reads + 1))
        return [traces[i] for i in among], among.index(own)

    def turns(self, question: Question) -> Conversation:
        everyone = range(1, self.agents + 1)
        prompt = solve_prompt(question.text)
        replies = yield [Turn(agent, 1, prompt, self.temperature) for agent in everyone]
        traces, last = [r.text for r in replies], 1
        while last < self.rounds and (self.agents == 1 or not unanimous(traces, question)):
            last += 1
            replies = yield [
                Turn(
                    agent,
                    last,
                    revise_prompt(question, *self.readers(question, traces, agent - 1), self.order),
                    self.revision_temperature,
                )
                for agent in everyone
            ]
            traces = [r.text for r in replies]
        shown, author = traces, None
        if self.sparse or self.communication != "on":
            stated = traces_with_answer(
                majority((answer_of(trace, question) for trace in traces), question), traces, question
            )
            if self.sparse:
                shown = stated[: self.reads + 1]
            if self.communication != "on":
                shown, author = stated[:1] * len(shown), traces.index(stated[0]) + 1
        yield [Turn(SUMMARISER, last + 1, summarise_prompt(question, shown), self.revision_temperature, author)]


@dataclass(frozen=True)
class MAD:
    """Two sides and a moderator (arXiv 2305.19118).

    Affirmative (agent 1) and negative (agent 2) alternate. After each round the moderator (agent 0) decides or asks for
    another round. After the last round it must decide, in the same call; the public code makes two more calls for this.
    In the generated world each side revises its own trace and reads only the other side's, and the moderator
    summarises. It cannot defer a decision there, so the debate ends when both sides state the same answer.
    """

    rounds: int  # public code: 3
    temperature: float  # of the sides' first arguments; public code: 0 throughout
    revision_temperature: float  # of all later turns

    @property
    def calls(self) -> int:
        return 3 * self.rounds

    def turns(self, question: Question) -> Conversation:
        arguments: list[str] = []
        for k in range(1, self.rounds + 1):
            temperature = self.temperature if k == 1 else self.revision_temperature
            for side in (1, 2):
                (reply,) = yield [Turn(side, k, argue_prompt(question, arguments), temperature)]
                arguments.append(reply.text)
            prompt = moderate_prompt(question, arguments, last=k == self.rounds)
            (verdict,) = yield [Turn(SUMMARISER, k, prompt, self.revision_temperature)]
            if unanimous(arguments[-2:], question) if in_world(question) else decided(verdict.text, question):
                return


@dataclass(frozen=True)
class MAV:
    """Candidates and verifiers (BoN-MAV, arXiv 2502.20379).

    Each candidate answers independently. Each verifier approves or rejects each candidate separately. The candidate
    with the most approvals wins, the earliest in a tie. The summariser then gets all candidates with its answer.

    Verifiers are agent 0, with a separate round for each call, since their output is not a solution to train on. In the
    generated world a verifier revises the candidate and approves if it gets the same answer. There the verifiers of one
    candidate differ only in sampling, so their temperature must be above 0.
    """

    candidates: int  # public code: 16
    verifiers: int  # public code: 6 for MATH, up to 14 elsewhere
    temperature: float  # of the candidates; public code: 0.7
    verifier_temperature: float  # of the verifiers and the summariser; public code: 0

    @property
    def calls(self) -> int:
        return self.candidates * (self.verifiers + 1) + 1

    def turns(self, question: Question) -> Conversation:
        prompt = solve_prompt(question.text)
        replies = yield [Turn(agent, 1, prompt, self.temperature) for agent in range(1, self.candidates + 1)]
        traces = [r.text for r in replies]
        checks = [(i, verifier) for i in range(self.candidates) for verifier in range(self.verifiers)]
        verdicts = yield [
            Turn(SUMMARISER, k, verify_prompt(question, traces[i], verifier), self.verifier_temperature)
            for k, (i, verifier) in enumerate(checks, start=2)
        ]
        approvals = [0] * self.candidates
        for (i, _), verdict in zip(checks, verdicts, strict=True):
            approvals[i] += approves(verdict.text, traces[i], question)
        winner = answer_of(traces[approvals.index(max(approvals))], question)
        prompt = summarise_prompt(question, traces_with_answer(winner, traces, question))
        yield [Turn(SUMMARISER, len(checks) + 2, prompt, self.verifier_temperature)]


@dataclass(frozen=True)
class DyLAN:
    """Agents that are ranked and dropped (arXiv 2310.02170, task solving).

    All agents answer, and all revise once as in a debate. Then only the best `keep` continue. The debate stops as soon
    as more than two thirds of a round's agents state the same answer. The summariser gets the traces of the last round
    with the most frequent answer.

    One call (agent 0) ranks the agents. Agents missing from its ranking are ordered by the number of agents of the
    round with the same answer; in the generated world these are all agents, since its teacher cannot rank. The agents
    of a round answer in parallel. In the public code they answer one by one, so that it can skip some calls.
    """

    agents: int  # public code: 4
    rounds: int  # public code: 3, the minimum
    temperature: float  # of first answers
    revision_temperature: float  # of all later turns
    order: str
    keep: int = 2  # as in the public code

    @property
    def calls(self) -> int:
        kept, late = min(self.keep, self.agents), max(self.rounds - 2, 0)
        ranker = late > 0 and kept < self.agents
        return self.agents * min(self.rounds, 2) + ranker + kept * late + 1

    def turns(self, question: Question) -> Conversation:
        active = list(range(1, self.agents + 1))
        prompt = solve_prompt(question.text)
        replies = yield [Turn(agent, 1, prompt, self.temperature) for agent in active]
        traces, readers, last = [r.text for r in replies], active, 1
        while last < self.rounds and not agreed(traces, question):
            if last == 2 and self.keep < len(active):
                verdict = ""
                if not in_world(question):
                    prompt = rank_prompt(question, traces, self.keep)
                    (reply,) = yield [Turn(SUMMARISER, last, prompt, self.revision_temperature)]
                    verdict = reply.text
                best = ranked(verdict, traces, question)[: self.keep]
                active = sorted(readers[i] for i in best)
            last += 1
            replies = yield [
                Turn(
                    agent,
                    last,
                    revise_prompt(question, traces, readers.index(agent), self.order),
                    self.revision_temperature,
                )
                for agent in active
            ]
            traces, readers = [r.text for r in replies], active
        answer = majority((answer_of(trace, question) for trace in traces), question)
        prompt = summarise_prompt(question, traces_with_answer(answer, traces, question))
        yield [Turn(SUMMARISER, last + 1, prompt, self.revision_temperature)]


def make_protocol(
    protocol: str, agents: int, rounds: int, temperature: float, revision_temperature: float, order: str
) -> Protocol:
    """The protocol named `protocol`. MAD always has two sides; MAV has `agents` candidates and `rounds` - 1 verifiers.

    Raises StudyError for an unknown name, and for MAV with one round, which would have no verifier.
    """
    if protocol == "debate":
        return Debate(agents, rounds, temperature, revision_temperature, order)
    if protocol == "mad":
        return MAD(rounds, temperature, revision_temperature)
    if protocol == "mav":
        if rounds < 2:
            raise StudyError(f"protocol mav with rounds={rounds} has no verifier; use 2 rounds or more")
        return MAV(agents, rounds - 1, temperature, revision_temperature)
    if protocol == "dylan":
        return DyLAN(agents, rounds, temperature, revision_temperature, order)
    raise StudyError(f"protocol {protocol!r} is unknown; choose one of debate, mad, mav, dylan")


def decided(verdict: str, question: Question) -> bool:
    """Whether a moderator's verdict states an answer and does not ask for another round."""
    return UNDECIDED not in verdict and answer_of(verdict, question) is not None


def approves(verdict: str, candidate: str, question: Question) -> bool:
    """Whether a verifier approves: by its last verdict, or in the generated world by stating the candidate's answer.

    False without a readable verdict.
    """
    if in_world(question):
        return unanimous([verdict, candidate], question)
    words = VERDICT.findall(verdict)
    return bool(words) and words[-1].lower() == "approve"


def ranked(verdict: str, traces: list[str], question: Question) -> list[int]:
    """Return the indices of `traces`, best first.

    The traces in the ranker's last bracketed list (numbered from 1) come first, then the others, ordered by the number
    of traces with the same answer; in a tie the earlier trace comes first.
    """
    found = RANKING.findall(verdict)
    numbers = [int(n) - 1 for n in re.findall(r"\d+", found[-1])] if found else []
    answers = [answer_of(trace, question) for trace in traces]
    counts: dict[str | None, int] = {answer: len(group) for group in groups(answers, question) for answer in group}
    by_count = sorted(range(len(traces)), key=lambda i: -counts.get(answers[i], 0))
    return list(dict.fromkeys([*(n for n in numbers if n in by_count), *by_count]))

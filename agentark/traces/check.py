"""Verdicts on traces: correct answers, agreement of steps with the consensus, accuracy by round."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from agentark.answers import is_right
from agentark.parallel import progress, tick
from agentark.schemas import CheckedTrace, Question, Trace
from agentark.tasks.world.steps import check
from agentark.traces.reading import SUMMARISER, answer_of, claim_of, groups, in_world, lines_of, majority

AnyTrace = TypeVar("AnyTrace", bound=Trace)


@dataclass(frozen=True)
class Consensus:
    """What the traces of a debate agree on: the answer (None if none is stated), and the value of each quantity."""

    answer: str | None
    values: dict[str, str]


def check_traces(traces: Sequence[Trace], questions: Iterable[Question]) -> list[CheckedTrace]:
    """Mark every trace and every step as right or wrong, and as agreeing with the debate's consensus or not.

    See `consensus_of` and `agreement`. Steps are marked right or wrong in the generated world only.
    """
    gold = {q.question_id: q for q in questions}
    with progress(len(gold), "grading", "question"):
        debates = itertools.groupby(traces, key=lambda t: t.question_id)
        return [trace for key, debate in debates for trace in check_debate(list(debate), gold[key])]


def check_debate(debate: Sequence[Trace], question: Question) -> list[CheckedTrace]:
    """`check_traces` for one debate."""
    right = {id(t): is_right(t.answer, question) for t in debate}
    agreed = consensus_of(debate, question)
    first_error: dict[int, int] = {}
    for trace in debate:
        if not right[id(trace)]:
            first_error[trace.agent] = min(trace.round, first_error.get(trace.agent, trace.round))
    checked = []
    for trace in debate:
        steps, correct = lines_of(trace.text), right[id(trace)]
        corrected = trace.agent != SUMMARISER and first_error.get(trace.agent, trace.round) < trace.round
        checked.append(
            CheckedTrace(
                **trace.model_dump(),
                correct=correct,
                corrective=correct and corrected,
                steps=steps,
                step_right=[s.right for s in check(question, trace.text)] if in_world(question) else [],
                step_agrees=agreement(trace.text, agreed, question),
            )
        )
    tick()
    return checked


def consensus_of(debate: Iterable[Trace], question: Question, verified: bool = False) -> Consensus:
    """The consensus of a debate's agents over all rounds: the most frequent answer, and the most frequent value of each
    quantity in the traces with that answer. No gold answer is used.

    verified: only traces with a right answer count, as in method, section 2. The consensus then uses gold.
    """
    agents = [t for t in debate if t.agent != SUMMARISER]
    if verified:
        alike = [t for t in agents if is_right(t.answer, question)]
        answer = alike[0].answer if alike else None
    else:
        answer = majority((t.answer for t in agents), question)
        alike = [t for t in agents if equal(t.answer, answer, question)]
    return Consensus(answer, consensus(alike, question))


def equal(answer: str | None, other: str | None, question: Question) -> bool:
    """Whether two stated answers are equivalent; None equals nothing."""
    return answer is not None and other is not None and len(groups([answer, other], question)) == 1


def agreement(text: str, agreed: Consensus, question: Question) -> list[bool]:
    """Whether each step of a trace agrees with the consensus: it gives its quantity the agreed value.

    A step without a comparable claim agrees if the trace states the agreed answer. A line that repeats an earlier line
    of the trace does not agree; otherwise repeated lines would add agreeing steps to a trace.
    """
    lines, states = lines_of(text), equal(answer_of(text, question), agreed.answer, question)
    claims = [claim_of(line, question) for line in lines]
    known = [agreed.values.get(claim[0]) == claim[1] if claim else states for claim in claims]
    return [agrees and line not in lines[:i] for i, (line, agrees) in enumerate(zip(lines, known, strict=True))]


def last_traces(debate: Iterable[AnyTrace]) -> list[AnyTrace]:
    """Each agent's last trace, without the summariser's."""
    return list({t.agent: t for t in debate if t.agent != SUMMARISER}.values())


def consensus(traces: Iterable[Trace], question: Question) -> dict[str, str]:
    """The most frequent value of each quantity claimed in the traces; quantities with a tie are left out."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for trace in traces:
        claims = [claim_of(line, question) for line in lines_of(trace.text)]
        for name, value in dict(filter(None, claims)).items():
            votes[name][value] += 1
    agreed = {}
    for name, counts in votes.items():
        (value, first), *rest = counts.most_common(2)
        if not rest or rest[0][1] < first:
            agreed[name] = value
    return agreed


def accuracy_by_round(checked: Sequence[CheckedTrace], questions: Iterable[Question], rounds: int) -> pd.DataFrame:
    """One row per round: accuracy of a single agent and of the agents' vote, and the shares of agents that changed from
    wrong to right (`corrected`) and from right to wrong (`spoilt`) since round 1.

    A debate that ended early counts with its last traces.
    """
    gold = {q.question_id: q for q in questions}
    debates = [list(g) for _, g in itertools.groupby(checked, key=lambda t: t.question_id)]
    rows = []
    for k in range(1, rounds + 1):
        single: list[bool] = []
        vote: list[bool] = []
        corrected: list[bool] = []
        spoilt: list[bool] = []
        for debate in debates:
            by_agents = [t for t in debate if t.agent != SUMMARISER]
            first = {t.agent: t.correct for t in by_agents if t.round == 1}
            now = last_traces(t for t in by_agents if t.round <= k)
            question = gold[debate[0].question_id]
            vote.append(is_right(majority((t.answer for t in now), question), question))
            single += [t.correct for t in now]
            corrected += [t.correct and not first[t.agent] for t in now]
            spoilt += [first[t.agent] and not t.correct for t in now]
        shares = {"single": single, "vote": vote, "corrected": corrected, "spoilt": spoilt}
        rows.append({"round": k, **{name: sum(v) / len(v) for name, v in shares.items()}, "n": len(debates)})
    return pd.DataFrame(rows)

"""Worked examples for the report: a debate, and a student before and after training."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from agentark.answers import is_right
from agentark.files import write_json
from agentark.schemas import Question, Trace
from agentark.tasks.world.steps import check
from agentark.traces.reading import SUMMARISER, in_world, lines_of


def checked_lines(question: Question, text: str) -> list[tuple[str, bool | None]]:
    """Each line of a trace, and whether it is right (None: unknown)."""
    if not in_world(question):
        return [(line, None) for line in lines_of(text)]
    return [(step.text, step.right) for step in check(question, text)]


KINDS = {
    "a correction": lambda first, last: not first and last,
    "a spoiling": lambda first, last: first and not last,
    "a debate that changed nothing": None,
}


def shown_agent(kind: str, debate: Sequence[Trace], question: Question) -> int | None:
    """The first agent whose first and last answers make a debate one of that kind; None if the debate is of another
    kind, or ended in round 1."""
    own: dict[int, list[Trace]] = {}
    for trace in debate:
        if trace.agent != SUMMARISER:
            own.setdefault(trace.agent, []).append(trace)
    if any(len(traces) == 1 for traces in own.values()):
        return None
    ends = {agent: [is_right(t.answer, question) for t in (ts[0], ts[-1])] for agent, ts in own.items()}
    of_kind = KINDS[kind]
    if of_kind is None:
        return 1 if all(first == last for first, last in ends.values()) else None
    return next((agent for agent, (first, last) in ends.items() if of_kind(first, last)), None)


def write_transcripts(
    path: Path, predictions: pd.DataFrame, traces: Sequence[Trace], questions: Sequence[Question],
    shown: tuple[str, str, int],
) -> None:  # fmt: skip
    """Write a worked question of each kind (KINDS) for the report: the first one whose debate is of that kind, with the
    student's answers before and after each method, right or wrong. shown: the task, the student and its seed."""
    train_task, student, seed = shown
    gold = {q.question_id: q for q in questions if q.task == train_task}
    in_task = (t for t in traces if t.question_id in gold)
    debates = {key: list(group) for key, group in itertools.groupby(in_task, key=lambda t: t.question_id)}
    examples = []
    for kind in KINDS:
        agents = ((key, shown_agent(kind, debate, gold[key])) for key, debate in debates.items())
        key, agent = next(((key, agent) for key, agent in agents if agent is not None), ("", None))
        if agent is None:
            continue
        question = gold[key]
        own = predictions[(predictions["question_id"] == key) & (predictions["setting"] == "test")]
        own = own[(own["student"] == student) & own["seed"].isin([0, seed])].drop_duplicates("method")
        debate = [{"round": t.round, "agent": t.agent, "lines": checked_lines(question, t.text)} for t in debates[key]]
        answers = [
            {"method": m, "lines": checked_lines(question, t)} for m, t in zip(own["method"], own["text"], strict=True)
        ]
        examples.append(
            {"kind": kind, "question": question.text, "answer": question.answer, "agent": agent, "debate": debate,
             "student": student, "answers": answers}
        )  # fmt: skip
    write_json(examples, path)

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


def judged(question: Question, text: str) -> list[tuple[str, bool | None]]:
    """Each line of a trace with its verdict; None where none is known."""
    if not in_world(question):
        return [(line, None) for line in lines_of(text)]
    return [(step.text, step.right) for step in check(question, text)]


def write_transcripts(
    path: Path, predictions: pd.DataFrame, traces: Sequence[Trace], questions: Sequence[Question],
    shown: tuple[str, str, int],
) -> None:  # fmt: skip
    """Three worked questions for the report: a debate in which an agent was corrected, and the student on the same
    question before and after each method. In the order of the questions, whatever the student answers. shown: the task, the
    student and its seed."""
    train_task, student, seed = shown
    gold = {q.question_id: q for q in questions if q.task == train_task}
    examples = []
    for key, group in itertools.groupby((t for t in traces if t.question_id in gold), key=lambda t: t.question_id):
        debate = list(group)
        question = gold[key]
        by_agent: dict[int, list[Trace]] = {}
        for t in debate:
            by_agent.setdefault(t.agent, []).append(t)
        corrected = [
            agent
            for agent, own_traces in by_agent.items()
            if agent != SUMMARISER
            and not is_right(own_traces[0].answer, question)
            and is_right(own_traces[-1].answer, question)
        ]
        if corrected:
            own = predictions[(predictions["question_id"] == key) & (predictions["setting"] == "test")]
            own = own[(own["student"] == student) & own["seed"].isin([0, seed])].drop_duplicates("method")
            examples.append(
                {
                    "question": question.text,
                    "answer": question.answer,
                    "agent": corrected[0],
                    "debate": [{"round": t.round, "agent": t.agent, "lines": judged(question, t.text)} for t in debate],
                    "student": student,
                    "answers": [
                        {"method": m, "lines": judged(question, t)}
                        for m, t in zip(own["method"], own["text"], strict=True)
                    ],
                }
            )
        if len(examples) == 3:
            break
    write_json(examples, path)

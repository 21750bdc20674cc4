"""What teachers read before they score a student's output: the question alone, or a debate about it (MAD-OPD, SDFT)."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agentark import StudyError
from agentark.debate.prompts import revise_prompt
from agentark.debate.protocols import Debate
from agentark.distill.on_policy import Lesson, Reader
from agentark.models import loading
from agentark.models.chat import solve_prompt
from agentark.schemas import Question, Trace
from agentark.traces.reading import SUMMARISER

TAU = 1.0  # MAD-OPD: temperature of the softmax over confidences


def alone(questions: Sequence[Question], teachers: int = 1) -> list[Lesson]:
    """Each teacher reads the question alone (OPD), and all have equal weights."""
    return [Lesson(q.text, [solve_prompt(q.text)] * teachers, [1 / teachers] * teachers) for q in questions]


def after(
    debate: Debate, traces: Sequence[Trace], questions: Sequence[Question], agents: Sequence[int]
) -> list[Lesson]:
    """Each teacher is an agent of a finished debate, from 1, and reads what the agent would read in another round.

    That is the question and all agents' last traces, or what `debate.communication` shows in their place; equal weights.
    Raises StudyError if a question has no debate.
    """
    last = last_traces(traces)
    lessons = []
    for question in questions:
        if question.question_id not in last:
            raise StudyError(
                f"question {question.question_id}: no debate about it; debate the training questions first"
            )
        texts = last[question.question_id]
        contexts = [
            revise_prompt(question, *debate.readers(question, texts, agent - 1), debate.order) for agent in agents
        ]
        lessons.append(Lesson(question.text, contexts, [1 / len(agents)] * len(agents)))
    return lessons


def last_traces(traces: Sequence[Trace]) -> dict[str, list[str]]:
    """question_id -> the last trace of each agent, by agent."""
    found = {}
    for key, group in itertools.groupby(traces, key=lambda t: t.question_id):
        last = {t.agent: t.text for t in group if t.agent != SUMMARISER}
        found[key] = [last[agent] for agent in sorted(last)]
    return found


def by_confidence(
    lessons: Sequence[Lesson], teachers: Sequence[Path], replies: Sequence[Sequence[str]]
) -> list[Lesson]:
    """The lessons with weights softmax(c_k / TAU) of the teachers' confidences in their replies to their contexts.

    replies: of each lesson, one per teacher. MAD-OPD asks the teachers for a number between 0 and 100 and divides it by
    100. The models of the generated world cannot state one, so it is measured: see `Reader.confidences`. Raises
    StudyError like `Reader`.
    """
    measured = []
    for k, teacher in enumerate(teachers):
        reader = Reader(teacher, loading.load_tokenizer(teacher))
        measured.append(reader.confidences([lesson.contexts[k] for lesson in lessons], [own[k] for own in replies]))
    weighted = []
    for lesson, own in zip(lessons, zip(*measured, strict=True), strict=True):
        shares = [math.exp(c / TAU) for c in own]
        weighted.append(replace(lesson, weights=[share / sum(shares) for share in shares]))
    return weighted

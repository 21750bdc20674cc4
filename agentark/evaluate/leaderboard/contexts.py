"""What teachers read before they score a student's output: the question alone, or a debate about it (MAD-OPD, SDFT)."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

from agentark import StudyError
from agentark.debate.prompts import revise_prompt, wording
from agentark.debate.protocols import Debate
from agentark.distill.on_policy import Lesson
from agentark.models.chat import solve_prompt, system_prompt
from agentark.schemas import CheckedTrace, Question, Trace
from agentark.traces.reading import SUMMARISER


def alone(questions: Sequence[Question], teachers: int = 1, system: str = "") -> list[Lesson]:
    """Each teacher reads the question alone (OPD), after a system prompt if there is one; all have equal weights."""
    return [Lesson(q.text, [solve_prompt(q.text, system)] * teachers, [1 / teachers] * teachers) for q in questions]


def after(
    debate: Debate, traces: Sequence[Trace], questions: Sequence[Question], agents: Sequence[int], system: str = ""
) -> list[Lesson]:
    """Each teacher is an agent of a finished debate, from 1, and reads what the agent would read in another round.

    That is the system prompt, the question and all agents' last traces, or what `debate.communication` shows in their
    place; equal weights. Raises StudyError if a question has no debate.
    """
    last, opening = last_traces(traces), system_prompt(system)
    lessons = []
    for question in questions:
        if question.question_id not in last:
            raise StudyError(
                f"question {question.question_id}: no debate about it; debate the training questions first"
            )
        texts = last[question.question_id]
        contexts = [
            [*opening, *revise_prompt(question, *debate.readers(question, texts, agent - 1), debate.order)]
            for agent in agents
        ]
        lessons.append(Lesson(question.text, contexts, [1 / len(agents)] * len(agents)))
    return lessons


def exchanged(traces: Sequence[Trace], questions: Sequence[Question]) -> list[Trace]:
    """The traces of each question as if they were about the question before it (of the first: about the last). The
    control for what a debate tells about its question (arXiv 2608.09228)."""
    keys = [q.question_id for q in questions]
    before = dict(zip(keys, [keys[-1], *keys[:-1]], strict=True))
    return [t.model_copy(update={"question_id": before[t.question_id]}) for t in traces]


def last_traces(traces: Sequence[Trace]) -> dict[str, list[str]]:
    """question_id -> the last trace of each agent, by agent."""
    found = {}
    for key, group in itertools.groupby(traces, key=lambda t: t.question_id):
        last = {t.agent: t.text for t in group if t.agent != SUMMARISER}
        found[key] = [last[agent] for agent in sorted(last)]
    return found


def transcripts(
    checked: Iterable[CheckedTrace], questions: Mapping[str, Question], agents: int
) -> list[tuple[str, str]]:
    """(question, transcript) of every debate whose summary is right: the traces of its first `agents` agents, round by
    round, each under its agent's name, then the summary (IMAD). Raises StudyError if there is none."""
    found = []
    for key, group in itertools.groupby(checked, key=lambda t: t.question_id):
        debate, question = list(group), questions[key]
        if not debate[-1].correct or debate[-1].agent != SUMMARISER:
            continue
        shown = sorted((t for t in debate if 0 < t.agent <= agents), key=lambda t: (t.round, t.agent))
        form = wording(question).agent
        blocks = "".join(form.format(i=t.agent, trace=t.text) for t in shown)
        found.append((question.text, f"{blocks}{debate[-1].text}"))
    if not found:
        raise StudyError("no debate has a right summary, so there are no transcripts; debate easier questions")
    return found

"""Contexts for teachers that score a student's output: only the question, or also a debate about it (MAD-OPD, SDFT)."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

from agentark import StudyError
from agentark.debate.prompts import revise_prompt, wording
from agentark.debate.protocols import Debate
from agentark.distill.on_policy import Lesson
from agentark.models.chat import solve_prompt, system_prompt
from agentark.schemas import CheckedTrace, Question, Trace
from agentark.traces.reading import SUMMARISER


def question_only(questions: Sequence[Question], teachers: int = 1, system: str = "") -> list[Lesson]:
    """Return lessons in which each teacher reads only the question (OPD), after any system prompt; equal weights."""
    return [Lesson(q.text, [solve_prompt(q.text, system)] * teachers, [1 / teachers] * teachers) for q in questions]


def next_round(
    debate: Debate, traces: Sequence[Trace], questions: Sequence[Question], agents: Sequence[int], system: str = ""
) -> list[Lesson]:
    """Return lessons in which each teacher reads the prompt of one of `agents` (numbers from 1) for one more round.

    That is the system prompt, the question and all agents' last traces, or the traces that `debate.communication`
    substitutes for them; equal weights. Raises StudyError if a question has no debate.
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


def shifted_traces(traces: Sequence[Trace], questions: Sequence[Question]) -> list[Trace]:
    """Assign the traces of each question to the question before it (those of the first to the last): the control for
    the information that a debate contains about its question (arXiv 2608.09228)."""
    keys = [q.question_id for q in questions]
    before = dict(zip(keys, [keys[-1], *keys[:-1]], strict=True))
    return [t.model_copy(update={"question_id": before[t.question_id]}) for t in traces]


def last_traces(traces: Sequence[Trace]) -> dict[str, list[str]]:
    """Return question_id -> the last trace of each agent, in the order of the agents."""
    found = {}
    for key, group in itertools.groupby(traces, key=lambda t: t.question_id):
        last = {t.agent: t.text for t in group if t.agent != SUMMARISER}
        found[key] = [last[agent] for agent in sorted(last)]
    return found


def transcripts(
    checked: Iterable[CheckedTrace], questions: Mapping[str, Question], agents: int
) -> list[tuple[str, str]]:
    """Return (question, transcript) for every debate with a right summary (IMAD): the traces of its first `agents`
    agents, by round, each under its agent's name, then the summary. Raises StudyError if no summary is right."""
    found = []
    for key, group in itertools.groupby(checked, key=lambda t: t.question_id):
        debate, question = list(group), questions[key]
        if not debate[-1].correct or debate[-1].agent != SUMMARISER:
            continue
        shown = sorted((t for t in debate if 0 < t.agent <= agents), key=lambda t: (t.round, t.agent))
        template = wording(question).agent
        blocks = "".join(template.format(i=t.agent, trace=t.text) for t in shown)
        found.append((question.text, f"{blocks}{debate[-1].text}"))
    if not found:
        raise StudyError("no debate has a right summary, so there are no transcripts; debate easier questions")
    return found

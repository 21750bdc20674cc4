"""IMAD, "Latent Agents" (arXiv 2604.24881): learn to write whole debates, then to do without writing them.

Stage 1 is supervised training on transcripts: the traces of all agents and rounds, then the summary, in one text. Stage
2 is GRPO with two rewards: the form of a debate, whose weight fades from 1 to 0, and a right answer within a limit of
tokens that shrinks until the debate is no longer written out.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from agentark import StudyError
from agentark.answers import is_right
from agentark.debate.prompts import wording
from agentark.distill import sft
from agentark.distill.outcome import Outcome
from agentark.distill.outcome import train as reinforce
from agentark.distill.settings import SFT
from agentark.schemas import CheckedTrace, Question
from agentark.traces.reading import SUMMARISER, answer_of


class Internalise(Outcome):
    """Stage 2. `max_tokens` is the first limit on an output."""

    section: ClassVar[str] = "imad"

    last_limit: int = Field(gt=0)  # tokens of an output at the end of the training


def transcripts(
    checked: Iterable[CheckedTrace], questions: Mapping[str, Question], agents: int
) -> list[tuple[str, str]]:
    """(question, transcript) of every debate whose summary is right: the traces of its first `agents` agents, round by
    round, each under its agent's name, then the summary. Raises StudyError if there is none."""
    found = []
    for key, group in itertools.groupby(checked, key=lambda t: t.question_id):
        debate, question = list(group), questions[key]
        if not debate[-1].correct or debate[-1].agent != SUMMARISER:
            continue
        said = [t for t in debate if 0 < t.agent <= agents]
        form = wording(question).agent
        blocks = "".join(form.format(i=t.agent, trace=t.text) for t in sorted(said, key=lambda t: (t.round, t.agent)))
        found.append((question.text, f"{blocks}{debate[-1].text}"))
    if not found:
        raise StudyError("no debate has a right summary, so there are no transcripts; debate easier questions")
    return found


def is_debate(text: str, question: Question) -> bool:
    """Whether a text has the form of a transcript: at least two agents by name, then a solution."""
    header = wording(question).agent.split("{i}")[0]
    parts = text.split(header)
    return len(parts) > 2 and not parts[0].strip() and {part.split()[0] for part in parts[1:] if part.split()} > {"1"}


def rewards(
    questions: Sequence[Question], settings: Internalise
) -> Callable[[Callable[[], float]], Sequence[Callable]]:
    """The rewards of stage 2, for `outcome.train`."""
    asked = {q.question_id: q for q in questions}

    def both(over: Callable[[], float]) -> Sequence[Callable]:
        def form(prompts, completions, question_id, **_) -> list[float]:
            texts = [c[0]["content"] for c in completions]
            weight = 1 - over()
            return [weight * is_debate(text, asked[key]) for text, key in zip(texts, question_id, strict=True)]

        def short(prompts, completions, completion_ids, question_id, **_) -> list[float]:
            limit = settings.max_tokens - over() * (settings.max_tokens - settings.last_limit)
            return [
                float(len(ids) <= limit and is_right(answer_of(c[0]["content"], asked[key]), asked[key]))
                for c, ids, key in zip(completions, completion_ids, question_id, strict=True)
            ]

        return form, short

    return both


def train(
    base: Path,
    written: Sequence[tuple[str, str]],
    questions: Sequence[Question],
    out: Path,
    seed: int,
    settings: tuple[SFT, Internalise],
) -> list[dict]:
    """Train a student from `base` in both stages, and save it to `out`, that of stage 1 to `out`/stage-1.

    written: transcripts. Returns the learning curve of stage 2, see `outcome.train`.
    """
    first, second = settings
    sft.train(base, written, out / "stage-1", seed, first, "imad")
    return reinforce(out / "stage-1", questions, rewards(questions, second), out, seed, second, "imad")

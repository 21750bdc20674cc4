"""IMAD, "Latent Agents" (arXiv 2604.24881): train a student to write complete debates, then to answer without them.

Stage 1 is supervised training on transcripts: the traces of all agents and rounds, then the summary, in one text. Stage
2 is GRPO with two rewards: the form of a debate, whose weight falls from 1 to 0, and a right answer within a token
budget, which shrinks until the debate is no longer written out.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from agentark.answers import is_right
from agentark.distill.outcome import Outcome
from agentark.distill.outcome import train as reinforce
from agentark.schemas import Question
from agentark.traces.reading import answer_of


class Internalise(Outcome):
    """Settings of stage 2. `max_tokens` is the token budget of an output at the start of the training."""

    section: ClassVar[str] = "imad"

    last_limit: int = Field(gt=0)  # token budget of an output at the end of the training


def is_debate(text: str, header: str) -> bool:
    """Return whether a text has the form of a transcript: it begins with an agent's name (`header` and a number), and
    at least one other agent follows."""
    parts = text.split(header)
    return len(parts) > 2 and not parts[0].strip() and {part.split()[0] for part in parts[1:] if part.split()} > {"1"}


def rewards(
    questions: Sequence[Question], settings: Internalise, header: str
) -> Callable[[Callable[[], float]], Sequence[Callable]]:
    """Return the reward functions of stage 2 for `outcome.train`. header: see `is_debate`."""
    by_id = {q.question_id: q for q in questions}

    def both(over: Callable[[], float]) -> Sequence[Callable]:
        def form(prompts, completions, question_id, **_) -> list[float]:
            texts = [c[0]["content"] for c in completions]
            weight = 1 - over()
            return [weight * is_debate(text, header) for text in texts]

        def short(prompts, completions, completion_ids, question_id, **_) -> list[float]:
            limit = settings.max_tokens - over() * (settings.max_tokens - settings.last_limit)
            return [
                float(len(ids) <= limit and is_right(answer_of(c[0]["content"], by_id[key]), by_id[key]))
                for c, ids, key in zip(completions, completion_ids, question_id, strict=True)
            ]

        return form, short

    return both


def train(
    base: Path, questions: Sequence[Question], header: str, out: Path, seed: int, settings: Internalise
) -> list[dict]:
    """Run stage 2 from the student of stage 1 in `base`. Returns the learning curve, see `outcome.train`."""
    return reinforce(base, questions, rewards(questions, settings, header), out, seed, settings, "imad")

"""All methods behind one call, for notebooks that train students by several."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentark.distill import policy, reward_model, sft
from agentark.distill.settings import Recipe
from agentark.schemas import Question


@dataclass(frozen=True)
class Examples:
    """What students train on: pairs of question and target for SFT, R-SFT and DA; debates and questions for PAD."""

    pairs: Sequence[tuple[str, str]] = ()
    debates: Sequence[reward_model.DebateSteps] = ()
    questions: Sequence[Question] = field(default=())


def train(method: str, base: Path, examples: Examples, out: Path, seed: int, settings: Recipe) -> list[dict]:
    """Train one student from `base`, saved to `out`; for PAD its reward model first, saved to `out`/judge.

    Returns the learning curve, a row a logged step.
    """
    if method != "pad":
        return sft.train(base, examples.pairs, out, seed, settings.sft, method)
    reward_model.train(base, examples.debates, out / "judge", seed, settings.reward_model)
    return policy.train(base, out / "judge", examples.questions, out, seed, settings.policy)

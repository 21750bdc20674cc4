"""Train a student by any method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentark.distill import policy, reward_model, sft
from agentark.distill.settings import Recipe
from agentark.distill.step_labels import DebateSteps
from agentark.schemas import Question


@dataclass(frozen=True)
class Examples:
    """Training data. SFT, R-SFT and DA use `pairs` (question, target). PAD uses `debates`, `questions` and `agreed`,
    which maps a question_id to the answer that its debate agrees on."""

    pairs: Sequence[tuple[str, str]] = ()
    debates: Sequence[DebateSteps] = ()
    questions: Sequence[Question] = field(default=())
    agreed: Mapping[str, str] = field(default_factory=dict)


def train(method: str, base: Path, examples: Examples, out: Path, seed: int, settings: Recipe) -> list[dict]:
    """Train one student from `base` and save it to `out`. PAD first trains its reward model, saved to `out`/judge.

    Returns the learning curve, one row per logged step.
    """
    if method != "pad":
        return sft.train(base, examples.pairs, out, seed, settings.sft, method)
    reward_model.train(base, examples.debates, out / "judge", seed, settings.reward_model)
    return policy.train(base, out / "judge", examples.questions, out, seed, settings.policy, examples.agreed)

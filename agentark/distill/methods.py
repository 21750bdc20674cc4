"""All methods behind one call, for notebooks that train students of several side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentark.distill import policy, reward_model, sft
from agentark.schemas import Question


def teach(
    method: str,
    seed: int,
    base: Path,
    out: Path,
    pairs: Sequence[tuple[str, str]],
    debates: Sequence[reward_model.DebateSteps],
    questions: Sequence[Question],
    imitation: dict[str, Any],
    judging: dict[str, Any],
    practice: dict[str, Any],
) -> list[dict]:
    """Train one student, saved to `out`; for PAD its reward model first, saved to `out`/judge.

    imitation, judging, practice: the settings of sft.distil, prm.train and policy.train. Returns the learning curve.
    """
    if method != "pad":
        return sft.distil(base, pairs, out, seed, **imitation, method=method)
    reward_model.train(base, debates, out / "judge", seed, **judging)
    return policy.train(base, out / "judge", questions, out, seed, **practice)

"""Train a student by any method, and one per seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from agentark.distill import launch, policy, reward_model, sft
from agentark.distill.settings import Recipe
from agentark.schemas import Question


@dataclass(frozen=True)
class Examples:
    """Training data: (question, target) pairs for SFT, R-SFT and DA; debates and questions for PAD."""

    pairs: Sequence[tuple[str, str]] = ()
    debates: Sequence[reward_model.DebateSteps] = ()
    questions: Sequence[Question] = field(default=())


def train(method: str, base: Path, examples: Examples, out: Path, seed: int, settings: Recipe) -> list[dict]:
    """Train one student from `base` and save it to `out`. For PAD first train its reward model, saved to `out`/judge.

    Returns the learning curve, one row per logged step.
    """
    if method != "pad":
        return sft.train(base, examples.pairs, out, seed, settings.sft, method)
    reward_model.train(base, examples.debates, out / "judge", seed, settings.reward_model)
    return policy.train(base, out / "judge", examples.questions, out, seed, settings.policy)


def train_seeds(
    train: Callable,
    seeds: Sequence[int],
    out: Path,
    processes: int = 1,
    labels: dict[str, str] | None = None,
    **call: Any,
) -> pd.DataFrame:
    """Run one training per seed, each saved to `out`/seed-N. A value of `call` that is callable is called with the
    seed.

    Returns the learning curves, one row per logged step, with `labels` and the seed as columns.
    """
    calls = [
        {name: value(seed) if callable(value) else value for name, value in call.items()}
        | {"out": out / f"seed-{seed}", "seed": seed}
        for seed in seeds
    ]
    curves = launch.run_all(train, calls, processes)
    labelled = zip(curves, seeds, strict=True)
    return pd.concat([pd.DataFrame(curve).assign(**labels or {}, seed=seed) for curve, seed in labelled])

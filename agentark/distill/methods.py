"""All methods behind one call, and the trainings of several seeds."""

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


def train_seeds(
    train: Callable,
    seeds: Sequence[int],
    out: Path,
    processes: int = 1,
    labels: dict[str, str] | None = None,
    **call: Any,
) -> pd.DataFrame:
    """One training a seed, each saved to `out`/seed-N. Returns the learning curves, a row a logged step, with `labels`
    and the seed as columns. A value of `call` that is a function is called with the seed."""
    calls = [
        {name: value(seed) if callable(value) else value for name, value in call.items()}
        | {"out": out / f"seed-{seed}", "seed": seed}
        for seed in seeds
    ]
    curves = launch.run_all(train, calls, processes)
    labelled = zip(curves, seeds, strict=True)
    return pd.concat([pd.DataFrame(curve).assign(**labels or {}, seed=seed) for curve, seed in labelled])

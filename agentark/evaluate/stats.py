"""Intervals: 95 % bootstrap by scipy, over questions; paired where two systems answered the same ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap

RESAMPLES = 4_000  # the interval's ends then move by about 0.001 from one seed to another at n = 500
SEED = 20260203


@dataclass(frozen=True)
class Estimate:
    """A mean or ratio with its 95 % interval over `n` questions."""

    value: float
    lo: float
    hi: float
    n: int


def mean(values: Sequence[float]) -> Estimate:
    """Mean of one number a question (for trained methods: already averaged over seeds)."""
    x = np.asarray(values, dtype=float)
    if len(x) < 2 or np.ptp(x) == 0:  # nothing to resample
        centre = float(x.mean()) if len(x) else float("nan")
        return Estimate(centre, centre, centre, len(x))
    interval = bootstrap(
        (x,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(SEED), batch=500
    ).confidence_interval
    return Estimate(float(x.mean()), float(interval.low), float(interval.high), len(x))


def gain(values: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """Mean paired difference over the same questions in the same order."""
    if len(values) != len(baseline):
        raise ValueError(f"a paired gain needs the same questions: {len(values)} against {len(baseline)}")
    return mean(np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float))


def ratio(parts: Sequence[float], wholes: Sequence[float]) -> Estimate:
    """Sum of parts over sum of wholes, resampled by question: the right mean where questions weigh differently."""
    a, b = np.asarray(parts, dtype=float), np.asarray(wholes, dtype=float)
    if len(a) != len(b):
        raise ValueError(f"a ratio needs as many parts as wholes: {len(a)} and {len(b)}")
    if b.sum() == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(SEED)
    draws = []
    for _ in range(RESAMPLES // 500):
        index = rng.integers(0, len(a), (500, len(a)))
        whole = b[index].sum(1)
        draws.append(a[index].sum(1)[whole > 0] / whole[whole > 0])
    lo, hi = np.quantile(np.concatenate(draws), (0.025, 0.975))
    return Estimate(float(a.sum() / b.sum()), float(lo), float(hi), len(a))


def holm(p: ArrayLike) -> np.ndarray:
    """p values adjusted by Holm's step-down method (1979): the family-wise error holds under any dependence."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)
    steps = np.maximum.accumulate(values[order] * (len(values) - np.arange(len(values)))).clip(max=1)
    adjusted = np.empty_like(values)
    adjusted[order] = steps
    return adjusted

"""Statistics: 95 % intervals of means, gains and ratios, paired where two systems answer the same questions.

A system that was trained once, or not at all, has one value per question and a bootstrap interval over questions
(scipy). A system that was trained with several seeds has a table of seeds x questions. Both are random effects: the
variance of its mean is the variance of the question means divided by n, plus the variance component of seeds divided by
their number (analysis of variance with crossed effects; Searle, Casella and McCulloch 1992, chapter 4). Its interval is
Student's t with Satterthwaite's degrees of freedom (1946).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap, norm, t

RESAMPLES = 4_000  # the interval's ends then vary by about 0.001 between seeds at n = 500
SEED = 20260203


@dataclass(frozen=True)
class Estimate:
    """A mean or ratio over `n` questions with its 95 % interval, which includes the variance of several seeds. se: with
    several seeds, the standard error over questions only."""

    value: float
    lo: float
    hi: float
    n: int
    se: float | None = None


def mean(values: ArrayLike) -> Estimate:
    """Mean of one number per question, or of a table of seeds x questions."""
    x = np.asarray(values, dtype=float)
    if x.ndim == 2:
        return gain(x, np.zeros(x.shape[1]))
    if len(x) < 2 or np.ptp(x) == 0:  # nothing to resample
        centre = float(x.mean()) if len(x) else float("nan")
        return Estimate(centre, centre, centre, len(x))
    interval = bootstrap(
        (x,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(SEED), batch=500
    ).confidence_interval
    return Estimate(float(x.mean()), float(interval.low), float(interval.high), len(x))


def gain(values: ArrayLike, baseline: ArrayLike) -> Estimate:
    """Mean paired difference over the same questions in the same order. Each side has one number per question, or a
    table of seeds x questions; seeds are not paired."""
    own, rival = (np.atleast_2d(np.asarray(side, dtype=float)) for side in (values, baseline))
    if own.shape[1] != rival.shape[1]:
        raise ValueError(f"a paired gain needs the same questions: {own.shape[1]} and {rival.shape[1]} values")
    differences = own.mean(axis=0) - rival.mean(axis=0)
    if len(own) == len(rival) == 1 or len(differences) < 2:
        return mean(differences)
    return crossed_estimate(float(differences.mean()), differences, [own, rival])


def crossed_estimate(value: float, by_question: np.ndarray, tables: Sequence[np.ndarray]) -> Estimate:
    """The estimate with mean `value`, from its values by question and its tables of seeds x questions."""
    n = len(by_question)
    of_seeds = [(seed_variance(table), len(table) - 1) for table in tables]
    return interval(value, n, float(by_question.var(ddof=1)) / n, of_seeds)


def interval(value: float, n: int, over_questions: float, of_seeds: Sequence[tuple[float, int]]) -> Estimate:
    """An estimate whose variance is that over n questions plus those in `of_seeds`: (variance, degrees of freedom)."""
    parts = [(over_questions, n - 1), *of_seeds]
    variance = sum(part for part, _ in parts)
    if not variance:
        return Estimate(value, value, value, n, 0.0)
    freedom = variance**2 / sum(part**2 / df for part, df in parts if part)
    half = float(t.ppf(0.975, freedom)) * variance**0.5
    return Estimate(value, value - half, value + half, n, over_questions**0.5)


def over_seeds(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of estimates of one quantity by different seeds, each with an interval over the same questions."""
    value, lo, hi = (float(np.mean([getattr(e, end) for e in estimates])) for end in ("value", "lo", "hi"))
    if len(estimates) == 1:
        return estimates[0]
    n, over_questions = estimates[0].n, ((hi - lo) / (2 * 1.96)) ** 2
    of_seeds = float(np.var([e.value for e in estimates], ddof=1)) / len(estimates)
    return interval(value, n, over_questions, [(of_seeds, len(estimates) - 1)])


def seed_variance(table: np.ndarray) -> float:
    """Variance of the mean of a table of seeds x questions that is due only to seeds; 0 for a single seed."""
    seeds, n = table.shape
    if seeds < 2 or n < 2:
        return 0.0
    of_seeds, of_questions = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    residual = ((table - of_seeds - of_questions + table.mean()) ** 2).sum() / ((seeds - 1) * (n - 1))
    return max(n * float(of_seeds.var(ddof=1)) - residual, 0.0) / (n * seeds)


def ratio(parts: ArrayLike, wholes: ArrayLike) -> Estimate:
    """Sum of parts over sum of wholes: the correct mean if questions differ in weight. Each side has one number per
    question (bootstrap interval) or is a table of seeds x questions (interval of the linearised ratio)."""
    a, b = np.asarray(parts, dtype=float), np.asarray(wholes, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"a ratio needs one whole for each part: {a.shape[-1]} parts and {b.shape[-1]} wholes")
    if b.sum() == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    if a.ndim == 2:
        value = float(a.sum() / b.sum())
        influence = (a - value * b) / b.mean()
        return crossed_estimate(value, influence.mean(axis=0), [influence])
    rng = np.random.default_rng(SEED)
    draws = []
    for _ in range(RESAMPLES // 500):
        index = rng.integers(0, len(a), (500, len(a)))
        whole = b[index].sum(1)
        draws.append(a[index].sum(1)[whole > 0] / whole[whole > 0])
    lo, hi = np.quantile(np.concatenate(draws), (0.025, 0.975))
    return Estimate(float(a.sum() / b.sum()), float(lo), float(hi), len(a))


def p_values(value: ArrayLike, lo: ArrayLike, hi: ArrayLike) -> np.ndarray:
    """Two-sided p values of estimates against 0, by the normal approximation to their 95 % intervals: 0.05 where an
    interval ends at 0, 1 where it has no width."""
    value, lo, hi = (np.asarray(x, dtype=float) for x in (value, lo, hi))
    error = (hi - lo) / (2 * 1.96)
    return np.where(error > 0, 2 * norm.sf(np.abs(value) / np.where(error > 0, error, 1)), 1.0)


def holm(p: ArrayLike) -> np.ndarray:
    """p values adjusted by Holm's step-down method (1979): controls the family-wise error under any dependence."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)
    steps = np.maximum.accumulate(values[order] * (len(values) - np.arange(len(values)))).clip(max=1)
    adjusted = np.empty_like(values)
    adjusted[order] = steps
    return adjusted

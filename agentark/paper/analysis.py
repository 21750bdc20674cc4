"""Analysis of the published numbers of arXiv 2602.03955: read from `data/published`, redrawn, and compared with chance.

A *cell* is one trained accuracy of Tables 8 to 13: one run of a teacher, a student, a method, a training set and a test
set. Accuracies are in per cent and gains in percentage points throughout, as in the paper.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, false_discovery_control, norm, ttest_1samp

from agentark.evaluate import stats
from agentark.evaluate.stats import holm
from agentark.paper.numbers import GRID, METHODS, PARTS, STUDENTS, TEST_SIZES, pick
from agentark.schemas import Score

COMPARED = [("sft", "base"), ("rsft", "base"), ("da", "base"), ("pad", "base"),
            ("pad", "rsft"), ("pad", "da"), ("da", "rsft")]  # fmt: skip


# Gains


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return the distribution of gains over the base (points) by method and part of the grid, and the share below 0."""
    rows = []
    for method in METHODS:
        for part in PARTS:
            gain = pick(table[table["method"] == method], part)["gain"]
            rows.append(
                dict(method=method, part=part, cells=len(gain), mean=gain.mean(), median=gain.median(), sd=gain.std(),
                     lowest=gain.min(), highest=gain.max(), below_base=(gain < 0).mean())
            )  # fmt: skip
    return pd.DataFrame(rows)


def differences(table: pd.DataFrame, method: str, baseline: str) -> pd.DataFrame:
    """Return the cells of `method` with their gain over the base, or over another method in the same condition."""
    own = table[table["method"] == method]
    if baseline == "base":
        return own
    keys = ["teacher", "student", "train_task", "test_task"]
    other = table[table["method"] == baseline].set_index(keys)["gain"]
    return own.assign(gain=own["gain"].to_numpy() - other.loc[list(own[keys].itertuples(index=False))].to_numpy())


def compare(table: pd.DataFrame) -> pd.DataFrame:
    """Compare each method with the base and with the other methods, in domain and out of domain; the unit is the
    student.

    In a full grid a mixed model with a random effect of the student reduces to the t test over the students' means
    (`t_lo`, `t_hi`, `p_t`; 4 degrees of freedom). `lo`, `hi` are the interval of the bootstrap over students, which is
    too narrow with five students. The sign test counts the students' means above zero on each test set (ten means, each
    with its own base measurement). Both p values are adjusted over all rows by Holm's method.
    """
    rows = []
    for part in PARTS[:3]:
        for method, baseline in COMPARED:
            gained = pick(differences(table, method, baseline), part)
            students = gained.groupby("student")["gain"].mean()
            pairs = gained.groupby(["student", "test_task"])["gain"].mean()
            test, boot = ttest_1samp(students, 0), stats.mean(students)
            interval = test.confidence_interval()
            positive = int((pairs > 0).sum())
            rows.append(
                dict(part=part, method=method, baseline=baseline, cells=len(gained), gain=boot.value, lo=boot.lo,
                     hi=boot.hi, t_lo=interval.low, t_hi=interval.high, positive=positive, pairs=len(pairs),
                     p_t=test.pvalue, p_sign=binomtest(positive, len(pairs)).pvalue)
            )  # fmt: skip
    found = pd.DataFrame(rows)
    return found.assign(p_t_holm=holm(found["p_t"]), p_sign_holm=holm(found["p_sign"]))


def intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean gain by method with its bootstrap interval, for each choice of the resampled unit."""
    units = {"cells": None, "training sets": "train_task", "students": "student", "teachers": "teacher"}
    rows = []
    for method in METHODS[1:]:
        own = table[table["method"] == method]
        for name, unit in units.items():
            values = own["gain"] if unit is None else own.groupby(unit)["gain"].mean()
            estimate = stats.mean(values)
            rows.append(dict(method=method, resampled=f"{estimate.n} {name}", value=estimate.value,
                             lo=estimate.lo, hi=estimate.hi))  # fmt: skip
    return pd.DataFrame(rows)


def without_each_student(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean gain by method over all students, and with each student left out."""
    left = {"all students": table} | {f"without {s}": table[table["student"] != s] for s in STUDENTS}
    return pd.DataFrame({name: part.groupby("method")["gain"].mean() for name, part in left.items()}).T[METHODS]


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Return the share of the variance between cells that each factor explains, by method.

    This is an analysis of variance. The grid is full, so factors and their interactions are orthogonal and the shares
    add up to 1. `rest` is all other interactions and the variation between runs; with one run per cell they cannot be
    separated.
    """
    found = {}
    for method in METHODS[1:]:
        own = table[table["method"] == method]

        def between(*factors, own=own):
            return own.groupby(list(factors))["gain"].transform("mean").var(ddof=0)

        single = {f: between(f) for f in ("student", "test_task", "teacher", "train_task")}
        double = {f"{a} x {b}": between(a, b) - single[a] - single[b]
                  for a, b in (("student", "test_task"), ("train_task", "test_task"), ("student", "teacher"))}  # fmt: skip
        total = own["gain"].var(ddof=0)
        shares = {name: value / total for name, value in (single | double).items()}
        found[method] = shares | {"rest": 1 - sum(shares.values()), "sd, points": total**0.5}
    return pd.DataFrame(found).T


# Chance


def noise(table: pd.DataFrame) -> pd.DataFrame:
    """Add to each cell the standard errors, in points, that a test set of `TEST_SIZES` questions implies, and two p
    values.

    `p_apart` treats the two accuracies as independent binomials, which overstates the error: both systems answered the
    same questions. `p_paired` is McNemar's exact test in the case most favourable to the gain: the system with
    the lower accuracy is never right where the other is wrong. The published numbers determine neither p; the true one
    is between them. Both are adjusted over all cells (Benjamini-Hochberg).
    """
    n = table["test_task"].map(TEST_SIZES)
    one, base = (np.sqrt(table[c] * (100 - table[c]) / n) for c in ("value", "base"))
    independent = 2 * norm.sf(table["gain"].abs() / np.hypot(one, base))
    flipped = (table["gain"].abs() * n / 100).round()
    paired = np.minimum(1, 2 * 0.5**flipped)
    return table.assign(n=n, se=one, se_gain=np.hypot(one, base), questions=table["gain"] * n / 100,
                        p_apart=false_discovery_control(independent), p_paired=false_discovery_control(paired))  # fmt: skip


def within_noise(noisy: pd.DataFrame) -> pd.DataFrame:
    """Count, by method, the cells with a gain within 1.96 standard errors, and the cells that differ from the base."""
    rows = []
    for method in METHODS:
        own = noisy[noisy["method"] == method]
        size = own["gain"].abs()
        up, down = own["gain"] > 0, own["gain"] < 0
        # Expected if each cell's true gain were the mean for its student and test set, with a binomial error per run.
        mean = own.groupby(["student", "test_task"])["gain"].transform("mean")
        rows.append({
            "method": method, "cells": len(own),
            "within the error of one accuracy": int((size <= 1.96 * own["se"]).sum()),
            "within the error of a difference": int((size <= 1.96 * own["se_gain"]).sum()),
            "better, independent": int((up & (own["p_apart"] < 0.05)).sum()),
            "better, best pairing": int((up & (own["p_paired"] < 0.05)).sum()),
            "worse, independent": int((down & (own["p_apart"] < 0.05)).sum()),
            "worse, best pairing": int((down & (own["p_paired"] < 0.05)).sum()),
            "below base": int(down.sum()),
            "below base, expected": float(norm.cdf(-mean / own["se"]).sum()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def is_whole_count(percent, n: int) -> np.ndarray:
    """Return whether the percentage, printed with two decimals, is a whole number of right answers out of `n`."""
    percent = np.asarray(percent, dtype=float)
    return np.abs(np.round(percent * n / 100) * 100 / n - percent) <= 0.005 + 1e-9


def chance(n: int) -> float:
    """Return the share of all percentages with two decimals that are countable out of `n`."""
    return float(is_whole_count(np.arange(10_001) / 100, n).mean())


def test_sizes(published: pd.DataFrame, test_task: str, sizes=range(100, 6_001)) -> pd.DataFrame:
    """Return the share of distinct accuracies countable out of each possible size of a test set, minus chance."""
    printed = published[published["table"].isin(GRID) & (published["test_task"] == test_task)]["value"].unique()
    rows = [dict(n=n, share=is_whole_count(printed, n).mean(), chance=chance(n)) for n in sizes]
    table = pd.DataFrame(rows)
    return table.assign(excess=table["share"] - table["chance"])


def counts(published: pd.DataFrame) -> pd.DataFrame:
    """Return the share of cells whose accuracy is countable out of `TEST_SIZES`, by method and test set, and chance."""
    grid = published[published["table"].isin(GRID)]
    rows = []
    for task, n in TEST_SIZES.items():
        for method in ["base", *METHODS]:
            values = grid[(grid["test_task"] == task) & (grid["method"] == method)]["value"]
            rows.append(dict(test_task=task, n=n, method=method, cells=len(values),
                             countable=is_whole_count(values, n).mean(), chance=chance(n)))  # fmt: skip
    return pd.DataFrame(rows)


test_sizes.__test__ = False  # type: ignore[attr-defined]  # not a test, despite its name


def scores(published: pd.DataFrame, table: pd.DataFrame) -> list[Score]:
    """Return the grid in the form of `reports/scores.csv`: accuracies as fractions, one run each.

    Intervals are at 95 %. Accuracy: Wilson's, for `TEST_SIZES` questions. A single gain: the normal interval for
    independent accuracies. A mean gain: the t interval over students. The share below the base: the bootstrap over
    students. For the last two, `n` counts cells and `domain` is the part of the grid. Tokens are not published (0).
    """

    fixed: dict[str, Any] = dict(study="published", teacher="", student="", train_task="", test_task="", seed="all", baseline="",
                 tokens_per_question=0.0)  # fmt: skip

    def row(method, metric, value, n, ends, **where) -> Score:
        lo, hi = map(float, ends)
        return Score(**fixed | where, method=method, metric=metric, value=float(value), n=int(n), lo=lo, hi=hi)

    def cell(r) -> dict:
        return dict(
            setting=r.table, teacher=r.teacher, student=r.student, train_task=r.train_task, test_task=r.test_task
        )

    rows = []
    for r in published[published["table"].isin(GRID)].itertuples():
        n = TEST_SIZES[r.test_task]
        interval = binomtest(round(r.value * n / 100), n).proportion_ci(method="wilson")
        rows.append(row(r.method, "accuracy", r.value / 100, n, interval, **cell(r)))
    for r in noise(table).itertuples():
        ends = tuple((r.gain + sign * 1.96 * r.se_gain) / 100 for sign in (-1, 1))
        rows.append(row(r.method, "accuracy_gain", r.gain / 100, r.n, ends, baseline="base", **cell(r)))
    pooled = dict(setting="Tables 8 to 13")
    for r in compare(table).itertuples():
        ends = (r.t_lo / 100, r.t_hi / 100)
        rows.append(
            row(r.method, "accuracy_gain", r.gain / 100, r.cells, ends, baseline=r.baseline, domain=r.part, **pooled)
        )
    for method in METHODS:
        for part in PARTS:
            own = pick(table[table["method"] == method], part)
            share = stats.mean((own["gain"] < 0).groupby(own["student"]).mean())
            ends = (share.lo, share.hi)
            rows.append(row(method, "below_base", share.value, len(own), ends, baseline="base", domain=part, **pooled))
    return rows

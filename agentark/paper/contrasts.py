"""Differences between methods with their errors, and the contrasts built from them."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import t

from agentark.evaluate.stats import holm
from agentark.report.charts import COLOURS, WIDTH, style

LEVEL, POWER = 0.05, 0.8


@dataclass(frozen=True)
class Difference:
    """An estimated difference with its standard error, degrees of freedom, and numbers of questions and seeds."""

    value: float
    se: float
    df: float
    n: int
    seeds: int


@dataclass(frozen=True)
class Contrast:
    """A difference with its predicted sign, relative to `null`. p is two-sided; `se` is NaN for a count."""

    what: str
    predicted: int
    value: float
    se: float
    df: float
    n: int
    seeds: int
    p: float
    null: float = 0.0


@dataclass(frozen=True)
class Part:
    """The prediction of one part of a claim, for all contrasts (`somewhere`: for at least one). `make`: the command
    that produces its results."""

    claim: int
    says: str
    contrasts: list[Contrast]
    somewhere: bool = False
    make: str = ""


# Estimates


def pick(table: pd.DataFrame, **where) -> pd.DataFrame:
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def along_axis(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows of an ablation, over all levels, in which only the number in `column` varies, with the study's own rows,
    which belong to every axis."""
    return table[table["variant"].isin(["study", column]) & table[column].notna() & table["level"].isna()]


def pooled(values: pd.Series, errors: pd.Series, tasks: pd.Series) -> tuple[float, float]:
    """Mean over cells and its standard error. Cells of one test task share questions, so their errors are treated as
    fully correlated (which overstates the error); those of different tasks are independent. Tasks have equal
    weights."""
    means, shared = values.groupby(tasks).mean(), errors.groupby(tasks).mean()
    return float(means.mean()), float(np.sqrt((shared**2).sum()) / len(shared))


def error(rows: pd.DataFrame | pd.Series) -> pd.Series | float:
    """Standard errors over questions, of a table or of one row; from the 95 % interval if it does not cover seeds."""
    by_interval = (rows["hi"] - rows["lo"]) / (2 * 1.96)
    if isinstance(rows, pd.DataFrame):
        return rows["se"].astype(float).fillna(by_interval)
    return by_interval if pd.isna(rows["se"]) else float(rows["se"])


def seed_variance(table: pd.DataFrame, metric: str, tasks: Iterable[str], own: dict) -> tuple[float, int]:
    """Variance of a mean over seeds, and the number of seeds; 0 and 1 for a system that was not trained, or that
    has only rows over all seeds."""
    rows = pick(table, metric=metric, **own)
    single = rows[(rows["seed"] != "all") & rows["test_task"].isin(list(tasks))].groupby("seed")["value"].mean()
    return (float(single.var(ddof=1)) / len(single), len(single)) if len(single) > 1 else (0.0, 1)


def combined(value: float, se: float, among: list[tuple[float, int]], n: int) -> Difference:
    """A difference whose error combines that over its n questions (`se`) with those over seeds (from seed_variance)."""
    variance = se**2 + sum(v for v, _ in among)
    below = sum(v**2 / (k - 1) for v, k in among if v)
    return Difference(value, variance**0.5, variance**2 / below if below else np.inf, n, max(k for _, k in among))


def difference(
    table: pd.DataFrame, metric: str, own: dict, rival: dict, tasks: Iterable[str] = ()
) -> Difference | None:
    """Mean over test tasks (all, or those named) of `metric` in the rows `own` minus that in the rows `rival`.

    A rival given only by its method is a baseline, for which the table has the gain paired by question. For a rival in
    another condition, the two intervals are treated as independent, which overstates the error since the questions are
    the same. None if the table has no such rows.
    """
    over = table[table["test_task"].isin(list(tasks))] if tasks else table
    means = over[over["seed"] == "all"]
    if rival.keys() == {"method"}:
        found = pick(means, metric=f"{metric}_gain", baseline=rival["method"], baseline_variant="", **own)
        value, errors = found["value"], error(found)
    else:
        one, other = (pick(means, metric=metric, **w).set_index("test_task") for w in (own, rival))
        found = one.join(other[["value", "lo", "hi"]], rsuffix="_rival", how="inner").reset_index()
        value = found["value"] - found["value_rival"]
        errors = np.hypot(error(found), error(found.assign(lo=found["lo_rival"], hi=found["hi_rival"])))
    if found.empty:
        return None
    mean, se = pooled(value, errors, found["test_task"])
    among = [seed_variance(over, metric, found["test_task"].unique(), w) for w in (own, rival)]
    return combined(mean, se, among, int(found.groupby("test_task")["n"].first().sum()))


def minus(one: Difference | None, other: Difference | None) -> Difference | None:
    """The difference of two independent differences; None if one of them is missing."""
    if one is None or other is None:
        return None
    variance = one.se**2 + other.se**2
    below = sum(d.se**4 / d.df for d in (one, other))
    return Difference(one.value - other.value, variance**0.5, variance**2 / below if below else np.inf,
                      min(one.n, other.n), max(one.seeds, other.seeds))  # fmt: skip


def contrast(what: str, predicted: int, found: Difference | None, null: float = 0.0) -> list[Contrast]:
    """The difference as a list with one contrast; empty if there is no difference, or if its error is not above 0."""
    if found is None or not found.se > 0:
        return []
    p = 2 * t.sf(abs(found.value - null) / found.se, found.df)
    return [Contrast(what, predicted, **asdict(found), p=float(p), null=null)]


# Verdicts


def with_verdicts(found: list[Part]) -> pd.DataFrame:
    """One row per contrast: its interval (uncorrected), its p adjusted over all rows, the smallest difference
    detectable with 80 % power at the strictest of Holm's levels, and whether it agrees."""
    rows = [dict(claim=part.claim, part=part.says, **asdict(c)) for part in found for c in part.contrasts]
    table = pd.DataFrame(rows)
    half = t.isf(LEVEL / 2, table["df"]) * table["se"]
    strictest = t.isf(LEVEL / len(table) / 2, table["df"]) + t.isf(1 - POWER, table["df"])
    table = table.assign(lo=table["value"] - half, hi=table["value"] + half, p_holm=holm(table["p"]),
                         detectable=strictest * table["se"])  # fmt: skip
    right = np.sign(table["value"] - table["null"]) == table["predicted"]
    sure = table["p_holm"] < LEVEL
    return table.assign(outcome=np.select([sure & right, sure & ~right], ["agrees", "disagrees"], "open"))


def contrasts(table: pd.DataFrame) -> plt.Figure:
    """Plot every contrast with its 95 % interval, in the colour of its outcome. A tick marks the tested value, a grey
    line the differences from it that are too small to detect with 80 % power."""
    style()
    rows = table[table["se"].notna()].reset_index(drop=True)
    look = {"agrees": COLOURS["rsft"], "disagrees": COLOURS["da"], "open": "0.35"}
    figure, axis = plt.subplots(figsize=(WIDTH + 2.2, 0.27 * len(rows) + 1.4))
    y = np.arange(len(rows))
    axis.hlines(y, rows["null"] - rows["detectable"], rows["null"] + rows["detectable"], color="0.85", lw=7)
    axis.plot(rows["null"], y, "|", color="black", ms=10)
    for outcome, colour in look.items():
        own = rows[rows["outcome"] == outcome]
        errors = own["hi"] - own["value"]
        axis.errorbar(own["value"], own.index, xerr=errors, fmt="o", ms=5, color=colour, label=outcome)
    signs = rows["predicted"].map({1: "+", -1: "−"})
    axis.set_yticks(
        y, [f"{c} · {w} ({s})" for c, w, s in zip(rows["claim"], rows["what"], signs, strict=True)], fontsize=8
    )
    axis.set_ylim(len(rows), -1)
    axis.grid(False, axis="y")
    axis.set(xlabel="difference, with 95 % interval; predicted sign in brackets")
    axis.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure

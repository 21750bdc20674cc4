"""Differences between methods with their errors, and contrasts that combine them."""

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
    """An estimated difference with its standard error, degrees of freedom, questions and seeds behind it."""

    value: float
    se: float
    df: float
    n: int
    seeds: int


@dataclass(frozen=True)
class Contrast:
    """A difference with what is predicted of it: its sign against `null`. p is two-sided; `se` is NaN for a count."""

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
    """What one part of a claim predicts; `somewhere`: of at least one contrast, not of all; `make`: what would run it."""

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


def along(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows of an ablation in which only the number in `column` varies, over all levels; the study's own are on every
    axis."""
    return table[table["variant"].isin(["study", column]) & table[column].notna() & table["level"].isna()]


def pooled(values: pd.Series, errors: pd.Series, tasks: pd.Series) -> tuple[float, float]:
    """Mean over cells and its standard error: cells of one test task share questions, so that their errors are taken as
    fully correlated (which overstates); those of different tasks are independent. Tasks weigh alike."""
    means, shared = values.groupby(tasks).mean(), errors.groupby(tasks).mean()
    return float(means.mean()), float(np.sqrt((shared**2).sum()) / len(shared))


def error(rows: pd.DataFrame | pd.Series) -> pd.Series | float:
    """Standard errors from the 95 % intervals of a table, or of a row of it."""
    return (rows["hi"] - rows["lo"]) / (2 * 1.96)


def seed_variance(table: pd.DataFrame, metric: str, tasks: Iterable[str], own: dict) -> tuple[float, int]:
    """Variance of a mean over seeds, and their number; 0 and 1 of what was not trained, or is known over all seeds only."""
    rows = pick(table, metric=metric, **own)
    single = rows[(rows["seed"] != "all") & rows["test_task"].isin(list(tasks))].groupby("seed")["value"].mean()
    return (float(single.var(ddof=1)) / len(single), len(single)) if len(single) > 1 else (0.0, 1)


def combined(value: float, se: float, among: list[tuple[float, int]], n: int) -> Difference:
    """A difference whose error is that of its n questions, `se`, and of seeds: variances and numbers as of seed_variance."""
    variance = se**2 + sum(v for v, _ in among)
    below = sum(v**2 / (k - 1) for v, k in among if v)
    return Difference(value, variance**0.5, variance**2 / below if below else np.inf, n, max(k for _, k in among))


def difference(
    table: pd.DataFrame, metric: str, own: dict, rival: dict, tasks: Iterable[str] = ()
) -> Difference | None:
    """Mean over test tasks (all, or those named) of `metric` in the rows `own` less that in the rows `rival`.

    A rival named by its method alone is a baseline: the table has the gain, paired by question. For a rival in another
    condition the two intervals count as independent, which overstates the error: the questions are the same. None if the
    table has no such rows.
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
    """A difference of two independent differences; None if one of them is missing."""
    if one is None or other is None:
        return None
    variance = one.se**2 + other.se**2
    below = sum(d.se**4 / d.df for d in (one, other))
    return Difference(one.value - other.value, variance**0.5, variance**2 / below if below else np.inf,
                      min(one.n, other.n), max(one.seeds, other.seeds))  # fmt: skip


def contrast(what: str, predicted: int, found: Difference | None, null: float = 0.0) -> list[Contrast]:
    """The difference as a contrast, in a list; an empty one where there is no difference or no error to judge it by."""
    if found is None or not found.se > 0:
        return []
    p = 2 * t.sf(abs(found.value - null) / found.se, found.df)
    return [Contrast(what, predicted, **asdict(found), p=float(p), null=null)]


# Verdicts


def judged(found: list[Part]) -> pd.DataFrame:
    """A row a contrast, with its interval (uncorrected), its p adjusted over all rows, the smallest difference that would
    be found with 80 % power at the strictest level of Holm's steps, and whether it agrees."""
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
    """Every contrast with its 95 % interval, in the colour of its outcome; a tick is what it is tested against, a grey
    line the smallest difference from there that would be found with 80 % power."""
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

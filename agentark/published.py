"""The published numbers of arXiv 2602.03955: read from `data/published`, redrawn, and set against what chance can do.

A *cell* is one trained accuracy of Tables 8 to 13: a teacher, a student, a method, a training set, a test set, run once.
Accuracies are in per cent and gains in percentage points throughout, as the paper prints them.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from scipy.stats import binomtest, false_discovery_control, norm, spearmanr, ttest_1samp

from agentark import StudyError, stats
from agentark.figures import COLOURS, LABELS, WIDTH, style
from agentark.schemas import Row, Score, frame, read_table

GRID = [f"Table {i}" for i in range(8, 14)]
METHODS = ["sft", "rsft", "da", "pad"]
STUDENTS = ["Qwen3-0.6B", "Qwen3-1.7B", "Gemma-7B", "Llama3-8B-Instruct", "Qwen3-8B"]  # by size
TEACHERS = ["Qwen3-8B", "Gemma3-27B-it", "Qwen3-32B"]  # by size
TRAIN_SIZES = {"math": 500, "gsm8k": 7_473, "metamathqa": 151_000, "medmcqa": 183_000}  # questions; the paper
TEST_SIZES = {"gsm8k": 1_319, "medmcqa": 4_183}  # GSM8K's test part, MedMCQA's validation part; see `test_sizes`
PARTS = ["all", "in domain", "out of domain", "same subject", "other subject"]
COMPARED = [("sft", "base"), ("rsft", "base"), ("da", "base"), ("pad", "base"),
            ("pad", "rsft"), ("pad", "da"), ("da", "rsft")]  # fmt: skip
JUDGED = 100  # samples behind each of Table 1's four scores; the paper


class Published(Row):
    """One printed number; a field is empty where it does not apply or the paper does not state it."""

    table: str
    teacher: str
    student: str
    method: str
    variant: str
    train_task: str
    test_task: str
    metric: str
    value: float


def read(folder: Path) -> pd.DataFrame:
    """All published numbers. Raises StudyError naming the file and row at fault, or a number that stands there twice."""
    rows = []
    for name in ("accuracy.csv", "others.csv"):
        try:
            rows += read_table(folder / name, Published)
        except StudyError as error:
            raise StudyError(f"{str(error).split(';')[0]}; restore it from git") from None
    table = frame(rows)
    twice = table[table.duplicated([c for c in table if c != "value"])]
    if len(twice):
        raise StudyError(f"{folder}: {' '.join(map(str, twice.iloc[0]))} stands there twice; restore it from git")
    return table


def cells(published: pd.DataFrame) -> pd.DataFrame:
    """The trained accuracies of Tables 8 to 13 with their students' base, gain, domain and subject.

    *In domain*: trained and tested on the same data set, as the paper counts. *Same subject*: both are mathematics or
    both medicine. Raises StudyError if a base is missing, or if some students have more cells than others: the means over
    students below are means over cells only in a full grid.
    """
    grid = published[published["table"].isin(GRID)]
    base = grid[grid["method"] == "base"].set_index(["student", "test_task"])["value"]
    trained = grid[grid["method"] != "base"].reset_index(drop=True)
    for student, task in trained[["student", "test_task"]].drop_duplicates().itertuples(index=False):
        if (student, task) not in base.index:
            raise StudyError(
                f"data/published/accuracy.csv: no base accuracy of {student} on {task}; restore it from git"
            )
    for method, part in trained.groupby("method"):
        counts = part.groupby(["student", "test_task"]).size().unstack(fill_value=0)
        if counts.to_numpy().min() != counts.to_numpy().max():
            raise StudyError(f"data/published/accuracy.csv: cells of {method} are missing; restore it from git")
    trained["base"] = [base[key] for key in zip(trained["student"], trained["test_task"], strict=True)]
    trained["gain"] = trained["value"] - trained["base"]
    trained["domain"] = np.where(trained["train_task"] == trained["test_task"], "in domain", "out of domain")
    medicine = (trained["train_task"] == "medmcqa") == (trained["test_task"] == "medmcqa")
    trained["subject"] = np.where(medicine, "same subject", "other subject")
    return trained


def pick(table: pd.DataFrame, part: str) -> pd.DataFrame:
    return table if part == "all" else table[(table["domain"] == part) | (table["subject"] == part)]


# Gains


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Gain over the base by method and part of the grid: its spread in points, and the share of cells below the base."""
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
    """Cells of `method` with their gain over the base, or over another method on the same teacher, data and student."""
    own = table[table["method"] == method]
    if baseline == "base":
        return own
    keys = ["teacher", "student", "train_task", "test_task"]
    other = table[table["method"] == baseline].set_index(keys)["gain"]
    return own.assign(gain=own["gain"].to_numpy() - other.loc[list(own[keys].itertuples(index=False))].to_numpy())


def holm(p: np.ndarray) -> np.ndarray:
    """p values adjusted by Holm's step-down method (1979): the family-wise error holds under any dependence."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))).clip(max=1)
    adjusted = np.empty_like(p)
    adjusted[order] = steps
    return adjusted


def compare(table: pd.DataFrame) -> pd.DataFrame:
    """Each method against the base and against the others, in domain and out, with the student as the unit.

    In a full grid a mixed model with a random effect of the student reduces to the t test over the students' means
    (`t_lo`, `t_hi`, `p_t`; 4 degrees of freedom). `lo`, `hi` are the bootstrap over students, too narrow with five. The
    sign test counts the students' means on each test set (ten, each with a base measurement of its own) above zero. Both
    p values are adjusted over all rows by Holm's method.
    """
    rows = []
    for part in PARTS[:3]:
        for method, baseline in COMPARED:
            apart = pick(differences(table, method, baseline), part)
            students = apart.groupby("student")["gain"].mean()
            pairs = apart.groupby(["student", "test_task"])["gain"].mean()
            test, boot = ttest_1samp(students, 0), stats.mean(students)
            interval = test.confidence_interval()
            positive = int((pairs > 0).sum())
            rows.append(
                dict(part=part, method=method, baseline=baseline, cells=len(apart), gain=boot.value, lo=boot.lo,
                     hi=boot.hi, t_lo=interval.low, t_hi=interval.high, positive=positive, pairs=len(pairs),
                     p_t=test.pvalue, p_sign=binomtest(positive, len(pairs)).pvalue)
            )  # fmt: skip
    found = pd.DataFrame(rows)
    return found.assign(p_t_holm=holm(found["p_t"]), p_sign_holm=holm(found["p_sign"]))


def intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Mean gain by method with the bootstrap interval that each choice of what is resampled gives."""
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
    """Mean gain by method with all students, and with each of them left out."""
    left = {"all students": table} | {f"without {s}": table[table["student"] != s] for s in STUDENTS}
    return pd.DataFrame({name: part.groupby("method")["gain"].mean() for name, part in left.items()}).T[METHODS]


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Share of the variance between cells that each factor accounts for, by method.

    An analysis of variance: the grid is full, so factors and their interactions are orthogonal and the shares add up to 1.
    The rest holds all other interactions and what another run would change; with one run a cell they cannot be parted.
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


# What chance can do


def noise(table: pd.DataFrame) -> pd.DataFrame:
    """Each cell with the standard errors, in points, that a test set of `TEST_SIZES` questions implies, and two p values.

    `p_apart` takes the two accuracies as independent binomials, which overstates the error: both systems answered the
    same questions. `p_paired` is McNemar's exact test in the case most favourable to the gain: not one question was
    answered right by the loser alone. The published numbers fix neither; the truth lies between. Both are adjusted over
    all cells (Benjamini-Hochberg).
    """
    n = table["test_task"].map(TEST_SIZES)
    one, base = (np.sqrt(table[c] * (100 - table[c]) / n) for c in ("value", "base"))
    apart = 2 * norm.sf(table["gain"].abs() / np.hypot(one, base))
    flipped = (table["gain"].abs() * n / 100).round()
    paired = np.minimum(1, 2 * 0.5**flipped)
    return table.assign(n=n, se=one, se_gain=np.hypot(one, base), questions=table["gain"] * n / 100,
                        p_apart=false_discovery_control(apart), p_paired=false_discovery_control(paired))  # fmt: skip


def within_noise(noisy: pd.DataFrame) -> pd.DataFrame:
    """By method: cells whose gain lies within 1.96 standard errors, and cells that can be told from the base."""
    rows = []
    for method in METHODS:
        own = noisy[noisy["method"] == method]
        size = own["gain"].abs()
        up, down = own["gain"] > 0, own["gain"] < 0
        # were every true gain the mean of its student and test set, and the error of a run binomial
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


def countable(percent, n: int) -> np.ndarray:
    """Is the percentage, printed to two decimals, a whole number of right answers out of `n`?"""
    percent = np.asarray(percent, dtype=float)
    return np.abs(np.round(percent * n / 100) * 100 / n - percent) <= 0.005 + 1e-9


def chance(n: int) -> float:
    """The share of all two-decimal percentages that are countable out of `n`."""
    return float(countable(np.arange(10_001) / 100, n).mean())


def test_sizes(published: pd.DataFrame, test_task: str, sizes=range(100, 6_001)) -> pd.DataFrame:
    """For each size a test set could have: the share of the grid's distinct accuracies countable out of it, less chance."""
    printed = published[published["table"].isin(GRID) & (published["test_task"] == test_task)]["value"].unique()
    rows = [dict(n=n, share=countable(printed, n).mean(), chance=chance(n)) for n in sizes]
    table = pd.DataFrame(rows)
    return table.assign(excess=table["share"] - table["chance"])


def counts(published: pd.DataFrame) -> pd.DataFrame:
    """By method and test set: cells whose accuracy is a count out of `TEST_SIZES`, and what chance would give."""
    grid = published[published["table"].isin(GRID)]
    rows = []
    for task, n in TEST_SIZES.items():
        for method in ["base", *METHODS]:
            values = grid[(grid["test_task"] == task) & (grid["method"] == method)]["value"]
            rows.append(dict(test_task=task, n=n, method=method, cells=len(values),
                             countable=countable(values, n).mean(), chance=chance(n)))  # fmt: skip
    return pd.DataFrame(rows)


test_sizes.__test__ = False  # no test, whatever its name


# The other tables


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """Tables 8 to 13, in per cent: test and training sets as columns; a base is the same whatever was trained on."""
    base = table[table["method"] == "sft"].assign(method="base", value=lambda rows: rows["base"])
    rows = pd.concat([base, table]).sort_values("student", key=lambda s: s.map(STUDENTS.index), kind="stable")
    order = ["student", "teacher", "method"]
    found = rows.pivot_table(index=order, columns=["test_task", "train_task"], values="value", sort=False)
    return found[[(test, train) for test in TEST_SIZES for train in TRAIN_SIZES]]


def by_reward_model(published: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Table 4: mean over training sets of the gain in points, by policy, test set and reward model.

    `difference` is the larger reward model's gain less the smaller one's, `se` the binomial error of one accuracy.
    """
    rows = published[published["table"] == "Table 4"]
    means = rows.pivot_table(index=["student", "test_task"], columns="variant", values="value")
    base = table.groupby(["student", "test_task"])["base"].first().loc[means.index]
    n = means.index.get_level_values("test_task").map(TEST_SIZES)
    gains_ = means.sub(base, axis=0)
    return gains_.assign(difference=gains_["reward model Qwen3-8B"] - gains_["reward model Qwen3-0.6B"],
                         se=np.sqrt(base * (100 - base) / n))  # fmt: skip


def by_optimiser(published: pd.DataFrame) -> pd.DataFrame:
    """Table 5: accuracy by PPO and by GRPO on each training and test set, in per cent, and PPO less GRPO."""
    rows = published[published["table"] == "Table 5"]
    found = rows.pivot_table(index=["test_task", "train_task"], columns="variant", values="value", sort=False)
    return found.assign(difference=found["PPO"] - found["GRPO"])


def in_two_steps(published: pd.DataFrame) -> pd.DataFrame:
    """Table 7: accuracy in per cent after two steps; the column without a training set is headed `base` in the paper."""
    rows = published[published["table"] == "Table 7"]
    return rows.pivot_table(index=["method", "test_task"], columns="train_task", values="value", sort=False)


def by_method(published: pd.DataFrame, source: str) -> pd.DataFrame:
    """A table of several metrics as printed: metrics as rows, methods as columns."""
    rows = published[published["table"] == source]
    return rows.pivot_table(index="metric", columns="method", values="value", sort=False)


def cost(published: pd.DataFrame) -> pd.DataFrame:
    """Table 6: cards, hours, and card-hours of training an 8B student."""
    rows = published[published["table"] == "Table 6"]
    found = rows.pivot_table(index=["method", "variant"], columns="metric", values="value", sort=False)
    return found.assign(gpu_hours=found["h100_gpus"] * found["hours"])


def relative(table: pd.DataFrame) -> pd.DataFrame:
    """Mean gain in per cent of the base accuracy, by teacher and method."""
    rows = table[table["teacher"] != ""].assign(relative=table["gain"] / table["base"] * 100)
    return rows.pivot_table(index="teacher", columns="method", values="relative")[METHODS[1:]].loc[TEACHERS]


def scores(published: pd.DataFrame, table: pd.DataFrame) -> list[Score]:
    """The grid in the form of `reports/scores.csv`: accuracies as fractions, each of one run.

    Intervals are at 95 %: of an accuracy Wilson's for `TEST_SIZES` questions; of one gain the normal one for independent
    accuracies; of a mean gain the t interval over students; of the share below the base the bootstrap over students. For
    the last two `n` counts cells, and `experiment` is the part of the grid. Tokens are not published (0).
    """

    def row(experiment, method, metric, value, n, lo, hi, baseline="", teacher="", student="", train="", test=""):
        return Score(study="published", experiment=experiment, teacher=teacher, student=student, method=method,
                     baseline=baseline, train_task=train, test_task=test, seed="all", metric=metric, value=float(value),
                     n=int(n), lo=float(lo), hi=float(hi), tokens_per_question=0.0)  # fmt: skip

    rows = []
    for r in published[published["table"].isin(GRID)].itertuples():
        n = TEST_SIZES[r.test_task]
        interval = binomtest(round(r.value * n / 100), n).proportion_ci(method="wilson")
        where = dict(teacher=r.teacher, student=r.student, train=r.train_task, test=r.test_task)
        rows.append(row(r.table, r.method, "accuracy", r.value / 100, n, interval.low, interval.high, **where))
    for r in noise(table).itertuples():
        where = dict(teacher=r.teacher, student=r.student, train=r.train_task, test=r.test_task)
        ends = ((r.gain + sign * 1.96 * r.se_gain) / 100 for sign in (-1, 1))
        rows.append(row(r.table, r.method, "accuracy_gain", r.gain / 100, r.n, *ends, baseline="base", **where))
    for r in compare(table).itertuples():
        values = (r.gain / 100, r.cells, r.t_lo / 100, r.t_hi / 100)
        rows.append(row(r.part, r.method, "accuracy_gain", *values, baseline=r.baseline))
    for method in METHODS:
        for part in PARTS:
            own = pick(table[table["method"] == method], part)
            share = stats.mean((own["gain"] < 0).groupby(own["student"]).mean())
            values = (share.value, len(own), share.lo, share.hi)
            rows.append(row(part, method, "below_base", *values, baseline="base"))
    return rows


# Sentences


def one(table: pd.DataFrame, /, **where) -> pd.Series:
    """The one row that matches every given column. Raises ValueError if there is none, or more than one."""
    for column, value in where.items():
        table = table[table[column] == value]
    (row,) = (r for _, r in table.iterrows())
    return row


def verdict(p: float, gain: float) -> str:
    if p >= 0.05:
        return "cannot be decided"
    return "held" if gain > 0 else "did not hold"


def findings(published: pd.DataFrame, table: pd.DataFrame) -> str:
    """What the published numbers show and what they cannot, as Markdown; every number is computed from them."""
    trained = table[table["method"] != "sft"]
    all_, within, across = (summary(table).query("part == @p").set_index("method")
                            for p in ("all", "same subject", "other subject"))  # fmt: skip
    inside, outside = (summary(table).query("part == @p").set_index("method") for p in PARTS[1:3])
    noisy = within_noise(noise(table)).set_index("method")
    found, left = compare(table), without_each_student(table)
    between = found[found["baseline"] != "base"]
    fits = counts(published).set_index(["test_task", "method"])["countable"]
    spent = cost(published)["gpu_hours"]
    rising = relative(table)

    def each(values, form="{:+.2f}"):
        return ", ".join(f"{LABELS[m]} {form.format(values[m])}" for m in METHODS[1:])

    pad = noisy.loc["pad"]
    return f"""
- **Gain.** Over {len(trained)} cells the mean gain is {trained["gain"].mean():+.2f} points: {each(all_["mean"])}. Medians: {each(all_["median"])}. Answer-only SFT: {all_.loc["sft", "mean"]:+.2f}.
- **Below the base:** {each(all_["below_base"], "{:.0%}")} of cells.
- **In domain** {each(inside["mean"])}; **out of domain** {each(outside["mean"])}. That split calls GSM8K out of domain for a student trained on MATH or MetaMathQA. Split by subject, within mathematics or medicine {each(within["mean"])}; across {each(across["mean"])}.
- **Without Gemma-7B** the means are {each(left.loc["without Gemma-7B"])}.
- **Methods against each other:** {int((between[["p_t_holm", "p_sign_holm"]] < 0.05).any(axis=1).sum())} of {len(between)} comparisons are significant by either test after Holm's correction over {len(found)}.
- **Single cells.** Of PAD's {pad["cells"]:.0f} gains {pad["within the error of a difference"]:.0f} lie within 1.96 standard errors of a difference of independent accuracies; {pad["better, independent"]:.0f} can be told from the base if answers are independent, {pad["better, best pairing"]:.0f} if no question at all was lost. The tables do not say where between. For R-SFT {noisy.loc["rsft", "within the error of a difference"]}, for DA {noisy.loc["da", "within the error of a difference"]} of 120 lie within.
- **Steadier than chance.** {pad["below base"]:.0f} of PAD's cells are below the base. Were each true gain the mean of its student and test set and a run's error binomial, {pad["below base, expected"]:.0f} would be (R-SFT {noisy.loc["rsft", "below base, expected"]:.0f}, observed {noisy.loc["rsft", "below base"]}; DA {noisy.loc["da", "below base, expected"]:.0f}, observed {noisy.loc["da", "below base"]}). Either PAD changes few answers, so that runs hardly differ, or the better runs or checkpoints were printed, or both.
- **Counts.** The printed decimals fit test sets of {TEST_SIZES["gsm8k"]:,} and {TEST_SIZES["medmcqa"]:,} questions, which nothing in the tables says. Of the base accuracies {100 * fits.xs("base", level="method").mean():.0f}% are whole counts of them; of R-SFT's on GSM8K {fits["gsm8k", "rsft"]:.0%}, of DA's {fits["gsm8k", "da"]:.0%}, of PAD's {fits["gsm8k", "pad"]:.0%} (chance {chance(TEST_SIZES["gsm8k"]):.0%}). The others cannot be one pass over all questions: they may be means of runs, passes over other questions, or misprints.
- **"+4.8 %"**, in the abstract, is no mean of gains in points. One mean of gains relative to the base comes near it, PAD's from Qwen3-32B: {rising.loc["Qwen3-32B", "pad"]:+.2f} %. Over all cells that mean is {100 * (trained["gain"] / trained["base"]).mean():+.2f} %.
- **Price.** PAD takes {spent["pad", ""]:.0f} card-hours for an 8B student, R-SFT {spent["rsft", ""]:.0f}, DA {spent["da", ""]:.0f}.
"""


def claims(published: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The paper's six claims: what its own tables say of each, and whether they can bear it.

    A claim on gains is decided by the sign test over the ten pairs of student and test set, Holm-adjusted as in `compare`;
    where the tables hold no unit to test over, or no number at all, it cannot be decided from them.
    """
    found, noisy = compare(table), within_noise(noise(table)).set_index("method")
    pad = one(found, part="all", method="pad", baseline="base")
    out = one(found, part="out of domain", method="pad", baseline="base")
    below = {m: (table[table["method"] == m]["gain"] < 0).groupby(table["student"]).mean() for m in METHODS[1:]}
    steadier = int(((below["pad"] < below["rsft"]) & (below["pad"] < below["da"])).sum())
    sizes = {m: spearmanr(*zip(*((TRAIN_SIZES[t], g) for t, g in
             table[table["method"] == m].groupby("train_task")["gain"].mean().items()), strict=True)).statistic
             for m in METHODS[1:]}  # fmt: skip
    reward = by_reward_model(published, table)
    judge = by_method(published, "Table 1").iloc[2:]
    worst = 1.96 * np.sqrt(2) * 2 / np.sqrt(JUDGED)  # no score from 1 to 5 has a standard deviation above 2
    beyond = int((judge["pad"] - judge["base"] > worst).sum())
    truthful = by_method(published, "Table 2")
    other = {m: pick(table[table["method"] == m], "other subject")["gain"].mean() for m in METHODS[1:]}
    rows = [
        (
            "1 · one distilled agent gains over its base, a little under the debate",
            f"PAD {pad['gain']:+.2f} points on average, above the base in {pad['positive']} of {pad['pairs']} pairs of "
            f"student and test set (sign test, p = {pad['p_sign_holm']:.3f}); as a mean over {len(STUDENTS)} students "
            f"[{pad['t_lo']:+.2f}, {pad['t_hi']:+.2f}] before correction, p = {pad['p_t_holm']:.2f} after. The debate's own "
            "accuracy is in no table.",
            f"direction of PAD's gain: {verdict(pad['p_sign_holm'], pad['gain'])}; its size: "
            f"{verdict(pad['p_t_holm'], pad['gain'])}; distance to the debate: cannot be decided",
        ),
        (
            "2 · R-SFT and DA fluctuate, PAD gains steadily",
            f"Below the base in {below['rsft'].mean():.0%} (R-SFT), {below['da'].mean():.0%} (DA) and "
            f"{below['pad'].mean():.0%} (PAD) of cells; PAD has the smallest share in {steadier} of {len(STUDENTS)} "
            f"students. With binomial error about {noisy.loc['pad', 'below base, expected']:.0f} of PAD's "
            f"{noisy.loc['pad', 'cells']} cells would be.",
            ("held in the tables" if steadier == len(STUDENTS) else "did not hold")
            + "; whether by the method or by which runs were printed cannot be decided",
        ),
        (
            "3 · the reward model's quality matters; the student bounds what more agents give",
            f"The 8B reward model against the 0.6B one: {reward['difference'].min():+.2f} to "
            f"{reward['difference'].max():+.2f} points by policy and test set, standard error of one accuracy "
            f"{reward['se'].min():.2f} to {reward['se'].max():.2f}. Numbers of agents are in no table.",
            "cannot be decided" if (reward["difference"].abs() < 1.96 * reward["se"]).all() else "held in part",
        ),
        (
            "4 · more trajectories do not help monotonically",
            "Sizes of one training set are in no table. Across the four, rank correlation of questions and mean gain: "
            + ", ".join(f"{LABELS[m]} {r:+.1f}" for m, r in sizes.items())
            + ". Four points cannot reach 5 %.",
            "cannot be decided",
        ),
        (
            "5 · PAD improves step decomposition, self-checking, error correction",
            f"A judge scores PAD above the base in {int((judge['pad'] > judge['base']).sum())} of {len(judge)} respects, "
            f"{beyond} of them by more than {worst:.2f}, the widest margin of error that {JUDGED} samples can have; above "
            f"DA in {int((judge['pad'] > judge['da']).sum())} of {len(judge)}. One student, one judge.",
            f"held for {beyond} of {len(judge)} by that judge; against DA cannot be decided",
        ),
        (
            "6 · gains carry over out of domain and do not harm truthfulness",
            f"PAD {out['gain']:+.2f} points out of domain (sign test, p = {out['p_sign_holm']:.3f}); from mathematics to medicine or "
            f"back {other['rsft']:+.2f} (R-SFT), {other['da']:+.2f} (DA), {other['pad']:+.2f} (PAD). TruthfulQA: all three "
            f"at or above the base in {int((truthful[['rsft', 'da', 'pad']].min(axis=1) >= truthful['base']).sum())} of "
            f"{len(truthful)} measures, one student, no interval.",
            f"direction of PAD's gain out of domain: {verdict(out['p_sign_holm'], out['gain'])}; truthfulness: no sign of harm, "
            "cannot be decided",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "what the published numbers say", "verdict"]).set_index("claim")


# Figures


def _legend(figure: plt.Figure, handles: list, columns: int = 5) -> None:
    """One legend above all panels, in the room of an empty title: the layout leaves room for titles, not for legends."""
    figure.suptitle("\n".join([" "] * -(-len(handles) // columns)), fontsize=11)
    figure.legend(handles=handles, ncols=columns, fontsize=8, loc="upper center")


def _short(student: str) -> str:
    return student.replace("-Instruct", "").replace("-", "\n")


def _methods(methods: list[str] = METHODS) -> list:
    return [plt.Line2D([], [], marker="o", ls="", color=COLOURS[m], label=LABELS[m]) for m in methods]


MARKS = dict(zip(["", *TEACHERS], "x^so", strict=True))


def accuracies(table: pd.DataFrame) -> plt.Figure:
    """Figure 3a: every cell of Tables 8 to 13, a row of panels a student; the line is the student's base."""
    style()
    trains = list(TRAIN_SIZES)
    figure, axes = plt.subplots(len(STUDENTS), 2, figsize=(WIDTH, 2.1 * len(STUDENTS)), sharex=True)
    for line, student in zip(axes, STUDENTS, strict=True):
        for axis, test in zip(line, TEST_SIZES, strict=True):
            own = table[(table["student"] == student) & (table["test_task"] == test)]
            axis.axhline(own["base"].iloc[0], color=COLOURS["base"], lw=1.2)
            for (method, teacher), part in own.groupby(["method", "teacher"]):
                x = [trains.index(t) + (METHODS.index(method) - 1.5) * 0.18 for t in part["train_task"]]
                axis.plot(x, part["value"], MARKS[teacher], color=COLOURS[method], ms=5, alpha=0.8)
            axis.set_xticks(range(len(trains)), trains, fontsize=8)
            axis.set_title(f"{student}, tested on {test}", fontsize=9)
            axis.grid(False, axis="x")
        line[0].set_ylabel("accuracy, %")
    for axis in axes[-1]:
        axis.set_xlabel("training set")
    teachers = [plt.Line2D([], [], marker=m, ls="", color="grey", label=f"teacher {t}") for t, m in MARKS.items() if t]
    _legend(figure, [plt.Line2D([], [], color=COLOURS["base"], label="base"), *_methods(), *teachers], 4)
    return figure


def gains_by(table: pd.DataFrame) -> plt.Figure:
    """Figure 3b: gain by training set and by student, a dot a cell, a line at the mean."""
    style()
    orders = {"train_task": list(TRAIN_SIZES), "student": STUDENTS}
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 6.2), sharey=True)
    for line, (factor, order) in zip(axes, orders.items(), strict=True):
        for axis, test in zip(line, TEST_SIZES, strict=True):
            look = dict(data=table[table["test_task"] == test], x=factor, y="gain", order=order, hue="method",
                        hue_order=METHODS, palette=[COLOURS[m] for m in METHODS], legend=False, ax=axis)  # fmt: skip
            sns.stripplot(**look, dodge=True, size=3, alpha=0.45, jitter=False)
            sns.pointplot(**look, dodge=0.6, errorbar=None, linestyle="none", marker="_", markersize=11)
            axis.axhline(0, color="black", lw=0.8)
            axis.set(xlabel="", ylabel="gain over the base, points", title=f"tested on {test}")
            axis.tick_params(axis="x", labelsize=8)
            axis.set_xticks(range(len(order)), [_short(o) for o in order])
    _legend(figure, _methods())
    return figure


def gain_by_size(table: pd.DataFrame) -> plt.Figure:
    """In place of Figures 5 and 10: mean gain over students and teachers against the training set's questions."""
    style()
    rows = table.assign(questions=table["train_task"].map(TRAIN_SIZES))
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.2), sharey=True)
    for axis, test in zip(axes, TEST_SIZES, strict=True):
        sns.lineplot(rows[rows["test_task"] == test], x="questions", y="gain", hue="method", hue_order=METHODS,
                     palette=[COLOURS[m] for m in METHODS], marker="o", errorbar=None, legend=False, ax=axis)  # fmt: skip
        axis.axhline(0, color="black", lw=0.8)
        axis.set(xscale="log", xlabel="training questions", ylabel="mean gain, points")
        axis.set_title(f"tested on {test}", pad=22)
        for (name, size), side in zip(TRAIN_SIZES.items(), ("center", "center", "right", "left"), strict=True):
            axis.text(size, 1.02, name, transform=axis.get_xaxis_transform(), ha=side, fontsize=7.5)
    _legend(figure, _methods())
    return figure


def gain_by_capacity(table: pd.DataFrame) -> plt.Figure:
    """In place of Figure 4: mean gain over data sets by student and teacher, a panel a method, on one scale."""
    style()
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.2), sharey=True)
    colours = ["0.7", "0.4", "0.0"]  # by size; the methods' colours mean methods
    for axis, method in zip(axes, METHODS[1:], strict=True):
        sns.pointplot(table[table["method"] == method], x="student", y="gain", order=STUDENTS, hue="teacher",
                      hue_order=TEACHERS, palette=colours, markers=[MARKS[t] for t in TEACHERS], markersize=5,
                      linewidth=1, errorbar=None, legend=False, ax=axis)  # fmt: skip
        axis.axhline(0, color="black", lw=0.8)
        axis.set(xlabel="", ylabel="mean gain, points", title=LABELS[method])
        axis.set_xticks(range(len(STUDENTS)), [_short(s) for s in STUDENTS])
        axis.tick_params(axis="x", labelsize=8)
    _legend(figure, [plt.Line2D([], [], marker=MARKS[t], lw=1, color=c, label=f"teacher {t}")
                     for t, c in zip(TEACHERS, colours, strict=True)])  # fmt: skip
    return figure


def gains_and_noise(noisy: pd.DataFrame) -> plt.Figure:
    """Every gain beside what chance allows: the band is 1.96 standard errors of a difference of the mean base accuracy."""
    style()
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.6), sharey=True)
    for axis, test in zip(axes, TEST_SIZES, strict=True):
        for y, student in enumerate(STUDENTS):
            own = noisy[(noisy["test_task"] == test) & (noisy["student"] == student)]
            base, n = own["base"].iloc[0], TEST_SIZES[test]
            half = 1.96 * np.sqrt(2 * base * (100 - base) / n)
            axis.fill_betweenx([y - 0.42, y + 0.42], -half, half, color="0.88", lw=0)
            for i, method in enumerate(METHODS):
                gain = own[own["method"] == method]["gain"]
                axis.plot(gain, [y + (i - 1.5) * 0.2] * len(gain), "o", color=COLOURS[method], ms=3.5, alpha=0.7)
        axis.axvline(0, color="black", lw=0.8)
        axis.set_yticks(range(len(STUDENTS)), STUDENTS)
        axis.grid(False, axis="y")
        axis.set(xlabel="gain over the base, points", title=f"tested on {test}, {TEST_SIZES[test]:,} questions")
    axes[0].invert_yaxis()
    _legend(figure, [*_methods(), plt.Rectangle((0, 0), 1, 1, color="0.88", label="within the error of a difference")])
    return figure


def means_and_intervals(found: pd.DataFrame) -> plt.Figure:
    """Mean gain by method with its bootstrap interval, by what is resampled."""
    style()
    figure, axis = plt.subplots(figsize=(WIDTH, 3))
    units = list(found["resampled"].unique())
    for i, method in enumerate(METHODS[1:]):
        part = found[found["method"] == method].set_index("resampled").loc[units]
        errors = np.abs(np.vstack([part["value"] - part["lo"], part["hi"] - part["value"]]))
        y = np.arange(len(units)) + (i - 1) * 0.2
        axis.errorbar(part["value"], y, xerr=errors, fmt="o", ms=5, color=COLOURS[method], label=LABELS[method])
    axis.axvline(0, color="black", lw=0.8)
    axis.set_yticks(range(len(units)), units)
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.set(xlabel="mean gain over the base, points, with 95 % interval", ylabel="resampled")
    _legend(figure, _methods(METHODS[1:]))
    return figure


def shares(found: pd.DataFrame) -> plt.Figure:
    """What the variance between cells goes with, by method."""
    style()
    parts = found.drop(columns="sd, points").rename(index=LABELS)
    parts.columns = [c.replace("_task", " set").replace("train ", "training ") for c in parts.columns]
    figure, axis = plt.subplots(figsize=(WIDTH, 2.6))
    colours = [*sns.color_palette("colorblind", 7), "0.85"]
    parts.mul(100).plot.barh(stacked=True, color=colours, width=0.7, ax=axis)
    for i, sd in enumerate(found["sd, points"]):
        axis.text(101, i, f"sd {sd:.1f} points", va="center", fontsize=8)
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.set(xlabel="share of the variance between the cells of a method, %", xlim=(0, 118), xticks=range(0, 101, 20))
    axis.legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.45, 1))
    return figure


def sizes_that_fit(published: pd.DataFrame) -> plt.Figure:
    """Which size of test set the printed decimals agree with, beyond chance."""
    style()
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.9), sharey=True)
    for axis, test in zip(axes, TEST_SIZES, strict=True):
        found = test_sizes(published, test)
        best = found.loc[found["excess"].idxmax()]
        axis.plot(found["n"], found["excess"] * 100, color=COLOURS["base"], lw=0.8)
        axis.annotate(f"{best['n']:,.0f}", (best["n"], best["excess"] * 100), xytext=(6, -3), textcoords="offset points",
                      fontsize=9)  # fmt: skip
        axis.set(title=f"tested on {test}", xlabel="questions in the test set, if it had that many")
    axes[0].set_ylabel("printed values that are\na count of it, % above chance")
    return figure


def judged(published: pd.DataFrame) -> plt.Figure:
    """Table 1's scores of a judge and Table 2's truthfulness, by method."""
    style()
    tables = {"Table 1": "score of a judge, 1 to 5", "Table 2": "overlap with true answers, 0 to 1"}
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.6), width_ratios=[1.15, 1])
    methods = ["base", "rsft", "da", "pad"]
    for axis, (source, label) in zip(axes, tables.items(), strict=True):
        rows = published[(published["table"] == source) & ~published["metric"].isin(["nll", "perplexity"])]
        rows = rows.assign(metric=rows["metric"].str.replace("_", "\n").str.replace("rouge", "ROUGE-"))
        sns.stripplot(rows.replace({"bleu": "BLEU"}), x="metric", y="value", hue="method", hue_order=methods, size=8,
                      palette=[COLOURS[m] for m in methods], dodge=True, jitter=False, legend=False, ax=axis)  # fmt: skip
        axis.set(xlabel="", ylabel=label)
        axis.set_title(f"{source}: {rows['student'].iloc[0]}", fontsize=10)
        axis.tick_params(axis="x", labelsize=8)
    _legend(figure, _methods(methods))
    return figure

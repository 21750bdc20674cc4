"""The paper's tables and figures with ours beside them: what is read, drawn and said on the page of the experiments.

Gains are in percentage points here, as the paper prints them. Published cells are single runs without an interval of ours;
ours have 95 % intervals over questions of the mean over seeds.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from agentark import StudyError
from agentark.paper.ablations import control, talks
from agentark.paper.numbers import GRID, TRAIN_SIZES, by_method, cost
from agentark.report import sentences
from agentark.report.charts import COLOURS, LABELS, METHODS, WIDTH, legend, style
from agentark.schemas import Score, read_table

# Tables of results by what makes them. The last ones take longer than the study: until they have been run, they stand in
# git as their header alone.
MADE_BY = dict.fromkeys(("scores", "reasoning", "cost"), "dvc repro") | {"grid": "make grid"}
MADE_BY |= {f"ablation_{name}": "make ablations" for name in ("rewards", "data", "agents", "protocols", "vision")}
JUDGED = {  # a judge's respect in Table 1, and the exact measure nearest to it
    "step_decomposition": "step_presence", "intermediate_verification": "step_accuracy",
    "error_localization": "error_notice", "reasoning_coherence": "coherence",
}  # fmt: skip


def read(folder: Path) -> dict[str, pd.DataFrame]:
    """Every table of MADE_BY in `folder`; empty where its experiment has not been run (no file, or its header alone).

    Raises StudyError naming the table and row that is not of schema `Score`.
    """
    columns, tables = list(Score.model_fields), {}
    for name in MADE_BY:
        path = folder / f"{name}.csv"
        run = path.is_file() and path.read_text().count("\n") > 1
        rows = [r.model_dump() for r in read_table(path, Score)] if run else []
        tables[name] = pd.DataFrame(rows, columns=columns)
    if tables["scores"].empty:
        raise StudyError(f"{folder}/scores.csv: no results; run `dvc repro evaluate`")
    return tables


def not_run(tables: dict[str, pd.DataFrame], *names: str) -> str:
    """A line for each of these tables that is empty, and how to make it; "" if none is."""
    return "\n\n".join(f"*{n}.csv: not run yet: `{MADE_BY[n]}`*" for n in names if tables[n].empty)


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """A row a cell (teacher, student, method, training and test task) with its gain over the base, its interval, all in
    points, and its domain, of a table of results, or of reports/published.csv."""
    rows = table[(table["metric"] == "accuracy_gain") & (table["baseline"] == "base") & (table["seed"] == "all")]
    rows = rows[rows["experiment"].isin([*GRID, "test"]) | (rows["study"] == "grid")]
    rows = rows[(rows["train_task"] != "") & (rows["test_task"] != "")]
    points = rows[["value", "lo", "hi"]] * 100
    inside = np.where(rows["train_task"] == rows["test_task"], "in domain", "out of domain")
    return rows.assign(**points, domain=inside)


def beside(published: pd.DataFrame, ours: pd.DataFrame, factor: str) -> plt.Figure:
    """Gains (cells) by a factor, a dot a cell and a dash a method's mean: the published left, ours right, each on a
    scale of its own."""
    style()
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.6))
    used = [m for m in METHODS if m in {*published["method"], *ours["method"]}]
    for axis, (title, rows) in zip(axes, {"published": published, "here": ours}.items(), strict=True):
        order = sorted(rows[factor].unique(), key=lambda name: TRAIN_SIZES.get(name, 0))
        look = dict(data=rows, x=factor, y="value", order=order, hue="method", hue_order=used, legend=False, ax=axis,
                    palette=[COLOURS[m] for m in used])  # fmt: skip
        sns.stripplot(**look, dodge=True, size=3, alpha=0.5, jitter=False)
        sns.pointplot(**look, dodge=0.6, errorbar=None, linestyle="none", marker="_", markersize=12)
        axis.axhline(0, color="black", lw=0.8)
        axis.set(xlabel="", ylabel="gain over the base, points", title=f"{title}, {len(rows)} cells")
        axis.set_xticks(range(len(order)), [o.replace("-Instruct", "").replace("-", "\n") for o in order])
        axis.tick_params(axis="x", labelsize=8)
    legend(figure, used)
    return figure


def grid(rows: pd.DataFrame) -> plt.Figure:
    """Every cell of ours with its interval: a row of panels a test task, a column a student, a mark a teacher; in domain on
    grey."""
    style()
    students, tests = list(rows["student"].unique()), list(rows["test_task"].unique())
    trains, teachers = list(rows["train_task"].unique()), [t for t in rows["teacher"].unique() if t]
    used, marks = [m for m in METHODS if m in set(rows["method"])], dict(zip(teachers, "os^DvP", strict=False))
    slots = [(m, t) for m in used for t in rows[rows["method"] == m]["teacher"].unique()]
    look = dict(ms=3, lw=0, elinewidth=0.8)
    size = (WIDTH, 1.2 + 1.8 * len(tests))
    figure, axes = plt.subplots(len(tests), len(students), figsize=size, sharex=True, sharey="row", squeeze=False)
    for line, test in zip(axes, tests, strict=True):
        for axis, student in zip(line, students, strict=True):
            part = rows[(rows["student"] == student) & (rows["test_task"] == test)]
            for (method, teacher), own in part.groupby(["method", "teacher"], sort=False):
                shift = (slots.index((method, teacher)) / len(slots) - 0.5) * 0.8
                x = [trains.index(name) + shift for name in own["train_task"]]
                errors = [own["value"] - own["lo"], own["hi"] - own["value"]]
                axis.errorbar(x, own["value"], errors, fmt=marks.get(teacher, "x"), color=COLOURS[method], **look)
            if test in trains:
                axis.axvspan(trains.index(test) - 0.5, trains.index(test) + 0.5, color="0.94", lw=0)
            axis.axhline(0, color="black", lw=0.8)
            axis.set_xticks(range(len(trains)), trains, fontsize=8, rotation=30)
            axis.grid(False, axis="x")
        line[0].set_ylabel(f"on {test}\ngain, points")
    for axis, student in zip(axes[0], students, strict=True):
        axis.set_title(student, fontsize=9)
    figure.supxlabel("trained on", fontsize=10)
    legend(figure, used, [plt.Line2D([], [], marker=k, ls="", color="grey", label=name) for name, k in marks.items()])
    return figure


def averages(table: pd.DataFrame) -> plt.Figure:
    """Gains averaged over cells (grid.pooled) with their intervals, in domain left, out right: over all cells, and over those
    of each student and of each teacher."""
    style()
    pooled = table[table["experiment"].str.endswith(" domain") & (table["seed"] == "all")]
    pooled = pooled.assign(of=(pooled["student"] + pooled["teacher"]).replace("", "all cells"))
    names, used = list(pooled["of"].unique()), [m for m in METHODS if m in set(pooled["method"])]
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.9 + 0.45 * len(names)), sharey=True)
    for axis, where in zip(axes, ("in domain", "out of domain"), strict=True):
        part = pooled[pooled["experiment"].str.endswith(f", {where}")]
        for r in part.itertuples():
            y = names.index(r.of) + (used.index(r.method) - (len(used) - 1) / 2) * 0.18
            errors = [[100 * (r.value - r.lo)], [100 * (r.hi - r.value)]]
            axis.errorbar(100 * r.value, y, xerr=errors, fmt="o", ms=4, color=COLOURS[r.method])
        axis.axvline(0, color="black", lw=0.8)
        axis.set(title=f"{where}, n = {part['n'].max()} questions", xlabel="mean gain over the base, points")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    legend(figure, used)
    return figure


def perplexities(printed: pd.DataFrame, reasoning: pd.DataFrame) -> plt.Figure:
    """Perplexity of gold reasoning by method: Table 1 left, ours with intervals right, a mark a student."""
    style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.2))
    theirs = by_method(printed, "Table 1").loc["perplexity"]
    left.scatter([LABELS[m] for m in theirs.index], theirs, color=[COLOURS[m] for m in theirs.index])
    rows = sentences.select(reasoning, metric="perplexity")
    rows = rows[rows["student"] != ""]
    used = [m for m in METHODS if m in set(rows["method"])]
    for mark, (_, part) in zip("os^D", rows.groupby("student", sort=False), strict=False):
        for r in part.itertuples():
            errors = [[r.value - r.lo], [r.hi - r.value]]
            right.errorbar(used.index(r.method), r.value, yerr=errors, fmt=mark, color=COLOURS[r.method])
    right.set_xticks(range(len(used)), [LABELS[m] for m in used])
    for panel, title in ((left, "published, Qwen3-0.6B on GSM8K"), (right, "here")):
        panel.set(title=title, ylabel="perplexity of gold reasoning")
        panel.tick_params(axis="x", rotation=30, labelsize=8)
    return figure


# Tables


def respects(printed: pd.DataFrame, scores: pd.DataFrame, student: str, task: str) -> pd.DataFrame:
    """Table 1's four scores of a judge (1 to 5) beside the exact measure nearest to each (a share), by method."""
    theirs = by_method(printed, "Table 1").loc[list(JUDGED)]
    rows = sentences.select(scores, experiment="test", student=student, test_task=task)
    ours = rows[rows["metric"].isin(JUDGED.values())].pivot_table(index="metric", columns="method", values="value")
    ours = ours.reindex(index=JUDGED.values(), columns=theirs.columns)
    ours.index = theirs.index = pd.MultiIndex.from_tuples(JUDGED.items(), names=["a judge's score", "exact share"])
    return pd.concat({"published, 1 to 5": theirs, "here, 0 to 1": ours}, axis=1)


def twisted(reasoning: pd.DataFrame, student: str) -> pd.DataFrame:
    """Gain over the base, with its interval, by setting of notebook 09 and number of questions (rows) and method (columns)."""
    rows = sentences.select(reasoning, metric="accuracy_gain", baseline="base", student=student)
    rows["cell"] = [sentences.signed(row) for _, row in rows.iterrows()]
    return rows.pivot_table("cell", ["experiment", "n"], "method", aggfunc="first", sort=False)


def training_cost(printed: pd.DataFrame, table: pd.DataFrame, student: str) -> pd.DataFrame:
    """Table 6 by method and part: card-hours of the paper's 8B student; of ours seconds of a core and tokens trained on,
    one seed; the first two also as multiples of R-SFT's. Empty where not published, or not timed."""
    parts = {"": "once", "reward model": "once: reward_model", "GRPO": "once: policy"}
    theirs = cost(printed)["gpu_hours"]
    own = table[table["student"] == student].set_index(["method", "experiment", "metric"])["value"]
    rows = {}
    for method, part in [*((m, "") for m in METHODS[1:5]), ("pad", "reward model"), ("pad", "GRPO")]:
        seconds, tokens = (own.get((method, parts[part], unit), np.nan) for unit in ("seconds", "tokens"))
        rows[LABELS[method], part] = {"card-hours, published": theirs.get((method, part), np.nan),
                                      "core-seconds, here": seconds, "thousand tokens, here": tokens / 1000}  # fmt: skip
    found = pd.DataFrame(rows).T
    for column in ("card-hours, published", "core-seconds, here"):
        found[f"{column} / R-SFT"] = found[column] / found.loc[(LABELS["rsft"], ""), column]
    return found


def findings(tables: dict[str, pd.DataFrame], published: pd.DataFrame, task: str) -> str:
    """What can be said beside the paper, a line a subject, and what has not been run; every number from the tables."""
    theirs = cells(published)
    ours = cells(tables["grid"] if len(tables["grid"]) else tables["scores"])
    where = "of the study itself (the grid has not been run); means over cells."
    if len(tables["grid"]):
        where = (
            "of the grid. Here every cell weighs alike, as in the paper's means; in the picture of means and in the claims, "
            "which have intervals, every test family does: their means out of domain are others."
        )
    lines = []
    for method in [m for m in METHODS if m in set(ours["method"])]:
        told = []
        for name, rows in (("published", theirs), ("here", ours)):
            own = rows[rows["method"] == method]
            inside, outside = (own[own["domain"] == d]["value"].mean() for d in ("in domain", "out of domain"))
            below = int((own["value"] < 0).sum())
            told.append(
                f"{name} {inside:+.2f} points in domain, {outside:+.2f} out, {below} of {len(own)} cells below the base"
            )
        lines.append(f"- **{LABELS[method]}:** {'; '.join(told)}.")
    lines += [f"- **Is it the debate?** {told}." for told in control(tables["ablation_data"])]
    lines += [f"- **How they talk:** {told}." for told in talks(tables["ablation_protocols"])]
    lines.append(f"- Ours are the {len(ours)} cells {where}")
    where = dict(metric="accuracy", experiment="test", test_task=task)
    right = sentences.select(tables["scores"], **where).sort_values("value")
    greedy, best = sentences.one(right, method="greedy"), right[right["student"] != ""].iloc[-1]
    lines.append(
        f"- **What debating is set against:** the same teacher, greedy and alone, answers {sentences.number(greedy)} at "
        f"{greedy['tokens_per_question']:.0f} tokens a question; the best student ({best['student']}, "
        f"{LABELS[best['method']]}) {sentences.number(best)} at {best['tokens_per_question']:.0f}."
    )
    waiting = [name for name, table in tables.items() if table.empty]
    if waiting:
        lines.append(f"- Not run yet: {', '.join(f'{name}.csv (`{MADE_BY[name]}`)' for name in waiting)}.")
    return "\n".join(lines)

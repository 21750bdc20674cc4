"""Figures of the paper's numbers, drawn with seaborn. Gains are in percentage points."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from agentark.paper.analysis import test_sizes
from agentark.paper.numbers import METHODS, STUDENTS, TEACHERS, TEST_SIZES, TRAIN_SIZES
from agentark.report.charts import COLOURS, LABELS, WIDTH, intervals, style, with_named_legend

HUES: dict[str, Any] = dict(hue="method", palette=COLOURS, hue_order=METHODS)


def finish_grid(grid: sns.FacetGrid, label: str, zero: bool = True) -> plt.Figure:
    """A seaborn grid with a line at zero and readable names on its axes."""
    if zero:
        grid.refline(y=0, color="black", lw=0.8, ls="-")
    grid.set_ylabels(label).set_xlabels("").set_titles("{row_name} {col_name}" if grid.row_names else "{col_name}")
    if grid.legend:
        with_named_legend(grid)
    for axis in grid.axes.flat:
        axis.tick_params(axis="x", labelsize=8)
        if axis.get_xticklabels() and not axis.get_xticklabels()[0].get_text().replace(".", "").isdigit():
            names = [
                t.get_text().replace("-Instruct", "").replace("-", "\n").replace("_", "\n")
                for t in axis.get_xticklabels()
            ]
            axis.set_xticks(axis.get_xticks(), names)
    return grid.figure


def accuracies(table: pd.DataFrame) -> plt.Figure:
    """Figure 3a: every cell of Tables 8 to 13; the line is the student's base."""
    style()
    grid = sns.catplot(
        table, kind="strip", x="train_task", y="value", order=list(TRAIN_SIZES), row="student", row_order=STUDENTS,
        col="test_task", **HUES, dodge=True, jitter=False, sharey=False, height=2, aspect=2,
    )  # fmt: skip
    grid.map_dataframe(lambda data, **_: plt.gca().axhline(data["base"].iloc[0], color=COLOURS["base"], lw=1.2))
    return finish_grid(grid, "accuracy, %", zero=False)


def gains_by(table: pd.DataFrame, factor: str, order: list[str]) -> plt.Figure:
    """Figure 3b: gain by training set or by student; a dot is a cell, a dash a method's mean."""
    style()
    look: dict[str, Any] = dict(x=factor, y="gain", order=order, **HUES)
    grid = sns.catplot(
        table,
        kind="strip",
        col="test_task",
        **look,
        dodge=True,
        jitter=False,
        size=3,
        alpha=0.5,
        height=3.2,
        aspect=1.2,
    )
    look |= dict(dodge=0.6, errorbar=None, linestyle="none", marker="_", markersize=11, legend=False)
    grid.map_dataframe(sns.pointplot, **look)
    return finish_grid(grid, "gain over the base, points")


def gain_by_size(table: pd.DataFrame) -> plt.Figure:
    """Replaces Figures 5 and 10: mean gain over students and teachers by number of training questions."""
    style()
    rows = table.assign(questions=table["train_task"].map(TRAIN_SIZES))
    grid = sns.relplot(
        rows,
        kind="line",
        x="questions",
        y="gain",
        col="test_task",
        **HUES,
        marker="o",
        errorbar=None,
        height=3,
        aspect=1.2,
    )
    figure = finish_grid(grid.set(xscale="log"), "mean gain, points")
    sizes = sorted(TRAIN_SIZES.items(), key=lambda item: item[1])
    below = "\n\n"
    labels = [f"{below * (i % 2)}{name}\n{n:,}" for i, (name, n) in enumerate(sizes)]  # two levels avoid overlap
    for axis in grid.axes.flat:
        axis.set_xticks([n for _, n in sizes], labels, minor=False)
        axis.minorticks_off()
    return figure


def gain_by_capacity(table: pd.DataFrame) -> plt.Figure:
    """Replaces Figure 4: mean gain over data sets by student and teacher, one panel per method, on one scale."""
    style()
    rows = table[table["method"] != "sft"].assign(method=lambda t: t["method"].map(LABELS))
    grid = sns.catplot(
        rows, kind="point", x="student", y="gain", order=STUDENTS, hue="teacher", hue_order=TEACHERS, col="method",
        palette=["0.7", "0.4", "0.0"], markersize=5, linewidth=1, errorbar=None, height=3, aspect=0.9,
    )  # fmt: skip
    return finish_grid(grid, "mean gain, points")


def gains_and_noise(noisy: pd.DataFrame) -> plt.Figure:
    """Every gain, with a band of chance: 1.96 standard errors of a difference at the base's accuracy."""
    style()
    grid = sns.catplot(
        noisy, kind="strip", x="gain", y="student", order=STUDENTS, col="test_task", **HUES, dodge=True, jitter=False,
        size=3.5, alpha=0.7, height=4.2, aspect=0.95,
    )  # fmt: skip
    for test, axis in grid.axes_dict.items():
        for y, student in enumerate(STUDENTS):
            base = noisy[(noisy["test_task"] == test) & (noisy["student"] == student)]["base"].iloc[0]
            half = 1.96 * np.sqrt(2 * base * (100 - base) / TEST_SIZES[test])
            axis.fill_betweenx([y - 0.42, y + 0.42], -half, half, color="0.88", lw=0, zorder=0)
        axis.axvline(0, color="black", lw=0.8)
    return with_named_legend(grid).set_axis_labels("gain over the base, points", "").set_titles("{col_name}").figure


def means_and_intervals(found: pd.DataFrame) -> plt.Figure:
    """Mean gain by method with its bootstrap intervals, by the unit that is resampled."""
    label = "mean gain over the base, points, with 95 % interval"
    return intervals(found, "resampled", label, zero=0, horizontal=True)


def shares(found: pd.DataFrame) -> plt.Figure:
    """Share of the variance between cells that each factor explains, by method."""
    style()
    parts = found.drop(columns="sd, points").rename(index=LABELS).mul(100)
    parts.columns = [c.replace("_task", " set").replace("train ", "training ") for c in parts.columns]
    figure, axis = plt.subplots(figsize=(WIDTH, 2.6), layout="constrained")
    parts.plot.barh(stacked=True, color=[*sns.color_palette("colorblind", 7), "0.85"], width=0.7, ax=axis, legend=False)
    for i, sd in enumerate(found["sd, points"]):
        axis.text(101, i, f"sd {sd:.1f} points", va="center", fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="share of the variance between the cells of a method, %", xlim=(0, 118), xticks=range(0, 101, 20))
    figure.legend(*axis.get_legend_handles_labels(), fontsize=8, ncols=4, loc="outside upper center")
    return figure


def sizes_that_fit(published: pd.DataFrame) -> plt.Figure:
    """How well the printed decimals fit each size of a test set, in % of values above chance."""
    style()
    tables = [test_sizes(published, test).assign(test_task=test) for test in TEST_SIZES]
    found = pd.concat(tables).assign(excess=lambda t: t["excess"] * 100)
    grid = sns.relplot(
        found, kind="line", x="n", y="excess", col="test_task", color=COLOURS["base"], lw=0.8, height=2.8, aspect=1.4
    )
    for test, axis in grid.axes_dict.items():
        best = found[found["test_task"] == test].nlargest(1, "excess").iloc[0]
        axis.annotate(
            f"{best['n']:,.0f}", (best["n"], best["excess"]), xytext=(6, -3), textcoords="offset points", fontsize=9
        )
    grid.set_axis_labels(
        "questions in the test set, if it had that many", "printed values that are\na count of it, % above chance"
    )
    return grid.set_titles("{col_name}").figure


def judge_scores(published: pd.DataFrame) -> plt.Figure:
    """Table 1's judge scores (1 to 5) and Table 2's truthfulness (0 to 1), by method."""
    style()
    rows = published[published["table"].isin(["Table 1", "Table 2"]) & ~published["metric"].isin(["nll", "perplexity"])]
    grid = sns.catplot(
        rows, kind="strip", x="metric", y="value", col="table", hue="method", hue_order=["base", "rsft", "da", "pad"],
        palette=COLOURS, dodge=True, jitter=False, size=8, sharex=False, sharey=False, height=3.4, aspect=1.1,
    )  # fmt: skip
    return finish_grid(grid, "score", zero=False)

"""Figures of the paper's numbers."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from agentark.paper.analysis import test_sizes
from agentark.paper.numbers import METHODS, STUDENTS, TEACHERS, TEST_SIZES, TRAIN_SIZES
from agentark.report.charts import COLOURS, LABELS, WIDTH, style

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

"""Variants of how the data for a student were made: scored in pairs, drawn (notebooks `ablation_*`).

A variant is an experiment ("samples, equal traces", "20 agents") and a method; the paper's Figures 4, 5 and 10 and its
Table 7 are such comparisons.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image

from agentark import StudyError
from agentark.files import write_atomically


def _point(axis, x: float, row: pd.Series, **look) -> None:
    axis.errorbar(
        x, row["value"], yerr=[[max(0, row["value"] - row["lo"])], [max(0, row["hi"] - row["value"])]], **look
    )


def bars(table: pd.DataFrame, student: str, experiments: Sequence[str]) -> plt.Figure:
    """Accuracy of a student's methods by experiment, with 95 % intervals and each seed's value as a dot; the base as a
    line."""
    style()
    rows = table[(table["metric"] == "accuracy") & (table["student"] == student)]
    shown = rows[rows["experiment"].isin(experiments)]
    methods = [m for m in METHODS if m in set(shown["method"])]
    figure, axis = plt.subplots(figsize=(WIDTH, 3.6))
    for _, row in shown.iterrows():
        x = experiments.index(row["experiment"]) + (methods.index(row["method"]) - (len(methods) - 1) / 2) * 0.22
        if row["seed"] == "all":
            _point(axis, x, row, fmt="o", ms=6, color=COLOURS[row["method"]])
        else:
            axis.plot(x, row["value"], ".", color="black", ms=4)
    base = rows[rows["method"] == "base"]["value"].iloc[0]
    axis.axhline(base, color="black", lw=0.8, ls=":")
    handles = [plt.Line2D([], [], marker="o", ls="", color=COLOURS[m], label=LABELS[m]) for m in methods]
    handles.append(plt.Line2D([], [], color="black", lw=0.8, ls=":", label=LABELS["base"]))
    axis.legend(handles=handles, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set_xticks(range(len(experiments)), [e.replace(", ", ",\n") for e in experiments], fontsize=8)
    axis.set(ylabel=f"accuracy of {student}", xlabel="dots: single seeds", ylim=(0, 1))
    return figure


@dataclass(frozen=True)
class Line:
    """One line of a figure: a method of a student ("": the teacher) through experiments that a number sets apart."""

    student: str
    method: str
    points: dict[float, str]
    label: str = ""


def lines(table: pd.DataFrame, panels: dict[str, Sequence[Line]], log: bool = True) -> plt.Figure:
    """Accuracy against a number, a panel each (its name is the number's), colours by method, markers within it; with
    95 % intervals, slightly apart."""
    style()
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.8), sharey=True, squeeze=False)
    rows = table[(table["metric"] == "accuracy") & (table["seed"] == "all")]
    rows = rows.set_index(["student", "method", "experiment"])
    for axis, (name, drawn) in zip(axes[0], panels.items(), strict=True):
        ticks = sorted({x for line in drawn for x in line.points})
        for i, line in enumerate(drawn):
            style_of = sum(o.method == line.method for o in drawn[:i])
            found = rows.loc[[(line.student, line.method, e) for e in line.points.values()]]
            shift = (i - (len(drawn) - 1) / 2) * 0.02
            at = np.array(list(line.points))
            x = at * (1 + shift) if log else at + 2 * shift * np.ptp(ticks) / len(ticks)
            errors = np.abs(np.vstack([found["value"] - found["lo"], found["hi"] - found["value"]]))
            axis.errorbar(x, found["value"], yerr=errors, color=COLOURS[line.method], lw=1.2, capsize=2,
                          marker="osD^"[style_of % 4], ls=("-", "--", ":", "-.")[style_of % 4],
                          label=line.label or LABELS[line.method])  # fmt: skip
        if log:
            axis.set_xscale("log")
            axis.minorticks_off()
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axis.set(xlabel=name, ylim=(0, 1))
        axis.legend(fontsize=7)
    axes[0, 0].set_ylabel("accuracy")
    return figure


METHODS = ["base", "sft", "rsft", "da", "pad", "greedy", "single", "vote", "debate"]
LABELS = {
    "base": "base", "sft": "answer-only SFT", "rsft": "R-SFT", "da": "DA", "pad": "PAD",
    "greedy": "teacher, greedy", "single": "teacher, one sample", "vote": "teacher, vote", "debate": "teacher, debate",
}  # fmt: skip
COLOURS = dict(zip(METHODS, sns.color_palette("colorblind", len(METHODS)), strict=True))
WIDTH = 8.4  # inches, the report's page width at 110 dots an inch


def style() -> None:
    sns.set_theme(context="notebook", style="whitegrid", font="DejaVu Sans", font_scale=0.85)


def show(figure: plt.Figure, path: Path | None = None) -> Image:
    """The figure as a picture for a notebook; written to `path` too if one is given, whole or not at all.

    The PNG carries no date and no versions, which would change its bytes from run to run.
    """
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    if path is not None:
        write_atomically(path, lambda p: p.write_bytes(buffer.getvalue()))
    return Image(buffer.getvalue())


def _bars(axis, table: pd.DataFrame, labels: list[str], colours: list) -> None:
    x = np.arange(len(table))
    errors = np.abs(np.vstack([table["value"] - table["lo"], table["hi"] - table["value"]]))
    axis.bar(x, table["value"], yerr=errors, color=colours, capsize=3, error_kw={"lw": 1})
    axis.set_xticks(x, labels, rotation=30, ha="right")


def _by_method(rows: pd.DataFrame, students: list[str], label: str) -> tuple[plt.Figure, np.ndarray]:
    """A bar a system, a panel a student, with 95 % intervals and each seed's value as a dot."""
    style()
    figure, axes = plt.subplots(len(students), 1, figsize=(WIDTH, 3.4 * len(students)), squeeze=False)
    for axis, student in zip(axes[:, 0], students, strict=True):
        own = rows[rows["student"].isin([student, ""])]
        table = own[own["seed"] == "all"].set_index("method").reindex([m for m in METHODS if m in set(own["method"])])
        _bars(axis, table, [LABELS[m] for m in table.index], [COLOURS[m] for m in table.index])
        for x, method in enumerate(table.index):
            one = own[(own["method"] == method) & (own["seed"] != "all")]["value"]
            axis.plot([x] * len(one), one, ".", color="black", ms=4)
        axis.set(title=student, ylabel=label)
    return figure, axes[:, 0]


def numbered(table: pd.DataFrame, axis: str) -> dict[int, str]:
    """The experiments that a number sets apart, by that number, rising: for "N agents" 5 and 10 with "5 agents" and
    "10 agents"."""
    found = re.compile(re.escape(axis).replace("N", r"(\d+)", 1))
    matches = filter(None, map(found.fullmatch, table["experiment"].unique()))
    return dict(sorted((int(m[1]), m[0]) for m in matches))


# Pictures


def legend(figure: plt.Figure, methods: list[str], more: Sequence[plt.Line2D] = ()) -> None:
    """One legend of methods, and more, above all panels, in the room of an empty title."""
    handles = [plt.Line2D([], [], marker="o", ls="", color=COLOURS[m], label=LABELS[m]) for m in methods]
    handles += more
    figure.suptitle("\n".join([" "] * -(-len(handles) // 6)), fontsize=11)
    figure.legend(handles=handles, ncols=6, fontsize=8, loc="upper center")


def differences(table: pd.DataFrame) -> plt.Figure:
    """Every gain of a table of results that is over all seeds and of a student, with its interval: a panel a baseline, a
    line a gain, named by what sets the lines apart; black where the interval excludes 0. Baselines that one line alone is
    measured against share the last panel."""
    style()
    rows = table[(table["metric"] == "accuracy_gain") & (table["seed"] == "all") & (table["student"] != "")]
    names = {m: LABELS[m] for m in METHODS[:5]}  # of students; a protocol whose traces taught one keeps its own
    rows = rows.assign(method=rows["method"].replace(names))
    varying = [c for c in ("student", "test_task", "experiment", "method") if rows[c].nunique() > 1]
    against = rows["baseline"].map(lambda words: ", ".join(names.get(word, word) for word in words.split(", ")))
    alone = (rows.groupby("baseline")["value"].transform("size") == 1) & (rows["baseline"].nunique() > 1)
    line = rows[varying].agg(", ".join, axis=1)
    rows = rows.assign(
        panel=("against " + against).where(~alone, "against others"), line=line.where(~alone, line + " − " + against)
    )
    order = [*rows[~alone]["panel"].unique(), *rows[alone]["panel"].unique()]
    heights = [(rows["panel"] == name).sum() + 1.6 for name in order]  # the room of a title among them
    figure, axes = plt.subplots(
        len(order), 1, figsize=(WIDTH, 0.2 * sum(heights) + 0.9), height_ratios=heights, sharex=True, squeeze=False
    )
    for axis, name in zip(axes[:, 0], order, strict=True):
        own = rows[rows["panel"] == name]
        errors = np.abs(np.vstack([own["value"] - own["lo"], own["hi"] - own["value"]])) * 100
        for y, (r, error) in enumerate(zip(own.itertuples(), errors.T, strict=True)):
            colour = "black" if r.lo > 0 or r.hi < 0 else "darkgrey"
            axis.errorbar(r.value * 100, y, xerr=error[:, None], fmt="o", ms=4, color=colour)
        axis.axvline(0, color="black", lw=0.8)
        axis.set_yticks(range(len(own)), own["line"], fontsize=7)
        axis.set_ylim(len(own) - 0.4, -0.6)
        axis.grid(False, axis="y")
        axis.set_title(name, fontsize=9)
    axes[-1, 0].set_xlabel("gain in accuracy, points, with 95 % interval; grey: 0 is within it")
    return figure


def along(table: pd.DataFrame, axis: str, label: str) -> plt.Figure:
    """Accuracy of every student and method over the number in `experiment` (axis "N questions": "400 questions"), a panel a
    student; logarithmic, with 95 % intervals and each seed's value as a dot. Raises StudyError if none is named so."""
    style()
    at = numbered(table, axis)
    if not at:
        raise StudyError(f"no row of {table['study'].iloc[0]} has an experiment like '{axis}'; name its settings so")
    rows = table[table["experiment"].isin(at.values()) & (table["metric"] == "accuracy")]
    rows = rows.assign(number=rows["experiment"].map({name: n for n, name in at.items()}))
    students = list(rows["student"].unique())
    figure, panels = plt.subplots(1, len(students), figsize=(WIDTH, 3.4), sharey=True, squeeze=False)
    used = [m for m in METHODS if m in set(rows["method"])]
    for panel, student in zip(panels[0], students, strict=True):
        for method in used:
            own = rows[(rows["student"] == student) & (rows["method"] == method)].sort_values("number")
            mean, single = own[own["seed"] == "all"], own[own["seed"] != "all"]
            errors = np.abs(np.vstack([mean["value"] - mean["lo"], mean["hi"] - mean["value"]]))
            panel.errorbar(mean["number"], mean["value"], yerr=errors, fmt="o-", ms=5, lw=1, color=COLOURS[method])
            panel.plot(single["number"], single["value"], ".", ms=4, color="black")
        panel.set(xscale="log", xlabel=label, title=student or "the debate itself")
        panel.set_xticks(list(at), list(at), minor=False)
        panel.minorticks_off()
    panels[0, 0].set_ylabel("accuracy")
    legend(figure, used)
    return figure

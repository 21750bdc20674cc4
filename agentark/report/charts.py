"""The chart types that all figures share: intervals over categories, trends over a number, accuracy by cost."""

import io
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image

from agentark.files import write_atomically

METHODS = [
    "base", "base_steps", "sft", "rsft", "da", "pad", "greedy", "single", "vote", "vote_tokens", "self_revision",
    "debate_off", "debate_other", "debate",
]  # fmt: skip
LABELS = {
    "base": "base", "base_steps": "base, steps shown", "sft": "answer-only SFT", "rsft": "R-SFT", "da": "DA", "pad": "PAD", "greedy": "teacher, greedy",
    "single": "teacher, one sample", "vote": "teacher, vote", "vote_tokens": "teacher, vote at equal tokens",
    "self_revision": "teacher, self-revision", "debate_off": "debate, communication off",
    "debate_other": "debate, peers of another question", "debate": "teacher, debate",
}  # fmt: skip
COLOURS = dict(zip(METHODS, [*sns.color_palette("colorblind", 10), *sns.color_palette("dark", 4)], strict=True))
WIDTH = 8.4  # inches: the report's page width at 110 dots per inch


def style() -> None:
    sns.set_theme(context="notebook", style="whitegrid", font="DejaVu Sans", font_scale=0.85)


def show(figure: plt.Figure, caption: str, path: Path | None = None) -> Image:
    """The figure as a picture for a notebook, with `caption` as its alternative text; also written to `path` if given.

    stage.pages prints the caption below the picture. The PNG contains no date and no versions, so that its bytes do not
    change from run to run.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None}, bbox_inches="tight")
    plt.close(figure)
    if path is not None:
        write_atomically(path, lambda p: p.write_bytes(buffer.getvalue()))
    return Image(buffer.getvalue(), alt=caption)


def in_method_order(table: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order of methods that all figures share; methods outside the study come last."""
    rank = {method: i for i, method in enumerate(METHODS)}
    return table.sort_values("method", key=lambda column: column.map(rank).fillna(len(rank)), kind="stable")


def palette(names: list[str]) -> dict:
    """A colour for each name: the method's own colour, or the next one of the colour-blind palette."""
    others = [name for name in names if name not in COLOURS]
    return COLOURS | dict(zip(others, sns.color_palette("colorblind", max(len(others), 1)), strict=False))


def draw(axis: plt.Axes, at: np.ndarray, rows: pd.DataFrame, horizontal: bool = False, **style: Any) -> None:
    """Draw values with 95 % intervals at the positions `at`, and the values of single seeds as small black dots."""
    mean = rows["seed"].eq("all").to_numpy() if "seed" in rows else np.ones(len(rows), dtype=bool)
    rows, single = rows[mean], rows[~mean]
    error = np.abs(np.vstack([rows["value"] - rows["lo"], rows["hi"] - rows["value"]]).astype(float))
    at, dots = np.asarray(at, float)[mean], np.asarray(at, float)[~mean]
    look: Any = {"fmt": "o", "ms": 5, "lw": 1.2} | style
    if horizontal:
        axis.errorbar(rows["value"], at, xerr=error, **look)
        axis.plot(single["value"], dots, ".", color="black", ms=4)
    else:
        axis.errorbar(at, rows["value"], yerr=error, **look)
        axis.plot(dots, single["value"], ".", color="black", ms=4)


def intervals(
    table: pd.DataFrame, x: str, label: str, hue: str = "method", row: str = "", col: str = "",
    zero: float | None = None, horizontal: bool = False,
) -> plt.Figure:  # fmt: skip
    """Values with 95 % intervals over the categories of column `x`, side by side by `hue`, in panels by `row` and
    `col`.

    Categories are in the order of their first row in a panel. label: of the value axis; zero: the value at which a line
    is drawn. With hue "", intervals that exclude zero are black and the others grey.
    """
    style()
    table = table.assign(_="")
    rows, cols = (list(table[name or "_"].unique()) for name in (row, col))
    hues = list(in_method_order(table)[hue or "_"].unique())
    colours, step = palette(hues), 0 if hue == x or len(hues) == 1 else min(0.18, 0.8 / len(hues))
    parts = {(r, c): table[(table[row or "_"] == r) & (table[col or "_"] == c)] for r in rows for c in cols}
    most = [max(parts[r, c][x].nunique() for c in cols) for r in rows]  # categories in a row of panels
    heights = [0.22 * n + 0.35 for n in most] if horizontal else [3.0] * len(rows)
    figure, axes = plt.subplots(
        len(rows), len(cols), figsize=(WIDTH, sum(heights) + 0.5), height_ratios=heights, squeeze=False,
        layout="constrained", sharex=horizontal, sharey=False if horizontal else "row",
    )  # fmt: skip
    for axis, ((r, c), part) in zip(axes.flat, parts.items(), strict=True):
        names = list(part[x].unique())
        for k, name in enumerate(hues):
            own = part[part[hue or "_"] == name]
            at = np.array([names.index(v) for v in own[x]]) + (k - (len(hues) - 1) / 2) * step
            if hue:
                draw(axis, at, own, horizontal, color=colours[name], label=LABELS.get(name, name))
            else:
                sure = ((own["lo"] > 0) | (own["hi"] < 0)).to_numpy()
                draw(axis, at[sure], own[sure], horizontal, color="black")
                draw(axis, at[~sure], own[~sure], horizontal, color="darkgrey")
        categories(axis, names, horizontal)
        axis.set_title(", ".join(filter(None, (r, c))), fontsize=9)
        if zero is not None:
            (axis.axvline if horizontal else axis.axhline)(zero, color="black", lw=0.8)
    for axis in axes[-1] if horizontal else axes[:, 0]:
        (axis.set_xlabel if horizontal else axis.set_ylabel)(label)
    if step:
        legend(figure, axes[0, 0])
    return figure


def categories(axis: plt.Axes, names: list[str], horizontal: bool) -> None:
    """Label the categories on an axis of `intervals`."""
    labels = [LABELS.get(name, str(name)) for name in names]
    if horizontal:
        axis.set_yticks(range(len(names)), labels, fontsize=8)
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.grid(False, axis="y")
    else:
        broken = [name.replace(", ", ",\n").replace(" ", "\n", 1) for name in labels]
        axis.set_xticks(range(len(names)), broken, fontsize=8)
        axis.set_xlim(-0.6, len(names) - 0.4)


def trends(table: pd.DataFrame, x: str, label: str, hue: str = "method", col: str = "", log: bool = True) -> plt.Figure:
    """Values with 95 % intervals over the numbers in column `x`, one line per `hue`, in panels by `col`."""
    style()
    table = table.assign(_="")
    panels, hues = list(table[col or "_"].unique()), list(in_method_order(table)[hue].unique())
    colours, numbers = palette(hues), sorted(table[x].unique())
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.4), sharey=True, squeeze=False, layout="constrained")
    for axis, panel in zip(axes[0], panels, strict=True):
        part = table[table[col or "_"] == panel].sort_values(x)
        for k, name in enumerate(hues):
            own, shift = part[part[hue] == name], (k - (len(hues) - 1) / 2) * 0.02
            at = own[x].to_numpy(float)
            at = at * (1 + shift) if log else at + shift * np.ptp(np.asarray(numbers, float))
            draw(axis, at, own, fmt="o-", color=colours[name], label=LABELS.get(name, name))
        if log:
            axis.set_xscale("log")
        axis.set_xticks(numbers, [f"{n:g}" for n in numbers], minor=False)
        axis.minorticks_off()
        axis.set(xlabel=label, title=panel)
    axes[0, 0].set_ylabel("accuracy")
    legend(figure, axes[0, 0])
    return figure


def tradeoff(table: pd.DataFrame, costs: dict[str, str], label: str) -> plt.Figure:
    """Accuracy with 95 % intervals against the cost of an answer, on a logarithmic axis: a panel for each column of
    `costs` (column -> label), a colour per method, a marker per student (the teacher is "")."""
    style()
    table = in_method_order(table)
    marks = dict(zip(sorted(table["student"].unique()), "Dos^v", strict=False))
    figure, axes = plt.subplots(1, len(costs), figsize=(WIDTH, 4), sharey=True, squeeze=False, layout="constrained")
    colours = palette(list(table["method"].unique()))
    for axis, (column, words) in zip(axes[0], costs.items(), strict=True):
        for (method, student), own in table.groupby(["method", "student"], sort=False):
            name = f"{LABELS.get(method, method)}{f', {student}' if student else ''}"
            draw(axis, own[column].to_numpy(float), own, color=colours[method], fmt=marks[student], ms=7, label=name)
        axis.set_xscale("log", subs=[2, 5])
        for ticks in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
            ticks("{x:g}")
        axis.tick_params(axis="x", which="both", length=0, pad=6)  # 50 and 100 on one line
        axis.set(xlabel=words, ylim=(0, 1))
    axes[0, 0].set_ylabel(label)
    legend(figure, axes[0, 0])
    return figure


def legend(figure: plt.Figure, axis: plt.Axes, columns: int = 5) -> None:
    """One legend for all panels, above them."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, ncols=columns, fontsize=8, loc="outside upper center")


def with_named_legend(grid: sns.FacetGrid) -> sns.FacetGrid:
    """A seaborn grid with its legend above the panels, by the names of LABELS and without a title."""
    for text in grid.legend.texts:
        text.set_text(LABELS.get(text.get_text(), text.get_text()))
    sns.move_legend(grid, "lower center", bbox_to_anchor=(0.5, 1.0), ncol=5, title="")
    grid.figure.tight_layout()
    return grid

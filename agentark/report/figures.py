"""The study's figures. Methods have the same order and the same colour-blind-safe colours in all of them."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from agentark.report.charts import (
    COLOURS,
    LABELS,
    METHODS,
    WIDTH,
    in_method_order,
    intervals,
    legend,
    style,
    tradeoff,
    with_named_legend,
)
from agentark.report.sentences import select
from agentark.schemas import ANSWERS_ALONE, RIVALS, UNITS


def accuracy(scores: pd.DataFrame, students: list[str], task: str) -> plt.Figure:
    """Accuracy of every system on one task, a panel per student, with 95 % intervals; dots are single seeds."""
    rows = scores[(scores["setting"] == "test") & (scores["test_task"] == task)]
    figure = by_method(rows, students, "accuracy", task)
    figure.axes[0].set_ylim(0, 1)  # shared by the panels
    return figure


def by_method(scores: pd.DataFrame, students: list[str], metric: str, task: str) -> plt.Figure:
    """A metric by method, a panel per student, each with the teacher."""
    rows = scores[scores["metric"] == metric]
    panels = [rows[rows["student"].isin([student, ""])].assign(panel=student) for student in students]
    return intervals(
        in_method_order(pd.concat(panels, ignore_index=True)), "method", f"{metric} on {task}", row="panel"
    )


def gains(scores: pd.DataFrame, train_task: str) -> plt.Figure:
    """Paired gain over the base by test task, in domain first, a panel per student: F1 for texts, else accuracy."""
    rows = select(scores, baseline="base", setting="test")
    rows = rows[rows["metric"].isin(["accuracy_gain", "f1_gain"])]
    texts = set(rows[rows["metric"] == "f1_gain"]["test_task"])
    rows = rows[(rows["metric"] == "f1_gain") | ~rows["test_task"].isin(texts)]
    rows = rows.sort_values("test_task", key=lambda task: task != train_task, kind="stable")
    notes = {train_task: " (in domain)", **dict.fromkeys(texts, " (F1)")}
    rows = rows.assign(task=[f"{task}{notes.get(task, '')}" for task in rows["test_task"]])
    label = "gain in accuracy over base" if not texts else "gain in accuracy or F1 over base"
    return intervals(rows, "task", label, row="student", zero=0)


def cost(scores: pd.DataFrame, task: str) -> plt.Figure:
    """Accuracy against tokens per question, of every system of the teacher and every student."""
    rows = select(scores, metric="accuracy", setting="test", test_task=task)
    return tradeoff(rows, {"tokens_per_question": "tokens read and generated per question"}, f"accuracy on {task}")


def cost_of_answers(table: pd.DataFrame, scores: pd.DataFrame, task: str) -> plt.Figure:
    """Accuracy on `task` against cost per answer, by unit. table: reports/cost.csv; scores: reports/scores.csv."""
    right = select(scores, metric="accuracy", setting="test", test_task=task)
    costs = table[table["setting"] == "answer"].pivot_table("value", ["method", "student"], "metric").reset_index()
    rows = right.merge(costs, on=["method", "student"])
    return tradeoff(rows, {unit: f"{unit} per question" for unit in UNITS}, f"accuracy on {task}")


def cost_totals(table: pd.DataFrame, student: str, unit: str = "tokens") -> plt.Figure:
    """Total cost by number of answers, one line per way to answer. Where a student's line crosses a rival's, the
    student has paid for its debates and its training."""
    style()
    rows = table[(table["metric"] == unit) & (table["part"] == "")]
    once, each = (rows[rows["setting"] == s].set_index(["method", "student"])["value"] for s in ("once", "answer"))
    crossings = rows[(rows["setting"] == "break-even") & (rows["student"] == student)]["value"]
    questions = np.geomspace(10, 4 * crossings[np.isfinite(crossings)].max(), 200)
    figure, axis = plt.subplots(figsize=(WIDTH, 3.8), layout="constrained")
    ways = [(m, "") for m in ("single", *RIVALS[::-1])] + [(m, s) for m, s in once.index if s == student]
    for way, (method, owner) in enumerate(ways):
        fixed = 0 if not owner else once[method, owner] + (0 if method in ANSWERS_ALONE else once["debate", ""])
        # Alternate line styles, so that equal lines stay visible.
        options = dict(color=COLOURS[method], label=LABELS[method], ls="--" if way % 2 else "-")
        axis.plot(questions, fixed + questions * each[method, owner], **options)
    axis.set(xscale="log", yscale="log", xlabel="questions answered", ylabel=f"total {unit}", title=student)
    legend(figure, axis)
    return figure


def trajectory_counts(counts: pd.DataFrame) -> plt.Figure:
    """Number of trajectories that extraction kept, and of those that it dropped, by reason."""
    style()
    count = counts.set_index("what")["count"]
    rows = ["trajectories", "dropped: wrong answer", "dropped: no answer stated", "dropped: same text as another",
            "correct and distinct", "corrective among them", "kept for R-SFT", "kept for DA"]  # fmt: skip
    colours = sns.color_palette("colorblind")
    figure, axis = plt.subplots(figsize=(WIDTH, 2.9), layout="constrained")
    bars = axis.barh(rows, count[rows], color=[colours[7], *[colours[1]] * 3, *[colours[0]] * 4])
    axis.bar_label(bars, padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="trajectories")
    return figure


def reward_model(scores: pd.DataFrame) -> plt.Figure:
    """AUROC of steps and the share of first errors located, by stage; AUROC of traces if steps have no known truth."""
    labels = {"prm_step_auroc": "step AUROC against truth", "prm_step_auroc_within": "step AUROC within a debate",
              "first_error_located": "first errors located",
              "prm_trace_auroc": "trace AUROC against truth"}  # fmt: skip
    rows = select(scores, study="reward_model")
    rows = rows[rows["metric"].isin(labels)]
    rows = rows.assign(measure=rows["metric"].map(labels)).sort_values(
        "metric", key=lambda m: m.map(list(labels).index), kind="stable"
    )
    figure = intervals(rows, "method", "share", hue="student", col="measure", zero=0.5)
    figure.axes[0].set_ylim(0, 1.02)
    return figure


def learning_curves(curves: pd.DataFrame, metric: str, label: str) -> plt.Figure:
    """`metric` over optimiser steps: one line per method and seed, a panel per student."""
    style()
    rows = curves.dropna(subset=[metric])
    methods = [m for m in METHODS if m in set(rows["method"])]
    grid = sns.relplot(
        rows, x="step", y=metric, hue="method", hue_order=methods, palette=COLOURS, units="seed", estimator=None,
        col="student", kind="line", lw=1, height=2.9, aspect=WIDTH / 2.9 / rows["student"].nunique() * 0.8,
    )  # fmt: skip
    return with_named_legend(grid).set_axis_labels("optimiser step", label).set_titles("{col_name}").figure


def policy_curves(curves: pd.DataFrame) -> plt.Figure:
    """Reward, accuracy, agreement and accuracy of the reward model on a policy's own outputs over optimiser steps: a
    panel each, one line per seed. A panel without values is left out. A cross marks the step that is kept."""
    style()
    names = {
        "reward": "reward", "accuracy": "accuracy of outputs", "agreement": "agreement with debates",
        "judged": "reward model's accuracy",
    }  # fmt: skip
    shown = {column: name for column, name in names.items() if column in curves and curves[column].notna().any()}
    figure, axes = plt.subplots(1, len(shown), figsize=(WIDTH, 2.9), squeeze=False, layout="constrained")
    for axis, (column, name) in zip(axes[0], shown.items(), strict=True):
        for colour, (_, own) in zip(
            itertools.cycle(sns.color_palette("colorblind")), curves.groupby("seed"), strict=False
        ):
            own = own.dropna(subset=[column])
            axis.plot(own["step"], own[column], lw=1, color=colour)
            kept = own.iloc[(own["step"] - own["kept"]).abs().argsort()[:1]]
            axis.plot(kept["step"], kept[column], "x", color=colour)
        axis.set(xlabel="optimiser step", title=name)
    return figure


def rounds(table: pd.DataFrame) -> plt.Figure:
    """Accuracy of one agent and of the agents' vote by round, one line per setting."""
    style()
    long = table.melt(["round", "setting"], ["single", "vote"], "who", "accuracy")
    long["who"] = long["who"].map({"single": "one agent", "vote": "vote of the agents"})
    grid = sns.relplot(
        long, x="round", y="accuracy", hue="setting", col="who", kind="line", marker="o", palette="colorblind",
        height=3, aspect=1.25,
    )  # fmt: skip
    grid.set(xticks=sorted(table["round"].unique()), ylim=(0, 1)).set_titles("{col_name}")
    return grid.figure


def robustness(scores: pd.DataFrame, student: str) -> plt.Figure:
    """Accuracy of a student's methods, base and teacher by setting, and the paired change from unperturbed
    questions."""
    rows = select(scores)
    rows = rows[rows["student"].isin([student, ""])]
    accuracy = rows[rows["metric"] == "accuracy"].assign(panel="accuracy")
    change = rows[(rows["metric"] == "accuracy_gain") & (rows["baseline_variant"] == "unperturbed")]
    both = pd.concat([accuracy, change.assign(panel="change from unperturbed")])
    return intervals(both, "setting", "", row="panel", zero=0)

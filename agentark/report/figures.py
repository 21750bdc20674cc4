"""The study's figures, by seaborn: methods in one order and one colour-blind-safe colour throughout."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from agentark.report.charts import COLOURS, LABELS, METHODS, WIDTH, _by_method, style
from agentark.schemas import ANSWERS_ALONE, RIVALS, UNITS


def cost_of_answers(table: pd.DataFrame, scores: pd.DataFrame, task: str) -> plt.Figure:
    """Accuracy on `task` against what an answer takes in each unit, logarithmic, with 95 % intervals of both.

    scores: reports/scores.csv. A mark is a student, a colour a method.
    """
    style()
    right = scores[(scores["experiment"] == "test") & (scores["test_task"] == task) & (scores["metric"] == "accuracy")]
    right = right[right["seed"] == "all"].set_index(["method", "student"])
    paid = table[table["experiment"] == "a question"]
    marks = dict(zip(sorted(paid["student"].unique()), "Dos^vPX", strict=False))
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 4.2), sharey=True)
    for axis, unit in zip(axes, UNITS, strict=True):
        for r in paid[paid["metric"] == unit].itertuples():
            known = right.loc[(r.method, r.student)]
            errors = [
                [[known["value"] - known["lo"]], [known["hi"] - known["value"]]],
                [[r.value - r.lo], [r.hi - r.value]],
            ]
            axis.errorbar(r.value, known["value"], *np.abs(errors), fmt=marks[r.student], ms=6, color=COLOURS[r.method])
        axis.set(xscale="log", xlabel=f"{unit} a question", ylim=(0, 1))
    axes[0].set_ylabel(f"accuracy on {task}")
    used = [m for m in METHODS if m in set(paid["method"])]
    handles = [plt.Line2D([], [], marker="s", ls="", color=COLOURS[m], label=LABELS[m]) for m in used]
    handles += [plt.Line2D([], [], marker=k, ls="", color="grey", label=s or "teacher") for s, k in marks.items()]
    figure.suptitle("\n".join(" " * 3), fontsize=11)
    figure.legend(handles=handles, ncols=5, fontsize=8, loc="upper center")
    return figure


def cost_totals(table: pd.DataFrame, student: str, unit: str = "tokens") -> plt.Figure:
    """All that has been paid after so many answers, a line a way of answering: where a student's line crosses a rival's,
    it has paid for its debates and its training."""
    style()
    rows = table[table["metric"] == unit]
    first = rows[rows["experiment"] == "once"].set_index(["method", "student"])["value"]
    each = rows[rows["experiment"] == "a question"].set_index(["method", "student"])["value"]
    crossings = rows[(rows["experiment"] == "break-even") & (rows["student"] == student)]["value"]
    most = 4 * crossings[np.isfinite(crossings)].max()
    questions = np.geomspace(10, most, 200)
    figure, axis = plt.subplots(figsize=(8.4, 3.8))
    ways = [(m, "") for m in ("single", *RIVALS[::-1])] + [(m, s) for m, s in first.index if s == student]
    for way, (method, whose) in enumerate(ways):
        paid = 0 if not whose else first[method, whose] + (0 if method in ANSWERS_ALONE else first["debate", ""])
        axis.plot(
            questions,
            paid + questions * each[method, whose],
            color=COLOURS[method],
            label=LABELS[method],
            ls="--" if way % 2 else "-",
        )  # lines that coincide stay visible
    axis.set(xscale="log", yscale="log", xlabel="questions answered", ylabel=f"{unit} in all")
    axis.set_title(student)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def accuracy_by_method(scores: pd.DataFrame, students: list[str], task: str) -> plt.Figure:
    """Accuracy of every system on one task, a panel a student, with 95 % intervals and each seed's value as a dot."""
    rows = scores[(scores["experiment"] == "test") & (scores["test_task"] == task) & (scores["metric"] == "accuracy")]
    figure, axes = _by_method(rows, students, f"accuracy on {task}")
    for axis in axes:
        axis.set_ylim(0, 1)
    return figure


def gains(scores: pd.DataFrame, train_task: str) -> plt.Figure:
    """Paired gain over the base by test task, in domain first, a panel a student: accuracy, of texts F1."""
    style()
    rows = scores[scores["metric"].isin(["accuracy_gain", "f1_gain"]) & (scores["baseline"] == "base")]
    texts = set(rows[rows["metric"] == "f1_gain"]["test_task"])
    rows = rows[(rows["metric"] == "f1_gain") | ~rows["test_task"].isin(texts)]
    students = sorted(rows["student"].unique())
    tasks = [train_task, *[t for t in rows["test_task"].unique() if t != train_task]]
    methods = [m for m in METHODS if m in set(rows["method"])]
    figure, axes = plt.subplots(len(students), 1, figsize=(WIDTH, 2.9 * len(students)), sharex=True, squeeze=False)
    for axis, student in zip(axes[:, 0], students, strict=True):
        for i, method in enumerate(methods):
            part = rows[(rows["student"] == student) & (rows["method"] == method)].set_index("test_task").reindex(tasks)
            x = np.arange(len(tasks)) + (i - (len(methods) - 1) / 2) * 0.18
            errors = np.abs(np.vstack([part["value"] - part["lo"], part["hi"] - part["value"]]))
            axis.errorbar(x, part["value"], yerr=errors, fmt="o", ms=5, color=COLOURS[method], label=LABELS[method])
        axis.axhline(0, color="black", lw=0.8)
        axis.set(
            title=student, ylabel="gain in accuracy over base" if not texts else "gain in accuracy or F1 over base"
        )
        notes = {train_task: "\n(in domain)", **dict.fromkeys(texts, "\n(F1)")}
        axis.set_xticks(np.arange(len(tasks)), [f"{t}{notes.get(t, '')}" for t in tasks])
    axes[0, 0].legend(ncols=len(methods), fontsize=8)
    return figure


def cost(scores: pd.DataFrame, task: str) -> plt.Figure:
    """Accuracy against tokens a question, logarithmic: one pass, vote, debate, and every student."""
    style()
    rows = scores[(scores["experiment"] == "test") & (scores["test_task"] == task) & (scores["metric"] == "accuracy")]
    rows = rows[rows["seed"] == "all"]
    figure, axis = plt.subplots(figsize=(WIDTH, 4))
    markers = dict(zip(sorted(rows["student"].unique()), "Dos^v", strict=False))
    for _, r in rows.iterrows():
        error = [[abs(r["value"] - r["lo"])], [abs(r["hi"] - r["value"])]]
        axis.errorbar(
            r["tokens_per_question"],
            r["value"],
            yerr=error,
            fmt=markers[r["student"]],
            ms=7,
            color=COLOURS[r["method"]],
        )
    used = [m for m in METHODS if m in set(rows["method"])]
    handles = [plt.Line2D([], [], marker="s", ls="", color=COLOURS[m], label=LABELS[m]) for m in used]
    handles += [
        plt.Line2D([], [], marker=mark, ls="", color="grey", label=name or "teacher") for name, mark in markers.items()
    ]
    axis.legend(handles=handles, fontsize=8, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set_xscale("log", subs=[2, 5])
    for ticks in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
        ticks("{x:.0f}")
    axis.tick_params(axis="x", which="both", length=0, pad=6)  # 50 and 100 on one line
    axis.set(xlabel="tokens read and written a question", ylabel=f"accuracy on {task}", ylim=(0, 1))
    return figure


def kept(counts: pd.DataFrame) -> plt.Figure:
    """What extraction kept of all trajectories, and why the rest was dropped."""
    style()
    count = counts.set_index("what")["count"]
    rows = ["trajectories", "dropped: wrong answer", "dropped: no answer stated", "dropped: same text as another",
            "correct and distinct", "corrective among them", "kept for R-SFT", "kept for DA"]  # fmt: skip
    colours = sns.color_palette("colorblind")
    figure, axis = plt.subplots(figsize=(WIDTH, 2.9))
    axis.barh(rows, count[rows], color=[colours[7], *[colours[1]] * 3, *[colours[0]] * 4])
    axis.bar_label(axis.containers[0], padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="trajectories")
    return figure


def reward_model(scores: pd.DataFrame) -> plt.Figure:
    """AUROC by stage, of steps and the share of first errors located where the truth of steps is known, else of traces."""
    style()
    rows = scores[(scores["study"] == "reward_model") & (scores["seed"] == "all")]
    order = ["fresh head", "likelihood", "stage I", "stage II"]
    labels = {"prm_step_auroc": "step AUROC against truth", "first_error_located": "first errors located",
              "prm_trace_auroc": "trace AUROC against truth"}  # fmt: skip
    metrics = {m: label for m, label in labels.items() if m in set(rows["metric"])}
    students = sorted(rows["student"].unique())
    figure, axes = plt.subplots(1, len(metrics), figsize=(WIDTH, 3), squeeze=False)
    axes = axes[0]
    palette = sns.color_palette("colorblind", len(students))
    for axis, (metric, label) in zip(axes, metrics.items(), strict=True):
        for i, student in enumerate(students):
            part = rows[(rows["metric"] == metric) & (rows["student"] == student)].set_index("method").reindex(order)
            x = np.arange(len(order)) + (i - (len(students) - 1) / 2) * 0.15
            errors = np.abs(np.vstack([part["value"] - part["lo"], part["hi"] - part["value"]]))
            axis.errorbar(x, part["value"], yerr=errors, fmt="o", color=palette[i], label=student)
        axis.set_xticks(np.arange(len(order)), [label.replace(" ", "\n") for label in order])
        axis.set(ylabel=label, ylim=(0, 1.02))
        if metric != "first_error_located":
            axis.axhline(0.5, color="black", lw=0.8, ls=":")
    axes[-1].legend(fontsize=8)
    return figure


def learning_curves(curves: pd.DataFrame, metric: str, label: str) -> plt.Figure:
    """One line a method and seed: `metric` over optimiser steps."""
    style()
    rows = curves.dropna(subset=[metric])
    methods = [m for m in METHODS if m in set(rows["method"])]
    rows = rows.assign(method=rows["method"].map(LABELS))
    students = sorted(rows["student"].unique())
    figure, axes = plt.subplots(1, len(students), figsize=(WIDTH, 2.9), sharey=True, squeeze=False)
    for axis, student in zip(axes[0], students, strict=True):
        sns.lineplot(
            rows[rows["student"] == student], x="step", y=metric, hue="method", units="seed", estimator=None,
            hue_order=[LABELS[m] for m in methods], palette=[COLOURS[m] for m in methods], lw=1, ax=axis,
        )  # fmt: skip
        axis.set(title=student, xlabel="optimiser step", ylabel=label)
        axis.legend(fontsize=8)
    return figure


def rounds(table: pd.DataFrame) -> plt.Figure:
    """Accuracy of single agents and of their vote by round, a line a setting."""
    style()
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3), sharey=True)
    for axis, (metric, label) in zip(axes, {"single": "one agent", "vote": "vote of agents"}.items(), strict=True):
        sns.lineplot(table, x="round", y=metric, hue="setting", marker="o", palette="colorblind", ax=axis)
        axis.set(title=label, ylabel="accuracy", xlabel="round", xticks=sorted(table["round"].unique()), ylim=(0, 1))
    axes[0].get_legend().remove()
    sns.move_legend(axes[1], "upper left", bbox_to_anchor=(1.02, 1))
    return figure


def protocols(scores: pd.DataFrame, names: list[str]) -> plt.Figure:
    """Left: each protocol's accuracy against the tokens it takes. Right: its student's, with the base as a line. Protocols
    that the study itself does not use are black, each with a mark of its own."""
    style()
    rows = scores[(scores["metric"] == "accuracy")]
    looks = {
        name: dict(color=COLOURS.get(name, "black"), fmt=mark) for name, mark in zip(names, "oosD^v", strict=False)
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.2), sharey=True)
    for x, name in enumerate(names):
        own = rows[rows["method"] == name]
        talk, taught = own[own["student"] == ""].iloc[0], own[(own["student"] != "") & (own["seed"] == "all")].iloc[0]
        for axis, at, r in ((left, talk["tokens_per_question"], talk), (right, x, taught)):
            error = [[r["value"] - r["lo"]], [r["hi"] - r["value"]]]
            axis.errorbar(at, r["value"], yerr=error, ms=6, label=name, **looks[name])
        seeds = own[(own["student"] != "") & (own["seed"] != "all")]["value"]
        right.plot([x] * len(seeds), seeds, ".", color="black", ms=4)
    base = rows[(rows["method"] == "base") & (rows["seed"] == "all")]["value"].iloc[0]
    right.axhline(base, color="black", lw=0.8, ls=":", label="base")
    left.set(title="the protocol itself", xlabel="tokens read and written a question", ylabel="accuracy", ylim=(0, 1))
    right.set(title="the student of its traces", xlabel="dots: single seeds")
    right.set_xticks(range(len(names)), names)
    left.legend(fontsize=8, loc="lower right")
    return figure


def perplexity(scores: pd.DataFrame, students: list[str]) -> plt.Figure:
    """Perplexity of gold reasoning by method, a panel a student, with 95 % intervals and each seed's value as a dot."""
    rows = scores[(scores["experiment"] == "perplexity") & (scores["metric"] == "perplexity")]
    figure, axes = _by_method(rows, students, "perplexity of gold reasoning")
    for axis in axes:
        axis.set_ylim(bottom=1)  # of a model that is certain
    return figure


def robustness(scores: pd.DataFrame, student: str) -> plt.Figure:
    """A student's methods, its base and the teacher by setting: accuracy, and below it the paired change against the
    same questions unperturbed, with 95 % intervals."""
    style()
    rows = scores[(scores["seed"] == "all") & scores["student"].isin([student, ""])]
    panels = {
        "accuracy": rows[rows["metric"] == "accuracy"],
        "change against unperturbed": rows[(rows["metric"] == "accuracy_gain") & (rows["baseline"] == "unperturbed")],
    }
    settings = list(dict.fromkeys(panels["accuracy"]["experiment"]))
    methods = [m for m in METHODS if m in set(panels["accuracy"]["method"])]
    figure, axes = plt.subplots(2, 1, figsize=(WIDTH, 6.2), sharex=True)
    for axis, (label, table) in zip(axes, panels.items(), strict=True):
        for i, method in enumerate(methods):
            part = table[table["method"] == method].set_index("experiment").reindex(settings)
            x = np.arange(len(settings)) + (i - (len(methods) - 1) / 2) * 0.13
            errors = np.abs(np.vstack([part["value"] - part["lo"], part["hi"] - part["value"]]))
            axis.errorbar(x, part["value"], yerr=errors, fmt="o", ms=5, color=COLOURS[method], label=LABELS[method])
        axis.set(ylabel=label)
    figure.suptitle(student)
    axes[0].set(ylim=(0, 1))
    axes[0].legend(ncols=len(methods), fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1))
    axes[1].axhline(0, color="black", lw=0.8)
    axes[1].set_xticks(np.arange(len(settings)), [s.replace(" ", "\n") for s in settings])
    return figure

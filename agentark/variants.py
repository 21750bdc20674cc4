"""Variants of how the data for a student were made: scored in pairs, drawn (notebooks `ablation_*`).

A variant is an experiment ("samples, equal traces", "20 agents") and a method; the paper's Figures 4, 5 and 10 and its
Table 7 are such comparisons.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agentark import StudyError, stats
from agentark.evaluate import score
from agentark.figures import COLOURS, LABELS, METHODS, WIDTH, style
from agentark.report import signed, verdict
from agentark.schemas import CheckedTrace, Question, Score, Trajectory

Variant = tuple[str, str]  # experiment, method
KEPT = {"rsft": "for_rsft", "da": "for_da"}


def of(trajectories: Iterable[Trajectory], questions: Iterable[Question]) -> list[Trajectory]:
    """Those of the given questions."""
    keys = {q.question_id for q in questions}
    return [t for t in trajectories if t.question_id in keys]


def trimmed(trajectories: Sequence[Trajectory], like: Sequence[Trajectory], method: str) -> list[Trajectory]:
    """As many traces for `method` as `like` has: of each question as many, then, where it has fewer, of others.

    Raises StudyError if there are too few.
    """
    chosen, wanted = ([t for t in some if getattr(t, KEPT[method])] for some in (trajectories, like))
    if len(chosen) < len(wanted):
        raise StudyError(f"{method}: {len(chosen)} traces cannot be cut to {len(wanted)}; ask for more samples")
    quota = Counter(t.question_id for t in wanted)
    seen: Counter[str] = Counter()
    late = []  # 0 within a question's quota; beyond it, first traces of further questions come before second ones
    for trace in chosen:
        place = seen[trace.question_id]
        late.append(0 if place < quota[trace.question_id] else 1 + place)
        seen[trace.question_id] += 1
    order = sorted(range(len(chosen)), key=late.__getitem__)[: len(wanted)]
    return [chosen[i] for i in sorted(order)]


def yielded(sources: dict[str, Sequence[Trajectory | CheckedTrace]], questions: Sequence[Question]) -> pd.DataFrame:
    """Row a question, column a source of right traces: whether it has one of the question; and the question's `level`."""
    has = {name: {t.question_id for t in some} for name, some in sources.items()}
    rows = {name: [q.question_id in keys for q in questions] for name, keys in has.items()}
    return pd.DataFrame(rows | {"level": [q.level for q in questions]}, index=[q.question_id for q in questions])


def yield_scores(table: pd.DataFrame, study: str, teacher: str, train_task: str, baseline: str) -> list[Score]:
    """The share of training questions with a right trace by source (metric `yield`), and its paired gain over that of
    `baseline`: of all questions, and of each level alone. `table`: see yielded."""
    rows = []
    parts = {"": table} | {f", level {level}": part for level, part in table.groupby("level")}
    for suffix, part in parts.items():
        for source in table.columns.drop("level"):
            fixed = dict(study=study, experiment=f"{source}{suffix}", teacher=teacher, student="", method="",
                         train_task=train_task, test_task=train_task, tokens_per_question=0.0)  # fmt: skip
            rows.append(score(fixed, "yield", stats.mean(part[source])))
            if source != baseline:
                rows.append(score(fixed, "yield_gain", stats.gain(part[source], part[baseline]), baseline=baseline))
    return rows


def named(variant: Variant, beside: Variant) -> str:
    """A variant as the baseline of another: what differs between them."""
    return ", ".join(dict.fromkeys(a for a, b in zip(variant, beside, strict=True) if a != b))


def scores(
    predictions: pd.DataFrame, study: str, teacher: str, train_task: str, against: Callable[..., list[Variant]]
) -> list[Score]:
    """Accuracy of every system on the questions of `train_task`, calls of the teacher's, and gains paired by question.

    Experiments are the predictions' settings. A student has a row a seed and one of the mean over seeds ("all"). A gain
    is against each of `against(experiment, method)`, of the same student or of the teacher, over the questions that both
    answered; `baseline` says in what that one differs.
    """
    systems = dict(iter(predictions.groupby(["student", "setting", "method"], sort=False)))
    right = {system: part.groupby("question_id")["correct"].mean() for system, part in systems.items()}
    rows = []
    for (student, *variant), part in systems.items():
        experiment, method = variant
        own = right[student, experiment, method]
        fixed = dict(study=study, experiment=experiment, teacher=teacher, student=student, method=method,
                     train_task=train_task if student and method != "base" else "", test_task=train_task,
                     tokens_per_question=float(part["tokens"].mean()))  # fmt: skip
        each = {str(s): one["correct"] for s, one in part.groupby("seed")} if part["seed"].nunique() > 1 else {}
        rows += [score(fixed, "accuracy", stats.mean(values), seed) for seed, values in {**each, "all": own}.items()]
        if not student:
            rows.append(score(fixed, "calls", stats.mean(part["calls"])))
        for rival in against(experiment, method):
            other = right.get((student, *rival), right.get(("", *rival)))
            if other is not None:
                pair = pd.concat([own, other], axis=1, join="inner")
                gained = stats.gain(pair.iloc[:, 0], pair.iloc[:, 1])
                rows.append(score(fixed, "accuracy_gain", gained, baseline=named(rival, (experiment, method))))
    return rows


def findings(table: pd.DataFrame, experiments: Iterable[str], metric: str = "accuracy_gain") -> list[str]:
    """A sentence a gain of these experiments: better, worse, or not to be told apart, by its interval."""
    rows = table[(table["metric"] == metric) & table["experiment"].isin(list(experiments))]
    told = []
    for _, row in rows.iterrows():
        how = ", ".join(filter(None, (LABELS.get(row["method"], ""), row["student"])))
        rival = ", ".join(LABELS.get(word, word) for word in row["baseline"].split(", "))
        who = f"*{row['experiment']}*{f' ({how})' if how else ''}"
        told.append(f"{who} {verdict(row)} *{rival}*: {signed(row)}, n = {row['n']}")
    return told


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

"""What the study spent, and after how many answers a student has paid for itself (the paper's Table 6, and beyond).

Everything is a row of schema `Score` with study "cost". `experiment` says what was paid: "once" (training questions'
debates; one seed's training), "a question" (an answer), or "break-even" (questions until a student has paid, against
`baseline`). `metric` is the unit: "tokens" read, written or trained on, or "seconds" of one core (of wall clock at scale
full).
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agentark import stats
from agentark.evaluate import score
from agentark.figures import COLOURS, LABELS, METHODS, style
from agentark.schemas import Score, Seconds, Trace, read_table
from agentark.stats import Estimate

UNITS = ("tokens", "seconds")
RIVALS = ("debate", "vote")
ANSWERS_ALONE = ("sft",)  # learns the given answers: it needs no debate


def exact(value: float, n: int) -> Estimate:
    """A number that was counted or timed once: its interval is itself."""
    return Estimate(float(value), float(value), float(value), n)


def teacher_seconds(folder: Path) -> pd.DataFrame:
    """Seconds of debate, vote and one sample a question (index: question_id) in a folder of notebook 03."""
    rows = pd.DataFrame([s.model_dump() for s in read_table(folder / "seconds.parquet", Seconds)])
    calls = len(read_table(folder / "traces.parquet", Trace))
    parts = {"debate": rows[:calls], "vote": rows[calls:], "single": rows[calls:].query("agent == 1")}
    return pd.DataFrame({name: part.groupby("question_id")["seconds"].sum() for name, part in parts.items()})


def trainings(students: Iterable[str], methods: Iterable[str]) -> dict[tuple[str, str], dict[str, str]]:
    """(student, method) -> the stages that train it, in the planner's names, with the notebooks' notes under data/runs."""
    found = {}
    for s in students:
        found |= {(s, m): {f"distill@{s}-{m}": f"05_distill-{s}-{m}"} for m in methods}
        found[s, "pad"] = {f"reward_model@{s}": f"06_reward_model-{s}", f"policy@{s}": f"07_policy-{s}-pad"}
    return found


def noted(runs: Path, notebook: str, clock: str) -> float:
    """Seconds that a notebook noted when it last ran; NaN where it was not run here, but taken from DVC's cache."""
    note = runs / f"{notebook}.json"
    return float(json.loads(note.read_text()).get(clock, math.nan)) if note.is_file() else math.nan


def once(
    used: dict[str, tuple[int, int]], debates: float, stages: dict, seeds: int, runs: Path, clock: str, fixed: dict
) -> list[Score]:
    """Rows of what is paid once: the debates on training questions, and of each training (and its parts) one seed.

    used: questions and tokens by stage (plan.used); debates: seconds of the training questions' debates; clock: the key of
    data/runs/*.json that holds seconds. A training that was not timed has no row in seconds.
    """
    n, tokens = used["debate@train"]
    paid = dict(fixed, experiment="once", student="", method="debate")
    rows = [score(paid, "tokens", exact(tokens, n)), score(paid, "seconds", exact(debates, n))]
    for (student, method), parts in stages.items():
        spent = {
            stage: (used[stage][1] / seeds, noted(runs, notebook, clock) / seeds) for stage, notebook in parts.items()
        }
        if len(parts) > 1:
            spent = {"training": tuple(map(sum, zip(*spent.values(), strict=True))), **spent}
        for name, amounts in spent.items():
            part = f": {name.split('@')[0]}" if name in parts and len(parts) > 1 else ""
            own = dict(paid, experiment=f"once{part}", student=student, method=method)
            rows += [score(own, u, exact(a, n)) for u, a in zip(UNITS, amounts, strict=True) if not math.isnan(a)]
    return rows


def answering(predictions: pd.DataFrame, teacher: pd.DataFrame, took: pd.DataFrame, fixed: dict) -> list[Score]:
    """Rows of what an answer takes, by method and student, over all test questions.

    predictions: data/predictions, of which setting "test" counts; teacher: `teacher_seconds`; took: reports/seconds.csv,
    the only source of students' seconds, means without an interval.
    """
    asked = predictions[predictions["setting"] == "test"]
    means = took[took["setting"] == "test"].set_index(["method", "student"])["seconds_per_question"]
    rows = []
    for (method, student), part in asked.groupby(["method", "student"], sort=False):
        own = dict(fixed, experiment="a question", student=student, method=method)
        rows.append(score(own, "tokens", stats.mean(part.groupby("question_id")["tokens"].mean())))
        timed = method in teacher and not student
        seconds = stats.mean(teacher[method]) if timed else exact(means[method, student], len(teacher))
        rows.append(score(own, "seconds", seconds))
    return rows


def break_even(once: float, debate: float, student: float) -> float:
    """After how many answered questions a student has paid for itself: `once` for its debates and training, `debate` and
    `student` a question, in one unit. Infinite where a student's answer costs as much as a debate."""
    return once / (debate - student) if debate > student else math.inf


def paid_back(rows: list[Score], predictions: pd.DataFrame, teacher: pd.DataFrame, fixed: dict) -> list[Score]:
    """Rows of the break-even: N = (debates + training) / (rival's answer - student's), by method, rival and unit.

    What was paid once is known, so the interval is that of the difference a question, paired where both are known by
    question; an end is infinite where the difference may be nothing. A student that costs more than its rival never pays.
    """
    spent = {(r.student, r.method, r.metric): r.value for r in rows if r.experiment == "once"}
    each = {(r.student, r.method, r.metric): r.value for r in rows if r.experiment == "a question"}
    asked = predictions[predictions["setting"] == "test"]
    tokens = asked.groupby(["method", "student", "question_id"])["tokens"].mean()
    found = []
    for student, method, unit in (key for key in spent if key[0]):
        paid = spent[student, method, unit] + (0 if method in ANSWERS_ALONE else spent["", "debate", unit])
        for rival in RIVALS:
            if unit == "tokens":
                saved = stats.gain(tokens[rival, ""].sort_index(), tokens[method, student].sort_index())
            else:
                saved = stats.mean(teacher[rival] - each[student, method, unit])
            n, lo, hi = (break_even(paid, s, 0) for s in (saved.value, saved.hi, saved.lo))
            own = dict(fixed, experiment="break-even", student=student, method=method)
            found.append(score(own, unit, Estimate(n, lo, hi, saved.n), baseline=rival))
    return found


# Tables and pictures, off reports/cost.csv


def once_table(table: pd.DataFrame) -> pd.DataFrame:
    """What was paid once, by student, method and part, in thousands of tokens and in seconds; empty where not timed."""
    rows = table[table["experiment"].str.startswith("once")]
    rows = rows.assign(student=rows["student"].replace("", "(all)"), part=rows["experiment"].str.removeprefix("once: "))
    rows["method"] = [
        m if s != "(all)" else "debates on training questions"
        for m, s in zip(rows["method"], rows["student"], strict=True)
    ]
    wide = rows.pivot_table(index=["student", "method", "part"], columns="metric", values="value", sort=False)
    return (
        wide.reindex(columns=UNITS).assign(tokens=wide["tokens"] / 1000).rename(columns={"tokens": "thousand tokens"})
    )


def break_even_table(table: pd.DataFrame) -> pd.DataFrame:
    """Questions until a student has paid, with the interval, by method; columns are units and rivals."""
    rows = table[table["experiment"] == "break-even"]
    cell = [f"{r.value:,.0f} [{r.lo:,.0f}, {r.hi:,.0f}]" for r in rows.itertuples()]
    return rows.assign(cell=cell).pivot_table(
        "cell", ["student", "method"], ["metric", "baseline"], aggfunc="first", sort=False
    )


def answers(table: pd.DataFrame, scores: pd.DataFrame, task: str) -> plt.Figure:
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


def totals(table: pd.DataFrame, student: str, unit: str = "tokens") -> plt.Figure:
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


def findings(table: pd.DataFrame) -> str:
    """One sentence a student, method and unit: when it has paid, against each rival; and what was not timed."""
    rows, lines = table[table["experiment"] == "break-even"], []
    for (student, method), part in rows.groupby(["student", "method"], sort=False):
        clauses = []
        for r in part.itertuples():
            after = f"{r.value:,.0f} [{r.lo:,.0f}, {r.hi:,.0f}] questions" if math.isfinite(r.value) else "never"
            clauses.append(f"in {r.metric} against a {r.baseline} {after}")
        untimed = "" if "seconds" in set(part["metric"]) else "; its training was not timed here"
        lines.append(f"- **{student}, {LABELS[method]}** has paid: {'; '.join(clauses)}{untimed}.")
    return "\n".join(lines)

"""Sentences whose numbers, and whose verbs, are read from the table of results."""

import html
import json
import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from agentark import StudyError
from agentark.report.charts import LABELS, METHODS
from agentark.schemas import UNITS


def variant_findings(table: pd.DataFrame, experiments: Iterable[str], metric: str = "accuracy_gain") -> list[str]:
    """A sentence a gain of these experiments: better, worse, or not to be told apart, by its interval."""
    rows = table[(table["metric"] == metric) & table["experiment"].isin(list(experiments))]
    told = []
    for _, row in rows.iterrows():
        how = ", ".join(filter(None, (LABELS.get(row["method"], ""), row["student"])))
        rival = ", ".join(LABELS.get(word, word) for word in row["baseline"].split(", "))
        who = f"*{row['experiment']}*{f' ({how})' if how else ''}"
        told.append(f"{who} {verdict(row)} *{rival}*: {signed(row)}, n = {row['n']}")
    return told


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


def break_even_findings(table: pd.DataFrame) -> str:
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


def select(scores: pd.DataFrame, **where) -> pd.DataFrame:
    """Rows over all seeds that match every given column."""
    rows = scores[scores["seed"] == "all"]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows


def one(scores: pd.DataFrame, **where) -> pd.Series:
    """The one row that matches. Raises StudyError naming what was looked for if there is none, or more than one."""
    rows = select(scores, **where)
    if len(rows) != 1:
        raise StudyError(f"reports/scores.csv: {len(rows)} rows match {where}; run `dvc repro evaluate`")
    return rows.iloc[0]


def number(row: pd.Series) -> str:
    """A value with its interval and n: 0.842 [0.810, 0.872], n = 500."""
    return f"{row['value']:.3f} [{row['lo']:.3f}, {row['hi']:.3f}], n = {row['n']}"


def signed(row: pd.Series) -> str:
    return f"{row['value']:+.3f} [{row['lo']:+.3f}, {row['hi']:+.3f}]"


def verdict(row: pd.Series) -> str:
    """What a paired gain allows one to say."""
    if row["lo"] > 0:
        return "is better than"
    if row["hi"] < 0:
        return "is worse than"
    return "cannot be told from"


def compared(scores: pd.DataFrame, method: str, baseline: str, **where) -> str:
    """One comparison as a clause: who, against whom, by how much."""
    row = one(scores, metric="accuracy_gain", method=method, baseline=baseline, **where)
    return f"{LABELS[method]} {verdict(row)} {LABELS[baseline]} ({signed(row)}, n = {row['n']})"


def debate_findings(scores: pd.DataFrame, task: str) -> str:
    settings = {
        "test": "On the test questions",
        "noisy": "With first answers sampled hotter",
        "hard": "On questions of more steps than it was trained on",
    }
    lines = []
    for setting, words in settings.items():
        if setting not in set(scores["experiment"]):
            continue
        debate = one(scores, metric="accuracy", experiment=setting, method="debate", test_task=task)
        clauses = [compared(scores, "debate", b, experiment=setting, test_task=task) for b in ("single", "vote")]
        lines.append(f"- {words} the debate answers {number(debate)}; {'; '.join(clauses)}.")
    return "\n".join(lines)


def listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def student_findings(scores: pd.DataFrame, student: str, train_task: str, methods: list[str]) -> str:
    base = one(scores, metric="accuracy", experiment="test", student=student, method="base", test_task=train_task)
    lines = [f"**{student}** starts at {number(base)} in one greedy pass."]
    for method in methods:
        row = one(scores, metric="accuracy", experiment="test", student=student, method=method, test_task=train_task)
        inside = compared(scores, method, "base", experiment="test", student=student, test_task=train_task)
        outside = select(
            scores, metric="accuracy_gain", experiment="test", student=student, method=method, baseline="base"
        )
        outside = outside[outside["test_task"] != train_task]
        up, down = list(outside[outside["lo"] > 0]["test_task"]), list(outside[outside["hi"] < 0]["test_task"])
        spread = f"of {len(outside)} tasks out of domain, better on {listed(up)}, worse on {listed(down)}"
        lines.append(f"- {row['value']:.3f}: {inside}; {spread}.")
    return "\n".join(lines)


def reward_model_findings(scores: pd.DataFrame, students: list[str]) -> str:
    lines = []
    metric, what = next(
        (metric, what)
        for metric, what in (("prm_step_auroc", "step"), ("prm_trace_auroc", "trace"))
        if metric in set(scores["metric"])
    )
    for student in students:
        row = {m: one(scores, metric=metric, student=student, method=m)
               for m in ("fresh head", "likelihood", "stage I", "stage II")}  # fmt: skip
        lines.append(
            f"- **{student}**: {what} AUROC against truth {number(row['stage II'])} debates after stage II, "
            f"{row['stage I']['value']:.3f} after stage I; without training {row['fresh head']['value']:.3f} (fresh head) "
            f"and {row['likelihood']['value']:.3f} (the model's own likelihood of its steps)."
        )
    return "\n".join(lines)


def cost_findings(scores: pd.DataFrame, seconds: pd.DataFrame, task: str, students: list[str]) -> str:
    where = {"metric": "accuracy", "experiment": "test", "test_task": task}
    debate, single = one(scores, method="debate", **where), one(scores, method="single", **where)
    took = seconds[seconds["setting"] == "test"].set_index(["method", "student"])["seconds_per_question"].fillna(0)
    tokens = debate["tokens_per_question"] / single["tokens_per_question"]
    lines = [
        f"- A debate reads and writes {debate['tokens_per_question']:.0f} tokens a question, {tokens:.1f} times a single "
        f"pass ({single['tokens_per_question']:.0f}); it took {took['debate', ''] * 1000:.0f} ms of one core against "
        f"{took['single', ''] * 1000:.0f} ms."
    ]
    for student in students:
        pad = one(scores, method="pad", student=student, **where)
        lines.append(f"- {student} after PAD: {pad['tokens_per_question']:.0f} tokens, "
                     f"{took['pad', student] * 1000:.0f} ms a question.")  # fmt: skip
    return "\n".join(lines)


def table(scores: pd.DataFrame, metric: str, train_task: str) -> pd.DataFrame:
    """Systems by test task, the one distilled from first: value and half-width of the interval."""
    rows = select(scores, metric=metric, experiment="test").replace({"student": {"": "teacher"}})
    rows["cell"] = [
        f"{v:.3f} ± {(h - l) / 2:.3f}" for v, l, h in zip(rows["value"], rows["lo"], rows["hi"], strict=True)
    ]
    wide = rows.pivot_table(
        index=["student", "method"], columns="test_task", values="cell", aggfunc="first", sort=False
    )
    return wide[sorted(wide.columns, key=lambda task: task != train_task)].fillna("")


def marked(told: dict) -> str:
    """A trace with each line's verdict beside it."""
    width = max((len(line) for line, _ in told["lines"]), default=0)
    return (
        "\n".join(
            f"{line:<{width}}  { {True: '✓', False: '✗', None: ''}[right] }".rstrip() for line, right in told["lines"]
        )
        or "(nothing)"
    )


def transcripts(path: Path) -> str:
    """The worked questions as Markdown: the corrected agent over the rounds, the student before and after."""
    parts = []
    for i, told in enumerate(json.loads(path.read_text()), start=1):
        parts.append(f"### Question {i}\n\n{html.escape(told['question'])} *Gold answer: {told['answer']}*")
        parts.append(f"Agent {told['agent']} of the debate, and the summary:")
        for turn in told["debate"]:
            if turn["agent"] in (told["agent"], 0):
                who = "summary" if turn["agent"] == 0 else f"round {turn['round']}"
                parts.append(f"```\n{who}\n{marked(turn)}\n```")
        parts.append(f"{told['student']}, before and after:")
        for answer in told["answers"]:
            parts.append(f"```\n{LABELS[answer['method']]}\n{marked(answer)}\n```")
    return "\n\n".join(parts) or "No agent was corrected in any debate of this run."


def likelihood_findings(found: pd.DataFrame, student: str) -> str:
    """Which methods made gold reasoning likelier than the base does."""
    rows = select(found, experiment="perplexity", student=student)
    perplexity = rows[rows["metric"] == "perplexity"].set_index("method")
    told = []
    for _, row in rows[rows["metric"] == "nll_difference"].iterrows():
        side = "likelier" if row["hi"] < 0 else "less likely" if row["lo"] > 0 else "neither likelier nor less likely"
        told.append(f"after {LABELS[row['method']]} it is {side} ({signed(row)} nats a token)")
    return (
        f"**{student}**: gold reasoning has a perplexity of {number(perplexity.loc['base'])}, under the base; "
        f"{'; '.join(told)}."
    )


def robustness_findings(found: pd.DataFrame, student: str) -> list[str]:
    """A sentence a method ("" is the teacher): in which settings it is better than the base, what it loses by most, and
    what a wrong hint does to it."""
    rows, told = select(found, metric="accuracy_gain", student=student), []
    for method in (m for m in METHODS if m in set(rows["method"])):
        own = rows[rows["method"] == method]
        over, lost, hint = (
            own[own["baseline"] == b].set_index("experiment") for b in ("base", "unperturbed", "right hint")
        )
        sentence = f"**{f'{student}, ' if student else ''}{LABELS[method]}**: "
        if len(over):
            better, worse = over.index[over["lo"] > 0], over.index[over["hi"] < 0]
            sentence += f"better than the base in: {listed(list(better))}; worse in: {listed(list(worse))}; "
        losing = lost.index[lost["hi"] < 0]
        sentence += f"against the same questions unperturbed it loses by: {listed(list(losing))}"
        if len(losing):
            sentence += f", most by {(most := lost['value'].idxmin())} ({signed(lost.loc[most])})"
        for _, row in hint.iterrows():
            sentence += f"; to it a wrong hint {verdict(row)} a right one ({signed(row)})"
        told.append(f"{sentence}.")
    return told

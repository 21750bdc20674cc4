"""Sentences that compare a debate with its controls, and students with students trained on other sources."""

import pandas as pd

from agentark.report.sentences import NAMES, number, one, select, signed, verdict, versus

EXCHANGES = ("debate", "relay")  # methods in which agents read each other; every other method is a control
TURNS_OUT = {
    "better": "What the agents tell each other helps.",
    "worse": "What the agents tell each other does harm.",
    "no difference detected": "No use of what the agents tell each other is detected.",
}


def method_name(method: str, variant: str) -> str:
    """A method's name for sentences, with its condition: a teacher's model, or the traces that a student trains on."""
    if method == "rsft" and variant:
        source, kind = variant.split(", ")
        return f"R-SFT on {NAMES[source]} ({kind})"
    return NAMES.get(method, method) + (f" of {variant}" if variant and method != "sft" else "")


def teacher_rows(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    return select(table, metric=metric, student="")


def best_control(table: pd.DataFrame) -> pd.Series:
    """The row of the most accurate control's accuracy; the first one of equals."""
    rows = teacher_rows(table, "accuracy")
    return rows.loc[rows[~rows["method"].isin(EXCHANGES)]["value"].astype(float).idxmax()]


def debate_findings(table: pd.DataFrame) -> list[str]:
    """Compare the debate with the best control and with the relay, the shortest exchange, by paired gains."""
    debate, relay = (one(teacher_rows(table, "accuracy"), method=method) for method in ("debate", "relay"))
    best, gains = best_control(table), select(teacher_rows(table, "accuracy_gain"), method="debate")
    vs_best, vs_relay = (one(gains, baseline=row["method"], baseline_variant=row["variant"]) for row in (best, relay))
    return [
        f"The debate's accuracy is {number(debate)}. The best of the controls is {method_name(best['method'], best['variant'])}, with {best['value']:.3f}. "
        f"Debate vs. this control: {signed(vs_best)} ({verdict(vs_best)}). {TURNS_OUT[verdict(vs_best)]}",
        f"The relay, with {relay['calls_per_question']:.1f} calls instead of {debate['calls_per_question']:.1f}, has "
        f"{relay['value']:.3f}. Debate vs. relay: {signed(vs_relay)} ({verdict(vs_relay)}).",
    ]


def student_findings(table: pd.DataFrame, student: str, source: str = "debate, verified") -> str:
    """Compare a student of the debate with students of other sources, its base and each teacher, by paired gains."""
    own = dict(student=student, variant=source, method="rsft")
    row, gains = one(table, metric="accuracy", **own), select(table, metric="accuracy_gain", **own)
    clauses = [versus(method_name(r["baseline"], r["baseline_variant"]), r) for _, r in gains.iterrows()]
    return f"**{student}**, {method_name('rsft', source)}: accuracy {number(row)}; " + "; ".join(clauses) + "."


def method_findings(table: pd.DataFrame, student: str) -> str:
    """Compare a student of the debate after DA and after PAD with its bases and R-SFT, by paired gains."""
    parts = []
    for method in ("da", "pad"):
        own = dict(student=student, method=method)
        gains = select(table, metric="accuracy_gain", **own)
        clauses = [versus(method_name(r["baseline"], r["baseline_variant"]), r) for _, r in gains.iterrows()]
        parts.append(f"{NAMES[method]}: accuracy {number(one(table, metric='accuracy', **own))}; " + "; ".join(clauses))
    return f"**{student}**, on the debate. {'. '.join(parts)}."


def findings(table: pd.DataFrame) -> list[str]:
    """The findings of a study of a debate and its controls, about the teachers and about every student."""
    students = dict.fromkeys(select(table, metric="accuracy", method="rsft")["student"])
    lines = [student_findings(table, s, f"debate, {how}") for s in students for how in ("verified", "own answers")]
    return [*debate_findings(table), *lines]

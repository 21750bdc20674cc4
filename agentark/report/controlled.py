"""Sentences about a debate beside its controls, and about students beside students of other sources."""

import pandas as pd

from agentark.report.sentences import NAMES, against, number, one, select, signed, verdict

EXCHANGES = ("debate", "relay")  # methods in which agents read each other; every other method is a control
TURNS_OUT = {
    "better": "What the agents tell each other helps.",
    "worse": "What the agents tell each other does harm.",
    "no difference detected": "No use of what the agents tell each other is detected.",
}


def named(method: str, variant: str) -> str:
    """A method in words, with its condition: a teacher's model, or the traces that a student trains on."""
    if method == "rsft" and variant:
        source, kind = variant.split(", ")
        return f"R-SFT on {NAMES[source]} ({kind})"
    return NAMES.get(method, method) + (f" of {variant}" if variant and method != "sft" else "")


def teacher_rows(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    return select(table, metric=metric, student="")


def best_control(table: pd.DataFrame) -> pd.Series:
    """The accuracy of the control with the highest accuracy; the first of equals."""
    rows = teacher_rows(table, "accuracy")
    return rows.loc[rows[~rows["method"].isin(EXCHANGES)]["value"].astype(float).idxmax()]


def debate_findings(table: pd.DataFrame) -> list[str]:
    """The debate beside the best control and beside the shortest exchange, by paired gains."""
    debate, relay = (one(teacher_rows(table, "accuracy"), method=method) for method in ("debate", "relay"))
    best, gains = best_control(table), select(teacher_rows(table, "accuracy_gain"), method="debate")
    over, beyond = (one(gains, baseline=row["method"], baseline_variant=row["variant"]) for row in (best, relay))
    return [
        f"The debate's accuracy is {number(debate)}. The best of the controls is {named(best['method'], best['variant'])}, with {best['value']:.3f}. "
        f"Debate vs. this control: {signed(over)} ({verdict(over)}). {TURNS_OUT[verdict(over)]}",
        f"The relay, with {relay['calls_per_question']:.1f} calls instead of {debate['calls_per_question']:.1f}, has "
        f"{relay['value']:.3f}. Debate vs. relay: {signed(beyond)} ({verdict(beyond)}).",
    ]


def student_findings(table: pd.DataFrame, student: str, source: str = "debate, verified") -> str:
    """A student of the debate beside the students of every other source, its base and each teacher, by paired gains."""
    own = dict(student=student, variant=source, method="rsft")
    row, gains = one(table, metric="accuracy", **own), select(table, metric="accuracy_gain", **own)
    clauses = [against(named(r["baseline"], r["baseline_variant"]), r) for _, r in gains.iterrows()]
    return f"**{student}**, {named('rsft', source)}: accuracy {number(row)}; " + "; ".join(clauses) + "."


def method_findings(table: pd.DataFrame, student: str) -> str:
    """A student of the debate after the methods other than R-SFT, beside its bases and R-SFT, by paired gains."""
    parts = []
    for method in ("da", "pad"):
        own = dict(student=student, method=method)
        gains = select(table, metric="accuracy_gain", **own)
        clauses = [against(named(r["baseline"], r["baseline_variant"]), r) for _, r in gains.iterrows()]
        parts.append(f"{NAMES[method]}: accuracy {number(one(table, metric='accuracy', **own))}; " + "; ".join(clauses))
    return f"**{student}**, on the debate. {'. '.join(parts)}."


def findings(table: pd.DataFrame) -> list[str]:
    """What a study of a debate and its controls found, of the teachers and of every student."""
    students = dict.fromkeys(select(table, metric="accuracy", method="rsft")["student"])
    lines = [student_findings(table, s, f"debate, {how}") for s in students for how in ("verified", "own answers")]
    return [*debate_findings(table), *lines]

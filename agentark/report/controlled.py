"""Sentences about a debate beside its controls, and about students beside students of other sources."""

import pandas as pd

from agentark.report.sentences import NAMES, number, one, select, signed, verdict

EXCHANGES = ("debate", "relay")  # methods in which agents read each other; every other method is a control
TURNS_OUT = {
    "better": "What the agents tell each other helps.",
    "worse": "What the agents tell each other does harm.",
    "no difference detected": "No use of what the agents tell each other is detected.",
}


def named(row: pd.Series) -> str:
    """A teacher's method in words, with its condition."""
    return NAMES.get(row["method"], row["method"]) + (f" of {row['variant']}" if row["variant"] else "")


def teacher_rows(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    return select(table, metric=metric, student="")


def gain(table: pd.DataFrame, method: str, variant: str) -> pd.Series:
    """The debate's paired gain over a method in a condition."""
    return one(teacher_rows(table, "accuracy_gain"), method="debate", baseline=method, baseline_variant=variant)


def best_control(table: pd.DataFrame) -> pd.Series:
    """The accuracy of the control with the highest accuracy; the first of equals."""
    rows = teacher_rows(table, "accuracy")
    return rows.loc[rows[~rows["method"].isin(EXCHANGES)]["value"].astype(float).idxmax()]


def debate_findings(table: pd.DataFrame) -> list[str]:
    """The debate beside the best control and beside the shortest exchange, by paired gains."""
    debate = one(teacher_rows(table, "accuracy"), method="debate")
    best, relay = best_control(table), one(teacher_rows(table, "accuracy"), method="relay")
    over, beyond = (gain(table, row["method"], row["variant"]) for row in (best, relay))
    return [
        f"The debate's accuracy is {number(debate)}. The best of the controls is {named(best)}, with {best['value']:.3f}. "
        f"Debate vs. this control: {signed(over)} ({verdict(over)}). {TURNS_OUT[verdict(over)]}",
        f"The relay, with {relay['calls_per_question']:.1f} calls instead of {debate['calls_per_question']:.1f}, has "
        f"{relay['value']:.3f}. Debate vs. relay: {signed(beyond)} ({verdict(beyond)}).",
    ]


def student_findings(table: pd.DataFrame, student: str, source: str = "debate, verified") -> str:
    """A student of the debate beside the students of every other source, its base and each teacher, by paired gains."""
    row = one(table, metric="accuracy", student=student, variant=source)
    gains = select(table, metric="accuracy_gain", student=student, variant=source)
    clauses = [f"vs. {rival(r)} {signed(r)} ({verdict(r)})" for _, r in gains.iterrows()]
    return f"**{student}**, R-SFT on {traces(source)}: accuracy {number(row)}; " + "; ".join(clauses) + "."


def traces(variant: str) -> str:
    """A condition of the training traces in words."""
    method, kind = variant.split(", ")
    return f"{NAMES[method]} ({kind})"


def rival(row: pd.Series) -> str:
    """The baseline of a student's gain in words."""
    if row["baseline"] == "rsft":
        return f"R-SFT on {traces(row['baseline_variant'])}"
    return NAMES[row["baseline"]] + (f" of {row['baseline_variant']}" if row["baseline"] == "greedy" else "")


def findings(table: pd.DataFrame) -> list[str]:
    """What a study of a debate and its controls found, of the teachers and of every student."""
    students = dict.fromkeys(select(table, metric="accuracy", method="rsft")["student"])
    lines = [student_findings(table, s, f"debate, {how}") for s in students for how in ("verified", "own answers")]
    return [*debate_findings(table), *lines]

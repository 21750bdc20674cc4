"""One line per main finding, for the README, from the results tables, with the best baseline and the verdict."""

import pandas as pd

from agentark.report import controlled, controls
from agentark.report.sentences import NAMES, gain_over_best, named_verdict, number, one, select, verdict


def debate(scores: pd.DataFrame, task: str) -> str:
    """The gain of the study's debate over its best baseline."""
    found = gain_over_best(scores, setting="test", test_task=task, student="", method="debate")
    return f"**Debate** on `{task}`: {found}"


def communication(table: pd.DataFrame) -> list[str]:
    """For each team, the number of families in which its debate is above its baselines, and in which communication
    helps; then the finding of the map. Empty if the ablation `controls` has not been run."""
    if table.empty:
        return []
    lines = controls.control_findings(table)
    teams = [f"**Communication**, {line.replace('**', '')}" for line in lines if line.startswith("**")]
    return [*teams, lines[-1]]


def best_control(table: pd.DataFrame, task: str) -> list[str]:
    """The gains of the first team's debate on `task` over the best use of the teacher without communication and over
    the debate with communication off; empty if `controls` has not been run on the task."""
    if table.empty or (found := controls.debates(table).query("test_task == @task")).empty:
        return []
    debated = found.iloc[0]
    (best, gain), off = controls.best_baseline(table, debated), controls.gain_over(table, debated, "debate_off")
    return [
        f"**Best control** on `{task}`, on the questions of the ablation (debate {number(debated)}): of the uses of the "
        f"teacher without communication, at no more calls than a full debate, the best is {NAMES[best['method']]} "
        f"({best['value']:.3f}): {named_verdict(gain)}"
        + (f"; communication on vs. off {named_verdict(off)}." if off is not None else ".")
    ]


def students(scores: pd.DataFrame, task: str, student: str, methods: list[str]) -> list[str]:
    """The gain of a student by each method over the best baseline with one call."""
    where = dict(setting="test", test_task=task, student=student)
    labels = {"rsft": "R-SFT", "da": "DA", "pad": "PAD, which uses no gold answer"}
    return [f"**{student}, {labels[m]}**: {gain_over_best(scores, method=m, **where)}" for m in methods if m in labels]


def sources(table: pd.DataFrame, student: str) -> list[str]:
    """The gain of R-SFT on the debate over R-SFT on cheaper sources; empty if `sources` has not been run."""
    own = select(table, metric="accuracy_gain", student=student, variant="debate, verified", method="rsft")
    own = own[own["baseline"] == "rsft"]
    clauses = [f"{controlled.method_name('rsft', r['baseline_variant'])} {named_verdict(r)}" for _, r in own.iterrows()]
    return (
        [f"**Source of the traces**, {student}: R-SFT on the debate vs. {'; vs. '.join(clauses)}."] if clauses else []
    )


def own_sources(scores: pd.DataFrame, student: str) -> list[str]:
    """As `sources`, from the study's own results; empty at a scale that does not train on traces of controls."""
    own = select(scores, metric="accuracy_gain", student=student, variant="", method="rsft", baseline="rsft")
    own = own[own["test_task"] == own["train_task"]]
    if own.empty:
        return []
    own_task = dict(metric="accuracy", student=student, method="rsft", test_task=own["test_task"].iloc[0])
    debate, clauses = one(scores, variant="", **own_task), []
    for _, row in own.iterrows():
        other = one(scores, variant=row["baseline_variant"], **own_task)
        clauses.append(f"vs. {NAMES[row['baseline_variant']]} ({other['value']:.3f}) {named_verdict(row)}")
    return [
        f"**Source of the traces**, {student}: R-SFT on the debate has an accuracy of {number(debate)}; {'; '.join(clauses)}."
    ]


def specialists(table: pd.DataFrame) -> str:
    """The gain of a debate among agents with different knowledge over its best control."""
    debate_row, best = (
        one(controlled.teacher_rows(table, "accuracy"), method="debate"),
        controlled.best_control(table),
    )
    gains = select(controlled.teacher_rows(table, "accuracy_gain"), method="debate", baseline=best["method"])
    gain = one(gains, baseline_variant=best["variant"])
    verb = {"better": "beats", "worse": "is worse than", "no difference detected": "equals"}[verdict(gain)]
    return (
        f"**Specialists**: where each question needs two models that know different things, the debate "
        f"({debate_row['value']:.3f}) {verb} the best control without communication, {controlled.method_name(best['method'], best['variant'])} "
        f"({best['value']:.3f}): {named_verdict(gain)}."
    )

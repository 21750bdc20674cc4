"""The main findings in a line each, for the README: from the results tables, with the best baseline and the verdict."""

import pandas as pd

from agentark.report import controlled, controls
from agentark.report.sentences import NAMES, named_verdict, number, one, over_best, select, verdict


def debate(scores: pd.DataFrame, task: str) -> str:
    """What the study's debate gains over its best baseline."""
    found = over_best(scores, setting="test", test_task=task, student="", method="debate")
    return f"**Debate** on `{task}`: {found}"


def communication(table: pd.DataFrame, task: str) -> list[str]:
    """What the debate of the first team gains on `task` over the best use without communication and over communication
    off; in how many families it is above its baselines, and in how many communication is the reason. Nothing if the
    ablation `controls` has not been run."""
    if table.empty:
        return []
    lines, found, best_control = controls.control_findings(table), controls.debates(table), []
    for _, debated in found[found["test_task"] == task][:1].iterrows():
        (best, gain), off = controls.best_baseline(table, debated), controls.gain_over(table, debated, "debate_off")
        best_control.append(
            f"**Best control** on `{task}`, on the questions of the ablation (debate {number(debated)}): of the uses of the "
            f"teacher without communication, at no more calls than a full debate, the best is {NAMES[best['method']]} "
            f"({best['value']:.3f}): {named_verdict(gain)}"
            + (f"; communication on vs. off {named_verdict(off)}." if off is not None else ".")
        )
    teams = [f"**Communication**, {line.replace('**', '')}" for line in lines if line.startswith("**")]
    return [*best_control, *teams, lines[-1]]


def students(scores: pd.DataFrame, task: str, student: str, methods: list[str]) -> list[str]:
    """What a student gains by each method over the best baseline with one call."""
    where = dict(setting="test", test_task=task, student=student)
    labels = {"rsft": "R-SFT", "da": "DA", "pad": "PAD, which uses no gold answer"}
    return [f"**{student}, {labels[m]}**: {over_best(scores, method=m, **where)}" for m in methods if m in labels]


def sources(table: pd.DataFrame, student: str) -> list[str]:
    """Whether traces of the debate teach more than those of cheaper sources; nothing if `sources` has not been run."""
    own = select(table, metric="accuracy_gain", student=student, variant="debate, verified", method="rsft")
    own = own[own["baseline"] == "rsft"]
    clauses = [f"{controlled.named('rsft', r['baseline_variant'])} {named_verdict(r)}" for _, r in own.iterrows()]
    return (
        [f"**Source of the traces**, {student}: R-SFT on the debate vs. {'; vs. '.join(clauses)}."] if clauses else []
    )


def own_sources(scores: pd.DataFrame, student: str) -> list[str]:
    """The same from the study's own results, at a scale that trains on the traces of controls; nothing at others."""
    own = select(scores, metric="accuracy_gain", student=student, variant="", method="rsft", baseline="rsft")
    own = own[own["test_task"] == own["train_task"]]
    if own.empty:
        return []
    here = dict(metric="accuracy", student=student, method="rsft", test_task=own["test_task"].iloc[0])
    debate, clauses = one(scores, variant="", **here), []
    for _, row in own.iterrows():
        other = one(scores, variant=row["baseline_variant"], **here)
        clauses.append(f"vs. {NAMES[row['baseline_variant']]} ({other['value']:.3f}) {named_verdict(row)}")
    return [
        f"**Source of the traces**, {student}: R-SFT on the debate has an accuracy of {number(debate)}; {'; '.join(clauses)}."
    ]


def specialists(table: pd.DataFrame) -> str:
    """What a debate of agents that know different things gains over its best control."""
    debate_row, best = (
        one(controlled.teacher_rows(table, "accuracy"), method="debate"),
        controlled.best_control(table),
    )
    gains = select(controlled.teacher_rows(table, "accuracy_gain"), method="debate", baseline=best["method"])
    gain = one(gains, baseline_variant=best["variant"])
    does = {"better": "beats", "worse": "is worse than", "no difference detected": "equals"}[verdict(gain)]
    return (
        f"**Specialists**: where each question needs two models that know different things, the debate "
        f"({debate_row['value']:.3f}) {does} the best control without communication, {controlled.named(best['method'], best['variant'])} "
        f"({best['value']:.3f}): {named_verdict(gain)}."
    )

"""Tables and sentences of the ablations, for the pages."""

import pandas as pd

from agentark.paper import pad_choices
from agentark.paper.contrasts import along_axis
from agentark.report import sentences
from agentark.report.charts import LABELS

CONTROL = ("samples, equal generations", "samples, equal traces")  # variants of ablation_data without a debate


AXES = {  # column with the number that an ablation varies -> its wording
    "questions": "{:g} questions", "traces_per_question": "{:g} traces per question", "agents": "{:g} agents",
    "rounds": "{:g} rounds", "temperature": "temperature {:g}",
}  # fmt: skip


def condition(row: pd.Series) -> str:
    """Return a row's variant in words; for a variant in AXES, its number."""
    return AXES[row["variant"]].format(row[row["variant"]]) if row["variant"] in AXES else row["variant"]


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Return all gains of students over all seeds, in points, for a chart of intervals. `line` names the condition that
    varies, `panel` names the baseline. Baselines with a single line share the last panel."""
    rows = sentences.select(table[table["student"] != ""], metric="accuracy_gain")
    names = {m: LABELS[m] for m in ("base", "base_steps", "sft", "rsft", "da", "pad")}  # of students
    shown = rows.assign(condition=[condition(row) for _, row in rows.iterrows()], method=rows["method"].replace(names))
    varying = [c for c in ("student", "test_task", "condition", "source", "method") if shown[c].nunique() > 1]
    line = shown[varying].agg(lambda parts: ", ".join(filter(None, parts)), axis=1)
    axis = rows["baseline_variant"].isin(AXES)
    rival = rows["baseline_variant"].where(rows["baseline_variant"] != "", rows["baseline"].replace(names))
    rival = rival.mask(axis, "the same number of the debates' traces")
    single = (rows.groupby(["baseline", "baseline_variant"])["value"].transform("size") == 1) & (rival.nunique() > 1)
    rows = rows.assign(
        panel=("against " + rival).where(~single, "against others"), line=line.where(~single, line + " − " + rival),
        **rows[["value", "lo", "hi"]] * 100,
    )  # fmt: skip
    return rows.sort_values("panel", key=lambda panel: panel == "against others", kind="stable")


def other_variants(data: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of ablation_data in no other figure: without the control, the sizes, the levels and the base."""
    elsewhere = data["variant"].isin([*CONTROL, "questions"]) | data["level"].notna() | (data["baseline"] == "base")
    return data[~elsewhere]


def gains_over_debates(data: pd.DataFrame) -> pd.DataFrame:
    """Return the gains of students trained on samples over those trained on debates, on questions of all levels."""
    rows = sentences.select(data, metric="accuracy_gain", baseline_variant="study")
    return rows[rows["variant"].isin(CONTROL) & rows["level"].isna()]


def control(data: pd.DataFrame) -> list[str]:
    """Return `gains_over_debates` as sentences, one per method and variant. The paper has no such control."""
    return [
        f"{LABELS[r['method']]} on {r['variant']} vs. on the debates' traces: {sentences.signed(r)}, n = {r['n']} "
        f"({sentences.verdict(r)})"
        for _, r in gains_over_debates(data).iterrows()
    ]


def choices(rewards: pd.DataFrame) -> pd.DataFrame:
    """Return the gains of alternatives within PAD over the study's own choices. `line` names the choice."""
    rows = sentences.select(rewards, metric="accuracy_gain", baseline="pad")
    lines = [
        f"{pad_choices.TITLES[r.variant]}: {pad_choices.CHOICES[r.variant][r.method]}, {r.student}"
        for r in rows.itertuples()
    ]
    return rows.assign(line=lines, **rows[["value", "lo", "hi"]] * 100)


def protocol_gains(protocols: pd.DataFrame) -> list[str]:
    """Return one line per protocol: the gain of its student over the debate's student at the same number of
    generations, and the gain of the protocol itself over the debate (for the debate: over the vote)."""
    rows = sentences.select(protocols, metric="accuracy_gain")
    rows = rows[(rows["baseline"] == "debate") | ((rows["method"] == "debate") & (rows["baseline"] == "vote"))]
    lines = []
    for (method, rival), pair in rows.groupby(["method", "baseline"], sort=False):
        own, student = (pair[(pair["student"] != "") == trained].iloc[0] for trained in (False, True))
        lines.append(
            f"student of {method} vs. student of {rival}: {sentences.signed(student)}, n = {student['n']} "
            f"({sentences.verdict(student)}); {method} vs. {rival} itself: {sentences.signed(own)} "
            f"({sentences.verdict(own)})"
        )
    return lines


def agent_number_gains(agents: pd.DataFrame) -> list[str]:
    """Return one line per gain: from more agents, for the debate and its students, and of the debate over the vote."""
    rows = along_axis(agents, "agents")
    return sentences.variant_findings(rows[(rows["baseline"] == "vote") | (rows["baseline_variant"] == "study")])

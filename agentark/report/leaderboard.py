"""Sentences, a table and a figure of the leaderboard, from its rows (evaluate/leaderboard/table.py)."""

import matplotlib.pyplot as plt
import pandas as pd

from agentark.report import charts
from agentark.report.sentences import signed, verdict


def gained(one: pd.Series) -> pd.Series:
    """A row's gain over its baseline, in the form that sentences read."""
    return pd.Series({"value": one["gain"], "lo": one["gain_lo"], "hi": one["gain_hi"]})


def pair_findings(table: pd.DataFrame) -> list[str]:
    """One sentence per question and setting: what the pairs that answer it show."""
    lines = []
    for (question, setting), part in table.groupby(["question", "setting"], sort=False):
        clauses = "; ".join(
            f"{one['method']} vs. {one['baseline']} {signed(one)} ({verdict(one)})" for _, one in part.iterrows()
        )
        lines.append(f"**{question[0].upper()}{question[1:]}**, {setting}: {clauses}.")
    return lines


def shown(table: pd.DataFrame, setting: str) -> pd.DataFrame:
    """The rows of a setting as a table to read, best first."""
    rows = table[table["setting"] == setting]

    def interval(prefix: str, value: str) -> list[str]:
        return [
            "" if pd.isna(one[value]) else f"{one[value]:.3f} [{one[prefix + 'lo']:.3f}, {one[prefix + 'hi']:.3f}]"
            for _, one in rows.iterrows()
        ]

    columns = {
        "method": rows["method"],
        "student": rows["student"],
        "family": rows["family"],
        "gold": rows["gold_used"],
        "accuracy": interval("", "value"),
        "other tasks": interval("other_", "other_value") if "other_value" in rows else [""] * len(rows),
        "tokens per question": rows["tokens_per_question"].round(0).astype(int),
        "training tokens": rows["training_tokens"].round(0).astype(int),
        "all tokens": rows["cost"].round(0).astype(int),
        "best cheaper baseline": rows["baseline"],
        "gain over it": interval("gain_", "gain"),
    }
    return pd.DataFrame(columns).set_index("method")


def figure(table: pd.DataFrame, setting: str) -> plt.Figure:
    """Accuracy with intervals of every method of a setting, best on top; dashed: the debate."""
    rows = table[(table["setting"] == setting) & (table["method"] != "debate")]
    drawn = rows.assign(seed="all", line=rows["method"])
    made = charts.intervals(drawn, "line", "accuracy", hue="family", horizontal=True)
    debate = table[(table["setting"] == setting) & (table["method"] == "debate")]["value"].iloc[0]
    made.axes[0].axvline(debate, linestyle="--", color="0.4")
    return made


def findings(table: pd.DataFrame) -> list[str]:
    """The answer of the page: per setting the nearest method to the debate, and what is better than cheaper methods."""
    settings = table["setting"].unique()
    return [finding(table, setting) for setting in settings for finding in (gap_finding, baseline_finding)]


def gap_finding(table: pd.DataFrame, setting: str) -> str:
    """How near the best student comes to the debate, and at what share of its tokens per answer."""
    rows = table[table["setting"] == setting]
    debate = rows[rows["method"] == "debate"].iloc[0]
    best = rows[rows["student"] != ""].iloc[0]
    share = best["tokens_per_question"] / debate["tokens_per_question"]
    return (
        f"**{setting}.** The best method is {best['method']}: {best['value']:.3f} [{best['lo']:.3f}, {best['hi']:.3f}]. "
        f"The debate has {debate['value']:.3f}, {debate['value'] - best['value']:+.3f} beside it, with "
        f"{1 / share:.0f} times the tokens per question."
    )


def baseline_finding(table: pd.DataFrame, setting: str) -> str:
    """Which methods with a debate are better than every cheaper baseline without one."""
    rows = table[(table["setting"] == setting) & table["uses_debate"] & (table["student"] != "")]
    better = [one for _, one in rows.iterrows() if verdict(gained(one)) == "better"]
    listed = "; ".join(f"{one['method']} over {one['baseline']}, {signed(gained(one))}" for one in better)
    if not better:
        return f"**{setting}.** None of the {len(rows)} methods that use a debate is better than its best cheaper baseline."
    return (
        f"**{setting}.** {len(better)} of the {len(rows)} methods that use a debate are better than their best cheaper "
        f"baseline: {listed}."
    )

"""The paper's tables and figures next to ours: data, figures and sentences of the page of experiments.

Gains are in percentage points, as in the paper. Published cells are single runs without an interval; ours are means
over seeds with 95 % intervals over questions and seeds.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from agentark import StudyError
from agentark.paper.ablations import control, protocol_gains
from agentark.paper.figures import finish_grid
from agentark.paper.numbers import TRAIN_SIZES, by_method, cost
from agentark.report import sentences
from agentark.report.charts import COLOURS, LABELS, METHODS, in_method_order, intervals, style
from agentark.schemas import Score, read_scores

# Results table -> the command that makes it. The grid and the ablations take longer than the study; until they have
# been run, their tables in git have only a header.
MADE_BY = dict.fromkeys(("scores", "reasoning", "cost"), "dvc repro") | {"grid": "make grid"}
MADE_BY |= {
    f"ablation_{name}": "make ablations"
    for name in ("controls", "sources", "rewards", "pad", "data", "agents", "protocols", "vision")
}
JUDGED = {  # a judge's aspect in Table 1 -> the closest exact measure
    "step_decomposition": "step_presence", "intermediate_verification": "step_accuracy",
    "error_localization": "error_notice", "reasoning_coherence": "coherence",
}  # fmt: skip


def read(folder: Path, names: Iterable[str] = tuple(MADE_BY)) -> dict[str, pd.DataFrame]:
    """The tables of MADE_BY in `folder`; empty if the experiment has not been run (no file, or only a header).

    Raises StudyError naming the table and the row that is not of schema `Score`, or if scores.csv has no results.
    """
    tables = {}
    for name in names:
        path = folder / f"{name}.csv"
        run = path.is_file() and path.read_text().count("\n") > 1
        tables[name] = read_scores(path) if run else pd.DataFrame(columns=list(Score.model_fields))
    if tables["scores"].empty:
        raise StudyError(f"{folder}/scores.csv: no results; run `dvc repro evaluate`")
    return tables


def not_run(tables: dict[str, pd.DataFrame], *names: str) -> str:
    """One line per empty table of `names`, with the command that makes it; "" if no table is empty."""
    return "\n\n".join(f"*{n}.csv: not run yet: `{MADE_BY[n]}`*" for n in names if tables[n].empty)


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """One row per cell (teacher, student, method, training and test task) of a results table or of
    reports/published.csv: its gain over the base with its interval, in points, and its domain."""
    rows = sentences.select(table, metric="accuracy_gain", baseline="base")
    rows = rows[(rows["train_task"] != "") & (rows["test_task"] != "")]
    inside = np.where(rows["train_task"] == rows["test_task"], "in domain", "out of domain")
    return rows.assign(**rows[["value", "lo", "hi"]] * 100, domain=inside)


def gains_figure(published: pd.DataFrame, ours: pd.DataFrame, factor: str) -> plt.Figure:
    """Gains (cells) by a factor, published left, ours right, with own scales: dots are cells, dashes method means."""
    style()
    sources = {f"published, {len(published)} cells": published, f"here, {len(ours)} cells": ours}
    rows = pd.concat([rows.assign(source=name) for name, rows in sources.items()], ignore_index=True)
    rows = rows.sort_values(factor, key=lambda names: names.map(TRAIN_SIZES).fillna(0), kind="stable")
    used = [m for m in METHODS if m in set(rows["method"])]
    options: dict[str, Any] = dict(x=factor, y="value", hue="method", hue_order=used, palette=COLOURS)
    grid = sns.catplot(
        rows, kind="strip", col="source", col_order=list(sources), **options, dodge=True, jitter=False, size=3,
        alpha=0.5, sharex=False, sharey=False, height=3.6, aspect=1.1,
    )  # fmt: skip
    options |= dict(dodge=0.6, errorbar=None, linestyle="none", marker="_", markersize=12, legend=False)
    grid.map_dataframe(sns.pointplot, **options)
    return finish_grid(grid, "gain over the base, points")


def grid(rows: pd.DataFrame) -> plt.Figure:
    """Each of our cells with its interval: a row of panels per test task, a column per student, a dot per teacher."""
    rows = rows.assign(test=[f"on {task}" for task in rows["test_task"]])
    return intervals(rows, "train_task", "gain, points", row="test", col="student", zero=0)


def averages(table: pd.DataFrame) -> plt.Figure:
    """Gains averaged over cells (grid.pooled) with their intervals, in domain left, out of domain right: over all
    cells, and over those of each student and of each teacher."""
    rows = sentences.select(table[table["domain"] != ""])
    rows = rows.assign(
        of=(rows["student"] + rows["teacher"]).replace("", "all cells"), **rows[["value", "lo", "hi"]] * 100
    )
    return intervals(rows, "of", "mean gain over the base, points", col="domain", zero=0, horizontal=True)


def perplexities(printed: pd.DataFrame, reasoning: pd.DataFrame) -> plt.Figure:
    """Perplexity of gold reasoning by method: Table 1 above, ours with intervals below."""
    theirs = by_method(printed, "Table 1").loc["perplexity"].rename("value").reset_index()
    theirs = theirs.assign(lo=theirs["value"], hi=theirs["value"], seed="all", panel="published, Qwen3-0.6B on GSM8K")
    ours = sentences.select(reasoning, metric="perplexity")
    ours = ours[ours["student"] != ""]
    rows = pd.concat([theirs, ours.assign(panel="here, " + ours["student"])])
    return intervals(in_method_order(rows), "method", "perplexity of gold reasoning", hue="method", row="panel")


def reasoning_aspects(printed: pd.DataFrame, scores: pd.DataFrame, student: str, task: str) -> pd.DataFrame:
    """Table 1's four judge scores (1 to 5) beside the closest exact measures (shares), by method."""
    theirs = by_method(printed, "Table 1").loc[list(JUDGED)]
    rows = sentences.select(scores, setting="test", student=student, test_task=task)
    ours = rows[rows["metric"].isin(JUDGED.values())].pivot_table(index="metric", columns="method", values="value")
    ours = ours.reindex(index=JUDGED.values(), columns=theirs.columns)
    ours.index = theirs.index = pd.MultiIndex.from_tuples(JUDGED.items(), names=["a judge's score", "exact share"])
    return pd.concat({"published, 1 to 5": theirs, "here, 0 to 1": ours}, axis=1)


def perturbed(reasoning: pd.DataFrame, student: str) -> pd.DataFrame:
    """Gain over the base, with its interval, by setting of notebook 09 and questions (rows), and method (columns)."""
    rows = sentences.select(reasoning, metric="accuracy_gain", baseline="base", baseline_variant="", student=student)
    rows["cell"] = [sentences.signed(row) for _, row in rows.iterrows()]
    return rows.pivot_table("cell", ["setting", "n"], "method", aggfunc="first", sort=False)


def training_cost(printed: pd.DataFrame, table: pd.DataFrame, student: str) -> pd.DataFrame:
    """Table 6 by method and part. Published: card-hours of the paper's 8B student. Ours, for one seed: core-seconds and
    tokens trained on. Both times also as multiples of R-SFT's. A cell is empty if not published or not timed."""
    parts = {"": "", "reward model": "reward_model", "GRPO": "policy"}
    theirs = cost(printed)["gpu_hours"]
    own = table[(table["student"] == student) & (table["setting"] == "once")]
    own = own.set_index(["method", "part", "metric"])["value"]
    rows = {}
    for method, part in [*((m, "") for m in ("sft", "rsft", "da")), ("pad", "reward model"), ("pad", "GRPO")]:
        seconds, tokens = (own.get((method, parts[part], unit), np.nan) for unit in ("seconds", "tokens"))
        rows[LABELS[method], part] = {"card-hours, published": theirs.get((method, part), np.nan),
                                    "core-seconds, here": seconds, "thousand tokens, here": tokens / 1000}  # fmt: skip
    found = pd.DataFrame(rows).T
    for column in ("card-hours, published", "core-seconds, here"):
        found[f"{column} / R-SFT"] = found[column] / found.loc[(LABELS["rsft"], ""), column]
    return found


def findings(tables: dict[str, pd.DataFrame], published: pd.DataFrame, task: str) -> str:
    """One line per subject, ours against the paper's, and the experiments not yet run; numbers are from the tables."""
    theirs, ours = cells(published), cells(tables["grid"] if len(tables["grid"]) else tables["scores"])
    lines = []
    for method in [m for m in METHODS if m in set(ours["method"])]:
        clauses = []
        for name, rows in (("published", theirs), ("here", ours)):
            own = rows[rows["method"] == method]
            parts = []
            for where in ("in domain", "out of domain"):
                gain = own[own["domain"] == where]["value"]
                parts.append(
                    f"{gain.mean():+.2f} points {where} ({(gain < 0).sum()} of {len(gain)} cells below the base)"
                )
            clauses.append(f"{name} {', '.join(parts)}")
        lines.append(f"- **{LABELS[method]}:** {'; '.join(clauses)}.")
    lines += [f"- **Debate or more samples?** {line}." for line in control(tables["ablation_data"])]
    lines += [f"- **Other protocols:** {line}." for line in protocol_gains(tables["ablation_protocols"])]
    source = "the study itself, because the grid has not been run"
    if len(tables["grid"]):
        source = "the grid, with equal weights as in the paper (in the figure of means, test tasks have equal weights)"
    lines.append(f"- Our results are {len(ours)} cells of {source}.")
    right = sentences.select(tables["scores"], metric="accuracy", setting="test", test_task=task).sort_values("value")
    greedy, best = sentences.one(right, method="greedy"), right[right["student"] != ""].iloc[-1]
    lines.append(
        f"- **The baseline without a debate:** the teacher's greedy decoding reaches {sentences.number(greedy)}, with "
        f"{greedy['tokens_per_question']:.0f} tokens per question; the best student ({best['student']}, "
        f"{LABELS[best['method']]}) reaches {sentences.number(best)}, with {best['tokens_per_question']:.0f}."
    )
    waiting = [name for name, table in tables.items() if table.empty]
    if waiting:
        lines.append(f"- Not run yet: {', '.join(f'{name}.csv (`{MADE_BY[name]}`)' for name in waiting)}.")
    return "\n".join(lines)

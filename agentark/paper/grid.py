"""The paper's grid (section 4, Tables 8-13, Figure 3) in the generated world: one cell, and all cells together.

A cell is a teacher, a student and a training family. It has one trained student per method and seed. The students of
all cells answer the same test questions of all families. `make grid` (`python -m agentark.stage.pipeline grid`) runs
all cells and shows the progress.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from agentark.evaluate import scores, stats
from agentark.report.charts import LABELS
from agentark.schemas import Score
from agentark.tasks.world.facts import LETTERS

METHODS = ("sft", "rsft", "da", "pad")  # each trained on the traces of the same debates


def scored(predictions: pd.DataFrame, teacher: str, train_task: str) -> list[Score]:
    """Return rows of `reports/grid.csv` for a cell or teacher: accuracy, needed steps present, gains over the base."""
    metrics = ("accuracy", "accuracy_gain", "step_presence")
    rivals = {method: [{"method": "base"}] for method in METHODS}
    return scores.scores(predictions, "grid", teacher, train_task, lambda s: rivals.get(s["method"], []), metrics)


def distinct(rows: Sequence[Score]) -> list[Score]:
    """Return the rows with each base once, since its answers do not depend on a cell's teacher or training family."""
    bases = [row.model_copy(update={"teacher": ""}) if row.method == "base" else row for row in rows]
    return list(dict.fromkeys(bases))


def pooled(predictions: pd.DataFrame, baseline: str = "base") -> list[Score]:
    """Return each method's gain over the base, averaged over cells, in domain (test family = training family) and out.

    predictions: of all cells, with the columns of `schemas.Prediction`, `teacher` and `train_task`. A question's gain
    is its mean over cells. Questions and seeds are random effects (stats.gain), because all cells answer the same
    questions; every family has the same number. Each method and `domain` has one row for all cells, for each student
    and for each teacher; for all cells also one per seed.
    """
    trained = predictions["method"] != baseline
    by_seed = {
        str(seed): gains_by_method(predictions[~trained | (predictions["seed"] == seed)], baseline)
        for seed in sorted(predictions[trained]["seed"].unique())
    }
    every = next(iter(by_seed.values()))
    parts: list[dict] = [{}, *({by: key} for by in ("student", "teacher") for key in every[by].unique())]
    rows = []
    for which in parts:
        for domain in ("in domain", "out of domain"):
            tables = {seed: means(gains, which | {"domain": domain}) for seed, gains in by_seed.items()}
            fixed = dict(study="grid", setting="test", domain=domain, teacher="", student="", method="", train_task="",
                         test_task="", tokens_per_question=0.0) | which  # fmt: skip
            for method in next(iter(tables.values())):
                each = {seed: table[method].to_numpy(float) for seed, table in tables.items()}
                own = {**fixed, "method": method}
                found = {"all": stats.mean(np.stack(list(each.values())))}
                if not which and len(each) > 1:
                    found |= {seed: stats.mean(values) for seed, values in each.items()}
                rows += [scores.score(own, "accuracy_gain", e, seed, baseline) for seed, e in found.items()]
    return rows


def gains_by_method(predictions: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return each method's gain over the base (columns) by question and cell (rows), with the column `domain`.
    predictions: of one seed of each trained method."""
    right = predictions.groupby(["teacher", "student", "train_task", "method", "task", "question_id"], sort=True)
    mean = right["correct"].mean().unstack("method")
    gains = mean[[m for m in METHODS if m in mean]].sub(mean[baseline], axis=0).reset_index()
    own = gains["train_task"] == gains["task"]
    return gains.assign(domain=own.map({True: "in domain", False: "out of domain"}))


def means(gains: pd.DataFrame, where: dict[str, str]) -> pd.DataFrame:
    """Return the mean gain of each method (columns) by question (rows), over the cells that match `where`."""
    for column, value in where.items():
        gains = gains[gains[column] == value]
    return gains.groupby(["task", "question_id"])[[m for m in METHODS if m in gains]].mean()


def below_base(table: pd.DataFrame) -> pd.DataFrame:
    """Count gains below the base, and intervals entirely below or above 0, by method, in domain and out of domain."""
    gains = table[(table["metric"] == "accuracy_gain") & (table["seed"] == "all") & (table["train_task"] != "")]
    where = gains["train_task"].eq(gains["test_task"]).map({True: "in domain", False: "out of domain"})
    counted = pd.DataFrame(
        {
            "method": gains["method"], "where": where, "gains": 1, "below the base": gains["value"] < 0,
            "interval below": gains["hi"] < 0, "interval above": gains["lo"] > 0,
        }
    )  # fmt: skip
    return counted.groupby(["where", "method"], sort=False).sum()


def findings(table: pd.DataFrame) -> list[str]:
    """Return sentences: the mean gain of each method, in domain and out, and how often it is below the base."""
    lines = []
    counts = below_base(table)
    for where in ("in domain", "out of domain"):
        means = table[
            (table["domain"] == where) & (table["seed"] == "all") & (table["student"] + table["teacher"] == "")
        ]
        for _, r in means.iterrows():
            c = counts.loc[(where, r["method"])]
            lines.append(
                f"{LABELS[r['method']]}, {where}: {r['value']:+.3f} [{r['lo']:+.3f}, {r['hi']:+.3f}] (n = {r['n']} "
                f"questions); below the base in {c['below the base']} of {c['gains']} gains, for "
                f"{c['interval below']} of them with the whole interval"
            )
    return lines


def guessing_students(table: pd.DataFrame) -> list[str]:
    """Return a line, with its share of needed steps, per student at chance on facts after R-SFT with every teacher."""
    chance = 1 / len(LETTERS)
    own = table[(table["train_task"] == "facts") & (table["test_task"] == "facts") & (table["method"] == "rsft")]
    own = own[own["seed"] == "all"]
    lines = []
    for student, rows in own[own["metric"] == "accuracy"].groupby("student"):
        if ((rows["lo"] <= chance) & (rows["hi"] >= chance)).all():
            steps = own[(own["metric"] == "step_presence") & (own["student"] == student)]["value"].mean()
            lines.append(
                f"{student} answers facts at chance even after R-SFT on facts (accuracy {rows['value'].mean():.2f}), "
                f"although it generates {steps:.2f} of the needed steps"
            )
    return lines

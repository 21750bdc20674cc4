"""The paper's grid (section 4, Tables 8-13, Figure 3) in the generated world: one cell, and all cells together.

A cell is a teacher, a student and a training family; its students, one a method and seed, answer the same test questions
of all families, whoever taught them. `make grid` runs all cells and tells how far it is; `python -m agentark.stage.pipeline` is the
same.
"""

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from agentark.evaluate import scores, stats
from agentark.report.charts import LABELS
from agentark.schemas import Score
from agentark.tasks.world.facts import LETTERS

METHODS = ("sft", "rsft", "da", "pad")  # each taught on the traces of one debate


def scored(predictions: pd.DataFrame, teacher: str, train_task: str) -> list[Score]:
    """Rows of `reports/grid.csv` of one cell or of a teacher: accuracy, needed steps present, and gains over the base."""
    kept = ("accuracy", "accuracy_gain", "step_presence")
    rivals = {method: [{"method": "base"}] for method in METHODS}
    return scores.scores(predictions, "grid", teacher, train_task, lambda s: rivals.get(s["method"], []), kept)


def distinct(rows: Sequence[Score]) -> list[Score]:
    """The rows, each base once: it answers the same in every cell, whoever the teacher."""
    bases = [row.model_copy(update={"teacher": ""}) if row.method == "base" else row for row in rows]
    return list(dict.fromkeys(bases))


def pooled(predictions: pd.DataFrame, baseline: str = "base") -> list[Score]:
    """Gains over the base of each method, averaged over all cells, in domain (tested on the family trained on) and out.

    predictions: those of all cells, with the columns of `schemas.Prediction` and `teacher`, `train_task`. A question's
    gain is its mean over cells and seeds; questions are what is resampled, since all cells answer the same ones, and
    every family has as many. Rows a method and `domain`: over all cells, over those of each student and of each teacher;
    over all cells a row a seed too.
    """
    every = gained(predictions, baseline)
    parts: list[tuple[dict, pd.DataFrame]] = [({}, every)]
    for by in ("student", "teacher"):
        parts += [({by: key}, part) for key, part in every.groupby(by)]
    for seed in sorted(predictions[predictions["method"] != baseline]["seed"].unique()):
        own = predictions["seed"].eq(seed) | predictions["method"].eq(baseline)
        parts.append(({"seed": str(seed)}, gained(predictions[own], baseline)))
    rows = []
    for which, part in parts:
        for domain, some in part.groupby("domain"):
            by_question = some.groupby(["task", "question_id"])[[m for m in METHODS if m in some]].mean()
            for method in by_question:
                fixed = dict(study="grid", setting="test", domain=domain, teacher="", student="", method=method,
                             baseline=baseline, train_task="", test_task="", tokens_per_question=0.0, seed="all")  # fmt: skip
                rows.append(Score(**fixed | which, metric="accuracy_gain", **asdict(stats.mean(by_question[method]))))
    return rows


def gained(predictions: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Each method's gain over the base (columns) on each question in each cell (rows), its mean over seeds; and `domain`."""
    right = predictions.groupby(["teacher", "student", "train_task", "method", "task", "question_id"], sort=True)
    mean = right["correct"].mean().unstack("method")
    gains = mean[[m for m in METHODS if m in mean]].sub(mean[baseline], axis=0).reset_index()
    own = gains["train_task"] == gains["task"]
    return gains.assign(domain=own.map({True: "in domain", False: "out of domain"}))


def below_base(table: pd.DataFrame) -> pd.DataFrame:
    """By method, in domain and out: of how many gains the point, and the whole interval, lies below or above 0."""
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
    """What the grid says, in sentences: the mean gain of each method in domain and out, and how often it loses."""
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
                f"questions); below the base in {c['below the base']} of {c['gains']} gains, in "
                f"{c['interval below']} with the whole interval"
            )
    return lines


def guessed(table: pd.DataFrame) -> list[str]:
    """Students that R-SFT on the multiple choice leaves at chance, whoever the teacher, and what they write all the same."""
    chance = 1 / len(LETTERS)
    own = table[(table["train_task"] == "facts") & (table["test_task"] == "facts") & (table["method"] == "rsft")]
    own = own[own["seed"] == "all"]
    lines = []
    for student, rows in own[own["metric"] == "accuracy"].groupby("student"):
        if ((rows["lo"] <= chance) & (rows["hi"] >= chance)).all():
            steps = own[(own["metric"] == "step_presence") & (own["student"] == student)]["value"].mean()
            lines.append(
                f"{student} answers facts at chance even after R-SFT on them ({rows['value'].mean():.2f} right), though it "
                f"writes {steps:.2f} of the needed steps"
            )
    return lines

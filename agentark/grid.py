"""The paper's grid (section 4, Tables 8-13, Figure 3) in the generated world: one cell, and all cells together.

A cell is a teacher, a student and a training family; its students, one a method and seed, answer the same test questions
of all families, whoever taught them. `make grid` runs all cells and tells how far it is; `python -m agentark.grid` is the
same.
"""

import os
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from datetime import timedelta
from statistics import mean

import pandas as pd

from agentark import evaluate, root, stats
from agentark.command import finish
from agentark.figures import LABELS
from agentark.parallel import workers
from agentark.schemas import Score
from agentark.tasks.facts import LETTERS

METHODS = ("sft", "rsft", "da", "pad")  # each taught on the traces of one debate
PIPELINE = "grid/dvc.yaml"


def scored(predictions: pd.DataFrame, teacher: str, train_task: str) -> list[Score]:
    """Rows of `reports/grid.csv` of one cell or of a teacher: accuracy, needed steps present, and gains over the base."""
    rows = evaluate.scores(predictions, teacher, train_task, lambda method: ["base"] if method in METHODS else [])
    kept = ("accuracy", "accuracy_gain", "step_presence")
    return [row.model_copy(update={"study": "grid"}) for row in rows if row.metric in kept]


def distinct(rows: Sequence[Score]) -> list[Score]:
    """The rows, each base once: it answers the same in every cell, whoever the teacher."""
    bases = [row.model_copy(update={"teacher": ""}) if row.method == "base" else row for row in rows]
    return list(dict.fromkeys(bases))


def pooled(predictions: pd.DataFrame, baseline: str = "base") -> list[Score]:
    """Gains over the base of each method, averaged over all cells, in domain (tested on the family trained on) and out.

    predictions: those of all cells, with the columns of `schemas.Prediction` and `teacher`, `train_task`. A question's
    gain is its mean over cells and seeds; questions are what is resampled, since all cells answer the same ones, and
    every family has as many. Rows a method ("experiment" tells which students: all, or one student, or one teacher), over
    all cells a row a seed too.
    """
    every = gained(predictions, baseline)
    parts = [("all cells", "", every, "all")]
    for by in ("student", "teacher"):
        parts += [(f"by {by}", key, part, "all") for key, part in every.groupby(by)]
    for seed in sorted(predictions[predictions["method"] != baseline]["seed"].unique()):
        own = predictions["seed"].eq(seed) | predictions["method"].eq(baseline)
        parts.append(("all cells", "", gained(predictions[own], baseline), str(seed)))
    rows = []
    for experiment, key, part, seed in parts:
        for where, some in part.groupby("where"):
            by_question = some.groupby(["task", "question_id"])[[m for m in METHODS if m in some]].mean()
            for method in by_question:
                rows.append(
                    Score(
                        study="grid", experiment=f"{experiment}, {where}", seed=seed, metric="accuracy_gain",
                        teacher=key if experiment == "by teacher" else "",
                        student=key if experiment == "by student" else "",
                        method=method, baseline=baseline, train_task="", test_task="", tokens_per_question=0.0,
                        **asdict(stats.mean(by_question[method])),
                    )
                )  # fmt: skip
    return rows


def gained(predictions: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Each method's gain over the base (columns) on each question in each cell (rows), its mean over seeds; and `where`."""
    right = predictions.groupby(["teacher", "student", "train_task", "method", "task", "question_id"], sort=True)
    mean = right["correct"].mean().unstack("method")
    gains = mean[[m for m in METHODS if m in mean]].sub(mean[baseline], axis=0).reset_index()
    own = gains["train_task"] == gains["task"]
    return gains.assign(where=own.map({True: "in domain", False: "out of domain"}))


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
    told = []
    counts = below_base(table)
    for where in ("in domain", "out of domain"):
        means = table[(table["experiment"] == f"all cells, {where}") & (table["seed"] == "all")]
        for _, r in means.iterrows():
            c = counts.loc[(where, r["method"])]
            told.append(
                f"{LABELS[r['method']]}, {where}: {r['value']:+.3f} [{r['lo']:+.3f}, {r['hi']:+.3f}] (n = {r['n']} "
                f"questions); below the base in {c['below the base']} of {c['gains']} gains, in "
                f"{c['interval below']} with the whole interval"
            )
    return told


def guessed(table: pd.DataFrame) -> list[str]:
    """Students that R-SFT on the multiple choice leaves at chance, whoever the teacher, and what they write all the same."""
    chance = 1 / len(LETTERS)
    own = table[(table["train_task"] == "facts") & (table["test_task"] == "facts") & (table["method"] == "rsft")]
    own = own[own["seed"] == "all"]
    told = []
    for student, rows in own[own["metric"] == "accuracy"].groupby("student"):
        if ((rows["lo"] <= chance) & (rows["hi"] >= chance)).all():
            steps = own[(own["metric"] == "step_presence") & (own["student"] == student)]["value"].mean()
            told.append(
                f"{student} answers facts at chance even after R-SFT on them ({rows['value'].mean():.2f} right), though it "
                f"writes {steps:.2f} of the needed steps"
            )
    return told


def stages() -> list[str]:
    """The names of the grid's stages, in the order of the pipeline."""
    listed = subprocess.run(
        ["dvc", "stage", "list", "--name-only", PIPELINE], cwd=root(), capture_output=True, text=True, check=True
    )
    return [line.partition(":")[2] for line in listed.stdout.split()]


def repro(name: str, cores: int) -> tuple[bool, float, str]:
    """Bring one stage up to date. Returns whether that went well, seconds (0 if there was nothing to do), what was said."""
    since = time.monotonic()
    done = subprocess.run(
        ["dvc", "--wait-for-lock", "repro", "--single-item", f"{PIPELINE}:{name}"],
        cwd=root(), env=os.environ | {"AGENTARK_WORKERS": str(cores)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    took = time.monotonic() - since if "Running stage" in done.stdout else 0.0
    return done.returncode == 0, took, done.stdout


def run(
    names: Sequence[str],
    say: Callable[[str], None] = print,
    repro: Callable[[str, int], tuple[bool, float, str]] = repro,
) -> bool:
    """Bring stages up to date, kind after kind (base models, questions, debates, cells), as many of a kind at once as there
    are cores: a stage on one core is busy all the time, on two it is not, and `dvc repro` runs one after the other.

    After each stage `say` is told how many are done and about how long the rest will take: a stage to come as long as those
    of its kind took on average, or, of a kind not seen yet, as all took. Returns whether all went well; of a failed stage
    the last words are said, those that run beside it still end, and no other is begun.
    """
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(name.partition("@")[0], []).append(name)
    left, took = Counter({kind: len(some) for kind, some in kinds.items()}), defaultdict(list)
    for kind, some in kinds.items():
        with ThreadPoolExecutor(workers()) as threads:
            running = {threads.submit(repro, name, max(1, workers() // len(some))): name for name in some}
            for future in as_completed(running):
                well, seconds, words = future.result()
                if not well:
                    threads.shutdown(cancel_futures=True)
                    say(f"grid: {running[future]} failed\n{words[-2000:]}")
                    return False
                left[kind] -= 1
                if seconds:
                    took[kind].append(seconds)
                every = [s for spent in took.values() for s in spent] or [0.0]
                rest = sum(n * mean(took[k] or every) for k, n in left.items()) / workers()
                wait = timedelta(seconds=round(rest))
                say(
                    f"grid: {len(names) - left.total()} of {len(names)} stages done ({running[future]}), about {wait} left"
                )
    return True


def main() -> int:
    return 0 if run(stages(), lambda line: print(line, flush=True)) else 1


if __name__ == "__main__":
    finish(main)

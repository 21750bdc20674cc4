"""Rows of the results tables: accuracy, step measures and paired gains, by seed and over seeds, with 95 % intervals."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from agentark.evaluate import stats
from agentark.evaluate.predictions import TEXT_METRICS
from agentark.schemas import CONTROLS, Prediction, Score, frame

STEP_METRICS = {
    "step_presence": ("steps_present", "steps_needed"),
    "step_accuracy": ("steps_right", "steps_written"),
    "coherence": ("steps_grounded", "steps_written"),
    "error_notice": ("errors_noticed", "errors"),
    "error_repair": ("errors_mended", "errors"),
}
GAINS = ("accuracy", "accuracy_gain")  # the metrics that the ablations keep
KEYS = ("setting", "label", "level", "task", "student", "method")  # these columns identify a system and its questions
# The facts of a label's condition, as columns of the results.
FACTS = ("variant", "source", "gold_used", "questions", "traces_per_question", "agents", "rounds", "temperature")
BASES = ("base", "base_steps")  # students' systems without training
System = dict[str, Any]


def scores(
    predictions: pd.DataFrame,
    study: str,
    teacher: str,
    train_task: str,
    baselines: Callable[[System], list[System]],
    metrics: Sequence[str] | None = None,
) -> list[Score]:
    """Accuracy, text and step measures of every system, and its gains over its baselines.

    predictions: rows of `Prediction`, optionally with columns of KEYS and FACTS (see with_conditions). A trained method has
    one row per seed, with an interval over questions, and one of the mean over seeds ("all"), with an interval over
    questions and seeds. `baselines(system)` lists how each baseline differs from the system ({"method": "base"}); if
    the student has no such system, the teacher's is used. Gains are paired by question over the questions that both
    answered. metrics: those to keep (None: all).
    """
    predictions = predictions.astype(dict.fromkeys(("correct", *TEXT_METRICS), float))
    keys = [key for key in KEYS if key in predictions]
    systems = {tuple(key): part for key, part in predictions.groupby(keys, sort=False)}
    rows: list[Score] = []
    for key, part in systems.items():
        system = dict(zip(keys, key, strict=True))
        fixed = shared_columns(system, part, study, teacher, train_task)
        if part["seed"].nunique() > 1:
            rows += [
                score(fixed, "accuracy", stats.mean(one["correct"]), str(seed)) for seed, one in part.groupby("seed")
            ]
        columns = {"accuracy": "correct"} | {m: m for m in TEXT_METRICS if not part[m].isna().any()}
        rows += [score(fixed, metric, stats.mean(by_seed(part, column))) for metric, column in columns.items()]
        ratios = {
            metric: stats.ratio(by_seed(part, count), by_seed(part, whole))
            for metric, (count, whole) in STEP_METRICS.items()
        }
        if part["cut_in_thought"].any():
            ratios["cut_in_thought"] = stats.ratio(by_seed(part, "cut_in_thought"), by_seed(part, "calls"))
        rows += [score(fixed, metric, estimate) for metric, estimate in ratios.items() if estimate.n]
        for change in baselines(system):
            rivals = [tuple((system | student | change)[name] for name in keys) for student in ({}, {"student": ""})]
            found = next((rival for rival in rivals if rival in systems), None)
            if found is None:
                continue
            rival = systems[found]
            both = np.intersect1d(part["question_id"], rival["question_id"])
            named = {
                "baseline": change.get("method", system["method"]),
                "baseline_variant": other_condition(change, rival),
            }
            for metric, column in columns.items():
                gained = stats.gain(by_seed(part, column, both), by_seed(rival, column, both))
                rows.append(score(fixed | named, f"{metric}_gain", gained))
    return [row for row in rows if metrics is None or row.metric in metrics]


def by_seed(part: pd.DataFrame, column: str, questions: np.ndarray | None = None) -> np.ndarray:
    """A column of a system's predictions as seeds x questions, in the order of `questions` (None: sorted); one number
    per question if there is one seed."""
    table = part.pivot(index="seed", columns="question_id", values=column)
    values = (table if questions is None else table[list(questions)]).to_numpy(float)
    return values[0] if len(values) == 1 else values


def with_conditions(predictions: Iterable[Prediction], conditions: dict[str, System]) -> pd.DataFrame:
    """Predictions as a table for `scores`. Their setting is the label of a condition; `conditions` gives the facts
    (FACTS) of each label."""
    table = frame(predictions).rename(columns={"setting": "label"}).assign(setting="test")
    facts = pd.DataFrame.from_dict(conditions, orient="index").convert_dtypes()  # missing values leave counts integers
    return table.join(facts, on="label")


def by_source(table: pd.DataFrame, sources: Sequence[str]) -> pd.DataFrame:
    """Predictions with the method "rsft-SOURCE" replaced by "rsft", and SOURCE in columns label, variant and source;
    unchanged without sources."""
    if not sources:
        return table
    source = table["method"].map({f"rsft-{name}": name for name in sources}).fillna("")
    return table.assign(
        method=table["method"].where(source == "", "rsft"), label=source, variant=source,
        source=source.where(source != "", table["method"].map({"rsft": "debate"}).fillna("")),
    )  # fmt: skip


def shared_columns(system: System, part: pd.DataFrame, study: str, teacher: str, train_task: str) -> dict[str, Any]:
    """The values that all rows of a system share. train_task: "" for a system that was not trained."""
    facts = {name: plain(part[name].iloc[0]) for name in FACTS if name in part and pd.notna(part[name].iloc[0])}
    return {name: plain(value) for name, value in system.items() if name not in ("task", "label")} | facts | {
        "study": study,
        "teacher": teacher,
        "train_task": train_task if system["student"] and system["method"] not in BASES else "",
        "test_task": system["task"],
        "tokens_per_question": float(part["tokens"].mean()),
        "calls_per_question": float(part["calls"].mean()) if "calls" in part else None,
    }  # fmt: skip


def plain(value: Any) -> Any:
    """A table's value as a plain Python value; None if it is missing."""
    return None if pd.isna(value) else value.item() if hasattr(value, "item") else value


def other_condition(change: System, rival: pd.DataFrame) -> str:
    """The condition, other than the method, in which a baseline differs from a system; "" if there is none."""
    if "label" in change:
        return rival["variant"].iloc[0] if "variant" in rival else change["label"]
    return change.get("setting", "")


def score(fixed: dict[str, Any], metric: str, estimate: stats.Estimate, seed: str = "all", baseline: str = "") -> Score:
    """One row of a results table."""
    return Score(**{"baseline": baseline} | fixed | {"metric": metric, "seed": seed} | asdict(estimate))


def baselines(system: System) -> list[System]:
    """The baselines of each method of the study. Students: their base, with and without elicited steps, answer-only
    SFT, the teacher's greedy decoding, single sample and debate, and R-SFT on traces of each control of the debate. A
    debate: greedy decoding, one sample, and its controls. `scores` skips those that were not run."""
    students = ["base", "base_steps", "sft", "greedy", "single", "debate"]
    rivals = {
        "debate": ["greedy", "single", *CONTROLS],
        "vote": ["single"],
        "base_steps": ["base"],
        "sft": ["base"],
        **dict.fromkeys(("rsft", "da", "pad"), students),
    }
    unlabelled = {"label": ""} if "label" in system else {}
    found = [{"method": rival} | unlabelled for rival in rivals.get(system["method"], [])]
    if system["method"] == "rsft" and system.get("label") == "":
        found += [{"label": source} for source in ("greedy", *CONTROLS)]
    return found


def trace_yield(table: pd.DataFrame, study: str, teacher: str, train_task: str, baseline: str) -> list[Score]:
    """Share of training questions with a right trace, by source (metric `yield`), and its paired gain over source
    `baseline`: over all questions, and per level. `table`: see selection.yielded."""
    rows = []
    for level, part in [(None, table), *table.groupby("level")]:
        for source in table.columns.drop("level"):
            fixed = dict(study=study, setting="train", source=source, level=plain(level) if level is not None else None,
                         teacher=teacher, student="", method="", train_task=train_task, test_task=train_task,
                         tokens_per_question=0.0)  # fmt: skip
            rows.append(score(fixed, "yield", stats.mean(part[source])))
            if source != baseline:
                gained = stats.gain(part[source], part[baseline])
                rows.append(score(fixed | {"baseline_variant": baseline}, "yield_gain", gained))
    return rows


def summary(rows: Sequence[Score], train_task: str) -> dict[str, dict[str, float]]:
    """The numbers for `dvc metrics`: accuracy on the training task, by student and method."""
    tree: dict[str, dict[str, float]] = {}
    for s in rows:
        if (s.metric, s.seed, s.setting, s.test_task) == ("accuracy", "all", "test", train_task):
            tree.setdefault(s.student or "teacher", {})[s.method] = round(s.value, 4)
    return tree

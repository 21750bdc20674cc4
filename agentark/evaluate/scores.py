"""Measurement: every system on the same test questions, answers and steps judged exactly, gains paired."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import pandas as pd

from agentark.evaluate import stats
from agentark.evaluate.predictions import TEXT_METRICS
from agentark.schemas import Score


def described(student: str, method: str, experiment: str, teacher: str, train_task: str, tokens: float) -> dict:
    """What the rows of one system in one experiment share."""
    return dict(
        study="reasoning", experiment=experiment, teacher=teacher, student=student, method=method,
        train_task=train_task if student and method != "base" else "", test_task=train_task, tokens_per_question=tokens,
    )  # fmt: skip


# A measure of steps is a ratio of two counts of a prediction: how much of what could be, was.
STEP_METRICS = {
    "step_presence": ("steps_present", "steps_needed"),
    "step_accuracy": ("steps_right", "steps_written"),
    "coherence": ("steps_grounded", "steps_written"),
    "error_notice": ("errors_noticed", "errors"),
    "error_repair": ("errors_mended", "errors"),
}


def scores(
    predictions: pd.DataFrame, teacher: str, train_task: str, baselines: Callable[[str], list[str]]
) -> list[Score]:
    """Rows of `reports/scores.csv`: accuracy and step measures by setting, task, method and student; paired gains.

    A trained method has a row a seed and one over seeds ("all"), whose interval is over questions of the mean over
    seeds; gains are paired by question, against each of `baselines(method)` that answered the same questions.
    """
    predictions = predictions.astype(dict.fromkeys(("correct", *TEXT_METRICS), float))
    by_system = dict(iter(predictions.groupby(["setting", "task", "student", "method"], sort=False)))
    averaged = {
        system: part.groupby("question_id", sort=True).mean(numeric_only=True) for system, part in by_system.items()
    }
    rows: list[Score] = []
    for system, part in by_system.items():
        setting, family, student, method = system
        fixed = dict(
            study="main",
            experiment=setting,
            teacher=teacher,
            student=student,
            method=method,
            train_task=train_task if student and method != "base" else "",
            test_task=family,
            tokens_per_question=float(part["tokens"].mean()),
        )
        mean = averaged[system]
        if part["seed"].nunique() > 1:
            for seed, one in part.groupby("seed"):
                rows.append(score(fixed, "accuracy", stats.mean(one["correct"]), str(seed)))
        rows.append(score(fixed, "accuracy", stats.mean(mean["correct"])))
        texts = [m for m in TEXT_METRICS if not mean[m].isna().any()]
        for metric in texts:
            rows.append(score(fixed, metric, stats.mean(mean[metric])))
        for metric, (count, whole) in STEP_METRICS.items():
            estimate = stats.ratio(mean[count], mean[whole])
            if estimate.n:
                rows.append(score(fixed, metric, estimate))
        for baseline in baselines(method):
            rivals = [(setting, family, student, baseline), (setting, family, "", baseline)]
            other = next((averaged[r] for r in rivals if r in averaged), None)
            if other is not None and list(other.index) == list(mean.index):
                for metric, column in {"accuracy": "correct", **{m: m for m in texts}}.items():
                    gained = stats.gain(mean[column], other[column])
                    rows.append(score(fixed, f"{metric}_gain", gained, baseline=baseline))
    return rows


def score(fixed: dict, metric: str, estimate: stats.Estimate, seed: str = "all", baseline: str = "") -> Score:
    """One row of the table of results."""
    return Score(**fixed, metric=metric, seed=seed, baseline=baseline, **asdict(estimate))


def baselines(method: str) -> list[str]:
    """What each method is compared with: students with their base and the teacher's single pass, a debate with a
    single pass and with the vote at its number of calls."""
    return {
        "debate": ["single", "vote"],
        "vote": ["single"],
        "sft": ["base"],
        "rsft": ["base", "sft", "single", "debate"],
        "da": ["base", "sft", "single", "debate"],
        "pad": ["base", "sft", "single", "debate"],
    }.get(method, [])


def summary(scores: Sequence[Score], train_task: str) -> dict:
    """The headline for `dvc metrics`: accuracy on the family distilled from, by student and method."""
    tree: dict[str, dict[str, float]] = {}
    for s in scores:
        if (s.metric, s.seed, s.experiment, s.test_task) == ("accuracy", "all", "test", train_task):
            tree.setdefault(s.student or "teacher", {})[s.method] = round(s.value, 4)
    return tree


Variant = tuple[str, str]  # experiment, method


def yield_scores(table: pd.DataFrame, study: str, teacher: str, train_task: str, baseline: str) -> list[Score]:
    """The share of training questions with a right trace by source (metric `yield`), and its paired gain over that of
    `baseline`: of all questions, and of each level alone. `table`: see yielded."""
    rows = []
    parts = {"": table} | {f", level {level}": part for level, part in table.groupby("level")}
    for suffix, part in parts.items():
        for source in table.columns.drop("level"):
            fixed = dict(study=study, experiment=f"{source}{suffix}", teacher=teacher, student="", method="",
                         train_task=train_task, test_task=train_task, tokens_per_question=0.0)  # fmt: skip
            rows.append(score(fixed, "yield", stats.mean(part[source])))
            if source != baseline:
                rows.append(score(fixed, "yield_gain", stats.gain(part[source], part[baseline]), baseline=baseline))
    return rows


def named(variant: Variant, beside: Variant) -> str:
    """A variant as the baseline of another: what differs between them."""
    return ", ".join(dict.fromkeys(a for a, b in zip(variant, beside, strict=True) if a != b))


def variant_scores(
    predictions: pd.DataFrame, study: str, teacher: str, train_task: str, against: Callable[..., list[Variant]]
) -> list[Score]:
    """Accuracy of every system on the questions of `train_task`, calls of the teacher's, and gains paired by question.

    Experiments are the predictions' settings. A student has a row a seed and one of the mean over seeds ("all"). A gain
    is against each of `against(experiment, method)`, of the same student or of the teacher, over the questions that both
    answered; `baseline` says in what that one differs.
    """
    systems = dict(iter(predictions.groupby(["student", "setting", "method"], sort=False)))
    right = {system: part.groupby("question_id")["correct"].mean() for system, part in systems.items()}
    rows = []
    for (student, *variant), part in systems.items():
        experiment, method = variant
        own = right[student, experiment, method]
        fixed = dict(study=study, experiment=experiment, teacher=teacher, student=student, method=method,
                     train_task=train_task if student and method != "base" else "", test_task=train_task,
                     tokens_per_question=float(part["tokens"].mean()))  # fmt: skip
        each = {str(s): one["correct"] for s, one in part.groupby("seed")} if part["seed"].nunique() > 1 else {}
        rows += [score(fixed, "accuracy", stats.mean(values), seed) for seed, values in {**each, "all": own}.items()]
        if not student:
            rows.append(score(fixed, "calls", stats.mean(part["calls"])))
        for rival in against(experiment, method):
            other = right.get((student, *rival), right.get(("", *rival)))
            if other is not None:
                pair = pd.concat([own, other], axis=1, join="inner")
                gained = stats.gain(pair.iloc[:, 0], pair.iloc[:, 1])
                rows.append(score(fixed, "accuracy_gain", gained, baseline=named(rival, (experiment, method))))
    return rows

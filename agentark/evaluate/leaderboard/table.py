"""The leaderboard: one row per setting and method, from the predictions and the costs of every method.

Accuracy and gains have 95 % intervals over questions and seeds. A method's baseline is the best row without a debate that
costs no more, before its first answer and per answer. Cost is the number of tokens that a method needs before its student
can answer: those that the teachers read and generate for its traces, those that they read to score outputs, and those that
the student trains on.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agentark import StudyError
from agentark.evaluate import stats
from agentark.evaluate.scores import by_seed
from agentark.schemas import Prediction, frame, read_table

COSTS = ("trace_tokens", "teacher_tokens", "training_tokens")
ESTIMATES = ("value", "lo", "hi", "n")
MARGIN = 1.1  # a baseline's tokens per answer, relative to a row's: answers of equal form differ by a few percent
FAIR = 0.05  # how far the training tokens of a row may be from those of its class


# Pairs of methods that differ in one thing, with the question that a pair answers.
PAIRS = {
    "communication": (("mad_opd", "mad_opd_off"), ("sdft", "sdft_off"), ("rsft", "rsft_off")),
    "the debate of this question": (("mad_opd", "mad_opd_other"), ("sdft", "sdft_other")),
    "a debate beside the question alone": (("mad_opd", "mt_opd"), ("rsft_mad_opd", "rsft_opd")),
    "a debate beside any right solution": (("sdft", "sdpo"),),
    "traces of a debate beside cheaper ones": (("rsft", "rsft_vote"), ("rsft", "rsft_greedy")),
    "training on own outputs beside traces": (("opd", "rsft_greedy"), ("mad_opd", "rsft"), ("sdft", "rsft")),
    "the divergence from the teachers": (("mad_opd", "mad_opd_jsd"),),
    "twice the training tokens": (("rsft_long", "rsft"),),
    "gold answers": (("gold_rl", "consensus_rl"),),
    "a second stage": (("rsft_opd", "rsft"), ("rsft_mad_opd", "rsft"), ("rsft_dpo", "rsft"), ("rsft_consensus_rl", "rsft")),
}  # fmt: skip


def collected(
    folder: Path, setting: str, task: str, methods: Iterable[str]
) -> tuple[list[dict[str, Any]], dict[tuple[str, str], pd.DataFrame], pd.DataFrame]:
    """The rows of a setting, the predictions on `task` by (setting, method), and the seconds of a training.

    folder: of the setting, with what methods are given in `given` and a folder for each method that has run. A method's
    untrained student is the base, or the teacher where that is the student.
    """
    untried = frame(read_table(folder / "given/predictions.parquet", Prediction))
    of = {(name, student): part for (name, student), part in untried.groupby(["method", "student"], sort=False)}
    rows = [row(name, untrained(setting, name, student), part, task) for (name, student), part in of.items()]
    inside = {(setting, name): part[part["task"] == task] for (name, _), part in of.items()}
    seconds = []
    for name in methods:
        if not (folder / name / "facts.json").exists():
            continue
        part = frame(read_table(folder / name / "predictions.parquet", Prediction))
        facts = json.loads((folder / name / "facts.json").read_text())
        facts |= {"generations": generations(folder / "given", facts["source"])}
        spent = json.loads((folder / name / "seconds.json").read_text())
        seconds.append({"setting": setting, "method": name} | spent)
        base = untried[untried["method"] == ("base" if ("base", facts["student"]) in of else "greedy")]
        rows.append(row(name, facts, part, task, base))
        inside[setting, name] = part[part["task"] == task]
    return rows, inside, pd.DataFrame(seconds)


def row(
    name: str, about: Mapping[str, Any], predictions: pd.DataFrame, task: str, base: pd.DataFrame | None = None
) -> dict[str, Any]:
    """The row of one method: its facts, accuracy on `task` and on all other tasks (`other_`), tokens per answer.

    about: setting, family (class of methods), student, source, gold_used, and COSTS, each the mean over seeds. base: the
    untrained student's predictions, for the paired gain on other tasks (`other_gain`).
    """
    inside, outside = (predictions[(predictions["task"] == task) == here] for here in (True, False))
    found = {"method": name, **about} | estimated("", stats.mean(right(inside)))
    if len(outside):
        found |= estimated("other_", stats.mean(right(outside)))
        if base is not None:
            found |= estimated("other_gain_", stats.gain(right(outside), right(base[base["task"] != task])))
    return found | {"seeds": inside["seed"].nunique(), "tokens_per_question": float(inside["tokens"].mean())}


def right(predictions: pd.DataFrame) -> np.ndarray:
    """Which predictions are right, see `by_seed`."""
    return by_seed(predictions.astype({"correct": float}), "correct")


def estimated(prefix: str, estimate: stats.Estimate) -> dict[str, float]:
    """An estimate as columns."""
    return {prefix + key: getattr(estimate, key) for key in ESTIMATES}


def untrained(setting: str, method: str, student: str) -> dict[str, Any]:
    """The facts of a row without training: a use of the teachers, or a student's base."""
    return {
        "setting": setting, "family": "no training", "student": student, "source": "", "gold_used": False,
        "uses_debate": method == "debate", "generations": 0.0, **dict.fromkeys(COSTS, 0.0),
    }  # fmt: skip


def generations(given: Path, source: str) -> float:
    """Calls of the teachers per training question for a method's source of traces, from the folder of what methods are
    given. 0 without a source."""
    if not source:
        return 0.0
    name = "debate" if source == "other" else source
    asked = pd.read_parquet(given / f"traces-{name}.parquet", columns=["question_id"])["question_id"]
    return len(asked) / asked.nunique()


def ranked(rows: Sequence[Mapping[str, Any]], predictions: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """The leaderboard: rows with their gain over the best baseline that costs no more, best first in each setting.

    predictions: of the task in domain, by (setting, method). A row without such a baseline has an empty one.
    """
    table = pd.DataFrame(rows)
    table["cost"] = table[list(COSTS)].sum(axis=1)
    gains = []
    for one in table.itertuples():
        others = table[
            (table["setting"] == one.setting) & (table["method"] != one.method) & (table["cost"] <= one.cost)
            & (table["tokens_per_question"] <= MARGIN * one.tokens_per_question) & ~table["uses_debate"]
        ]  # fmt: skip
        if others.empty:
            gains.append({"baseline": ""} | estimated("gain_", stats.Estimate(np.nan, np.nan, np.nan, 0)))
            continue
        best = others.loc[others["value"].idxmax(), "method"]
        gain = stats.gain(*(right(predictions[one.setting, name]) for name in (one.method, best)))
        gains.append({"baseline": best} | estimated("gain_", gain))
    table = pd.concat([table, pd.DataFrame(gains)], axis=1)
    return table.sort_values(["setting", "value"], ascending=[True, False], kind="stable").reset_index(drop=True)


def check_fairness(table: pd.DataFrame) -> None:
    """Raise StudyError if a row's training tokens differ by more than FAIR from the median of its class in its setting."""
    trained = table[table["training_tokens"] > 0]
    middle = trained.groupby(["setting", "family"])["training_tokens"].transform("median")
    unequal = trained[(trained["training_tokens"] / middle - 1).abs() > FAIR]
    if len(unequal):
        first = unequal.iloc[0]
        raise StudyError(
            f"leaderboard: {first['method']} in {first['setting']} trained on {first['training_tokens']:,.0f} tokens, but "
            f"its class {first['family']!r} on {middle[unequal.index[0]]:,.0f}; set its training_tokens in params.yaml"
        )


def pairs(predictions: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """The paired gain of the first method of every pair over the second, in each setting that has both with the same
    student."""
    rows = []
    for setting in dict.fromkeys(setting for setting, _ in predictions):
        for question, compared in PAIRS.items():
            for first, second in compared:
                both = [predictions[setting, name] for name in (first, second) if (setting, name) in predictions]
                if len(both) == 2 and both[0]["student"].iloc[0] == both[1]["student"].iloc[0]:
                    gain = stats.gain(*map(right, both))
                    about = {"setting": setting, "question": question, "method": first, "baseline": second}
                    rows.append(about | estimated("", gain))
    return pd.DataFrame(rows, columns=["setting", "question", "method", "baseline", *ESTIMATES])

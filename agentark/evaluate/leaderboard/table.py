"""The leaderboard: one row per setting and method, from the predictions and the costs of every method.

Accuracy and gains have 95 % intervals over questions and seeds. A method's baseline is the best row that uses no
debate, has the same student or only teachers, and costs no more, both before its first answer and per answer. Cost is
the number of tokens before the student can answer: those that the teachers read and generate for its traces, those that
they read to score outputs, and those that the student trains on.
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
MARGIN = 1.1  # maximum ratio of a baseline's tokens per answer to a row's: equal forms differ by a few percent
FAIR = 0.05  # maximum relative difference of a row's training tokens from the median of its class


# Maximum number of tokens that a student trains on, by setting; double in the class TWICE. The step that reaches it is
# completed, so LAST_STEP is the relative tolerance: with real models a step of long outputs has 6,000 tokens.
LIMITS = {"homogeneous": 450_000, "specialists": 900_000, "small": 75_000}
LAST_STEP = 0.1
TWICE = "supervised, twice the tokens"

# Pairs of methods, by the question that each pair answers.
PAIRS = {
    "communication on vs. off": (("mad_opd", "mad_opd_off"), ("sdft", "sdft_off"), ("rsft", "rsft_off")),
    "the debate of this question vs. of another": (("mad_opd", "mad_opd_other"), ("sdft", "sdft_other")),
    "teachers that read the debate vs. the question alone": (("mad_opd", "mt_opd"), ("rsft_mad_opd", "rsft_opd")),
    "a debate vs. the student's own right solution": (("sdft", "sdpo_base"),),
    "a fixed teacher vs. one that follows the student": (("sdft", "sdft_ema"), ("sdpo_base", "sdpo")),
    "traces of a debate vs. cheaper traces": (("rsft", "rsft_vote"), ("rsft", "rsft_greedy")),
    "own outputs without gold vs. verified traces": (("opd", "rsft_greedy"), ("mad_opd", "rsft"), ("sdft", "rsft")),
    "KL vs. Jensen-Shannon divergence from the teachers": (("mad_opd", "mad_opd_jsd"),),
    "twice the training tokens": (("rsft_long", "rsft"),),
    "gold answers vs. the debate's majority as reward": (("gold_rl", "consensus_rl"),),
    "a second stage": (("rsft_opd", "rsft"), ("rsft_mad_opd", "rsft"), ("rsft_dpo", "rsft"), ("rsft_consensus_rl", "rsft")),
}  # fmt: skip
# Methods left out of PAIRS: their only teacher is the untrained student, which reads only the question, so there is
# nothing to learn. The students of the specialists start from the last teacher.
SELF_TAUGHT = {("specialists", "opd"), ("specialists", "rsft_opd")}


def collect(
    folder: Path, setting: str, task: str, methods: Iterable[str]
) -> tuple[list[dict[str, Any]], dict[tuple[str, str], pd.DataFrame], pd.DataFrame]:
    """The rows of a setting, the predictions by (setting, method), and the seconds of each method's training.

    folder: of the setting, with the methods' input in `given` and one folder per method that has run. The untrained
    student of a method is the base, or the teacher if the student is the teacher.
    """
    given = frame(read_table(folder / "given/predictions.parquet", Prediction))
    by_method = {(name, student): part for (name, student), part in given.groupby(["method", "student"], sort=False)}
    rows = [row(name, untrained(setting, name, student), part, task) for (name, student), part in by_method.items()]
    predictions = {(setting, name): part for (name, _), part in by_method.items()}
    seconds = []
    for name in methods:
        if not (folder / name / "facts.json").exists():
            continue
        part = frame(read_table(folder / name / "predictions.parquet", Prediction))
        facts = json.loads((folder / name / "facts.json").read_text())
        facts |= {"generations": generations(folder / "given", facts["source"])}
        times = json.loads((folder / name / "seconds.json").read_text())
        seconds.append({"setting": setting, "method": name} | times)
        base = given[given["method"] == ("base" if ("base", facts["student"]) in by_method else "greedy")]
        rows.append(row(name, facts, part, task, base))
        predictions[setting, name] = part
    return rows, predictions, pd.DataFrame(seconds)


def row(
    name: str, about: Mapping[str, Any], predictions: pd.DataFrame, task: str, base: pd.DataFrame | None = None
) -> dict[str, Any]:
    """The row of one method: its facts, accuracy on `task` and on all other tasks (`other_`), tokens per answer.

    about: setting, family (class of methods), student, source, gold_used, and COSTS (means over seeds). base: the
    untrained student's predictions, for the paired gain on other tasks (`other_gain`).
    """
    inside, outside = (predictions[(predictions["task"] == task) == here] for here in (True, False))
    found = {"method": name, **about} | share("", right(inside))
    seeds = inside.groupby("seed")["correct"].mean()
    found |= {"seed_least": float(seeds.min()), "seed_most": float(seeds.max())}
    if len(outside):
        found |= share("other_", right(outside))
        if base is not None:
            found |= estimate_columns("other_gain_", stats.gain(right(outside), right(base[base["task"] != task])))
    return found | {"seeds": inside["seed"].nunique(), "tokens_per_question": float(inside["tokens"].mean())}


def right(predictions: pd.DataFrame) -> np.ndarray:
    """Whether each prediction is right, in the form of `by_seed`."""
    return by_seed(predictions.astype({"correct": float}), "correct")


def estimate_columns(prefix: str, estimate: stats.Estimate) -> dict[str, float]:
    """An estimate as columns."""
    return {prefix + key: getattr(estimate, key) for key in ESTIMATES}


def share(prefix: str, correct: np.ndarray) -> dict[str, float]:
    """The share of right answers as columns. The interval is clipped to [0, 1], which it can exceed with few seeds."""
    found = estimate_columns(prefix, stats.mean(correct))
    return found | {prefix + end: float(np.clip(found[prefix + end], 0, 1)) for end in ("lo", "hi")}


def untrained(setting: str, method: str, student: str) -> dict[str, Any]:
    """The facts of a row without training: a method that uses only the teachers, or a student's base."""
    return {
        "setting": setting, "family": "no training", "student": student, "source": "", "gold_used": False,
        "uses_debate": method == "debate", "generations": 0.0, **dict.fromkeys(COSTS, 0.0),
    }  # fmt: skip


def generations(given: Path, source: str) -> float:
    """Teacher calls per training question for a method's source of traces, 0 without a source. given: the folder with
    the methods' input."""
    if not source:
        return 0.0
    name = "debate" if source == "other" else source
    ids = pd.read_parquet(given / f"traces-{name}.parquet", columns=["question_id"])["question_id"]
    return len(ids) / ids.nunique()


def ranked(rows: Sequence[Mapping[str, Any]], predictions: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """The leaderboard: rows with their gain over the best baseline that costs no more (`gain_`) and over the debate
    (`over_debate_`), best first in each setting.

    predictions: of the task in domain, by (setting, method). A row without such a baseline has `baseline` "".
    """
    table = pd.DataFrame(rows)
    table["cost"] = table[list(COSTS)].sum(axis=1)
    gains: list[dict[str, Any]] = []
    for one in table.itertuples():
        others = table[
            (table["setting"] == one.setting) & (table["method"] != one.method) & (table["cost"] <= one.cost)
            & (table["tokens_per_question"] <= MARGIN * one.tokens_per_question) & ~table["uses_debate"]
            & table["student"].isin(["", one.student])
        ]  # fmt: skip
        own = right(predictions[one.setting, one.method])
        debate = stats.gain(own, right(predictions[one.setting, "debate"]))
        if others.empty:
            best, gain = "", stats.Estimate(np.nan, np.nan, np.nan, 0)
        else:
            best = others.loc[others["value"].idxmax(), "method"]
            gain = stats.gain(own, right(predictions[one.setting, best]))
        gains.append({"baseline": best} | estimate_columns("gain_", gain) | estimate_columns("over_debate_", debate))
    table = pd.concat([table, pd.DataFrame(gains)], axis=1)
    return table.sort_values(["setting", "value"], ascending=[True, False], kind="stable").reset_index(drop=True)


def check_fairness(table: pd.DataFrame) -> None:
    """Raise StudyError if a row trained on more tokens than LIMITS, or if its training tokens differ by more than FAIR
    from the median of its class in its setting."""
    trained = table[table["training_tokens"] > 0]
    limit = trained["setting"].map(LIMITS) * trained["family"].eq(TWICE).map({True: 2, False: 1})
    middle = trained.groupby(["setting", "family"])["training_tokens"].transform("median")
    for bound, excess, words in (
        (limit, trained["training_tokens"] / limit - 1 - LAST_STEP, "the limit is"),
        (middle, (trained["training_tokens"] / middle - 1).abs() - FAIR, "the median of its class is"),
    ):
        unequal = trained[excess > 0]
        if len(unequal):
            first = unequal.iloc[0]
            raise StudyError(
                f"leaderboard: {first['method']} in {first['setting']} trained on {first['training_tokens']:,.0f} tokens, but "
                f"{words} {bound[unequal.index[0]]:,.0f}; set its training_tokens in params.yaml"
            )


def pairs(predictions: Mapping[tuple[str, str], pd.DataFrame], tasks: Mapping[str, str]) -> pd.DataFrame:
    """The paired gain of the first method of each pair over the second, on the task in domain (`tasks`, by setting) and
    on all others, for each setting that has both methods with the same student."""
    rows = []
    for setting, task in tasks.items():
        for question, compared in PAIRS.items():
            for names in compared:
                both = [predictions[setting, name] for name in names if (setting, name) in predictions]
                if len(both) < 2 or both[0]["student"].iloc[0] != both[1]["student"].iloc[0]:
                    continue
                if any((setting, name) in SELF_TAUGHT for name in names):
                    continue
                about = {"setting": setting, "question": question, "method": names[0], "baseline": names[1]}
                for inside in (True, False):
                    parts = [part[(part["task"] == task) == inside] for part in both]
                    if len(parts[0]):
                        gain = stats.gain(*map(right, parts))
                        rows.append(about | {"tasks": "in domain" if inside else "others"} | estimate_columns("", gain))
    return pd.DataFrame(rows, columns=["setting", "question", "method", "baseline", "tasks", *ESTIMATES])

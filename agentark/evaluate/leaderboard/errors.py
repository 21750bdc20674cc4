"""Kinds of error, by the exact steps of an answer. Each wrong answer has one kind, so shares and accuracy sum to 1."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from agentark.evaluate import stats
from agentark.evaluate.leaderboard.table import estimate_columns
from agentark.evaluate.scores import by_seed

# A wrong answer has the first kind that applies.
KINDS = {
    "no answer": "the output states no answer",
    "wrong step": "a step is wrong and no later line corrects it",
    "missing step": "every step is right, but one that is needed is missing",
    "wrong conclusion": "all needed steps are there and right, but the answer is not",
}


def kinds(predictions: pd.DataFrame) -> pd.Series:
    """The kind of error of each prediction (columns of `Prediction`); "" for a right answer."""
    conditions = [
        predictions["correct"].astype(bool),
        predictions["answer"].isna(),
        predictions["errors"] > predictions["errors_mended"],
        predictions["steps_present"] < predictions["steps_needed"],
    ]
    return pd.Series(np.select(conditions, ["", *list(KINDS)[:3]], list(KINDS)[3]), index=predictions.index)


def shares(predictions: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """Share of questions with each kind of error, by setting and method, with intervals over questions and seeds."""
    rows = []
    for (setting, method), part in predictions.items():
        found = kinds(part)
        for kind in KINDS:
            estimate = stats.mean(by_seed(part.assign(error=(found == kind).astype(float)), "error"))
            about = {"setting": setting, "method": method, "error": kind}
            rows.append(about | estimate_columns("", estimate))
    return pd.DataFrame(rows)

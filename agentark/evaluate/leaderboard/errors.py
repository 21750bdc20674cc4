"""What goes wrong in an answer, by its exact steps. Each wrong answer has one kind of error, so shares and accuracy sum to 1."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from agentark.evaluate import stats
from agentark.evaluate.leaderboard.table import estimated
from agentark.evaluate.scores import by_seed

# The kinds, each for answers that have none of those before it.
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
    """The share of questions with each kind of error, with its interval over questions and seeds, by setting and method."""
    rows = []
    for (setting, method), part in predictions.items():
        found = kinds(part)
        for kind in KINDS:
            estimate = stats.mean(by_seed(part.assign(error=(found == kind).astype(float)), "error"))
            about = {"setting": setting, "method": method, "error": kind}
            rows.append(about | estimated("", estimate))
    return pd.DataFrame(rows)

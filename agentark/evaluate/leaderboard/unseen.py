"""Test questions with a fact that no training question contains, which no method can learn.

A fact is a quantity that is looked up rather than computed (`Quantity.ways`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from agentark.evaluate import stats
from agentark.evaluate.leaderboard.table import ESTIMATES, estimate_columns, right
from agentark.schemas import Question

COLUMNS = ["setting", "facts", "method", *ESTIMATES, *(f"gain_{name}" for name in ESTIMATES)]
SEEN = {True: "all facts in training questions", False: "a fact in no training question"}


def with_all_facts(test: Sequence[Question], train: Sequence[Question]) -> set[str]:
    """The ids of the test questions whose needed facts are all needed by training questions too."""
    known = {fact for question in train for fact in facts(question)}
    return {question.question_id for question in test if facts(question) <= known}


def facts(question: Question) -> set[str]:
    """The names of the facts that a question needs."""
    return {one.name for one in question.quantities if one.needed and one.ways == [""]}


def split(setting: str, predictions: Mapping[str, pd.DataFrame], seen: set[str]) -> pd.DataFrame:
    """Accuracy of every method on each part of the test questions, and the paired gain over the debate (`gain_`). No
    rows if one part is empty.

    predictions: of the task in domain, by method, including the debate. seen: ids of the questions with all facts.
    """
    rows: list[dict[str, Any]] = []
    if predictions["debate"]["question_id"].isin(seen).nunique() < 2:
        return pd.DataFrame(columns=COLUMNS)
    for here, label in SEEN.items():
        parts = {name: one[one["question_id"].isin(seen) == here] for name, one in predictions.items()}
        debate = right(parts["debate"])
        for name, part in parts.items():
            own = right(part)
            about = {"setting": setting, "facts": label, "method": name}
            rows.append(
                about | estimate_columns("", stats.mean(own)) | estimate_columns("gain_", stats.gain(own, debate))
            )
    return pd.DataFrame(rows, columns=COLUMNS)

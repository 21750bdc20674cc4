"""Diversity of a debate's first answers: the most that one agent can learn from the others."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from agentark.answers import is_right
from agentark.evaluate import stats
from agentark.evaluate.scores import System, score
from agentark.schemas import Question, Score, Trace


def any_and_mean_right(first: Iterable[Trace], questions: Sequence[Question]) -> tuple[np.ndarray, np.ndarray]:
    """Return, per question, whether any of the agents' first answers is right (0 or 1), and the share that is right."""
    right: dict[str, list[bool]] = {q.question_id: [] for q in questions}
    by_id = {q.question_id: q for q in questions}
    for trace in first:
        if trace.question_id in right:
            right[trace.question_id].append(is_right(trace.answer, by_id[trace.question_id]))
    found = [right[q.question_id] for q in questions]
    return np.array([float(any(r)) for r in found]), np.array([float(np.mean(r)) for r in found])


def rows(
    first: Mapping[tuple[str, str], Sequence[Trace]],
    questions: Mapping[str, Sequence[Question]],
    conditions: Mapping[str, System],
    by_level: Sequence[str] = (),
) -> list[Score]:
    """Return a row `diversity` per (label, family) of `first`, the agents' first traces: share of questions with a
    right answer minus the mean accuracy of one agent, paired by question; also one per level for labels in `by_level`.

    questions: by family; only those with traces count. conditions: the facts of each label (scores.FACTS).
    """
    found = []
    for (label, family), traces in first.items():
        known = {t.question_id for t in traces}
        debated = [q for q in questions[family] if q.question_id in known]
        levels = sorted({q.level for q in debated}) if label in by_level else []
        for level in (None, *levels):
            some = [q for q in debated if level is None or q.level == level]
            estimate = stats.gain(*any_and_mean_right(traces, some))
            fixed = dict(study="controls", setting="test", teacher="", student="", method="debate", train_task="",
                         test_task=family, level=level, tokens_per_question=0.0, **conditions[label])  # fmt: skip
            found.append(score(fixed, "diversity", estimate))
    return found

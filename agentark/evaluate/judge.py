"""A model as judge of reasoning, for questions whose steps have no known truth (the paper's Table 1).

The judge reads a question with two systems' answers in one prompt and marks each from 1 to 5 in the paper's four respects.
It reads every pair twice, the second time in the other order: what it gives to the answer that stands first is thereby
measured (position bias) and cancels out of the marks. The rubric's words are ours.

Only a reply in the form asked for is a judgement. Any other is counted under the name of its fault.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from agentark import StudyError
from agentark.engines import Reply, Request, Store, engine
from agentark.evaluate import stats
from agentark.evaluate.scores import STEP_METRICS, score
from agentark.models.chat import Messages, solve_prompt, without_thinking
from agentark.schemas import Prediction, Question, Row, Score

ASPECTS = {
    "step decomposition": "the problem is taken apart into the steps that it needs, each of them small enough to check",
    "intermediate verification": "results on the way are checked before they are built upon",
    "error localisation": "a slip is traced to the very step in which it was made, and mended there; of an answer "
    "without slips, that each step shows enough for one to be traced",
    "overall coherence": "each step follows from the question and the steps before it, and the answer from them all",
}
# What the generated world measures exactly of the same four: the judge itself can be judged there.
TRUTH = dict(zip(ASPECTS, ("step_presence", "error_notice", "error_repair", "coherence"), strict=True))
LINE = "{aspect}: A {a}, B {b}"
RUBRIC = (
    "Two answers to the same question are to be judged by their reasoning. Whether the final answer is right, how long "
    "an answer is and which one stands first shall not count.\n\n### Question\n\n{question}\n\n### Answer A\n\n{a}\n\n"
    "### Answer B\n\n{b}\n\n### Your task\n\nMark each answer in four respects:\n\n"
    + "".join(f"- {aspect}: {meant}.\n" for aspect, meant in ASPECTS.items())
    + "\nMarks: 1 not at all, 2 in small part, 3 in half, 4 for the most part, 5 throughout.\n\nGive your reasons in a few "
    "sentences. Then end with these four lines and nothing after them, each X a whole number from 1 to 5:\n\n"
    + "\n".join(LINE.format(aspect=aspect, a="X", b="X") for aspect in ASPECTS)
)
FORM = [re.compile(LINE.format(aspect=aspect, a="([1-5])", b="([1-5])")) for aspect in ASPECTS]
DRAWS = 400  # of a bootstrap of kappa or rho: they fix the interval's ends to about 0.01 at n = 100


class Verdict(Row):
    """One reading of a pair: the marks of a system's answer and of its rival's, in the order of ASPECTS; empty where the
    reply has a `fault`. `tokens`: read and written by the judge."""

    question_id: str
    rival_first: bool
    own: list[int]
    rival: list[int]
    fault: str
    tokens: int


def answers(
    predictions: Iterable[Prediction], task: str, systems: Sequence[tuple[str, str]], seed: int
) -> dict[tuple[str, str], dict[str, Prediction]]:
    """(student, method) -> question_id -> the answer to a test question of `task`; of trained students those of one
    training seed. Raises StudyError for a system that has none."""
    found: dict[tuple[str, str], dict[str, Prediction]] = {system: {} for system in systems}
    for p in predictions:
        if (p.setting, p.task) == ("test", task) and (p.seed == seed or p.method == "base"):
            found.get((p.student, p.method), {})[p.question_id] = p
    for (student, method), given in found.items():
        if not given:
            raise StudyError(
                f"{student}, {method}, seed {seed}: no predictions for {task}; judge others, or evaluate it"
            )
    return found


def prompt(question: str, a: str, b: str) -> Messages:
    """What the judge is told: a question and two answers to it."""
    return solve_prompt(RUBRIC.format(question=question, a=a, b=b))


def read(reply: Reply) -> tuple[list[int], list[int], str]:
    """Marks of answers A and B in the order of ASPECTS, and the fault of a reply that is not in form ("" if it is): with
    a fault there are no marks.

    In form is a finished reply whose last four lines are those asked for, to the letter and in their order, with no
    other line of the kind before them (what a model thought before it spoke does not count).
    """
    if reply.finish_reason != "stop":
        return [], [], {"length": "cut short", "refused": "refused"}[reply.finish_reason]
    lines = [line.strip() for line in without_thinking(reply.text).strip().split("\n")]
    marked = [i for i, line in enumerate(lines) if any(form.fullmatch(line) for form in FORM)]
    if not marked:
        return [], [], "no marks"
    found = [form.fullmatch(line) for form, line in zip(FORM, lines[-len(FORM) :], strict=False)]
    matches = [match for match in found if match]
    if marked != list(range(len(lines) - len(FORM), len(lines))) or len(matches) < len(found):
        return [], [], "marks out of form"
    return [int(match[1]) for match in matches], [int(match[2]) for match in matches], ""


def judge(
    pairs: Iterable[tuple[Question, str, str]], name: str, store: Path, seed: int, max_tokens: int
) -> list[Verdict]:
    """Two verdicts a pair (a question, a system's answer, its rival's), one in each order, by the engine of that name.

    Greedy, in replies of at most `max_tokens`; finished ones are kept in `store`. Raises StudyError where the engine does.
    """
    readings = [(q, own, rival, rival_first) for q, own, rival in pairs for rival_first in (False, True)]
    prompts = [prompt(q.text, *((rival, own) if last else (own, rival))) for q, own, rival, last in readings]
    replies = Store(store).generate(engine(name), [Request(messages, 0.0, max_tokens, seed) for messages in prompts])
    verdicts = []
    for (question, _, _, rival_first), reply in zip(readings, replies, strict=True):
        first, second, fault = read(reply)
        own, rival = (second, first) if rival_first else (first, second)
        verdicts.append(
            Verdict(
                question_id=question.question_id,
                rival_first=rival_first,
                own=own,
                rival=rival,
                fault=fault,
                tokens=reply.prompt_tokens + reply.completion_tokens,
            )
        )
    return verdicts


def scores(verdicts: Sequence[Verdict], fixed: dict, rival: str, seed: str) -> list[Score]:
    """Rows of `reports/judge.csv` for one pair of systems: those of `fixed` (see evaluate.score) and its rival, whose
    name stands as `baseline`. With 95 % intervals over questions:

    in_form                   share of replies that are
    <aspect>                  mean mark, 1 to 5; of the rival too, whose `baseline` is the system it was read beside
    <aspect>_gain             the system's mark less the rival's, paired by question
    <aspect>_position_bias    the mark of what stands first less that of what stands second
    <aspect>_kappa            agreement of the two readings, Cohen's kappa with quadratic weights (marks are ordered);
                              left out where all marks are the same

    Marks are means over both readings, of the questions of which both are in form: only so the bias cancels out.
    """
    table = pd.DataFrame([v.model_dump() for v in verdicts]).sort_values(["question_id", "rival_first"])
    fixed = {**fixed, "tokens_per_question": float(2 * table["tokens"].mean())}
    other = {**fixed, "method": rival, "train_task": "" if rival == "base" else fixed["train_task"]}
    in_form = (table["fault"] == "").groupby(table["question_id"]).mean()
    rows = [score(fixed, "in_form", stats.mean(in_form), seed, rival)]
    whole = table[table["question_id"].isin(in_form.index[in_form == 1])]
    if whole.empty:
        return rows
    own, its = (np.array(whole[name].tolist()).reshape(-1, 2, len(ASPECTS)) for name in ("own", "rival"))
    for i, aspect in enumerate(ASPECTS):
        metric, mark, beside = aspect.replace(" ", "_"), own[:, :, i], its[:, :, i]  # shape (questions, readings)
        gap = mark - beside
        bias = (gap[:, 0] - gap[:, 1]) / 2
        rows.append(score(fixed, metric, stats.mean(mark.mean(1)), seed, rival))
        rows.append(score(other, metric, stats.mean(beside.mean(1)), seed, fixed["method"]))
        rows.append(score(fixed, f"{metric}_gain", stats.mean(gap.mean(1)), seed, rival))
        rows.append(score(fixed, f"{metric}_position_bias", stats.mean(bias), seed, rival))
        if kappa := resampled(agreement, np.stack([mark, beside], axis=1)):
            rows.append(score(fixed, f"{metric}_kappa", kappa, seed, rival))
    return rows


def agreement(marks: np.ndarray) -> float:
    """Cohen's kappa of two readings; `marks` has shape (questions, answers, readings). NaN if all marks are one."""
    one, two = marks.reshape(-1, 2).T
    return (
        float(cohen_kappa_score(one, two, labels=[1, 2, 3, 4, 5], weights="quadratic"))
        if np.ptp(marks)
        else float("nan")
    )


def against_truth(verdicts: Sequence[Verdict], own: Sequence[Prediction], rival: Sequence[Prediction]) -> pd.DataFrame:
    """How far a judge's marks follow what is measured exactly (TRUTH), in the generated world: Spearman's rho over
    answers, both systems' together, with a 95 % interval over the n questions. One row an aspect; none where nothing was
    to be measured (an answer without errors has none to notice), where it never differs, or for published questions.
    """
    marks = pd.DataFrame([v.model_dump() for v in verdicts if not v.fault])
    rows = []
    for i, (aspect, measure) in enumerate(TRUTH.items() if len(marks) else ()):
        part, whole = STEP_METRICS[measure]
        columns = {}
        for name, answers in (("own", own), ("rival", rival)):
            columns[name, "mark"] = marks[name].str[i].groupby(marks["question_id"]).mean()
            ratios = {p.question_id: getattr(p, part) / getattr(p, whole) for p in answers if getattr(p, whole)}
            columns[name, "truth"] = pd.Series(ratios, dtype=float)
        pairs = pd.DataFrame(columns).to_numpy(float).reshape(-1, 2, 2)  # question; system; mark, truth
        rho = resampled(correlation, pairs[~np.isnan(pairs).any(axis=2).all(axis=1)])
        rows += [{"aspect": aspect, "measure": measure, **asdict(rho)}] if rho else []
    return pd.DataFrame(rows)


def correlation(pairs: np.ndarray) -> float:
    """Spearman's rho of mark and truth over answers that have both; shape (questions, answers, 2). NaN if either is one."""
    answers = pairs.reshape(-1, 2)
    answers = answers[~np.isnan(answers).any(axis=1)]
    return float(spearmanr(*answers.T).statistic) if len(answers) and np.ptp(answers, axis=0).all() else float("nan")


def resampled(statistic: Callable[[np.ndarray], float], values: np.ndarray) -> stats.Estimate | None:
    """`statistic` of `values`, whose first axis is questions, with its bootstrap interval; None where it has no value."""
    value, rng = statistic(values), np.random.default_rng(stats.SEED)
    if np.isnan(value):
        return None
    draws = [statistic(values[rng.integers(0, len(values), len(values))]) for _ in range(DRAWS)]
    lo, hi = np.nanquantile(draws, (0.025, 0.975))
    return stats.Estimate(value, float(lo), float(hi), len(values))

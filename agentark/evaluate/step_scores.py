"""Quality of a reward model: AUROC of step scores, and location of the first error."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from agentark import StudyError, deadline, parallel
from agentark.distill.scorer import StepScorer, aggregate
from agentark.evaluate import stats
from agentark.schemas import CheckedTrace, Score

UNTRAINED = {"fresh head": "head", "likelihood": "likelihood"}  # baselines: the student's untrained base


def step_auroc(scores: Sequence[Sequence[float]], right: Sequence[Sequence[bool]]) -> float:
    """Probability that a right step scores above a wrong one, over all steps of all traces: the Mann-Whitney U divided
    by the number of pairs of a right and a wrong step."""
    s = np.concatenate([np.asarray(row, float) for row in scores])
    r = np.concatenate([np.asarray(row, bool) for row in right])
    n = r.sum()
    return float((rankdata(s)[r].sum() - n * (n + 1) / 2) / (n * (len(r) - n)))


def first_error_located(
    scores: Sequence[Sequence[float]], right: Sequence[Sequence[bool]], threshold: float
) -> list[bool]:
    """For each trace with an error: whether the first step that scores below `threshold` is the first wrong one."""
    hits = []
    for s, r in zip(scores, right, strict=True):
        if not all(r):
            low = np.flatnonzero(np.asarray(s) < threshold)
            hits.append(bool(len(low)) and int(low[0]) == r.index(False))
    return hits


def best_threshold(scores: Sequence[Sequence[float]], agrees: Sequence[Sequence[bool]]) -> float:
    """The threshold that best locates the first disagreement on the training debates (no truth needed)."""
    grid = np.quantile(np.concatenate([*map(np.asarray, scores)]), np.linspace(0.02, 0.6, 30))
    return float(max(grid, key=lambda t: np.mean(first_error_located(scores, agrees, t) or [False])))


def scorer_measures(
    method: str,
    folder: Path,
    train: Sequence[CheckedTrace],
    test: Sequence[CheckedTrace],
    questions: dict[str, str],
) -> dict[str, stats.Estimate]:
    """The measures of one scorer (see `quality`). Those whose truth (of steps or of traces) is unknown are left out."""
    scored = StepScorer(folder, UNTRAINED.get(method))

    def scores_of(traces: Sequence[CheckedTrace]) -> list[list[float]]:
        deadline.check()
        found = scored([questions[t.question_id] for t in traces], [t.text for t in traces])
        parallel.tick(len(traces))
        return found

    scores = scores_of(test)
    found = {}
    if len({t.correct for t in test}) == 2:
        of_traces = [[aggregate(s, "mean")] for s in scores]
        found["prm_trace_auroc"] = auroc_by_debate(of_traces, test, [[t.correct] for t in test])
    if all(t.step_right for t in test):
        truth = [t.step_right for t in test]
        threshold = best_threshold(scores_of(train), [t.step_agrees for t in train])
        found["prm_step_auroc"] = auroc_by_debate(scores, test, truth)
        found["prm_step_auroc_within"] = auroc_within_debates(scores, test, truth)
        found["first_error_located"] = stats.mean(first_error_located(scores, truth, threshold))
    return found


def quality(
    base: Path,
    trained: Path,
    seeds: Sequence[int],
    train: Sequence[CheckedTrace],
    test: Sequence[CheckedTrace],
    questions: dict[str, str],
    student: str,
    task: str,
) -> list[Score]:
    """AUROC of traces and of steps, pooled and within debates, and the share of first errors located, on `test` traces,
    for two baselines and both stages.

    A trace's score is the mean over its steps, and its truth is whether its answer is right. The other measures
    need the truth of steps and are left out for published questions, which have none. Intervals are over debates: the
    traces of a debate share a question, so they are resampled together. With several seeds, a trained scorer has one
    row per seed and one for the mean over seeds ("all"). Raises StudyError if no measure is defined because all traces
    are right or all are wrong.
    """
    distinct = list({(t.question_id, t.text): t for t in test if t.steps}.values())
    tuned = list({(t.question_id, t.text): t for t in train if t.steps}.values())[:2000]
    folders = {("fresh head", 0): base, ("likelihood", 0): base}
    folders |= {("stage I", s): trained / f"seed-{s}" / "stage-1" for s in seeds}
    folders |= {("stage II", s): trained / f"seed-{s}" for s in seeds}
    shared = dict(train=tuned, test=distinct, questions=questions)
    calls = [dict(method=method, folder=folder, **shared) for (method, _), folder in folders.items()]
    measured: dict[str, dict[int, dict[str, stats.Estimate]]] = {}
    traces = len(distinct) + (len(tuned) if all(t.step_right for t in distinct) else 0)
    with parallel.progress(len(calls) * traces, f"step scores of {len(calls)} models", "trace"):
        all_found = parallel.run_all(scorer_measures, calls)
    for (method, seed), found in zip(folders, all_found, strict=True):
        if not found:
            raise StudyError(
                f"{trained.name}: the test traces are all {'right' if distinct[0].correct else 'wrong'}; use more"
            )
        measured.setdefault(method, {})[seed] = found
    rows = []
    for method, by_seed in measured.items():
        for metric in next(iter(by_seed.values())):
            each = {str(seed): estimates[metric] for seed, estimates in by_seed.items()}
            entries = {"all": stats.over_seeds(list(each.values()))} | (each if len(each) > 1 else {})
            rows += [
                Score(
                    study="reward_model", setting="test", teacher="", student=student, method=method, baseline="",
                    train_task=task, test_task=task, seed=seed, metric=metric, tokens_per_question=0.0, **asdict(e),
                )
                for seed, e in entries.items()
            ]  # fmt: skip
    return rows


def by_debates(
    scores: Sequence[Sequence[float]], traces: Sequence[CheckedTrace], truth: Sequence[Sequence[bool]]
) -> list[tuple[list[float], list[bool]]]:
    """For each debate: the scores of all its traces, concatenated, and their truth."""
    found: dict[str, tuple[list[float], list[bool]]] = {}
    for s, t, r in zip(scores, traces, truth, strict=True):
        values, right = found.setdefault(t.question_id, ([], []))
        values += s
        right += r
    return list(found.values())


def auroc_within_debates(
    scores: Sequence[Sequence[float]], traces: Sequence[CheckedTrace], truth: Sequence[Sequence[bool]]
) -> stats.Estimate:
    """Mean over debates of the AUROC within one debate; n counts the debates with both right and wrong scores.

    A policy is rewarded for differences between outputs to the same question. The pooled AUROC also counts differences
    between questions, which a score of the questions' difficulty can explain.
    """
    debates = by_debates(scores, traces, truth)
    return stats.mean([step_auroc([values], [right]) for values, right in debates if len(set(right)) == 2])


def auroc_by_debate(
    scores: Sequence[Sequence[float]], traces: Sequence[CheckedTrace], truth: Sequence[Sequence[bool]]
) -> stats.Estimate:
    """AUROC over all scores of all traces, with a bootstrap interval over debates; n counts debates."""
    debates = by_debates(scores, traces, truth)
    pooled = step_auroc([v for v, _ in debates], [r for _, r in debates])
    pairs = [(np.asarray(v), np.asarray(r)) for v, r in debates]
    rng = np.random.default_rng(stats.SEED)
    draws = []
    for _ in range(200):  # each draw sorts all steps; with 200 the interval's ends are accurate to about 0.003
        drawn = [pairs[i] for i in rng.integers(0, len(pairs), len(pairs))]
        kinds = np.unique(np.concatenate([r for _, r in drawn]))
        if len(kinds) == 2:  # AUROC needs both right and wrong steps
            draws.append(step_auroc([v for v, _ in drawn], [r for _, r in drawn]))
    lo, hi = np.quantile(draws, (0.025, 0.975))
    return stats.Estimate(pooled, float(lo), float(hi), len(pairs))

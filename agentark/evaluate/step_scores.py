"""Quality of a reward model: AUROC of step scores, and location of the first error."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from agentark import StudyError, parallel
from agentark.distill.scorer import StepScorer, aggregate, likelihood_scores
from agentark.evaluate import stats
from agentark.schemas import CheckedTrace, Score


def step_auroc(scores: Sequence[Sequence[float]], right: Sequence[Sequence[bool]]) -> float:
    """The chance that a right step outscores a wrong one, over all steps of all traces: of all pairs of such, the share
    that Mann and Whitney's U counts."""
    s = np.concatenate([np.asarray(row, float) for row in scores])
    r = np.concatenate([np.asarray(row, bool) for row in right])
    n = r.sum()
    return float((rankdata(s)[r].sum() - n * (n + 1) / 2) / (n * (len(r) - n)))


def first_error_located(
    scores: Sequence[Sequence[float]], right: Sequence[Sequence[bool]], threshold: float
) -> list[bool]:
    """For each trace that has an error: whether the first step scored below `threshold` is the first wrong one."""
    hits = []
    for s, r in zip(scores, right, strict=True):
        if not all(r):
            low = np.flatnonzero(np.asarray(s) < threshold)
            hits.append(bool(len(low)) and int(low[0]) == r.index(False))
    return hits


def best_threshold(scores: Sequence[Sequence[float]], agrees: Sequence[Sequence[bool]]) -> float:
    """The threshold that locates the first disagreement best on the debates it was trained on (no truth needed)."""
    grid = np.quantile(np.concatenate([*map(np.asarray, scores)]), np.linspace(0.02, 0.6, 30))
    return float(max(grid, key=lambda t: np.mean(first_error_located(scores, agrees, t) or [False])))


def examined(
    method: str,
    folder: Path,
    train: Sequence[CheckedTrace],
    test: Sequence[CheckedTrace],
    questions: dict[str, str],
) -> dict[str, stats.Estimate]:
    """One scorer by its measures (see quality); without the truth of steps, or of traces, those that need it are missing."""
    scored = partial(likelihood_scores, folder) if method == "likelihood" else StepScorer(folder)
    scores = scored([questions[t.question_id] for t in test], [t.text for t in test])
    found = {}
    if len({t.correct for t in test}) == 2:
        whole = [[aggregate(s, "mean")] for s in scores]
        found["prm_trace_auroc"] = auroc_by_debate(whole, test, [[t.correct] for t in test])
    if all(t.step_right for t in test):
        truth = [t.step_right for t in test]
        own = scored([questions[t.question_id] for t in train], [t.text for t in train])
        threshold = best_threshold(own, [t.step_agrees for t in train])
        found["prm_step_auroc"] = auroc_by_debate(scores, test, truth)
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
    """AUROC of traces, of steps, and first errors located on `test` traces, for two baselines and both stages.

    A trace's score is the mean of its steps', its truth whether it ends right. The other two need the truth of steps,
    which published questions do not have: without it they are left out. Intervals are over debates: a debate's traces are
    resampled together, since they share a question. Trained scorers have a row a seed and one of the mean of their
    measures over seeds ("all").
    """
    distinct = list({(t.question_id, t.text): t for t in test if t.steps}.values())
    tuned = list({(t.question_id, t.text): t for t in train if t.steps}.values())[:2000]
    folders = {("fresh head", 0): base, ("likelihood", 0): base}
    folders |= {("stage I", s): trained / f"seed-{s}" / "stage-1" for s in seeds}
    folders |= {("stage II", s): trained / f"seed-{s}" for s in seeds}
    shared = dict(train=tuned, test=distinct, questions=questions)
    calls = [dict(method=method, folder=folder, **shared) for (method, _), folder in folders.items()]
    measured: dict[str, dict[int, dict[str, stats.Estimate]]] = {}
    for (method, seed), found in zip(folders, parallel.run_all(examined, calls), strict=True):
        if not found:
            raise StudyError(
                f"{trained.name}: the traces to judge by are {'all' if distinct[0].correct else 'never'} right; use more"
            )
        measured.setdefault(method, {})[seed] = found
    rows = []
    for method, by_seed in measured.items():
        for metric in next(iter(by_seed.values())):
            each = {str(seed): estimates[metric] for seed, estimates in by_seed.items()}
            value, lo, hi = (float(np.mean([getattr(e, f) for e in each.values()])) for f in ("value", "lo", "hi"))
            whole = stats.Estimate(value, lo, hi, next(iter(each.values())).n)
            entries = {"all": whole} | (each if len(each) > 1 else {})
            rows += [
                Score(
                    study="reward_model", setting="test", teacher="", student=student, method=method, baseline="",
                    train_task=task, test_task=task, seed=seed, metric=metric, tokens_per_question=0.0, **asdict(e),
                )
                for seed, e in entries.items()
            ]  # fmt: skip
    return rows


def auroc_by_debate(
    scores: Sequence[Sequence[float]], traces: Sequence[CheckedTrace], truth: Sequence[Sequence[bool]]
) -> stats.Estimate:
    """AUROC of all scores of all traces with a bootstrap interval over debates; n counts debates."""
    by_debate: dict[str, tuple[list[float], list[bool]]] = {}
    for s, t, r in zip(scores, traces, truth, strict=True):
        values, right = by_debate.setdefault(t.question_id, ([], []))
        values += s
        right += r
    pairs = [(np.asarray(v), np.asarray(r)) for v, r in by_debate.values()]
    whole = step_auroc([v for v, _ in by_debate.values()], [r for _, r in by_debate.values()])
    rng = np.random.default_rng(stats.SEED)
    draws = []
    for _ in range(200):  # each draw sorts all steps; 200 fix the interval's ends to about 0.003
        drawn = [pairs[i] for i in rng.integers(0, len(pairs), len(pairs))]
        kinds = np.unique(np.concatenate([r for _, r in drawn]))
        if len(kinds) == 2:  # of right ones alone, or wrong ones alone, there is no AUROC
            draws.append(step_auroc([v for v, _ in drawn], [r for _, r in drawn]))
    lo, hi = np.quantile(draws, (0.025, 0.975))
    return stats.Estimate(whole, float(lo), float(hi), len(pairs))

"""Choices inside PAD, compared: the student of each against the student of the study's own, question by question."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from scipy.stats import permutation_test

from agentark import StudyError
from agentark.evaluate import stats
from agentark.evaluate.stats import holm
from agentark.report import charts
from agentark.report.sentences import number, one, signed
from agentark.schemas import Score

# Experiment -> method -> what was chosen. `pad` is the study's choice in each.
CHOICES = {
    "loss": {"pad": "contrastive", "code": "public code's", "cross-entropy": "cross-entropy"},
    "reward": {"pad": "reward model", "outcome": "outcome", "both": "both"},
    "credit": {"pad": "mean of steps", "min": "least step", "step": "step by step"},
    "algorithm": {"pad": "GRPO", "rloo": "RLOO", "ppo": "PPO, 1 epoch", "ppo-4": "PPO, 4 epochs"},
    "size": {"pad": "own base", "other": "other base"},
}
TITLES = {
    "loss": "reward model's loss",
    "reward": "what is rewarded",
    "credit": "credit",
    "algorithm": "algorithm",
    "size": "reward model started from",
}
RESAMPLES = 9_999  # the least p value is then 0.0002


def check_trained(student: Path, parameters: dict) -> None:
    """Raise StudyError if a student was trained with other than these parameters: the choices would not differ from it in
    one thing alone."""
    told = json.loads((student / "provenance.json").read_text())["parameters"]
    for name, value in parameters.items():
        if name in told and told[name] != value:
            raise StudyError(f"{student}: trained with {name} {told[name]}, params.yaml says {value}; run `dvc repro`")


def baselines(method: str) -> list[str]:
    """What a choice is compared with: the student's base, and the study's choice."""
    return {"base": [], "pad": ["base"]}.get(method, ["base", "pad"])


def corrected(scores: list[Score], predictions: pd.DataFrame) -> list[Score]:
    """A row `p_holm` for every gain against `pad`: the p value of a paired permutation test over questions (two-sided, of
    the mean over seeds), by Holm's correction over all of them."""
    means = (
        predictions.astype({"correct": float})
        .groupby(["setting", "student", "method", "question_id"])["correct"]
        .mean()
    )
    gains = [s for s in scores if s.metric == "accuracy_gain" and s.baseline == "pad"]
    found = [
        permutation_test(
            [means[g.experiment, g.student, m].sort_index().to_numpy() for m in (g.method, "pad")],
            lambda x, y, axis: np.mean(x - y, axis=axis),
            permutation_type="samples",
            n_resamples=RESAMPLES,
            batch=1_000,
            rng=np.random.default_rng(stats.SEED),
        ).pvalue
        for g in gains
    ]
    return [
        g.model_copy(update={"metric": "p_holm", "value": p, "lo": p, "hi": p})
        for g, p in zip(gains, map(float, holm(found)), strict=True)
    ]


def by_seed(scores: pd.DataFrame, experiment: str, student: str, method: str) -> list[float]:
    """Gain in accuracy over `pad` of the same seed, for each seed (none where there is but one)."""
    rows = scores[(scores["metric"] == "accuracy") & (scores["seed"] != "all")]
    own = rows[(rows["experiment"] == experiment) & (rows["student"] == student)].pivot(
        index="seed", columns="method", values="value"
    )
    return [] if own.empty else list(own[method] - own["pad"])


def findings(scores: pd.DataFrame) -> str:
    """A line a choice: its accuracy, its gain over the study's choice, and what the corrected test allows one to say."""
    lines = []
    for _, row in scores[scores["metric"] == "p_holm"].iterrows():
        where = {key: row[key] for key in ("experiment", "student", "method")}
        accuracy = one(scores, metric="accuracy", **where)
        gain = one(scores, metric="accuracy_gain", baseline="pad", **where)
        over_base = one(scores, metric="accuracy_gain", baseline="base", **where)
        told = (
            "cannot be told from"
            if row["value"] >= 0.05
            else "is better than"
            if gain["value"] > 0
            else "is worse than"
        )
        names = CHOICES[row["experiment"]]
        seeds = ", ".join(f"{g:+.3f}" for g in by_seed(scores, **where))
        lines.append(
            f"- {TITLES[row['experiment']]}, {row['student']}: {names[row['method']]} {told} {names['pad']} "
            f"({signed(gain)}, Holm p = {row['value']:.3f}; by seed {seeds or 'one only'}). It answers {number(accuracy)}, "
            f"{signed(over_base)} against the base."
        )
    return "\n".join(lines)


def figure(scores: pd.DataFrame) -> plt.Figure:
    """Accuracy of every choice with its 95 % interval and each seed as a dot, the base as a line; a panel an experiment
    and student."""
    charts.style()
    rows = scores[scores["metric"] == "accuracy"]
    panels = list(rows[["experiment", "student"]].drop_duplicates().itertuples(index=False, name=None))
    figure, axes = plt.subplots(2, -(-len(panels) // 2), figsize=(charts.WIDTH, 6), sharey=True, squeeze=False)
    colours = sns.color_palette("colorblind")
    for axis, (experiment, student) in zip(axes.flat, panels, strict=False):
        own = rows[(rows["experiment"] == experiment) & (rows["student"] == student)]
        whole = own[own["seed"] == "all"].set_index("method")
        names = {m: label for m, label in CHOICES[experiment].items() if m in whole.index}
        for x, method in enumerate(names):
            r = whole.loc[method]
            error = [[r["value"] - r["lo"]], [r["hi"] - r["value"]]]
            axis.errorbar(x, r["value"], yerr=error, fmt="o", ms=6, color=colours[0 if method == "pad" else 1])
            seeds = own[(own["method"] == method) & (own["seed"] != "all")]["value"]
            axis.plot([x] * len(seeds), seeds, ".", color="black", ms=4)
        axis.axhline(whole.loc["base", "value"], color="black", lw=0.8, ls=":")
        axis.set_xticks(range(len(names)), [label.replace(" ", "\n") for label in names.values()])
        axis.set(title=f"{TITLES[experiment]}\n({student})", xlim=(-0.5, len(names) - 0.5), ylim=(0, 1))
    for axis in axes[:, 0]:
        axis.set(ylabel="accuracy")
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    return figure

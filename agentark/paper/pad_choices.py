"""Choices inside PAD: compare the student of each alternative with the study's own student, question by question."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from agentark import StudyError
from agentark.evaluate.stats import holm, p_values
from agentark.report import charts
from agentark.report.sentences import number, one, signed
from agentark.schemas import Score

# Variant -> method -> name of the choice. `pad` is the study's own choice in each variant.
CHOICES = {
    "loss": {"pad": "contrastive", "code": "public code's", "cross-entropy": "cross-entropy"},
    "reward": {"pad": "reward model", "outcome": "outcome", "both": "both"},
    "credit": {"pad": "lowest step", "mean": "mean of steps", "step": "step by step"},
    "algorithm": {"pad": "GRPO", "rloo": "RLOO", "ppo": "PPO, 1 epoch", "ppo-4": "PPO, 4 epochs"},
    "size": {"pad": "own base", "other": "other base"},
}
TITLES = {
    "loss": "reward model's loss",
    "reward": "what is rewarded",
    "credit": "credit",
    "algorithm": "algorithm",
    "size": "reward model's base",
}


def check_trained(student: Path, parameters: dict) -> None:
    """Raises StudyError if the student was trained with parameters other than `parameters`. It would then differ from
    the alternatives in more than the choice."""
    stated = json.loads((student / "provenance.json").read_text())["parameters"]
    for name, value in parameters.items():
        if name in stated and stated[name] != value:
            raise StudyError(f"{student}: trained with {name} {stated[name]}, params.yaml has {value}; run `dvc repro`")


def baselines(system: dict) -> list[dict]:
    """A system's baselines: the student's base, and the study's own choice `pad`."""
    rivals = {"base": [], "pad": ["base"]}.get(system["method"], ["base", "pad"])
    return [{"method": rival} for rival in rivals]


def corrected(scores: list[Score]) -> list[Score]:
    """One row `p_holm` for every gain over `pad`: its two-sided p value, corrected by Holm's method over all gains."""
    gains = [s for s in scores if s.metric == "accuracy_gain" and s.baseline == "pad"]
    found = p_values(*([getattr(g, name) for g in gains] for name in ("value", "lo", "hi")))
    return [
        g.model_copy(update={"metric": "p_holm", "value": p, "lo": p, "hi": p})
        for g, p in zip(gains, map(float, holm(found)), strict=True)
    ]


def by_seed(scores: pd.DataFrame, variant: str, student: str, method: str) -> list[float]:
    """For each seed, the gain in accuracy over `pad` with the same seed; empty if there is only one seed."""
    rows = scores[(scores["metric"] == "accuracy") & (scores["seed"] != "all")]
    own = rows[(rows["variant"] == variant) & (rows["student"] == student)]
    wide = own.pivot(index="seed", columns="method", values="value")
    return [] if wide.empty else list(wide[method] - wide["pad"])


def findings(scores: pd.DataFrame) -> str:
    """One line per choice: gain over the study's choice with the corrected p value, accuracy, gain over the base."""
    lines = []
    for _, row in scores[scores["metric"] == "p_holm"].iterrows():
        where = {key: row[key] for key in ("variant", "student", "method")}
        accuracy = one(scores, metric="accuracy", **where)
        gain, over_base = (one(scores, metric="accuracy_gain", baseline=b, **where) for b in ("pad", "base"))
        shown = "no difference detected" if row["value"] >= 0.05 else "better" if gain["value"] > 0 else "worse"
        names = CHOICES[row["variant"]]
        seeds = ", ".join(f"{g:+.3f}" for g in by_seed(scores, **where))
        lines.append(
            f"- {TITLES[row['variant']]}, {row['student']}: {names[row['method']]} vs. {names['pad']}: {signed(gain)}, "
            f"Holm p = {row['value']:.3f} ({shown}; by seed {seeds or 'one only'}). Accuracy {number(accuracy)}; "
            f"vs. the base: {signed(over_base)}."
        )
    return "\n".join(lines)


def figure(scores: pd.DataFrame) -> plt.Figure:
    """Accuracy of every choice and the base, with 95 % intervals and single seeds; a panel per variant and student."""
    rows = scores[scores["metric"] == "accuracy"]
    names = [CHOICES[r.variant].get(r.method, r.method) for r in rows.itertuples()]
    panels = [f"{TITLES[r.variant]} ({r.student})" for r in rows.itertuples()]
    return charts.intervals(rows.assign(choice=names, panel=panels, _hue=""), "choice", "accuracy", hue="_hue", row="panel",
                            horizontal=True)  # fmt: skip

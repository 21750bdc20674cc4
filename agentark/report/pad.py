"""Sentences of the ablation `pad`: PAD under each change, compared with its baselines."""

import pandas as pd

from agentark.report.sentences import number, one, select, versus

REFERENCES = ("base, made to show steps", "R-SFT", "STaR")  # baselines that every row is compared with


def finding(table: pd.DataFrame, variant: str) -> str:
    """Return PAD's accuracy under one change, its paired gains, and its reward model's accuracy on its outputs."""
    accuracy = one(table, metric="accuracy", method="pad", variant=variant)
    judge = one(table, metric="judge_accuracy", variant=variant)
    gains = select(table, metric="accuracy_gain", method="pad", variant=variant)
    order = [name for name in dict.fromkeys(gains["baseline_variant"]) if name not in REFERENCES]
    named = [
        (name, one(gains, baseline_variant=name))
        for name in (*REFERENCES, *order)
        if name in set(gains["baseline_variant"])
    ]
    clauses = "; ".join(versus(name, row) for name, row in named)
    return (
        f"**{variant}**: accuracy {number(accuracy)}; {clauses}. The reward model ranks {judge['value']:.3f} "
        f"[{judge['lo']:.3f}, {judge['hi']:.3f}] of pairs of this policy's outputs right (n = {judge['n']})."
    )


def findings(table: pd.DataFrame) -> list[str]:
    """Return one line for each change, in the table's order."""
    variants = dict.fromkeys(select(table, metric="accuracy", method="pad")["variant"])
    return [finding(table, variant) for variant in variants]

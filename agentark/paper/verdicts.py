"""Verdicts on the paper's claims from its own numbers."""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from agentark.paper.analysis import chance, compare, counts, noise, summary, within_noise, without_each_student
from agentark.paper.numbers import (
    METHODS,
    PARTS,
    STUDENTS,
    TEST_SIZES,
    TRAIN_SIZES,
    by_method,
    by_reward_model,
    cost,
    pick,
    relative,
)
from agentark.report.charts import LABELS

JUDGED = 100  # samples per judge score in Table 1, as stated in the paper


# Sentences


def one(table: pd.DataFrame, /, **where) -> pd.Series:
    """The one row that matches every given column. Raises ValueError if there is none, or more than one."""
    for column, value in where.items():
        table = table[table[column] == value]
    (row,) = (r for _, r in table.iterrows())
    return row


def verdict(p: float, gain: float) -> str:
    if p >= 0.05:
        return "cannot be decided"
    return "held" if gain > 0 else "did not hold"


def findings(published: pd.DataFrame, table: pd.DataFrame) -> str:
    """What the published numbers show and what they cannot show, as Markdown; every number is computed from them."""
    trained = table[table["method"] != "sft"]
    all_, within, across = (summary(table).query("part == @p").set_index("method")
                            for p in ("all", "same subject", "other subject"))  # fmt: skip
    inside, outside = (summary(table).query("part == @p").set_index("method") for p in PARTS[1:3])
    noisy = within_noise(noise(table)).set_index("method")
    found, left = compare(table), without_each_student(table)
    between = found[found["baseline"] != "base"]
    fits = counts(published).set_index(["test_task", "method"])["countable"]
    spent = cost(published)["gpu_hours"]
    rising = relative(table)

    def each(values, form="{:+.2f}"):
        return ", ".join(f"{LABELS[m]} {form.format(values[m])}" for m in METHODS[1:])

    pad = noisy.loc["pad"]
    return f"""
- **Gain.** Over {len(trained)} cells the mean gain is {trained["gain"].mean():+.2f} points: {each(all_["mean"])}. \
Medians: {each(all_["median"])}. Answer-only SFT: {all_.loc["sft", "mean"]:+.2f}.
- **Below the base:** {each(all_["below_base"], "{:.0%}")} of cells.
- **In domain** {each(inside["mean"])}; **out of domain** {each(outside["mean"])}. \
This split counts GSM8K as out of domain for a student trained on MATH or MetaMathQA. Split by subject, the gains are \
{each(within["mean"])} within mathematics or medicine and {each(across["mean"])} across the two.
- **Without Gemma-7B**, the means are {each(left.loc["without Gemma-7B"])}.
- **Methods against each other:** {int((between[["p_t_holm", "p_sign_holm"]] < 0.05).any(axis=1).sum())} of \
{len(between)} comparisons are significant by either test after Holm's correction over {len(found)}.
- **Single cells.** Of PAD's {pad["cells"]:.0f} gains, {pad["within the error of a difference"]:.0f} lie within 1.96 \
standard errors of a difference between independent accuracies. \
{pad["better, independent"]:.0f} are significantly above the base if answers are independent, \
{pad["better, best pairing"]:.0f} if no question is lost; the tables do not show which case is closer to the truth. \
For R-SFT {noisy.loc["rsft", "within the error of a difference"]} and for DA \
{noisy.loc["da", "within the error of a difference"]} of 120 gains lie within the error.
- **Steadier than chance.** {pad["below base"]:.0f} of PAD's cells are below the base. If each true gain were the mean \
of its student and test set and the error of a run binomial, {pad["below base, expected"]:.0f} would be \
(R-SFT: {noisy.loc["rsft", "below base, expected"]:.0f} expected, {noisy.loc["rsft", "below base"]} observed; \
DA: {noisy.loc["da", "below base, expected"]:.0f} expected, {noisy.loc["da", "below base"]} observed). \
Either PAD changes few answers, so that runs hardly differ, or the better runs or checkpoints were printed, or both.
- **Counts.** The printed decimals fit test sets of {TEST_SIZES["gsm8k"]:,} and {TEST_SIZES["medmcqa"]:,} questions, \
which the tables do not state. \
Of the base accuracies, {100 * fits.xs("base", level="method").mean():.0f}% are whole counts out of them; on GSM8K, \
{fits["gsm8k", "rsft"]:.0%} of R-SFT's, {fits["gsm8k", "da"]:.0%} of DA's and {fits["gsm8k", "pad"]:.0%} of PAD's \
(chance {chance(TEST_SIZES["gsm8k"]):.0%}). The others cannot be one pass over all questions: they may be means of \
runs, passes over other questions, or misprints.
- **"+4.8 %"**, in the abstract, is not a mean of gains in points. One mean of gains relative to the base is close to \
it: PAD's from Qwen3-32B, {rising.loc["Qwen3-32B", "pad"]:+.2f} %. \
Over all cells that mean is {100 * (trained["gain"] / trained["base"]).mean():+.2f} %.
- **Cost.** PAD takes {spent["pad", ""]:.0f} card-hours for an 8B student, R-SFT {spent["rsft", ""]:.0f}, \
DA {spent["da", ""]:.0f}.
"""


def claims(published: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The paper's six claims: what its own tables show about each, and whether they can support it.

    A claim about gains is decided by the sign test over the ten pairs of student and test set, Holm-adjusted as in
    `compare`. If the tables have no unit to test over, or no number at all, the claim cannot be decided from them.
    """
    found = compare(table)
    rows = [
        gain_of_one_agent(one(found, part="all", method="pad", baseline="base")),
        steadiness(table),
        reward_model_and_agents(by_reward_model(published, table)),
        more_trajectories(table),
        reasoning(by_method(published, "Table 1").iloc[2:]),
        out_of_domain(one(found, part="out of domain", method="pad", baseline="base"), published, table),
    ]
    return pd.DataFrame(rows, columns=["claim", "what the published numbers show", "verdict"]).set_index("claim")


def gain_of_one_agent(pad: pd.Series) -> tuple[str, str, str]:
    return (
        "1 · one distilled agent gains over its base and stays a little below the debate",
        f"PAD {pad['gain']:+.2f} points on average, above the base in {pad['positive']} of {pad['pairs']} pairs of "
        f"student and test set (sign test, p = {pad['p_sign_holm']:.3f}); as a mean over {len(STUDENTS)} students "
        f"[{pad['t_lo']:+.2f}, {pad['t_hi']:+.2f}] before correction, p = {pad['p_t_holm']:.2f} after. No table has "
        "the accuracy of the debate itself.",
        f"direction of PAD's gain: {verdict(pad['p_sign_holm'], pad['gain'])}; its size: "
        f"{verdict(pad['p_t_holm'], pad['gain'])}; distance to the debate: cannot be decided",
    )


def steadiness(table: pd.DataFrame) -> tuple[str, str, str]:
    below = {m: (table[table["method"] == m]["gain"] < 0).groupby(table["student"]).mean() for m in METHODS[1:]}
    steadier = int(((below["pad"] < below["rsft"]) & (below["pad"] < below["da"])).sum())
    noisy = within_noise(noise(table)).set_index("method").loc["pad"]
    held = "held in the tables" if steadier == len(STUDENTS) else "did not hold"
    return (
        "2 · R-SFT and DA fluctuate, PAD gains steadily",
        f"Below the base in {below['rsft'].mean():.0%} (R-SFT), {below['da'].mean():.0%} (DA) and "
        f"{below['pad'].mean():.0%} (PAD) of cells; PAD has the smallest share in {steadier} of {len(STUDENTS)} "
        f"students. With binomial errors, about {noisy['below base, expected']:.0f} of PAD's {noisy['cells']:.0f} "
        "cells would be below.",
        f"{held}; whether due to the method or to the choice of printed runs cannot be decided",
    )


def reward_model_and_agents(reward: pd.DataFrame) -> tuple[str, str, str]:
    within = (reward["difference"].abs() < 1.96 * reward["se"]).all()
    return (
        "3 · the reward model's quality matters; the student limits the benefit of more agents",
        f"The 8B reward model against the 0.6B one: {reward['difference'].min():+.2f} to "
        f"{reward['difference'].max():+.2f} points by policy and test set, standard error of one accuracy "
        f"{reward['se'].min():.2f} to {reward['se'].max():.2f}. No table varies the number of agents.",
        "cannot be decided" if within else "held in part",
    )


def more_trajectories(table: pd.DataFrame) -> tuple[str, str, str]:
    ranks = {}
    for method in METHODS[1:]:
        means = table[table["method"] == method].groupby("train_task")["gain"].mean()
        ranks[method] = spearmanr([TRAIN_SIZES[task] for task in means.index], means).statistic
    listed = ", ".join(f"{LABELS[m]} {r:+.1f}" for m, r in ranks.items())
    return (
        "4 · more trajectories do not help monotonically",
        f"No table varies the size of one training set. Rank correlation of number of questions and mean gain over the "
        f"four sets: {listed}. Four points cannot be significant at 5 %.",
        "cannot be decided",
    )


def reasoning(judge: pd.DataFrame) -> tuple[str, str, str]:
    worst = 1.96 * np.sqrt(2) * 2 / np.sqrt(JUDGED)  # no score from 1 to 5 has a standard deviation above 2
    beyond = int((judge["pad"] - judge["base"] > worst).sum())
    return (
        "5 · PAD improves step decomposition, self-checking, error correction",
        f"A judge scores PAD above the base in {int((judge['pad'] > judge['base']).sum())} of {len(judge)} aspects, "
        f"{beyond} of them by more than {worst:.2f}, the largest margin of error possible with {JUDGED} samples; "
        f"above DA in {int((judge['pad'] > judge['da']).sum())} of {len(judge)}. One student, one judge.",
        f"held for {beyond} of {len(judge)} aspects by this judge; against DA: cannot be decided",
    )


def out_of_domain(pad: pd.Series, published: pd.DataFrame, table: pd.DataFrame) -> tuple[str, str, str]:
    truthful = by_method(published, "Table 2")
    other = {m: pick(table[table["method"] == m], "other subject")["gain"].mean() for m in METHODS[1:]}
    at_least = int((truthful[["rsft", "da", "pad"]].min(axis=1) >= truthful["base"]).sum())
    return (
        "6 · gains carry over out of domain and do not harm truthfulness",
        f"PAD {pad['gain']:+.2f} points out of domain (sign test, p = {pad['p_sign_holm']:.3f}); from mathematics to "
        f"medicine or back {other['rsft']:+.2f} (R-SFT), {other['da']:+.2f} (DA), {other['pad']:+.2f} (PAD). "
        f"TruthfulQA: all three at or above the base in {at_least} of {len(truthful)} measures; one student, no "
        "interval.",
        f"direction of PAD's gain out of domain: {verdict(pad['p_sign_holm'], pad['gain'])}; truthfulness: no "
        "sign of harm, cannot be decided",
    )

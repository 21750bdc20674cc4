"""The paper's six claims tested on the study's own tables, by a rule fixed before the numbers were known.

A claim has parts, and a part has contrasts of a predicted sign. The error of a contrast has two sources: the sampling
of questions (the interval in the table) and, for trained systems, of training seeds (the spread of the single seeds).
Their variances add up, and the t distribution has the degrees of freedom of Satterthwaite's approximation (1946). All p
values of all claims are adjusted together by Holm's method. All values are fractions, not points.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from agentark.paper import coverage
from agentark.paper.contrasts import (
    LEVEL,
    Contrast,
    Difference,
    Part,
    along_axis,
    combined,
    contrast,
    difference,
    error,
    minus,
    pick,
    seed_variance,
)
from agentark.report.charts import LABELS

# Claim -> its figure next to the paper's, and the page (under reports/) of the notebook that measures its numbers.
PLACES = {
    1: (coverage.GRID, "08_evaluate.html#Scores"),
    2: (coverage.GRID, "08_evaluate.html#Scores"),
    3: (coverage.TRAINING, "06_reward_model-{student}.html#Evaluation-by-truth"),
    4: (coverage.SIZES, "04_extract.html#Selection"),
    5: (coverage.REASONING, "08_evaluate.html#Scores"),
    6: (coverage.OUTSIDE, "09_reasoning.html#The-same-question-in-another-form"),
}
# Results tables that the claims are tested on.
TABLES = ("scores", "reasoning", "grid", "ablation_rewards", "ablation_data", "ablation_agents")
MARGIN = 0.05  # smaller losses do not count as harm; our choice, since the paper gives no margin
TRAINED = ("rsft", "da", "pad")
STEPS = {"step_presence": "needed steps present", "error_notice": "errors noticed", "error_repair": "errors corrected"}
HELD, NOT_HELD, OPEN, NOT_RUN = "held", "not held", "not decidable at this size", "not run"

RULE = f"""
- A contrast *agrees* if its difference has the predicted sign and its adjusted p is below {LEVEL}. \
It *disagrees* if it has the other sign and its adjusted p is below {LEVEL}.
- A part about every system is held if all of its contrasts agree, and not held if one disagrees. \
A part about at least one system is held if one contrast agrees, and not held if all disagree. \
Otherwise it is not decidable at this size. A part without data is not run.
- A claim is not held if one of its parts is not held. It is held if all of its parts are held. \
Otherwise it is not decidable at this size.
- "No harm" means not worse by more than {MARGIN}; the contrast is tested against {-MARGIN}, not against 0.
"""


# The six claims


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """Return the gain over the base per cell: teacher, student, training and test task (rows) by method (columns)."""
    rows = pick(
        table, metric="accuracy_gain", baseline="base", seed="all", setting="test", domain="", baseline_variant=""
    )
    return rows.pivot_table(
        index=["teacher", "student", "train_task", "test_task"], columns="method", values="value", sort=False
    )


def domain_gains(grid: pd.DataFrame, where: str) -> list[Contrast]:
    """Return the gain of each method over its base, averaged over the grid's cells "in domain" or "out of domain"
    (`where`)."""
    found = []
    for m in TRAINED:
        own = dict(domain=where, teacher="", student="", method=m, baseline="base")
        for _, row in pick(grid, metric="accuracy_gain", seed="all", **own).iterrows():
            seeds = seed_variance(grid, "accuracy_gain", [row["test_task"]], own)
            gained = combined(row["value"], error(row), [seeds], int(row["n"]))
            found += contrast(f"all cells: {LABELS[m]} minus base, {where}", 1, gained)
    return found


def distilled(scores: pd.DataFrame, students: list[str], task: str) -> list[Part]:
    """Claim 1: a distilled agent gains over its base and stays below the debate."""
    parts = []
    for rival, says, predicted in (("base", "each method gains over its base in domain", 1),
                                   ("debate", "each distilled student stays below the debate", -1)):  # fmt: skip
        found = []
        for s in students:
            for m in TRAINED:
                own = dict(setting="test", student=s, method=m)
                gained = difference(scores, "accuracy", own, dict(method=rival), [task])
                found += contrast(f"{s}: {LABELS[m]} minus {LABELS[rival]} on {task}", predicted, gained)
        parts.append(Part(1, says, found))
    return parts


def steady(cells: pd.DataFrame) -> list[Part]:
    """Claim 2: PAD has fewer cells below the base than R-SFT, and than DA, in domain and out of domain.

    The sign test is over the cells in which only one of two methods is below the base. It treats cells as independent.
    Cells that share a base, a family or a debate are dependent, so p is too small. `value` is the difference of the
    shares.
    """
    inside = cells.index.get_level_values("train_task") == cells.index.get_level_values("test_task")
    parts = []
    for where, own in (("in domain", cells[inside]), ("out of domain", cells[~inside])):
        found = []
        for rival in ("rsft", "da"):
            both = own[["pad", rival]].dropna() < 0
            only, other = int((both["pad"] & ~both[rival]).sum()), int((~both["pad"] & both[rival]).sum())
            p = binomtest(only, only + other).pvalue if only + other else 1.0
            share = float(both["pad"].mean() - both[rival].mean())
            what = (
                f"share of {len(both)} cells {where} below the base, PAD minus {LABELS[rival]} "
                f"({only} only PAD, {other} only {LABELS[rival]})"
            )
            found.append(Contrast(what, -1, share, float("nan"), np.inf, len(both), 1, float(p)))
        parts.append(Part(2, f"PAD has fewer cells below the base than R-SFT and DA, {where}", found))
    return parts


def rewarded(rewards: pd.DataFrame, agents: pd.DataFrame, sizes: list[str], task: str) -> list[Part]:
    """Claim 3: a larger reward model makes a better policy; more agents help the larger student more.

    sizes: two students, the smaller first. Only rows of `rewards` with variant "size" are used. Method "pad": the
    reward model has the student's own base; "other": it has the other student's base.
    """
    small, large = sizes
    quality = []
    for s in sizes:
        methods = ("pad", "other") if s == large else ("other", "pad")
        own, rival = (dict(variant="size", student=s, method=m) for m in methods)
        quality += contrast(
            f"{s}: scored by {large} minus scored by {small} on {task}",
            1,
            difference(rewards, "accuracy", own, rival, [task]),
        )
    numbers, capacity = sorted(along_axis(agents, "agents")["agents"].unique()), []
    if len(numbers) > 1:
        few, *_, many = numbers
        more = []
        for s in (large, small):
            own, rival = (dict(agents=n, student=s, method="rsft") for n in (many, few))
            more.append(difference(along_axis(agents, "agents"), "accuracy", own, rival, [task]))
        what = f"gain of {many} agents over {few}, {large} minus {small} on {task}"
        capacity = contrast(what, 1, minus(*more))
    return [Part(3, "a larger reward model makes a better policy", quality, make="make ablations"),
            Part(3, "more agents help the larger student more", capacity, make="make ablations")]  # fmt: skip


def monotone(data: pd.DataFrame, task: str) -> list[Part]:
    """Claim 4: at least one student gets worse with more training questions, or with more traces per question."""
    found = []
    trained = data[data["method"].isin(TRAINED) & (data["student"] != "") & (data["source"] == "debates")]
    for column, unit in (("questions", "questions"), ("traces_per_question", "traces per question")):
        rows = along_axis(trained, column)
        for (s, m), some in rows.groupby(["student", "method"], sort=False):
            for few, more in pairwise(sorted(some[column].unique())):  # PAD has fewer sizes than the other methods
                own, rival = ({column: n, "student": s, "method": m} for n in (more, few))
                step = difference(rows, "accuracy", own, rival, [task])
                found += contrast(f"{s}, {LABELS[m]}: {more} {unit} minus {few} on {task}", -1, step)
    return [Part(4, "more trajectories make at least one student worse", found, somewhere=True, make="make ablations")]


def reasoned(scores: pd.DataFrame, students: list[str], task: str) -> list[Part]:
    """Claim 5: PAD raises the exact counterparts of step decomposition, self-checking and error correction."""
    parts = []
    for metric, words in STEPS.items():
        found = []
        for s in students:
            own, rival = (dict(setting="test", student=s, method=m) for m in ("pad", "base"))
            found += contrast(
                f"{s}: {words}, PAD minus base on {task}", 1, difference(scores, metric, own, rival, [task])
            )
        parts.append(Part(5, f"PAD raises the share of {words}", found))
    return parts


def hint_effect(reasoning: pd.DataFrame, student: str, method: str, task: str) -> Difference | None:
    """Return the accuracy with a wrong hint minus the accuracy with a right hint."""
    wrong, right = (dict(setting=f"{kind} hint", student=student, method=method) for kind in ("wrong", "right"))
    return difference(reasoning, "accuracy", wrong, right, [task])


def carried(scores: pd.DataFrame, reasoning: pd.DataFrame, students: list[str], task: str) -> list[Part]:
    """Claim 6: gains out of domain (mean over tasks of equal weight), and no harm to truthfulness.

    The counterpart of truthfulness in the generated world is the loss when a peer's hint is wrong instead of right.
    Accuracy with a wrong hint is not enough: for a base that is nearly always misled, it cannot fall much further.
    """
    outside = [name for name in scores["test_task"].unique() if name != task]
    out, hint = [], []
    for s in students:
        for m in TRAINED:
            own = dict(setting="test", student=s, method=m)
            mean = difference(scores, "accuracy", own, dict(method="base"), outside)
            out += contrast(f"{s}: {LABELS[m]} minus base, {len(outside)} tasks out of domain", 1, mean)
        lost = {m: hint_effect(reasoning, s, m, task) for m in ("base", *TRAINED)}
        for m in TRAINED:
            what = f"{s}: change from right to wrong hint, {LABELS[m]} minus base on {task}"
            hint += contrast(what, 1, minus(lost[m], lost["base"]), -MARGIN)
    return [Part(6, "each method gains over its base out of domain", out),
            Part(6, f"a wrong hint costs no method over {MARGIN} more than its base", hint)]  # fmt: skip


def parts(tables: dict[str, pd.DataFrame], students: list[str], sizes: list[str], task: str) -> list[Part]:
    """Return all parts of all claims. tables: by name (experiments.read); a part with an empty table has no data."""
    scores, grid = tables["scores"], tables["grid"]
    return [
        *distilled(scores, students, task),
        Part(
            1,
            "each method gains over its base in domain, over the grid",
            domain_gains(grid, "in domain"),
            make="make grid",
        ),
        *steady(gains(grid if len(grid) else scores)),
        *rewarded(tables["ablation_rewards"], tables["ablation_agents"], sizes, task),
        *monotone(tables["ablation_data"], task),
        *reasoned(scores, students, task),
        *carried(scores, tables["reasoning"], students, task),
        Part(
            6,
            "each method gains over its base out of domain, over the grid",
            domain_gains(grid, "out of domain"),
            make="make grid",
        ),
    ]


def verdict_of_part(outcomes: pd.Series, somewhere: bool) -> str:
    if outcomes.empty:
        return NOT_RUN
    agrees, disagrees = outcomes == "agrees", outcomes == "disagrees"
    if agrees.any() if somewhere else agrees.all():
        return HELD
    if disagrees.all() if somewhere else disagrees.any():
        return NOT_HELD
    return OPEN


def verdict_of_claim(verdicts: Iterable[str]) -> str:
    """Return a claim's verdict from the verdicts of its parts. A part that was not run keeps it from being held."""
    verdicts = set(verdicts)
    if NOT_HELD in verdicts:
        return NOT_HELD
    return HELD if verdicts == {HELD} else NOT_RUN if verdicts == {NOT_RUN} else OPEN


def verdicts(found: list[Part], table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per part: its prediction, a summary of its contrasts, its verdict and its claim's verdict."""
    rows = []
    for part in found:
        own = table[(table["claim"] == part.claim) & (table["part"] == part.says)]
        verdict = verdict_of_part(own["outcome"], part.somewhere)
        rows.append(dict(claim=part.claim, part=part.says, verdict=verdict, shown=shown(part, own)))
    by_part = pd.DataFrame(rows)
    return by_part.assign(of_claim=by_part.groupby("claim")["verdict"].transform(verdict_of_claim))


def by_claim(made: pd.DataFrame) -> list[str]:
    """Return one line per claim, in order: its verdict and the verdicts of its parts."""
    return [
        f"{rows['of_claim'].iloc[0]}: " + "; ".join(f"{r.part} ({r.verdict})" for r in rows.itertuples())
        for _, rows in made.groupby("claim")
    ]


def verdict_table(made: pd.DataFrame, student: str) -> str:
    """Return the verdicts as a Markdown table, with links to the figure and to the notebook's page for `student`."""
    lines = ["| claim | predicted | shown | verdict | where |", "|---|:---|:---|:---|:---|"]
    for r in made.itertuples():
        picture, notebook = PLACES[r.claim]
        links = f"[figure](experiments.html#{picture}), [notebook](notebooks/{notebook.format(student=student)})"
        lines.append(f"| {r.claim} | {r.part} | {r.shown} | **{r.verdict}** | {links} |")
    return "\n".join(lines)


def shown(part: Part, rows: pd.DataFrame) -> str:
    """Return the contrasts of a part: each with its interval, or their range if there are more than 6."""
    if rows.empty:
        return f"no results yet: `{part.make}`"
    if len(rows) > 6:
        counts = ", ".join(f"{n} {outcome}" for outcome, n in rows["outcome"].value_counts().items())
        return f"{len(rows)} differences from {rows['value'].min():+.3f} to {rows['value'].max():+.3f}: {counts}"
    return "; ".join(f"{r.what} {value(r)}" for r in rows.itertuples())


def value(row) -> str:
    """Return a difference with the adjusted p and, if its error is known, its interval."""
    bounds = "" if np.isnan(row.se) else f" [{row.lo:+.3f}, {row.hi:+.3f}]"
    return f"**{row.value:+.3f}**{bounds} (adjusted p {row.p_holm:.2g})"


def findings(table: pd.DataFrame, made: pd.DataFrame) -> str:
    """Return a summary: the verdicts, the number of contrasts, and the differences that they can detect."""
    claims = made.groupby("claim")["of_claim"].first()
    listed = "; ".join(f"claim {claim} {verdict}" for claim, verdict in claims.items())
    size, cells = table["detectable"].dropna(), table[table["se"].isna()]["n"]
    not_run = made[made["verdict"] == NOT_RUN]
    missing = f" {len(not_run)} of {len(made)} parts have not been run." if len(not_run) else ""
    return (
        f"{listed[0].upper()}{listed[1:]}. There are {len(table)} contrasts, adjusted together.{missing} At 80 % "
        f"power and the strictest level ({LEVEL / len(table):.4f}), the smallest detectable differences are "
        f"{size.min():.3f} to {size.max():.3f}, depending on the contrast (median {size.median():.3f}); smaller ones "
        f"are missed in more than one of five cases. The sign test over {cells.min()} cells cannot go below "
        f"p = {2.0 ** (1 - cells.min()):.2g} before adjustment."
    )

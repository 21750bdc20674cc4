"""Sentences and tables of the pages. All numbers and verdicts are computed from the results tables."""

import html
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd

from agentark import StudyError
from agentark.evaluate.stats import holm, p_values
from agentark.report.charts import METHODS
from agentark.schemas import UNITS

NAMES = {  # for sentences; charts.LABELS has shorter names for figures
    "base": "the base", "base_steps": "the base made to show its steps", "sft": "answer-only SFT", "rsft": "R-SFT", "da": "DA", "pad": "PAD", "greedy": "greedy decoding",
    "single": "one sample", "vote": "majority vote",
    "vote_tokens": "majority vote at equal tokens", "self_revision": "self-revision",
    "debate_off": "the debate without communication", "debate_other": "the debate with peers of another question",
    "debate": "debate", "star": "the student's own samples",
}  # fmt: skip


def select(scores: pd.DataFrame, **where) -> pd.DataFrame:
    """Rows over all seeds that match every given column."""
    rows = scores[scores["seed"] == "all"]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows


def one(scores: pd.DataFrame, **where) -> pd.Series:
    """The one row that matches. Raises StudyError, naming the query, if there is none or more than one."""
    rows = select(scores, **where)
    if len(rows) != 1:
        raise StudyError(f"reports/scores.csv: {len(rows)} rows match {where}; run `dvc repro evaluate`")
    return rows.iloc[0]


def number(row: pd.Series) -> str:
    """A value with its interval and n: 0.842 [0.810, 0.872], n = 500."""
    return f"{row['value']:.3f} [{row['lo']:.3f}, {row['hi']:.3f}], n = {row['n']}"


def cell(row: pd.Series) -> str:
    """A value with its interval, without a line break within the interval; "" for a missing value."""
    return "" if pd.isna(row["value"]) else f"{row['value']:.3f} [{row['lo']:.3f},\N{NO-BREAK SPACE}{row['hi']:.3f}]"


def signed(row: pd.Series) -> str:
    return f"{row['value']:+.3f} [{row['lo']:+.3f}, {row['hi']:+.3f}]"


def verdict(row: pd.Series) -> str:
    """The direction of a paired gain by its 95 % interval."""
    return "better" if row["lo"] > 0 else "worse" if row["hi"] < 0 else "no difference detected"


def named_verdict(row: pd.Series) -> str:
    """A paired gain with its interval and its verdict."""
    return f"{signed(row)} ({verdict(row)})"


def versus(name: str, row: pd.Series) -> str:
    """A paired gain over the baseline of that name, with its verdict."""
    return f"vs. {name} {named_verdict(row)}"


def variant_findings(table: pd.DataFrame, metric: str = "accuracy_gain") -> list[str]:
    """A sentence for each gain of an ablation."""
    lines = []
    for _, row in select(table, metric=metric).iterrows():
        rival = row["baseline_variant"] or NAMES.get(row["baseline"], row["baseline"])
        if row["baseline_variant"] and row["baseline"] != row["method"]:
            rival += f", {NAMES.get(row['baseline'], row['baseline'])}"
        lines.append(f"{system(row)} vs. {rival}: {signed(row)}, n = {row['n']} ({verdict(row)})")
    return lines


def system(row: pd.Series) -> str:
    """The name of a row's system: its condition, method and student."""
    level = "" if pd.isna(row["level"]) else f"level {row['level']}"
    parts = (row["variant"] or row["source"], level, NAMES.get(row["method"], row["method"]), row["student"])
    return ", ".join(filter(None, parts))


# Never the best cheaper baseline: a debate makes many more calls than a student; "off" and "other" cost as much as the
# debate and isolate the effect of communication; a vote at equal tokens may make more calls.
NOT_CHEAPER = ("debate", "debate_off", "debate_other", "vote_tokens")


def baseline_gains(scores: pd.DataFrame, **system: str) -> pd.DataFrame:
    """The paired gains of a system (setting, test_task, student, method) over its baselines, one row each, with the
    baseline's `accuracy` and its `name`. The baseline is the student's, or the teacher's if the student has none."""
    gains = select(scores, metric="accuracy_gain", **system)
    found = []
    for rival in gains["baseline"]:
        own, teacher = (
            select(scores, metric="accuracy", **system | {"method": rival, "student": student})
            for student in (system["student"], "")
        )
        name = NAMES[rival] if len(own) else f"the teacher's {NAMES[rival]}"
        found.append({"accuracy": (own if len(own) else teacher)["value"].iloc[0], "name": name})
    return pd.concat([gains.reset_index(drop=True), pd.DataFrame(found)], axis=1)


def gain_over_best(scores: pd.DataFrame, **system: str) -> str:
    """The accuracy of a system and its gain over its most accurate baseline that is not in NOT_CHEAPER."""
    gains = baseline_gains(scores, **system)
    best = gains.loc[gains[~gains["baseline"].isin(NOT_CHEAPER)]["accuracy"].astype(float).idxmax()]
    than = "" if system["student"] else " than a full debate"
    return (
        f"accuracy {number(one(scores, metric='accuracy', **system))}. The best baseline with no more calls{than} is "
        f"{best['name']} ({best['accuracy']:.3f}): {named_verdict(best)}."
    )


def over_all(scores: pd.DataFrame, **system: str) -> str:
    """The gains of a system over each of its baselines."""
    return "; ".join(versus(row["name"], row) for _, row in baseline_gains(scores, **system).iterrows())


def debate_findings(scores: pd.DataFrame, task: str) -> str:
    """The debate's accuracy in each setting and its gains: first over the best baseline with the same teacher and no
    more calls than the longest debate, then over all baselines."""
    settings = {"test": "Test questions", "hard": "Questions with more steps than the teacher was trained on"}
    lines = []
    for setting, words in settings.items():
        where = dict(setting=setting, test_task=task, student="", method="debate")
        if len(select(scores, **where)):
            lines.append(f"- {words}: {gain_over_best(scores, **where)} All gains: {over_all(scores, **where)}.")
    return "\n".join(lines)


def listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def student_findings(scores: pd.DataFrame, student: str, train_task: str, methods: list[str]) -> str:
    """A student's accuracy after each method, its gains over the best baseline with one call and over all baselines,
    and the tasks out of domain whose accuracy changed, by p values adjusted over all methods and tasks."""
    where = dict(setting="test", student=student)
    base = one(scores, metric="accuracy", method="base", test_task=train_task, **where)
    lines = [f"With greedy decoding, the base of **{student}** has an accuracy of {number(base)}."]
    shown = select(scores, metric="accuracy", method="base_steps", test_task=train_task, **where)
    if len(shown):
        lines[0] += (
            f" Made to show its steps, without training, it has {number(shown.iloc[0])}: so much of a gain over the base "
            "may be no more than this format."
        )
    gains = select(scores, metric="accuracy_gain", baseline="base", baseline_variant="", **where)
    outside = changed(gains[(gains["test_task"] != train_task) & gains["method"].isin(methods)])
    for method in methods:
        tasks = outside[outside["method"] == method]
        up, down = (list(tasks[tasks["change"] == sign]["test_task"]) for sign in (1, -1))
        own = dict(test_task=train_task, method=method, **where)
        lines.append(f"- **{NAMES[method]}**: {gain_over_best(scores, **own)} All gains: {over_all(scores, **own)}.")
        if len(tasks):
            better, worse = listed(up), listed(down)
            lines[-1] += f" Of {len(tasks)} tasks out of domain, better than the base on {better}, worse on {worse}."
    if len(outside):
        lines.append(
            f"\nOut of domain, the {len(outside)} comparisons of a method with the base are corrected together (Holm, level 0.05)."
        )
    return "\n".join(lines)


def changed(gains: pd.DataFrame) -> pd.DataFrame:
    """Rows of paired gains with `change`: 1 or -1 where the gain differs from 0 after Holm's correction over all rows,
    otherwise 0."""
    p = holm(p_values(gains["value"], gains["lo"], gains["hi"]))
    return gains.assign(change=np.where(p < 0.05, np.sign(gains["value"].astype(float)), 0))


def reward_model_findings(scores: pd.DataFrame, students: list[str]) -> str:
    """AUROC of each student's reward model after both stages, pooled and within debates, and of the two baselines
    without training."""
    kinds = {"prm_step_auroc": "Step", "prm_trace_auroc": "Trace"}
    metric, what = next((m, words) for m, words in kinds.items() if m in set(scores["metric"]))
    lines = []
    for student in students:
        methods = ("fresh head", "likelihood", "stage I", "stage II")
        fresh, likelihood, first, second = (one(scores, metric=metric, student=student, method=m) for m in methods)
        lines.append(
            f"- **{student}**: {what} AUROC against the truth: {number(second)} debates, after stage II; "
            f"{first['value']:.3f} after stage I; without training {fresh['value']:.3f} (fresh head) and "
            f"{likelihood['value']:.3f} (the model's own likelihood of its steps)."
        )
        within = select(scores, metric="prm_step_auroc_within", student=student).set_index("method")
        if not within.empty:
            lines[-1] += (
                f" Within a debate, where the policy's rewards are compared, {number(within.loc['stage II'])} debates, "
                f"after stage II, and {within.loc['likelihood', 'value']:.3f} by the likelihood."
            )
    return "\n".join(lines)


def cost_findings(scores: pd.DataFrame, seconds: pd.DataFrame, task: str, students: list[str]) -> str:
    """Tokens and seconds per question: of the debate, one sample, and every student after PAD."""
    where = {"metric": "accuracy", "setting": "test", "test_task": task}
    debate, single = one(scores, method="debate", **where), one(scores, method="single", **where)
    spent = seconds[seconds["setting"] == "test"].set_index(["method", "student"])["seconds_per_question"].fillna(0)
    times = debate["tokens_per_question"] / single["tokens_per_question"]
    lines = [
        f"- A debate reads and generates {debate['tokens_per_question']:.0f} tokens per question, "
        f"{times:.1f} times as many as one sample ({single['tokens_per_question']:.0f}). "
        f"It takes {spent['debate', ''] * 1000:.0f} ms of one core; "
        f"one sample takes {spent['single', ''] * 1000:.0f} ms."
    ]
    for student in students:
        pad = one(scores, method="pad", student=student, **where)
        lines.append(f"- {student} after PAD: {pad['tokens_per_question']:.0f} tokens, "
                     f"{spent['pad', student] * 1000:.0f} ms per question.")  # fmt: skip
    return "\n".join(lines)


def once_table(table: pd.DataFrame) -> pd.DataFrame:
    """The one-time costs, by student, method and part: thousands of tokens, and seconds; empty if not timed."""
    rows = table[table["setting"] == "once"]
    debates = rows["student"] == ""
    rows = rows.assign(
        student=rows["student"].mask(debates, "(all)"),
        method=rows["method"].mask(debates, "debates on training questions"),
    )
    wide = rows.pivot_table(index=["student", "method", "part"], columns="metric", values="value", sort=False)
    wide = wide.reindex(columns=UNITS).assign(tokens=wide["tokens"] / 1000)
    return wide.rename(columns={"tokens": "thousand tokens"})


def break_even_table(table: pd.DataFrame) -> pd.DataFrame:
    """Questions until a student breaks even, with the interval, by student and method; columns: units and baselines."""
    rows = table[table["setting"] == "break-even"]
    cells = [f"{r.value:,.0f} [{r.lo:,.0f}, {r.hi:,.0f}]" for r in rows.itertuples()]
    index, columns = ["student", "method"], ["metric", "baseline"]
    return rows.assign(cell=cells).pivot_table("cell", index, columns, aggfunc="first", sort=False)


def break_even_findings(table: pd.DataFrame) -> str:
    """One line per student and method: the questions until it breaks even, by unit and baseline."""
    rows, lines = table[table["setting"] == "break-even"], []
    for (student, method), part in rows.groupby(["student", "method"], sort=False):
        clauses = []
        for r in part.itertuples():
            after = f"{r.value:,.0f} [{r.lo:,.0f}, {r.hi:,.0f}] questions" if math.isfinite(r.value) else "never"
            clauses.append(f"{r.metric}, against a {r.baseline}: {after}")
        untimed = "" if "seconds" in set(part["metric"]) else "; this run did not time its training"
        lines.append(f"- **{student}, {NAMES[method]}** breaks even in {'; in '.join(clauses)}{untimed}.")
    return "\n".join(lines)


def table(scores: pd.DataFrame, metric: str, train_task: str) -> pd.DataFrame:
    """Systems by test task, the training task first: value and half-width of the interval."""
    rows = select(scores, metric=metric, setting="test").replace({"student": {"": "teacher"}})
    rows["cell"] = [
        f"{v:.3f} ± {(h - l) / 2:.3f}" for v, l, h in zip(rows["value"], rows["lo"], rows["hi"], strict=True)
    ]
    wide = rows.pivot_table("cell", ["student", "method"], "test_task", aggfunc="first", sort=False)
    return wide[sorted(wide.columns, key=lambda task: task != train_task)].fillna("")


def marked_trace(trace: dict) -> str:
    """A trace with a mark beside each line: right or wrong."""
    width = max((len(line) for line, _ in trace["lines"]), default=0)
    signs = {True: "✓", False: "✗", None: ""}
    return "\n".join(f"{line:<{width}}  {signs[right]}".rstrip() for line, right in trace["lines"]) or "(nothing)"


def transcripts(path: Path) -> str:
    """The example questions as Markdown: one agent over the rounds, the student before and after training."""
    parts = []
    for example in json.loads(path.read_text()):
        parts.append(
            f"### {example['kind'].capitalize()}\n\n{html.escape(example['question'])} *Gold answer: {example['answer']}*"
        )
        parts.append(f"Agent {example['agent']} of the debate, and the summary:")
        for turn in example["debate"]:
            if turn["agent"] in (example["agent"], 0):
                who = "summary" if turn["agent"] == 0 else f"round {turn['round']}"
                parts.append(f"```\n{who}\n{marked_trace(turn)}\n```")
        parts.append(f"{example['student']}, before and after training:")
        parts += [f"```\n{NAMES[answer['method']]}\n{marked_trace(answer)}\n```" for answer in example["answers"]]
    return "\n\n".join(parts) or "No debate of this run had a second round."


def likelihood_findings(found: pd.DataFrame, student: str) -> str:
    """For each method, whether its likelihood of gold reasoning is above the base's."""
    rows = select(found, student=student)
    base = one(rows, metric="perplexity", method="base")
    clauses = []
    for _, row in rows[rows["metric"] == "nll_difference"].iterrows():
        side = "higher" if row["hi"] < 0 else "lower" if row["lo"] > 0 else "not detectably different"
        clauses.append(f"{NAMES[row['method']]}: likelihood {side}, {signed(row)} nats per token")
    return f"**{student}**: the perplexity of gold reasoning under the base is {number(base)}. {'; '.join(clauses)}."


def robustness_findings(found: pd.DataFrame, student: str) -> list[str]:
    """One sentence per method (student "" is the teacher): where it is better or worse than its base, and the loss of
    accuracy by perturbations and by a wrong hint."""
    rows, lines = select(found, metric="accuracy_gain", student=student), []
    for method in (m for m in METHODS if m in set(rows["method"])):
        own = rows[rows["method"] == method]
        over = own[own["baseline"] == "base"].query("baseline_variant == ''").set_index("setting")
        lost, hint = (own[own["baseline_variant"] == b].set_index("setting") for b in ("unperturbed", "right hint"))
        sentence = f"**{f'{student}, ' if student else 'teacher, '}{NAMES[method]}**: "
        if len(over):
            better, worse = over.index[over["lo"] > 0], over.index[over["hi"] < 0]
            sentence += f"better than the base in {listed(list(better))}; worse in {listed(list(worse))}. "
        losing = lost.index[lost["hi"] < 0]
        sentence += f"Accuracy falls against the unperturbed questions in {listed(list(losing))}"
        if len(losing):
            sentence += f", most in {(most := lost['value'].idxmin())} ({signed(lost.loc[most])})"
        for _, row in hint.iterrows():
            sentence += f". Wrong hint vs. right hint: {signed(row)} ({verdict(row)})"
        lines.append(f"{sentence}.")
    return lines

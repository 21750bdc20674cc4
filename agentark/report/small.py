"""The page of a run with real models (scale `small`): its findings, and the same contrasts in the generated world."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from agentark.report import sentences
from agentark.report.sentences import NAMES, cell, named_verdict, number, one, select, signed, verdict
from agentark.schemas import read_scores

MINI_TASK, MINI_TEAM, MINI_STUDENT = "equation", "teacher", "qwen3-small"
# The contrasts of the page: claim, system, baseline, table of the generated world with the contrast, condition of the
# system in that table, condition of the baseline.
CONTRASTS = [
    ("The debate beats greedy decoding", "debate", "greedy", "ablation_controls", MINI_TEAM, ""),
    ("The debate beats the vote at equal calls", "debate", "vote", "ablation_controls", MINI_TEAM, ""),
    ("The debate beats self-revision", "debate", "self_revision", "ablation_controls", MINI_TEAM, ""),
    ("Communication helps", "debate", "debate_off", "ablation_controls", MINI_TEAM, ""),
    ("R-SFT on the debate beats the base", "rsft", "base", "scores", "", ""),
    ("... R-SFT on greedy traces", "rsft", "rsft", "ablation_sources", "debate, verified", "greedy"),
    ("... R-SFT on self-revised traces", "rsft", "rsft", "ablation_sources", "debate, verified", "self_revision"),
    ("... R-SFT on communication-off traces", "rsft", "rsft", "ablation_sources", "debate, verified", "debate_off"),
    ("DA beats the base", "da", "base", "scores", "", ""),
    ("PAD beats the base", "pad", "base", "scores", "", ""),
]


def main_finding(scores: pd.DataFrame, student: str, task: str) -> str:
    """Return the main finding: the debate against the best baseline with no more calls, and the student trained on the
    debate against the best other student."""
    debate = sentences.gain_over_best(scores, setting="test", test_task=task, student="", method="debate")
    trained = select(scores, metric="accuracy", setting="test", test_task=task, student=student)
    own = one(trained, method="rsft", variant="")
    other = trained[(trained["method"] == "base") | (trained["variant"] != "")].sort_values("value").iloc[-1]
    gains = select(scores, metric="accuracy_gain", student=student, method="rsft", variant="", test_task=task)
    gain = one(gains, baseline=other["method"], baseline_variant=other["variant"])
    source = f"R-SFT on traces of {NAMES[other['variant']]}" if other["variant"] else "the untrained base"
    return (
        f"the debate on `{task}`: {debate} **{student}** after R-SFT on the debate: {number(own)}; vs. the best of the "
        f"others, {source} ({other['value']:.3f}), {named_verdict(gain)}."
    )


def models(setting: Mapping) -> str:
    """Return the models of a run by name and source. A file's SHA-256 is shortened (setting.json has all of it)."""
    sources = [f"{name}: {source}" for name, source in setting["models"].items()]
    return re.sub(r"(SHA-256 \w{12})\w+", r"\1…", "; ".join(sources))


def summary(kept: Path) -> str:
    """Return the main finding of the run whose tables are in the folder `kept`, with its teacher."""
    setting = json.loads((kept / "setting.json").read_text())
    teacher = next(name for name in setting["models"] if name not in setting["students"])
    model = setting["models"][teacher].split(" (")[0]
    found = main_finding(read_scores(kept / "scores.csv"), setting["students"][0], setting["train_task"])
    return f"**Real models** (teacher {model}): {found}"


def systems(scores: pd.DataFrame) -> pd.DataFrame:
    """Return every system on every test task: accuracy with its interval, n, calls and tokens per question."""
    rows = select(scores, metric="accuracy", setting="test").replace({"student": {"": "teacher"}})
    columns = {
        "task": rows["test_task"], "student": rows["student"], "method": rows["method"], "traces": rows["source"],
        "accuracy": rows.apply(cell, axis=1), "n": rows["n"], "calls": rows["calls_per_question"].round(2),
        "tokens": rows["tokens_per_question"].round(0).astype(int),
    }  # fmt: skip
    return pd.DataFrame(columns).set_index(["task", "student", "method", "traces"])


def round_finding(rounds: pd.DataFrame) -> str:
    """Return how accuracy changes from round 1 to the last round, from the table of rounds."""
    first, last = rounds.iloc[0], rounds.iloc[-1]
    return (
        f"From round 1 to round {last['round']:.0f} the accuracy of one agent changes from {first['single']:.3f} to "
        f"{last['single']:.3f}, that of the agents' vote from {first['vote']:.3f} to {last['vote']:.3f}. "
        f"{last['corrected']:.1%} of the agents are corrected, {last['spoilt']:.1%} spoilt (n = {last['n']:.0f} debates)."
    )


def student_findings(scores: pd.DataFrame, student: str, task: str) -> list[str]:
    """Return the accuracy of the base and of each trained student, with its gain over the base, in domain."""
    where = dict(test_task=task, student=student, setting="test")
    lines = [
        f"The base of **{student}** has an accuracy of {number(one(scores, metric='accuracy', method='base', **where))}."
    ]
    trained = select(scores, metric="accuracy", **where)
    for _, row in trained[trained["method"] != "base"].iterrows():
        own = select(scores, metric="accuracy_gain", method=row["method"], variant=row["variant"], **where)
        gain = own[(own["baseline"] == "base") & (own["baseline_variant"] == "")].iloc[0]
        source = f" on traces of {NAMES[row['variant']]}" if row["variant"] else ""
        lines.append(f"{NAMES[row['method']]}{source}: {number(row)}; vs. the base {named_verdict(gain)}.")
    return lines


def contrast_rows(scores: pd.DataFrame, task: str, student: str, mini: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return a row for each of CONTRASTS: gain, interval and verdict with real models and in the generated world.

    mini: the tables of the generated world by name. A contrast that is missing in a run is "not run".
    """
    rows = []
    for claim, method, baseline, name, condition, baseline_condition in CONTRASTS:
        real = dict(method=method, baseline=baseline, baseline_variant=baseline_condition, variant="", test_task=task)
        world = dict(method=method, baseline=baseline, variant=condition, test_task=MINI_TASK)
        world["baseline_variant"] = f"{baseline_condition}, verified" if baseline_condition else ""
        rows.append(
            {
                "claim": claim,
                "real models": outcome(scores, student=student if method in ("rsft", "da", "pad") else "", **real),
                "generated world": outcome(
                    mini[name], student=MINI_STUDENT if method in ("rsft", "da", "pad") else "", **world
                ),
            }
        )
    return pd.DataFrame(rows).set_index("claim")


def outcome(table: pd.DataFrame, **where: str) -> str:
    """Return a paired gain as the text of a table cell: value, interval, n and verdict."""
    rows = select(table, metric="accuracy_gain", setting="test", **where) if len(table) else table
    if "level" in rows and len(rows):
        rows = rows[rows["level"].isna()]
    return f"{signed(rows.iloc[0])}, n = {rows.iloc[0]['n']}: {verdict(rows.iloc[0])}" if len(rows) else "not run"


def naming_findings(extraction: pd.DataFrame) -> str:
    """Return the shares of R-SFT's training traces that name an agent; the student sees no agents when it answers."""
    wide = extraction.pivot_table("count", "what", "source", sort=False)
    shares = wide.loc["kept for R-SFT that name an agent"] / wide.loc["kept for R-SFT"]
    sources = {**NAMES, "debate": "the debate"}
    parts = [f"{share:.1%} of those from {sources[source]}" for source, share in shares.items()]
    return (
        "Of the traces that R-SFT trains on, these name an agent, whom the student does not see when it answers: "
        f"{sentences.listed(parts)}."
    )


def unreadable_replies(replies: pd.DataFrame) -> str:
    """Return how many replies of a run have no answer that the checker can read, and how many of them are cut."""
    total = replies[["replies", "without_answer", "cut", "cut_without_answer"]].sum()
    return (
        f"Of {total['replies']:,} replies to test questions {total['without_answer']:,} "
        f"({total['without_answer'] / total['replies']:.1%}) state no answer that the checker reads; "
        f"{total['cut_without_answer']:,} of these are cut at the limit of tokens."
    )


def agreement_with_marks(sampled: pd.DataFrame, marks: pd.DataFrame, same: Callable[[str, str], bool]) -> str:
    """Return how many hand-marked replies the checker agrees with: it reads the same answer and gives the same verdict.

    sampled, marks: tables with columns `reply`, `answer` ("" for none), `right`. same: whether two answers are equal.
    """
    both = sampled.merge(marks, on="reply", suffixes=("", "_by_hand")).astype({"answer": str, "answer_by_hand": str})
    read = both[["answer", "answer_by_hand"]].itertuples(index=False)
    equal = [one == other or bool(one and other and same(one, other)) for one, other in read]
    agreed = (both["right"] == both["right_by_hand"]) & pd.Series(equal, index=both.index)
    return f"A reader marked {len(both)} random replies by hand; the checker agrees on {agreed.sum()} of them ({agreed.mean():.3f})."

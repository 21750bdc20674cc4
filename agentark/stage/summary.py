"""Last step of `make study`: print the main results, update the README, and compare the results with those in git."""

import io
import re
import subprocess
from pathlib import Path

import pandas as pd

from agentark import StudyError, finish, root
from agentark.files import write_atomically

VALUES = ("value", "lo", "hi", "n", "tokens_per_question", "calls_per_question")  # all other columns identify a row
TRACKED = (
    "scores.csv",
    "reasoning.csv",
    "extraction.csv",
    "rounds.csv",
    "curves.csv",
    "replies.csv",
    "transcripts.json",
)
NAMES = {
    "base": "base", "base_steps": "base, steps shown", "sft": "answer-only SFT", "rsft": "R-SFT", "da": "DA", "pad": "PAD", "greedy": "greedy decoding",
    "single": "one sample", "vote": "vote", "debate": "debate",
}  # fmt: skip
MARKED = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)


def read(source: Path | io.BytesIO) -> pd.DataFrame:
    """A results table, with all texts unchanged."""
    table = pd.read_csv(source, dtype=str, keep_default_na=False)
    return table.astype(dict.fromkeys(("value", "lo", "hi", "tokens_per_question"), float))


def committed(path: str) -> bytes | None:
    """A file's bytes in the last commit, or None if the commit does not contain it."""
    shown = subprocess.run(["git", "show", f"HEAD:{path}"], capture_output=True, cwd=root(), check=False)
    return shown.stdout if shown.returncode == 0 else None


def compare(now: pd.DataFrame, before: pd.DataFrame) -> str:
    """How many values differ, how many of them are outside the committed interval, and the largest differences."""
    keys = [name for name in now if name not in VALUES and name in before]
    both = now.merge(before, on=keys, suffixes=("", "_before"), how="outer", indicator=True)
    shared = both[both["_merge"] == "both"]
    moved = shared[(shared["value"] - shared["value_before"]).abs() > 1e-6]
    outside = moved[(moved["value"] < moved["lo_before"]) | (moved["value"] > moved["hi_before"])]
    lines = [
        f"{len(shared)} values are in both, {len(both) - len(shared)} in only one; {len(moved)} differ, "
        f"{len(outside)} of them lie outside the committed 95 % interval"
    ]
    worst = outside.assign(move=(outside["value"] - outside["value_before"]).abs()).nlargest(5, "move")
    for _, r in worst.iterrows():
        lines.append(
            f"  {r['student'] or 'teacher'} {r['method']} on {r['test_task']}, {r['metric']} (seed {r['seed']}): "
            f"{r['value_before']:.3f} [{r['lo_before']:.3f}, {r['hi_before']:.3f}] -> {r['value']:.3f}"
        )
    return "\n".join(lines)


def main_results(scores: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every system on the test questions of the training task, over all seeds."""
    train_task = next(task for task in scores["train_task"] if task)
    rows = scores[(scores["metric"] == "accuracy") & (scores["seed"] == "all") & (scores["setting"] == "test")]
    rows = rows[rows["test_task"] == train_task]
    return rows.replace({"student": {"": "teacher"}})


def markdown(rows: pd.DataFrame) -> str:
    """The main results as the README's table."""
    lines = [f"| model | method | accuracy on `{rows['test_task'].iloc[0]}` (95 % interval) | tokens per question |",
             "|---|---|---|---:|"]  # fmt: skip
    for r in rows.itertuples():
        accuracy = f"{r.value:.3f} [{r.lo:.3f}, {r.hi:.3f}]"
        lines.append(f"| {r.student} | {NAMES[r.method]} | {accuracy} | {r.tokens_per_question:.0f} |")
    return (
        "\n".join([*lines, "", f"n = {rows['n'].iloc[0]} test questions; trained methods are means over seeds."]) + "\n"
    )


def results(rows: pd.DataFrame, findings: Path) -> str:
    """The README's results: the table, and the findings that notebook 10 wrote."""
    return markdown(rows) + ("\n" + findings.read_text() if findings.is_file() else "")


def update_readme(readme: Path, text: str) -> None:
    """Put the results between the README's two markers. Raises StudyError if they are missing."""
    before = readme.read_text(encoding="utf-8")
    if not MARKED.search(before):
        raise StudyError(f"{readme.name}: no `<!-- results -->` ... `<!-- /results -->`; restore it from git")
    updated = MARKED.sub(lambda found: f"{found[1]}{text}{found[2]}", before)
    if updated != before:
        write_atomically(readme, lambda p: p.write_text(updated, encoding="utf-8"))


def main() -> None:
    reports = root() / "reports"
    try:
        scores = read(reports / "scores.csv")
    except OSError as error:
        raise StudyError(f"reports/scores.csv: {error.strerror}; run `make study`") from None
    rows = main_results(scores)
    columns = ["student", "method", "value", "lo", "hi", "n", "tokens_per_question"]
    print(f"\nAccuracy on {rows['test_task'].iloc[0]}, 95 % intervals\n")
    print(rows[columns].to_string(index=False, float_format=lambda v: f"{v:.3f}" if v < 2 else f"{v:.0f}"))
    print(f"\nreport: {reports / 'index.html'}\n")
    update_readme(root() / "README.md", results(rows, reports / "findings.md"))
    same = {name: committed(f"reports/{name}") == (reports / name).read_bytes() for name in TRACKED}
    if all(same.values()):
        print("results: identical, byte for byte, to those in git (seconds are measured again in each run)")
        return
    print("results: files that differ from those in git:", ", ".join(name for name, equal in same.items() if not equal))
    before = committed("reports/scores.csv")
    if before is not None:
        print(compare(scores, read(io.BytesIO(before))))


if __name__ == "__main__":
    finish(main)

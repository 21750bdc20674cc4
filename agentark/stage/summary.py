"""The end of `make study`: the headline, where the report lies, and how the results compare with those in git."""

import io
import subprocess
import sys

import pandas as pd

from agentark import StudyError, finish, root

KEY = ["study", "experiment", "student", "method", "baseline", "train_task", "test_task", "seed", "metric"]
TRACKED = ("scores.csv", "reasoning.csv", "extraction.csv", "rounds.csv", "curves.csv", "transcripts.json")


def committed(path: str) -> bytes | None:
    """A file's bytes in the last commit; None if it is not there."""
    shown = subprocess.run(["git", "show", f"HEAD:{path}"], capture_output=True, cwd=root(), check=False)
    return shown.stdout if shown.returncode == 0 else None


def compare(now: pd.DataFrame, before: pd.DataFrame) -> str:
    """How many values moved, how many of them out of the committed interval, and the largest move."""
    both = now.merge(before, on=KEY, suffixes=("", "_before"), how="outer", indicator=True)
    shared = both[both["_merge"] == "both"]
    moved = shared[(shared["value"] - shared["value_before"]).abs() > 1e-6]
    outside = moved[(moved["value"] < moved["lo_before"]) | (moved["value"] > moved["hi_before"])]
    lines = [
        f"{len(shared)} values in both, {len(both) - len(shared)} in one only; {len(moved)} differ, "
        f"{len(outside)} of them lie outside the committed 95 % interval"
    ]
    worst = outside.assign(move=(outside["value"] - outside["value_before"]).abs()).nlargest(5, "move")
    for _, r in worst.iterrows():
        lines.append(
            f"  {r['student'] or 'teacher'} {r['method']} on {r['test_task']}, {r['metric']} (seed {r['seed']}): "
            f"{r['value_before']:.3f} [{r['lo_before']:.3f}, {r['hi_before']:.3f}] -> {r['value']:.3f}"
        )
    return "\n".join(lines)


def main() -> int:
    try:
        reports = root() / "reports"
        read = {"dtype": {"seed": str}, "keep_default_na": False}
        scores = pd.read_csv(reports / "scores.csv", **read)
    except (StudyError, OSError) as error:
        print(f"error: {error}; run `make study`", file=sys.stderr)
        return 1
    top = scores[(scores["metric"] == "accuracy") & (scores["seed"] == "all") & (scores["experiment"] == "test")]
    train_task = next(t for t in scores["train_task"] if t)
    top = top[top["test_task"] == train_task]
    shown = top[["student", "method", "value", "lo", "hi", "n", "tokens_per_question"]].replace(
        {"student": {"": "teacher"}}
    )
    print(f"\nAccuracy on {train_task}, 95 % intervals\n")
    print(shown.to_string(index=False, float_format=lambda v: f"{v:.3f}" if v < 2 else f"{v:.0f}"))
    print(f"\nreport: {reports / 'index.html'}\n")
    same = {name: committed(f"reports/{name}") == (reports / name).read_bytes() for name in TRACKED}
    if all(same.values()):
        print("results: identical, byte for byte, to those in git (seconds are measured anew in each run)")
        return 0
    print("results: not the bytes in git:", ", ".join(name for name, equal in same.items() if not equal))
    before = committed("reports/scores.csv")
    if before is not None:
        print(compare(scores, pd.read_csv(io.BytesIO(before), **read)))
    return 0


if __name__ == "__main__":
    finish(main)

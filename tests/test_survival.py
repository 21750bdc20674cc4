"""Stages that are killed or told to stop, and started again: nothing finished is repeated, the tables are the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_study import digests, environment, stage

from agentark import STOPPED

pytestmark = pytest.mark.long

TRAINING = ["05_distill", "student=llama-small", "method=rsft", "sft.steps=60", "sft.save_steps=5"]
# name: the stage, its outputs, and the files that show that it is at work
STAGES = {
    "debate": (["03_debate", "split=in_domain", "rounds=4", "store=data/store-cut", "out=data/debates/cut"],
               ["data/debates/cut"], "data/store-cut/??/*.json"),
    "training": ([*TRAINING, "out=data/students/cut/rsft"],
                 ["data/students/cut"], "data/checkpoints/*/checkpoint-*/trainer_state.json"),
    "evaluation": (["08_evaluate", "store=data/store-cut-too"],
                   ["data/predictions", "reports/scores.csv", "reports/summary.json", "reports/rounds.csv"],
                   "data/store-cut-too/??/*.json"),
}  # fmt: skip


def tables(folder: Path, outs: list[str]) -> dict[str, str]:
    single = [folder / out for out in outs if (folder / out).is_file()]
    return digests(folder, *outs) | {str(file): file.read_text() for file in single}


def at_work(folder: Path, shown: str) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.glob(shown)}


def cut_short(folder: Path, arguments: list[str], shown: str, number: int) -> subprocess.Popen:
    """Run a stage and send it a signal as soon as it has finished something more."""
    before = set(at_work(folder, shown))
    process = subprocess.Popen(
        [sys.executable, "-m", "agentark.stage", *arguments], cwd=folder, env=environment(folder),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not set(at_work(folder, shown)) - before:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.kill(process.pid, number)
    return process


def take_back_half(files: dict[Path, int]) -> None:
    """Remove the later half of the files: the kernel works for up to a second after its stage is killed and may finish."""
    for file in sorted(files, key=files.__getitem__)[len(files) // 2 :]:
        file.unlink()
        del files[file]


def ended(folder: Path) -> bool:
    """Whether no kernel or worker of this copy is left, which takes a second after SIGKILL."""
    for _ in range(100):
        left = [p for p in Path("/proc").glob("[0-9]*") if runs_in(p, folder)]
        if not left:
            return True
        time.sleep(0.1)
    return False


def runs_in(process: Path, folder: Path) -> bool:
    try:
        return (process / "cwd").resolve().is_relative_to(folder) and b"ipykernel" in (process / "cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_cut_short_ends_in_the_same_tables(copied, name):
    arguments, outs, shown = STAGES[name]
    stage(copied, *arguments)
    whole = tables(copied, outs)
    assert whole
    for file in copied.glob(f"data/store-cut{'-too' if name == 'evaluation' else ''}/??/*.json"):
        file.unlink()
    finished: dict[Path, int] = {}
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = cut_short(copied, arguments, shown, number)
        _, told = process.communicate()
        if number == signal.SIGKILL:
            assert process.returncode == -number and ended(copied)
        elif name == "training" or process.returncode:  # the others end if their last batches are in flight
            assert process.returncode == STOPPED, told
            assert f"stopped by {signal.Signals(number).name}; " in told.splitlines()[-1]
            assert told.endswith("run the same command again to go on\n")
            assert not list(copied.glob("data/**/.partial-*"))
        assert tables(copied, outs) == whole
        now = at_work(copied, shown)
        assert name == "training" or finished.items() <= now.items()
        if name != "training" and number == signal.SIGKILL:
            take_back_half(now)
        finished = now
    again = stage(copied, *arguments)
    assert tables(copied, outs) == whole
    assert name != "training" or again.stdout.count("training continues after step") > 0
    assert name == "training" or finished.items() <= at_work(copied, shown).items()

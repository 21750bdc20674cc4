"""Killed or terminated stages that are started again: no finished work is repeated, and the tables are the same."""

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
# name: the stage with its arguments, its outputs, and a pattern of the files that it writes as it progresses
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


def progress(folder: Path, pattern: str) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.glob(pattern)}


def interrupt(folder: Path, arguments: list[str], pattern: str, number: int) -> subprocess.Popen:
    """Run a stage and send it a signal as soon as it has written another file of `pattern`."""
    before = set(progress(folder, pattern))
    process = subprocess.Popen(
        [sys.executable, "-m", "agentark.stage", *arguments], cwd=folder, env=environment(folder),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not set(progress(folder, pattern)) - before:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.kill(process.pid, number)
    return process


def remove_later_half(files: dict[Path, int]) -> None:
    """Remove the later half of the files, because the kernel runs for up to a second after its stage is killed and may
    finish the work."""
    for file in sorted(files, key=files.__getitem__)[len(files) // 2 :]:
        file.unlink()
        del files[file]


def no_process_is_left(folder: Path) -> bool:
    """Wait up to 10 seconds until no kernel or worker of this copy is left; returns whether that is so."""
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
def test_interrupted_stage_ends_with_the_same_tables(copied, name):
    arguments, outs, pattern = STAGES[name]
    stage(copied, *arguments)
    expected = tables(copied, outs)
    assert expected
    for file in copied.glob(f"data/store-cut{'-too' if name == 'evaluation' else ''}/??/*.json"):
        file.unlink()
    finished: dict[Path, int] = {}
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = interrupt(copied, arguments, pattern, number)
        _, stderr = process.communicate()
        if number == signal.SIGKILL:
            assert process.returncode == -number and no_process_is_left(copied)
        elif name == "training" or process.returncode:  # other stages finish if only their last batches are left
            assert process.returncode == STOPPED, stderr
            assert f"stopped by {signal.Signals(number).name}; " in stderr.splitlines()[-1]
            assert stderr.endswith("run the same command again to go on\n")
            assert not list(copied.glob("data/**/.partial-*"))
        assert tables(copied, outs) == expected
        now = progress(copied, pattern)
        assert name == "training" or finished.items() <= now.items()
        if name != "training" and number == signal.SIGKILL:
            remove_later_half(now)
        finished = now
    again = stage(copied, *arguments)
    assert tables(copied, outs) == expected
    assert name != "training" or again.stdout.count("training continues after step") > 0
    assert name == "training" or finished.items() <= progress(copied, pattern).items()

"""A killed debate resumes and ends with the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_study import call, copy_of_project, digests, environment, stage

pytestmark = pytest.mark.long

DEBATE = ["03_debate", "split=in_domain", "agents=5", "rounds=3", "temperature=1.3", "questions=data/more"]


def finished(store: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in store.rglob("*.json")}


def test_debate_killed_five_times_ends_with_the_same_bytes(tmp_path):
    """SIGKILL at five different moments; no finished batch is generated again."""
    folder = copy_of_project(tmp_path)
    stage(folder, "01_questions", "test=128", "train=1", "test_other=1", "test_hard=1", "out=data/more")
    stage(folder, *DEBATE, "out=data/debates/whole", "store=data/store-whole")
    total = len(finished(folder / "data" / "store-whole"))
    rng, store = random.Random(5), folder / "data" / "store-cut"
    command = [sys.executable, "-m", "agentark.stage", *DEBATE, "out=data/debates/cut", "store=data/store-cut"]
    before: dict[Path, int] = {}
    for kill_at in sorted(rng.sample(range(1, total), 5)):
        process = subprocess.Popen(
            command, cwd=folder, env=environment(folder), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while len(finished(store)) < kill_at and process.poll() is None:
            time.sleep(0.02)
        time.sleep(rng.random() / 2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.5)
        assert not (folder / "data" / "debates" / "cut").exists()
        now = finished(store)
        assert before.items() <= now.items(), "a finished batch was generated again"
        before = now
    call(folder, *command)
    now = finished(store)
    assert before.items() <= now.items() and len(now) == total
    tables = [digests(folder, f"data/debates/{name}") for name in ("whole", "cut")]
    assert list(tables[0].values()) == list(tables[1].values())

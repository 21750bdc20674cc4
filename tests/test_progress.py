"""Progress: one bar over all processes, on the terminal of a stage and not in its notebook."""

import os
import pty
import re
import select
import subprocess
import sys
import time

from agentark.distill.settings import SFT
from agentark.distill.training import arguments
from agentark.parallel import TERMINAL, TICKS, progress, run_all, tick


def work(parts: int) -> None:
    for _ in range(parts):
        tick()
        time.sleep(0.05)


def test_a_bar_counts_the_parts_of_all_processes(capsys, monkeypatch):
    monkeypatch.setenv("AGENTARK_WORKERS", "2")
    monkeypatch.delenv(TERMINAL, raising=False)  # another test may have run a stage in this process
    with progress(120, "debates", "question"):
        run_all(work, [{"parts": 60}, {"parts": 60}])
        with progress(5, "within", "step"):  # a nested bar is not shown
            pass
    shown = capsys.readouterr().err
    counts = [int(n) for n in re.findall(r"(\d+)/120", shown)]
    assert counts == sorted(counts) and counts[-1] > 60 and "question/s" in shown and "within" not in shown
    assert TICKS not in os.environ


def test_short_work_shows_no_bar_and_a_tick_without_a_bar_does_nothing(capsys):
    tick()
    with progress(2, "grading", "question"):
        tick()
    assert capsys.readouterr().err == ""


PROGRAM = """
import time
from agentark.parallel import progress, tick
with progress(12, "trainings", "step"):
    for _ in range(12):
        tick()
        time.sleep(0.5)
"""


def test_a_stage_shows_its_bar_only_on_the_terminal():
    leader, follower = pty.openpty()
    variables = os.environ | {"AGENTARK_TERMINAL": os.ttyname(follower)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=variables, check=True)
    ready, *_ = select.select([leader], [], [], 10)
    shown = os.read(leader, 100_000).decode() if ready else ""
    assert done.stdout == done.stderr == "" and "trainings" in shown and "step/s" in shown
    variables = os.environ | {"AGENTARK_TERMINAL": ""}  # no terminal, as under CI
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=variables, check=True)
    assert done.stdout == done.stderr == ""


def test_report_to_and_run_name_are_passed_to_the_trainer():
    settings = SFT(steps=2, batch_size=2, learning_rate=0.1, report_to="tensorboard")
    found = arguments(settings, 0, 2, "rsft base seed 0")
    assert found["report_to"] == "tensorboard" and found["run_name"] == "rsft base seed 0"
    assert (
        "report_to" not in settings.recorded()
        and arguments(settings.but(report_to="none"), 0, 2)["report_to"] == "none"
    )

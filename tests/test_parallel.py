import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from agentark import StudyError
from agentark.parallel import run_all


def gather(folder: Path, n: int) -> int:
    """The number of processes in this function at once: waits for `n` of them, but not longer than 20 seconds."""
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + 20
    while (present := len(list(folder.iterdir()))) < n and time.monotonic() < end:
        time.sleep(0.05)
    return present


def fail(n: int) -> int:
    if n == 1:
        raise StudyError("the second is at fault")
    time.sleep(60 * n)
    return n


def vanish(n: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nested(n: int) -> list[int]:
    return run_all(os.getpid, [{}] * n)


@pytest.fixture(autouse=True)
def two_workers(monkeypatch):
    monkeypatch.setenv("AGENTARK_WORKERS", "2")


@pytest.mark.parametrize(("crowded", "expected"), [(True, [3, 3, 3]), (False, [2, 2, 2])])
def test_three_calls_on_two_cores_run_at_the_same_time_only_if_crowded(tmp_path, crowded, expected):
    assert run_all(gather, [dict(folder=tmp_path, n=expected[0])] * 3, crowded) == expected


def test_results_are_in_the_order_of_the_calls():
    assert run_all(pow, [dict(base=n, exp=2) for n in range(9)]) == [n * n for n in range(9)]
    assert run_all(pow, []) == []


def test_failed_call_is_raised_at_once_and_ends_the_others():
    start, others = time.monotonic(), set(multiprocessing.active_children())
    with pytest.raises(StudyError, match="the second is at fault"):
        run_all(fail, [dict(n=2), dict(n=1), dict(n=3)])
    assert time.monotonic() - start < 30
    assert set(multiprocessing.active_children()) <= others


def test_killed_worker_is_reported_with_the_name_of_its_function():
    with pytest.raises(StudyError, match=r"test_parallel.vanish: a process was killed"):
        run_all(vanish, [dict(n=0), dict(n=1)])


def test_workers_start_no_workers_of_their_own():
    assert [len(set(pids)) for pids in run_all(nested, [dict(n=4)] * 2)] == [1, 1]


def is_running(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_workers_end_when_their_parent_process_is_killed(tmp_path):
    program = f"""
import pathlib, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from agentark.parallel import run_all
from test_parallel import gather
run_all(gather, [dict(folder=pathlib.Path({str(tmp_path)!r}), n=99)] * 2)
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    assert gather(tmp_path, 3) == 3  # this process and two workers, which would otherwise wait for 20 seconds
    workers = [int(p.name) for p in tmp_path.iterdir() if int(p.name) != os.getpid()]
    assert len(workers) == 2 and all(map(is_running, workers))
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    while any(map(is_running, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_running, workers))

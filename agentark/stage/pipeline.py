"""`make grid`, `make leaderboard`: the stages of notebooks/NAME/dvc.yaml, as many in parallel as there are cores."""

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import psutil
from tqdm import tqdm

from agentark import deadline, finish, root
from agentark.files import write_json
from agentark.parallel import workers

NAMES = ("grid", "leaderboard")


def runs_dvc(pid: int) -> bool:
    """Whether a process is a DVC command at work: neither dead, nor killed and not yet waited for (a zombie, which stays
    in a container without an init process), nor another program that was given the pid since."""
    try:
        return any("dvc" in word for word in psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return False


def drop_dead_locks(project: Path) -> None:
    """Remove from DVC's table of running stages what a kill left there, so that the next command starts: the stages of
    dead processes, and the whole table if it is not JSON (DVC does not write it atomically)."""
    table = project / ".dvc" / "tmp" / "rwlock"
    try:
        locks = json.loads(table.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError:
        table.unlink(missing_ok=True)
        return
    writers = {path: writer for path, writer in locks.get("write", {}).items() if runs_dvc(writer["pid"])}
    readers = {path: [one for one in some if runs_dvc(one["pid"])] for path, some in locks.get("read", {}).items()}
    write_json({"write": writers, "read": {path: some for path, some in readers.items() if some}}, table)


def file_of(pipeline: str) -> str:
    return f"notebooks/{pipeline}/dvc.yaml"


def stages(pipeline: str) -> list[str]:
    """The names of a pipeline's stages, in its order."""
    listed = subprocess.run(
        ["dvc", "stage", "list", "--name-only", file_of(pipeline)],
        cwd=root(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line.partition(":")[2] for line in listed.stdout.split()]


def repro(pipeline: str, name: str, cores: int) -> tuple[bool, str]:
    """Bring one stage up to date. Returns whether that succeeded, and its output."""
    done = subprocess.run(
        ["dvc", "--wait-for-lock", "repro", "--single-item", f"{file_of(pipeline)}:{name}"],
        cwd=root(), env=os.environ | {"AGENTARK_WORKERS": str(cores)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    return done.returncode == 0, done.stdout


def run(pipeline: str, names: Sequence[str], repro: Callable[[str, str, int], tuple[bool, str]] = repro) -> bool:
    """Bring stages up to date, one kind after another (in the grid base models, questions, debates, cells), with as many
    of a kind in parallel as there are cores. `dvc repro` runs one stage at a time, and a stage on two cores sometimes
    leaves one idle.

    A progress bar shows the finished stages and the time left. Returns whether all stages succeeded. After a failure
    the end of the stage's output is printed, running stages finish, and no other starts.
    """
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(name.partition("@")[0], []).append(name)
    with tqdm(total=len(names), desc=pipeline, unit=" stage") as bar:
        for some in kinds.values():
            with ThreadPoolExecutor(workers()) as threads:
                running = {threads.submit(repro, pipeline, name, max(1, workers() // len(some))): name for name in some}
                try:
                    for future in as_completed(running):
                        succeeded, output = future.result()
                        if not succeeded:
                            threads.shutdown(cancel_futures=True)
                            print(f"{pipeline}: {running[future]} failed\n{output[-2000:]}", flush=True)
                            return False
                        bar.set_postfix_str(running[future])
                        bar.update()
                except KeyboardInterrupt:  # running stages heed it too; no other starts
                    threads.shutdown(cancel_futures=True)
                    raise
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m agentark.stage.pipeline", description=__doc__)
    parser.add_argument("pipeline", choices=NAMES)
    pipeline = parser.parse_args().pipeline
    deadline.begin()
    drop_dead_locks(root())
    return 0 if run(pipeline, stages(pipeline)) else 1


if __name__ == "__main__":
    finish(main)

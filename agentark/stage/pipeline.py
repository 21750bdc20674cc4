"""`make grid`, `make leaderboard`: the stages of notebooks/NAME/dvc.yaml, as many in parallel as there are cores.

With RAY_ADDRESS they are independent tasks of that Ray cluster, whose machines share the project's folder.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import psutil
from tqdm import tqdm

from agentark import StudyError, deadline, finish, first_line, root
from agentark.files import write_json
from agentark.parallel import workers

NAMES = ("grid", "leaderboard", "ablations")
# (pipeline, stage, cores) -> whether the stage was brought up to date, and its output
Repro = Callable[[str, str, int], tuple[bool, str]]


def runs_dvc(pid: int) -> bool:
    """Whether a process is a running DVC command: not dead, not a zombie (killed but not waited for; zombies stay in a
    container without an init process), and not another program that got the pid later."""
    try:
        return any("dvc" in word for word in psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return False


def drop_dead_locks(project: Path) -> None:
    """Remove the stages of dead processes from DVC's table of running stages, so that the next command starts after a
    kill. Delete the table if it is not JSON (DVC does not write it atomically)."""
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
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # a stage runs `python`
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", f"{file_of(pipeline)}:{name}"],
        cwd=root(), env=os.environ | {"AGENTARK_WORKERS": str(cores), "PATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    return done.returncode == 0, done.stdout


def on_ray() -> tuple[Repro, int]:
    """`repro` as a task of the Ray cluster at RAY_ADDRESS, and the cluster's cores. Tasks are not retried: the next
    run of the command removes the entries of a lost machine from DVC's table of running stages.

    Raises StudyError if Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise StudyError("RAY_ADDRESS: ray is not installed here; add it with `pip install -e .[cluster]`") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, configure_logging=False)
    remote, folder = ray.remote(max_retries=0)(repro_in), str(root())
    largest = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])

    def repro_there(pipeline: str, name: str, cores: int) -> tuple[bool, str]:
        cores = min(cores, largest)  # a task runs on one machine
        try:
            return ray.get(remote.options(num_cpus=cores).remote(folder, pipeline, name, cores))
        except ray.exceptions.RayError as error:
            return False, f"the machine was lost, or the task failed ({first_line(error)}); run the command again"

    return repro_there, int(ray.cluster_resources()["CPU"])


def repro_in(folder: str, pipeline: str, name: str, cores: int) -> tuple[bool, str]:
    """`repro` of the project in `folder`, on the machine where this runs."""
    if not (Path(folder) / "params.yaml").is_file():
        return False, f"{platform.node()} has no project in {folder}; put it into a folder that all machines share"
    os.chdir(folder)
    return repro(pipeline, name, cores)


def run(pipeline: str, names: Sequence[str], repro: Repro = repro, cores: int = 0) -> bool:
    """Bring stages up to date, one kind after another (in the grid base models, questions, debates, cells), with as
    many of a kind in parallel as there are cores (0: this machine's). `dvc repro` runs one stage at a time, and a stage
    on two cores sometimes leaves one idle.

    A progress bar shows the finished stages and the time left. Returns whether all stages succeeded. After a failure
    the end of the stage's output is printed, running stages finish, and no other starts.
    """
    cores = cores or workers()
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(name.partition("@")[0], []).append(name)
    with tqdm(total=len(names), desc=pipeline, unit=" stage") as bar:
        for some in kinds.values():
            with ThreadPoolExecutor(cores) as threads:
                running = {threads.submit(repro, pipeline, name, max(1, cores // len(some))): name for name in some}
                try:
                    for future in as_completed(running):
                        succeeded, output = future.result()
                        if not succeeded:
                            threads.shutdown(cancel_futures=True)
                            print(f"{pipeline}: {running[future]} failed\n{output[-2000:]}", flush=True)
                            return False
                        bar.set_postfix_str(running[future])
                        bar.update()
                except KeyboardInterrupt:  # running stages receive it too; no other stage starts
                    threads.shutdown(cancel_futures=True)
                    raise
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m agentark.stage.pipeline", description=__doc__)
    parser.add_argument("pipeline", choices=NAMES)
    pipeline = parser.parse_args().pipeline
    deadline.begin()
    drop_dead_locks(root())
    remote = on_ray() if os.environ.get("RAY_ADDRESS") else ()
    return 0 if run(pipeline, stages(pipeline), *remote) else 1


if __name__ == "__main__":
    finish(main)

"""`make grid`: the stages of notebooks/grid/dvc.yaml, as many at once as there are cores."""

import os
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from tqdm import tqdm

from agentark import finish, root
from agentark.parallel import workers

PIPELINE = "notebooks/grid/dvc.yaml"


def stages() -> list[str]:
    """The names of the grid's stages, in the order of the pipeline."""
    listed = subprocess.run(
        ["dvc", "stage", "list", "--name-only", PIPELINE], cwd=root(), capture_output=True, text=True, check=True
    )
    return [line.partition(":")[2] for line in listed.stdout.split()]


def repro(name: str, cores: int) -> tuple[bool, str]:
    """Bring one stage up to date. Returns whether that succeeded, and its output."""
    done = subprocess.run(
        ["dvc", "--wait-for-lock", "repro", "--single-item", f"{PIPELINE}:{name}"],
        cwd=root(), env=os.environ | {"AGENTARK_WORKERS": str(cores)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    return done.returncode == 0, done.stdout


def run(names: Sequence[str], repro: Callable[[str, int], tuple[bool, str]] = repro) -> bool:
    """Bring stages up to date, kind after kind (base models, questions, debates, cells), as many of a kind at once as there
    are cores. `dvc repro` runs one stage after the other, and a stage on two cores leaves one of them idle at times.

    A progress bar shows the stages that are done and the time left. Returns whether all stages succeeded. After a failure
    the end of the stage's output is printed, running stages end, and no other starts.
    """
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(name.partition("@")[0], []).append(name)
    with tqdm(total=len(names), desc="grid", unit=" stage") as bar:
        for some in kinds.values():
            with ThreadPoolExecutor(workers()) as threads:
                running = {threads.submit(repro, name, max(1, workers() // len(some))): name for name in some}
                for future in as_completed(running):
                    succeeded, output = future.result()
                    if not succeeded:
                        threads.shutdown(cancel_futures=True)
                        print(f"grid: {running[future]} failed\n{output[-2000:]}", flush=True)
                        return False
                    bar.set_postfix_str(running[future])
                    bar.update()
    return True


def main() -> int:
    return 0 if run(stages()) else 1


if __name__ == "__main__":
    finish(main)

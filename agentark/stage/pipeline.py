"""Runs the grid's DVC stages in parallel."""

import os
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import timedelta
from statistics import mean

from agentark import finish, root
from agentark.parallel import workers

PIPELINE = "notebooks/grid/dvc.yaml"


def stages() -> list[str]:
    """The names of the grid's stages, in the order of the pipeline."""
    listed = subprocess.run(
        ["dvc", "stage", "list", "--name-only", PIPELINE], cwd=root(), capture_output=True, text=True, check=True
    )
    return [line.partition(":")[2] for line in listed.stdout.split()]


def repro(name: str, cores: int) -> tuple[bool, float, str]:
    """Bring one stage up to date. Returns whether that went well, seconds (0 if there was nothing to do), what was said."""
    since = time.monotonic()
    done = subprocess.run(
        ["dvc", "--wait-for-lock", "repro", "--single-item", f"{PIPELINE}:{name}"],
        cwd=root(), env=os.environ | {"AGENTARK_WORKERS": str(cores)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    took = time.monotonic() - since if "Running stage" in done.stdout else 0.0
    return done.returncode == 0, took, done.stdout


def run(
    names: Sequence[str],
    say: Callable[[str], None] = print,
    repro: Callable[[str, int], tuple[bool, float, str]] = repro,
) -> bool:
    """Bring stages up to date, kind after kind (base models, questions, debates, cells), as many of a kind at once as there
    are cores: a stage on one core is busy all the time, on two it is not, and `dvc repro` runs one after the other.

    After each stage `say` is told how many are done and about how long the rest will take: a stage to come as long as those
    of its kind took on average, or, of a kind not seen yet, as all took. Returns whether all went well; of a failed stage
    the last words are said, those that run beside it still end, and no other is begun.
    """
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(name.partition("@")[0], []).append(name)
    left, took = Counter({kind: len(some) for kind, some in kinds.items()}), defaultdict(list)
    for kind, some in kinds.items():
        with ThreadPoolExecutor(workers()) as threads:
            running = {threads.submit(repro, name, max(1, workers() // len(some))): name for name in some}
            for future in as_completed(running):
                well, seconds, words = future.result()
                if not well:
                    threads.shutdown(cancel_futures=True)
                    say(f"grid: {running[future]} failed\n{words[-2000:]}")
                    return False
                left[kind] -= 1
                if seconds:
                    took[kind].append(seconds)
                every = [s for spent in took.values() for s in spent] or [0.0]
                rest = sum(n * mean(took[k] or every) for k, n in left.items()) / workers()
                wait = timedelta(seconds=round(rest))
                say(
                    f"grid: {len(names) - left.total()} of {len(names)} stages done ({running[future]}), about {wait} left"
                )
    return True


def main() -> int:
    return 0 if run(stages(), lambda line: print(line, flush=True)) else 1


if __name__ == "__main__":
    finish(main)

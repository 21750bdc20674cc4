"""Run independent work on all cores, one single-threaded process per core: fast and reproducible on small machines."""

import contextlib
import gc
import io
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from typing import Any

from tqdm.auto import tqdm

from agentark import Stopped, StudyError

TERMINAL = "AGENTARK_TERMINAL"  # set in a stage's kernel: the terminal from which it was started, or ""
tqdm.monitor_interval = 0  # no monitor thread, since workers are forked


def workers() -> int:
    """The number of parallel processes: one per core, or AGENTARK_WORKERS. Results never depend on it.

    1 if torch has been imported and there is a GPU, because models loaded side by side compete for the GPU's memory.
    (Without torch nothing runs on a GPU.) Trainings reach GPUs through distill.launch, at most one per GPU.
    """
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        return 1
    return int(os.environ.get("AGENTARK_WORKERS", len(os.sched_getaffinity(0))))


def workers_for(calls: int) -> int:
    """The number of processes for `calls` calls: one per call if there are fewer than two calls per core.

    Three long calls then share two cores; otherwise the third would run last, with one core idle.
    """
    cores = workers()
    return calls if cores < calls < 2 * cores else min(calls, cores)


def run_all(function: Callable, calls: Iterable[dict[str, Any]], crowded: bool = False) -> list:
    """Run `function(**call)` for every call and return the results in the order of the calls.

    An error in a worker is raised here and ends the other workers; after Stopped they first finish the calls in flight.
    Workers are forked (Linux), so they reuse the parent's imports, which saves up to twelve seconds each. crowded: use
    the number of processes of `workers_for`. Raises StudyError if a worker is killed.
    """
    calls = list(calls)
    processes = workers_for(len(calls)) if crowded else workers()
    if processes == 1 or len(calls) < 2:
        return [function(**call) for call in calls]
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), initializer=_begin) as pool:
        futures = [pool.submit(function, **call) for call in calls]
        try:
            finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
            if error := next((e for f in finished if (e := f.exception())), None):
                if isinstance(error, Stopped):
                    pool.shutdown(cancel_futures=True)
                raise error
        except BaseException as error:
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            if isinstance(error, BrokenProcessPool):
                name = f"{function.__module__}.{function.__name__}"
                raise StudyError(
                    f"{name}: a process was killed, perhaps for lack of memory; AGENTARK_WORKERS=1 needs less"
                ) from None
            raise
        return [f.result() for f in futures]


def _begin() -> None:
    """Set up a new worker: it exits when its parent exits, starts no workers of its own, and writes to the real
    standard streams, since the notebook's output threads do not survive the fork."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # the parent's thread pool does not survive the fork
    os.environ["AGENTARK_WORKERS"] = "1"
    gc.freeze()  # the parent's objects are permanent here; scanning them takes half a second per collection


def _exit_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


TICKS = "AGENTARK_TICKS"  # the file to which every process appends one byte per finished part


@contextlib.contextmanager
def progress(total: int, label: str, unit: str) -> Iterator[None]:
    """Show a progress bar with rate and remaining time while the block runs; `tick` advances it from any process.

    In a stage the bar is one line on the terminal and does not appear in the notebook. Nested blocks add no further
    bar.
    """
    if TICKS in os.environ:
        yield
        return
    with tempfile.NamedTemporaryFile() as file:
        os.environ[TICKS] = file.name
        done = threading.Event()
        terminal = os.environ.get(TERMINAL)  # None: not in a stage
        stream = open(terminal or os.devnull, "w") if terminal is not None else None  # noqa: SIM115
        options: dict[str, Any] = dict(delay=2, miniters=1, mininterval=0, leave=False)
        bar = tqdm(total=total, desc=label, unit=f" {unit}", file=stream, **options)

        def refresh() -> None:
            while not done.wait(0.5):
                bar.update(os.path.getsize(file.name) - bar.n)

        watcher = threading.Thread(target=refresh, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            bar.close()
            del os.environ[TICKS]


def tick(parts: int = 1) -> None:
    """Advance the bar of the surrounding `progress` block, if there is one."""
    if name := os.environ.get(TICKS):
        with contextlib.suppress(OSError):
            _ticks(name).write(b"." * parts)


@lru_cache(maxsize=1)
def _ticks(name: str) -> io.FileIO:
    """The open file `name`, cached: a debate ticks once per call, and opening takes longer than writing."""
    return io.FileIO(name, "ab")


def isolated(function: Callable, **call: Any) -> Any:
    """Run `function(**call)` in its own process, so that its GPU memory is free afterwards."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, **call).result()

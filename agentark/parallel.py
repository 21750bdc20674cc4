"""Independent work on all cores: one single-threaded process each, the fast and steady arrangement on small machines."""

import contextlib
import gc
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm.auto import tqdm

from agentark import StudyError

TERMINAL = "AGENTARK_TERMINAL"  # set in the kernel of a stage: the terminal that it was started from, or ""
tqdm.monitor_interval = 0  # no thread of tqdm's own: workers are forked


def workers() -> int:
    """Processes to run at once: one a core, or AGENTARK_WORKERS. Results never depend on it.

    With GPUs one, if torch has been imported, without which nothing is on a GPU: models loaded side by side on one GPU are
    in each other's way. Trainings, which have a way of their own onto GPUs (distill.launch), are then one a GPU at most.
    """
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        return 1
    return int(os.environ.get("AGENTARK_WORKERS", len(os.sched_getaffinity(0))))


def run_all(function: Callable, calls: Iterable[dict[str, Any]], crowded: bool = False) -> list:
    """`function(**call)` for every call, results in the order of the calls. A worker's error is raised here, and ends the
    other workers.

    Workers are forked (Linux): what is imported here they need not import again, which takes up to twelve seconds each.
    crowded: fewer than two calls a core all run at once. Three long ones on two cores then take turns on them; else the
    third would run alone beside an idle core. Raises StudyError if a worker is killed.
    """
    calls, processes = list(calls), workers()
    if crowded and processes < len(calls) < 2 * processes:
        processes = len(calls)
    if processes == 1 or len(calls) < 2:
        return [function(**call) for call in calls]
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), initializer=_begin) as pool:
        futures = [pool.submit(function, **call) for call in calls]
        try:
            finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
            if error := next((e for f in finished if (e := f.exception())), None):
                raise error
        except BaseException as error:
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            if isinstance(error, BrokenProcessPool):
                name = f"{function.__module__}.{function.__name__}"
                raise StudyError(
                    f"{name}: a process was killed, for want of memory? AGENTARK_WORKERS=1 needs less"
                ) from None
            raise
        return [f.result() for f in futures]


def _begin() -> None:
    """In a new worker: it ends with its parent, however that ends, has no workers of its own, and writes where a process
    writes, not into a notebook whose threads it has not got."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # the parent's other threads, had it any, are not here to wait for
    os.environ["AGENTARK_WORKERS"] = "1"
    gc.freeze()  # what came from the parent stays: to look through it for garbage would take half a second each time


TICKS = "AGENTARK_TICKS"  # the file to which every process of a piece of work appends a byte for each part that is done


@contextlib.contextmanager
def progress(total: int, label: str, unit: str) -> Iterator[None]:
    """Show a bar with rate and time left while the block runs; parts count as `tick` is called, in any process.

    In a stage the bar is one line on the terminal, and nothing of it is in the notebook. There is one bar at a time: a
    block within another adds none.
    """
    if TICKS in os.environ:
        yield
        return
    with tempfile.NamedTemporaryFile() as file:
        os.environ[TICKS] = file.name
        done = threading.Event()
        terminal = os.environ.get(TERMINAL)  # None: not in a stage
        stream = open(terminal or os.devnull, "w") if terminal is not None else None  # noqa: SIM115
        bar = tqdm(total=total, desc=label, unit=f" {unit}", delay=2, dynamic_ncols=True, leave=False, file=stream)

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
    """Count parts of the work as done, for the bar of `progress` around it, if there is one."""
    if name := os.environ.get(TICKS):
        with contextlib.suppress(OSError), open(name, "ab", buffering=0) as file:
            file.write(b"." * parts)


def isolated(function: Callable, **call: Any) -> Any:
    """`function(**call)` in a process of its own: what it holds on a GPU is free again when it has ended."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, **call).result()

"""Independent work on all cores: one single-threaded process each, the fast and steady arrangement on small machines."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from joblib import Parallel, delayed


def workers() -> int:
    """Processes to run at once: one a core, or AGENTARK_WORKERS. Results never depend on it.

    With GPUs one: models loaded side by side on one GPU are in each other's way. Trainings, which have a way of their own
    onto GPUs (distill.launch), are then one a GPU at most.
    """
    import torch  # here, since pages and tables, which never ask, would wait for it

    if torch.cuda.is_available():
        return 1
    return int(os.environ.get("AGENTARK_WORKERS", len(os.sched_getaffinity(0))))


def each(function: Callable, calls: Iterable[dict[str, Any]], crowded: bool = False) -> list:
    """`function(**call)` for every call, results in the order of the calls. A worker's error is raised here.

    crowded: fewer than two calls a core all run at once. Three long ones on two cores then take turns on them; else the
    third would run alone beside an idle core.
    """
    calls, processes = list(calls), workers()
    if crowded and processes < len(calls) < 2 * processes:
        processes = len(calls)
    return Parallel(n_jobs=processes)(delayed(function)(**call) for call in calls)


def apart(function: Callable, **call: Any) -> Any:
    """`function(**call)` in a process of its own: what it holds on a GPU is free again when it has ended."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, **call).result()

"""Benchmarks of a debate without a model, from questions to the store: requests per second, memory, overhead of Ray.

python -m tests.benchmarks.driver adds its rows to `reports/benchmarks.csv`; `make bench` runs all benchmarks.
"""

import contextlib
import importlib.util
import itertools
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import pandas as pd

from agentark import finish, parallel, root
from agentark.debate import run
from agentark.debate.protocols import Debate
from agentark.engines import Batch, Reply, Request, Store, batches_itself, cluster, engine
from agentark.pretrain.training import MAX_TOKENS
from agentark.schemas import Question, write_csv
from agentark.tasks import task

REPEATS = 3
SIZES = (10_000, 100_000)  # numbers of questions, between which memory must not grow
MODEL = "data/models/qwen3-small"
BATCHES, SINGLE = "instant", "http://127.0.0.1#instant"  # engine names: requests in batches; single requests
WORDS = (
    "Bob has 12 + 3 = 15 keys, Carl has twice as many.\nTogether: 15 + 24 = {n} keys.\n\nThe answer is \\boxed{{{n}}}."
)


def spread(what: str, values: Sequence[float], note: str) -> dict:
    median, least, most = statistics.median(values), min(values), max(values)
    return {"what": what, "median": median, "least": least, "most": most, "n": len(values), "note": note}


class Instant:
    """An engine that replies immediately with one of two numbers, so that only some debates end early."""

    fingerprint = "instant"

    def __init__(self, name: str | Path):
        self.rows = 1 if batches_itself(name) else 320

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        return [list(range(len(requests)))[i : i + self.rows] for i in range(0, len(requests), self.rows)]

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Reply]]]:
        for number, (requests, _) in enumerate(batches):
            yield number, [self.reply(request) for request in requests]

    def reply(self, request: Request) -> Reply:
        n = 38 + zlib.crc32(f"{request.seed} {request.messages[-1]['content']}".encode()) % 2
        return Reply(WORDS.format(n=n), 50, 40, "stop", 0.0)


def published_form(number: int) -> list[Question]:
    """Questions in the form of published ones: their answers are extracted by rules, which costs more."""
    base = [q.model_copy(update={"quantities": []}) for q in task("word").questions(700, "train", 0)]
    return [q.model_copy(update={"question_id": f"q{i}"}) for i, q in zip(range(number), itertools.cycle(base))]


@contextlib.contextmanager
def debate(name: str, questions: list[Question], protocol: Debate) -> Iterator[Iterator[run.Rows]]:
    """Run a debate with the instant engine; yields the iterator over its parts (traces and seconds)."""
    with mock.patch.object(run, "engine", Instant), tempfile.TemporaryDirectory() as store:
        yield run.debated(protocol, questions, name, Path(store), 0, MAX_TOKENS)


def core_seconds() -> float:
    """CPU seconds of this process and of the child processes that it has waited for."""
    return sum(os.times()[:4])


def rates(number: int = 1280) -> list[dict]:
    """Requests per core-second, which depend less on other work on the machine than requests per second."""
    questions, rows = published_form(number), []
    for name, mode in ((BATCHES, "batches of up to 320"), (SINGLE, "single requests")):
        values = []
        for _ in range(REPEATS):
            with debate(name, questions, Debate(5, 3, 1.0, 0.2, "shared")) as parts:
                before = core_seconds()
                calls = sum(len(traces) for traces, _ in parts)
                values.append(calls / (core_seconds() - before))
        note = f"{calls:,} requests of {number:,} debates, an instant engine, answers read and stored"
        rows.append(spread(f"driver: requests a core-second, {mode}", values, note))
    return rows


def peak(name: str, number: int, kept: bool) -> float:
    """Growth of this process's peak memory in bytes over `number` debates; kept: all traces stay in memory."""

    def peak_bytes() -> int:
        (found,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return 1024 * int(found)

    questions = published_form(number)
    before = peak_bytes()
    with debate(name, questions, Debate(2, 2, 1.0, 0.2, "shared")) as parts:
        deque(parts, maxlen=None if kept else 0)
    return peak_bytes() - before


def memory(sizes: tuple[int, int] = SIZES, name: str = BATCHES) -> list[dict]:
    """Growth of the peak memory per additional question. Each debate runs in its own process."""
    rows, (few, many) = [], sizes
    for what, kept in (("traces in parts", False), ("all traces kept", True)):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as process:
            small, large = (process.submit(peak, name, number, kept).result() for number in sizes)
        note = f"peak of the driver's process, {small / 1e6:.0f} MB for {few:,} debates and {large / 1e6:.0f} MB for {many:,}"
        rows.append(spread(f"driver: bytes per further question, {what}", [(large - small) / (many - few)], note))
    return rows


def on_ray(number: int = 256) -> list[dict]:
    """Time of one debate on Ray workers on this machine, relative to the same without Ray; no rows without Ray."""
    if importlib.util.find_spec("ray") is None:
        print("ray: beside the plain path: skipped, not installed here")
        return []
    questions, protocol = task("equation").questions(number, "validation", 0), Debate(3, 2, 1.0, 0.2, "shared")

    def seconds(model: str, selected: list[Question] = questions) -> float:
        with tempfile.TemporaryDirectory() as store:
            start = time.perf_counter()
            run.run_debates(protocol, selected, model, Path(store), 0, MAX_TOKENS)
            return time.perf_counter() - start

    for model in (MODEL, f"ray:{MODEL}"):
        seconds(model)  # load the engine in every process first
    ratios = []
    for i in range(REPEATS):
        order = (MODEL, f"ray:{MODEL}")[
            :: 1 - 2 * (i % 2)
        ]  # alternate the order, because the load of the machine drifts
        took = {model: seconds(model) for model in order}
        ratios.append(took[f"ray:{MODEL}"] / took[MODEL])
    cluster.POOL.clear()
    cluster.connect().shutdown()  # its workers occupy all cores
    note = f"{number} questions on {parallel.workers()} cores, workers started before"
    return [spread("debate: on a Ray cluster / without", ratios, note)]


# A server on loopback that replies immediately: prints its address and exits when its standard input closes.
SERVER = """
import sys
from tests.servers import completion, fake_server
with fake_server(lambda *_: completion()) as (name, _):
    print(name, flush=True)
    sys.stdin.read()
"""


def http(number: int = 1000) -> list[dict]:
    """Requests per core-second of this process when a server answers them, as for a teacher given by its address."""
    values, pipes = [], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", SERVER], cwd=root(), text=True, **pipes) as server:
        name = server.stdout.readline().strip()
        for seed in range(REPEATS):
            requests = [Request([{"role": "user", "content": f"how many {n} ?"}], 0.7, 9, seed) for n in range(number)]
            with tempfile.TemporaryDirectory() as store:
                before = time.process_time()
                Store(Path(store)).generate(engine(name), requests)
                values.append(number / (time.process_time() - before))
        server.stdin.close()
    note = f"{number:,} short requests, a server on loopback in another process that answers at once, answers stored"
    return [spread("driver: requests a core-second, through HTTP", values, note)]


PARTS: tuple[Callable[[], list[dict]], ...] = (rates, http, memory, on_ray)


def with_machine_and_versions(rows: list[dict]) -> pd.DataFrame:
    """The rows as a table, with the machine and the versions of the measured packages."""
    versions = " ".join(f"{p} {version(p)}" for p in ("torch", "transformers", "trl", "dvc"))
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return pd.DataFrame(rows).assign(machine=(names or [platform.machine()])[0], versions=versions)


def write(rows: list[dict]) -> pd.DataFrame:
    """Replace the earlier rows of the same measurements in reports/benchmarks.csv; other rows are kept."""
    new = with_machine_and_versions(rows)
    path = root() / "reports" / "benchmarks.csv"
    table = pd.read_csv(path, keep_default_na=False)
    write_csv(pd.concat([table[~table["what"].isin(new["what"])], new]), path)
    return new


def main() -> None:
    """Run the parts named on the command line, or all, and replace their earlier rows."""
    rows = [row for part in PARTS if part.__name__ in (sys.argv[1:] or part.__name__) for row in part()]
    print(write(rows).to_string(index=False))


if __name__ == "__main__":
    finish(main)

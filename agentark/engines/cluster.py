"""Generation on a Ray cluster: `ray:` before any other engine's name.

Workers, one per core or per GPU of the cluster (or per group of GPUs that hold a model in vLLM), load the engine and
generate the same batches as a single process, so the store has the same bytes as in a run without Ray. The driver
writes each batch when it arrives. If a worker dies or raises an error, its unfinished batches go to another worker.
Nodes that join get workers. A request over which several workers in a row are lost is set aside: its reply is empty,
with finish reason "refused", and a printed line names the request.
"""

import itertools
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agentark import Stopped, StudyError, deadline, first_line, root
from agentark.engines import Batch, Engine, Reply, Request, batches_itself, engine, vllm

ADDRESS = "RAY_ADDRESS"  # Ray's own variable: a cluster to join; without it Ray starts on this machine
MISSING = "ray: not installed here; add it with `pip install -e .[cluster]`, or name the model without `ray:`"
CHUNK = 256  # requests that an engine with continuous batching gets at once
ATTEMPTS = 3  # of a batch before its requests are tried one by one, and of a request before it is set aside
PATIENCE = 1.0  # seconds between two checks for new nodes
GONE = 120  # seconds without any worker, or without the GPUs that vLLM needs, after which a run ends
# A run ends if it sets aside more requests than this, and more than 1 %: the cause is then the cluster.
ASIDE = 5


class Worker:
    """A worker process (a Ray actor) that loads engines by name. It changes to the driver's project folder, since Ray
    starts it in the folder in which the node was started."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def engine(self, name: str) -> Engine:
        """Load an engine. Raises StudyError if the project is not in the same folder on this node."""
        if not Path(self.folder, "params.yaml").is_file():
            raise StudyError(
                f"ray: node {socket.gethostname()} has no project in {self.folder}; mount or copy it there"
            )
        os.chdir(self.folder)
        return engine(name)

    def fingerprint(self, name: str) -> str:
        return self.engine(name).fingerprint

    def batches(self, name: str, requests: Sequence[Request]) -> list[list[int]]:
        return self.engine(name).batches(requests)

    def run(self, name: str, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Reply]]]:
        yield from self.engine(name).run(batches)


def connect():
    """Connect to a cluster and return the module ray. Raises StudyError if it is not installed."""
    try:
        import ray
    except ImportError:
        raise StudyError(MISSING) from None
    if not ray.is_initialized():
        # Without "local", Ray joins any cluster that another process of this machine has started, and ends with it.
        own = {} if os.environ.get(ADDRESS) else {"address": "local", "include_dashboard": False}
        ray.init(log_to_driver=False, configure_logging=False, **own)
    return ray


def memory(ray) -> float:
    """Memory of one of the cluster's GPUs in bytes, as its node reports it; 0 if the cluster has no GPU."""
    if not ray.cluster_resources().get("GPU"):
        return 0.0
    return ray.get(ray.remote(num_gpus=1)(vllm.memory).remote())


def cards(name: str, memory: float, there: int = 0) -> int:
    """Number of GPUs per worker: those that vLLM needs, 1 for another engine. memory (bytes), there: see vllm.cards."""
    return vllm.cards(name.removeprefix("vllm:"), memory, there) if memory and name.startswith("vllm:") else 1


def wait_for_gpus(ray) -> None:
    """Wait until the cluster at RAY_ADDRESS has a GPU, since its nodes may start after the driver.

    Otherwise workers without GPUs would occupy the cores of GPU nodes. Raises StudyError if no GPU joins.
    """
    end, announced = time.monotonic() + GONE, False
    while os.environ.get(ADDRESS) and not ray.cluster_resources().get("GPU"):
        if time.monotonic() > end:
            raise StudyError(f"ray: no GPU joined the cluster in {GONE} s, and vllm: needs one; start nodes with GPUs")
        if not announced:
            announced = True
            print(f"ray: the cluster has no GPU yet; waiting for one, {GONE} s at most", flush=True)
        deadline.check()
        time.sleep(PATIENCE)


class Pool:
    """The workers of the cluster: one per core, or one per `each` GPUs if the cluster has GPUs. `each` is the number of
    GPUs that the engine `name` needs."""

    def __init__(self, ray, name: str) -> None:
        if name.startswith("vllm:"):
            wait_for_gpus(ray)
        self.ray, self.memory = ray, memory(ray)
        self.each = each = cards(name, self.memory, int(ray.cluster_resources().get("GPU", 0)))
        self.unit = "GPU" if ray.cluster_resources().get("GPU") else "CPU"
        self.kind = ray.remote(num_cpus=1, num_gpus=each if self.unit == "GPU" else 0, max_restarts=0)(Worker)
        self.free: queue.Queue = queue.Queue()
        self.size, self.lock = 0, threading.Lock()
        self.grow()

    def grow(self) -> None:
        """Start workers for all cores or GPUs of the cluster that have none."""
        with self.lock:
            while self.size < int(self.ray.cluster_resources().get(self.unit, 0)) // self.each:
                self.size += 1
                self.free.put((self.started(), ""))

    def started(self):
        """Start a worker."""
        return self.kind.remote(str(root()))

    def take(self, name: str):
        """Return a free worker for the engine `name`. A worker with another model in vLLM is replaced to free its GPUs.
        Raises StudyError if the cluster has no workers for GONE seconds."""
        for waited in itertools.count():
            try:
                worker, loaded = self.free.get(timeout=PATIENCE)
            except queue.Empty:
                self.grow()
            else:
                if loaded in ("", name):
                    return worker
                self.ray.kill(worker)
                return self.started()
            if not self.size and waited * PATIENCE > GONE:
                raise StudyError("ray: the cluster has no nodes left; start some, and run the same command again")

    def give_back(self, worker, name: str) -> None:
        """Mark a worker as free. With vLLM it keeps the engine `name` loaded."""
        self.free.put((worker, name if name.startswith("vllm:") else ""))

    def lost(self, worker) -> None:
        """Replace a dead or possibly broken worker: after a CUDA or vLLM error, every further request would fail."""
        self.ray.kill(worker)
        with self.lock:
            self.size -= 1
        self.grow()


POOL: list[Pool] = []  # the pool of this process, started by the first engine


def pool(name: str) -> Pool:
    """The pool of this process. Raises StudyError if its workers have too few GPUs for the engine `name`."""
    if not POOL:
        POOL.append(Pool(connect(), name))
    # Use the stored memory: a new query of the cluster would need a GPU, and the workers occupy all of them.
    if POOL[0].each < (needed := cards(name, POOL[0].memory)):
        raise StudyError(
            f"ray: {name} needs {needed} GPUs, but the workers of this run have {POOL[0].each}; name it before smaller "
            "models, or give each model a server"
        )
    return POOL[0]


class Cluster:
    """The engine `name` on the workers of the cluster. Raises StudyError if Ray is not installed."""

    def __init__(self, name: str):
        self.name, self.pool = name, pool(name)
        self.many = CHUNK if batches_itself(name) else 1  # batches that a worker gets at once
        self.answered = self.aside = 0  # requests answered by workers, and requests set aside
        self.reason = ""  # why the last worker was lost
        self.fingerprint = self.ask("fingerprint")

    def ask(self, method: str, *given):
        """The result of a method of any worker; lost workers are replaced. Raises StudyError after ATTEMPTS losses."""
        for _ in range(ATTEMPTS):
            worker = self.pool.take(self.name)
            try:
                answer = self.pool.ray.get(getattr(worker, method).remote(self.name, *given))
            except self.pool.ray.exceptions.RayError as error:
                reason = self.failed(worker, error)
                continue
            self.pool.give_back(worker, self.name)
            return answer
        raise StudyError(f"ray: {ATTEMPTS} workers were lost, one after another ({reason}); see Ray's own log")

    def failed(self, worker, error: Exception) -> str:
        """Replace a worker after `error` and return the reason. A StudyError or Stopped is raised instead, and the
        worker stays."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, StudyError | Stopped):
            self.pool.give_back(worker, self.name)
            raise cause from None
        self.pool.lost(worker)
        return f"{type(cause).__name__}: {first_line(cause)}" if isinstance(cause, Exception) else first_line(error)

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        return self.ask("batches", requests)

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Reply]]]:
        numbers = range(len(batches))
        chunks = [list(numbers[i : i + self.many]) for i in range(0, len(batches), self.many)]
        finished: queue.Queue = queue.Queue()

        def work(chunk: list[int]) -> None:
            try:
                for number, replies in self.generated(chunk, batches):
                    finished.put((number, replies))
            except BaseException as error:
                finished.put((-1, error))

        with ThreadPoolExecutor(len(chunks)) as threads:
            for chunk in chunks:
                threads.submit(work, chunk)
            left = set(numbers)
            while left:
                number, replies = finished.get()
                if number < 0:
                    threads.shutdown(wait=False, cancel_futures=True)
                    raise replies
                left.discard(number)
                yield number, replies

    def generated(self, chunk: list[int], batches: Sequence[Batch]) -> Iterator[tuple[int, list[Reply]]]:
        """Yield the batches of a chunk as they finish. After ATTEMPTS lost workers, unfinished batches are tried one by
        one, then the requests of such a batch; a request that still fails is set aside."""
        left = list(chunk)
        for _ in range(ATTEMPTS):
            for number, replies in self.streamed(left, batches):
                left.remove(number)
                yield number, replies
            if not left:
                return
        if len(left) > 1:
            for number in left:
                yield from self.generated([number], batches)
            return
        (number,) = left
        requests, seed = batches[number]
        if len(requests) == 1:
            yield number, [self.set_aside(requests[0])]
            return
        singles = [Batch([request], seed) for request in requests]
        yield number, [reply for i in range(len(singles)) for _, (reply,) in self.generated([i], singles)]

    def streamed(self, numbers: Sequence[int], batches: Sequence[Batch]) -> Iterator[tuple[int, list[Reply]]]:
        """Yield the batches that one worker finishes: all of them, unless the worker is lost."""
        numbers = tuple(numbers)
        deadline.check()
        worker = self.pool.take(self.name)
        try:
            stream = worker.run.options(num_returns="streaming").remote(self.name, [batches[i] for i in numbers])
            for part in stream:
                place, replies = self.pool.ray.get(part)
                self.answered += len(replies)
                yield numbers[place], replies
        except self.pool.ray.exceptions.RayError as error:
            self.reason = self.failed(worker, error)
        else:
            self.pool.give_back(worker, self.name)

    def set_aside(self, request: Request) -> Reply:
        """Print a line about a request over which ATTEMPTS workers were lost, and return an empty reply to it.

        Raises StudyError after too many: a broken cluster must not fill the store with empty replies.
        """
        self.aside += 1
        start = " ".join(request.messages[-1]["content"].split())[:80]
        lost = f"ray: {ATTEMPTS} workers were lost over the request {start!r} ({self.reason})"
        if self.aside > max(ASIDE, self.answered / 100):
            raise StudyError(f"{lost}, as over {self.aside - 1} others; repair that, then run the same command again")
        print(f"{lost}; it counts as unanswered", flush=True)
        return Reply("", 0, 0, "refused", 0.0)

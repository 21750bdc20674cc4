"""Generation on a Ray cluster: `ray:` before any other engine's name.

Workers, one per core or per GPU of the cluster (or per group of GPUs that hold a model in vLLM), load the engine and generate the same batches as one process would, so
the store and the bytes are those of a run without Ray. The driver writes every batch when it comes. A worker or node
that is lost loses what it had in flight, which goes to another one; nodes that join get workers. A request that crashes
its worker again and again is set aside: its reply is empty, with finish reason "refused", and a line names it.
"""

import itertools
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from agentark import StudyError, deadline, first_line
from agentark.engines import Batch, Reply, Request, batches_itself, engine, vllm

PREFIX = "ray:"
ADDRESS = "RAY_ADDRESS"  # Ray's own variable: a cluster to join; without it Ray starts on this machine
MISSING = "ray: not installed here; add it with `pip install -e .[cluster]`, or name the model without `ray:`"
CHUNK = 256  # requests that an engine with continuous batching gets at once
ATTEMPTS = 3  # of a batch before its requests are tried one by one, and of a request before it is set aside
PATIENCE = 1.0  # seconds between two looks for new nodes
GONE = 120  # seconds without any worker after which a run ends


class Worker:
    """A process of the cluster with the engines that it was asked for; runs in a Ray actor."""

    def fingerprint(self, name: str) -> str:
        return engine(name).fingerprint

    def batches(self, name: str, requests: Sequence[Request]) -> list[list[int]]:
        return engine(name).batches(requests)

    def run(self, name: str, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Reply]]]:
        yield from engine(name).run(batches)


def joined():
    """The module ray, connected to a cluster. Raises StudyError if it is not installed."""
    try:
        import ray
    except ImportError:
        raise StudyError(MISSING) from None
    if not ray.is_initialized():
        # "local": without it Ray joins whatever cluster another process of this machine has started, and ends with it.
        own = {} if os.environ.get(ADDRESS) else {"address": "local", "include_dashboard": False}
        ray.init(log_to_driver=False, configure_logging=False, **own)
    return ray


def memory(ray) -> float:
    """Bytes of memory of one of the cluster's GPUs, as its node counts them; 0 if there is none."""
    if not ray.cluster_resources().get("GPU"):
        return 0.0
    return ray.get(ray.remote(num_gpus=1)(vllm.memory).remote())


def cards(name: str, memory: float, there: int = 0) -> int:
    """GPUs of `memory` bytes, of `there`, that a worker needs for an engine: those that vLLM needs, else 1."""
    return vllm.cards(name.removeprefix("vllm:"), memory, there) if memory and name.startswith("vllm:") else 1


class Pool:
    """The workers of the cluster: as many as its cores allow at any time, or its GPUs with as many to a worker as the engine
    `name` needs (`each`)."""

    def __init__(self, ray, name: str) -> None:
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
                self.free.put((self.kind.remote(), ""))

    def take(self, name: str):
        """A free worker for the engine `name`. One that holds another model in vLLM is replaced, which frees its GPUs.
        Raises StudyError if the cluster has no workers for GONE seconds."""
        for waited in itertools.count():
            try:
                worker, held = self.free.get(timeout=PATIENCE)
            except queue.Empty:
                self.grow()
            else:
                if held in ("", name):
                    return worker
                self.ray.kill(worker)
                return self.kind.remote()
            if not self.size and waited * PATIENCE > GONE:
                raise StudyError("ray: the cluster has no nodes left; start some, and run the same command again")

    def give_back(self, worker, name: str) -> None:
        """A worker is free again; with vLLM it holds the engine `name`."""
        self.free.put((worker, name if name.startswith("vllm:") else ""))

    def lost(self) -> None:
        """A worker is dead."""
        with self.lock:
            self.size -= 1
        self.grow()


POOL: list[Pool] = []  # of this process, started by the first engine


def pool(name: str) -> Pool:
    """The pool, with workers that can load the engine `name`. Raises StudyError if the pool's have too few GPUs."""
    if not POOL:
        POOL.append(Pool(joined(), name))
    # Not asked from the cluster again: the workers hold all GPUs.
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
        self.fingerprint = self.ask("fingerprint")

    def ask(self, method: str, *given):
        """The answer of any worker; a lost worker is replaced. Raises StudyError if one after another is lost."""
        for _ in range(ATTEMPTS):
            worker = self.pool.take(self.name)
            try:
                answer = self.pool.ray.get(getattr(worker, method).remote(self.name, *given))
            except self.pool.ray.exceptions.RayActorError as error:
                self.pool.lost()
                reason = first_line(error)
                continue
            except self.pool.ray.exceptions.RayTaskError as error:
                self.pool.give_back(worker, self.name)
                raise error.cause from None
            self.pool.give_back(worker, self.name)
            return answer
        raise StudyError(f"ray: {ATTEMPTS} workers were lost, one after another ({reason}); see Ray's own log")

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
        """The batches of a chunk, each as soon as it is finished, on one worker after another until all are."""
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
            yield number, [set_aside(requests[0])]
            return
        alone = [Batch([request], seed) for request in requests]
        yield number, [reply for i in range(len(alone)) for _, (reply,) in self.generated([i], alone)]

    def streamed(self, numbers: Sequence[int], batches: Sequence[Batch]) -> Iterator[tuple[int, list[Reply]]]:
        """What one worker finishes of the batches: all of them, unless it is lost."""
        numbers, exceptions = tuple(numbers), self.pool.ray.exceptions
        deadline.check()
        worker = self.pool.take(self.name)
        try:
            stream = worker.run.options(num_returns="streaming").remote(self.name, [batches[i] for i in numbers])
            for part in stream:
                place, replies = self.pool.ray.get(part)
                yield numbers[place], replies
        except exceptions.RayActorError:
            self.pool.lost()
        except exceptions.RayTaskError as error:
            self.pool.give_back(worker, self.name)
            raise error.cause from None
        else:
            self.pool.give_back(worker, self.name)


def set_aside(request: Request) -> Reply:
    """The empty reply to a request that no worker survives, which is named in a line."""
    start = " ".join(request.messages[-1]["content"].split())[:80]
    print(f"ray: {ATTEMPTS} workers were lost over the request {start!r}; it counts as unanswered", flush=True)
    return Reply("", 0, 0, "refused", 0.0)

"""Cores in a plan: the measured speed and memory of one core, and the number of parallel processes."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import psutil
import torch

from agentark import StudyError, without_ray
from agentark.debate.run import GROUP
from agentark.parallel import workers, workers_for
from agentark.plan.sizes import CARDS, GB, Card

SIDE, FLOATS = 1024, 2**25  # side of the multiplied matrices; numbers in the copied block, which exceeds any cache
TIMES, LONG = 8, 0.5  # a measurement is the fastest of TIMES runs, or of those within LONG CPU seconds


@lru_cache
def core() -> Card:
    """One core of this machine, measured in about a second: the rates of a torch matrix product in fp32 and bf16, and
    the bandwidth of a copy (each byte is read and written). One thread is measured in CPU time, so that other programs
    disturb less. Memory: the machine's, divided by the number of processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        matrix, block, other = torch.rand(SIDE, SIDE), torch.zeros(FLOATS), torch.zeros(FLOATS)
        half = matrix.bfloat16()
        rates = [2 * SIDE**3 / fastest(work) / 1e12 for work in (lambda: matrix @ matrix, lambda: half @ half)]
        copied = fastest(lambda: other.copy_(block))
    finally:
        torch.set_num_threads(threads)
    memory = psutil.virtual_memory().total / GB / workers()
    return Card(memory, rates[0], 2 * 4 * FLOATS / copied / 1e12, core=True, bytes=4, tflops_bf16=rates[1])


def fastest(work: Callable) -> float:
    """The minimum CPU time of `work` in this thread, in seconds.

    A processor without instructions for bf16 takes seconds per product, so LONG limits the number of runs.
    """
    seconds: list[float] = []
    while len(seconds) < TIMES and sum(seconds) < LONG:
        start = time.thread_time()
        work()
        seconds.append(time.thread_time() - start)
    return min(seconds)


def on_cores(params: dict) -> bool:
    """Whether models run on this machine's cores: there is no GPU, and neither teacher nor students need vLLM."""
    names = params["teacher"], params["engine"]
    return not torch.cuda.is_available() and not any(without_ray(name).startswith("vllm:") for name in names)


def card_here() -> str:
    """The name in CARDS of this machine's first GPU, or of the card with the closest memory; "" without a GPU."""
    if not torch.cuda.is_available():
        return ""
    device = torch.cuda.get_device_properties(0)
    words = device.name.replace("-", " ").split()  # NVIDIA A100-SXM4-80GB, NVIDIA GeForce RTX 4090
    named = [name for name in CARDS if set(name.split()) <= set(words)]
    near = min(CARDS, key=lambda name: abs(CARDS[name].memory - device.total_memory / GB))
    return named[0] if named else near


def card_of(name: str) -> Card:
    """A GPU of CARDS, with the real memory if this machine has one, or "core". Raises StudyError for another name."""
    if name == "core":
        return core()
    if name not in CARDS:
        raise StudyError(f"card {name!r:.80} is unknown; choose one of {', '.join(CARDS)}")
    real = name == card_here()
    return replace(CARDS[name], memory=torch.cuda.get_device_properties(0).total_memory / GB) if real else CARDS[name]


def calls_of(params: dict, stage: str, questions: int) -> int:
    """The number of independent calls of a stage of the plan: groups of questions, systems to evaluate, or seeds."""
    kind, seeds = stage.partition("@")[0], len(params["seeds"])
    if kind in ("debate", "controls"):
        return max(1, math.ceil(questions / GROUP))
    if kind == "evaluate":
        trainings = len(params["methods"]) + 1 + len(params["sources"])
        return 1 + len(params["students"]) * (1 + trainings * seeds)
    return seeds


def wall_share(calls: int) -> float:
    """Wall-clock time divided by core time of `calls` equal calls: 1 / cores, or more if a core is idle."""
    cores = workers()
    return 1 / cores if workers_for(calls) > cores else math.ceil(calls / cores) / calls

"""Simulate what cannot be run here: the requests of debates (`plan.pattern`) on any number of cards.

A *copy* of a model is the group of cards that hold it, or one core. A copy processes one batch of requests at a time.
It computes the prompts' tokens, then decodes as many sequences in parallel as its memory allows, and is free when the
last reply of the batch has ended. *Steps* are sequential: a step's requests are sent after the last reply of the
previous step has arrived, as in a run whose engine schedules requests itself. The *driver* is the one process that
sends requests and stores replies. It handles replies one at a time, in order of arrival.

Speeds of cards are those of `plan.sizes`. Starting processes, loading weights and the network are not included.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from agentark.engines.cluster import CHUNK
from agentark.plan.sizes import (
    MBU,
    SEQUENCES,
    Card,
    Checkpoint,
    batch_of,
    cards_for,
    kv_bytes,
    matrix_rate,
    weight_bytes,
)

NODE = 8  # cards of a node, as in NVIDIA's DGX and HGX boards of A100, H100 and H200
# Requests per second of the driver, one at a time: `make bench` measures 3,600 with an engine in the process, as for
# replies of Ray's workers (reports/benchmarks.csv); through an HTTP server the client handles about 190.
DRIVER = 3600.0
EVERYTHING = 10**15  # more sequences of one token than any memory holds


@dataclass(frozen=True)
class Copy:
    """The speed of a copy, in seconds. token: per prompt token; fixed: start of a decoding step; weights: reading the
    weights in a step; kv: reading one token's keys and values; row: arithmetic of one sequence in a step.

    A step takes fixed + max(reading the weights, arithmetic) + reading keys and values, because attention does not
    overlap the matrix products. room: tokens whose keys and values fit into memory; slots: maximal number of parallel
    sequences.
    """

    token: float
    fixed: float = 0.0
    weights: float = 0.0
    kv: float = 0.0
    row: float = 0.0
    room: float = np.inf
    slots: int = SEQUENCES

    @classmethod
    def of(cls, model: Checkpoint, card: Card) -> "Copy":
        """A copy on as many cards as the model needs, with the assumptions of `sizes.call_seconds`."""
        cards = cards_for(model, card)
        arithmetic = 2 * model.weights / matrix_rate(model, card) / cards
        bandwidth = card.bandwidth * 1e12 * MBU * cards
        room = batch_of(model, card, 1, most=EVERYTHING)
        read = weight_bytes(model, card) / bandwidth, kv_bytes(model, card) / bandwidth
        return cls(arithmetic, 0.0, *read, arithmetic, room)


def batch_ends(read: np.ndarray, computed: np.ndarray, written: np.ndarray, copy: Copy) -> np.ndarray:
    """Seconds from the start of a batch to the end of each reply, in ascending order. Tokens per request: `read` in the
    prompt, `computed` in the part of it that has to be computed, `written` in the reply."""
    fitting = copy.slots if math.isinf(copy.room) else copy.room // (read + written).mean()
    slots = int(max(1, min(copy.slots, fitting)))
    steps = np.array(written, float)
    free = list(steps[:slots])
    heapq.heapify(free)
    for i in range(slots, len(steps)):  # a request waits for the first free slot
        steps[i] += free[0]
        heapq.heapreplace(free, steps[i])
    steps.sort()
    active = np.minimum(slots, np.arange(len(steps), 0, -1))
    step = copy.fixed + np.maximum(copy.weights, copy.row * active) + copy.kv * active * (read + written / 2).mean()
    return copy.token * computed.sum() + np.cumsum(np.diff(steps, prepend=0.0) * step)


def steps_of(requests: pd.DataFrame, copy: Copy, batch: int = CHUNK) -> list[list[np.ndarray]]:
    """The batches of each step, as end times of replies (see `batch_ends`): `batch` requests each, in run order."""
    found = []
    for _, part in requests.groupby("step"):
        tokens = part[["read", "computed", "written"]].to_numpy(float).T
        cuts = [tokens[:, i : i + batch] for i in range(0, len(part), batch)]
        found.append([batch_ends(read, computed, written, copy) for read, computed, written in cuts])
    return found


@dataclass(frozen=True)
class Outcome:
    """seconds: from the first request to the last reply; work: seconds of all copies together; requests: number."""

    seconds: float
    work: float
    requests: int


def run(steps: Sequence[Sequence[np.ndarray]], copies: int, driver: float = np.inf) -> Outcome:
    """Run batches on `copies` copies, each batch on the copy that is free first. driver: replies per second."""
    now = work = 0.0
    requests = 0
    for batches in steps:
        free, arrivals = [now] * copies, []
        for ends in batches:
            arrivals.append(free[0] + ends)
            heapq.heapreplace(free, arrivals[-1][-1])
            work += ends[-1]
        arrived = np.sort(np.concatenate(arrivals))
        requests += len(arrived)
        # For each reply, the driver cannot end before it has handled that reply and all later ones.
        now = float((arrived + np.arange(len(arrived), 0, -1) / driver).max())
    return Outcome(now, work, requests)


def copies_on(cards: int, each: int, node: int = NODE) -> int:
    """Number of copies, of `each` cards each, that fit on `cards` cards. A copy does not extend over two nodes."""
    return cards // node * (node // each) + cards % node // each

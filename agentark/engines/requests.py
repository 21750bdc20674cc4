"""Requests, replies and the store of finished generations.

The unit of the store is the batch: its padding and matrix shapes decide the last bits of its samples. An interrupted run
continues batch by batch and ends in the same bytes. An engine that batches by itself (vLLM, a server) has batches of one
request.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from pydantic import TypeAdapter

from agentark.files import write_atomically


@dataclass(frozen=True)
class Request:
    """One chat to be continued, sampled at `temperature` from the whole distribution (no top-k, no top-p), greedily at
    0. `seed` tells apart requests that are otherwise equal."""

    messages: list[dict[str, str]]
    temperature: float
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class Reply:
    """A continuation. `completion_tokens` counts the end of turn; `seconds` is the request's share of wall-clock time."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: Literal["stop", "length", "refused"]
    seconds: float


class Batch(NamedTuple):
    """Requests generated together, with a seed that only this batch has."""

    requests: list[Request]
    seed: int


class Engine(Protocol):
    """`fingerprint` is equal for two engines only if they generate alike: weights, tokenizer, arithmetic."""

    fingerprint: str

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """Indices of `requests`, grouped into the batches that `run` is to be called with."""

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Reply]]]:
        """Generate all batches and yield each one's index and replies as soon as it is finished, in any order.

        Raises StudyError for a request that cannot be answered; what is finished by then is yielded first.
        """


@dataclass(frozen=True)
class Store:
    """Finished batches, one file each, named by what was asked of whom."""

    folder: Path

    def generate(self, engine: Engine, requests: Sequence[Request]) -> list[Reply]:
        """Replies in the order of `requests`; only batches that are not in the store are generated, each written at
        once when it is finished."""
        places: dict[str, list[list[int]]] = {}  # equal batches are one
        for indices in engine.batches(requests):
            asked = json.dumps([engine.fingerprint, [asdict(requests[i]) for i in indices]])
            places.setdefault(hashlib.sha256(asked.encode()).hexdigest(), []).append(indices)
        finished = {key: self.read(key) for key in places}
        missing = [key for key in places if finished[key] is None]
        batches = [Batch([requests[i] for i in places[key][0]], int(key[:15], 16)) for key in missing]
        for number, generated in engine.run(batches) if batches else ():
            done = [replace(reply, text=encodable(reply.text)) for reply in generated]
            self.write(missing[number], done, engine.fingerprint)
            finished[missing[number]] = done
        replies: dict[int, Reply] = {}
        for key, copies in places.items():
            for indices in copies:
                replies.update(zip(indices, finished[key], strict=True))
        return [replies[i] for i in range(len(requests))]

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def read(self, key: str) -> list[Reply] | None:
        """The finished batch of that key; None if there is none. A damaged file counts as none."""
        try:
            records = json.loads(self.path(key).read_text(encoding="utf-8"))
            # `engine` is for people who look for an answer in the store, see agentark/engines/store.py.
            return ANSWERS.validate_python([{k: v for k, v in r.items() if k != "engine"} for r in records])
        except (FileNotFoundError, ValueError, TypeError, AttributeError, RecursionError):
            return None

    def write(self, key: str, replies: list[Reply], engine: str = "") -> None:
        text = json.dumps([asdict(r) | ({"engine": engine} if engine else {}) for r in replies])
        write_atomically(self.path(key), lambda p: p.write_text(text, encoding="utf-8"))


ANSWERS = TypeAdapter(list[Reply])


def encodable(text: str) -> str:
    """`text` with halves of characters joined where they are a pair, else replaced by U+FFFD: no table stores them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

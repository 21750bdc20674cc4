"""Requests, replies and the store of finished generations.

The store keeps whole batches, because padding and matrix shapes affect the last bits of the samples. An interrupted run
continues batch by batch and produces the same bytes. For engines that batch internally (vLLM, a server) a batch is one
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

FinishReason = Literal["stop", "length", "refused"]


@dataclass(frozen=True)
class Request:
    """One chat to continue, sampled from the whole distribution (no top-k, no top-p).

    Temperature 0 means greedy decoding. `seed` distinguishes otherwise equal requests.
    """

    messages: list[dict[str, str]]
    temperature: float
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class Reply:
    """A continuation. `completion_tokens` includes the end of turn; `seconds` is a share of the wall-clock time."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    seconds: float


class Batch(NamedTuple):
    """Requests that are generated together, with a seed unique to the batch."""

    requests: list[Request]
    seed: int


class Engine(Protocol):
    """An engine. Equal fingerprints imply equal generations: the same weights, tokenizer and arithmetic."""

    fingerprint: str

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """Group the indices of `requests` into the batches for `run`."""

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Reply]]]:
        """Generate all batches and yield each batch's index and replies as soon as it is finished, in any order.

        Raises StudyError for a request that cannot be answered, after yielding the batches finished by then.
        """


@dataclass(frozen=True)
class Store:
    """Finished batches, one file each, named by a hash of the engine's fingerprint and the requests."""

    folder: Path

    def generate(self, engine: Engine, requests: Sequence[Request]) -> list[Reply]:
        """Replies in the order of `requests`. Only missing batches are generated; each is written once it finishes."""
        places: dict[str, list[list[int]]] = {}  # equal batches share a key
        for indices in engine.batches(requests):
            asked = json.dumps([engine.fingerprint, [asdict(requests[i]) for i in indices]])
            places.setdefault(hashlib.sha256(asked.encode()).hexdigest(), []).append(indices)
        finished = {key: batch for key in places if (batch := self.read(key)) is not None}
        missing = [key for key in places if key not in finished]
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
        """The finished batch with that key, or None if there is none or its file is damaged."""
        try:
            records = json.loads(self.path(key).read_text(encoding="utf-8"))
            # `engine` is only for searching the store, see agentark/engines/store.py.
            return ANSWERS.validate_python([{k: v for k, v in r.items() if k != "engine"} for r in records])
        except (FileNotFoundError, ValueError, TypeError, AttributeError, RecursionError):
            return None

    def write(self, key: str, replies: list[Reply], engine: str = "") -> None:
        text = json.dumps([asdict(r) | ({"engine": engine} if engine else {}) for r in replies])
        write_atomically(self.path(key), lambda p: p.write_text(text, encoding="utf-8"))


ANSWERS = TypeAdapter(list[Reply])


def encodable(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates replaced by U+FFFD, since no table can store them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

"""One small interface to whatever generates: chat in; text, token counts, finish reason and seconds out.

Finished generations live in a content-addressed store outside every stage's outputs. Its unit is the batch, since a
batch's numbers (padding, matrix shapes) decide the last bits of its samples: what was interrupted is taken up batch by
batch, and ends in the same bytes as if nothing had happened.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

from agentark.schemas import write_atomically


@dataclass(frozen=True)
class Request:
    """One chat to be continued. `seed` tells apart requests that are otherwise equal."""

    messages: list[dict[str, str]]
    temperature: float
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class Reply:
    """A continuation. `seconds` is the request's share of its batch's wall-clock time."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: Literal["stop", "length", "refused"]
    seconds: float


class Engine(Protocol):
    """`fingerprint` is equal for two engines only if they generate alike: weights, tokenizer, arithmetic."""

    fingerprint: str

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """Indices of `requests`, grouped into the batches that `run` is to be called with."""

    def run(self, batch: list[Request], seed: int) -> list[Reply]:
        """Generate for one batch; the same batch and seed give the same replies."""


@dataclass(frozen=True)
class Store:
    """Finished batches, one file each, named by what was asked of whom."""

    folder: Path

    def generate(self, engine: Engine, requests: Sequence[Request]) -> list[Reply]:
        """Replies in the order of `requests`; only batches that are not in the store are generated."""
        replies: list[Reply | None] = [None] * len(requests)
        for indices in engine.batches(requests):
            batch = [requests[i] for i in indices]
            asked = json.dumps([engine.fingerprint, [asdict(r) for r in batch]])
            key = hashlib.sha256(asked.encode()).hexdigest()
            done = self.read(key)
            if done is None:
                done = engine.run(batch, seed=int(key[:15], 16))
                self.write(key, done)
            for i, reply in zip(indices, done, strict=True):
                replies[i] = reply
        return replies

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def read(self, key: str) -> list[Reply] | None:
        """The finished batch of that key; None if there is none. A damaged file counts as none."""
        try:
            return [Reply(**r) for r in json.loads(self.path(key).read_text())]
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            return None

    def write(self, key: str, replies: list[Reply]) -> None:
        text = json.dumps([asdict(r) for r in replies])
        write_atomically(self.path(key), lambda p: p.write_text(text))

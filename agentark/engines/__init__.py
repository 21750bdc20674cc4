"""One small interface to whatever generates: chat in; text, token counts, finish reason and seconds out.

Finished generations live in a content-addressed store outside every stage's outputs. Its unit is the batch, since a
batch's numbers (padding, matrix shapes) decide the last bits of its samples: what was interrupted is taken up batch by
batch, and ends in the same bytes as if nothing had happened. An engine that batches by itself (vLLM, a server) has
batches of one request.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from pydantic import TypeAdapter

from agentark import root
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


def batches_itself(name: str | Path) -> bool:
    """Whether the engine of that name takes any number of requests at once, so that one process is all it wants."""
    return str(name).startswith(("http://", "https://", "vllm:"))


def inheritable(name: str | Path) -> bool:
    """Whether a forked process can use the engine that its parent has loaded: not llama.cpp's, whose threads stay behind."""
    return not str(name).startswith("llama.cpp:")


@lru_cache(maxsize=2)
def engine(name: str | Path) -> Engine:
    """The engine of that name, loaded once a process.

    data/models/teacher              a folder (below the project's, or absolute): transformers, in this process
    vllm:data/models/teacher         vLLM, in this process; a folder or a name on the hub
    llama.cpp:models/file.gguf       llama.cpp, in this process; a GGUF file, or two with a `+`: a model and its adapter
    http://127.0.0.1:8000/v1#model   an OpenAI-compatible server, and which of its models
    """
    name = str(name)
    if name.startswith(("http://", "https://")):
        from agentark.engines.server import Server

        return Server(*name.partition("#")[::2])
    if name.startswith("vllm:"):
        from agentark.engines.vllm import VLLM

        return VLLM(name.removeprefix("vllm:"))
    if name.startswith("llama.cpp:"):
        from agentark.engines.llama_cpp import LlamaCpp

        return LlamaCpp(name.removeprefix("llama.cpp:"))
    from agentark.engines.local import Transformers

    return Transformers(root() / name)

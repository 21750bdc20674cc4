"""Requests, replies and the store of finished generations.

The store contains complete batches, because padding and matrix shapes affect the last bits of the samples. An
interrupted run continues batch by batch and produces the same bytes. For engines that batch internally (vLLM, a server)
a batch is one request.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from pydantic import TypeAdapter

from agentark import StudyError
from agentark.engines import thoughts
from agentark.files import write_atomically
from agentark.models.chat import system_prompt
from agentark.parallel import tick

# "thought" occurs only in files of earlier versions, see `separate_thought`.
FinishReason = Literal["stop", "length", "refused", "thought"]


@dataclass(frozen=True)
class Request:
    """One chat to continue, sampled from the full distribution (no top-k, no top-p).

    Temperature 0 means greedy decoding. `seed` distinguishes otherwise equal requests.
    """

    messages: list[dict[str, str]]
    temperature: float
    max_tokens: int
    seed: int
    thinking: str = ""  # "on", "off" or "" (the default of the model's template)
    thought_tokens: int = 0  # token budget of a thought, in addition to max_tokens

    @property
    def most(self) -> int:
        """The maximum number of tokens of the reply. With thinking off, `thought_tokens` do not count."""
        return self.max_tokens + (0 if self.thinking == "off" else self.thought_tokens)

    def recorded(self) -> dict:
        """The fields for the store's keys. A field at its default is left out, so that earlier keys stay valid."""
        return {name: value for name, value in vars(self).items() if name not in DEFAULTS or value != DEFAULTS[name]}


DEFAULTS = {field.name: field.default for field in fields(Request) if field.default is not MISSING}


@dataclass(frozen=True)
class Chat:
    """The parameters `thinking`, `thought_tokens` and `system` (a system prompt) of a notebook, for all its requests.

    Raises StudyError for an invalid value.
    """

    thinking: str = ""
    thought_tokens: int = 0
    system: str = ""

    def __post_init__(self) -> None:
        if self.thinking not in ("", "on", "off"):
            raise StudyError(
                f'thinking={self.thinking!r:.80} is unknown; choose on, off, or "" for the model\'s default'
            )
        if self.thought_tokens < 0:
            raise StudyError(
                f"thought_tokens={self.thought_tokens} is below 0; choose 0 for no tokens beside max_tokens"
            )

    @classmethod
    def of(cls, params: dict) -> "Chat":
        """Return the Chat with the values of the study's shared parameters."""
        return cls(params["thinking"], params["thought_tokens"], params["system"])

    def request(self, messages: list[dict[str, str]], temperature: float, max_tokens: int, seed: int) -> Request:
        """Return the request for a reply to `messages`."""
        return Request(
            [*system_prompt(self.system), *messages], temperature, max_tokens, seed, self.thinking, self.thought_tokens
        )


PLAIN = Chat()


@dataclass(frozen=True)
class Reply:
    """A continuation. `completion_tokens` includes the end of turn; `seconds` is a share of the wall-clock time.

    The `text` from an engine includes the thought. Store.generate moves it to `thought`, see `separate_thought`.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    seconds: float
    thought: str = ""

    @property
    def cut_in_thought(self) -> bool:
        """Whether the reply ended within its thought and so has no answer."""
        return self.finish_reason == "length" and bool(self.thought) and not self.text


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

        Raises StudyError for a request that cannot be answered, and Stopped if the run has to stop, after yielding the
        batches finished by then.
        """


@dataclass(frozen=True)
class Store:
    """Finished batches, one file each, named by a hash of the engine's fingerprint and the requests."""

    folder: Path

    def generate(self, engine: Engine, requests: Sequence[Request]) -> list[Reply]:
        """Return replies in the order of `requests`. Only missing batches are generated; each is written when finished
        and advances the progress bar by its requests. Raises Stopped if the run has to stop (see `deadline`)."""
        places: dict[str, list[list[int]]] = {}  # equal batches share a key
        for indices in engine.batches(requests):
            content = json.dumps([engine.fingerprint, [requests[i].recorded() for i in indices]])
            places.setdefault(hashlib.sha256(content.encode()).hexdigest(), []).append(indices)
        # A file with a different number of replies is damaged.
        finished = {k: batch for k in places if (batch := self.read(k)) and len(batch) == len(places[k][0])}
        tick(sum(len(indices) for key in finished for indices in places[key]))
        missing = [key for key in places if key not in finished]
        batches = [Batch([requests[i] for i in places[key][0]], int(key[:15], 16)) for key in missing]
        for number, generated in engine.run(batches) if batches else ():
            done = [replace(reply, text=encodable(reply.text)) for reply in generated]
            self.write(missing[number], done, engine.fingerprint)
            finished[missing[number]] = done
            tick(sum(map(len, places[missing[number]])))
        replies: dict[int, Reply] = {}
        for key, copies in places.items():
            for indices in copies:
                replies.update(zip(indices, finished[key], strict=True))
        return [separate_thought(replies[i], request) for i, request in enumerate(requests)]

    def path(self, key: str) -> Path:
        return self.folder.joinpath(key[:2], f"{key}.json")

    def read(self, key: str) -> list[Reply] | None:
        """Return the finished batch with that key, or None if it is missing or its file is damaged."""
        found = read_file(self.path(key))
        return found and found[0]

    def write(self, key: str, replies: list[Reply], engine: str = "") -> None:
        text = json.dumps([vars(r) | ({"engine": engine} if engine else {}) for r in replies])
        with suppress(OSError):
            self.path(key).rmdir()  # an empty folder in the file's place
        write_atomically(self.path(key), lambda p: p.write_text(text, encoding="utf-8"))


ANSWERS = TypeAdapter(list[Reply])


def read_file(file: Path) -> tuple[list[Reply], str] | None:
    """Return the replies in a file of the store and the engine that generated them; None for a missing or damaged file.

    The engine is used only to search the store, see agentark/engines/store.py.
    """
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
        engine = str(records[0].get("engine", ""))
        found = ANSWERS.validate_python([{k: v for k, v in r.items() if k != "engine"} for r in records])
    except (FileNotFoundError, IsADirectoryError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return [replace(r, text=encodable(r.text), thought=encodable(r.thought)) for r in found], engine


def separate_thought(reply: Reply, request: Request) -> Reply:
    """Return the reply with its thought in `thought` and only the answer in `text`.

    A thought that does not end, or is longer than request.thought_tokens (if above 0), counts as cut: the finish reason
    is "length" and the text is empty. No engine counts a thought's tokens separately, so their number is estimated from
    the thought's share of the reply's characters.
    """
    thought, answer = thoughts.split(reply.text)
    bare = thoughts.MARK.sub("", thought).strip() or reply.thought
    tokens = reply.completion_tokens * len(thought) / max(1, len(reply.text))
    if answer is None or tokens > request.thought_tokens > 0 or reply.finish_reason == "thought":
        return replace(reply, text="", thought=bare, finish_reason="length")
    return replace(reply, text=answer, thought=bare)


def encodable(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates replaced by U+FFFD, since no table can store them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

"""Generation by an OpenAI-compatible server: chat completions, many in flight, through the server's failures.

Protocol: https://platform.openai.com/docs/api-reference/chat. The key, if the server wants one, is read from the
environment variable OPENAI_API_KEY and goes nowhere but into the request's header.
"""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import replace
from email.utils import parsedate_to_datetime
from threading import Event
from urllib.parse import urlsplit

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_before_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from agentark import StudyError
from agentark.engines import Batch, Reply, Request

IN_FLIGHT = 128  # requests sent at once: enough to fill a server's batch, few enough for one thread each
PATIENCE = 20 * 60  # seconds after which a request that meets nothing but passing failures is given up
TIMEOUT = httpx.Timeout(10 * 60, connect=10)  # seconds a server may be silent: it sends an answer only when it is whole
LONGEST_PAUSE = 30  # seconds between two tries, unless the server asks for more
PASSING = (408, 409, 425, 429)  # and 5xx: the same request may succeed later
# How to switch off what a server may otherwise do to the distribution unasked, by what it calls itself: vLLM follows a
# checkpoint's generation settings, llama.cpp has its own. Others may refuse a field that is not in the API.
PLAIN_SAMPLING = {
    "vllm": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    "sglang": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    "llamacpp": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
}
FINISHED = {"stop": "stop", "length": "length", "content_filter": "refused"}
ADVICE = {
    401: "set OPENAI_API_KEY to a valid key",
    403: "set OPENAI_API_KEY to a key that may use this model",
    404: "mend the address, which ends in /v1 as a rule, or the model's name after #",
    413: "shorten the prompt",
}


class Passing(Exception):
    """A failure that another try may not meet; `pause` is how many seconds the server asks to wait."""

    def __init__(self, reason: str, pause: float | None = None):
        super().__init__(reason)
        self.pause = pause


class Server:
    """One model of a server at `address` (ending in /v1, as a rule).

    The fingerprint is the model's name, without the address: a server may move, and two of the same model share what
    they finished. So a name must stand for one set of weights (`make serve` puts a digest into it).
    """

    def __init__(self, address: str, model: str):
        where = f"{address}#{model}"
        if not model:
            raise StudyError(f"{where}: which model? add its name, as in http://127.0.0.1:8000/v1#name")
        if urlsplit(address).username:
            raise StudyError("an address with a user or key in it would be written into results; use OPENAI_API_KEY")
        self.address, self.model, self.where = address.rstrip("/"), model, where
        self.fingerprint = f"openai-compatible chat, plain sampling: {model}"
        self.extra: dict | None = None  # known when the server has been met

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        return [[i] for i in range(len(requests))]

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Reply]]]:
        key = os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=IN_FLIGHT)
        halt, failure = Event(), None
        with (
            httpx.Client(headers=headers, timeout=TIMEOUT, limits=limits) as client,
            ThreadPoolExecutor(IN_FLIGHT) as pool,
        ):
            if self.extra is None:
                self.extra = self.greet(client)
            calls = {pool.submit(self.ask, client, b.requests[0], halt): i for i, b in enumerate(batches)}
            start = time.perf_counter()
            try:
                for call in as_completed(calls):
                    if call.cancelled():
                        continue
                    if error := call.exception():
                        failure = failure or error
                        halt.set()
                        for waiting in calls:
                            waiting.cancel()
                        continue
                    # What has passed since the last one finished: so the shares add up to the wall-clock time.
                    seconds = time.perf_counter() - start
                    yield calls[call], [replace(call.result(), seconds=seconds)]
                    start += seconds
            finally:
                halt.set()
                for waiting in calls:
                    waiting.cancel()
        if failure:
            raise failure

    def greet(self, client: httpx.Client) -> dict:
        """What to send for plain sampling. Raises StudyError at once if no server or no such model is there: a
        misspelt address is not worth waiting for, a server that was met and is lost is."""
        try:
            told = client.get(f"{self.address}/models", timeout=30)
            if told.status_code >= 500:
                raise httpx.HTTPError(f"status {told.status_code}")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise StudyError(f"{self.where}: no server answers ({reason}); start one with `make serve`") from None
        if told.status_code in (401, 403):
            raise StudyError(f"{self.where}: the server wants a key; {ADVICE[told.status_code]}")
        try:
            served = {m["id"]: m.get("owned_by") for m in told.json()["data"]}
        except (ValueError, LookupError, TypeError, AttributeError):
            return {}  # it does not list its models: the first request will tell
        if self.model not in served:
            raise StudyError(f"{self.where}: the server has only {', '.join(served)}; name one of them after #")
        return PLAIN_SAMPLING.get(served[self.model], {})

    def ask(self, client: httpx.Client, request: Request, halt: Event) -> Reply:
        """One answer, through all passing failures. Raises StudyError when patience ends or the request is at fault."""
        retrying = Retrying(
            retry=retry_if_exception_type(Passing),
            wait=pause,
            stop=stop_before_delay(PATIENCE) | stop_when_event_set(halt),
            sleep=sleep_using_event(halt),
            reraise=True,
        )
        try:
            return retrying(self.once, client, request)
        except Passing as error:
            raise StudyError(
                f"{self.where}: no answer within {PATIENCE / 60:g} minutes ({error}); what was finished is kept: "
                "when the server is up again, run the same command"
            ) from None

    def once(self, client: httpx.Client, request: Request) -> Reply:
        """One try. Raises Passing or, where no other try would help, StudyError."""
        body = {
            "model": self.model,
            "messages": request.messages,
            "temperature": request.temperature,
            "top_p": 1.0,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
            **self.extra,
        }
        try:
            response = client.post(f"{self.address}/chat/completions", json=body)
        except httpx.TransportError as error:
            raise Passing(str(error) or type(error).__name__) from None
        status = response.status_code
        if status in PASSING or status >= 500:
            raise Passing(f"status {status}", asked_pause(response))
        if status != 200:
            code, words = complaint(response)
            if code == "content_filter":  # how some report a prompt they will not answer; what it cost they do not say
                return Reply("", 0, 0, "refused", 0.0)
            advice = ADVICE.get(status, "mend the request: a shorter prompt, fewer tokens to come, or another model")
            raise StudyError(f"{self.where}: status {status}{words}; {advice}")
        try:
            return reply(response.json())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Passing(f"an answer that is not a chat completion: {error!r}"[:200]) from None


def reply(answer: dict) -> Reply:
    """A chat completion as a Reply, its seconds left open. Raises ValueError, LookupError, TypeError or AttributeError
    if it is none, for instance cut short on its way."""
    choice, usage = answer["choices"][0], answer["usage"]
    message = choice["message"]
    reason = "refused" if message.get("refusal") else FINISHED[choice["finish_reason"]]
    text = message["content"] or ""
    counts = usage["prompt_tokens"], usage["completion_tokens"]
    if not isinstance(text, str) or not all(isinstance(count, int) for count in counts):
        raise TypeError("text or token counts of another type")
    return Reply(text, *counts, reason, 0.0)


def pause(state: RetryCallState) -> float:
    """Seconds to wait: what the server asks for, else randomly up to twice as long each time."""
    asked = state.outcome.exception().pause
    return wait_random_exponential(max=LONGEST_PAUSE)(state) if asked is None else asked


def asked_pause(response: httpx.Response) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or a date; None without one."""
    asked = response.headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(asked))
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    return None


def complaint(response: httpx.Response) -> tuple[str | None, str]:
    """The server's code for a failure and its words, on one line; no words where they concern the key, of which they
    may quote parts."""
    code, words = None, response.text
    with suppress(ValueError, AttributeError):
        told = response.json()
        told = told.get("error", told)
        code, words = (told.get("code"), told.get("message")) if isinstance(told, dict) else (None, told)
    return code, "" if response.status_code in (401, 403) else f" ({' '.join(str(words).split())[:300]})"

"""Generation by an OpenAI-compatible server: chat completions, many in flight, through the server's failures.

Protocol: https://platform.openai.com/docs/api-reference/chat. The key, if the server wants one, is read from the
environment variable OPENAI_API_KEY and goes nowhere but into the request's header.
"""

import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from threading import Event
from urllib.parse import urlsplit

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_any,
    stop_before_delay,
    stop_when_event_set,
)

from agentark import StudyError
from agentark.engines import Batch, Reply, Request, replies
from agentark.engines.replies import Passing

IN_FLIGHT = 128  # requests sent at once: enough to fill a server's batch, few enough for one thread each
PATIENCE = 20 * 60  # seconds after which a request that meets nothing but passing failures is given up
TIMEOUT = httpx.Timeout(10 * 60, connect=10)  # seconds a server may be silent: it sends an answer only when it is whole
LONGEST_PAUSE = 30  # seconds between two tries, unless the server asks for more
FEW = 5  # tries of what is no answer and no failure that is known to pass
REDIRECTS = 3  # that are followed, within the server's own origin
# How to switch off what a server may otherwise do to the distribution unasked, by the owner that it lists: vLLM follows a
# checkpoint's generation settings, llama.cpp has its own. Others may refuse a field that is not in the API.
PLAIN_SAMPLING = {
    "vllm": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    "sglang": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    "llamacpp": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
}


class Server:
    """One model of a server at `address` (ending in /v1, as a rule).

    The fingerprint is the model's name, without the address: a server may move, and two of the same model share what
    they finished. So a name must stand for one set of weights (`make serve` puts a digest into it).
    """

    def __init__(self, address: str, model: str):
        address = address.strip().rstrip("/")
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError:
            raise StudyError("the server's address is not one; write it as in http://127.0.0.1:8000/v1#name") from None
        if parts.username or parts.password or parts.query:
            raise StudyError("an address with a user, key or query in it would be stored; use OPENAI_API_KEY")
        if not parts.hostname or port == 0:
            raise StudyError(f"{address}: no host; write the address as in http://127.0.0.1:8000/v1#name")
        where = f"{address}#{model}"
        if not model:
            raise StudyError(f"{where}: which model? add its name, as in http://127.0.0.1:8000/v1#name")
        self.address, self.model, self.where = address, model, where
        self.fingerprint = f"openai-compatible chat, plain sampling: {model}"
        self.extra: dict | None = None  # known after the greeting
        self.uncounted = False  # whether a line has said that the server counts no tokens

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        return [[i] for i in range(len(requests))]

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Reply]]]:
        key = api_key()
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
        """What to send for plain sampling. Raises StudyError at once where nothing listens or the model is not listed: a
        misspelt address is not worth waiting for. A server that is still loading its model is waited for."""
        try:
            response = self.retried(self.models, client)
        except httpx.RequestError as error:
            reason = str(error) or type(error).__name__
            raise StudyError(f"{self.where}: no server answers ({reason}); start one with `make serve`") from None
        try:
            served = {m["id"]: m.get("owned_by") for m in response.json()["data"]}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return {}  # it does not list its models: the first request shows whether it has this one
        if served and self.model not in served:  # a gateway may list nothing (BerriAI/litellm#2837)
            raise StudyError(
                f"{self.where}: the server has only {', '.join(map(str, served))}; name one of them after #"
            )
        owner = served.get(self.model)
        return PLAIN_SAMPLING.get(owner, {}) if isinstance(owner, str) else {}

    def models(self, client: httpx.Client) -> httpx.Response:
        """The list of models. Raises Passing while the server is loading or busy."""
        try:
            response = client.get(f"{self.address}/models", timeout=30)
        except httpx.DecodingError as error:
            raise Passing(str(error), few=True) from None
        if response.status_code in (401, 403, *replies.PASSING) or response.status_code >= 500:
            replies.failed(response.status_code, replies.content(response), replies.asked_pause(response))
        return response

    def ask(self, client: httpx.Client, request: Request, halt: Event) -> Reply:
        """One answer, through all passing failures. Raises StudyError when patience ends or the request is at fault."""
        answer = self.retried(self.once, client, request, halt=halt)
        if not answer.prompt_tokens and answer.text and not self.uncounted:
            self.uncounted = True
            print(f"{self.where}: the server counts no tokens; the costs of its answers read 0", flush=True)
        return answer

    def retried(self, call, client: httpx.Client, *arguments, halt: Event | None = None):
        """`call(client, *arguments)`, again after each Passing. Raises StudyError with the last words when it gives up."""
        halt = halt or Event()
        retrying = Retrying(
            retry=retry_if_exception_type(Passing),
            wait=pause,
            stop=stop_any(stop_before_delay(PATIENCE), stop_when_event_set(halt), stop_after_few),
            sleep=sleep_using_event(halt),
            reraise=True,
        )
        try:
            return retrying(call, client, *arguments)
        except Passing as error:
            limit = f"in {FEW} tries" if error.few else f"within {PATIENCE / 60:g} minutes"
            if (error.pause or 0) > PATIENCE:
                limit += f", and the server asks to wait {error.pause:g} s"
            raise StudyError(
                f"{self.where}: no answer {limit} ({error}); what is finished is kept: "
                "when the server is up again, run the same command"
            ) from None
        except StudyError as error:
            raise StudyError(f"{self.where}: {error}") from None

    def once(self, client: httpx.Client, request: Request) -> Reply:
        """One try. Raises Passing or, where no other try helps, StudyError."""
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
            for _ in range(REDIRECTS):
                if response.next_request is None:
                    break
                response = client.send(self.redirected(response))
        except httpx.RequestError as error:  # transport errors, and bodies that are not encoded as they claim
            raise Passing(str(error) or type(error).__name__) from None
        return replies.read(response)

    def redirected(self, response: httpx.Response) -> httpx.Request:
        """The same request at the place that a response points to. Raises StudyError where that is another server, which
        must not get the key, or where the redirect would turn the request into another."""
        place, origin = response.next_request.url, httpx.URL(self.address)
        same = (place.scheme, place.host, place.port) == (origin.scheme, origin.host, origin.port)
        if not same or response.status_code not in (307, 308):
            target = place.copy_with(username=None, password=None, query=None)
            raise StudyError(f"the server redirects to {target}; if that is the right place, use its address")
        return response.next_request


def api_key() -> str | None:
    """OPENAI_API_KEY without the blanks, line end and quotes of the file that it was copied from; None if it is not set.

    Raises StudyError, which does not quote it, if it holds a character that no header can carry.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip(" \t\r\n\v\f\ufeff\u200b\xa0\"'")
    if not all("!" <= character <= "~" for character in key):
        raise StudyError("OPENAI_API_KEY holds a blank or a character that no key has; copy the key again")
    return key or None


def pause(state: RetryCallState) -> float:
    """Seconds to wait: up to twice as long each time, with jitter, and no less than the server asks for.

    A server that asks for no pause gets the same (kubescape/kubevuln#755: a hot loop on `Retry-After: 0`).
    """
    longest = min(2.0 ** min(state.attempt_number - 1, 30), LONGEST_PAUSE)
    return max(random.uniform(longest / 2, longest), state.outcome.exception().pause or 0.0)


def stop_after_few(state: RetryCallState) -> bool:
    return state.outcome.exception().few and state.attempt_number >= FEW

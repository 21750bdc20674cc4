"""Generation by OpenAI-compatible servers: concurrent chat completions, with retries.

Protocol: https://platform.openai.com/docs/api-reference/chat. If the server needs a key, it is read from the
environment variable OPENAI_API_KEY and used only in the request's header.
"""

import contextlib
import os
import random
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_any,
    stop_when_event_set,
)
from tenacity.stop import stop_base

from agentark import StudyError, deadline
from agentark.engines import Batch, Reply, Request, failures, replies
from agentark.engines.addresses import Addresses
from agentark.engines.failures import Passing, refused_by_template
from agentark.engines.thoughts import MARK
from agentark.models.chat import SWITCH, without_system

# Concurrent requests per address, on average: enough to fill a server's batch, few enough for one thread each.
IN_FLIGHT = 128
PATIENCE = 20 * 60  # seconds after its first temporary failure at which a request fails
# Seconds. A server sends nothing before an answer is complete. A server on a CPU may take over ten minutes for 128
# concurrent answers.
LONGEST_ANSWER = 60 * 60
LONGEST_PAUSE = 30  # seconds between two attempts, unless the server asks for more
FEW = 5  # attempts if the failure is not known to be temporary
LISTED = 10  # maximum number of model names in a message
WATCHED = 1  # seconds between two checks for silent servers
REDIRECTS = 3  # maximum number of redirects, only within the server's own origin
# Fields that disable a server's default changes to the distribution, by the owner that the server lists: vLLM applies a
# checkpoint's generation settings, llama.cpp applies its own. Other servers may reject fields outside the API. These
# servers also accept chat_template_kwargs, which switch thinking on or off.
PLAIN_SAMPLING = {
    "vllm": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    "sglang": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    "llamacpp": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
    "agentark": {},
}


class Server:
    """One model on a server at `address`, which usually ends in /v1, or on several servers, separated by commas.

    With several servers, each request goes to the server that is likely to answer first (see `addresses`).

    The fingerprint is the model's name without the address: a server may move, and servers of the same model share
    finished generations. So a name must identify one set of weights (`make serve` includes a digest). Raises StudyError
    for an invalid address or a missing model name.
    """

    def __init__(self, address: str, model: str):
        addresses = [valid_address(part) for part in address.split(",")]
        where = f"{','.join(addresses)}#{model}"
        if not model:
            raise StudyError(f"{where}: which model? add its name, as in http://127.0.0.1:8000/v1#name")
        self.model, self.where = model, where
        self.addresses = Addresses(addresses)
        self.fingerprint = f"openai-compatible chat, plain sampling: {model}"
        self.owners: dict[str, str] = {}  # of the model, by address, set by `greet`
        self.uncounted = False  # whether the warning about missing token counts has been printed

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        return [[i] for i in range(len(requests))]

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Reply]]]:
        key = api_key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        most = IN_FLIGHT * len(self.addresses.states)
        halt = Event()
        failure: BaseException | None = None
        with (
            new_client(headers, most) as client,
            ThreadPoolExecutor(most + 1) as pool,  # one more for `watch`
        ):
            self.greet_all(client)
            pool.submit(self.watch, halt)
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
                    # The time since the previous reply, so that the seconds add up to the wall-clock time.
                    seconds = time.perf_counter() - start
                    yield calls[call], [replace(call.result(), seconds=seconds)]
                    start += seconds
            finally:
                halt.set()
                for waiting in calls:
                    waiting.cancel()
        if failure:
            raise failure

    def watch(self, halt: Event) -> None:
        """Move requests from silent servers to the other servers until `halt` is set."""
        while not halt.wait(WATCHED):
            for address, seconds in self.addresses.hang_up():
                words = f"no answer for {seconds:.0f} s; its requests go to the other servers"
                print(f"{address}#{self.model}: {words}", flush=True)

    def greet_all(self, client: httpx.Client) -> None:
        """Call `greet` for every address without a known owner. Raises StudyError if no server answers."""
        silent = []
        for address in [a for a in self.addresses.states if a not in self.owners]:
            try:
                self.greet(client, address)
            except Silent as error:
                self.addresses.failed(address)
                silent.append(error)
        if silent and not self.owners:
            raise silent[0]
        for failure in silent:
            print(f"{failure}; the other servers are used meanwhile", flush=True)

    def greet(self, client: httpx.Client, address: str) -> None:
        """Store the owner of the model at an address, which determines the fields for plain sampling.

        A single server is retried while it is loading its model. Raises Silent at once if no server answers, since the
        address is probably misspelt, and StudyError if the model is not listed.
        """
        where = f"{address}#{self.model}"
        try:
            only = len(self.addresses.states) == 1
            response = self.retried(self.models, client, address) if only else self.models(client, address)
        except (httpx.RequestError, Passing) as error:
            reason = str(error) or type(error).__name__
            raise Silent(f"{where}: no server answers ({reason}); start one with `make serve`") from None
        served = owners_in(replies.content(response))
        listed = next((name for name in served if serves(name, self.model)), None)
        if served and listed is None:  # a gateway may list nothing (BerriAI/litellm#2837)
            raise StudyError(
                f"{where}: the server has only {listed_names(served, self.model)}; name one of them after #"
            )
        self.owners[address] = str(served.get(listed or self.model))

    def models(self, client: httpx.Client, address: str) -> httpx.Response:
        """Request the list of models. Raises Passing while the server is loading or busy.

        Other failures are ignored: a server may refuse only the list, and the first request shows if it has the model.
        """
        with translated_errors():
            response = client.get(f"{address}/models", timeout=30, extensions=self.addresses.traced(address))
        if response.status_code in failures.PASSING or (response.status_code >= 500 and response.status_code != 501):
            failures.failed(response.status_code, replies.content(response), failures.retry_after(response))
        return response

    def ask(self, client: httpx.Client, request: Request, halt: Event) -> Reply:
        """Request an answer, with retries. Raises StudyError after PATIENCE or for a failure that is not temporary."""
        answer = self.retried(self.once, client, request, halt=halt)
        if not answer.prompt_tokens and answer.text and not self.uncounted:
            self.uncounted = True
            print(f"{self.where}: the server counts no tokens; the cost of its answers is recorded as 0", flush=True)
        return answer

    def retried(self, call, client: httpx.Client, *arguments, halt: Event | None = None):
        """Call `call(client, *arguments)`, with a retry after each Passing. Raises StudyError with the last failure."""
        halt = halt or Event()
        retrying = Retrying(
            retry=retry_if_exception_type(Passing),
            wait=pause,
            stop=stop_any(StopAfterPatience(), stop_when_event_set(halt), StopAfterFew()),
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
        """Request an answer once. Raises Passing, StudyError if a retry cannot help, or Stopped at the run's end."""
        deadline.check()
        with self.addresses.use(Passing) as address:
            if address not in self.owners:
                try:
                    self.greet(client, address)
                except Silent as error:
                    raise Passing(str(error)) from None
            response = self.post(client, address, self.body(request, self.owners[address]))
            system = request.messages[0]["role"] == "system"
            # Parse only a failure here, since `replies.read` parses every response again.
            if system and response.is_error and refused_by_template(response.status_code, replies.content(response)):
                plain = replace(request, messages=without_system(request.messages))
                response = self.post(client, address, self.body(plain, self.owners[address]))
            reply = replies.read(response)
        if request.thinking == "on" and reply.finish_reason == "length" and not MARK.search(reply.text):
            return replace(reply, text=f"<think>{reply.text}")  # the template opened the thought in the prompt
        return reply

    def body(self, request: Request, owner: str) -> dict:
        """The body of a chat completion request. Raises StudyError if the server has no known switch for thinking."""
        body = {
            "model": self.model,
            "messages": request.messages,
            "temperature": request.temperature,
            "top_p": 1.0,
            "max_tokens": request.most,
            "seed": request.seed,
            **PLAIN_SAMPLING.get(owner, {}),
        }
        if request.thinking and owner not in PLAIN_SAMPLING:
            raise StudyError(
                f"thinking={request.thinking}: only servers of vLLM, SGLang, llama.cpp and `make serve` are known to "
                "have this switch; leave thinking empty, or serve the model by one of them"
            )
        return body | ({"chat_template_kwargs": SWITCH[request.thinking]} if request.thinking else {})

    def post(self, client: httpx.Client, address: str, body: dict) -> httpx.Response:
        """Send a chat completion request and return the response. Raises Passing if the connection fails."""
        with translated_errors(httpx.RequestError):
            response = client.post(
                f"{address}/chat/completions", json=body, timeout=timeout(), extensions=self.addresses.traced(address)
            )
            for _ in range(REDIRECTS):
                if response.next_request is None:
                    return response
                check_redirect(address, response.next_request.url, response.status_code)
                response = client.send(response.next_request)
        if response.next_request is None:
            return response
        raise StudyError(f"status {response.status_code}: the server redirects in a circle; correct the address")


class Silent(StudyError):
    """No server answers at an address."""


@contextlib.contextmanager
def translated_errors(*passing: type[Exception]) -> Iterator[None]:
    """Convert httpx errors: to Passing for `passing` and undecodable bodies, to StudyError for an invalid redirect."""
    try:
        yield
    except httpx.DecodingError as error:  # a body not encoded as declared
        raise Passing(str(error), few=True) from None
    except httpx.RequestError as error:
        if "location header" in str(error):
            raise StudyError(f"the server redirects to no address ({error}); correct the address") from None
        if isinstance(error, passing):
            raise Passing(str(error) or type(error).__name__) from None
        raise


def new_client(headers: dict[str, str], most: int) -> httpx.Client:
    """A client of at most `most` connections. Raises StudyError if the environment's proxy or certificates are invalid.

    The error names the variables but not their values, which may contain a password.
    """
    try:
        return httpx.Client(headers=headers, timeout=timeout(), limits=httpx.Limits(max_connections=most))
    except Exception as error:
        kind = r"SSL_CERT_(FILE|DIR)" if isinstance(error, OSError) else r"(ALL|HTTP|HTTPS|NO)_PROXY"
        names = ", ".join(sorted(n for n in os.environ if os.environ[n] and re.fullmatch(kind, n, re.IGNORECASE)))
        raise StudyError(
            f"{names}: the environment names no usable {'certificates' if isinstance(error, OSError) else 'proxy'} "
            f"({type(error).__name__}); correct or unset it (a proxy over SOCKS needs the package socksio)"
        ) from None


def owners_in(body: Any) -> dict[str, Any]:
    """The owner of each model in a server's list, or {} if `body` is not such a list."""
    try:
        return {str(model["id"]): model.get("owned_by") for model in body["data"]}
    except (LookupError, TypeError, AttributeError):
        return {}


def serves(listed: str, model: str) -> bool:
    """Whether a listed name matches a model: equal but for a suffix (`:free`, `:latest`), or a gateway's pattern."""
    short = (listed.rpartition(":")[0], model.rpartition(":")[0])
    return listed == model or model == short[0] or listed == short[1] or ("*" in listed and fnmatchcase(model, listed))


def listed_names(names: Iterable[str], model: str) -> str:
    """Names for a message: all of them, or their number and the LISTED names closest to `model`."""
    names = list(names)
    closest = get_close_matches(model, names, LISTED, 0.0)
    return ", ".join(names) if len(names) <= LISTED else f"{len(names)} others; the closest are {', '.join(closest)}"


def valid_address(address: str) -> str:
    """A server's address without surrounding blanks and trailing slashes. Raises StudyError if it is invalid."""
    address = address.strip().rstrip("/")
    try:
        parts = urlsplit(address)
        port = parts.port
        httpx.URL(address).raw_host.decode().encode("idna")  # the connection encodes the host like this
        if not address or re.search(r"\s", address):
            raise ValueError("a blank")
    except (ValueError, httpx.InvalidURL):
        raise StudyError("the server's address is not one; write it as in http://127.0.0.1:8000/v1#name") from None
    if parts.username or parts.password or parts.query:
        raise StudyError("the address contains a user, key or query and would be stored; use OPENAI_API_KEY")
    if not parts.hostname or port == 0:
        raise StudyError(f"{address}: no host; write the address as in http://127.0.0.1:8000/v1#name")
    return address


def check_redirect(address: str, target: httpx.URL, status: int) -> None:
    """Raise StudyError if a redirect leads to another server, which must not get the key, or changes the method."""
    origin = httpx.URL(address)
    same = (target.scheme, target.host, target.port) == (origin.scheme, origin.host, origin.port)
    if not same or status not in (307, 308):
        shown = target.copy_with(username=None, password=None, query=None)
        raise StudyError(f"the server redirects to {shown}; if that is the right place, use its address")


def api_key() -> str | None:
    """OPENAI_API_KEY without surrounding blanks, line ends and quotes, or None if it is not set.

    Raises StudyError, without quoting the key, if it contains a character that is invalid in a header.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip(" \t\r\n\v\f\ufeff\u200b\xa0\"'")
    if not all("!" <= character <= "~" for character in key):
        raise StudyError("OPENAI_API_KEY holds a blank or an invalid character; copy the key again")
    return key or None


def timeout() -> httpx.Timeout:
    """The timeout of a request: LONGEST_ANSWER, but at most until GRACE seconds after the end of the run."""
    return httpx.Timeout(max(1, min(LONGEST_ANSWER, deadline.left() + deadline.GRACE)), connect=10)


def pause(state: RetryCallState) -> float:
    """Seconds to wait: exponential backoff with jitter, at least the pause from the server, at most until the end.

    `Retry-After: 0` does not shorten the wait, since that can cause a hot loop (kubescape/kubevuln#755).
    """
    longest = min(2.0 ** min(state.attempt_number - 1, 30), LONGEST_PAUSE)
    asked = max(random.uniform(longest / 2, longest), failure_of(state).pause or 0.0)
    return max(0.0, min(asked, deadline.left()))


class StopAfterPatience(stop_base):
    """Stop if the next attempt would start PATIENCE seconds or more after the first failure of a request.

    The first attempt does not count, since it may have taken far longer if the server hung or was killed.
    """

    def __init__(self) -> None:
        self.first: float | None = None

    def __call__(self, retry_state: RetryCallState) -> bool:
        now = retry_state.outcome_timestamp or time.monotonic()
        self.first = now if self.first is None else self.first
        return now - self.first + retry_state.upcoming_sleep >= PATIENCE


class StopAfterFew(stop_base):
    """Stop after FEW failures that are not known to be temporary."""

    def __init__(self) -> None:
        self.found = 0

    def __call__(self, retry_state: RetryCallState) -> bool:
        self.found += failure_of(retry_state).few
        return self.found >= FEW and failure_of(retry_state).few


def failure_of(state: RetryCallState) -> Passing:
    failure = state.outcome.exception() if state.outcome else None
    assert isinstance(failure, Passing)  # the only type that is retried
    return failure

"""Parse a server's response: an answer, a temporary failure, or a permanent one. No requests are sent here.

In: a response of an OpenAI-compatible server (https://platform.openai.com/docs/api-reference/chat), in the forms that
servers actually send. Out: a Reply. A failure raises Passing (temporary) or StudyError (permanent) with the server's
message.
"""

import html
import re
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

import httpx

from agentark import StudyError, redacted
from agentark.engines import Reply
from agentark.engines.requests import FinishReason

WORDS = 300  # maximal length, in characters, of a quoted server message
PASSING = (408, 409, 425, 429)  # and 5xx: the same request may succeed later
# Finish reasons in lower case. Besides OpenAI's: `eos_token` (vespa-engine/vespa#33327), `end_turn` and `max_tokens`
# (gateways to Anthropic's API), `safety` and upper case (gateways to Google's).
FINISHED: dict[str, FinishReason] = {
    **dict.fromkeys(
        ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "stop_token", "end", "completed"), "stop"
    ),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "max_length", "model_length"), "length"),
    **dict.fromkeys(
        ("content_filter", "safety", "refusal", "recitation", "prohibited_content", "blocklist"), "refused"
    ),
}
# The server aborted the request; a retry may succeed.
UNFINISHED = ("", "none", "null", "abort", "aborted", "cancelled", "canceled", "error", "timeout", "preempted")
# Permanent failures, recognised by code and message, not by status: servers send them as 400, 402, 429, 500 and inside
# a 200 (Aider-AI/aider#3550, openai/codex#6340, langchain-ai/langchainjs#1929).
KINDS = (
    (
        r"insufficient_quota|billing|payment required|\bno credits?\b|out of credits?|credit balance"
        r"|insufficient (?:balance|funds|credits?)|exceeded your current quota"
        r"|quota (?:is |has been )?(?:used up|exhausted)|spending limit",
        "add credit or use another key, then run the same command: what is finished is kept",
    ),
    (
        r"context_length_exceeded|exceed_context_size|(?:maximum|max) (?:context|model) length"
        r"|context[ _](?:length|size|window)"
        r"|prompt is too long|too many (?:input )?tokens|input is too long|string_above_max_length",
        "shorten the prompt, lower max_tokens, or name a model with a longer context",
    ),
    (
        r"unsupported_(?:parameter|value)|unsupported (?:parameter|value)|unknown_parameter"
        r"|(?:parameter|param|argument|field)\b.{0,60}\bnot (?:supported|permitted|allowed)"
        r"|not supported with this model|extra inputs are not permitted",
        "name a model or a server that accepts this parameter",
    ),
    (r"invalid_api_key|incorrect api key|invalid api key|authentication_error", "set OPENAI_API_KEY to a valid key"),
    (r"model_not_found|model .{0,80}(?:does not exist|not found)", "correct the model's name after #"),
)
ADVICE = {
    401: "set OPENAI_API_KEY to a valid key",
    402: KINDS[0][1],
    403: "set OPENAI_API_KEY to a key that may use this model",
    404: "correct the address, which ends in /v1 as a rule, or the model's name after #",
    413: KINDS[1][1],
}
OTHERWISE = "change the request (a shorter prompt, fewer tokens), or name another model"


class Passing(Exception):
    """A temporary failure: a retry may succeed.

    pause: seconds that the server asks the client to wait, or None. few: the failure is not known to be temporary, so
    only a few retries are made.
    """

    def __init__(self, reason: str, pause: float | None = None, few: bool = False):
        super().__init__(redacted(reason))
        self.pause, self.few = pause, few


def read(response: httpx.Response) -> Reply:
    """The answer in a response, with `seconds` 0. Raises Passing, or StudyError for a permanent failure."""
    body = content(response)
    if response.status_code != 200:
        return failed(response.status_code, body, asked_pause(response))
    if isinstance(body, dict) and body.get("error"):  # an error with status 200 (BerriAI/litellm#8448)
        return failed(status_in(body["error"]), body, asked_pause(response))
    try:
        return reply(body)
    except (ValueError, LookupError, TypeError, AttributeError):
        if str(body).lstrip().startswith("data:"):
            raise StudyError("the server streams its answers; switch streaming off there") from None
        raise Passing(f"a response that is no chat completion: {quoted(body)}", few=True) from None


def content(response: httpx.Response) -> object:
    """A response's body: the parsed JSON, or the text if it is not JSON."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return response.text


def failed(status: int, body: object, pause: float | None) -> Reply:
    """Raise Passing or StudyError for a failed response. Status 0 means unknown.

    Returns a Reply with finish reason "refused" if a content filter rejected the prompt.
    """
    code, words = complaint(body)
    if "content_filter" in code:  # some servers report a refused prompt as an error, without token counts
        return Reply("", 0, 0, "refused", 0.0)
    reason = ": ".join(filter(None, [f"status {status}" if status else "", words]))
    described = f"{code} {words}".lower()
    for pattern, advice in KINDS:
        if re.search(pattern, described):
            raise StudyError(f"{reason}; {advice}")
    if status in PASSING or (status >= 500 and status != 501) or status == 0:
        raise Passing(reason, pause, few=status == 0)
    raise StudyError(f"{reason}; {ADVICE.get(status, OTHERWISE)}")


def reply(body: Any) -> Reply:
    """Parse a chat completion. Raises ValueError, LookupError, TypeError or AttributeError if it is not one.

    Token counts are 0 if the server sends none.
    """
    choice = body["choices"][0]
    message = choice.get("message") or {"content": choice["text"]}  # `text`: the older completions API
    reason = str(choice.get("finish_reason") or "").lower()
    usage = body.get("usage") or {}
    prompt_tokens, completion_tokens = (counted(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    if message.get("refusal"):
        return Reply("", prompt_tokens, completion_tokens, "refused", 0.0)
    text, thought = text_of(message.get("content")), message.get("reasoning_content") or message.get("reasoning")
    if reason in UNFINISHED:
        raise Passing(
            f"an answer that the server did not finish (finish_reason {choice.get('finish_reason')!r})", few=True
        )
    if reason not in FINISHED:
        raise StudyError(
            f"the answer ended with finish_reason {reason[:40]!r}; choose a model that answers in plain text"
        )
    # A thought without text is a reply cut off while thinking (ml-explore/mlx-lm#1738). Without text, thought and
    # tokens there is no answer.
    if not text and not thought and FINISHED[reason] == "stop" and not completion_tokens:
        raise Passing("an empty answer of no tokens", few=True)
    if isinstance(thought, str) and thought.strip():  # marked, as in the text of engines that do not take it apart
        text = f"<think>{thought}" + (f"</think>{text}" if text or FINISHED[reason] == "stop" else "")
    return Reply(text, prompt_tokens, completion_tokens, FINISHED[reason], 0.0)


def text_of(content: object) -> str:
    """A message's text, from a string or from a list of parts with `text`. Raises TypeError for any other form."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return "".join(part["text"] for part in content if isinstance(part.get("text"), str))
    raise TypeError("content of another form")


def counted(value: Any) -> int:
    """A token count, or 0 if `value` is not a valid one."""
    with suppress(ValueError, TypeError, OverflowError):
        if not isinstance(value, bool) and 0 <= float(value) < 2**40:
            return int(float(value))
    return 0


def complaint(body: object) -> tuple[str, str]:
    """A failure's code, type and parameter as one text, and the server's message on one line."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return "", quoted(error)
    code = " ".join(str(error.get(key)) for key in ("code", "type", "param") if error.get(key))
    words = next((error[key] for key in ("message", "detail", "msg", "title", "error") if error.get(key)), code)
    if isinstance(words, list):  # FastAPI's list of validation errors
        words = "; ".join(
            f"{'.'.join(map(str, w.get('loc', ())))}: {w.get('msg')}" for w in words if isinstance(w, dict)
        )
    return code, quoted(words)


def quoted(words: object) -> str:
    """A server's message on one line, without HTML, cut to WORDS characters."""
    text = str(words)
    if re.match(r"\s*<", text):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        text = html.unescape(title[1] if title else re.sub(r"<[^>]*>", " ", text[:20_000]))
    text = " ".join(text.encode(errors="replace").decode().split())
    return text if len(text) <= WORDS else f"{text[:WORDS]}..."


def status_in(error: Any) -> int:
    """The HTTP status stated by an error inside a 200 response, or 0 if there is none."""
    for key in ("code", "status", "status_code"):
        with suppress(ValueError, TypeError, AttributeError):
            if 400 <= int(error.get(key)) < 600:
                return int(error[key])
    return 0


def asked_pause(response: httpx.Response) -> float | None:
    """The wait in seconds from a Retry-After header (a number or a date), or None without a readable one."""
    asked = response.headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(asked)) if isfinite(float(asked)) else None
    with suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    return None

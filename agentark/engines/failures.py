"""Classify a server's failures as temporary, permanent, or a prompt that a filter refuses. This module sends nothing.

Input: the status and the parsed body of a response (see `replies`). Output: Passing (temporary) or StudyError
(permanent) with the server's message, or a refused Reply. Error bodies have many formats, so they are searched for
known patterns.
"""

import html
import json
import re
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

import httpx

from agentark import StudyError, redacted
from agentark.engines import Reply

WORDS = 300  # maximum length, in characters, of a quoted server message
PASSING = (408, 409, 425, 429)  # and 5xx: the same request may succeed later
# Errors of a chat template that does not accept the messages; llama.cpp sends them with status 500.
TEMPLATE = r"jinja|chat template|roles must alternate|system role|roles are supported|unexpected (?:message )?role"
# Permanent failures, recognised by code and message, not by status: servers send them as 400, 402, 429, 500 and inside
# a 200 (Aider-AI/aider#3550, openai/codex#6340, langchain-ai/langchainjs#1929).
KINDS = (
    (
        r"insufficient_quota|billing|payment required|\bno credits?\b|out of credits?|credit balance"
        r"|insufficient (?:balance|funds|credits?)|exceeded your current quota|budget_?exceeded|exceededbudget"
        r"|budget (?:has been|was) exceeded"
        r"|quota (?:is |has been )?(?:used up|exhausted)|spending limit",
        "add credit or use another key, then run the same command: what is finished is kept",
    ),
    (
        r"context_length_exceeded|exceed_context_size|(?:maximum|max) (?:context|model) length"
        r"|context[ _](?:length|size|window)|request too large"
        r"|prompt is too long|too many (?:input )?tokens|input is too long|string_above_max_length",
        "shorten the prompt, lower max_tokens, or name a model with a longer context",
    ),
    (
        r"unsupported_(?:parameter|value)|unsupported (?:parameter|value)|unknown_parameter"
        r"|(?:parameter|param|argument|field)\b.{0,60}\bnot (?:supported|permitted|allowed)"
        r"|not supported with this model|extra inputs are not permitted",
        "name a model or a server that accepts this parameter",
    ),
    (
        r"invalid_api_key|incorrect api key|invalid api key|api key not valid|api_key_invalid|authentication_error",
        "set OPENAI_API_KEY to a valid key",
    ),
    (r"model_not_found|model .{0,80}(?:does not exist|not found)", "correct the model's name after #"),
    (r"more system memory", "free memory on the server, or name a smaller model"),
    (TEMPLATE, "use order=shared, or name a model whose chat template takes these messages"),
)
# A limit per minute is temporary, although its message may match one of KINDS. A match of SURE is permanent.
LIMIT = r"(?:again|retry|wait)(?: in| after| for)? \d|please wait|per[ -]?min(?:ute)?\b|rate limit reached"
SURE = r"insufficient_quota|budget_?exceeded|request too large|must be reduced"
DURATION = r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|s|sec(?:ond)?s?|m|min(?:ute)?s?|h|hours?|d|days?)(?![a-z])\s*"
# A number at the end of the message may lack a unit: it is in seconds, as in a Retry-After header.
PAUSE = re.compile(rf"(?:again|retry|wait)(?: in| after| for)? ((?:{DURATION})+|\d+(?:\.\d+)?(?=\W*$))")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # seconds
# Codes and messages for a prompt or an answer that a filter refuses.
REFUSED = (
    r"content_?filter|content_?policy_?violation|data_?inspection_?failed|responsibleaipolicyviolation"
    r"|content management policy|inappropriate content"
    r"|(?:prompt|input|request|content)\b.{0,40}\b(?:flagged|violat\w+ .{0,20}polic)"
)
ADVICE = {
    401: "set OPENAI_API_KEY to a valid key",
    402: KINDS[0][1],
    403: "set OPENAI_API_KEY to a key that may use this model",
    404: "correct the address, which ends in /v1 as a rule, or the model's name after #",
    413: KINDS[1][1],
    **dict.fromkeys(range(300, 400), "the server redirects to no other place; correct the address"),
}
OTHERWISE = "change the request (a shorter prompt, fewer tokens), or name another model"
# Keys of an error in a body, of its status, of its codes and of its message.
ERRORS = ("error", "errors", "fault", "detail")
STATUSES = ("code", "status", "statuscode", "status_code")
CODES = (*STATUSES, "type", "param")
MESSAGES = ("message", "detail", "msg", "faultstring", "error_description", "errormessage", "title")
TYPES = {"rate_limit": 429, "too_many_requests": 429, "overloaded": 503}  # beginning of a code or type -> status


class Passing(Exception):
    """A temporary failure: a retry may succeed.

    pause: seconds that the server asks the client to wait, or None. few: the failure is not known to be temporary, so
    only a few retries are made.
    """

    def __init__(self, reason: str, pause: float | None = None, few: bool = False):
        super().__init__(redacted(reason))
        self.pause, self.few = pause, few


def failed(status: int, body: object, pause: float | None) -> Reply:
    """Raise Passing or StudyError for a failed response. Status 0 means unknown.

    Returns a Reply with finish reason "refused" if a content filter rejected the prompt.
    """
    words, described = message_of(body)
    # Some servers report a refused prompt as an error, without token counts.
    if status not in (401, 429) and re.search(REFUSED, described):
        return Reply("", 0, 0, "refused", 0.0)
    reason = ": ".join(filter(None, [f"status {status}" if status else "", quoted(words)]))
    sure = re.search(SURE, described)
    limited = status in (0, 429, 503) and not sure and re.search(LIMIT, described)
    for pattern, advice in KINDS if not limited else ():
        if re.search(pattern, described):
            raise StudyError(f"{reason}; {advice}")
    if status in PASSING or (status >= 500 and status != 501) or status == 0:
        raise Passing(reason, pause_in(described) if pause is None else pause, few=status == 0 and not limited)
    raise StudyError(f"{reason}; {ADVICE.get(status, OTHERWISE)}")


def refused_by_template(status: int, body: object) -> bool:
    """Whether a model's template may have refused the messages. Any status 400 counts, since it may have this cause."""
    return status == 400 or (status >= 400 and re.search(TEMPLATE, message_of(body)[1]) is not None)


def message_of(body: object) -> tuple[str, str]:
    """A failure's original message, and the text to search for patterns: its codes and message in lower case, no links.

    Links are removed because a link to a provider's billing page does not describe the failure.
    """
    try:
        codes, words = " ".join(codes_in(body)), message_in(body)
        words = words or codes or (json.dumps(body, ensure_ascii=False) if body not in (None, "", [], {}) else "")
    except RecursionError:
        codes, words = "", "an answer of too many levels"
    return words, re.sub(r"(?:https?://|www\.)\S+", " ", f"{codes} {words}").lower()


def lowered(record: dict) -> dict[str, Any]:
    return {str(name).lower(): value for name, value in record.items()}


def codes_in(value: object) -> list[str]:
    """The codes and types of an error, at any position in a body."""
    if isinstance(value, list):
        return [code for item in value for code in codes_in(item)]
    if not isinstance(value, dict):
        return []
    record = lowered(value)
    own = [str(record[name]) for name in CODES if record.get(name) and not isinstance(record[name], dict | list)]
    if isinstance(record.get("metadata"), dict) and "flagged_input" in record["metadata"]:  # OpenRouter
        own.append("content_filter")
    return own + [code for name in (*ERRORS, "innererror") for code in codes_in(record.get(name))]


def message_in(value: object) -> str:
    """The message of an error, at any position in a body, or "" if it is under no known key."""
    if isinstance(value, list):
        return "; ".join(dict.fromkeys(filter(None, map(message_in, value))))
    if not isinstance(value, dict):
        return "" if value is None or isinstance(value, bool) else str(value)
    record = lowered(value)
    place = record.get("loc")  # FastAPI's validation errors
    words = next(filter(None, (message_in(record.get(name)) for name in MESSAGES)), "")
    if place and words:
        words = f"{'.'.join(map(str, place)) if isinstance(place, list) else place}: {words}"
    raw = record["metadata"].get("raw") if isinstance(record.get("metadata"), dict) else None  # OpenRouter
    found = [
        message_in(record.get("error")),
        words,
        *(message_in(record.get(name)) for name in ("errors", "fault")),
        as_text(raw),
    ]
    return ": ".join(dict.fromkeys(filter(None, found)))


def as_text(value: object) -> str:
    return message_in(value) or (json.dumps(value) if isinstance(value, dict | list) else "")


def quoted(words: object, most: int = WORDS) -> str:
    """A server's message on one line, without HTML and secrets, cut to `most` characters.

    Secrets are removed before the cut, so that no part of one remains.
    """
    text = str(words)
    if re.match(r"\s*<", text):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        text = html.unescape(title[1] if title else re.sub(r"<[^>]*>", " ", text[:20_000]))
    text = " ".join(redacted(text).encode(errors="replace").decode().split())
    return text if len(text) <= most else f"{text[:most]}..."


def status_in(*errors: Any) -> int:
    """The HTTP status in an error inside a 200 response, or in the record around the error; 0 if there is none."""
    for record in (lowered(error) for error in errors if isinstance(error, dict)):
        for name in STATUSES:
            with suppress(ValueError, TypeError, OverflowError):
                if 400 <= int(record.get(name, 0)) < 600:
                    return int(record[name])
        for name in ("code", "type"):
            for beginning, status in TYPES.items():
                if str(record.get(name)).lower().startswith(beginning):
                    return status
    return 0


def retry_after(response: httpx.Response) -> float | None:
    """The wait in seconds from a Retry-After header (a number or a date), or None if it is missing or unreadable."""
    header = response.headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(header)) if isfinite(float(header)) else None
    with suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    return None


def pause_in(words: str) -> float | None:
    """The wait in seconds that a message asks for, as in "try again in 1m20.5s", or None."""
    found = PAUSE.search(words)
    if not found:
        return None
    parts = re.findall(DURATION, found[1]) or [(found[1], "s")]
    return sum(float(number) * (0.001 if unit.startswith(("ms", "mil")) else UNITS[unit[0]]) for number, unit in parts)

"""Parse a server's response: an answer, or a failure (see `failures`). No requests are sent here.

Input: a response of an OpenAI-compatible server (https://platform.openai.com/docs/api-reference/chat), in the forms
that servers actually send. Output: a Reply. A failure raises Passing (temporary) or StudyError (permanent) with the
server's message.
"""

import json
from contextlib import suppress
from typing import Any

import httpx

from agentark import StudyError
from agentark.engines import Reply
from agentark.engines.failures import Passing, failed, message_of, quoted, retry_after, status_in
from agentark.engines.requests import FinishReason

# Finish reasons in lower case. Of other servers: `eos_token` (vespa-engine/vespa#33327), `end_turn` and `max_tokens`
# (gateways to Anthropic's API), `safety` and upper case (gateways to Google's).
FINISHED: dict[str, FinishReason] = {
    **dict.fromkeys(
        ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "stop_token", "end", "completed", "complete", "</s>",
         "<|im_end|>", "finish_reason_stop"), "stop"
    ),
    **dict.fromkeys(
        ("length", "max_tokens", "max_output_tokens", "max_length", "model_length", "max_new_tokens", "token_limit",
         "finish_reason_length", "finish_reason_max_tokens"), "length"
    ),
    **dict.fromkeys(
        ("content_filter", "content_filtered", "safety", "refusal", "recitation", "prohibited_content", "blocklist",
         "sensitive", "guardrail_intervened", "spii"), "refused"
    ),
}  # fmt: skip
# The server aborted the request; a retry may succeed.
UNFINISHED = ("", "none", "null", "abort", "aborted", "cancelled", "canceled", "error", "timeout", "preempted",
              "network_error", "insufficient_system_resource", "time_limit", "not_finished")  # fmt: skip
THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")  # fields of a message
THINKING = ("reasoning", "thinking", "reasoning_text", "redacted_thinking")  # types of content parts


def read(response: httpx.Response) -> Reply:
    """The answer in a response, with `seconds` 0. Raises Passing, or StudyError for a permanent failure."""
    body, pause = content(response), retry_after(response)
    if not response.is_success:
        return failed(response.status_code, body, pause)
    try:
        return reply(body, pause)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        if isinstance(body, str) and body.lstrip().startswith("data:"):
            raise StudyError("the server streams its answers; switch streaming off there") from None
        raise Passing(f"a response that is no chat completion: {quoted(message_of(body)[0])}", few=True) from None


def content(response: httpx.Response) -> object:
    """A response's body: the parsed JSON, or the text if it is not JSON.

    Bytes that are not UTF-8 are decoded with the declared encoding; invalid bytes are then replaced.
    """
    with suppress(ValueError, RecursionError):
        return json.loads(response.content, strict=False)
    try:
        text = response.content.decode("utf-8-sig")
    except ValueError:
        try:
            text = response.content.decode(response.charset_encoding or "utf-8", "replace")
        except Exception:  # the declared encoding is unknown or not a text encoding
            text = response.content.decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        return json.loads(text, strict=False)
    return text


def reply(body: Any, pause: float | None = None) -> Reply:
    """Parse a chat completion. Raises ValueError, LookupError, TypeError or AttributeError if it is not one.

    An error in the body (BerriAI/litellm#8448), a choice or a message counts as a failed response. Token counts are 0
    if the server sends none.
    """
    error = error_in(body)
    if error:
        container = body if isinstance(body, dict) else None
        return failed(status_in(error, container), {"error": error}, pause)
    choice = body["choices"][0]
    message = choice.get("message") or {"content": choice["text"]}  # `text`: the older completions API
    usage = body["usage"] if isinstance(body.get("usage"), dict) else {}
    prompt_tokens, completion_tokens = (counted(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    if refusal_in(message):
        return Reply("", prompt_tokens, completion_tokens, "refused", 0.0)
    text, thought = text_of(message.get("content")), thought_of(message)
    reason = reason_of(choice, message, text)
    # A thought without text is a reply cut off while thinking (ml-explore/mlx-lm#1738). A reply without text, thought
    # and tokens is not an answer.
    if not text and not thought and reason == "stop" and not completion_tokens:
        raise Passing("an empty answer of no tokens", few=True)
    if thought.strip():  # marked as in the text of engines that do not separate thoughts
        text = f"<think>{thought}" + ("" if reason == "length" and not text else f"</think>{text}")
    return Reply(text, prompt_tokens, completion_tokens, reason, 0.0)


def error_in(body: Any) -> Any:
    """Return the error in a body, in its first choice or in that choice's message, or None."""
    places = [body[0] if isinstance(body, list) and len(body) == 1 else body]
    with suppress(LookupError, TypeError, AttributeError):
        places.append(body["choices"][0])
        places.append(body["choices"][0].get("message"))
    return next((place["error"] for place in places if isinstance(place, dict) and place.get("error")), None)


def reason_of(choice: dict, message: dict, text: str) -> FinishReason:
    """Return how an answer ended. Raises Passing if it is unfinished, StudyError after another end, as tool calls."""
    given = choice.get("finish_reason")
    reason = str((given.get("type") if isinstance(given, dict) else given) or "").lower()
    if reason in UNFINISHED:
        raise Passing(f"an answer that the server did not finish (finish_reason {quoted(repr(given), 40)})", few=True)
    if not text and (message.get("tool_calls") or message.get("function_call")):
        reason = reason if reason not in FINISHED else "tool_calls"
    if reason not in FINISHED:
        raise StudyError(
            f"the answer ended with finish_reason {quoted(repr(reason), 40)}; choose a model that answers in plain text"
        )
    return FINISHED[reason]


def parts_of(message: dict, *types: str) -> list[dict]:
    """The parts of a message's content that have one of these types."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return [part for part in parts if isinstance(part, dict) and part.get("type") in types]


def refusal_in(message: dict) -> bool:
    return bool(message.get("refusal") or parts_of(message, "refusal"))


def thought_of(message: dict) -> str:
    """Return a message's thought, from the first non-empty field in THOUGHTS, else from parts of the content."""
    fields = (plain(message.get(name)) for name in THOUGHTS)
    return next(filter(str.strip, fields), plain(parts_of(message, *THINKING)))


def plain(value: object) -> str:
    """Return the text in a thought's field, which is a string, a part with a text, or a list of these."""
    if isinstance(value, list):
        return "".join(map(plain, value))
    if isinstance(value, dict):
        names = ("text", "thinking", "reasoning", "summary", "content")
        return next(filter(None, (plain(value.get(name)) for name in names)), "")
    return value if isinstance(value, str) else ""


def text_of(content: object) -> str:
    """A message's text, from a string or from a list of parts with `text`. Raises TypeError for any other form."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        texts = (part.get("text") for part in content if part.get("type") not in THINKING)
        return "".join(text for text in texts if isinstance(text, str))
    raise TypeError("content of another form")


def counted(value: Any) -> int:
    """A token count, or 0 if `value` is not a valid one."""
    with suppress(ValueError, TypeError, OverflowError):
        if not isinstance(value, bool) and 0 <= float(value) < 2**40:
            return int(float(value))
    return 0

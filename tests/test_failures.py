"""Failures of servers: temporary, permanent, and prompts refused by a filter, each with the server's message."""

import pytest
from test_replies import KEY, chat, response

from agentark import StudyError
from agentark.engines import failures
from agentark.engines.failures import Passing
from agentark.engines.replies import read

PERMANENT = {
    "credits, inside a 200": (200, {"error": {"message": "no credits left", "code": 402}}, "no credits left"),
    "quota by code": (429, {"error": {"message": "too much", "code": "insufficient_quota"}}, "too much"),
    "quota by type": (429, {"error": {"message": "spent", "type": "insufficient_quota", "code": None}}, "spent"),
    "quota by words": (429, {"error": {"message": "You exceeded your current quota"}}, "exceeded your current"),
    "billing": (
        400,
        {"error": {"message": "Billing hard limit has been reached", "code": "billing_hard_limit_reached"}},
        "Billing",
    ),
    "payment": (402, {"message": "top up first"}, "top up first"),
    "context, 400": (400, {"error": {"message": "This model's maximum context length is 4096 tokens"}}, "4096"),
    "context, 500": (500, {"error": {"message": "the request exceeds the available context size"}}, "available"),
    "context, 200": (200, {"error": {"message": "long", "code": "context_length_exceeded"}}, "long"),
    "key": (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}, "Incorrect API key"),
    "masked key": (401, {"error": {"message": "Incorrect API key provided: sk-ma****0123."}}, "Incorrect API key"),
    "key, 400": (400, {"error": {"message": f"invalid: {KEY}", "code": "invalid_api_key"}}, "OPENAI_API_KEY"),
    "no right": (403, {"error": "this key may not use the model"}, "may not use"),
    "no model": (404, {"detail": "Not Found"}, "Not Found"),
    "fields": (422, {"detail": [{"loc": ["body", "seed"], "msg": "extra fields"}]}, "body.seed: extra fields"),
    "parameter": (400, {"error": {"message": "Unsupported parameter: 'max_tokens'"}}, "accepts this parameter"),
    "text": (400, b"bad request, friend", "bad request, friend"),
    "page": (404, b"<html><title>404 &amp; gone</title><p>much</p></html>", "404 & gone;"),
    "not implemented": (501, {"error": "no chat here"}, "no chat here"),
    "tool": (200, chat("tool_calls", content=None), "'tool_calls'"),
    "tool, stop": (200, chat("stop", content=None, tool_calls=[{"id": 1}]), "'tool_calls'"),
    "in a choice": (
        200,
        {
            "choices": [
                {
                    "error": {"code": 402, "message": "no credits left"},
                    "message": {"content": ""},
                    "finish_reason": "error",
                }
            ]
        },
        "no credits left; add credit",
    ),
    "quota, with a pause": (
        429,
        {"error": {"message": "Spent. Please try again in 20s.", "code": "insufficient_quota"}},
        "Spent",
    ),
    "long after a request": (
        429,
        {"error": {"message": "Request too large for m on tokens per min (TPM): Limit 9, must be reduced"}},
        "shorten the prompt",
    ),
    "budget": (400, {"error": {"message": "Budget has been exceeded!", "type": "budget_exceeded"}}, "add credit"),
    "Google's key": (
        400,
        [{"error": {"code": 400, "message": "API key not valid."}}],
        "not valid.; set OPENAI_API_KEY",
    ),
    "memory": (500, {"error": "model requires more system memory (5 GiB) than is available"}, "free memory"),
    "template": (500, {"error": {"message": "Jinja Exception: Conversation roles must alternate"}}, "chat template"),
    "Cloudflare": (400, {"errors": [{"code": 7003, "message": "no route"}], "success": False}, "no route"),
    "NestJS": (
        400,
        {"statusCode": 400, "message": ["seed should not exist"], "error": "Bad Request"},
        "Bad Request: seed should not exist",
    ),
    "both": (
        400,
        {"error": "Too Many Requests", "message": "monthly quota is used up"},
        "Too Many Requests: monthly quota is used up; add credit",
    ),
    "true": (400, {"error": True, "message": "wrong"}, "wrong"),
    "null": (400, {"error": None, "message": "wrong"}, "wrong"),
    "a list of texts": (400, {"detail": ["wrong"]}, "400: wrong"),
    "AWS": (400, {"Message": "wrong"}, "wrong"),
    "Apigee": (400, {"fault": {"faultstring": "wrong", "detail": {"errorcode": "x"}}}, "wrong"),
    "OpenRouter": (
        400,
        {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": "seed is wrong"}}},
        "Provider returned error: seed is wrong",
    ),
    "no known name": (400, {"reasons": {"seed": "wrong"}}, '{"reasons": {"seed": "wrong"}}'),
    "no place": (422, {"detail": [{"loc": None, "msg": "x"}, {"loc": "body", "msg": "y"}]}, "422: x; body: y"),
    "an infinite code": (400, b'{"error": {"code": 1e999, "message": "wrong"}}', "wrong"),
    "after 400 characters": (429, {"error": {"message": "x" * 400 + " insufficient_quota"}}, "add credit"),
    "a key at the cut": (401, {"error": {"message": "x" * 290 + f" {KEY}"}}, "x [secret"),
    "a key as the end": (200, chat(f"{'x' * 30} {KEY}", content="x"), "plain text"),
    "not modified": (304, b"", "correct the address"),
    "stream": (200, b'data: {"choices": []}\n\ndata: [DONE]\n', "streams its answers"),
}


@pytest.mark.parametrize("failure", PERMANENT)
def test_permanent_failures_are_raised_with_the_server_message_without_the_key(failure, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    status, body, message = PERMANENT[failure]
    with pytest.raises(StudyError) as error:
        read(response(body, status))
    shown = str(error.value)
    assert message in shown and "\n" not in shown and len(shown) < 600
    assert not any(part in shown for part in (KEY, "made-up", "0123."))


@pytest.mark.parametrize(
    ("status", "body", "few"),
    [
        (200, {"error": {"message": "overloaded", "code": 429}, **chat(content=None)}, False),  # BerriAI/litellm#8448
        (200, {"error": {"message": "overloaded", "code": "503"}}, False),
        (200, {"error": "overloaded"}, True),
        (429, {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}, False),
        (429, {"error": {"message": "Quota exceeded for requests per minute"}}, False),
        (503, {"error": {"message": "Loading model", "code": 503}}, False),
        (
            429,
            {
                "error": {
                    "message": "Rate limit reached. Please try again in 20s. Visit https://x.com/account/billing to "
                    "add a payment method.",
                    "code": "rate_limit_exceeded",
                }
            },
            False,
        ),
        (429, {"message": "Too many tokens, please wait before trying again."}, False),
        (
            429,
            [
                {
                    "error": {
                        "message": "You exceeded your current quota, check your plan and billing details. Please retry in 2.5s."
                    }
                }
            ],
            False,
        ),
        (200, {"error": {"message": "slow down", "type": "rate_limit_error"}}, False),
        (200, {"error": {"message": "busy", "type": "overloaded_error"}}, False),
        (200, {"error": "busy", "status": 503}, False),
        (
            200,
            {
                "choices": [
                    {"error": {"code": 429, "message": "busy"}, "message": {"content": ""}, "finish_reason": "stop"}
                ]
            },
            False,
        ),
        (200, {"choices": [{"message": {"content": "", "error": {"code": 503}}, "finish_reason": "stop"}]}, False),
        (200, chat("network_error", content="x"), True),
        (500, b"CUDA out of memory", False),
        (502, b"<html><title>Bad gateway</title></html>", False),
        (200, b"<html><title>overloaded</title></html>", True),
        (200, chat(None, content="x"), True),
        (200, chat("abort", content="x"), True),
        (200, chat(content=["x"]), True),
        (200, chat(usage=(5, 0), content=""), True),
        (200, {"choices": []}, True),
        (200, [chat(content="x")], True),
        (200, b'{"choices": [{"mess', True),
        (200, b"[" * 100_000, True),
    ],
)
def test_temporary_failures_are_retryable_and_unclear_ones_get_few_retries(status, body, few):
    with pytest.raises(Passing) as failure:
        read(response(body, status))
    assert failure.value.few == few


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "filtered", "code": "content_filter"}),
        (400, {"message": "filtered", "code": "data_inspection_failed"}),
        (400, {"message": "filtered", "code": "content_policy_violation"}),
        (400, {"message": "litellm.ContentPolicyViolationError: no"}),
        (400, {"message": "Invalid prompt: your prompt was flagged as potentially violating our usage policy."}),
        (403, {"message": "Input was flagged. No credits were charged.", "metadata": {"flagged_input": "x"}}),
    ],
)
def test_a_prompt_rejected_by_a_filter_has_finish_reason_refused(status, error):
    assert read(response({"error": error}, status)).finish_reason == "refused"


@pytest.mark.parametrize(
    ("message", "seconds"),
    [("Please try again in 20s.", 20), ("retry in 23.4s", 23.4), ("try again in 1m20.5s", 80.5), ("again in 850ms", 0.85),
     ("Please retry after 2 seconds", 2), ("again in 1h2m", 3720), ("again in 5 students", None),
     ("retry after 30", 30), ("wait 1.5.", 1.5), ("retry after 30 attempts", None), ("later", None)],
)  # fmt: skip
def test_the_requested_pause_is_read_from_the_message(message, seconds):
    with pytest.raises(Passing) as failure:
        read(response({"error": {"message": message}}, 429))
    assert failure.value.pause == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0), ("2", 2), ("2.5", 2.5), ("-5", 0), ("nan", None), ("inf", None), ("soon", None), ("", None),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Wed, 21 Oct 99999 07:28:00 GMT", None), ("1e9", 1e9)],
)  # fmt: skip
def test_the_requested_pause_is_read_from_the_retry_after_header(header, seconds):
    assert failures.retry_after(response(b"", 429, retry_after=header)) == seconds

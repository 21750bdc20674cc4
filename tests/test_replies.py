"""The forms of server replies and failures, each from a public report, and random ones from a server on loopback."""

import json
import random

import httpx
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from servers import completion, fake_server
from test_server import HELLO, replies_from, stored

from agentark import StudyError
from agentark.engines import Reply, replies, server
from agentark.engines.failures import Passing
from agentark.engines.replies import read
from agentark.engines.server import Server, api_key

KEY = "sk-made-up-0123"
TEXT = {"type": "text", "text": "x"}


def response(body: object, status: int = 200, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.Response(status, content=content, headers={k.replace("_", "-"): v for k, v in headers.items()})


def chat(finish: object = "stop", usage: object = (5, 4), **message: object) -> dict:
    counts = (
        dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True)) if isinstance(usage, tuple) else usage
    )
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
        "usage": counts,
    }


@pytest.mark.parametrize(
    ("body", "text", "finish", "counts"),
    [
        (chat("length", reasoning="16 - 7 is"), "<think>16 - 7 is", "length", (5, 4)),  # ml-explore/mlx-lm#1738
        (chat("length", content=None, reasoning_content="so"), "<think>so", "length", (5, 4)),
        (chat("stop", content="", reasoning_content="so"), "<think>so</think>", "stop", (5, 4)),
        (chat("stop", content="x", reasoning_content="so"), "<think>so</think>x", "stop", (5, 4)),
        (chat("stop", content="x", reasoning_content="\n"), "x", "stop", (5, 4)),  # thinking is switched off
        (chat("eos_token", content="x"), "x", "stop", (5, 4)),  # vespa-engine/vespa#33327
        (chat("end_turn", content="x"), "x", "stop", (5, 4)),
        (chat("STOP", content="x"), "x", "stop", (5, 4)),
        (chat("MAX_TOKENS", content="x"), "x", "length", (5, 4)),
        (chat("SAFETY", content=None), "", "refused", (5, 4)),
        (chat("stop", content=None, refusal="no"), "", "refused", (5, 4)),
        (chat(content=[{"type": "text", "text": "x "}, {"type": "output_text", "text": "y"}]), "x y", "stop", (5, 4)),
        (chat(usage=None, content="x"), "x", "stop", (0, 0)),  # without counts the text is still read
        (chat(usage={}, content="x"), "x", "stop", (0, 0)),
        (chat(usage=(5.0, "4"), content="x"), "x", "stop", (5, 4)),
        (chat(usage=(-5, float("nan")), content="x"), "x", "stop", (0, 0)),
        (chat(usage=(True, 1e300), content="x"), "x", "stop", (0, 0)),
        (chat(usage=[5], content="x"), "x", "stop", (0, 0)),
        ({"choices": [{"text": "x", "finish_reason": "stop"}], "usage": {}}, "x", "stop", (0, 0)),
        (chat({"type": "stop"}, content="x"), "x", "stop", (5, 4)),
        (chat("<|im_end|>", content="x"), "x", "stop", (5, 4)),
        (chat("max_new_tokens", content="x"), "x", "length", (5, 4)),
        (chat("guardrail_intervened", content="x"), "x", "refused", (5, 4)),
        (chat(content=[{"type": "refusal", "refusal": "no"}]), "", "refused", (5, 4)),
        (chat(content=[{"type": "reasoning", "text": "so"}, TEXT]), "<think>so</think>x", "stop", (5, 4)),
        (
            chat(content=[{"type": "thinking", "thinking": [{"text": "so"}]}, TEXT]),
            "<think>so</think>x",
            "stop",
            (5, 4),
        ),
        (chat("length", content="", thinking="so"), "<think>so", "length", (5, 4)),
        (
            chat(content="x", reasoning_details=[{"type": "reasoning.text", "text": "so"}]),
            "<think>so</think>x",
            "stop",
            (5, 4),
        ),
        (chat(content="x", reasoning_content=[{"text": "s"}, "o"]), "<think>so</think>x", "stop", (5, 4)),
        (chat(content="x", tool_calls=[{"id": 1}]), "x", "stop", (5, 4)),
        ({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}] * 2, "error": None}, "x", "stop", (0, 0)),
    ],
)
def test_replies_are_read_in_all_forms_that_servers_send(body, text, finish, counts):
    assert read(response(body)) == Reply(text, *counts, finish, 0.0)


@pytest.mark.parametrize(
    ("content", "charset", "text"),
    [(b'{"a": "x\xe2\x82"}', "utf-8", "x\ufffd"), (b'{"a": "\xe9"}', "iso-8859-1", "é"),
     ('{"a": "好"}'.encode("gbk"), "gbk", "好"),
     (b'{"a": "x\ny"}', "utf-8", "x\ny"), (b'{"a": "\xe9"}', "nonsense", "\ufffd"),
     ('{"a": "é"}'.encode("utf-16"), "utf-16", "é")],
)  # fmt: skip
def test_bodies_in_every_encoding_are_read(content, charset, text):
    received = response(content, content_type=f"application/json; charset={charset}")
    assert replies.content(received) == {"a": text}


@pytest.mark.parametrize("charset", "hex zlib base64 rot13 undefined punycode idna utf-16 utf-7 none".split())
def test_an_invalid_charset_does_not_hide_the_server_s_error(charset):
    for body in (b"\xff <title>gone</title>", b"<title>gone</title>"):
        with pytest.raises(StudyError, match=r"status 404: .*correct the address"):
            read(response(body, 404, content_type=f"text/html; charset={charset}"))


def test_a_reply_with_another_success_status_is_read():
    assert read(response(chat(content="x"), 201)).text == "x"


@pytest.mark.parametrize("header", ["0", "-1", "nan", "inf", "Wed, 21 Oct 2015 07:28:00 GMT", "0.000001"])
def test_an_unusual_retry_after_header_causes_no_busy_loop(tmp_path, monkeypatch, header):
    monkeypatch.setattr(server, "PATIENCE", 1.0)
    monkeypatch.setattr(server, "LONGEST_PAUSE", 0.2)
    with (
        fake_server(lambda n, _: web.Response(status=429, headers={"Retry-After": header})) as (address, received),
        pytest.raises(StudyError, match="status 429"),
    ):
        replies_from(address, tmp_path)
    assert 3 <= len(received) <= 15


@pytest.mark.parametrize("form", [f"{KEY}\r\n", f" {KEY}\t", f'"{KEY}"', f"\ufeff{KEY}", KEY])
def test_white_space_quotes_and_a_bom_around_a_key_are_stripped(monkeypatch, form):
    monkeypatch.setenv("OPENAI_API_KEY", form)
    assert api_key() == KEY


@pytest.mark.parametrize("form", ["sk-made\nup-0123", "sk-måde-up-0123", "sk-made up-0123", "sk-made\x7fup-0123"])
def test_a_key_invalid_in_a_header_is_refused_without_quoting_it(monkeypatch, tmp_path, form):
    monkeypatch.setenv("OPENAI_API_KEY", form)
    with fake_server(lambda n, _: completion()) as (address, received), pytest.raises(StudyError) as error:
        replies_from(address, tmp_path)
    assert not received and not any(part in repr(error.value) for part in ("sk-m", "up-0123"))
    assert error.value.__cause__ is None and not stored(tmp_path)


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_an_empty_key_counts_as_no_key(monkeypatch, value):
    monkeypatch.setenv("OPENAI_API_KEY", value)
    assert api_key() is None


@pytest.mark.parametrize(
    "address",
    [
        "http://me:hunter2@host/v1",
        "http://host/v1?api_key=hunter2",
        "http://host:99999/v1",
        "http://",
        "http://:80/v1",
        "http://[bad/v1",
        "http://1.2.3.999/v1",
        "http://ex..ample/v1",
        "http://\u2603.example/v1",
        f"http://{'a' * 64}.example/v1",
        "http://127.0.0.1\n:9/v1",
        "http://127.0.0.1:9/v1,",
    ],
)
def test_addresses_that_are_invalid_or_contain_a_secret_are_refused_without_it(address):
    with pytest.raises(StudyError) as error:
        Server(address, "model")
    assert "hunter2" not in str(error.value)


def redirect(location: str, status: int = 307) -> web.Response:
    return web.Response(status=status, headers={"Location": location})


def test_only_a_redirect_within_the_server_that_keeps_the_method_is_followed(tmp_path):
    with fake_server(lambda n, _: redirect("/v1/chat/completions") if n == 0 else completion()) as (address, received):
        assert replies_from(address, tmp_path)[0].text == "answer : 3"
    assert len(received) == 2
    for location, status in (("http://127.0.0.1:9/v1", 307), ("/v1/chat/completions", 302)):
        with (
            fake_server(lambda n, _, p=location, s=status: redirect(p, s)) as (address, received),
            pytest.raises(StudyError, match=r"redirects to http://127"),
        ):
            replies_from(address, tmp_path / str(status))
        assert len(received) == 1


@pytest.mark.parametrize(
    "redirection", [redirect("/v1/chat/completions"), redirect("http://1.2.3.999/v1"), web.Response(status=307)]
)
def test_a_redirect_to_itself_or_without_a_valid_target_is_a_wrong_address(tmp_path, redirection):
    copies = lambda *_: web.Response(status=307, headers=dict(redirection.headers))  # noqa: E731
    with fake_server(copies) as (address, received), pytest.raises(StudyError, match=r"redirects.*correct the address"):
        replies_from(address, tmp_path)
    assert len(received) <= 1 + server.REDIRECTS


def test_a_lone_surrogate_is_replaced_and_a_surrogate_pair_is_decoded(tmp_path):
    raw = b'{"choices":[{"message":{"content":"a \\ud83e b \\ud83d\\ude00"},"finish_reason":"stop"}],"usage":{}}'
    with fake_server(lambda n, _: web.Response(body=raw, content_type="application/json")) as (address, _):
        (reply,) = replies_from(address, tmp_path)
    assert reply.text == "a \ufffd b 😀" and reply.text.encode()


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "finish_reason", "usage", "error", "code", "text"]), inner
        )
    ),
)


@given(body=JUNK, status=st.sampled_from([200, 200, 200, 302, 400, 429, 500]))
def test_every_response_is_a_reply_or_a_one_line_failure(body, status):
    try:
        reply = read(response(json.dumps(body).encode(), status))
    except (Passing, StudyError) as failure:
        assert "\n" not in str(failure)
    else:
        assert reply.finish_reason in ("stop", "length", "refused") and isinstance(reply.text, str)


def mutated(rng: random.Random) -> web.Response:
    """A good response with damage at random positions, or with a random status, header or encoding."""
    body = bytearray(completion().body)
    for _ in range(rng.choice((0, 1, 1, 2, 8))):
        position = rng.randrange(len(body))
        body[position : position + rng.randrange(6)] = rng.choice(
            (b"", b"null", b"\xff", b'"', b"NaN", b"[", b"\\ud800", b"{}")
        )
    headers = rng.choice(({}, {"Retry-After": rng.choice("0 -1 nan x 1e9".split())}, {"Content-Encoding": "gzip"}))
    status = rng.choice((200, 200, 200, 200, 204, 302, 400, 401, 404, 418, 429, 500, 503))
    return web.Response(
        status=status, headers=headers, body=bytes(body[: rng.choice((len(body), rng.randrange(len(body))))])
    )


@pytest.mark.parametrize("n", [150, pytest.param(1000, marks=pytest.mark.long)])
def test_random_responses_give_a_stored_reply_or_a_one_line_error(tmp_path, monkeypatch, n):
    monkeypatch.setattr(server, "PATIENCE", 0.05)
    monkeypatch.setattr(server, "LONGEST_PAUSE", 0.02)
    rng = random.Random(n)
    with fake_server(lambda *_: mutated(rng)) as (address, _):
        for number in range(n):
            folder = tmp_path / str(number)
            try:
                (reply,) = replies_from(address, folder, [HELLO])
            except StudyError as error:
                assert "\n" not in str(error) and not stored(folder)
            else:
                assert [r["text"] for (r,) in stored(folder).values()] == [reply.text]

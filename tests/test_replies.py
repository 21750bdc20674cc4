"""The forms in which servers answer and fail, each after a public report; and a thousand random ones on loopback."""

import json
import random

import httpx
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from servers import answering, completion
from test_server import HELLO, ask, stored

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
        (chat("stop", content="x", reasoning_content="\n"), "x", "stop", (5, 4)),  # switched off
        (chat("eos_token", content="x"), "x", "stop", (5, 4)),  # vespa-engine/vespa#33327
        (chat("end_turn", content="x"), "x", "stop", (5, 4)),
        (chat("STOP", content="x"), "x", "stop", (5, 4)),
        (chat("MAX_TOKENS", content="x"), "x", "length", (5, 4)),
        (chat("SAFETY", content=None), "", "refused", (5, 4)),
        (chat("stop", content=None, refusal="no"), "", "refused", (5, 4)),
        (chat(content=[{"type": "text", "text": "x "}, {"type": "output_text", "text": "y"}]), "x y", "stop", (5, 4)),
        (chat(usage=None, content="x"), "x", "stop", (0, 0)),  # no counts: the answer is not lost
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
def test_answers_in_the_forms_that_servers_send(body, text, finish, counts):
    assert read(response(body)) == Reply(text, *counts, finish, 0.0)


@pytest.mark.parametrize(
    ("content", "charset", "text"),
    [(b'{"a": "x\xe2\x82"}', "utf-8", "x\ufffd"), (b'{"a": "\xe9"}', "iso-8859-1", "é"), ('{"a": "好"}'.encode("gbk"), "gbk", "好"),
     (b'{"a": "x\ny"}', "utf-8", "x\ny"), (b'{"a": "\xe9"}', "nonsense", "\ufffd"), ('{"a": "é"}'.encode("utf-16"), "utf-16", "é")],
)  # fmt: skip
def test_bytes_of_every_encoding_are_read(content, charset, text):
    answered = response(content, content_type=f"application/json; charset={charset}")
    assert replies.content(answered) == {"a": text}


@pytest.mark.parametrize("charset", "hex zlib base64 rot13 undefined punycode idna utf-16 utf-7 none".split())
def test_an_encoding_that_is_none_is_no_error_of_ours(charset):
    for body in (b"\xff <title>gone</title>", b"<title>gone</title>"):
        with pytest.raises(StudyError, match=r"status 404: .*correct the address"):
            read(response(body, 404, content_type=f"text/html; charset={charset}"))


def test_an_answer_with_another_status_of_success_is_good():
    assert read(response(chat(content="x"), 201)).text == "x"


@pytest.mark.parametrize("header", ["0", "-1", "nan", "inf", "Wed, 21 Oct 2015 07:28:00 GMT", "0.000001"])
def test_no_header_makes_a_hot_loop(tmp_path, monkeypatch, header):
    monkeypatch.setattr(server, "PATIENCE", 1.0)
    monkeypatch.setattr(server, "LONGEST_PAUSE", 0.2)
    with (
        answering(lambda n, _: web.Response(status=429, headers={"Retry-After": header})) as (address, asked),
        pytest.raises(StudyError, match="status 429"),
    ):
        ask(address, tmp_path)
    assert 3 <= len(asked) <= 15


@pytest.mark.parametrize("form", [f"{KEY}\r\n", f" {KEY}\t", f'"{KEY}"', f"\ufeff{KEY}", KEY])
def test_what_is_no_part_of_a_key_is_stripped(monkeypatch, form):
    monkeypatch.setenv("OPENAI_API_KEY", form)
    assert api_key() == KEY


@pytest.mark.parametrize("form", ["sk-made\nup-0123", "sk-måde-up-0123", "sk-made up-0123", "sk-made\x7fup-0123"])
def test_a_key_that_no_header_can_carry_is_refused_unquoted(monkeypatch, tmp_path, form):
    monkeypatch.setenv("OPENAI_API_KEY", form)
    with answering(lambda n, _: completion()) as (address, asked), pytest.raises(StudyError) as error:
        ask(address, tmp_path)
    assert not asked and not any(part in repr(error.value) for part in ("sk-m", "up-0123"))
    assert error.value.__cause__ is None and not stored(tmp_path)


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_a_key_that_is_empty_is_none(monkeypatch, value):
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
def test_addresses_that_are_none_or_hold_a_secret_are_refused_unquoted(address):
    with pytest.raises(StudyError) as error:
        Server(address, "model")
    assert "hunter2" not in str(error.value)


def redirect(place: str, status: int = 307) -> web.Response:
    return web.Response(status=status, headers={"Location": place})


def test_a_redirect_within_the_server_is_followed_and_no_other(tmp_path):
    with answering(lambda n, _: redirect("/v1/chat/completions") if n == 0 else completion()) as (address, asked):
        assert ask(address, tmp_path)[0].text == "answer : 3"
    assert len(asked) == 2
    for place, status in (("http://127.0.0.1:9/v1", 307), ("/v1/chat/completions", 302)):
        with (
            answering(lambda n, _, p=place, s=status: redirect(p, s)) as (address, asked),
            pytest.raises(StudyError, match=r"redirects to http://127"),
        ):
            ask(address, tmp_path / str(status))
        assert len(asked) == 1


@pytest.mark.parametrize(
    "answered", [redirect("/v1/chat/completions"), redirect("http://1.2.3.999/v1"), web.Response(status=307)]
)
def test_a_redirect_to_itself_or_to_no_address_is_a_wrong_address(tmp_path, answered):
    copies = lambda *_: web.Response(status=307, headers=dict(answered.headers))  # noqa: E731
    with answering(copies) as (address, asked), pytest.raises(StudyError, match=r"redirects.*correct the address"):
        ask(address, tmp_path)
    assert len(asked) <= 1 + server.REDIRECTS


def test_an_answer_with_half_a_character_can_be_stored_and_a_whole_one_stays(tmp_path):
    raw = b'{"choices":[{"message":{"content":"a \\ud83e b \\ud83d\\ude00"},"finish_reason":"stop"}],"usage":{}}'
    with answering(lambda n, _: web.Response(body=raw, content_type="application/json")) as (address, _):
        (reply,) = ask(address, tmp_path)
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
def test_every_response_is_an_answer_or_a_failure_in_words(body, status):
    try:
        reply = read(response(json.dumps(body).encode(), status))
    except (Passing, StudyError) as failure:
        assert "\n" not in str(failure)
    else:
        assert reply.finish_reason in ("stop", "length", "refused") and isinstance(reply.text, str)


def mutated(rng: random.Random) -> web.Response:
    """A response near a good one: damaged at a random place, or with a random status, header or encoding."""
    body = bytearray(completion().body)
    for _ in range(rng.choice((0, 1, 1, 2, 8))):
        place = rng.randrange(len(body))
        body[place : place + rng.randrange(6)] = rng.choice(
            (b"", b"null", b"\xff", b'"', b"NaN", b"[", b"\\ud800", b"{}")
        )
    headers = rng.choice(({}, {"Retry-After": rng.choice("0 -1 nan x 1e9".split())}, {"Content-Encoding": "gzip"}))
    status = rng.choice((200, 200, 200, 200, 204, 302, 400, 401, 404, 418, 429, 500, 503))
    return web.Response(
        status=status, headers=headers, body=bytes(body[: rng.choice((len(body), rng.randrange(len(body))))])
    )


@pytest.mark.parametrize("n", [150, pytest.param(1000, marks=pytest.mark.long)])
def test_random_replies_end_in_an_answer_or_one_line_and_nothing_else_is_kept(tmp_path, monkeypatch, n):
    monkeypatch.setattr(server, "PATIENCE", 0.05)
    monkeypatch.setattr(server, "LONGEST_PAUSE", 0.02)
    rng = random.Random(n)
    with answering(lambda *_: mutated(rng)) as (address, _):
        for number in range(n):
            folder = tmp_path / str(number)
            try:
                (reply,) = ask(address, folder, [HELLO])
            except StudyError as error:
                assert "\n" not in str(error) and not stored(folder)
            else:
                assert [r["text"] for (r,) in stored(folder).values()] == [reply.text]

"""The client of an OpenAI-compatible server: patient with what passes, plain about what does not, never inventive."""

import asyncio
import contextlib
import threading
import time

import pytest
from aiohttp import web
from examples import MAX_TOKENS, posed
from hypothesis import given
from hypothesis import strategies as st
from servers import answering, completion, free_port, kill, start, stored

from agentark import StudyError, root
from agentark.debate.protocols import Debate
from agentark.debate.run import run_debates
from agentark.engines import Reply, Request, Store, engine, serve, server
from agentark.engines.server import Server

HELLO = Request([{"role": "user", "content": "how many ?"}], 0.7, 9, 3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["choices", "message", "content", "finish_reason", "usage"]), inner)
    ),
)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(server, "LONGEST_PAUSE", 0.2)


def ask(address: str, folder, requests=(HELLO,)) -> list[Reply]:
    """What the store makes of it, through a client of its own."""
    return Store(folder).generate(Server(*address.partition("#")[::2]), requests)


PASSING_FAILURES = {
    "too many requests": lambda: web.Response(status=429, headers={"Retry-After": "0"}),
    "a conflict": lambda: web.Response(status=409),
    "an error within": lambda: web.Response(status=500, text="CUDA out of memory"),
    "overloaded": lambda: web.json_response({"error": {"message": "overloaded"}}, status=503),
    "connection dropped": lambda: None,
    "no JSON": lambda: web.Response(text="<html>"),
    "cut short": lambda: web.Response(text='{"choices": [{"message": {"content": "answer : 3'),
    "an error called a success": lambda: web.json_response({"error": {"message": "upstream"}}),
    "no end": lambda: completion(finish_reason=None),
    "text that is none": lambda: completion(text=["answer"]),
}


@pytest.mark.parametrize("failure", PASSING_FAILURES)
def test_a_passing_failure_is_asked_again_and_leaves_no_answer(tmp_path, failure):
    with answering(lambda n, _: PASSING_FAILURES[failure]() if n < 2 else completion()) as (address, asked):
        (reply,) = ask(address, tmp_path)
    assert (reply.text, reply.finish_reason, len(asked)) == ("answer : 3", "stop", 3)
    assert [[r["text"] for r in done] for done in stored(tmp_path).values()] == [["answer : 3"]]


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "shorter prompt"),
        (401, "OPENAI_API_KEY"),
        (403, "OPENAI_API_KEY"),
        (404, "correct the address"),
        (413, "sho"),
    ],
)
def test_a_lasting_failure_is_told_at_once_in_one_line(tmp_path, status, advice):
    told = {"error": {"message": "this model's context\nis 10 tokens", "code": "x"}}
    with (
        answering(lambda *_: web.json_response(told, status=status)) as (address, asked),
        pytest.raises(StudyError, match=advice) as raised,
    ):
        ask(address, tmp_path)
    assert len(asked) == 1 and not stored(tmp_path) and "\n" not in str(raised.value)
    assert "context is 10 tokens" in str(raised.value)


def test_the_key_goes_into_the_header_and_nowhere_else(tmp_path, monkeypatch, capfd, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with answering(lambda n, _: completion() if n == 0 else web.Response(status=401, text="bad key: sk-secret")) as (
        address,
        asked,
    ):
        ask(address, tmp_path)
        with pytest.raises(StudyError) as raised:
            ask(address, tmp_path / "more")
    assert asked[0]["authorization"] == "Bearer sk-secret"
    written = "".join(f.read_text() for f in tmp_path.rglob("*.json"))
    for text in (str(raised.value), written, caplog.text, *capfd.readouterr()):
        assert "sk-secret" not in text
    with pytest.raises(StudyError, match="OPENAI_API_KEY"):
        Server("http://me:sk-secret@127.0.0.1/v1", "model")


@pytest.mark.parametrize(
    "refusal",
    [
        lambda: completion(text=None, finish_reason="content_filter"),
        lambda: completion(text=None, refusal="I would rather not."),
        lambda: web.json_response({"error": {"message": "filtered", "code": "content_filter"}}, status=400),
    ],
)
def test_a_refusal_is_a_reply_that_says_so(tmp_path, refusal):
    with answering(lambda *_: refusal()) as (address, asked):
        (reply,) = ask(address, tmp_path)
    assert (reply.text, reply.finish_reason, len(asked)) == ("", "refused", 1)


@pytest.mark.parametrize(("owner", "extra"), [("vllm", {"top_k", "min_p", "repetition_penalty"}), ("openai", set())])
def test_sampling_is_sent_whole_and_unknown_fields_only_to_who_knows_them(tmp_path, owner, extra):
    with answering(lambda *_: completion(), owner) as (address, asked):
        ask(address, tmp_path)
    known = {"model": "model", "messages": HELLO.messages, "temperature": 0.7, "top_p": 1, "max_tokens": 9, "seed": 3}
    assert known.items() <= asked[0].items()
    assert set(asked[0]) - set(known) - {"authorization"} == extra


def test_the_server_is_left_alone_for_as_long_as_it_asks(tmp_path):
    free_from = []

    def answer(number, _):
        free_from.append(time.monotonic() + 1)
        if number and time.monotonic() >= free_from[0]:
            return completion()
        return web.Response(status=429, headers={"Retry-After": "1"})

    with answering(answer) as (address, asked):
        ask(address, tmp_path)
    assert len(asked) == 2


def test_a_longer_pause_than_our_patience_ends_it(tmp_path):
    with (
        answering(lambda *_: web.Response(status=429, headers={"Retry-After": "90000"})) as (address, asked),
        pytest.raises(
            StudyError, match=r"no answer within 20 minutes.* 90000 s \(status 429\); what is finished is kept"
        ),
    ):
        ask(address, tmp_path)
    assert len(asked) == 1


def test_patience_counts_from_the_first_failure_and_not_from_the_start_of_a_long_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.5)

    async def answer(number, _):
        await asyncio.sleep(0 if number else 1)
        return completion() if number else None

    with answering(answer) as (address, asked):
        assert [reply.text for reply in ask(address, tmp_path)] == ["answer : 3"]
    assert len(asked) == 2


def test_many_requests_are_in_flight_at_once_and_no_more_than_stated(tmp_path):
    waiting, most = set(), []

    async def answer(number, _):
        waiting.add(number)
        most.append(len(waiting))
        for _ in range(300):  # until the limit is reached, and then for a moment, in which more would come
            await asyncio.sleep(0.01)
            if max(most) >= server.IN_FLIGHT:
                break
        waiting.discard(number)
        return completion(str(number))

    requests = [Request(HELLO.messages, 1.0, 9, seed) for seed in range(server.IN_FLIGHT + 40)]
    with answering(answer) as (address, _):
        replies = ask(address, tmp_path, requests)
    assert max(most) == server.IN_FLIGHT
    assert len({r.text for r in replies}) == len(requests) == len(stored(tmp_path))


def test_one_bad_request_loses_no_other(tmp_path):
    def answer(_, body):
        return web.Response(status=400, text="too long") if body["seed"] == 20 else completion(str(body["seed"]))

    requests = [Request(HELLO.messages, 1.0, 9, seed) for seed in range(40)]
    with answering(answer) as (address, asked):
        with pytest.raises(StudyError, match="too long"):
            ask(address, tmp_path, requests)
        kept = stored(tmp_path)
        again = len(asked)
        replies = ask(address, tmp_path, requests[:20] + requests[21:])
    assert all(r["text"].isdigit() for done in kept.values() for r in done)
    assert [r.text for r in replies] == [str(s) for s in range(40) if s != 20]
    assert len(asked) - again == 39 - len(kept)


def test_equal_requests_are_one(tmp_path):
    with answering(lambda n, _: completion(str(n))) as (address, asked):
        assert [r.text for r in ask(address, tmp_path, [HELLO, HELLO])] == ["0", "0"]
    assert len(asked) == 1


def test_two_servers_of_one_model_share_what_they_finished(tmp_path):
    with answering(lambda *_: completion()) as (address, _):
        first = ask(address, tmp_path)
    assert ask("http://127.0.0.1:1/v1#model", tmp_path) == first


def test_what_is_not_there_is_told_at_once(tmp_path):
    with pytest.raises(StudyError, match=r"no server answers .*make serve"):
        ask(f"http://127.0.0.1:{free_port()}/v1#model", tmp_path)
    with pytest.raises(StudyError, match="address is not one"):
        ask("http://127.0.0.1:eighty/v1#model", tmp_path)
    with pytest.raises(StudyError, match="which model"):
        ask("http://127.0.0.1:8000/v1", tmp_path)
    with answering(lambda *_: completion()) as (address, asked), pytest.raises(StudyError, match="has only model"):
        ask(address.replace("#model", "#other"), tmp_path)
    assert not asked


def listing(*names: str):
    return lambda: web.json_response({"data": [{"id": name} for name in names]})


@pytest.mark.parametrize(
    "models",
    [
        lambda: web.json_response({"error": {"message": "Missing scopes: api.model.read"}}, status=403),
        lambda: web.json_response({"error": "no list"}, status=401),
        lambda: web.Response(status=501),
        lambda: web.Response(status=307, headers={"Location": "/elsewhere"}),
        lambda: web.Response(body=b"\xff{", content_type="application/json", charset="zlib"),
        listing("*"),
        listing("mod*"),
        listing("model:latest"),
        listing(),
    ],
)
def test_a_server_that_does_not_list_the_model_by_its_name_is_asked(tmp_path, models):
    with answering(lambda *_: completion(), models=models) as (address, _):
        assert ask(address, tmp_path)[0].text == "answer : 3"


def test_a_wrong_key_is_told_at_once_also_if_the_list_is_refused(tmp_path):
    def refused(*_):
        return web.json_response({"error": {"message": "wrong key"}}, status=401)

    with (
        answering(refused, models=refused) as (address, asked),
        pytest.raises(StudyError, match="wrong key; set OPENAI_API_KEY"),
    ):
        ask(address, tmp_path)
    assert len(asked) == 1


def test_of_many_models_the_closest_are_named(tmp_path):
    names = [f"other-{n:04}" for n in range(400)] + ["model-7b"]
    with (
        answering(lambda *_: completion(), models=listing(*names)) as (address, _),
        pytest.raises(StudyError, match=r"has only 401 others; the closest are model-7b, ") as error,
    ):
        ask(address, tmp_path)
    assert str(error.value).count("other-") == 9


def test_only_failures_that_may_last_are_counted_as_few(tmp_path):
    def answer(number, _):
        if number < 5:
            return web.Response(status=429)
        return web.Response(text="<html>") if number == 5 else completion()

    with answering(answer) as (address, asked):
        assert ask(address, tmp_path)[0].text == "answer : 3"
    assert len(asked) == 7


def test_a_body_that_is_never_encoded_as_declared_ends_after_a_few_tries(tmp_path):
    gzip = {"Content-Encoding": "gzip"}
    with (
        answering(lambda *_: web.Response(body=b"no gzip", headers=gzip)) as (address, asked),
        pytest.raises(StudyError, match="in 5 tries"),
    ):
        ask(address, tmp_path)
    assert len(asked) == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks5://me:hunter2@x:1"), ("HTTP_PROXY", "foo://hunter2"), ("SSL_CERT_FILE", "/hunter2")],
)
def test_a_proxy_or_certificates_that_are_none_are_named_without_the_value(tmp_path, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(StudyError, match=rf"{name}: the environment") as error:
        ask("http://127.0.0.1:9/v1#model", tmp_path)
    assert "hunter2" not in str(error.value)


@given(JSON)
def test_no_answer_of_another_form_becomes_a_reply(answer):
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
        made = server.reply(answer)
        assert made.text == (answer["choices"][0]["message"]["content"] or "")


@pytest.mark.parametrize(
    "body",
    [
        {"stream": True},
        {"n": 2},
        {"top_p": 0.9},
        {"top_k": 5},
        {"messages": []},
        {"messages": "how many ?"},
        {"messages": [{"role": "user"}]},
        {"temperature": -1},
        {"temperature": "hot"},
        {"max_tokens": 0},
        {"messages": [{"role": "user", "content": "how many ? " * 800}]},
        *({"messages": [{"role": "user", "content": content}]} for content in (["hi"], [None], [["hi"]])),
        *({"messages": [{"role": "user", "content": [{"type": "text"} | part]}]} for part in ({}, {"text": 5})),
        {"messages": ["hi"]},
        {"seed": 2**64},
        {"seed": -(2**63) - 1},
        {"temperature": 1e-320},
        {"chat_template_kwargs": {"effort": "high"}},
    ],
)
def test_our_own_server_refuses_what_it_would_not_do(body):
    asked = {"model": "teacher", "messages": HELLO.messages}
    assert serve.wanted(asked | {"max_tokens": 9, "seed": 3, "temperature": 0.7, "top_p": 1}, teacher()) == HELLO
    with pytest.raises(StudyError):
        serve.wanted(asked | body, teacher())


def teacher():
    return engine(root() / "data/models/teacher")


@pytest.fixture(scope="module")
def questions():
    return [posed("equation", 2 + i % 3, i)[1] for i in range(12)]


def test_a_server_killed_in_mid_debate_and_restarted_costs_no_answer(tmp_path, questions):
    protocol, port = Debate(3, 2, 1.3, 0.2, "shared"), free_port()
    process, address = start(root() / "data/models/teacher", port)
    result = []
    debate = threading.Thread(
        target=lambda: result.append(
            run_debates(protocol, questions, address, tmp_path / "disturbed", 0, MAX_TOKENS)[0]
        )
    )
    try:
        debate.start()
        while not stored(tmp_path / "disturbed"):
            time.sleep(0.01)
        kill(process)
        kept = stored(tmp_path / "disturbed")
        process, _ = start(root() / "data/models/teacher", port)
        debate.join(300)
        undisturbed = run_debates(protocol, questions, address, tmp_path / "undisturbed", 0, MAX_TOKENS)[0]
    finally:
        kill(process)
    assert result[0] == undisturbed
    assert 0 < len(kept) < len(stored(tmp_path / "disturbed"))
    assert kept.items() <= stored(tmp_path / "disturbed").items()
    assert stored(tmp_path / "disturbed") == stored(tmp_path / "undisturbed")


def test_a_server_that_stays_away_ends_the_debate_in_one_line_and_a_new_one_takes_it_up(
    tmp_path, questions, monkeypatch
):
    monkeypatch.setattr(server, "PATIENCE", 1.5)
    protocol, requests = Debate(3, 2, 0.0, 0.0, "shared"), []

    def answer(number, body):
        requests.append(body["seed"])
        return completion(f"answer : {body['seed']}") if number < 20 else None

    with (
        answering(answer) as (address, _),
        pytest.raises(StudyError, match=r"no answer within .* run the same") as told,
    ):
        run_debates(protocol, questions, address, tmp_path, 0, MAX_TOKENS)
    kept = stored(tmp_path)
    assert "\n" not in str(told.value) and len(kept) == 20
    with answering(lambda _, body: completion(f"answer : {body['seed']}")) as (again, asked):
        traces, _ = run_debates(protocol, questions, again, tmp_path, 0, MAX_TOKENS)
    assert len(asked) == len(traces) - 20
    assert kept.items() <= stored(tmp_path).items()

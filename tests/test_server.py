"""The client of an OpenAI-compatible server retries temporary failures, reports others at once and invents no reply."""

import asyncio
import threading
import time

import pytest
from aiohttp import web
from examples import MAX_TOKENS, question_from_family
from servers import completion, fake_server, free_port, kill, start, stored

from agentark import StudyError, root
from agentark.debate.protocols import Debate
from agentark.debate.run import run_debates
from agentark.engines import Reply, Request, Store, engine, serve, server
from agentark.engines.server import Server

HELLO = Request([{"role": "user", "content": "how many ?"}], 0.7, 9, 3)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(server, "LONGEST_PAUSE", 0.2)


def replies_from(address: str, folder, requests=(HELLO,)) -> list[Reply]:
    """The replies to `requests` from a store in `folder`, through a new client of the server at `address`."""
    return Store(folder).generate(Server(*address.partition("#")[::2]), requests)


TEMPORARY_FAILURES = {
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


@pytest.mark.parametrize("failure", TEMPORARY_FAILURES)
def test_temporary_failure_is_retried_and_is_not_stored(tmp_path, failure):
    with fake_server(lambda n, _: TEMPORARY_FAILURES[failure]() if n < 2 else completion()) as (address, received):
        (reply,) = replies_from(address, tmp_path)
    assert (reply.text, reply.finish_reason, len(received)) == ("answer : 3", "stop", 3)
    assert [[r["text"] for r in replies] for replies in stored(tmp_path).values()] == [["answer : 3"]]


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
def test_permanent_failure_is_reported_at_once_in_one_line(tmp_path, status, advice):
    body = {"error": {"message": "this model's context\nis 10 tokens", "code": "x"}}
    with (
        fake_server(lambda *_: web.json_response(body, status=status)) as (address, received),
        pytest.raises(StudyError, match=advice) as raised,
    ):
        replies_from(address, tmp_path)
    assert len(received) == 1 and not stored(tmp_path) and "\n" not in str(raised.value)
    assert "context is 10 tokens" in str(raised.value)


def test_key_is_sent_in_the_header_and_appears_nowhere_else(tmp_path, monkeypatch, capfd, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with fake_server(lambda n, _: completion() if n == 0 else web.Response(status=401, text="bad key: sk-secret")) as (
        address,
        received,
    ):
        replies_from(address, tmp_path)
        with pytest.raises(StudyError) as raised:
            replies_from(address, tmp_path / "more")
    assert received[0]["authorization"] == "Bearer sk-secret"
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
def test_refusal_is_a_reply_with_finish_reason_refused(tmp_path, refusal):
    with fake_server(lambda *_: refusal()) as (address, received):
        (reply,) = replies_from(address, tmp_path)
    assert (reply.text, reply.finish_reason, len(received)) == ("", "refused", 1)


@pytest.mark.parametrize(("owner", "extra"), [("vllm", {"top_k", "min_p", "repetition_penalty"}), ("openai", set())])
def test_all_sampling_fields_are_sent_and_extra_ones_only_to_servers_with_them(tmp_path, owner, extra):
    with fake_server(lambda *_: completion(), owner) as (address, received):
        replies_from(address, tmp_path)
    fields = {"model": "model", "messages": HELLO.messages, "temperature": 0.7, "top_p": 1, "max_tokens": 9, "seed": 3}
    assert fields.items() <= received[0].items()
    assert set(received[0]) - set(fields) - {"authorization"} == extra


def test_no_request_is_sent_before_the_retry_after_time_has_passed(tmp_path):
    free_from = []

    def answer(number, _):
        free_from.append(time.monotonic() + 1)
        if number and time.monotonic() >= free_from[0]:
            return completion()
        return web.Response(status=429, headers={"Retry-After": "1"})

    with fake_server(answer) as (address, received):
        replies_from(address, tmp_path)
    assert len(received) == 2


def test_pause_longer_than_the_limit_stops_the_run(tmp_path):
    with (
        fake_server(lambda *_: web.Response(status=429, headers={"Retry-After": "90000"})) as (address, received),
        pytest.raises(
            StudyError, match=r"no answer within 20 minutes.* 90000 s \(status 429\); what is finished is kept"
        ),
    ):
        replies_from(address, tmp_path)
    assert len(received) == 1


def test_time_limit_counts_from_the_first_failure_and_not_from_the_request(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.5)

    async def answer(number, _):
        await asyncio.sleep(0 if number else 1)
        return completion() if number else None

    with fake_server(answer) as (address, received):
        assert [reply.text for reply in replies_from(address, tmp_path)] == ["answer : 3"]
    assert len(received) == 2


def test_requests_in_flight_reach_the_limit_and_do_not_exceed_it(tmp_path):
    waiting, most = set(), []

    async def answer(number, _):
        waiting.add(number)
        most.append(len(waiting))
        for _ in range(300):  # until the limit is reached; requests beyond it would arrive meanwhile
            await asyncio.sleep(0.01)
            if max(most) >= server.IN_FLIGHT:
                break
        waiting.discard(number)
        return completion(str(number))

    requests = [Request(HELLO.messages, 1.0, 9, seed) for seed in range(server.IN_FLIGHT + 40)]
    with fake_server(answer) as (address, _):
        replies = replies_from(address, tmp_path, requests)
    assert max(most) == server.IN_FLIGHT
    assert len({r.text for r in replies}) == len(requests) == len(stored(tmp_path))


def test_one_bad_request_loses_no_other_reply(tmp_path):
    def answer(_, body):
        return web.Response(status=400, text="too long") if body["seed"] == 20 else completion(str(body["seed"]))

    requests = [Request(HELLO.messages, 1.0, 9, seed) for seed in range(40)]
    with fake_server(answer) as (address, received):
        with pytest.raises(StudyError, match="too long"):
            replies_from(address, tmp_path, requests)
        kept = stored(tmp_path)
        before = len(received)
        replies = replies_from(address, tmp_path, requests[:20] + requests[21:])
    assert all(reply["text"].isdigit() for own in kept.values() for reply in own)
    assert [r.text for r in replies] == [str(s) for s in range(40) if s != 20]
    assert len(received) - before == 39 - len(kept)


def test_equal_requests_are_sent_once(tmp_path):
    with fake_server(lambda n, _: completion(str(n))) as (address, received):
        assert [r.text for r in replies_from(address, tmp_path, [HELLO, HELLO])] == ["0", "0"]
    assert len(received) == 1


def test_two_servers_of_one_model_share_finished_generations(tmp_path):
    with fake_server(lambda *_: completion()) as (address, _):
        first = replies_from(address, tmp_path)
    assert replies_from("http://127.0.0.1:1/v1#model", tmp_path) == first


def test_missing_server_or_model_and_invalid_address_are_reported_at_once(tmp_path):
    with pytest.raises(StudyError, match=r"no server answers .*make serve"):
        replies_from(f"http://127.0.0.1:{free_port()}/v1#model", tmp_path)
    with pytest.raises(StudyError, match="address is not one"):
        replies_from("http://127.0.0.1:eighty/v1#model", tmp_path)
    with pytest.raises(StudyError, match="which model"):
        replies_from("http://127.0.0.1:8000/v1", tmp_path)
    with fake_server(lambda *_: completion()) as (address, received), pytest.raises(StudyError, match="has only model"):
        replies_from(address.replace("#model", "#other"), tmp_path)
    assert not received


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
def test_server_that_does_not_list_the_model_by_its_name_is_used(tmp_path, models):
    with fake_server(lambda *_: completion(), models=models) as (address, _):
        assert replies_from(address, tmp_path)[0].text == "answer : 3"


def test_wrong_key_is_reported_at_once_even_if_the_model_list_is_refused(tmp_path):
    def refused(*_):
        return web.json_response({"error": {"message": "wrong key"}}, status=401)

    with (
        fake_server(refused, models=refused) as (address, received),
        pytest.raises(StudyError, match="wrong key; set OPENAI_API_KEY"),
    ):
        replies_from(address, tmp_path)
    assert len(received) == 1


def test_closest_of_many_models_are_named(tmp_path):
    names = [f"other-{n:04}" for n in range(400)] + ["model-7b"]
    with (
        fake_server(lambda *_: completion(), models=listing(*names)) as (address, _),
        pytest.raises(StudyError, match=r"has only 401 others; the closest are model-7b, ") as error,
    ):
        replies_from(address, tmp_path)
    assert str(error.value).count("other-") == 9


def test_failures_known_to_be_temporary_do_not_count_towards_the_few_attempts(tmp_path):
    def answer(number, _):
        if number < 5:
            return web.Response(status=429)
        return web.Response(text="<html>") if number == 5 else completion()

    with fake_server(answer) as (address, received):
        assert replies_from(address, tmp_path)[0].text == "answer : 3"
    assert len(received) == 7


def test_body_not_encoded_as_declared_is_an_error_after_five_attempts(tmp_path):
    gzip = {"Content-Encoding": "gzip"}
    with (
        fake_server(lambda *_: web.Response(body=b"no gzip", headers=gzip)) as (address, received),
        pytest.raises(StudyError, match="in 5 tries"),
    ):
        replies_from(address, tmp_path)
    assert len(received) == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks5://me:hunter2@x:1"), ("HTTP_PROXY", "foo://hunter2"), ("SSL_CERT_FILE", "/hunter2")],
)
def test_invalid_proxy_or_certificate_setting_is_named_without_its_value(tmp_path, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(StudyError, match=rf"{name}: the environment") as error:
        replies_from("http://127.0.0.1:9/v1#model", tmp_path)
    assert "hunter2" not in str(error.value)


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
def test_server_of_this_project_refuses_requests_it_cannot_fulfil(body):
    valid = {"model": "teacher", "messages": HELLO.messages}
    assert serve.wanted(valid | {"max_tokens": 9, "seed": 3, "temperature": 0.7, "top_p": 1}, teacher()) == HELLO
    with pytest.raises(StudyError):
        serve.wanted(valid | body, teacher())


def teacher():
    return engine(root() / "data/models/teacher")


@pytest.fixture(scope="module")
def questions():
    return [question_from_family("equation", 2 + i % 3, i)[1] for i in range(12)]


def test_server_killed_and_restarted_during_a_debate_loses_no_reply(tmp_path, questions):
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


def test_lost_server_ends_the_debate_in_one_line_and_a_new_server_resumes_it(tmp_path, questions, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 1.5)
    protocol, requests = Debate(3, 2, 0.0, 0.0, "shared"), []

    def answer(number, body):
        requests.append(body["seed"])
        return completion(f"answer : {body['seed']}") if number < 20 else None

    with (
        fake_server(answer) as (address, _),
        pytest.raises(StudyError, match=r"no answer within .* run the same") as error,
    ):
        run_debates(protocol, questions, address, tmp_path, 0, MAX_TOKENS)
    kept = stored(tmp_path)
    assert "\n" not in str(error.value) and len(kept) == 20
    with fake_server(lambda _, body: completion(f"answer : {body['seed']}")) as (new_address, received):
        traces, _ = run_debates(protocol, questions, new_address, tmp_path, 0, MAX_TOKENS)
    assert len(received) == len(traces) - 20
    assert kept.items() <= stored(tmp_path).items()

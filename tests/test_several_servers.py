"""Several servers of one model: the load follows their capacity, and the others replace a dead or missing one."""

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from servers import completion, fake_server, free_port, kill, start, stored

from agentark import StudyError, root
from agentark.debate.protocols import Debate
from agentark.debate.run import run_debates
from agentark.engines import Request, Store, addresses, server
from agentark.engines.server import Server
from agentark.tasks import TASKS


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(server, "LONGEST_PAUSE", 0.2)


def requests(number: int) -> list[Request]:
    return [Request([{"role": "user", "content": f"how many {n} ?"}], 0.7, 9, 3) for n in range(number)]


def limited(slots: int, seconds: float, dead=lambda: False):
    """Replies after `seconds`, to `slots` requests at a time; connections are dropped once `dead()` is true."""
    free = asyncio.Semaphore(slots)

    async def reply():
        async with free:
            await asyncio.sleep(seconds)
        return None if dead() else completion()

    return lambda *_: reply()


def client(*urls: str) -> Server:
    return Server(",".join(url.partition("#")[0] for url in urls), "model")


def test_the_load_follows_the_capacity_of_each_server(tmp_path):
    """The servers process 16, 8 and 4 requests at a time, far fewer than are in flight.

    In the second run all requests are in flight at once.
    """
    with (
        fake_server(limited(16, 0.5)) as (a, first),
        fake_server(limited(8, 0.5)) as (b, second),
        fake_server(limited(4, 0.5)) as (c, third),
    ):
        servers = client(a, b, c)
        Store(tmp_path).generate(servers, requests(900))
        shares = [len(received) / 900 for received in (first, second, third)]
        Store(tmp_path / "next").generate(servers, requests(200))
        later = [
            len(received) / 200 - 4.5 * share for received, share in zip((first, second, third), shares, strict=True)
        ]
    assert sum(shares) == pytest.approx(1, abs=0.01)
    assert shares == pytest.approx([4 / 7, 2 / 7, 1 / 7], rel=0.2)
    assert later == pytest.approx([4 / 7, 2 / 7, 1 / 7], rel=0.2)


def test_requests_of_a_hanging_server_go_to_the_others_and_it_gets_no_more(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(addresses, "SILENT", 1)
    monkeypatch.setattr(addresses, "TIMES", 2)
    hanging = [True]

    async def hang():
        while hanging:
            await asyncio.sleep(0.02)

    with fake_server(lambda *_: hang()) as (a, silent), fake_server(limited(16, 0.02)) as (b, _):
        servers = client(a, b)
        try:
            replies = Store(tmp_path).generate(servers, requests(400))
            before = len(silent)
            Store(tmp_path / "next").generate(servers, requests(400))
        finally:
            hanging.clear()
    assert [reply.text for reply in replies] == ["answer : 3"] * 400
    assert 0 < before == len(silent) < 300
    assert "s; its requests go to the other servers" in capsys.readouterr().out


def test_a_single_server_or_one_as_slow_as_the_others_never_counts_as_silent(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(addresses, "SILENT", 0)
    monkeypatch.setattr(addresses, "time", SimpleNamespace(monotonic=lambda: now[0]))
    one, two = addresses.Addresses("a"), addresses.Addresses("ab")
    with one.use(), two.use():
        assert not one.hang_up() and not two.hang_up()
        with two.use():
            now[0] += 2
        now[0] += 10
        assert not two.hang_up()
        now[0] += 20
        ((address, _),) = two.hang_up()
        assert address == "a" and not two.hang_up()


@pytest.mark.long
def test_a_debate_with_one_killed_and_one_stopped_server_matches_one_server(tmp_path, monkeypatch):
    monkeypatch.setattr(addresses, "SILENT", 5)
    monkeypatch.setattr(addresses, "TIMES", 2)
    questions = TASKS["equation"].questions(12, "test", 0)
    with ThreadPoolExecutor(3) as threads:
        started = list(threads.map(lambda _: start(root() / "data/models/teacher", free_port()), range(3)))

    def debate(name, *servers):
        several = f"{','.join(s.partition('#')[0] for s in servers)}#{servers[0].partition('#')[2]}"
        return run_debates(Debate(3, 2, 1.0, 0.2, "shared"), questions, several, tmp_path / name, 0, 72)[0]

    def stop_two_servers():
        for (process, _), number, finished in zip(started, (signal.SIGKILL, signal.SIGSTOP), (10, 25), strict=False):
            while len(stored(tmp_path / "three")) < finished:
                time.sleep(0.02)
            os.killpg(process.pid, number)

    try:
        thread = threading.Thread(target=stop_two_servers, daemon=True)
        thread.start()
        found = debate("three", *(address for _, address in started))
        assert not thread.is_alive()
        expected = debate("one", started[2][1])
    finally:
        for process, _ in started:
            kill(process)
    assert found == expected and stored(tmp_path / "three") == stored(tmp_path / "one")


def test_requests_in_flight_at_a_dying_server_go_to_the_others(tmp_path):
    alive = [True]

    def first_hundred(number, _):
        alive[0] = number < 100
        return completion() if alive[0] else None

    with (
        fake_server(first_hundred) as (a, dying),
        fake_server(limited(64, 0.02)) as (b, slow),
        fake_server(limited(64, 0.005)) as (c, _),
    ):
        replies = Store(tmp_path).generate(client(a, b, c), requests(900))
    assert [reply.text for reply in replies] == ["answer : 3"] * 900
    assert len(list(tmp_path.rglob("*.json"))) == 900
    assert len(dying) < 900 / 2 and slow


def test_a_missing_server_is_named_and_the_others_are_used(tmp_path, capsys):
    missing = f"http://127.0.0.1:{free_port()}/v1"
    with fake_server(limited(64, 0.001)) as (a, received):
        Store(tmp_path).generate(client(missing, a), requests(40))
    assert len(received) == 40
    assert f"{missing}#model: no server answers" in capsys.readouterr().out
    with pytest.raises(StudyError, match="no server answers"):
        Store(tmp_path).generate(client(missing, f"http://127.0.0.1:{free_port()}/v1"), requests(41))


def test_each_server_gets_only_supported_fields_and_must_have_the_model(tmp_path):
    with (
        fake_server(lambda *_: completion(), "vllm") as (a, first),
        fake_server(lambda *_: completion()) as (b, second),
    ):
        Store(tmp_path).generate(client(a, b), requests(60))
        assert {body.get("top_k") for body in first} == {-1} and {body.get("top_k") for body in second} == {None}
        with pytest.raises(StudyError, match="has only model"):
            Store(tmp_path).generate(Server(",".join(x.partition("#")[0] for x in (a, b)), "other"), requests(1))


def test_stored_generations_do_not_depend_on_the_server_addresses(tmp_path):
    with fake_server(lambda *_: completion()) as (a, _):
        first = Store(tmp_path).generate(client(a), requests(3))
    assert Store(tmp_path).generate(client("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"), requests(3)) == first

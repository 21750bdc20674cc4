"""Several servers of one model: the load follows their capacity, and a server that dies or is not there yet costs nothing."""

import asyncio

import pytest
from servers import answering, completion, free_port

from agentark import StudyError
from agentark.engines import Request, Store, server
from agentark.engines.server import Server


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(server, "LONGEST_PAUSE", 0.2)


def requests(number: int) -> list[Request]:
    return [Request([{"role": "user", "content": f"how many {n} ?"}], 0.7, 9, 3) for n in range(number)]


def limited(slots: int, seconds: float, dead=lambda: False):
    """Answers that take `seconds`, `slots` at a time, and a dropped connection once the server is dead."""
    free = asyncio.Semaphore(slots)

    async def answer():
        async with free:
            await asyncio.sleep(seconds)
        return None if dead() else completion()

    return lambda *_: answer()


def joined(*addresses: str) -> Server:
    return Server(",".join(address.partition("#")[0] for address in addresses), "model")


def test_the_load_follows_the_capacity_of_each_server(tmp_path, monkeypatch):
    """Four, two and one answers at a time: capacities 4 : 2 : 1."""
    monkeypatch.setattr(server, "IN_FLIGHT", 6)
    with (
        answering(limited(4, 0.1)) as (a, first),
        answering(limited(2, 0.1)) as (b, second),
        answering(limited(1, 0.1)) as (c, third),
    ):
        Store(tmp_path).generate(joined(a, b, c), requests(350))
    shares = [len(asked) / 350 for asked in (first, second, third)]
    assert sum(shares) == pytest.approx(1, abs=0.01)
    assert shares == pytest.approx([4 / 7, 2 / 7, 1 / 7], rel=0.2)


def test_a_server_that_dies_loses_what_it_had_in_flight_to_the_others(tmp_path):
    alive = [True]

    def first_hundred(number, _):
        alive[0] = number < 100
        return completion() if alive[0] else None

    with (
        answering(first_hundred) as (a, dying),
        answering(limited(64, 0.02)) as (b, slow),
        answering(limited(64, 0.005)) as (c, _),
    ):
        replies = Store(tmp_path).generate(joined(a, b, c), requests(900))
    assert [reply.text for reply in replies] == ["answer : 3"] * 900
    assert len(list(tmp_path.rglob("*.json"))) == 900
    assert len(dying) < 900 / 2 and slow


def test_a_server_that_is_not_there_is_named_and_the_others_are_used(tmp_path, capsys):
    nobody = f"http://127.0.0.1:{free_port()}/v1"
    with answering(limited(64, 0.001)) as (a, asked):
        Store(tmp_path).generate(joined(nobody, a), requests(40))
    assert len(asked) == 40
    assert f"{nobody}#model: no server answers" in capsys.readouterr().out
    with pytest.raises(StudyError, match="no server answers"):
        Store(tmp_path).generate(joined(nobody, f"http://127.0.0.1:{free_port()}/v1"), requests(41))


def test_each_server_gets_the_fields_that_it_knows_and_one_without_the_model_is_refused(tmp_path):
    with answering(lambda *_: completion(), "vllm") as (a, first), answering(lambda *_: completion()) as (b, second):
        Store(tmp_path).generate(joined(a, b), requests(60))
        assert {body.get("top_k") for body in first} == {-1} and {body.get("top_k") for body in second} == {None}
        with pytest.raises(StudyError, match="has only model"):
            Store(tmp_path).generate(Server(",".join(x.partition("#")[0] for x in (a, b)), "other"), requests(1))


def test_servers_share_finished_generations_whatever_their_addresses(tmp_path):
    with answering(lambda *_: completion()) as (a, _):
        first = Store(tmp_path).generate(joined(a), requests(3))
    assert Store(tmp_path).generate(joined("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"), requests(3)) == first

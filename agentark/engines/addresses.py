"""Which of several servers gets a request: the one that is likely to answer it first, and none that is silent.

A server of the same model may be slower, may die, or may keep its connections open and answer nothing.
"""

import contextlib
import math
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from weakref import WeakSet

AVOIDED = 10  # seconds for which other addresses are preferred after a failure
REMEMBERED = 256  # answers by which an address is judged: two full batches of a server
# An address is silent that has answered nothing for so many seconds, and for so many times the longest answer of all.
SILENT, TIMES = 120, 10
SHUNNED = 10 * 60  # seconds for which other addresses are preferred to one that was silent


@dataclass
class State:
    """What is known of an address. Times are those of time.monotonic."""

    in_flight: int = 0
    answers: float = 0.0  # recent ones
    busy: float = 0.0  # seconds with requests in flight in which they were given
    counted: float = 0.0  # when `busy` was brought up to date
    last: float = 0.0  # its last answer or failure, or the first request since it had none in flight
    longest: float = 0.0  # seconds of its longest answer
    avoided: float = -math.inf  # until then
    sockets: WeakSet[socket.socket] = field(default_factory=WeakSet)

    def count(self, now: float) -> None:
        self.busy += now - self.counted if self.in_flight else 0.0
        self.counted = now


class Addresses:
    """The addresses of servers of one model, for threads that send them requests."""

    def __init__(self, addresses: Sequence[str]):
        self.states = {address: State() for address in addresses}
        self.lock = Lock()

    @contextlib.contextmanager
    def use(self, *failures: type[Exception]) -> Iterator[str]:
        """An address for one request, which raises one of `failures` if the address is at fault."""
        start = time.monotonic()
        with self.lock:
            address, state = self.chosen(start)
            state.last = state.last if state.in_flight else start
            state.in_flight += 1
        answered = failed = False
        try:
            yield address
            answered = True
        except failures:
            failed = True
            raise
        finally:
            with self.lock:
                self.end(state, time.monotonic() - start, answered, failed)

    def chosen(self, now: float) -> tuple[str, State]:
        """Of the addresses that have not just failed, the one at which a new request waits least.

        It waits until as many answers as are then in flight have come. Only counting those in flight would give each
        address as many, and a slow one would keep the last of them for long.
        """
        for state in self.states.values():
            state.count(now)
        known = [s.answers / s.busy for s in self.states.values() if s.answers]
        usual = len(known) / sum(known) if known else 1.0  # seconds between two answers of an address

        def wait(state: State) -> float:
            # With one answer at the usual pace added, since one that has not answered yet may be as good as the others.
            return (state.in_flight + 1) * (state.busy + usual) / (state.answers + 1)

        return min(self.states.items(), key=lambda item: (item[1].avoided > now, wait(item[1])))

    def end(self, state: State, seconds: float, answered: bool, failed: bool) -> None:
        """A request that took `seconds` is not in flight any more."""
        now = time.monotonic()
        state.count(now)
        state.in_flight -= 1
        state.last = now
        if failed:
            state.avoided = max(state.avoided, now + AVOIDED)
        if answered:
            state.longest = max(state.longest, seconds)
            state.answers += 1
            if state.answers >= REMEMBERED:
                state.answers, state.busy = state.answers / 2, state.busy / 2

    def failed(self, address: str) -> None:
        self.states[address].avoided = time.monotonic() + AVOIDED

    def traced(self, address: str) -> dict[str, Callable[[str, dict[str, Any]], None]]:
        """An extension of every request with httpx, which notes the connections to an address."""

        def note(event: str, info: dict[str, Any]) -> None:
            if event.endswith(("connect_tcp.complete", "start_tls.complete")):
                with self.lock:
                    self.states[address].sockets.add(info["return_value"].get_extra_info("socket"))

        return {"trace": note}

    def hang_up(self) -> list[tuple[str, float]]:
        """End all connections to the addresses that are silent, so that their requests fail and go to others.

        Returns these addresses, and the seconds for which they were silent. None is if no other answers.
        """
        now, ended = time.monotonic(), []
        with self.lock:
            longest = max(state.longest for state in self.states.values())
            for address, state in self.states.items():
                others = [s for s in self.states.values() if s is not state and s.longest and s.avoided <= now]
                silent = now - state.last
                if state.in_flight and others and silent > max(SILENT, TIMES * longest):
                    state.last, state.avoided = now, now + SHUNNED
                    ended.append((address, silent))
                    for connection in list(state.sockets):
                        with contextlib.suppress(OSError):  # closed already
                            # It wakes a thread that reads. Of a TLS connection too, without its farewell.
                            socket.socket.shutdown(connection, socket.SHUT_RDWR)
        return ended

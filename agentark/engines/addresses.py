"""Choose among several servers for each request: the one with the shortest expected wait, and no silent one.

A server of the same model may be slower, may die, or may keep its connections open without answering.
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
REMEMBERED = 256  # answers at which the counts for the speed of an address are halved: two full batches of a server
# An address is silent if it has not answered for SILENT seconds and for TIMES times the longest answer of any address.
SILENT, TIMES = 120, 10
SHUNNED = 10 * 60  # seconds for which other addresses are preferred after an address was silent


@dataclass
class State:
    """Counts and times of an address. Times are values of time.monotonic."""

    in_flight: int = 0
    answers: float = 0.0  # number of recent answers
    busy: float = 0.0  # seconds with requests in flight over which `answers` arrived
    counted: float = 0.0  # time of the last update of `busy`
    last: float = 0.0  # time of the last answer or failure, or of the first request after none was in flight
    longest: float = 0.0  # seconds of the longest answer
    avoided: float = -math.inf  # time until which other addresses are preferred
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
        """Yield an address for one request, which is avoided for a while if the block raises one of `failures`."""
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
        """Return the address with the shortest expected wait, and its state. Prefer one without a recent failure.

        The wait is the expected time for the answers to all requests in flight and to the new one. A choice only by the
        number of requests in flight would load all addresses equally, and a slow one would delay the last requests.
        """
        for state in self.states.values():
            state.count(now)
        known = [s.answers / s.busy for s in self.states.values() if s.answers]
        usual = len(known) / sum(known) if known else 1.0  # seconds between two answers of an address

        def wait(state: State) -> float:
            # Count one extra answer at the usual pace, so that an address without answers gets an average estimate.
            return (state.in_flight + 1) * (state.busy + usual) / (state.answers + 1)

        return min(self.states.items(), key=lambda item: (item[1].avoided > now, wait(item[1])))

    def end(self, state: State, seconds: float, answered: bool, failed: bool) -> None:
        """Record the end of a request that took `seconds`."""
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
        """An httpx extension for every request to an address, which records the sockets of its connections."""

        def note(event: str, info: dict[str, Any]) -> None:
            if event.endswith(("connect_tcp.complete", "start_tls.complete")):
                with self.lock:
                    self.states[address].sockets.add(info["return_value"].get_extra_info("socket"))

        return {"trace": note}

    def hang_up(self) -> list[tuple[str, float]]:
        """Close all connections to silent addresses, so that their requests fail and go to other addresses.

        Returns these addresses, each with the seconds of its silence. Nothing is closed if no other address answers.
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
                            # Wakes a thread blocked in a read, also of a TLS connection, without TLS's closing steps.
                            socket.socket.shutdown(connection, socket.SHUT_RDWR)
        return ended

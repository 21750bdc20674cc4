"""Servers on loopback: the study's own as a process that can be killed, and one that misbehaves as it is told to."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
from aiohttp import web

from agentark import root


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def start(folder: Path, port: int) -> tuple[subprocess.Popen, str]:
    """`make serve` without make: a server process that answers, and its address with the model's name."""
    command = [sys.executable, "-m", "agentark.engines.serve", str(folder), str(port)]
    process = subprocess.Popen(
        command, cwd=root(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    address = process.stdout.readline().strip().removeprefix("teacher=")
    threading.Thread(target=process.stdout.read, daemon=True).start()  # vLLM's chatter must not fill the pipe
    for _ in range(1200):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 200:
                return process, address
        assert process.poll() is None, f"{' '.join(command)} ended with {process.returncode}"
        time.sleep(0.1)
    raise AssertionError(f"no server at {port} after two minutes")


def kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def stored(folder: Path) -> dict[str, list[dict]]:
    """All replies in a store, by key, but for the time they took."""
    return {f.stem: [r | {"seconds": 0} for r in json.loads(f.read_text())] for f in folder.rglob("*.json")}


@contextlib.contextmanager
def answering(
    answer: Callable[[int, dict], web.Response],
    owner: str = "somebody",
    models: Callable[[], web.Response] | None = None,
) -> Iterator[tuple[str, list[dict]]]:
    """A server that answers the nth chat completion (from 0) by `answer(n, body)`, and lists its models by `models()`.
    Yields its address, and what it was asked so far."""
    asked: list[dict] = []
    loop, done, ready, port = asyncio.new_event_loop(), asyncio.Event(), threading.Event(), free_port()

    async def complete(http: web.Request) -> web.StreamResponse:
        asked.append(await http.json() | {"authorization": http.headers.get("Authorization")})
        answered = answer(len(asked) - 1, asked[-1])
        if asyncio.iscoroutine(answered):
            answered = await answered
        if answered is None:
            http.transport.close()
            return web.Response()
        return answered

    async def listed(_: web.Request) -> web.Response:
        return models() if models else web.json_response({"data": [{"id": "model", "owned_by": owner}]})

    async def serve() -> None:
        served = web.Application()
        served.add_routes([web.post("/v1/chat/completions", complete), web.get("/v1/models", listed)])
        runner = web.AppRunner(served)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready.set()
        await done.wait()  # not loop.stop: a loop that ends one coroutine and begins another would lose it
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    ready.wait(30)
    try:
        yield f"http://127.0.0.1:{port}/v1#model", asked
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


def completion(text: str | None = "answer : 3", finish_reason: str | None = "stop", **message: str) -> web.Response:
    """A chat completion as a good server sends it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
    return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 4}})

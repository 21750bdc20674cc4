"""Servers on loopback: the project's own as a process that can be killed, and a fake one with scripted replies."""

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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(folder: Path, port: int) -> tuple[subprocess.Popen, str]:
    """Start the server of `make serve`. Returns its process, once it responds, and its address with the model name."""
    command = [sys.executable, "-m", "agentark.engines.serve", str(folder), str(port)]
    process = subprocess.Popen(
        command, cwd=root(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    address = process.stdout.readline().strip().removeprefix("teacher=")
    threading.Thread(target=process.stdout.read, daemon=True).start()  # vLLM's log must not fill the pipe
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
    """All replies in a store, by key, with their times set to 0."""
    return {file.stem: [r | {"seconds": 0} for r in json.loads(file.read_text())] for file in folder.rglob("*.json")}


@contextlib.contextmanager
def fake_server(
    answer: Callable[[int, dict], web.Response],
    owner: str = "somebody",
    models: Callable[[], web.Response] | None = None,
) -> Iterator[tuple[str, list[dict]]]:
    """Run a server that replies to the nth chat completion request (from 0) with `answer(n, body)` and lists its models
    with `models()`. Yields its address and the requests that it has received so far."""
    requests: list[dict] = []
    loop, done, ready, port = asyncio.new_event_loop(), asyncio.Event(), threading.Event(), free_port()

    async def complete(http: web.Request) -> web.StreamResponse:
        requests.append(await http.json() | {"authorization": http.headers.get("Authorization")})
        response = answer(len(requests) - 1, requests[-1])
        if asyncio.iscoroutine(response):
            response = await response
        if response is None:
            http.transport.close()
            return web.Response()
        return response

    async def list_models(_: web.Request) -> web.Response:
        return models() if models else web.json_response({"data": [{"id": "model", "owned_by": owner}]})

    async def serve() -> None:
        application = web.Application()
        application.add_routes([web.post("/v1/chat/completions", complete), web.get("/v1/models", list_models)])
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready.set()
        await done.wait()  # not loop.stop, which would end the loop before the cleanup
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    ready.wait(30)
    try:
        yield f"http://127.0.0.1:{port}/v1#model", requests
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


def completion(text: str | None = "answer : 3", finish_reason: str | None = "stop", **message: str) -> web.Response:
    """A well-formed chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
    return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 4}})

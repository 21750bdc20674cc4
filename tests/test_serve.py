"""The package's own server reports the error of every invalid request in a message."""

import asyncio
import json

from aiohttp.test_utils import TestClient, TestServer

from agentark import root
from agentark.engines import engine, serve


def test_server_reports_the_error_of_every_invalid_request():
    good = {"model": "m", "messages": [{"role": "user", "content": "how many ?"}], "max_tokens": 1}
    requests = {
        "encoding": (json.dumps(good).encode(), {"Content-Type": "application/json; charset=foo"}, 200),
        "depth": (b"[" * 100_000, {}, 400),
        "gzip": (b"no gzip", {"Content-Encoding": "gzip"}, 400),
        "bytes": (b"\xff", {}, 400),
        "model": (json.dumps(good | {"model": "x"}).encode(), {}, 404),
    }

    async def statuses():
        async with TestClient(TestServer(serve.app(engine(root() / "data/models/teacher"), "m"))) as client:
            for name, (body, headers, status) in requests.items():
                response = await client.post(
                    "/v1/chat/completions", data=body, headers=headers | {"Connection": "close"}
                )
                content = await response.json()
                assert (name, response.status) == (name, status)
                assert status == 200 or content["error"]["message"]
            assert (await (await client.get("/elsewhere")).json())["error"]["message"] == "Not Found"

    asyncio.run(statuses())

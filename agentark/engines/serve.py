"""`make serve MODEL=data/models/teacher PORT=8000`: an OpenAI-compatible server for a folder or a name on the hub.

Where vLLM is installed it is vLLM's own server. Else it is this small one around transformers, for trying things out
and for tests: chat completions whole (no streaming), one at a time, so that an answer depends on its request alone.
(`transformers serve` 5.17 will not do: an arriving request's seed reseeds those that are running, whether to sample and
from how many tokens stays as the checkpoint says whatever temperature is asked, a turn that ends at the last token
allowed is called cut off, and it wants three more packages.)
"""

import argparse
import asyncio
import importlib.util
import os
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from aiohttp import web

from agentark import StudyError, root
from agentark.engines import Request
from agentark.engines.checkpoint import digest, located, prompt_ids
from agentark.engines.local import Transformers
from agentark.engines.vllm import settings

KNOWN = {"model", "messages", "temperature", "top_p", "max_tokens", "seed"}


def wanted(body: dict, engine: Transformers) -> Request:
    """A chat completion's request. Raises StudyError for what this server does not do, rather than leave it undone."""
    unknown = sorted(set(body) - KNOWN)
    if unknown or body.get("top_p", 1) != 1:
        raise StudyError(f"{', '.join(unknown) or 'top_p'}: not served here; leave it out")
    try:
        messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in body["messages"]]
        room = engine.window - len(prompt_ids(engine.tokenizer, messages, engine.window - 1))
        request = Request(
            messages,
            float(body.get("temperature", 1.0)),
            int(body.get("max_tokens", room)),
            int(body.get("seed", secrets.randbelow(2**31))),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise StudyError(f"not a chat completion's request ({error!r}); see the API's reference") from None
    if not messages or request.temperature < 0 or request.max_tokens < 1:
        raise StudyError("messages, a temperature of 0 or more and max_tokens of 1 or more are needed")
    return request


def app(engine: Transformers, name: str) -> web.Application:
    one_at_a_time = ThreadPoolExecutor(1)

    def refusal(status: int, words: str) -> web.Response:
        return web.json_response({"error": {"message": words, "code": status}}, status=status)

    async def complete(http: web.Request) -> web.Response:
        try:
            body = dict(await http.json())
        except (ValueError, TypeError):
            return refusal(400, "the body is not a JSON object")
        if body.get("model") != name:
            return refusal(404, f"no model {body.get('model')!r} here, only {name}")
        try:
            request = wanted(body, engine)
            loop = asyncio.get_running_loop()
            (reply,) = await loop.run_in_executor(one_at_a_time, engine.generate, [request], request.seed)
        except StudyError as error:
            return refusal(400, str(error))
        message = {"role": "assistant", "content": reply.text}
        counts = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        return web.json_response(
            {
                "id": f"chatcmpl-{secrets.token_hex(8)}",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": name,
                "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
                "usage": counts | {"total_tokens": sum(counts.values())},
            }
        )

    async def listed(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model", "owned_by": "agentark"}]})

    served = web.Application(client_max_size=2**24)
    served.add_routes([web.post("/v1/chat/completions", complete), web.get("/v1/models", listed)])
    return served


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m agentark.engines.serve", description="An OpenAI-compatible server."
    )
    parser.add_argument("model", help="a folder in the hub's format, or a name on the hub")
    parser.add_argument("port", type=int)
    chosen = parser.parse_args()
    try:
        folder = located(chosen.model)
        # A folder's name with a digest of its files, so that it stands for one set of weights; a hub name as it is.
        local = (root() / chosen.model).is_dir()
        name = f"{folder.resolve().name}@{digest(folder)[:8]}" if local else chosen.model
        print(f"teacher=http://127.0.0.1:{chosen.port}/v1#{name}", flush=True)
        if importlib.util.find_spec("vllm"):
            replace_by_vllm(folder, name, chosen.port)
        web.run_app(app(Transformers(folder), name), host="127.0.0.1", port=chosen.port, print=None)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: port {chosen.port}: {error.strerror}; name another with PORT=", file=sys.stderr)
        return 1
    return 0


def replace_by_vllm(folder: Path, name: str, port: int) -> NoReturn:
    """Go on as vLLM's own server."""
    options = {"model": folder, "served-model-name": name, "host": "127.0.0.1", "port": port, **settings(folder)}
    switches = {True: "--{}", False: "--no-{}"}
    command = ["-m", "vllm.entrypoints.openai.api_server"]
    for key, value in options.items():
        option = key.replace("_", "-")
        command += [switches[value].format(option)] if isinstance(value, bool) else [f"--{option}", str(value)]
    os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    sys.exit(main())

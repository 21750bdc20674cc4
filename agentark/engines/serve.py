"""`make serve MODEL=data/models/teacher PORT=8000`: an OpenAI-compatible server for a folder or a name on the hub.

If vLLM is installed, this runs vLLM's own server. Otherwise it runs a small server around transformers, for experiments
and tests: chat completions without streaming, one at a time, so that an answer depends only on its request.
(`transformers serve` 5.17 is no alternative: the seed of a new request reseeds the running ones, sampling and top-k
follow the checkpoint instead of the requested temperature, a turn that ends at the last allowed token is reported as
cut off, and it needs three more packages.)
"""

import argparse
import asyncio
import importlib.util
import json
import os
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from typing import NoReturn

from aiohttp import web
from aiohttp.typedefs import Handler

from agentark import StudyError, finish, first_line, root
from agentark.engines import Request
from agentark.engines.replies import text_of
from agentark.engines.transformers import Transformers
from agentark.engines.vllm import settings
from agentark.models.chat import SWITCH, prompt_ids
from agentark.models.checkpoints import digest, model_folder

KNOWN = {
    "model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "chat_template_kwargs",
}  # fmt: skip
COLDEST = 1e-4  # a lower temperature overflows in the division of logits
# API fields that have no effect at these values; clients send them by default.
NEUTRAL = {"top_p": 1, "n": 1, "stream": False, "presence_penalty": 0, "frequency_penalty": 0, "logprobs": False,
           "stop": [], "tools": [], "logit_bias": {}, "response_format": {"type": "text"}}  # fmt: skip


def wanted(body: dict, engine: Transformers) -> Request:
    """Parse a chat completion's request. Raises StudyError for unsupported fields instead of ignoring them."""
    body = {name: value for name, value in body.items() if value is not None}  # null means not set
    refused = sorted(
        n for n, v in body.items() if (n in NEUTRAL and v != NEUTRAL[n]) or n not in {*KNOWN, *NEUTRAL, "user"}
    )
    if refused:
        raise StudyError(f"{', '.join(refused)}: not supported by this server; leave it out")
    try:
        messages = [{"role": str(m["role"]), "content": message_text(m["content"])} for m in body["messages"]]
        if not messages:
            raise ValueError("no messages")
        thinking = thinking_switch(dict(body.get("chat_template_kwargs", {})))
        room = engine.window - len(prompt_ids(engine.tokenizer, messages, engine.window - 1, thinking))
        request = Request(
            messages,
            float(body.get("temperature", 1.0)),
            int(body.get("max_completion_tokens", body.get("max_tokens", room))),
            int(body.get("seed", secrets.randbelow(2**31))),
            thinking,
        )
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise StudyError(f"not a chat completion's request ({error!r}); see the API's reference") from None
    if not (request.temperature == 0 or COLDEST <= request.temperature < inf) or request.max_tokens < 1:
        raise StudyError(f"messages, a temperature of 0 or of {COLDEST} or more and max_tokens of 1 or more are needed")
    if not -(2**63) <= request.seed < 2**64:
        raise StudyError("seed: an integer of 64 bits is needed")
    return request


def thinking_switch(asked: dict) -> str:
    """The key of SWITCH for the arguments of a chat template. Raises ValueError for any other arguments."""
    given = {name: value for name, value in asked.items() if value is not None}
    for name, how in SWITCH.items():
        if given.items() <= how.items():
            return name
    raise ValueError("chat_template_kwargs other than enable_thinking: true or false")


def message_text(content: object) -> str:
    """A message's text, from a string or a list of text parts. Raises TypeError for other content, such as images."""
    if isinstance(content, list) and any(
        not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str)
        for part in content
    ):
        raise TypeError("content with parts other than text")
    if content is None:
        raise TypeError("no content")
    return text_of(content)


def app(engine: Transformers, name: str) -> web.Application:
    """The server's routes: chat completions by `engine` for the model `name`, and the list of models."""
    one_at_a_time = ThreadPoolExecutor(1)

    def refusal(status: int, words: str) -> web.Response:
        code = "context_length_exceeded" if "the model's window" in words else status
        return web.json_response({"error": {"message": words, "code": code}}, status=status)

    async def complete(http: web.Request) -> web.Response:
        try:
            body = dict(json.loads(await http.read()))
        except (ValueError, TypeError, RecursionError, web.RequestPayloadError):
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

    @web.middleware
    async def in_words(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            return refusal(error.status, error.reason)
        except Exception as error:
            return refusal(500, f"{type(error).__name__}: {first_line(error)}")

    served = web.Application(client_max_size=2**24, middlewares=[in_words])
    served.add_routes([web.post("/v1/chat/completions", complete), web.get("/v1/models", listed)])
    return served


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m agentark.engines.serve", description="An OpenAI-compatible server."
    )
    parser.add_argument("model", help="a folder in the hub's format, or a name on the hub")
    parser.add_argument("port", type=int)
    parser.add_argument(
        "--window",
        type=int,
        default=0,
        help="in vLLM: the most tokens of a prompt and its reply; 0: the model's. On a CPU a smaller one is faster",
    )
    chosen = parser.parse_args()
    folder = model_folder(chosen.model)
    # A folder's name gets a digest of its files, so that it identifies one set of weights; a hub name stays as it is.
    local = (root() / chosen.model).is_dir()
    name = f"{folder.resolve().name}@{digest(folder)[:8]}" if local else chosen.model
    print(f"teacher=http://127.0.0.1:{chosen.port}/v1#{name}", flush=True)
    if importlib.util.find_spec("vllm"):
        replace_by_vllm(folder, name, chosen.port, chosen.window)
    served = app(Transformers(folder), name)
    try:
        web.run_app(served, host="127.0.0.1", port=chosen.port, print=None)
    except (OSError, OverflowError) as error:
        raise StudyError(
            f"port {chosen.port}: {getattr(error, 'strerror', '') or error}; name another with PORT="
        ) from None


def replace_by_vllm(folder: Path, name: str, port: int, window: int) -> NoReturn:
    """Replace this process by vLLM's own server."""
    # By default vLLM aborts a step after 300 s, in which one core reads about 50,000 tokens.
    os.environ.setdefault("VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS", "7200")
    # On a CPU a step allocates hundreds of MB. If they are not kept in the heap, page faults take a third of the time.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "4000000000")
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "8000000000")
    options = {"model": folder, "served-model-name": name, "host": "127.0.0.1", "port": port, **settings(folder)}
    if window:  # without chunked prefill it also bounds the tokens that a step reads
        options["max_model_len"] = window
    switches = {True: "--{}", False: "--no-{}"}
    command = ["-m", "vllm.entrypoints.openai.api_server"]
    for key, value in options.items():
        option = key.replace("_", "-")
        command += [switches[value].format(option)] if isinstance(value, bool) else [f"--{option}", str(value)]
    os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    finish(main)

"""In: chats. Out: generated text, token counts, finish reasons and seconds.

Finished generations are kept in a content-addressed store outside the stages' outputs, so that an interrupted run can
continue.
"""

import re
from functools import lru_cache
from pathlib import Path

from agentark import root, without_ray
from agentark.engines.requests import PLAIN, Batch, Chat, Engine, Reply, Request, Store

__all__ = [
    "PLAIN", "Batch", "Chat", "Engine", "Reply", "Request", "Store", "batches_itself", "engine", "inheritable",
    "on_cluster", "short_name",
]  # fmt: skip


def short_name(name: str | Path) -> str:
    """A model's short name for tables: the last part of its folder, of its hub name or of its name at a server."""
    return re.split("[/#]", without_ray(name))[-1]


def batches_itself(name: str | Path) -> bool:
    """Whether the engine schedules any number of requests itself, so that one process is enough."""
    return without_ray(name).startswith(("http://", "https://", "vllm:"))


def on_cluster(name: str | Path) -> bool:
    """Whether the engine runs on a Ray cluster, whose connection only the process that opened it can use."""
    return str(name) != without_ray(name)


def inheritable(name: str | Path) -> bool:
    """Whether a forked process can use its parent's engine. llama.cpp's threads do not survive a fork."""
    return not str(name).startswith("llama.cpp:")


@lru_cache(maxsize=4)  # a debate's models
def engine(name: str | Path) -> Engine:
    """The engine of that name, loaded once per process.

    data/models/teacher              transformers, in this process; a folder (relative to the project's, or absolute)
    bf16:data/models/teacher         the same in 16 bits, for CPUs that compute in 16 bits; a GPU always does
    paged:data/models/teacher        the same with continuous batching and paged attention, for GPUs without vLLM
    vllm:data/models/teacher         vLLM, in this process; a folder or a name on the hub
    llama.cpp:models/file.gguf       llama.cpp, in this process; a GGUF file, or MODEL.gguf+ADAPTER.gguf
    http://127.0.0.1:8000/v1#model   an OpenAI-compatible server and one of its models
    ray:data/models/teacher          any of these on all nodes of a Ray cluster
    """
    name = str(name)
    if on_cluster(name):
        from agentark.engines.cluster import Cluster

        return Cluster(without_ray(name))
    if name.startswith(("http://", "https://")):
        from agentark.engines.server import Server

        return Server(*name.partition("#")[::2])
    if name.startswith("vllm:"):
        from agentark.engines.vllm import VLLM

        return VLLM(name.removeprefix("vllm:"))
    if name.startswith("llama.cpp:"):
        from agentark.engines.llama_cpp import LlamaCpp

        return LlamaCpp(name.removeprefix("llama.cpp:"))
    if name.startswith("paged:"):
        from agentark.engines.paged import Paged

        return Paged(root() / name.removeprefix("paged:"))
    from agentark.engines.transformers import Transformers

    return Transformers(root() / name.removeprefix("bf16:"), bf16=name.startswith("bf16:"))

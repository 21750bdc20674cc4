"""Engines: chats in; text, token counts, finish reasons and seconds out.

Finished generations live in a content-addressed store outside every stage's outputs, so an interrupted run continues.
"""

import re
from functools import lru_cache
from pathlib import Path

from agentark import root
from agentark.engines.requests import Batch, Engine, Reply, Request, Store

__all__ = ["Batch", "Engine", "Reply", "Request", "Store", "batches_itself", "engine", "inheritable", "short_name"]


def short_name(name: str | Path) -> str:
    """A model's short name for tables: its folder's, its name on the hub or its name at a server."""
    return re.split("[/#]", str(name))[-1]


def batches_itself(name: str | Path) -> bool:
    """Whether the engine of that name takes any number of requests at once, so that one process is all it wants."""
    return str(name).startswith(("http://", "https://", "vllm:"))


def inheritable(name: str | Path) -> bool:
    """Whether a forked process can use the engine that its parent has loaded: not llama.cpp's, whose threads stay behind."""
    return not str(name).startswith("llama.cpp:")


@lru_cache(maxsize=2)
def engine(name: str | Path) -> Engine:
    """The engine of that name, loaded once a process.

    data/models/teacher              a folder (below the project's, or absolute): transformers, in this process
    vllm:data/models/teacher         vLLM, in this process; a folder or a name on the hub
    llama.cpp:models/file.gguf       llama.cpp, in this process; a GGUF file, or two with a `+`: a model and its adapter
    http://127.0.0.1:8000/v1#model   an OpenAI-compatible server, and which of its models
    """
    name = str(name)
    if name.startswith(("http://", "https://")):
        from agentark.engines.server import Server

        return Server(*name.partition("#")[::2])
    if name.startswith("vllm:"):
        from agentark.engines.vllm import VLLM

        return VLLM(name.removeprefix("vllm:"))
    if name.startswith("llama.cpp:"):
        from agentark.engines.llama_cpp import LlamaCpp

        return LlamaCpp(name.removeprefix("llama.cpp:"))
    from agentark.engines.transformers import Transformers

    return Transformers(root() / name)

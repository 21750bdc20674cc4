"""Generation by vLLM, in this process, with continuous batching and prefix caching.

A model that one GPU cannot hold is divided among several of them (tensor parallelism). `ray:` before the engine's name
generates with as many copies as the GPUs hold. For quantisation and other options, start vLLM's own server and use its
address instead.
"""

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoConfig

from agentark import StudyError, deadline
from agentark.engines import Batch, Reply, Request
from agentark.engines.thoughts import written
from agentark.models import loading
from agentark.models.chat import prompt_ids
from agentark.models.checkpoints import digest, located

MISSING = (
    "vllm: not installed here; add it with `pip install -e .[gpu]` (on a CPU see `make test-vllm`), "
    "or name the model without `vllm:`"
)


MEMORY = 0.9  # vLLM's default `gpu_memory_utilization`
WHAT_FITS = -1  # vLLM's value of `max_model_len` for a window that fits into the memory
ROOM = 1.1  # of the weights: a tenth for keys and values


def cards_for(weights: float, memory: float) -> int:
    """Number of GPUs of `memory` bytes that hold `weights` bytes and some keys and values: a power of two, since vLLM
    gives each GPU as many attention heads as the others."""
    return 2 ** max(0, math.ceil(math.log2(ROOM * weights / (memory * MEMORY))))


def cards(name: str, memory: float) -> int:
    """Number of GPUs of `memory` bytes that one copy of a checkpoint takes."""
    return cards_for(sum(file.stat().st_size for file in located(name).glob("*.safetensors")), memory)


def memory() -> float:
    """Bytes of memory of a GPU of this machine."""
    return float(torch.cuda.get_device_properties(0).total_memory)


class VLLM:
    """A checkpoint in the hub's format, from a folder or by its name on the hub, at its own precision.

    Each request has its own seed, but the other requests in a batch affect the last bits of the arithmetic, so samples
    may differ between runs (not with VLLM_BATCH_INVARIANT=1, if the GPU supports it). Raises StudyError if vLLM is not
    installed or there is no such model.
    """

    def __init__(self, name: str):
        try:
            import vllm
        except ImportError:
            raise StudyError(MISSING) from None
        folder = located(name)
        chosen = settings(folder)
        self.llm = vllm.LLM(str(folder), enable_prefix_caching=True, disable_log_stats=True, **chosen)
        self.tokenizer = loading.load_tokenizer(folder)
        self.window = self.llm.llm_engine.model_config.max_model_len
        self.fingerprint = digest(folder, "vllm", vllm.__version__, str(chosen))

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        return [[i] for i in range(len(requests))]

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Reply]]]:
        from vllm import SamplingParams

        requests = [request for (request,), _ in batches]
        prompts = [prompt_ids(self.tokenizer, r.messages, self.window - r.most, r.thinking) for r in requests]
        rendered = self.llm.renderer.render_cmpl([{"prompt_token_ids": p} for p in prompts])
        engine, waiting = self.llm.llm_engine, {str(number): number for number in range(len(requests))}
        start = time.perf_counter()
        try:
            for key, r, prompt in zip(waiting, requests, rendered, strict=True):
                how = SamplingParams(temperature=r.temperature, max_tokens=r.most, seed=r.seed, top_p=1, top_k=0)
                engine.add_request(key, prompt, how)
            while waiting:
                deadline.check(late=deadline.GRACE)  # it starts requests by itself: these get the time to end
                finished = [output for output in engine.step() if output.finished]
                # The time since the previous replies, so that the shares add up to the wall-clock time.
                passed = time.perf_counter() - start
                for output in finished:
                    yield waiting.pop(output.request_id), [self.reply(output, passed / len(finished))]
                if finished:
                    start += passed
        finally:
            engine.abort_request(list(waiting))

    def reply(self, output, seconds: float) -> Reply:
        """A finished vLLM RequestOutput as a Reply. Raises StudyError if vLLM aborted it."""
        (generated,) = output.outputs
        reason = generated.finish_reason
        if reason not in ("stop", "length"):
            raise StudyError(f"vllm: a request ended with {reason!r}; run the same command again")
        ids = list(generated.token_ids)
        text = written(self.tokenizer, list(output.prompt_token_ids), ids[:-1] if reason == "stop" else ids)
        return Reply(text, len(output.prompt_token_ids), len(ids), reason, seconds)


def settings(folder: Path) -> dict[str, object]:
    """Options that differ from vLLM's defaults.

    The checkpoint's own precision, since `auto` reduces 32-bit weights to 16 bits. On GPUs as many of them as the weights
    need, and the longest window, up to the model's own, for which the memory suffices. On a CPU no compilation, which takes
    minutes for little gain, and no chunked prefill, which crashes vLLM 0.32 on seeded requests.
    """
    precision = AutoConfig.from_pretrained(folder).get_text_config().dtype
    if torch.cuda.is_available():
        needed, there = cards(str(folder), memory()), torch.cuda.device_count()
        if needed > there:
            raise StudyError(
                f"vllm: {folder} needs {needed} GPUs like these for its weights, but there are {there}; choose a smaller "
                "model, or a server on several machines"
            )
        divided = {"tensor_parallel_size": needed, "max_model_len": WHAT_FITS}
    else:
        divided = {"enforce_eager": True, "enable_chunked_prefill": False}
    return {"dtype": str(precision or "auto").removeprefix("torch."), **divided}

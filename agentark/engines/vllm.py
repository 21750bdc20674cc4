"""Generation by vLLM, in this process, with continuous batching and prefix caching.

A model too large for one GPU is divided among several (tensor parallelism). `ray:vllm:` runs as many copies as fit on
all GPUs. For quantisation and other options, start vLLM's own server and use its address instead.
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
from agentark.models.checkpoints import digest, model_folder

MISSING = (
    "vllm: not installed here; add it with `pip install -e .[gpu]` (on a CPU see `make test-vllm`), "
    "or name the model without `vllm:`"
)

KEYS_AND_VALUES = 2 * 2  # a key and a value, of 2 bytes each
MEMORY = 0.9  # vLLM's default `gpu_memory_utilization`
WHAT_FITS = -1  # vLLM's value of `max_model_len` for a window that fits into the memory
# Tokens of the longest request that must fit into memory, if the model's window is longer. At scale `full`, the prompt
# of a summary and its reply have 31,000 tokens (6,000 of the question, five traces of 4,096).
LONGEST = 32_768
TOGETHER = 2  # such requests that must fit side by side; with room for only one, a copy would answer one at a time
# Memory of activations and CUDA graphs, as a fraction of the weights. Computed for Qwen3-32B (65.6 GB), not measured:
# 0.8 GB in the MLP for 8,192 tokens a step (vLLM's default; 2 x 25,600 values of 2 bytes), and about 2 GB for graphs
# and the CUDA context.
ACTIVATIONS = 0.05


def cards_for(weights: float, token: float, window: float, memory: float) -> int:
    """Return how many GPUs of `memory` bytes fit `weights` bytes, activations, and keys and values of TOGETHER longest
    requests (`token` bytes per token): a power of two, since vLLM gives all GPUs equally many attention heads."""
    need = weights * (1 + ACTIVATIONS) + TOGETHER * min(window, LONGEST) * token
    return 2 ** max(0, math.ceil(math.log2(need / (memory * MEMORY))))


def cards(name: str, memory: float, there: int = 0) -> int:
    """Return how many GPUs of `memory` bytes one copy of a checkpoint needs. If there are fewer (`there`; 0: no limit),
    return the largest power of two among them, provided that it fits the weights; the window is then shorter. Raises
    StudyError for weights not in the hub's format."""
    folder = model_folder(name)
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if not weights:
        hint = loading.contents_hint(folder) or "; fetch it again, or save the model as safetensors"
        raise StudyError(f"vllm: {folder} has no weights in the hub's format (*.safetensors){hint}")
    config = AutoConfig.from_pretrained(folder).get_text_config()
    token = KEYS_AND_VALUES * math.prod(loading.attention(config))
    needed = cards_for(weights, token, config.max_position_embeddings, memory)
    largest = 2 ** int(math.log2(there)) if there else needed
    # Keys and values need at least as much memory as activations.
    return largest if largest < needed and weights * (1 + 2 * ACTIVATIONS) < largest * memory * MEMORY else needed


def memory() -> float:
    """Return the memory of this machine's first GPU, in bytes."""
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
        folder = model_folder(name)
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
                sampling = SamplingParams(temperature=r.temperature, max_tokens=r.most, seed=r.seed, top_p=1, top_k=0)
                engine.add_request(key, prompt, sampling)
            while waiting:
                deadline.check(late=deadline.GRACE)  # vLLM starts requests by itself: let those in flight finish
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
        """Convert a finished vLLM RequestOutput to a Reply. Raises StudyError if vLLM aborted it."""
        (generated,) = output.outputs
        reason = generated.finish_reason
        if reason not in ("stop", "length"):
            raise StudyError(f"vllm: a request ended with {reason!r}; run the same command again")
        ids = list(generated.token_ids)
        text = written(self.tokenizer, list(output.prompt_token_ids), ids[:-1] if reason == "stop" else ids)
        return Reply(text, len(output.prompt_token_ids), len(ids), reason, seconds)


def settings(folder: Path) -> dict[str, object]:
    """Return the options that differ from vLLM's defaults. Raises StudyError if there are too few GPUs.

    The precision is the checkpoint's, since `auto` reduces 32-bit weights to 16 bits. On GPUs: the number from `cards`,
    and the longest window, up to the model's own, that fits into memory. On a CPU: no compilation, which takes minutes
    for little gain, and no chunked prefill, which crashes vLLM 0.32 on seeded requests.
    """
    precision = AutoConfig.from_pretrained(folder).get_text_config().dtype
    if torch.cuda.is_available():
        there = torch.cuda.device_count()
        needed = cards(str(folder), memory(), there)
        if needed > there:
            raise StudyError(
                f"vllm: {folder} needs {needed} GPUs like these for its weights, but there are {there}; choose a smaller "
                "model, or a server on several machines"
            )
        divided = {"tensor_parallel_size": needed, "max_model_len": WHAT_FITS}
    else:
        divided = {"enforce_eager": True, "enable_chunked_prefill": False}
    return {"dtype": str(precision or "auto").removeprefix("torch."), **divided}

"""Measurements of the GPU benchmark: training by `agentark.distill`, generation by `agentark.engines`, matrix
products."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config

from agentark.distill import policy, sft
from agentark.distill.settings import SFT, Policy
from agentark.engines import Request, Store, engine
from agentark.models.chat import solve_prompt
from agentark.models.checkpoints import checkpoint_facts
from agentark.models.loading import device, precision
from agentark.plan.training_log import measure_training, now
from agentark.pretrain.tiny import build_tokenizer
from agentark.schemas import Question
from agentark.tasks import task

QWEN3 = {  # values that config.json of Qwen/Qwen3-0.6B and Qwen/Qwen3-1.7B share on the hub
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "tie_word_embeddings": True,
}
TINY = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 640}
WIDTHS = {"Qwen3-0.6B": 1024, "Qwen3-1.7B": 2048}  # hidden_size; intermediate_size is three times that
SHAPES = {name: {**QWEN3, "hidden_size": n, "intermediate_size": 3 * n} for name, n in WIDTHS.items()}
TINY_SHAPES = {
    name: {**QWEN3, **TINY, "hidden_size": n // 32, "intermediate_size": 3 * n // 32} for name, n in WIDTHS.items()
}
SEED = 0


@dataclass(frozen=True)
class Size:
    """The size of the measurements. Training settings follow scale `full` in params.yaml where it defines them."""

    shapes: dict[str, dict]
    matrix: int  # rows and columns of the multiplied matrices
    joined: int  # generated questions in one example: 6 make about 420 tokens, the length of a GSM8K trace
    requests: int  # replies generated in parallel, each with the token limit of a GRPO output
    warmup: int  # SFT steps that are not timed, because they select and compile kernels
    repeats: int
    sft: SFT
    grpo: Policy  # one step per repeat after the first; the public code's 64 questions take eight times as long


GRPO = dict(temperature=1.0, learning_rate=5e-7, beta=0.001, aggregate="mean", outcome_weight=0.0)  # public code
REAL = Size(
    SHAPES, matrix=8192, joined=6, requests=64, warmup=4, repeats=5,
    sft=SFT.read(dict(steps=24, batch_size=16, learning_rate=1e-4, lora_rank=32, trainer="peft")),
    grpo=Policy.read(GRPO | dict(steps=6, batch_size=8, num_generations=8, per_device_batch_size=8, max_tokens=256)),
)  # fmt: skip
REHEARSAL = Size(
    TINY_SHAPES, matrix=128, joined=1, requests=4, warmup=1, repeats=2,
    sft=SFT.read(dict(steps=5, batch_size=4, learning_rate=3e-3, lora_rank=4, trainer="peft")),
    grpo=Policy.read(GRPO | dict(steps=3, batch_size=2, num_generations=2, per_device_batch_size=2, max_tokens=8)),
)  # fmt: skip


def build(shape: dict, folder: Path) -> None:
    """Save a Qwen3 with random weights in the hub's format.

    Its tokenizer is that of the generated world, extended with invented words, so that every sampled token decodes to
    text that encodes to one token.
    """
    tokenizer = build_tokenizer()
    words = tokenizer.get_vocab()
    words |= {f"word{number}": number for number in range(len(words), shape["vocab_size"])}
    tokenizer.backend_tokenizer.model = WordLevel(words, unk_token=tokenizer.unk_token)
    torch.manual_seed(SEED)
    config = Qwen3Config(**shape, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    AutoModelForCausalLM.from_config(config, dtype=precision()).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def chunks(questions: list[Question], size: int) -> list[list[Question]]:
    return [questions[i : i + size] for i in range(0, len(questions), size)]


def examples(count: int, joined: int) -> list[Question]:
    """Questions that each concatenate the texts and solutions of `joined` questions of the generated world."""
    return [
        group[0].model_copy(update={key: "\n".join(getattr(q, key) for q in group) for key in ("text", "solution")})
        for group in chunks(task("word").questions(count * joined, "train", SEED), joined)
    ]


def flops(folder: Path, lengths: list[int], passes: tuple[int, int], adapters: int = 0) -> float:
    """FLOPs of sequences of these lengths. `passes`: number of passes through the weights and through attention:
    1 forward, 1 for the gradient of the input, 1 for the gradient of the weights. Adapters are always trained."""
    config = AutoConfig.from_pretrained(folder)
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    per_token = 2 * passes[0] * int(checkpoint_facts(folder)["weights"]) + 6 * adapters
    return sum(per_token * t + passes[1] * attention * t * t for t in lengths)


def matrix_rate(size: Size) -> dict[str, list[float]]:
    """TFLOP/s of a product of two square matrices, 2 n^3 FLOPs: the upper bound of training and generation."""
    torch.manual_seed(SEED)
    a, b = (torch.randn(size.matrix, size.matrix, device=device(), dtype=precision()) for _ in range(2))
    products, rates = 20, []
    for _ in range(size.repeats + 1):
        start = now()
        for _ in range(products):
            torch.matmul(a, b)
        rates.append(products * 2 * size.matrix**3 / (now() - start) / 1e12)
    return {"matrix rate": rates[1:]}  # without the first repeat, which selects the kernel


def train_sft(settings: SFT, size: Size, folder: Path, card: sft.GPU | None = None) -> dict[str, list[float]]:
    """R-SFT with the kernels of `card`; None: the default path. Token counts exclude padding."""
    pairs = [(q.text, q.solution) for q in examples(settings.steps * settings.batch_size, size.joined)]
    with mock.patch.object(sft, "gpu", lambda: card):
        log = measure_training(sft.train, base=folder, pairs=pairs, seed=SEED, settings=settings)
    passes = (2, 3) if log.adapters else (3, 3)
    speeds, rates, count = [], [], (settings.steps - size.warmup) // size.repeats
    for first in range(size.warmup, settings.steps, count):
        seconds = sum(step["all"] for step in log.steps[first : first + count])
        lengths = [length for batch in log.lengths[first : first + count] for length in batch]
        speeds.append(sum(lengths) / seconds)
        rates.append(flops(folder, lengths, passes, log.adapters) / seconds)
    losses = [entry["loss"] for entry in log.curve]
    return {
        "R-SFT tokens/s": speeds, "R-SFT MFU": rates, "R-SFT peak memory": [log.memory], "R-SFT loss": losses,
    }  # fmt: skip


def train_fast(settings: SFT, size: Size, folder: Path) -> dict[str, list[float]]:
    """R-SFT with the kernels that `sft.train` selects here. The rehearsal uses batches without padding, with SDPA."""
    return train_sft(settings, size, folder, sft.gpu() or sft.GPU(1e12, "sdpa"))


def train_grpo(settings: Policy, size: Size, folder: Path) -> dict[str, list[float]]:
    """GRPO of all weights: seconds of a step in generation, in scoring by a process reward model of the same shape, and
    in the update: forward passes of reference and policy, the policy's backward pass, Adam's step."""
    questions = examples(settings.steps * settings.batch_size, size.joined)
    call = dict(base=folder, reward_model=folder, questions=questions, seed=SEED, settings=settings)
    steps = measure_training(policy.train, **call).steps[1:]
    return {
        "GRPO step: generating": [s["generation"] for s in steps],
        "GRPO step: scoring": [s["scoring"] for s in steps],
        "GRPO step: update": [s["all"] - s["generation"] - s["scoring"] for s in steps],
        "GRPO step: share generating": [s["generation"] / s["all"] for s in steps],
    }


def generate(prefix: str, size: Size, folder: Path) -> dict[str, list[float]]:
    """Completion tokens/s of the engine with this prefix (see `engines.engine`), on new questions in each repeat."""
    model, speeds, rates = engine(f"{prefix}{folder}"), [], []
    for batch in chunks(examples((1 + size.repeats) * size.requests, size.joined), size.requests):
        requests = [Request(solve_prompt(q.text), 1.0, size.grpo.max_tokens, n) for n, q in enumerate(batch)]
        with tempfile.TemporaryDirectory() as store:
            start = now()
            replies = Store(Path(store)).generate(model, requests)
            seconds = now() - start
        lengths = [r.prompt_tokens + r.completion_tokens for r in replies]
        speeds.append(sum(r.completion_tokens for r in replies) / seconds)
        rates.append(flops(folder, lengths, (1, 1)) / seconds)
    return {"generation tokens/s": speeds[1:], "generation MFU": rates[1:]}  # without the first repeat, the warm-up

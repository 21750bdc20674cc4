"""Measurements of the GPU benchmark: `agentark.distill`'s trainings, `agentark.engines`' generation, matrix
products."""

import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config

from agentark.distill import policy, sft
from agentark.distill.settings import SFT, Policy
from agentark.engines import Request, Store, engine
from agentark.models.chat import solve_prompt
from agentark.models.checkpoints import described
from agentark.models.loading import device, precision
from agentark.plan.training_log import measure_training, now
from agentark.pretrain.tiny import build_tokenizer
from agentark.schemas import Question
from agentark.tasks import task

# config.json of Qwen/Qwen3-0.6B and Qwen/Qwen3-1.7B on the hub, which differ only in two widths.
QWEN3 = {
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
SHAPES = {
    "Qwen3-0.6B": {**QWEN3, "hidden_size": 1024, "intermediate_size": 3072},
    "Qwen3-1.7B": {**QWEN3, "hidden_size": 2048, "intermediate_size": 6144},
}
TINY = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 640}
TINY_SHAPES = {
    "Qwen3-0.6B": {**QWEN3, **TINY, "hidden_size": 32, "intermediate_size": 96},
    "Qwen3-1.7B": {**QWEN3, **TINY, "hidden_size": 64, "intermediate_size": 192},
}
SEED = 0


@dataclass(frozen=True)
class Size:
    """The size of the measurements. Training settings are those of scale `full` in params.yaml where it has them."""

    shapes: dict[str, dict]
    matrix: int  # rows and columns of the multiplied matrices
    joined: int  # generated questions in one example: 6 make about 420 tokens, the length of a GSM8K trace
    batch: int
    lora_rank: int
    learning_rate: float
    warmup: int  # training steps that are not timed: the first choose and compile kernels
    steps: int  # training steps per repeat
    repeats: int
    prompts: int  # per GRPO step; the public code's 64 take eight times as long
    generations: int  # outputs per prompt; public code: 8
    rows: int  # outputs in one forward pass of GRPO's update; gradients accumulate over the rest of the step
    requests: int  # replies generated in parallel
    tokens: int  # per reply

    def sft(self, route: str) -> SFT:
        return SFT(
            steps=self.warmup + self.repeats * self.steps,
            batch_size=self.batch,
            learning_rate=self.learning_rate,
            lora_rank=0 if route == "TRL" else self.lora_rank,
            trainer="unsloth" if route == "Unsloth" else "peft",
        )

    def grpo(self) -> Policy:
        """Learning rate and beta are the public code's; beta above 0 needs a reference model."""
        return Policy(
            steps=1 + self.repeats, batch_size=self.prompts, num_generations=self.generations, max_tokens=self.tokens,
            temperature=1.0, learning_rate=5e-7, beta=0.001, aggregate="mean", outcome_weight=0.0,
            per_device_batch_size=self.rows,
        )  # fmt: skip


REAL = Size(
    SHAPES, matrix=8192, joined=6, batch=16, lora_rank=32, learning_rate=1e-4, warmup=4, steps=4, repeats=5,
    prompts=8, generations=8, rows=8, requests=64, tokens=256,
)  # fmt: skip
REHEARSAL = Size(
    TINY_SHAPES, matrix=128, joined=1, batch=4, lora_rank=4, learning_rate=3e-3, warmup=1, steps=2, repeats=2,
    prompts=2, generations=2, rows=2, requests=4, tokens=8,
)  # fmt: skip


def build(shape: dict, folder: Path) -> None:
    """Save a Qwen3 with random weights in the hub's format.

    Its tokenizer is that of the generated world, extended with made-up words: every sampled token is then text that
    encodes to one token again.
    """
    tokenizer = build_tokenizer()
    words = tokenizer.get_vocab()
    words |= {f"word{number}": number for number in range(len(words), shape["vocab_size"])}
    tokenizer.backend_tokenizer.model = WordLevel(words, unk_token=tokenizer.unk_token)
    torch.manual_seed(SEED)
    config = Qwen3Config(**shape, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    AutoModelForCausalLM.from_config(config, dtype=precision()).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def examples(count: int, joined: int) -> list[Question]:
    """Questions that each join the texts and solutions of `joined` questions of the generated world."""
    questions = task("word").questions(count * joined, "train", SEED)
    groups = [questions[i : i + joined] for i in range(0, len(questions), joined)]
    return [
        group[0].model_copy(update={key: "\n".join(getattr(q, key) for q in group) for key in ("text", "solution")})
        for group in groups
    ]


@lru_cache
def anatomy(folder: Path) -> tuple[int, int]:
    """A checkpoint's number of weights, and the forward FLOPs of its attention over T tokens, divided by T^2."""
    config = AutoConfig.from_pretrained(folder)
    return int(
        described(folder)["weights"]
    ), 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim


def flops(folder: Path, lengths: list[int], passes: tuple[int, int], adapters: int = 0) -> float:
    """FLOPs of sequences of these lengths. `passes`: number of passes through weights and through attention: 1 forward,
    1 for the gradient of the input, 1 for the gradient of the weights. Adapters are always trained."""
    weights, attention = anatomy(folder)
    per_token = 2 * passes[0] * weights + 6 * adapters
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
    return {"matrix rate": rates[1:]}  # the first chooses the kernel


def train_sft(settings: SFT, size: Size, folder: Path) -> dict[str, list[float]]:
    """R-SFT. Tokens are those of the examples, without padding."""
    pairs = [(q.text, q.solution) for q in examples(settings.steps * size.batch, size.joined)]
    log = measure_training(sft.train, base=folder, pairs=pairs, seed=SEED, settings=settings)
    passes = (2, 3) if log.adapters else (3, 3)
    speeds, rates = [], []
    for end in range(size.warmup + size.steps, settings.steps + 1, size.steps):
        seconds = log.ends[end - 1]["all"] - log.ends[end - size.steps - 1]["all"]
        lengths = [length for batch in log.lengths[end - size.steps : end] for length in batch]
        speeds.append(sum(lengths) / seconds)
        rates.append(flops(folder, lengths, passes, log.adapters) / seconds)
    return {
        "R-SFT tokens/s": speeds,
        "R-SFT MFU": rates,
        "R-SFT peak memory": [log.memory],
        "R-SFT loss": [entry["loss"] for entry in log.curve],
    }


def train_grpo(settings: Policy, size: Size, folder: Path) -> dict[str, list[float]]:
    """GRPO of all weights: seconds of a step in generation, in scoring by a process reward model of the same shape, and
    in the update (forward passes of reference and policy, the policy's backward pass, Adam's step)."""
    questions = examples(settings.steps * size.prompts, size.joined)
    call = dict(base=folder, reward_model=folder, questions=questions, seed=SEED, settings=settings)
    steps = measure_training(policy.train, **call).steps()
    return {
        "GRPO step: generating": [s["generation"] for s in steps],
        "GRPO step: scoring": [s["scoring"] for s in steps],
        "GRPO step: update": [s["all"] - s["generation"] - s["scoring"] for s in steps],
    }


def generate(size: Size, folder: Path, prefix: str) -> dict[str, list[float]]:
    """Completion tokens per second of replies to `requests` questions, new ones in each repeat. `prefix`: that of the
    engine's name, see `agentark.engines.engine`."""
    model, speeds, rates = engine(f"{prefix}{folder}"), [], []
    questions = examples((1 + size.repeats) * size.requests, size.joined)
    for start in range(0, len(questions), size.requests):
        asked = questions[start : start + size.requests]
        requests = [Request(solve_prompt(q.text), 1.0, size.tokens, number) for number, q in enumerate(asked)]
        with tempfile.TemporaryDirectory() as store:
            began = now()
            replies = Store(Path(store)).generate(model, requests)
            seconds = now() - began
        lengths = [r.prompt_tokens + r.completion_tokens for r in replies]
        speeds.append(sum(r.completion_tokens for r in replies) / seconds)
        rates.append(flops(folder, lengths, (1, 1)) / seconds)
    return {"generation tokens/s": speeds[1:], "generation MFU": rates[1:]}  # the first warms up

"""The routes that the GPU benchmark measures."""

import importlib.util
import math
import os
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from agentark import StudyError

# Only light imports up here: the process that measures Unsloth has to import it before TRL and transformers.

# config.json of Qwen/Qwen3-0.6B on the hub, and of Qwen/Qwen3-1.7B, which differs in two widths.
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
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")  # Qwen3's
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]  # all of a layer, as the study
SEED = 0
REFERENCE = {"TRL + PEFT": "TRL", "Unsloth": "TRL + PEFT"}  # whose loss curve a route's is compared with


@dataclass(frozen=True)
class Size:
    """How much is measured. Training settings are those of scale `full` in params.yaml where it names them."""

    shapes: dict[str, dict]
    matrix: int  # rows and columns of the matrices whose product is timed
    joined: int  # generated questions in one example: 6 make about 430 tokens, much as a trace of GSM8K does
    batch: int
    lora_rank: int
    learning_rate: float
    warmup: int  # training steps before the clock counts: kernels are chosen and compiled in the first
    steps: int  # training steps a repeat
    repeats: int
    prompts: int  # of a GRPO step; the public code's 64 take eight times as long
    generations: int  # outputs a prompt; public code: 8
    rows: int  # outputs in one forward pass of GRPO's update; the rest of the step accumulates
    requests: int  # answers generated side by side
    tokens: int  # of an answer


REAL = Size(
    SHAPES, matrix=8192, joined=6, batch=16, lora_rank=32, learning_rate=1e-4, warmup=4, steps=4, repeats=5,
    prompts=8, generations=8, rows=8, requests=64, tokens=256,
)  # fmt: skip
REHEARSAL = Size(
    TINY_SHAPES, matrix=128, joined=1, batch=4, lora_rank=4, learning_rate=3e-3, warmup=1, steps=2, repeats=2,
    prompts=2, generations=2, rows=2, requests=4, tokens=8,
)  # fmt: skip


def build(shape: dict, folder: Path) -> None:
    """A Qwen3 of random weights and a byte-level BPE tokenizer of as many tokens, in the hub's format.

    The tokenizer learns the generated world's questions and made-up words, as many as fill its vocabulary: so every
    token the model may sample is text, which reads back as about as many tokens.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

    from agentark.models.loading import precision

    rng, tokens = random.Random(SEED), shape["vocab_size"]
    syllables = [a + b for a in "bcdfghjklmnprstvwz" for b in "aeiou"]
    made_up = (" " + "".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(3 * tokens))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=tokens,
        min_frequency=1,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*(text for pair in examples(200, 1) for text in pair), *made_up], trainer)
    if tokenizer.get_vocab_size() != tokens:
        raise StudyError(f"tokenizer: {tokenizer.get_vocab_size()} tokens, not {tokens}; give it more made-up words")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    torch.manual_seed(SEED)
    config = Qwen3Config(**shape, pad_token_id=fast.pad_token_id, eos_token_id=fast.eos_token_id)
    AutoModelForCausalLM.from_config(config, dtype=precision()).save_pretrained(folder)
    fast.save_pretrained(folder)


def examples(count: int, joined: int) -> list[tuple[str, str]]:
    """Pairs of a text with `joined` questions of the generated world and the text of their solutions."""
    from agentark.tasks import task

    questions = task("word").questions(count * joined, "train", SEED)
    groups = [questions[i : i + joined] for i in range(0, len(questions), joined)]
    return [("\n".join(q.text for q in g), "\n".join(q.solution for q in g)) for g in groups]


def now() -> float:
    """Seconds, once the GPU has done all that it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory() -> float:
    """The most memory that tensors held in this process, in GB (10^9 bytes); on a CPU, the process as a whole."""
    import resource

    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


@lru_cache
def anatomy(folder: Path) -> tuple[int, int]:
    """A checkpoint's weights, and the FLOPs of its attention over T tokens, forward, divided by T^2."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        weights = AutoModelForCausalLM.from_config(config).num_parameters()
    return weights, 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim


def flops(folder: Path, lengths: list[int], passes: tuple[int, int], adapters: int = 0) -> float:
    """FLOPs of sequences of those lengths, `passes` counting how often weights and attention are passed through: 1
    forward, 1 for the gradient of the input, 1 for that of weights. Adapters are always trained."""
    weights, attention = anatomy(folder)
    a_token = 2 * passes[0] * weights + 6 * adapters
    return sum(a_token * t + passes[1] * attention * t * t for t in lengths)


def matrix_rate(size: Size) -> dict[str, list[float]]:
    """TFLOP/s of a product of two square matrices, 2 n^3 FLOPs: the most that training and generating can reach."""
    import torch

    from agentark.models.loading import device, precision

    torch.manual_seed(SEED)
    a, b = (torch.randn(size.matrix, size.matrix, device=device(), dtype=precision()) for _ in range(2))
    products, rates = 20, []
    for _ in range(size.repeats + 1):
        start = now()
        for _ in range(products):
            torch.matmul(a, b)
        rates.append(products * 2 * size.matrix**3 / (now() - start) / 1e12)
    return {"matrix rate": rates[1:]}  # the first chooses the kernel


def trainer_settings(folder: Path) -> dict:
    """Trainer arguments of every route: named are also those that Unsloth gives defaults of its own. Gradient
    checkpointing, as real lengths need it on a GPU; Unsloth brings its own."""
    import torch

    gpu = torch.cuda.is_available()
    return {
        "output_dir": str(folder / "trainer"),
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "bf16": gpu,
        "use_cpu": not gpu,
        "gradient_checkpointing": gpu,
        "dataloader_pin_memory": gpu,
        "seed": SEED,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "optim": "adamw_torch_fused",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
    }


def seed_adapters(model) -> None:
    """LoRA's usual start, A at random (Kaiming, uniform) and B zero, from numbers that are the same on every route."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    for name, weight in sorted(model.named_parameters()):
        if "lora_A" in name:
            start = torch.empty(weight.shape)
            torch.nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
            weight.data.copy_(start)


def each_step(read: Callable):
    """A trainer's callback that calls `read` at the end of every step; `seen` holds what it returned."""
    from transformers import TrainerCallback

    class EachStep(TrainerCallback):
        def __init__(self):
            self.seen = []

        def on_step_end(self, *_, **__):
            self.seen.append(read())

    return EachStep()


def imitate(size: Size, folder: Path, route: str) -> dict[str, list[float]]:
    """R-SFT: TRL with all weights, TRL + PEFT or Unsloth with LoRA; same examples in the same order, same start.

    Tokens are those of the examples, padding not counted.
    """
    if route == "Unsloth":
        os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"  # it reports home otherwise
        os.environ["UNSLOTH_COMPILE_LOCATION"] = str(folder / "unsloth")
        if importlib.util.find_spec("unsloth") is None:
            raise StudyError("unsloth is not installed; add it with `pip install -e .[gpu]`")
        import unsloth
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, set_seed
    from trl import SFTConfig, SFTTrainer

    from agentark.models.loading import precision

    steps = size.warmup + size.repeats * size.steps
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dataset, lengths = [], []
    for question, answer in examples(steps * size.batch, size.joined):
        prompt, completion = [{"role": "user", "content": question}], [{"role": "assistant", "content": answer}]
        dataset.append({"prompt": prompt, "completion": completion})
        chat = tokenizer.apply_chat_template(prompt + completion, tokenize=False)
        lengths.append(len(tokenizer(chat, add_special_tokens=False).input_ids))

    if route == "Unsloth":
        model, _ = unsloth.FastLanguageModel.from_pretrained(
            str(folder), max_seq_length=2 * max(lengths), dtype=precision(), load_in_4bit=False, fix_tokenizer=False
        )
        model = unsloth.FastLanguageModel.get_peft_model(
            model, r=size.lora_rank, lora_alpha=2 * size.lora_rank, target_modules=LINEAR, random_state=SEED
        )
    elif route == "TRL + PEFT":
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=precision())
        lora = LoraConfig(r=size.lora_rank, lora_alpha=2 * size.lora_rank, target_modules=LINEAR)
        model = get_peft_model(model, lora)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    seed_adapters(model)
    adapters = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    passes = (2, 3) if adapters else (3, 3)

    arguments = SFTConfig(
        **trainer_settings(folder),
        max_steps=steps,
        per_device_train_batch_size=size.batch,
        gradient_accumulation_steps=1,
        learning_rate=size.learning_rate,
        max_length=None,
        train_sampling_strategy="sequential",  # a shuffle depends on what a route has drawn before
    )
    clock = each_step(now)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(dataset),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    set_seed(SEED)
    trainer.train()
    speeds, rates = [], []
    for end in range(size.warmup + size.steps, steps + 1, size.steps):
        seconds = clock.seen[end - 1] - clock.seen[end - size.steps - 1]
        seen = lengths[(end - size.steps) * size.batch : end * size.batch]
        speeds.append(sum(seen) / seconds)
        rates.append(flops(folder, seen, passes, adapters) / seconds)
    return {
        "R-SFT tokens/s": speeds,
        "R-SFT MFU": rates,
        "R-SFT peak memory": [peak_memory()],
        "R-SFT loss": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }


def practise(size: Size, folder: Path, route: str) -> dict[str, list[float]]:
    """GRPO with all weights: seconds of a step in generating, in scoring by a process reward model of the same shape,
    and in the rest, the update: a forward pass of the reference, one of the policy and its backward, Adam's step."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    from agentark.distill.policy import process_reward
    from agentark.distill.scorer import StepScorer

    spent = {"generating": 0.0, "scoring": 0.0}

    def clocked(name: str, function: Callable) -> Callable:
        def wrapped(*args, **kwargs):
            start = now()
            result = function(*args, **kwargs)
            spent[name] += now() - start
            return result

        return wrapped

    steps = 1 + size.repeats
    scorer = StepScorer(folder)
    arguments = GRPOConfig(
        **trainer_settings(folder),
        max_steps=steps,
        per_device_train_batch_size=size.rows,
        gradient_accumulation_steps=size.prompts * size.generations // size.rows,
        num_generations=size.generations,
        max_completion_length=size.tokens,
        temperature=1.0,
        learning_rate=5e-7,  # public code
        beta=0.001,  # public code: there is a reference model
        loss_type="grpo",
    )
    prompts = [{"prompt": [{"role": "user", "content": q}]} for q, _ in examples(steps * size.prompts, size.joined)]
    clock = each_step(lambda: {"whole": now(), **spent})
    trainer = GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(folder, dtype="float32"),
        [process_reward(scorer, "mean")],
        arguments,
        train_dataset=Dataset.from_list(prompts),
        processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
        callbacks=[clock],
    )
    trainer._generate = clocked("generating", trainer._generate)
    trainer._calculate_rewards = clocked("scoring", trainer._calculate_rewards)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    taken = [{k: end[k] - start[k] for k in end} for start, end in pairwise(clock.seen)]
    return {
        "GRPO step: generating": [t["generating"] for t in taken],
        "GRPO step: scoring": [t["scoring"] for t in taken],
        "GRPO step: update": [t["whole"] - t["generating"] - t["scoring"] for t in taken],
    }


def generate(size: Size, folder: Path, route: str) -> dict[str, list[float]]:
    """Answers to `requests` questions by the study's engines, new questions in each repeat; tokens written a second."""
    from agentark.engines import Request, Store
    from agentark.engines.transformers import Transformers
    from agentark.engines.vllm import VLLM
    from agentark.models.chat import solve_prompt

    engine = VLLM(str(folder)) if route == "vLLM" else Transformers(folder)
    speeds, rates = [], []
    questions = [q for q, _ in examples((1 + size.repeats) * size.requests, size.joined)]
    for start in range(0, len(questions), size.requests):
        asked = [
            Request(solve_prompt(q), 1.0, size.tokens, number)
            for number, q in enumerate(questions[start : start + size.requests])
        ]
        with tempfile.TemporaryDirectory() as store:
            began = now()
            replies = Store(Path(store)).generate(engine, asked)
            seconds = now() - began
        lengths = [r.prompt_tokens + r.completion_tokens for r in replies]
        speeds.append(sum(r.completion_tokens for r in replies) / seconds)
        rates.append(flops(folder, lengths, (1, 1)) / seconds)
    return {"generation tokens/s": speeds[1:], "generation MFU": rates[1:]}  # the first warms up

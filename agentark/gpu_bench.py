"""`make gpu-bench`: what the parts of scale `full` take on one GPU, by each route there is. Results: `reports/gpu.csv`.

Checkpoints are of real shape but random weights: speed and memory do not depend on what a model has learnt. All is
bfloat16: as autocast over float32 weights where all weights are trained, as the weights themselves elsewhere. Every
measurement has a process of its own, since Unsloth changes TRL for the whole process and memory is to be counted from
zero. One that fails says why in its row, and the rest goes on; the table is written after each, so a stopped run keeps
what it has. A value is the median of `n` repeats in one run, with the least and the most. Rows that a run does not come
to stay as an earlier one measured them, each with its card and versions; those never measured say "not measured".
`--model` measures one model's rows. `--rehearse` passes through the same code on the CPU, with tiny shapes; its numbers
mean nothing.

MFU (model FLOPs utilisation) is FLOP/s over the card's matrix rate, which is measured here too. The FLOPs of a sequence
of T tokens are those of arXiv 2204.02311, appendix B: 6 N T + 12 L H Q T^2 to train all N weights of L layers with H
heads of width Q; 4 N T + 6 A T + 12 L H Q T^2 to train A adapter weights, as frozen weights need no gradient of their
own; 2 N T + 4 L H Q T^2 to generate, prompt included. Padding and recomputing count as no work done. The embeddings are
tied, so that N counts the output matrix once and the look-up, which costs no multiplication, not at all.
"""

import argparse
import contextlib
import importlib.util
import math
import os
import platform
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from agentark import StudyError, root
from agentark.command import finish
from agentark.schemas import write_csv

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

    from agentark.models import precision

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

    from agentark.models import device, precision

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

    from agentark.models import precision

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
    from agentark.distill.prm import StepScorer

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
    from agentark.debate.prompts import solve_prompt
    from agentark.engines import Request, Store
    from agentark.engines.local import Transformers
    from agentark.engines.vllm import VLLM

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


UNITS = {
    matrix_rate: {"matrix rate": "TFLOP/s"},
    imitate: {
        "R-SFT tokens/s": "tokens/s",
        "R-SFT MFU": "",
        "R-SFT peak memory": "GB",
        "R-SFT loss": "nats a token",
    },
    practise: {f"GRPO step: {part}": "s" for part in ("generating", "scoring", "update")},
    generate: {"generation tokens/s": "tokens/s", "generation MFU": ""},
}
ROUTES = [
    (imitate, "TRL"),
    (imitate, "TRL + PEFT"),
    (imitate, "Unsloth"),
    (generate, "transformers"),
    (generate, "vLLM"),
    (practise, "TRL"),  # takes longest
]
KEY = ("what", "model", "route")
MACHINE = ("card", "driver", "versions", "command")


def rows_of(out: Path) -> dict[tuple[str, str, str], dict]:
    """Every row of the table by what, model and route, in order, as it stands in `out`; else not measured."""
    rows = {("matrix rate", "", "torch"): "TFLOP/s"}
    for model in SHAPES:
        for function, route in ROUTES:
            rows |= {(what, model, route): unit for what, unit in UNITS[function].items()}
            if function is imitate and route in REFERENCE:
                rows["R-SFT loss, difference to " + REFERENCE[route], model, route] = "nats a token"
    numbers = {column: [""] for column in ("value", "least", "most")}
    table = pd.read_csv(out, keep_default_na=False, na_values=numbers).to_dict("records") if out.is_file() else []
    earlier = {tuple(row[k] for k in KEY): row for row in table}
    return {
        key: earlier.get(key)
        or dict(zip(KEY, key, strict=True))
        | {"value": None, "unit": unit, "least": None, "most": None, "n": 0, "status": "not measured"}
        | dict.fromkeys(MACHINE, "")
        for key, unit in rows.items()
    }


def attempt(function: Callable, *arguments) -> dict[str, list[float]] | str | None:
    """What `function` returns, or in one line why it failed."""
    try:
        return function(*arguments)
    except Exception as error:  # out of memory, a package that does not suit the card, ...: the other rows go on
        reason = next(iter(str(error).splitlines()), "")[:200]
        return reason if isinstance(error, StudyError) else f"{type(error).__name__}: {reason}"


def alone(function: Callable, *arguments) -> dict[str, list[float]] | str | None:
    """`attempt` in a process of its own."""
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(attempt, function, *arguments).result()
    except BrokenProcessPool:
        return "its process was killed (by the system, for memory?)"


def measure(size: Size, run: Callable, machine: dict[str, str], out: Path) -> None:
    """Measure all of `size`, through `run` (`alone` or `attempt`); rewrite the table at `out` after each measurement."""
    rows = rows_of(out)

    def enter(what: str, model: str, route: str, measured: list[float] | str) -> None:
        row = rows[what, model, route]
        if isinstance(measured, str):
            row |= {"value": None, "least": None, "most": None, "n": 0, "status": f"not measured: {measured}"}
        else:
            row |= {
                "value": statistics.median(measured),
                "least": min(measured),
                "most": max(measured),
                "n": len(measured),
                "status": "measured",
            }
        row |= machine
        said = row["status"] if row["value"] is None else f"{row['value']:.4g} {row['unit']}"
        print(f"{model} {route}: {what}: {said}".strip(), flush=True)

    outcome = run(matrix_rate, size)
    rate = None if isinstance(outcome, str) else 1e12 * statistics.median(outcome["matrix rate"])
    enter("matrix rate", "", "torch", outcome if rate is None else outcome["matrix rate"])
    for model, shape in size.shapes.items():
        curves: dict[str, list[float]] = {}
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            failure = run(build, shape, folder)
            for function, route in ROUTES:
                outcome = failure or run(function, size, folder, route)
                for what in UNITS[function]:
                    measured = outcome if isinstance(outcome, str) else outcome[what]
                    if what.endswith("MFU") and not isinstance(measured, str):
                        measured = [r / rate for r in measured] if rate else "the matrix rate is not measured"
                    enter(what, model, route, measured)
                if function is imitate:
                    curves[route] = measured
                    if reference := REFERENCE.get(route):
                        both = curves[route], curves[reference]
                        missing = next((c for c in both if isinstance(c, str)), None)
                        apart = missing or [abs(a - b) for a, b in zip(*both, strict=True)]
                        enter(f"R-SFT loss, difference to {reference}", model, route, apart)
                write_csv(pd.DataFrame(rows.values()), out)


def described(card: str, command: str) -> dict[str, str]:
    """The columns MACHINE: where and how a row was measured."""
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = ""
    packages = []
    for name in ("torch", "transformers", "trl", "peft", "unsloth", "bitsandbytes", "vllm"):
        with contextlib.suppress(PackageNotFoundError):
            packages.append(f"{name} {version(name)}")
    return dict(zip(MACHINE, (card, driver, " ".join(packages), command), strict=True))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m agentark.gpu_bench", description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SHAPES, help="measure this model's rows alone")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes on the CPU; needs --out")
    parser.add_argument("--out", type=Path, help="the table to write; reports/gpu.csv if not given")
    chosen = parser.parse_args(arguments)
    if chosen.rehearse and chosen.out is None:
        parser.error("--rehearse needs --out: its numbers do not belong into reports/")
    from agentark.notebook import KERNEL_ENVIRONMENT

    os.environ.update(KERNEL_ENVIRONMENT)
    if chosen.rehearse:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    out = chosen.out or root() / "reports" / "gpu.csv"

    import torch

    size = REHEARSAL if chosen.rehearse else REAL
    if chosen.model:
        size = replace(size, shapes={chosen.model: size.shapes[chosen.model]})
    if chosen.rehearse:
        measure(size, attempt, described(platform.machine(), "python -m agentark.gpu_bench --rehearse"), out)
    elif torch.cuda.is_available():
        command = f"python -m agentark.gpu_bench --model {chosen.model}" if chosen.model else "make gpu-bench"
        measure(size, alone, described(torch.cuda.get_device_name(0), command), out)
    else:
        rows = rows_of(out)
        write_csv(pd.DataFrame(rows.values()), out)
        measured = sum(row["status"] == "measured" for row in rows.values())
        print(f"no CUDA GPU here: nothing is measured; {out.name} has {measured} of {len(rows)} rows from earlier runs")
    return 0


if __name__ == "__main__":
    finish(main)

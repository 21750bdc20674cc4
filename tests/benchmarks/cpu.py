"""`make bench`: speed ratios, from repeated measurements that alternate within one run; peak memory of each stage. Each
part writes its rows as soon as it is done.

Ratios, not seconds, because machines differ and are shared. Results: `reports/benchmarks.csv`.
"""

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from agentark import StudyError, finish, parallel, root
from agentark.debate.prompts import revise_prompt
from agentark.debate.run import run_debates
from agentark.distill import launch, policy, sft, training
from agentark.distill.settings import SFT, Recipe
from agentark.engines import Batch, Engine, Request, Store, batching
from agentark.engines.llama_cpp import LlamaCpp
from agentark.engines.transformers import Transformers
from agentark.evaluate.likelihood import reasoning_nll
from agentark.models import gguf, loading
from agentark.models.chat import solve_prompt
from agentark.plan.rates import protocol
from agentark.plan.training_log import measure_training
from agentark.pretrain.training import MAX_TOKENS
from agentark.schemas import Question
from agentark.stage.parameters import parameters
from agentark.tasks import task
from tests.benchmarks import driver
from tests.benchmarks.driver import spread
from tests.weights import smollm2

REPEATS = 3
TEACHER, STUDENT = "data/models/teacher", "data/models/qwen3-small"
EXAMPLES = 2400  # that each SFT trains on
DEFAULT_BATCH = 8  # TRL's


def timed(function: Callable) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def plain(engine: Any, requests: list[Request], rows: int) -> list[str]:
    """transformers' `generate` as in its documentation: chats padded together, `rows` at a time, in the given order."""
    texts = []
    for start in range(0, len(requests), rows):
        chats = [r.messages for r in requests[start : start + rows]]
        inputs = engine.tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        sampling = dict(max_new_tokens=MAX_TOKENS, do_sample=True, temperature=requests[start].temperature)
        with torch.inference_mode():
            output = engine.model.generate(**inputs, **sampling)
        texts += engine.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def generation(questions: list[Question]) -> list[dict]:
    """The first two rounds of debates: with our engine and store, one call at a time, and in plain batches."""
    engine, rng = Transformers(root() / TEACHER), random.Random(0)
    pairs = [(q, a) for q in questions for a in range(5)]
    first = [Request(solve_prompt(q.text), 1.0, MAX_TOKENS, a) for q, a in pairs]
    second = [Request(revise_prompt(q, [q.solution] * 5, a, "shared"), 0.2, MAX_TOKENS, a) for q, a in pairs]
    sample, calls = [*rng.sample(first, 20), *rng.sample(second, 20)], len(first) + len(second)
    single_ratios, batched_ratios = [], []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            our_seconds = timed(lambda: Store(Path(folder)).generate(engine, [*first, *second]))
        single_seconds = timed(lambda: [plain(engine, [r], 1) for r in sample]) * calls / len(sample)
        batched_seconds = timed(
            lambda: (plain(engine, first, Transformers.rows), plain(engine, second, Transformers.rows))
        )
        single_ratios.append(single_seconds / our_seconds)
        batched_ratios.append(batched_seconds / our_seconds)
    return [
        spread(
            "debate: one call at a time / ours",
            single_ratios,
            f"{calls} calls; single calls timed on {len(sample)} of them",
        ),
        spread(
            "debate: plain batched generate / ours",
            batched_ratios,
            f"{calls} calls, plain batches of {Transformers.rows}",
        ),
    ]


def engines() -> list[dict]:
    """Tokens generated per second by transformers and by llama.cpp, one process each, from one GGUF file: SmolLM2's, or
    the one that BENCH_GGUF names. Empty if the weights of SmolLM2 are not available."""
    try:
        file = Path(os.environ.get("BENCH_GGUF") or smollm2()).absolute()
    except pytest.skip.Exception as why:
        print(f"llama.cpp beside transformers: skipped, {why}")
        return []
    requests = [Request(solve_prompt(f"{n} hens lay 2 eggs each. How many eggs?"), 0.0, 32, 0) for n in range(16)]
    with tempfile.TemporaryDirectory() as folder:
        gguf.unpack(file, Path(folder), torch.bfloat16)
        float32, bfloat16 = (Transformers(Path(folder), bf16) for bf16 in (False, True))
        singles, one_batch = [[request] for request in requests], [requests]
        setups = {
            "transformers, one by one": (float32, singles[:4]),
            "transformers, one batch": (float32, one_batch),
            "transformers, one batch in 16 bits": (bfloat16, one_batch),
            "llama.cpp": (LlamaCpp(str(file)), singles),
        }
        rates: dict[str, list[float]] = {name: [] for name in setups}
        for _ in range(REPEATS):
            for name, (model, batches) in setups.items():
                rates[name].append(tokens_per_second(model, batches))
    note = f"{file.stem}, one core"
    rows = [spread(f"tokens/s: {name}", values, note) for name, values in rates.items()]
    one_by_one, batch, in_16_bits, llama_cpp = setups
    for first, second in ((llama_cpp, one_by_one), (llama_cpp, batch), (in_16_bits, batch)):
        ratios = [a / b for a, b in zip(rates[first], rates[second], strict=True)]
        rows.append(spread(f"tokens/s: {first} / {second}", ratios, note))
    return rows


def tokens_per_second(engine: Engine, batches: list[list[Request]]) -> float:
    start = time.perf_counter()
    replies = [reply for _, batch in engine.run([Batch(batch, 0) for batch in batches]) for reply in batch]
    return sum(reply.completion_tokens for reply in replies) / (time.perf_counter() - start)


def early_exit(questions: list[Question]) -> list[dict]:
    """Debates on all cores: finished replies leave their batch at once, or stay until its longest reply ends."""
    params = parameters("mini")
    debate_protocol = protocol(params, params["debates"]["test"]["temperature"])

    def debate(share: float) -> float:
        with mock.patch.object(batching, "SHARE", share), tempfile.TemporaryDirectory() as store:
            return timed(lambda: run_debates(debate_protocol, questions, TEACHER, Path(store), 0, MAX_TOKENS))

    ratios = [debate(2.0) / debate(batching.SHARE) for _ in range(REPEATS)]
    note = f"{len(questions)} questions on {parallel.workers()} cores"
    return [spread("debate: ended replies stay / leave", ratios, note)]


def training_starts() -> list[dict]:
    """Start of three trainings in parallel: in new processes, and in forked ones, which inherit imported modules."""

    def new() -> None:
        with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
            for start in [pool.submit(launch.import_trainers) for _ in range(3)]:
                start.result()  # raises the error of a failed start, which would otherwise look fast

    launch.import_trainers()
    forked = partial(parallel.run_all, launch.import_trainers, [{}] * 3, crowded=True)
    seconds = [(timed(new), timed(forked)) for _ in range(REPEATS)]
    return [
        spread("start of three trainings, seconds: new processes", [a for a, _ in seconds], ""),
        spread("start of three trainings, seconds: forked", [b for _, b in seconds], "beside one import for all"),
    ]


def sft_defaults(pairs: list[tuple[str, str]], out: Path, seed: int, study: SFT) -> float:
    """TRL's defaults, except for the study's learning rate and schedule. Returns the seconds of the training."""
    model, tokenizer = loading.load(root() / STUDENT)
    data = [{"prompt": solve_prompt(q), "completion": [{"role": "assistant", "content": a}]} for q, a in pairs]
    config = SFTConfig(
        "unused", save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
        seed=seed, bf16=False, max_steps=EXAMPLES // DEFAULT_BATCH, learning_rate=study.learning_rate,
        lr_scheduler_type="linear",
    )  # fmt: skip
    trainer = SFTTrainer(model, config, train_dataset=Dataset.from_list(data), processing_class=tokenizer)
    seconds = timed(lambda: training.run(trainer))
    trainer.save_model(str(out))
    return seconds


def sft_ours(pairs: list[tuple[str, str]], out: Path, seed: int, study: SFT) -> float:
    """R-SFT with the study's settings, on as many examples. Returns seconds, including loading and saving.

    At the same learning rate, larger batches would end at a higher loss after equally many examples. The rate therefore
    grows with the square root of the batch size, as Adam requires (Malladi et al. 2022, "On the SDEs and scaling rules
    for adaptive gradient algorithms").
    """
    rate = study.learning_rate * (study.batch_size / DEFAULT_BATCH) ** 0.5
    settings = study.but(steps=EXAMPLES // study.batch_size, learning_rate=rate)
    return timed(lambda: sft.train(root() / STUDENT, pairs, out, seed, settings))


def supervised(questions: list[Question]) -> list[dict]:
    """R-SFT: our settings against TRL's defaults, on equally many examples; loss on held-out gold reasoning."""
    pairs, study = [(q.text, q.solution) for q in questions[:600]], Recipe.of(parameters("mini")).sft
    ratios, gains = [], []
    for seed in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            outs = [Path(folder, "theirs"), Path(folder, "ours")]
            ratios.append(sft_defaults(pairs, outs[0], seed, study) / sft_ours(pairs, outs[1], seed, study))
            tables = [reasoning_nll(out, questions[600:700]) for out in outs]
            theirs, ours = (table["nll"].sum() / table["tokens"].sum() for table in tables)
            gains.append(theirs - ours)
    note = f"{EXAMPLES:,} examples each; both with one thread and the same allocator"
    unit = "nats per token, a seed each; above 0: ours is lower"
    return [
        spread("R-SFT tokens/s: ours / TRL's defaults", ratios, note),
        spread("R-SFT held-out loss: TRL's defaults minus ours", gains, unit),
    ]


def grpo(questions: list[Question]) -> list[dict]:
    """A GRPO step in parts: generation, scoring by the reward model, and the rest (the update); and transformers'
    generation against ours."""
    base, settings = root() / STUDENT, Recipe.of(parameters("mini")).policy.but(steps=6, held_out=0)
    call = dict(base=base, reward_model=base, questions=questions, seed=0, settings=settings)
    start = time.perf_counter()
    ours = measure_training(policy.train, **call).spent
    total = time.perf_counter() - start
    with mock.patch.object(batching, "generate", lambda model, **options: type(model).generate(model, **options)):
        theirs = measure_training(policy.train, **call).spent
    parts = ours | {"update": total - sum(ours.values())}
    steps = f"6 steps of {settings.batch_size} questions x {settings.num_generations} outputs"
    note = f"share of {steps}, loading included in the update"
    return [spread(f"GRPO: {name}", [seconds / total], note) for name, seconds in parts.items()] + [
        spread("GRPO: transformers' generation / ours", [theirs["generation"] / ours["generation"]], steps)
    ]


def idle() -> list[dict]:
    """`dvc repro` when nothing has changed, in seconds."""
    seconds = [timed(lambda: subprocess.run(["dvc", "repro", "--quiet", "--dry"], check=True)) for _ in range(REPEATS)]
    return [spread("idle dvc repro --dry, seconds", seconds, "")]


def memory() -> list[dict]:
    """Peak total memory of each stage's processes in its last run here, in MB."""
    notes = {n.stem: json.loads(n.read_text()) for n in sorted((root() / "data" / "runs").glob("*.json"))}
    return [spread(f"peak memory of {s}, MB", [n["peak_mb"]], f"{n['seconds']:.0f} s") for s, n in notes.items()]


def main() -> None:
    if shutil.which("dvc") is None:
        raise StudyError("dvc is not on the path; run `make bench`")
    questions = task("word").questions(700, "train", 0)
    parts = (
        lambda: generation(questions[:64]),
        engines,
        lambda: early_exit(task("equation").questions(128, "validation", 0)),
        training_starts,
        lambda: supervised(questions),
        lambda: grpo(questions[:64]),
        idle,
        *driver.PARTS,
        memory,
    )
    for part in parts:
        rows = part()
        print(pd.DataFrame(rows).to_string(index=False), flush=True)
        if rows:
            driver.write(rows)
    print("\nwritten: reports/benchmarks.csv")


if __name__ == "__main__":
    finish(main)

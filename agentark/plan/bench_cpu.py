"""`make bench`: speed ratios, from repeated measurements that alternate within one run; peak memory of each stage.

Ratios, not seconds, because machines differ and are shared. Results: `reports/benchmarks.csv`.
"""

import json
import multiprocessing
import platform
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import pandas as pd
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from agentark import StudyError, finish, parallel, root
from agentark.debate.prompts import revise_prompt
from agentark.debate.protocols import named
from agentark.debate.run import run_debates
from agentark.distill import launch, policy, sft, training
from agentark.distill.settings import SFT, Policy
from agentark.engines import Request, Store, batching
from agentark.engines.transformers import ROWS, Transformers
from agentark.models import loading
from agentark.models.chat import prompt_ids, solve_prompt
from agentark.plan.training_log import measure_training
from agentark.pretrain.training import MAX_TOKENS
from agentark.schemas import Question, write_csv
from agentark.tasks import task

REPEATS = 3
TEACHER, STUDENT = "data/models/teacher", "data/models/qwen3-small"
BATCH, RATE = 24, 1e-3  # the study's (`sft` in params.yaml)
DEFAULT_BATCH = 8  # TRL's
EXAMPLES = 2400  # of each SFT


def timed(function: Callable) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def spread(what: str, values: Sequence[float], note: str) -> dict:
    median, least, most = statistics.median(values), min(values), max(values)
    return {"what": what, "median": median, "least": least, "most": most, "n": len(values), "note": note}


def plain(engine: Transformers, requests: list[Request], rows: int) -> None:
    """transformers' `generate` as in its documentation: chats padded together, `rows` at a time, in the given order."""
    for start in range(0, len(requests), rows):
        chats = [r.messages for r in requests[start : start + rows]]
        inputs = engine.tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        sampling = dict(max_new_tokens=MAX_TOKENS, do_sample=True, temperature=requests[start].temperature)
        with torch.inference_mode():
            output = engine.model.generate(**inputs, **sampling)
        engine.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def generation(questions: list[Question]) -> list[dict]:
    """The first two rounds of debates: by our engine and store, one call at a time, and in plain batches."""
    engine, rng = Transformers(root() / TEACHER), random.Random(0)
    asked = [(q, a) for q in questions for a in range(5)]
    first = [Request(solve_prompt(q.text), 1.0, MAX_TOKENS, a) for q, a in asked]
    second = [Request(revise_prompt(q, [q.solution] * 5, a, "shared"), 0.2, MAX_TOKENS, a) for q, a in asked]
    few, calls = [*rng.sample(first, 20), *rng.sample(second, 20)], len(first) + len(second)
    alone, batched = [], []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            ours = timed(lambda: Store(Path(folder)).generate(engine, [*first, *second]))
        one = timed(lambda: [plain(engine, [r], 1) for r in few]) * calls / len(few)
        together = timed(lambda: (plain(engine, first, ROWS), plain(engine, second, ROWS)))
        alone.append(one / ours)
        batched.append(together / ours)
    note = f"{calls} calls; single calls timed on {len(few)} of them"
    return [
        spread("debate: one call at a time / ours", alone, note),
        spread("debate: plain batched generate / ours", batched, f"{calls} calls, plain batches of {ROWS}"),
    ]


def leaving(questions: list[Question]) -> list[dict]:
    """Debates on all cores: finished replies leave their batch, or stay until its longest reply ends."""
    talk = named("debate", 5, 3, 1.6, 0.2, "shared")  # the study's

    def debate(share: float) -> float:
        with mock.patch.object(batching, "SHARE", share), tempfile.TemporaryDirectory() as store:
            return timed(lambda: run_debates(talk, questions, TEACHER, Path(store), 0, MAX_TOKENS))

    ratios = [debate(2.0) / debate(batching.SHARE) for _ in range(REPEATS)]
    note = f"{len(questions)} questions on {parallel.workers()} cores"
    return [spread("debate: ended replies stay / leave", ratios, note)]


def starts() -> list[dict]:
    """Start of three trainings in parallel: in new processes, and in forked ones, which inherit imported modules."""

    def new() -> None:
        with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
            for start in [pool.submit(launch.import_trainers) for _ in range(3)]:
                start.result()  # raises the error of a failed start, which would otherwise look fast

    def forked() -> None:
        parallel.run_all(launch.import_trainers, [{}] * 3, crowded=True)

    launch.import_trainers()
    seconds = [(timed(new), timed(forked)) for _ in range(REPEATS)]
    return [
        spread("start of three trainings, seconds: new processes", [a for a, _ in seconds], ""),
        spread("start of three trainings, seconds: forked", [b for _, b in seconds], "beside one import for all"),
    ]


Pairs = list[tuple[str, str]]


def held_out_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, held: Pairs) -> float:
    """Mean loss per token of the answers, in nats."""
    losses = []
    for question, answer in held:
        prompt = prompt_ids(tokenizer, solve_prompt(question), 10**9)
        target = [*tokenizer(answer).input_ids, tokenizer.eos_token_id]
        labels = torch.tensor([[-100] * len(prompt) + target])
        with torch.inference_mode():
            losses += [model(input_ids=torch.tensor([prompt + target]), labels=labels).loss.item()] * len(target)
    return statistics.fmean(losses)


def sft_defaults(pairs: Pairs, held: Pairs, seed: int) -> tuple[float, float]:
    """TRL's defaults, except for our learning rate and schedule. Returns seconds and the loss on held-out examples."""
    model, tokenizer = loading.load(root() / STUDENT)
    data = [{"prompt": solve_prompt(q), "completion": [{"role": "assistant", "content": a}]} for q, a in pairs]
    config = SFTConfig(
        "unused", save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
        seed=seed, bf16=False, max_steps=EXAMPLES // DEFAULT_BATCH, learning_rate=RATE, lr_scheduler_type="linear",
    )  # fmt: skip
    trainer = SFTTrainer(model, config, train_dataset=Dataset.from_list(data), processing_class=tokenizer)
    seconds = timed(lambda: training.run(trainer))
    return seconds, held_out_loss(trainer.model.eval(), tokenizer, held)


def sft_ours(pairs: Pairs, held: Pairs, seed: int) -> tuple[float, float]:
    """R-SFT as in the study, on the same number of examples. Seconds include loading and saving.

    At the same learning rate, larger batches would end at a higher loss after equally many examples. The rate therefore
    grows with the square root of the batch size, as Adam requires (Malladi et al. 2022, "On the SDEs and scaling rules
    for adaptive gradient algorithms").
    """
    rate = RATE * (BATCH / DEFAULT_BATCH) ** 0.5
    chosen = SFT(steps=EXAMPLES // BATCH, batch_size=BATCH, learning_rate=rate)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "student"
        seconds = timed(lambda: sft.train(root() / STUDENT, pairs, out, seed, chosen))
        return seconds, held_out_loss(*loading.load(out), held)


def supervised(questions: list[Question]) -> list[dict]:
    """R-SFT: our settings compared with TRL's defaults, on equally many examples."""
    pairs = [(q.text, q.solution) for q in questions]
    runs = [[run(pairs[:600], pairs[600:700], seed) for run in (sft_defaults, sft_ours)] for seed in range(REPEATS)]
    note = f"{EXAMPLES:,} examples each; both with one thread and the same allocator"
    losses = [theirs[1] - ours[1] for theirs, ours in runs]
    return [
        spread("R-SFT tokens/s: ours / TRL's defaults", [theirs[0] / ours[0] for theirs, ours in runs], note),
        spread(
            "R-SFT held-out loss: TRL's defaults minus ours",
            losses,
            "nats per token, one value per seed; above 0: ours is lower",
        ),
    ]


def grpo(questions: list[Question]) -> list[dict]:
    """A GRPO step in parts: generation, scoring, and the rest (the update); and transformers' generation / ours."""
    chosen = Policy(
        steps=6, batch_size=16, num_generations=8, max_tokens=MAX_TOKENS, learning_rate=5e-4, temperature=1.0,
        beta=0.001, aggregate="mean", outcome_weight=0.0,
    )  # fmt: skip
    call = dict(base=root() / STUDENT, reward_model=root() / STUDENT, questions=questions, seed=0, settings=chosen)

    def trained() -> tuple[float, dict[str, float]]:
        start = time.perf_counter()
        spent = measure_training(policy.train, **call).spent
        return time.perf_counter() - start, spent

    whole, ours = trained()
    with mock.patch.object(batching, "generate", lambda model, **asked: type(model).generate(model, **asked)):
        _, theirs = trained()
    parts = ours | {"update": whole - sum(ours.values())}
    steps = "6 steps of 16 questions x 8 outputs"
    note = f"share of {steps}, loading included in the update"
    return [spread(f"GRPO: {name}", [seconds / whole], note) for name, seconds in parts.items()] + [
        spread("GRPO: transformers' generation / ours", [theirs["generation"] / ours["generation"]], steps)
    ]


def idle() -> list[dict]:
    """Seconds of `dvc repro` when nothing has changed. Raises StudyError if dvc is not on the path."""
    if shutil.which("dvc") is None:
        raise StudyError("dvc is not on the path; run `make bench`")
    seconds = [timed(lambda: subprocess.run(["dvc", "repro", "--quiet", "--dry"], check=True)) for _ in range(REPEATS)]
    return [spread("idle dvc repro --dry, seconds", seconds, "")]


def memory() -> list[dict]:
    """Peak total memory of each stage's processes in its last run here, in MB."""
    notes = {n.stem: json.loads(n.read_text()) for n in sorted((root() / "data" / "runs").glob("*.json"))}
    return [spread(f"peak memory of {s}, MB", [n["peak_mb"]], f"{n['seconds']:.0f} s") for s, n in notes.items()]


def processor() -> str:
    """The processor's name, if the system reports it."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", info.read_text() if info.is_file() else "", re.MULTILINE)
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    questions, rows = task("word").questions(700, "train", 0), idle()
    parts = (
        lambda: generation(questions[:64]),
        lambda: leaving(task("equation").questions(128, "validation", 0)),
        starts,
        lambda: supervised(questions),
        lambda: grpo(questions[:64]),
        memory,
    )
    for part in parts:
        rows += part()
        print(pd.DataFrame(rows[-3:]).to_string(index=False), flush=True)
    versions = " ".join(f"{p} {version(p)}" for p in ("torch", "transformers", "trl", "dvc"))
    table = pd.DataFrame(rows).assign(machine=processor(), versions=versions)
    write_csv(table, root() / "reports" / "benchmarks.csv")
    print("\nwritten: reports/benchmarks.csv")


if __name__ == "__main__":
    finish(main)

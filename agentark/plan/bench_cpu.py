"""`make bench`: speed as ratios measured in one run, alternately and several times; peak memory of each stage.

Ratios, not seconds, since the machines this runs on differ and are shared. Results: `reports/benchmarks.csv`.
"""

import json
import multiprocessing
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from trl import GRPOTrainer, SFTConfig, SFTTrainer

from agentark import finish, parallel, root
from agentark.debate.prompts import revise_prompt
from agentark.debate.protocols import named
from agentark.debate.run import run_debates
from agentark.distill import launch, policy, sft
from agentark.distill.settings import SFT, Policy
from agentark.distill.training import arguments, run
from agentark.engines import Request, Store, batching
from agentark.engines.transformers import ROWS, Transformers
from agentark.models import loading
from agentark.models.chat import solve_prompt
from agentark.pretrain.training import MAX_TOKENS
from agentark.schemas import Question, write_csv
from agentark.tasks import task

REPEATS = 3
TEACHER, STUDENT = "data/models/teacher", "data/models/qwen3-small"


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def spread(what: str, ratios: list[float], note: str) -> dict:
    return {
        "what": what,
        "median": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "n": len(ratios),
        "note": note,
    }


def plain(engine: Transformers, requests: list[Request], rows: int) -> None:
    """transformers' `generate` as its documentation shows it: chats padded together, `rows` at a time, as they come."""
    for start in range(0, len(requests), rows):
        chats = [r.messages for r in requests[start : start + rows]]
        inputs = engine.tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            output = engine.model.generate(
                **inputs, max_new_tokens=MAX_TOKENS, do_sample=True, temperature=requests[start].temperature
            )
        engine.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def generation(questions: list[Question]) -> list[dict]:
    """A debate's first two rounds: through our engine and store, one call at a time, and by plain batches."""
    engine = Transformers(root() / TEACHER)
    rng = random.Random(0)
    traces = {q.question_id: [q.solution] * 5 for q in questions}
    first = [Request(solve_prompt(q.text), 1.0, MAX_TOKENS, a) for q in questions for a in range(5)]
    second = [
        Request(revise_prompt(q, traces[q.question_id], a, "shared"), 0.2, MAX_TOKENS, a)
        for q in questions
        for a in range(5)
    ]
    few = [*rng.sample(first, 20), *rng.sample(second, 20)]
    alone, batched = [], []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            ours = timed(lambda: Store(Path(folder)).generate(engine, [*first, *second]))
        one = timed(lambda: [plain(engine, [r], 1) for r in few]) * len([*first, *second]) / len(few)
        together = timed(lambda: (plain(engine, first, ROWS), plain(engine, second, ROWS)))
        alone.append(one / ours)
        batched.append(together / ours)
    calls = f"{len(first) + len(second)} calls"
    return [
        spread("debate: one call at a time / ours", alone, f"{calls}; single calls timed on {len(few)} of them"),
        spread("debate: plain batched generate / ours", batched, f"{calls}, plain batches of {ROWS}"),
    ]


def leaving(questions: list[Question]) -> list[dict]:
    """Debates on all cores whose ended replies leave their batch, against those that are computed to the longest's end."""
    talk = named("debate", 5, 3, 1.6, 0.2, "shared")  # the study's

    def debate(share: float) -> float:
        batching.SHARE, kept = share, batching.SHARE
        try:
            with tempfile.TemporaryDirectory() as store:
                return timed(lambda: run_debates(talk, questions, TEACHER, Path(store), 0, MAX_TOKENS))
        finally:
            batching.SHARE = kept

    ratios = [debate(2.0) / debate(batching.SHARE) for _ in range(REPEATS)]
    note = f"{len(questions)} questions on {parallel.workers()} cores"
    return [spread("debate: ended replies stay / leave", ratios, note)]


def starts() -> list[dict]:
    """Three trainings' starts at once, in new processes and in forked ones, which inherit what has been imported."""

    def new() -> None:
        with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
            for start in [pool.submit(launch.import_trainers) for _ in range(3)]:
                start.result()  # raises what went wrong, which else would count as a quick start

    launch.import_trainers()
    seconds = [
        (timed(new), timed(lambda: parallel.run_all(launch.import_trainers, [{}] * 3, crowded=True)))
        for _ in range(REPEATS)
    ]
    return [
        spread("start of three trainings, seconds: new processes", [a for a, _ in seconds], ""),
        spread("start of three trainings, seconds: forked", [b for _, b in seconds], "beside one import for all"),
    ]


BATCH, RATE = 24, 1e-3  # the study's (`distill` in params.yaml)
DEFAULT_BATCH = 8  # TRL's


def held_out_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, held: list[tuple[str, str]]) -> float:
    """Mean over the answers' tokens, in nats."""
    losses = []
    for question, answer in held:
        prompt = tokenizer(
            tokenizer.apply_chat_template(solve_prompt(question), tokenize=False, add_generation_prompt=True)
        )
        target = [*tokenizer(answer).input_ids, tokenizer.eos_token_id]
        ids = torch.tensor([prompt.input_ids + target])
        labels = torch.tensor([[-100] * len(prompt.input_ids) + target])
        with torch.inference_mode():
            losses += [model(input_ids=ids, labels=labels).loss.item()] * len(target)
    return statistics.fmean(losses)


def sft_defaults(
    pairs: list[tuple[str, str]], steps: int, held: list[tuple[str, str]], seed: int
) -> tuple[float, float]:
    """TRL as it comes, but for our learning rate and schedule. Returns seconds and the loss on held-out examples."""
    model, tokenizer = loading.load(root() / STUDENT)
    data = Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": q}], "completion": [{"role": "assistant", "content": a}]}
            for q, a in pairs
        ]
    )
    chosen = SFT(steps=steps, batch_size=DEFAULT_BATCH, learning_rate=RATE)
    ours = arguments(chosen, seed, DEFAULT_BATCH)
    ours = {k: ours[k] for k in ("output_dir", "save_strategy", "report_to", "disable_tqdm", "use_cpu")}
    config = SFTConfig(**ours, seed=seed, bf16=False, max_steps=steps, learning_rate=RATE, lr_scheduler_type="linear")
    trainer = SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer)
    seconds = timed(lambda: run(trainer))
    return seconds, held_out_loss(trainer.model.eval(), tokenizer, held)


def sft_ours(pairs: list[tuple[str, str]], steps: int, held: list[tuple[str, str]], seed: int) -> tuple[float, float]:
    """R-SFT as the study runs it, but for the rate, on as many examples. Seconds include loading and saving.

    At one rate the larger batches would end at a higher loss after as many examples; the rate grows by the root of the
    batch, as Adam's does (Malladi et al. 2022, "On the SDEs and scaling rules for adaptive gradient algorithms").
    """
    chosen = SFT(steps=steps, batch_size=BATCH, learning_rate=RATE * (BATCH / DEFAULT_BATCH) ** 0.5)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "student"
        seconds = timed(lambda: sft.train(root() / STUDENT, pairs, out, seed, chosen))
        return seconds, held_out_loss(*loading.load(out), held)


def imitation(questions: list[Question]) -> list[dict]:
    """R-SFT: our settings against TRL's defaults, on equally many examples."""
    pairs, held = [(q.text, q.solution) for q in questions[:600]], [(q.text, q.solution) for q in questions[600:700]]
    ratios, losses, examples = [], [], 2400
    for seed in range(REPEATS):
        theirs, their_loss = sft_defaults(pairs, examples // DEFAULT_BATCH, held, seed)
        ours, our_loss = sft_ours(pairs, examples // BATCH, held, seed)
        ratios.append(theirs / ours)
        losses.append(their_loss - our_loss)
    note = f"{examples:,} examples each; both with one thread and the same allocator"
    return [
        spread("R-SFT tokens/s: ours / TRL's defaults", ratios, note),
        spread(
            "R-SFT held-out loss: TRL's defaults minus ours",
            losses,
            "nats a token, a seed each; above 0: ours is lower",
        ),
    ]


def grpo(questions: list[Question]) -> list[dict]:
    """One GRPO step, split into generation, scoring by the reward model, and the rest (the update); and generation as
    transformers has it against ours."""
    spent: Counter[str] = Counter()

    def clocked(name, function):
        def wrapped(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - start

        return wrapped

    def practised() -> dict[str, float]:
        spent.clear()
        base = root() / STUDENT
        chosen = Policy(
            steps=6, batch_size=16, num_generations=8, max_tokens=MAX_TOKENS, learning_rate=5e-4, temperature=1.0,
            beta=0.001, aggregate="mean", outcome_weight=0.0,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            policy.train(base, base, questions, Path(folder) / "pad", 0, chosen)
            return {"all": time.perf_counter() - start, **spent}

    kept = GRPOTrainer._generate, policy.process_reward, batching.generate
    GRPOTrainer._generate = clocked("generation", kept[0])
    policy.process_reward = lambda scorer, how: clocked("scoring", kept[1](scorer, how))
    try:
        ours = practised()
        batching.generate = lambda model, **asked: type(model).generate(model, **asked)
        theirs = practised()
    finally:
        GRPOTrainer._generate, policy.process_reward, batching.generate = kept
    whole = ours.pop("all")
    ours["update"] = whole - sum(ours.values())
    steps = "6 steps of 16 questions x 8 outputs"
    note = f"share of {steps}, loading included in the update"
    return [spread(f"GRPO: {name}", [seconds / whole], note) for name, seconds in ours.items()] + [
        spread("GRPO: transformers' generation / ours", [theirs["generation"] / ours["generation"]], steps)
    ]


def idle() -> list[dict]:
    """`dvc repro` when nothing has changed, in seconds."""
    seconds = [timed(lambda: subprocess.run(["dvc", "repro", "--quiet", "--dry"], check=True)) for _ in range(REPEATS)]
    return [spread("idle dvc repro --dry, seconds", seconds, "")]


def memory() -> list[dict]:
    """Peak memory of each stage's processes together, as noted by its last run here, in MB."""
    notes = sorted((root() / "data" / "runs").glob("*.json"))
    return [
        spread(f"peak memory of {n.stem}, MB", [note["peak_mb"]], f"{note['seconds']:.0f} s")
        for n in notes
        for note in [json.loads(n.read_text())]
    ]


def main() -> int:
    if shutil.which("dvc") is None:
        print("error: dvc is not on the path; run `make bench`", file=sys.stderr)
        return 1
    questions = task("word").questions(700, "train", 0)
    rows = []
    for part in (
        lambda: generation(questions[:64]),
        lambda: leaving(task("equation").questions(128, "validation", 0)),
        starts,
        lambda: imitation(questions),
        lambda: grpo(questions[:64]),
        idle,
        memory,
    ):
        rows += part()
        print(pd.DataFrame(rows[-3:]).to_string(index=False), flush=True)
    table = pd.DataFrame(rows)
    table["machine"] = processor()
    table["versions"] = " ".join(f"{p} {version(p)}" for p in ("torch", "transformers", "trl", "dvc"))
    write_csv(table, root() / "reports" / "benchmarks.csv")
    print("\nwritten: reports/benchmarks.csv")
    return 0


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    finish(main)

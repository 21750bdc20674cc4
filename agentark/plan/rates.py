"""What a question and an optimiser step take, for `agentark.plan`.

Where the teacher can run here, rates are measured: debates and answers to validation questions, a few steps of each
training. Where it cannot, they are assumed, from `agentark.plan.sizes`. Every rate says which.
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from agentark import root
from agentark.debate.independent import Vote
from agentark.debate.protocols import named
from agentark.debate.run import run_debates
from agentark.debate.turns import Protocol
from agentark.distill import policy, reward_model, sft
from agentark.distill.reward_model import debate_tokens
from agentark.distill.settings import Recipe, RewardModel, Settings
from agentark.distill.sft import example_tokens
from agentark.models import checkpoints, loading
from agentark.parallel import run_all
from agentark.plan import sizes
from agentark.plan.sizes import CARDS, REPLIES, Checkpoint
from agentark.schemas import Question, Seconds, Trace, read_table
from agentark.tasks import TASKS
from agentark.tasks.questions import asked
from agentark.traces.check import check_traces
from agentark.traces.reading import SUMMARISER
from agentark.traces.selection import select

SMALL = 1e8  # weights below which a student's training is tried rather than assumed: its steps take seconds


@dataclass(frozen=True)
class Rate:
    """What a question takes of one model in one kind of call: "round 1" and so on or "summary" of a debate, or "pass".

    calls: a question; read, written: tokens a call; seconds: of a core or a GPU, a call. n: the pilot's questions, 0 if
    the rate is assumed.
    """

    model: str
    task: str
    hard: bool
    temperature: float
    kind: str
    calls: float
    read: float
    written: float
    seconds: float
    n: int


@dataclass(frozen=True)
class Step:
    """What an optimiser step takes: `tokens` trained on in `examples` (questions, debates or outputs), of which `written`
    by the student itself; seconds of a core or a GPU."""

    student: str
    method: str
    examples: int
    tokens: float
    written: float
    seconds: float
    basis: str


def temperature_of(params: dict, split: str) -> float:
    return next(d["temperature"] for d in params["debates"].values() if d["split"] == split)


def here(name: str) -> bool:
    """Whether a teacher or student can be asked: its folder is there, or it is a server's."""
    return name.startswith("http") or (root() / checkpoints.where(name)).is_dir()


def size_of(params: dict, name: str) -> Checkpoint:
    """The size of a teacher or student, here or still to be fetched. Raises StudyError where it is not to be had."""
    source = params["checkpoints"].get(Path(name).name, {}).get("source", "")
    return sizes.checkpoint(source if source and not here(name) else checkpoints.where(name))


def one(known: Sequence[Rate], model: str, task: str) -> Rate:
    """The greedy pass of a model on a task."""
    return next(r for r in known if (r.model, r.task, r.kind) == (model, task, "pass"))


def debate_rates(known: Sequence[Rate], model: str, task: str, hard: bool, temperature: float) -> list[Rate]:
    """The rates of one setting's debate."""
    key = (model, task, hard, temperature)
    return [r for r in known if (r.model, r.task, r.hard, r.temperature) == key and r.kind != "pass"]


def trained(params: dict, known: Sequence[Rate], student: str, method: str, task: str) -> Rate:
    """A student's pass after training: replies as long as the teacher's, whose traces it learnt; after answer-only SFT
    no longer than its base's."""
    base = one(known, student, task)
    if method == "sft":
        return base
    written = one(known, params["teacher"], task).written
    return replace(base, written=written, seconds=base.seconds * (base.read + written) / (base.read + base.written))


# Measured


def obstacle(params: dict) -> str:
    """Why nothing can be measured here; "" if a pilot can be held."""
    teacher = params["teacher"]
    if not here(teacher):
        return f"{teacher} is not here"
    if teacher.startswith("vllm:") and importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed"
    alone = params["scale"] != "mini" and not teacher.startswith("http") and not torch.cuda.is_available()
    return "there is no GPU" if alone else ""


def stand_ins(params: dict, task: str, n: int, hard: bool) -> list[Question]:
    """Up to `n` validation questions of a task, of its harder levels if so wanted; test questions are never read."""
    if task in TASKS:
        levels = TASKS[task].hard if hard else TASKS[task].levels
        return TASKS[task].questions(n, "validation", params["questions"]["seed"], levels)
    table = root() / "data" / "questions" / "questions.parquet"
    known = read_table(table, Question) if table.is_file() else []
    return [q for q in known if q.task == task and q.split == "validation"][:n]


def rates_of(
    traces: Sequence[Trace], seconds: Sequence[Seconds], model: str, task: str, hard: bool, temperature: float
) -> list[Rate]:
    """Rates by kind of call from the traces of a pilot. What has no summary is a pass."""
    table = pd.DataFrame([t.model_dump() for t in traces]).assign(seconds=[s.seconds for s in seconds])
    n, summary = table["question_id"].nunique(), table["agent"] == SUMMARISER
    kind = (
        ("round " + table["round"].astype(str)).mask(summary, "summary")
        if summary.any()
        else summary.map("pass".format)
    )
    columns = ["prompt_tokens", "completion_tokens", "seconds"]
    return [
        Rate(model, task, hard, temperature, kind, len(part) / n, *map(float, part[columns].mean()), n)
        for kind, part in table.groupby(kind)
    ]


def protocol(params: dict, temperature: float) -> Protocol:
    how = params["debate"]
    return named(
        how["protocol"], params["agents"], params["rounds"], temperature, how["revision_temperature"], how["order"]
    )


def rates(params: dict, pilot_main: int, pilot_other: int, card: str, replies: str) -> list[Rate]:
    """Rates of every debate and every single pass of the study, measured where that is possible.

    `pilot_main` questions of the task that is distilled from, `pilot_other` of each other, in every setting they are debated
    in, through the store like all generations. The vote is not held: its calls are like round 1's.
    """
    possible, found = not obstacle(params), []
    ask = dict(store=root() / params["store"], seed=params["debate"]["seed"], max_tokens=params["max_tokens"])
    settings = {
        (task, d["split"] == "hard", d["temperature"])
        for d in params["debates"].values()
        for task, n in asked(params, d["split"]).items()
        if n
    }
    for task, hard, temperature in sorted(settings):
        n = pilot_main if task == params["train_task"] else pilot_other
        name, questions = params["teacher"], stand_ins(params, task, n, hard) if possible else []
        if questions:
            traces, took = run_debates(protocol(params, temperature), questions, name, **ask)
            found += rates_of(traces, took, name, task, hard, temperature)
        else:
            found += assumed_debate(params, name, task, hard, temperature, card, replies)
    for task in asked(params, "test"):
        n = pilot_main if task == params["train_task"] else pilot_other
        questions = stand_ins(params, task, n, False) if possible else []
        for name in (params["teacher"], *params["students"]):
            if questions and here(name):
                model = name if name == params["teacher"] else f"{params['engine']}{checkpoints.where(name)}"
                traces, took = run_debates(Vote(1, 0.0), questions, model, **ask)
                found += rates_of(traces, took, name, task, False, 0.0)
            else:
                found.append(assumed_pass(params, name, task, card, replies))
    return found


def step_seconds(train: Callable, settings: Settings, few: int, many: int) -> float:
    """Seconds of one more step: `train` is run for `few` steps to warm up, then timed for `few` and for `many`."""

    counted = "stage_2_steps" if isinstance(settings, RewardModel) else "steps"

    def timed(steps: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            train(out=Path(folder) / "model", settings=settings.but(**{counted: steps}))
            return time.perf_counter() - start

    timed(few)
    return max(timed(many) - timed(few), 0) / (many - few)


def steps(params: dict, known: Sequence[Rate], pilot_main: int, card: str, replies: str) -> list[Step]:
    """A step of each training, by student: tried on the pilot's debates where they were held and the student is small,
    otherwise assumed."""
    found = []
    for student in params["students"]:
        if not obstacle(params) and here(student) and size_of(params, student).weights < SMALL:
            found += measured_steps(params, known, student, pilot_main)
        else:
            found += assumed_steps(params, known, student, card, replies)
    return found


def measured_steps(params: dict, known: Sequence[Rate], student: str, pilot_main: int) -> list[Step]:
    """A student's own replies count halfway between its base's length, with which it begins, and the teacher's."""
    ask = dict(store=root() / params["store"], seed=params["debate"]["seed"], max_tokens=params["max_tokens"])
    base, main = root() / checkpoints.where(student), params["train_task"]
    questions, tokenizer = stand_ins(params, main, pilot_main, False), loading.load_tokenizer(base)
    traces, _ = run_debates(
        protocol(params, temperature_of(params, "train")), questions, params["teacher"], **ask
    )  # stored
    checked = check_traces(traces, questions)
    trajectories, _ = select(checked, questions, params["extract"]["most_diverse"])
    pairs = {m: sft.examples(trajectories, m) for m in params["methods"]}
    debates = reward_model.debates(checked, {q.question_id: q.text for q in questions})
    recipe = Recipe.of(params)
    batch, temperature = recipe.sft.batch_size, recipe.policy.temperature
    outputs = recipe.policy.batch_size * recipe.policy.num_generations
    sampled, took = run_debates(
        Vote(1, temperature), questions, f"{params['engine']}{checkpoints.where(student)}", **ask
    )
    own = rates_of(sampled, took, student, main, False, temperature)[0]
    written = outputs * (own.written + one(known, params["teacher"], main).written) / 2
    sizes_of = {m: (batch, batch * example_tokens(p, tokenizer), 0.0) for m, p in pairs.items()}
    count = recipe.reward_model.batch_size
    sizes_of["reward_model"] = (count, count * debate_tokens(debates, tokenizer), 0.0)
    sizes_of["pad"] = (outputs, outputs * own.read + written, written)
    shared = dict(base=base, seed=0)
    tried = {m: (partial(sft.train, pairs=p, **shared), recipe.sft) for m, p in pairs.items()}
    judge = recipe.reward_model.but(stage_1_steps=1)
    tried["reward_model"] = partial(reward_model.train, debates=debates, **shared), judge
    tried["pad"] = partial(policy.train, reward_model=base, questions=questions, **shared), recipe.policy
    seconds = run_all(
        step_seconds,
        [dict(train=t, settings=s, few=1, many=4 if m == "pad" else 11) for m, (t, s) in tried.items()],
    )
    return [
        Step(student, m, *numbers, took, "measured")
        for (m, numbers), took in zip(sizes_of.items(), seconds, strict=True)
    ]


# Assumed


def computed_share(order: str) -> float:
    """The share of a debate's prompt tokens that prefix caching leaves to compute, as `make prompt-order` counted it."""
    table = pd.read_csv(root() / "reports" / "prompt_order.csv").set_index("order")
    return float(table.loc[order, "share_block_16"])


def assumed_debate(
    params: dict, name: str, task: str, hard: bool, temperature: float, card: str, replies: str
) -> list[Rate]:
    model, how, cap, agents = size_of(params, name), REPLIES[replies], params["max_tokens"], params["agents"]
    question, share = (
        sizes.question_tokens(task, params["questions"]["room"]),
        computed_share(params["debate"]["order"]),
    )
    reached = [how.share(k) for k in range(1, params["rounds"] + 1)]
    length = [how.tokens(k, cap) for k in range(1, params["rounds"] + 1)]
    ended = [now - then for now, then in zip(reached, [*reached[1:], 0], strict=True)]
    read = [question, *(question + agents * written for written in length[:-1])]
    final = question + agents * sum(e * written for e, written in zip(ended, length, strict=True))
    kinds = [(f"round {k}", agents * r, i, o) for k, (r, i, o) in enumerate(zip(reached, read, length, strict=True), 1)]
    return [
        Rate(name, task, hard, temperature, kind, calls, i, o, sizes.call_seconds(model, CARDS[card], i, o, share), 0)
        for kind, calls, i, o in (*kinds, ("summary", 1, final, length[-1]))
    ]


def assumed_pass(params: dict, name: str, task: str, card: str, replies: str) -> Rate:
    read = sizes.question_tokens(task, params["questions"]["room"])
    written = REPLIES[replies].tokens(1, params["max_tokens"])
    took = sizes.call_seconds(size_of(params, name), CARDS[card], read, written)
    return Rate(name, task, False, 0.0, "pass", 1, read, written, took, 0)


def assumed_steps(params: dict, known: Sequence[Rate], student: str, card: str, replies: str) -> list[Step]:
    """From the rates of the teacher: a student reads what it wrote, and writes as much."""
    model, main, recipe = size_of(params, student), params["train_task"], Recipe.of(params)
    whole = one(known, params["teacher"], main)
    debate = debate_rates(known, params["teacher"], main, False, temperature_of(params, "train"))
    batch, count = recipe.sft.batch_size, recipe.reward_model.batch_size
    found = {
        m: (batch, batch * (whole.read + (sizes.ANSWER if m == "sft" else whole.written))) for m in params["methods"]
    }
    found["reward_model"] = count, count * sum(r.calls * (whole.read + r.written) for r in debate)
    rows = [
        Step(student, m, n, tokens, 0, sizes.train_seconds(model, CARDS[card], tokens), "assumed")
        for m, (n, tokens) in found.items()
    ]
    outputs = recipe.policy.batch_size * recipe.policy.num_generations
    tokens = outputs * (whole.read + whole.written)
    passes = 6 + 2 + (2 if recipe.policy.beta else 0)  # trained on, scored by the reward model, read by the reference
    seconds = outputs * sizes.call_seconds(model, CARDS[card], whole.read, whole.written)
    seconds += sizes.train_seconds(model, CARDS[card], tokens, passes)
    return [*rows, Step(student, "pad", outputs, tokens, outputs * whole.written, seconds, "assumed")]

"""Rates for a plan: tokens and seconds of a question and of an optimiser step.

If the teacher can run here, a pilot measures the rates: debates and replies on validation questions, and a few steps of
each training. Otherwise they are computed from the assumptions in `agentark.plan.sizes`, for a GPU or for one core of
this machine. Column `basis` states which.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from agentark import StudyError, folder_of, root, without_ray
from agentark.debate.independent import Vote
from agentark.debate.protocols import make_protocol
from agentark.debate.run import run_debates, texts_of
from agentark.debate.turns import Protocol
from agentark.distill import policy, reward_model, sft, step_labels
from agentark.distill.settings import Recipe, Settings
from agentark.engines import Chat, on_cluster
from agentark.models import loading
from agentark.parallel import run_all
from agentark.plan import sizes
from agentark.plan.sizes import Assumptions, Card, Checkpoint
from agentark.plan.training_log import measure_training
from agentark.schemas import Question, Seconds, Trace, read_table
from agentark.tasks import TASKS
from agentark.tasks.questions import question_counts
from agentark.traces.check import check_traces
from agentark.traces.reading import SUMMARISER
from agentark.traces.selection import select

SMALL = 1e8  # weights; steps of smaller students are measured, because they take only seconds
PACKAGES = {"ray": "Ray", "vllm": "vLLM", "xllamacpp": "llama.cpp"}  # packages that engines need -> their names
COLUMNS = ["model", "task", "hard", "temperature", "kind", "calls", "read", "written", "seconds", "n", "basis"]


def files(name: str) -> list[str]:
    """The GGUF files of a teacher that llama.cpp runs: a model and optionally an adapter. Empty for other names."""
    return name.removeprefix("llama.cpp:").split("+") if name.startswith("llama.cpp:") else []


def here(name: str) -> bool:
    """Whether a teacher or student can run: its folder or files exist, or it is on a server."""
    if needed := files(name):
        return all((root() / file).is_file() for file in needed)
    return name.startswith("http") or (root() / folder_of(name)).is_dir()


def size_of(params: dict, name: str) -> Checkpoint:
    """The size of a teacher or student, whether it is here or not yet fetched. Raises StudyError if it is unknown.

    A student that is not yet fetched from a GGUF file counts with 32 bits per weight, to which it is dequantised.
    """
    if needed := files(name):
        return sizes.checkpoint(needed[0])
    source = params["checkpoints"].get(Path(name).name, {}).get("source", "")
    size = sizes.checkpoint(source if source and not here(name) else folder_of(name))
    return replace(size, bytes=4, quantised=False) if size.quantised else size


def engine_name(params: dict, name: str) -> str:
    """The name of a teacher or student for `engines.engine`."""
    return name if name == params["teacher"] else f"{params['engine']}{folder_of(name)}"


def card_for(params: dict, name: str, card: Card) -> Card:
    """The card or core on which a teacher or student generates. With engine `bf16:` a core computes in 16 bits."""
    if not card.core:
        return card
    return card.in_16_bits() if without_ray(engine_name(params, name)).startswith("bf16:") else card


def debate_rates(rates: pd.DataFrame, hard: bool, temperature: float) -> pd.DataFrame:
    """The rates of the debates in one setting, by task."""
    chosen = (rates["kind"] != "pass") & (rates["hard"] == hard) & (rates["temperature"] == temperature)
    return rates[chosen].set_index("task")


def passes(rates: pd.DataFrame, model: str) -> pd.DataFrame:
    """The rates of a model's greedy passes, by task."""
    return rates[(rates["kind"] == "pass") & (rates["model"] == model)].set_index("task")


def trained(params: dict, rates: pd.DataFrame, student: str, method: str) -> pd.DataFrame:
    """The passes of a trained student: as long as its base's after answer-only SFT, otherwise as the teacher's."""
    base = passes(rates, student)
    if method == "sft":
        return base
    written = passes(rates, params["teacher"])["written"]
    longer = (base["read"] + written) / (base["read"] + base["written"])
    return base.assign(written=written, seconds=base["seconds"] * longer)


def pilot_obstacle(params: dict) -> str:
    """Why nothing can be measured here; "" if a pilot can run."""
    teacher, task = params["teacher"], params["train_task"]
    if not here(teacher):
        return f"{teacher} is not here"
    if lacking := missing_for_engine(teacher):
        return lacking
    return "" if pilot_questions(params, task, 1, False) else f"no validation question of {task} is drawn"


def missing_for_engine(model: str) -> str:
    """What this machine lacks to run an engine (a model's name for `engines.engine`); "" if nothing."""
    own = without_ray(model)
    needed = {"ray": on_cluster(model), "vllm": own.startswith("vllm:"), "xllamacpp": own.startswith("llama.cpp:")}
    absent = [name for name, used in needed.items() if used and importlib.util.find_spec(name) is None]
    found = [f"{PACKAGES[name]} is not installed" for name in absent]
    if needed["vllm"] and not torch.cuda.is_available():
        found.append("there is no GPU")
    return " and ".join(found)


def rates(params: dict, pilot_main: int, pilot_other: int, assumed: Assumptions) -> pd.DataFrame:
    """A row per model, setting and kind of call: "round 1", "round 2", ..., "summary" (debate) or "pass" (greedy).

    calls: calls per question; read, written: tokens per call; seconds: core or GPU seconds per call; n: questions of
    the pilot, 0 without one; basis: measured or assumed. The pilot has `pilot_main` questions of the training task and
    `pilot_other` of each other task. It has no vote, because a vote's calls are like those of round 1. A task without
    validation questions has the rates of the training task, if these are measured.
    """
    teacher, main, found = params["teacher"], params["train_task"], []
    settings = {
        (task, d["split"] == "hard", d["temperature"])
        for d in params["debates"].values()
        for task, n in question_counts(params, d["split"]).items()
        if n
    }
    calls = [(teacher, *setting, protocol(params, setting[-1])) for setting in sorted(settings)]
    models, known = (teacher, *params["students"]), {}
    calls += [(name, task, False, 0.0, Vote(1, 0.0)) for task in question_counts(params, "test") for name in models]
    hindered = pilot_obstacle(params)
    for name, task, hard, temperature, how in sorted(calls, key=lambda call: call[1] != main):
        n, is_pass = pilot_main if task == main else pilot_other, isinstance(how, Vote)
        setting = name, hard, temperature, is_pass
        possible = not hindered and here(name) and not missing_for_engine(engine_name(params, name))
        if questions := pilot_questions(params, task, n, hard) if possible else []:
            part = rates_of(*run_pilot(params, how, questions, name))
            known[setting] = part = full_batch_rates(params, name, part, assumed)
        elif setting in known:
            part = known[setting].assign(n=0, basis="assumed")
        else:
            part = assumed_rates(params, name, task, assumed, debate=not is_pass).assign(basis="assumed")
        found.append(part.assign(model=name, task=task, hard=hard, temperature=temperature))
    return pd.concat(found, ignore_index=True)[COLUMNS]


def full_batch_rates(params: dict, name: str, part: pd.DataFrame, assumed: Assumptions) -> pd.DataFrame:
    """The measured rates of a model. For a large model that transformers runs on cores, the seconds are computed.

    Reading the weights dominates its time, and the small batches of a pilot share each reading among fewer sequences.
    """
    if not assumed.card.core or engine_name(params, name).startswith(("llama.cpp:", "http")):
        return part
    if (size := size_of(params, name)).weights < SMALL:
        return part
    pairs = zip(part["read"], part["written"], strict=True)
    card = card_for(params, name, assumed.card)
    seconds = [sizes.call_seconds(size, card, read, written) for read, written in pairs]
    return part.assign(seconds=seconds, basis="measured and assumed")


def steps(params: dict, rates: pd.DataFrame, pilot_main: int, assumed: Assumptions) -> pd.DataFrame:
    """A row per student and method: tokens and seconds of an optimiser step.

    examples: questions, debates or outputs; tokens: all their tokens; written: tokens that the student generates;
    seconds: of a core or a GPU. Measured on the pilot's debates if it runs and the student is small, otherwise assumed.
    """
    found = {}
    for student in params["students"]:
        if not pilot_obstacle(params) and here(student) and size_of(params, student).weights < SMALL:
            found[student] = measured_steps(params, rates, student, pilot_main)
        else:
            found[student] = assumed_steps(params, rates, student, assumed)
    return pd.concat(found, names=["student", "method"]).reset_index()


def supervised(params: dict) -> list[str]:
    """The supervised trainings: every method, and `rsft-SOURCE`, R-SFT on the traces of each of `sources`. These traces
    are assumed to be as long as the debate's."""
    return [*params["methods"], *(f"rsft-{source}" for source in params["sources"])]


def step_sizes(recipe: Recipe, lengths: dict[str, float], read: float, written: float) -> pd.DataFrame:
    """Examples, tokens and generated tokens of a step, by method.

    lengths: tokens per example of the supervised methods and the reward model; read, written: tokens of the policy's
    prompts and outputs.
    """
    table = pd.DataFrame({"tokens": lengths | {"pad": read + written}})
    table.insert(0, "examples", recipe.sft.batch_size)
    table.loc["reward_model", "examples"] = recipe.reward_model.batch_size
    table.loc["pad", "examples"] = outputs = recipe.policy.batch_size * recipe.policy.num_generations
    table["tokens"] *= table["examples"]
    return table.assign(written=pd.Series({"pad": outputs * written})).fillna(0.0)


def pilot_questions(params: dict, task: str, n: int, hard: bool) -> list[Question]:
    """Up to `n` validation questions of a task, from its harder levels if `hard`. Test questions are never returned."""
    if task in TASKS:
        levels = TASKS[task].hard if hard else TASKS[task].levels
        return TASKS[task].questions(n, "validation", params["questions"]["seed"], levels)
    table = root() / "data" / "questions" / "questions.parquet"
    known = read_table(table, Question) if table.is_file() else []
    return [q for q in known if q.task == task and q.split == "validation"][:n]


def protocol(params: dict, temperature: float) -> Protocol:
    how = params["debate"]
    shared = params["agents"], params["rounds"], temperature, how["revision_temperature"], how["order"]
    return make_protocol(how["protocol"], *shared)


def run_pilot(params: dict, how: Protocol, questions: Sequence[Question], name: str):
    """Traces and seconds of a protocol run by a teacher or student, with the study's store."""
    model, store = engine_name(params, name), root() / params["store"]
    return run_debates(how, questions, model, store, params["debate"]["seed"], params["max_tokens"], Chat.of(params))


def rates_of(traces: Sequence[Trace], seconds: Sequence[Seconds]) -> pd.DataFrame:
    """Rates by kind of call from the traces of a pilot. Traces without a summary are passes."""
    table = pd.DataFrame([t.model_dump() for t in traces]).assign(seconds=[s.seconds for s in seconds])
    n, summary = table["question_id"].nunique(), table["agent"] == SUMMARISER
    table["kind"] = "round " + table["round"].astype(str) if summary.any() else "pass"
    table.loc[summary, "kind"] = "summary"
    columns = {"read": "prompt_tokens", "written": "completion_tokens", "seconds": "seconds"}
    means = table.groupby("kind").agg(calls=("kind", "size"), **{k: (c, "mean") for k, c in columns.items()})
    return means.assign(calls=means["calls"] / n, n=n, basis="measured").reset_index()


def step_seconds(train: Callable, **call: Any) -> float:
    """Mean seconds of an optimiser step of `train(**call)`, without the first step, which is a warm-up.

    Raises StudyError if the pilot is smaller than a batch, so that the trainer takes no step.
    """
    seconds = [step["all"] for step in measure_training(train, **call).steps[1:]]
    if not seconds:
        raise StudyError(f"{train.__module__}: the pilot has too few questions for a step; raise pilot_main")
    return sum(seconds) / len(seconds)


def measured_steps(params: dict, rates: pd.DataFrame, student: str, pilot_main: int) -> pd.DataFrame:
    """Measure `steps` for one student. The output length is taken halfway from its base's to the teacher's."""
    base, task, recipe = root() / folder_of(student), params["train_task"], Recipe.of(params)
    questions, tokenizer = pilot_questions(params, task, pilot_main, False), loading.load_tokenizer(base)
    debate = protocol(params, params["debates"]["train"]["temperature"])
    checked = check_traces(run_pilot(params, debate, questions, params["teacher"])[0], questions)
    trajectories, _ = select(checked, questions, params["extract"]["most_diverse"])
    pairs = {method: sft.examples(trajectories, method.partition("-")[0]) for method in supervised(params)}
    sampled = None
    if recipe.reward_model.own_samples:
        vote = Vote(recipe.reward_model.own_samples, recipe.policy.temperature)
        sampled = texts_of(run_pilot(params, vote, questions, student)[0])
    debates = step_labels.debates(checked, {q.question_id: q for q in questions}, sampled)
    lengths = {method: sft.example_tokens(p, tokenizer, params["system"]) for method, p in pairs.items()}
    lengths["reward_model"] = reward_model.debate_tokens(debates, tokenizer)
    own = rates_of(*run_pilot(params, Vote(1, recipe.policy.temperature), questions, student)).loc[0]
    written = (own["written"] + passes(rates, params["teacher"]).loc[task, "written"]) / 2
    judge, sampler = recipe.reward_model.but(stage_1_steps=1, stage_2_steps=11), recipe.policy.but(steps=4, held_out=0)
    calls = [
        *(dict(train=sft.train, pairs=p, settings=recipe.sft.but(steps=11)) for p in pairs.values()),
        dict(train=reward_model.train, debates=debates, settings=judge),
        dict(train=policy.train, reward_model=base, questions=questions, settings=sampler),
    ]
    seconds = run_all(step_seconds, [dict(base=base, seed=0, **call) for call in calls])
    return step_sizes(recipe, lengths, own["read"], written).assign(seconds=seconds, basis="measured")


def assumed_rates(params: dict, name: str, task: str, assumed: Assumptions, debate: bool) -> pd.DataFrame:
    """Assumed rates, by kind of call, of a debate or of a greedy pass.

    The share of a debate's prompt tokens that are not in the prefix cache was counted by `make prompt-order`.
    """
    model, how, agents, computed = size_of(params, name), assumed.replies, params["agents"], 1.0
    question = sizes.question_tokens(task, params["questions"]["room"])
    length = [how.tokens(k, params["max_tokens"] + params["thought_tokens"]) for k in range(1, params["rounds"] + 1)]
    table: dict[str, list] = {"kind": ["pass"], "calls": [1], "read": [question], "written": length[:1]}
    if debate:
        counted = pd.read_csv(root() / "reports" / "prompt_order.csv").set_index("order")
        block = "share_block_1" if assumed.card.core else "share_block_16"  # llama.cpp and transformers have no blocks
        computed = float(counted.loc[params["debate"]["order"], block])
        reached = [how.share(k) for k in range(1, params["rounds"] + 1)]
        ended = [now - then for now, then in zip(reached, [*reached[1:], 0], strict=True)]
        last = sum(e * written for e, written in zip(ended, length, strict=True))
        table = {
            "kind": [*(f"round {k}" for k in range(1, params["rounds"] + 1)), "summary"],
            "calls": [*(agents * r for r in reached), 1],
            "read": [question, *(question + agents * written for written in (*length[:-1], last))],
            "written": [*length, length[-1]],
        }
    texts = zip(table["read"], table["written"], strict=True)
    card = card_for(params, name, assumed.card)
    seconds = [sizes.call_seconds(model, card, i, o, computed) for i, o in texts]
    return pd.DataFrame(table).assign(seconds=seconds, n=0)


def assumed_steps(params: dict, rates: pd.DataFrame, student: str, assumed: Assumptions) -> pd.DataFrame:
    """Compute `steps` for one student: it trains on the teacher's replies, and its outputs have the same length."""
    model, task, recipe, card = size_of(params, student), params["train_task"], Recipe.of(params), assumed.card
    read, written = passes(rates, params["teacher"]).loc[task, ["read", "written"]]
    debate = debate_rates(rates, False, params["debates"]["train"]["temperature"]).loc[task]
    lengths = {m: read + (sizes.ANSWER if m == "sft" else written) for m in supervised(params)}
    lengths["reward_model"] = (debate["calls"] * (read + debate["written"])).sum()
    table = step_sizes(recipe, lengths, read, written)
    settings: dict[str, Settings] = {"reward_model": recipe.reward_model, "pad": recipe.policy}

    def seconds_of(step: pd.Series) -> float:
        chosen = settings.get(str(step.name), recipe.sft)
        flop = sizes.training_flop(card, chosen.lora_rank)
        if step.name == "pad":
            flop += 2 + (2 if recipe.policy.beta else 0)  # forward passes of the reward model and the reference model
        return sizes.train_seconds(model, card.in_16_bits() if chosen.bf16 else card, step["tokens"], flop)

    seconds, pad = table.apply(seconds_of, axis=1), table.loc["pad"]
    most = sizes.SEQUENCES if not card.core else int(pad["examples"])
    seconds["pad"] += pad["examples"] * sizes.call_seconds(model, card, read, written, most=most)
    return table.assign(seconds=seconds, basis="assumed")

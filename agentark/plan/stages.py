"""The cost of a run, for `make plan`: the amounts in `params.yaml` times the rates of `agentark.plan.rates`."""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from agentark import StudyError, root
from agentark.distill.policy import EVAL_GENERATIONS
from agentark.distill.settings import Recipe, Settings
from agentark.evaluate.cost import break_even
from agentark.parallel import workers_for
from agentark.plan import sizes
from agentark.plan.cores import calls_of, card_of, wall_share
from agentark.plan.rates import assumed_rates, card_for, debate_rates, here, passes, size_of, supervised, trained
from agentark.plan.sizes import GB, REPLIES, Assumptions
from agentark.stage.parameters import parsed
from agentark.tasks import TASKS
from agentark.tasks.questions import question_counts

# The paper's own set-up (method, sections 1 and 4).
PAPER_TEACHER, PAPER_STUDENT = "Qwen/Qwen3-32B", "Qwen/Qwen3-8B"
PAPER = {
    "agents": 5,
    "rounds": 3,
    "max_tokens": 4096,
    "thought_tokens": 0,
    "debate": {"order": "chat"},
    "questions": {"room": 0},
}
PAPER["checkpoints"] = {Path(name).name: {"source": name} for name in (PAPER_TEACHER, PAPER_STUDENT)}
PAPER_QUESTIONS = {"gsm8k": 7_473, "math": 500, "metamathqa": 151_000, "medmcqa": 183_000}
PAPER_TRAINING = {"rsft": 1 * 6, "da": 1 * 8, "pad": 8 * 20}  # H100s x hours for an 8B student, table 6
COLUMNS = ["stage", "questions", "calls", "tokens_read", "tokens_written", "hours", "disk_gb", "memory_gb", "basis"]


def totals(parts: pd.DataFrame) -> dict[str, float]:
    """Total calls, tokens read and generated, and seconds of rates with their number of `questions`."""
    calls = parts["questions"] * parts["calls"]
    return {"calls": calls.sum(), **{key: (calls * parts[key]).sum() for key in ("read", "written", "seconds")}}


def generating(params: dict, name: str, notebook: str, questions: int, parts: pd.DataFrame, card: str) -> dict:
    """The row of a stage that generates. parts: rates with `questions`. Text is stored twice: in the store and a table.

    Memory: of the teacher, the largest model that generates. On cores: of all processes, each with the model that needs
    most memory (a student if the teacher is quantised). At scale mini: the last measured peak of all processes.
    """
    sums, on, teacher = totals(parts), card_of(card), params["teacher"]
    if params["scale"] == "mini":
        memory = measured_memory(notebook)
    elif teacher.startswith("http"):
        memory = math.nan
    else:
        longest = (parts["read"] + parts["written"]).max()
        models = [teacher, *(params["students"] if name == "evaluate" and on.core else ())]
        processes = workers_for(calls_of(params, name, questions)) if on.core else 1
        memory = processes * max(
            sizes.generation_gb(size_of(params, model), card_for(params, model, on), longest) for model in models
        )
    basis = " and ".join(sorted({word for words in parts["basis"] for word in words.split(" and ")}))
    disk = 2 * (sums["calls"] * sizes.CALL_BYTES + sums["written"] * sizes.TOKEN_BYTES) / GB
    counts = [round(sums[key]) for key in ("calls", "read", "written")]
    return dict(zip(COLUMNS, (name, questions, *counts, sums["seconds"] / 3600, disk, memory, basis), strict=True))


def measured_memory(notebook: str) -> float:
    """Peak memory in GB of a notebook's processes, as last recorded by `make bench`; NaN without a record."""
    table = pd.read_csv(root() / "reports" / "benchmarks.csv").set_index("what")["median"]
    return float(table.get(f"peak memory of {notebook}, MB", math.nan)) / 1000


def stages(params: dict, rates: pd.DataFrame, steps: pd.DataFrame, card: str) -> pd.DataFrame:
    """The plan: one row for each model to fetch, each stage that generates or trains, and the controls of each debate,
    which run in the debate's stage. Other stages take only seconds. card: "core" or one of CARDS.

    hours: of a core at scale mini and on cores, else of a GPU; disk_gb: without DVC's cache; memory_gb: of all
    processes in the last run (mini), else a lower bound for all processes (cores) or for one GPU.
    """
    rows = []
    for name in dict.fromkeys([params["teacher"], *params["students"]]):
        if not here(name):
            own = {"stage": f"fetch@{Path(name).name}", "disk_gb": size_of(params, name).disk_gb, "basis": "assumed"}
            rows.append(dict.fromkeys(COLUMNS, 0) | own)
    for key in params["debates"]:
        rows.append(debate_stage(params, rates, key, card))
        if control_names(params, key):
            rows.append(controls_stage(params, rates, key, card))
    rows += [training_stage(params, rates, step, card) for _, step in steps.iterrows()]
    return pd.DataFrame([*rows, evaluate_stage(params, rates, card)])


def vote_rates(params: dict, debate: pd.DataFrame) -> pd.DataFrame:
    """Rates of the vote: those of round 1, with as many calls as the longest debate."""
    return debate[debate["kind"] == "round 1"].assign(calls=params["agents"] * params["rounds"] + 1)


def debate_stage(params: dict, rates: pd.DataFrame, key: str, card: str) -> dict:
    """The row of a debate and, except on training questions, its vote."""
    split, temperature = params["debates"][key]["split"], params["debates"][key]["temperature"]
    counts = question_counts(params, split)
    parts = debate_rates(rates, split == "hard", temperature)
    parts = parts[parts.index.isin(counts)].assign(questions=pd.Series(counts))
    if split != "train":
        parts = pd.concat([parts, vote_rates(params, parts)])
    return generating(params, f"debate@{key}", f"03_debate-{key}", sum(counts.values()), parts, card)


def control_names(params: dict, key: str) -> list[str]:
    """The controls of a debate, without the vote of test questions, which `debate_stage` counts."""
    named = parsed("list[str]", params["debates"][key]["controls"])
    return [name for name in named if name != "vote" or params["debates"][key]["split"] == "train"]


def control_rates(params: dict, debate: pd.DataFrame, alone: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rates of one of debate.controls. debate, alone: rates of the debate and of the teacher's pass, by task.

    Round 1 of debate_off and debate_other takes no time, since the store already contains these answers. The agent of
    self_revision also reads its last trace, and writes as much as before. Raises StudyError for an unknown name.
    """
    first = debate[debate["kind"] == "round 1"]
    if name == "greedy":
        return alone
    if name == "vote":
        return vote_rates(params, debate)
    if name == "vote_tokens":
        tokens = (debate["calls"] * (debate["read"] + debate["written"])).groupby(level=0).sum()
        return first.assign(calls=np.ceil(tokens / (first["read"] + first["written"])))
    if name == "self_revision":
        read = alone["read"] + alone["written"]
        longer = (read + alone["written"]) / (alone["read"] + alone["written"])
        more = alone.assign(kind="revision", calls=params["rounds"], read=read, seconds=alone["seconds"] * longer)
        return pd.concat([alone, more])
    if name in ("debate_off", "debate_other"):
        return debate.assign(seconds=debate["seconds"].where(debate["kind"] != "round 1", 0.0))
    raise StudyError(f"controls: {name!r} is unknown; see debate/controls.py")


def controls_stage(params: dict, rates: pd.DataFrame, key: str, card: str) -> dict:
    """The row of a debate's controls. The time of greedy decoding counts once, since self_revision starts with it."""
    split, temperature = params["debates"][key]["split"], params["debates"][key]["temperature"]
    counts, names = question_counts(params, split), control_names(params, key)
    debate, alone = debate_rates(rates, split == "hard", temperature), passes(rates, params["teacher"])
    debate, alone = (part[part.index.isin(counts)] for part in (debate, alone))
    found = []
    for name in names:
        part = control_rates(params, debate, alone, name)
        if name == "self_revision" and "greedy" in names:
            part = part.assign(seconds=part["seconds"].where(part["kind"] != "pass", 0.0))
        found.append(part)
    parts = pd.concat(found).assign(questions=pd.Series(counts))
    return generating(params, f"controls@{key}", f"03_debate-{key}", sum(counts.values()), parts, card)


def training_name(student: str, method: str) -> str:
    names = {"reward_model": f"reward_model@{student}", "pad": f"policy@{student}"}
    return names.get(method, f"distill@{student}-{method}")


def training_stage(params: dict, rates: pd.DataFrame, step: pd.Series, card: str) -> dict:
    """The row of a training with all seeds, from a row of `rates.steps`. Both stages of the reward model are saved. The
    student's samples for it are drawn once for all seeds."""
    student, method, recipe, seeds = step["student"], step["method"], Recipe.of(params), len(params["seeds"])
    size, copies, frozen, core = size_of(params, student), 1, 0, card_of(card).core
    settings: Settings = recipe.sft
    notebook, times = f"05_distill-{student}-{method}", float(seeds * recipe.sft.steps)
    questions, sampled = question_counts(params, "train"), dict.fromkeys(("calls", "read", "written", "seconds"), 0.0)
    if method == "reward_model":
        notebook, settings, copies = f"06_reward_model-{student}", recipe.reward_model, 2
        times, own = seeds * settings.optimiser_steps, recipe.reward_model.own_samples
        alone = passes(rates, student)
        sampled = totals(alone[alone.index.isin(questions)].assign(questions=pd.Series(questions) * own))
    elif method == "pad":
        notebook, settings, frozen = f"07_policy-{student}-pad", recipe.policy, 2
        evaluations = recipe.policy.steps // recipe.policy.eval_steps
        evaluated = evaluations * recipe.policy.held_out * EVAL_GENERATIONS
        times = seeds * (settings.optimiser_steps + evaluated / step["examples"])  # equal time per output
    tokens, together = step["tokens"] / step["examples"], settings.per_device_batch_size or step["examples"]
    if core:
        tokens *= min(together, step["examples"])
    least = sizes.training_gb(size, tokens, settings.lora_rank, frozen, core)
    return dict(
        stage=training_name(student, method),
        questions=questions[params["train_task"]],
        calls=round((times * step["examples"] if step["written"] else 0) + sampled["calls"]),
        tokens_read=round(times * (step["tokens"] - step["written"]) + sampled["read"]),
        tokens_written=round(times * step["written"] + sampled["written"]),
        hours=(times * step["seconds"] + sampled["seconds"]) / 3600,
        disk_gb=seeds * copies * size.disk_gb,
        memory_gb=measured_memory(notebook)
        if params["scale"] == "mini"
        else least * (workers_for(seeds) if core else 1),
        basis=step["basis"],
    )


def evaluate_stage(params: dict, rates: pd.DataFrame, card: str) -> dict:
    """The row of the evaluation: the teacher, every base and every trained student answer each test question once. In
    the generated world every base also answers with its steps shown.

    The teacher's greedy answers take no time if a control of a debate has generated them.
    """
    counts, seeds = pd.Series(question_counts(params, "test")), len(params["seeds"])
    parts = [passes(rates, name).assign(questions=counts) for name in (params["teacher"], *params["students"])]
    for key, debate in params["debates"].items():
        if debate["split"] in ("test", "in_domain") and {"greedy", "self_revision"} & set(control_names(params, key)):
            parts[0].loc[parts[0].index.isin(question_counts(params, debate["split"])), "seconds"] = 0.0
    for student in params["students"]:
        for method in (*supervised(params), "pad"):
            parts.append(trained(params, rates, student, method).assign(questions=counts * seeds))
        if all(task in TASKS for task in counts.index):
            parts.append(trained(params, rates, student, "base_steps").assign(questions=counts))
    return generating(params, "evaluate", "08_evaluate", int(counts.sum()), pd.concat(parts), card)


def wall_hours(params: dict, rows: pd.DataFrame) -> pd.Series:
    """Wall-clock hours of each stage on this machine's cores, from its core-hours and its parallel processes."""
    pairs = zip(rows["stage"], rows["questions"], strict=True)
    return rows["hours"] * [wall_share(calls_of(params, stage, questions)) for stage, questions in pairs]


def table(rows: pd.DataFrame, params: dict, card: str) -> pd.DataFrame:
    """The plan with a total row (sums, but the maximum of memory), its scale, and the unit of its hours."""
    basis = sorted({basis for row in rows["basis"] for basis in row.split(" and ")})
    total = rows.sum(numeric_only=True).to_dict() | {"stage": "total", "questions": 0}
    total |= {"memory_gb": rows["memory_gb"].max(), "basis": " and ".join(basis)}
    whole = pd.concat([rows, pd.DataFrame([total])], ignore_index=True).astype(rows.dtypes)
    return whole.assign(scale=params["scale"], hours_of="core" if params["scale"] == "mini" else card)


def break_even_rows(params: dict, rows: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """One row per student and method: seconds (of a core or GPU) spent once on debates and on training one seed,
    seconds per question by debate and by the student, and the questions after which the student has paid for itself."""
    task, seconds, found = params["train_task"], rows.set_index("stage")["hours"] * 3600, []
    per_call = debate_rates(rates, False, params["debates"]["test"]["temperature"]).loc[task]
    debate, debates = totals(per_call.assign(questions=1))["seconds"], seconds["debate@train"]
    for student in params["students"]:
        for method in (*params["methods"], "pad"):
            parts = ("reward_model", "pad") if method == "pad" else (method,)
            training = sum(seconds[training_name(student, part)] for part in parts) / len(params["seeds"])
            own = trained(params, rates, student, method).loc[task, "seconds"]
            row = dict(student=student, method=method, debates=debates, training=training, debate_a_question=debate)
            pays = break_even(debates + training, debate, own)
            found.append(row | dict(student_a_question=own, pays_after=pays))
    return pd.DataFrame(found)


def paper(card: str) -> pd.DataFrame:
    """The paper's set-up (5 agents, 3 rounds, 342k training questions) with short, medium and the longest replies.

    One row per assumption and method: calls, tokens and GPU-seconds per question of a debate, GPU-seconds of an 8B
    student's pass, GPU-hours of all debates, H100-hours of training as published, and the number of questions after
    which the student has paid for itself.
    """
    n, found = sum(PAPER_QUESTIONS.values()), []

    def mean(name: str, assumed: Assumptions, debate: bool) -> dict[str, float]:
        rates = [assumed_rates(PAPER, name, task, assumed, debate) for task in PAPER_QUESTIONS]
        shares = [count / n for count in PAPER_QUESTIONS.values()]
        return totals(pd.concat(r.assign(questions=share) for r, share in zip(rates, shares, strict=True)))

    for label, replies in REPLIES.items():
        assumed = Assumptions(card_of(card), replies)
        sums, own = mean(PAPER_TEACHER, assumed, True), mean(PAPER_STUDENT, assumed, False)["seconds"]
        tokens, debate, debates = sums["read"] + sums["written"], sums["seconds"], n * sums["seconds"] / 3600
        for method, training in PAPER_TRAINING.items():
            row = dict(replies=label, method=method, calls=sums["calls"], tokens=tokens, debate_seconds=debate)
            row |= dict(student_seconds=own, debates_gpu_hours=debates, training_gpu_hours=training)
            found.append(row | {"pays_after": break_even((debates + training) * 3600, debate, own)})
    return pd.DataFrame(found)

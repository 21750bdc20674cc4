"""`make plan`: what a run will take, before hours are spent; `python -m agentark.plan.stages --check`: how right that was.

A plan is what `params.yaml` asks for, times the rates of `agentark.plan.rates`.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from agentark import StudyError, finish, root
from agentark.distill.settings import Recipe
from agentark.evaluate.cost import break_even, used
from agentark.plan import sizes
from agentark.plan.rates import (
    Rate,
    Step,
    assumed_debate,
    assumed_pass,
    debate_rates,
    here,
    one,
    size_of,
    temperature_of,
    trained,
)
from agentark.plan.sizes import CARDS, GB, REPLIES
from agentark.stage.parameters import read_params
from agentark.tasks.questions import asked

BAR = 0.15  # how far a plan's tokens may be from those of the run

# The paper's own set-up (method, sections 1 and 4).
PAPER = {"agents": 5, "rounds": 3, "max_tokens": 4096, "debate": {"order": "chat"}, "questions": {"room": 0}}
PAPER_QUESTIONS = {"gsm8k": 7_473, "math": 500, "metamathqa": 151_000, "medmcqa": 183_000}
PAPER_TEACHER, PAPER_STUDENT = "Qwen/Qwen3-32B", "Qwen/Qwen3-8B"
PAPER_TRAINING = {"rsft": 1 * 6, "da": 1 * 8, "pad": 8 * 20}  # H100s x hours for an 8B student, table 6


@dataclass(frozen=True)
class Stage:
    """What a stage takes. hours: of a core at scale mini, else of a GPU; disk_gb: without DVC's cache; memory_gb: of all
    its processes as last noted (mini), else the least on GPUs."""

    stage: str
    questions: int
    calls: int
    tokens_read: int
    tokens_written: int
    hours: float
    disk_gb: float
    memory_gb: float
    basis: str


def generating(name: str, questions: int, parts: Sequence[tuple[float, Rate]], memory: float) -> Stage:
    """A stage of generations: so many questions at each rate. Text is kept twice, in the store and in a table."""
    calls = sum(n * r.calls for n, r in parts)
    read, written, seconds = (
        sum(n * r.calls * getattr(r, f) for n, r in parts) for f in ("read", "written", "seconds")
    )
    basis = {"measured" if r.n else "assumed" for _, r in parts}
    disk = 2 * (calls * sizes.CALL_BYTES + written * sizes.TOKEN_BYTES) / GB
    counts = round(calls), round(read), round(written)
    return Stage(name, questions, *counts, seconds / 3600, disk, memory, " and ".join(sorted(basis)))


def measured_memory(notebook: str) -> float:
    """Peak memory in GB of a notebook's processes as `make bench` last noted it; NaN if it did not."""
    table = pd.read_csv(root() / "reports" / "benchmarks.csv").set_index("what")["median"]
    return float(table.get(f"peak memory of {notebook}, MB", math.nan)) / 1000


def stages(params: dict, known: Sequence[Rate], trainings: Sequence[Step], card: str) -> list[Stage]:
    """The plan: a row a model to be fetched and a stage that generates or trains; what others take is seconds."""
    names = dict.fromkeys([params["teacher"], *params["students"]])
    fetch = [n for n in names if not here(n)]
    return [
        *(Stage(f"fetch@{Path(n).name}", 0, 0, 0, 0, 0, size_of(params, n).disk_gb, 0, "assumed") for n in fetch),
        *(debate_stage(params, known, key, card) for key in params["debates"]),
        *(training_stage(params, step) for step in trainings),
        evaluate_stage(params, known, card),
    ]


def generation_memory(params: dict, notebook: str, parts: Sequence[tuple[float, Rate]], card: str) -> float:
    """Of the teacher, the largest of the models that answer; at scale mini, of the processes together."""
    if params["scale"] == "mini" or params["teacher"].startswith("http"):
        return measured_memory(notebook)
    longest = max(r.read + r.written for _, r in parts)
    return sizes.generation_gb(size_of(params, params["teacher"]), CARDS[card], longest)


def debate_stage(params: dict, known: Sequence[Rate], key: str, card: str) -> Stage:
    """A debate and, but for training questions, the vote: as many calls as a debate can have, each like a first one."""
    split, temperature = params["debates"][key]["split"], params["debates"][key]["temperature"]
    counts = asked(params, split)
    parts = [
        (n, r)
        for t, n in counts.items()
        for r in debate_rates(known, params["teacher"], t, split == "hard", temperature)
    ]
    if split != "train":
        most = params["agents"] * params["rounds"] + 1
        parts += [(n, replace(r, calls=most)) for n, r in parts if r.kind == "round 1"]
    memory = generation_memory(params, f"03_debate-{key}", parts, card)
    return generating(f"debate@{key}", sum(counts.values()), parts, memory)


def training_stage(params: dict, step: Step) -> Stage:
    """A training of all seeds. Of the reward model both stages are kept."""
    student, size, seeds = step.student, size_of(params, step.student), len(params["seeds"])
    recipe, frozen, copies = Recipe.of(params), 0, 1
    rank = recipe.sft.lora_rank
    name, notebook = f"distill@{student}-{step.method}", f"05_distill-{student}-{step.method}"
    times = recipe.sft.steps
    if step.method == "reward_model":
        name, notebook, copies = f"reward_model@{student}", f"06_reward_model-{student}", 2
        rank = recipe.reward_model.lora_rank
        times = recipe.reward_model.stage_1_steps + recipe.reward_model.stage_2_steps
    elif step.method == "pad":
        name, notebook, rank, frozen = f"policy@{student}", f"07_policy-{student}-pad", recipe.policy.lora_rank, 2
        times = recipe.policy.steps
    if params["scale"] == "mini":
        memory = measured_memory(notebook)
    else:
        memory = sizes.training_gb(size, step.tokens / step.examples, rank, frozen)
    times *= seeds
    calls = times * step.examples if step.written else 0
    read, written = round(times * (step.tokens - step.written)), round(times * step.written)
    questions, hours = asked(params, "train")[params["train_task"]], times * step.seconds / 3600
    return Stage(name, questions, calls, read, written, hours, seeds * copies * size.disk_gb, memory, step.basis)


def evaluate_stage(params: dict, known: Sequence[Rate], card: str) -> Stage:
    """Every test question to the teacher, every base and every trained student, once each."""
    parts, seeds = [], len(params["seeds"])
    for task, n in asked(params, "test").items():
        parts += [(n, one(known, name, task)) for name in (params["teacher"], *params["students"])]
        parts += [
            (n * seeds, trained(params, known, student, method, task))
            for student in params["students"]
            for method in (*params["methods"], "pad")
        ]
    memory = generation_memory(params, "08_evaluate", parts, card)
    return generating("evaluate", sum(asked(params, "test").values()), parts, memory)


def table(rows: Sequence[Stage], params: dict, card: str) -> pd.DataFrame:
    """The plan with its total (sums; of memory the most), and of what the hours are."""
    frame = pd.DataFrame([asdict(r) for r in rows])
    sums = frame[["calls", "tokens_read", "tokens_written", "hours", "disk_gb"]].sum().to_dict()
    sums |= {c: int(sums[c]) for c in ("calls", "tokens_read", "tokens_written")}
    basis = " and ".join(sorted({b for r in rows for b in r.basis.split(" and ")}))
    total = Stage("total", 0, **sums, memory_gb=frame["memory_gb"].max(), basis=basis)
    hours_of = "core" if params["scale"] == "mini" else card
    return pd.DataFrame([asdict(r) for r in (*rows, total)]).assign(scale=params["scale"], hours_of=hours_of)


# When does distillation pay?


def paid_back(params: dict, rows: Sequence[Stage], known: Sequence[Rate]) -> pd.DataFrame:
    """A row a student and method: seconds (of a core or GPU) spent once on debates and on training one seed, seconds a
    question by debate and by the student, and after how many questions that is paid."""
    main, hours, found = params["train_task"], {r.stage: r.hours for r in rows}, []
    talk = debate_rates(known, params["teacher"], main, False, temperature_of(params, "test"))
    debate, debates = sum(r.calls * r.seconds for r in talk), hours["debate@train"] * 3600
    for student in params["students"]:
        for method in (*params["methods"], "pad"):
            parts = (
                [f"reward_model@{student}", f"policy@{student}"] if method == "pad" else [f"distill@{student}-{method}"]
            )
            training = sum(hours[p] for p in parts) * 3600 / len(params["seeds"])
            own = trained(params, known, student, method, main).seconds
            numbers = dict(debates=debates, training=training, debate_a_question=debate, student_a_question=own)
            pays = break_even(debates + training, debate, own)
            found.append({"student": student, "method": method, **numbers, "pays_after": pays})
    return pd.DataFrame(found)


def paper(card: str) -> pd.DataFrame:
    """The paper's set-up (5 agents, 3 rounds, 342k training questions) with short, middling and the longest replies.

    A row an assumption and method: calls, tokens and GPU-seconds of a question by debate, GPU-seconds of an 8B student's
    pass, GPU-hours of all debates, H100-hours of training as published, and after how many questions that is paid.
    """
    n, found = sum(PAPER_QUESTIONS.values()), []
    params = PAPER | {"checkpoints": {Path(m).name: {"source": m} for m in (PAPER_TEACHER, PAPER_STUDENT)}}
    for label in REPLIES:
        parts = [
            (count / n, r)
            for task, count in PAPER_QUESTIONS.items()
            for r in assumed_debate(params, PAPER_TEACHER, task, False, 0.5, card, label)
        ]
        calls = sum(share * r.calls for share, r in parts)
        tokens = sum(share * r.calls * (r.read + r.written) for share, r in parts)
        debate = sum(share * r.calls * r.seconds for share, r in parts)
        own = sum(
            c / n * assumed_pass(params, PAPER_STUDENT, t, card, label).seconds for t, c in PAPER_QUESTIONS.items()
        )
        for method, training in PAPER_TRAINING.items():
            debates = n * debate / 3600
            row = dict(replies=label, method=method, calls=calls, tokens=tokens, debate_seconds=debate)
            row |= dict(student_seconds=own, debates_gpu_hours=debates, training_gpu_hours=training)
            found.append(row | {"pays_after": break_even((debates + training) * 3600, debate, own)})
    return pd.DataFrame(found)


def compare(planned: pd.DataFrame, found: dict[str, tuple[int, int]]) -> pd.DataFrame:
    """A row a stage, and their total: tokens planned and used, and their ratio.

    Raises StudyError where plan and run are not of the same questions.
    """
    plan = planned.set_index("stage")
    for name, (questions, _) in found.items():
        if name not in plan.index or plan.loc[name, "questions"] != questions:
            raise StudyError(
                f"reports/plan.csv: {name} is not planned for {questions} questions; run `make plan` again"
            )
    rows = pd.DataFrame({"stage": list(found), "used": [tokens for _, tokens in found.values()]})
    rows.insert(1, "planned", plan.loc[list(found), ["tokens_read", "tokens_written"]].sum(axis=1).to_numpy())
    rows.loc[len(rows)] = ["total", rows["planned"].sum(), rows["used"].sum()]
    return rows.assign(ratio=rows["planned"] / rows["used"])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m agentark.plan.stages", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", required=True, help="compare reports/plan.csv with the run")
    parser.parse_args(arguments)
    try:
        file, params = root() / "reports" / "plan.csv", read_params(root() / "params.yaml")
        planned = pd.read_csv(file) if file.is_file() else pd.DataFrame({"scale": []})
        if set(planned["scale"]) != {params["scale"]}:
            raise StudyError(f"{file}: no plan of scale {params['scale']}; run `make plan`")
        compared = compare(planned, used(params))
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(compared.round(3).to_string(index=False))
    off = abs(compared["ratio"].iloc[-1] - 1)
    print(f"the plan's tokens are {off:.1%} from the run's; the bar is {BAR:.0%}")
    return int(off > BAR)


if __name__ == "__main__":
    finish(main)

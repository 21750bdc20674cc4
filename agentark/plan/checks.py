"""Checks of a planned run against the parameters and the hardware."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from agentark import StudyError, root
from agentark.models import checkpoints
from agentark.plan.rates import here, size_of
from agentark.plan.sizes import CARDS, GB
from agentark.plan.stages import Stage
from agentark.tasks.datasets import DATA_SETS
from agentark.tasks.questions import asked


@dataclass(frozen=True)
class Check:
    what: str
    verdict: str  # ok, not ok, not known
    note: str


# Is this machine sufficient?


def checks(params: dict, rows: Sequence[Stage], card: str) -> list[Check]:
    """Models, licences, data sets, disk and memory: one line each, with the remedy for each problem."""
    found = []
    for name in dict.fromkeys([params["teacher"], *params["students"]]):
        found += [Check(f"model {name}", "not known", "on a server; see its /models")] if name.startswith("http") else (
            model_checks(params, name)
        )  # fmt: skip
    for task in asked(params, "test"):
        data = DATA_SETS.get(task)
        if data is None:
            found.append(Check(f"data set {task}", "ok", "generated here"))
        elif data.hub:
            found.append(Check(f"data set {task}", "ok", f"{data.licence}; nothing to accept on the hub ({data.hub})"))
        else:
            note = f"{data.licence}; not on the hub: download its files and set questions.local to their folder"
            found.append(Check(f"data set {task}", "ok" if params["questions"]["local"] else "not ok", note))
    fetched = sum(r.disk_gb for r in rows if r.stage.startswith("fetch@"))
    need, free = 2 * sum(r.disk_gb for r in rows) - fetched, shutil.disk_usage(root()).free / GB
    note = f"{need:.1f} GB with DVC's cache, {free:.1f} GB free"
    found.append(Check("disk", "ok" if need < free else "not ok", note if need < free else f"{note}; make room"))
    return [*found, memory_check(params, rows, card)]


def model_checks(params: dict, name: str) -> list[Check]:
    """Whether a model is here or can be fetched, and under which licence."""
    label = Path(name).name
    try:
        size = size_of(params, name)
    except StudyError as error:
        return [Check(f"model {label}", "not ok", str(error))]
    folder = checkpoints.where(name)
    source = params["checkpoints"].get(label, {}).get("source", folder)
    note = f"in {folder}" if here(name) else f"to fetch from {source}, {size.disk_gb:.1f} GB"
    card = root() / folder / "card.json"
    own = card.is_file() and "tokens_read" in json.loads(card.read_text())  # trained in notebook 02
    if own:
        terms = Check(f"licence of {label}", "ok", "trained here; the project's licence")
    elif size.gated:
        todo = f"accept it on the hub at {source}, then `hf auth login`"
        terms = Check(f"licence of {label}", "not known", f"{size.licence}; {todo}")
    elif size.licence == "not stated":
        terms = Check(f"licence of {label}", "not known", f"none in {folder}/README.md; read it at the model's source")
    else:
        terms = Check(f"licence of {label}", "ok", f"{size.licence}; nothing to accept on the hub")
    return [Check(f"model {label}", "ok", note), terms]


def memory_check(params: dict, rows: Sequence[Stage], card: str) -> Check:
    """The stage that needs the most memory, compared with this machine (mini), its GPU, or else the planned card."""
    known = [r for r in rows if not math.isnan(r.memory_gb)]
    if not known:
        return Check("memory", "not known", "no peak is recorded; run `make bench` after a study")
    most, gpu = max(known, key=lambda r: r.memory_gb), torch.cuda.is_available()
    if params["scale"] == "mini":
        what, room, whose = "memory", psutil.virtual_memory().total / GB, "this machine"
    elif gpu:
        what, room, whose = "GPU memory", torch.cuda.get_device_properties(0).total_memory / GB, "this GPU"
    else:
        what, room, whose = "GPU memory", CARDS[card].memory, f"the planned {card} (no GPU here)"
    note = f"{most.stage} needs {most.memory_gb:.1f} GB, {whose} has {room:.0f}"
    if most.memory_gb > room:
        return Check(what, "not ok", f"{note}; use more or larger cards, LoRA (lora_rank) or a smaller student")
    return Check(what, "ok" if gpu or what == "memory" else "not known", note)


def lines(found: Sequence[Check]) -> str:
    return "\n".join(f"{c.verdict:>9}  {c.what}: {c.note}" for c in found)

"""Checks of a planned run against the parameters and the hardware."""

import contextlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import torch

from agentark import StudyError, folder_of, root, without_ray
from agentark.engines import on_cluster
from agentark.plan.cores import card_of
from agentark.plan.rates import engine_name, files, here, missing_for_engine, size_of
from agentark.plan.simulation import NODE, copies_on
from agentark.plan.sizes import FILES, GB, cards_for
from agentark.stage import windows
from agentark.tasks import TASKS
from agentark.tasks.datasets import DATA_SETS
from agentark.tasks.questions import question_counts


@dataclass(frozen=True)
class Check:
    what: str
    verdict: str  # ok, not ok, not known
    note: str


def checks(params: dict, rows: pd.DataFrame, card: str) -> list[Check]:
    """Checks of models, licences, data sets, disk and memory; the note of a failed check states what to do."""
    models = dict.fromkeys([params["teacher"], *params["students"]])
    found = [check for name in models for check in model_checks(params, name)]
    found += [data_check(params, task) for task in question_counts(params, "test")]
    fetched = rows.loc[rows["stage"].str.startswith("fetch@"), "disk_gb"].sum()
    need, free = 2 * rows["disk_gb"].sum() - fetched, shutil.disk_usage(root()).free / GB
    note = f"{need:.1f} GB with DVC's cache, {free:.1f} GB free"
    found.append(Check("disk", "ok", note) if need < free else Check("disk", "not ok", f"{note}; make room"))
    return [
        *found,
        *window_checks(params),
        *engine_checks(params),
        *card_checks(params, card),
        memory_check(params, rows, card),
    ]


def model_checks(params: dict, name: str) -> list[Check]:
    """Whether a model is here or can be fetched, and its licence."""
    label, folder = Path(name).name, folder_of(name)
    if name.startswith("http"):
        return [Check(f"model {name}", "not known", "on a server; see its /models")]
    try:
        size = size_of(params, name)
    except StudyError as error:
        return [Check(f"model {label}", "not ok", str(error))]
    source = params["checkpoints"].get(label, {}).get("source", folder)
    parts = [part for part in files(name) or [source] if part.endswith(".gguf") and not (root() / part).is_file()]
    if parts and not here(name):
        file, known = Path(parts[0]), FILES.get(Path(parts[0]).name)
        where = f"`hf download {known[0]}-GGUF {file.name} --local-dir {file.parent}`" if known else "download it"
        return [Check(f"model {label}", "not ok", f"{file} is not here; {where}")]
    place = (
        f"in {folder.removeprefix('llama.cpp:')}"
        if here(name)
        else f"to be fetched from {source}, {size.disk_gb:.1f} GB"
    )
    card = root() / folder / "card.json"
    if card.is_file() and "tokens_read" in json.loads(card.read_text()):  # written by notebook 02
        verdict, note = "ok", "trained here, the project's own"
    elif size.gated:
        verdict, note = "not known", f"{size.licence}; accept it on the hub, at {source}, then `hf auth login`"
    elif size.licence == "not stated":
        verdict, note = "not known", f"none in {folder}/README.md; read it where the model was published"
    else:
        verdict, note = "ok", f"{size.licence}; nothing to accept on the hub"
    return [Check(f"model {label}", "ok", place), Check(f"licence of {label}", verdict, note)]


def data_check(params: dict, task: str) -> Check:
    data, what = DATA_SETS.get(task), f"data set {task}"
    if data is None:
        return Check(what, "ok", "generated here" if task in TASKS else "your own")
    if data.hub:
        return Check(what, "ok", f"{data.licence}; nothing to accept on the hub ({data.hub})")
    note = f"{data.licence}; not on the hub: download its files and set questions.local to their folder"
    return Check(what, "ok" if params["questions"]["local"] else "not ok", note)


def window_checks(params: dict) -> list[Check]:
    """Whether the longest requests fit into the models' windows; the first stages refuse to run if they do not."""
    if found := [Check("window", "not ok", line) for line in windows.too_long(params)]:
        return found
    names = dict.fromkeys([params["teacher"], *params["students"]])
    unknown = [Path(name).name for name in names if windows.window(params, name) is None]
    if unknown:
        return [Check("window", "not known", f"of {', '.join(unknown)}; see max_position_embeddings in config.json")]
    return [Check("window", "ok", "the longest requests fit into those of all models")]


def engine_checks(params: dict) -> list[Check]:
    """Packages that the engines lack here. Without a GPU this is no failure: the plan may be for another machine."""
    names = [engine_name(params, name) for name in (params["teacher"], *params["students"])]
    absent = dict.fromkeys(
        part for name in names for part in missing_for_engine(name).split(" and ") if "installed" in part
    )
    extras = [extra for word, extra in (("vLLM", "gpu"), ("Ray", "cluster")) if f"{word} is not installed" in absent]
    how = f"; `pip install -e .[{','.join(extras)}]`" if extras else "; see docs/real-models.md"
    verdict = "not ok" if torch.cuda.is_available() else "not known"
    return [Check("engines", verdict, f"{', '.join(absent)} here{how}")] if absent else []


def card_checks(params: dict, card: str) -> list[Check]:
    """Number of cards per copy of each model in vLLM, and of copies on the cards here or, without a GPU, on a node."""
    gpu, found, verdict = torch.cuda.is_available(), [], "ok" if torch.cuda.is_available() else "not known"
    total = torch.cuda.device_count() if gpu else NODE
    for name in dict.fromkeys([params["teacher"], *params["students"]]):
        engine = engine_name(params, name)
        if card == "core" or not without_ray(engine).startswith("vllm:"):
            continue
        with contextlib.suppress(StudyError):  # unknown size: reported by `model_checks`
            each = cards_for(size_of(params, name), card_of(card))
            copies = copies_on(total, each) if on_cluster(engine) else min(1, total // each)
            verdict = verdict if copies else "not ok"
            cards, held = f"{each} card{'s'[: each > 1]} a copy", f"{copies or 'no'} cop{'y' if copies == 1 else 'ies'}"
            found.append(f"{Path(name).name}: {cards}, {held}")
    where = f"on the {total} {card} here" if gpu else f"on {total} {card}"
    return [Check("cards", verdict, f"{where}: {'; '.join(found)}")] if found else []


def memory_check(params: dict, rows: pd.DataFrame, card: str) -> Check:
    """Compare the stage that needs most memory with this machine's memory (scale mini, or cores), its GPU's, or else
    the planned card's. If a copy of a model takes several cards, the memory is that of one card."""
    if rows["memory_gb"].isna().all():
        return Check("memory", "not known", "no peak is recorded; run `make bench` after a study")
    most, what, verdict = rows.loc[rows["memory_gb"].idxmax()], "GPU memory", "ok"
    if params["scale"] == "mini" or card == "core":
        what, room, whose = "memory", psutil.virtual_memory().total / GB, "this machine"
    elif torch.cuda.is_available():
        room, whose = torch.cuda.get_device_properties(0).total_memory / GB, "this GPU"
    else:
        room, whose, verdict = card_of(card).memory, f"the planned {card} (there is no GPU here)", "not known"
    a_card = "" if what == "memory" else " a card"
    note = f"{most['stage']} needs {most['memory_gb']:.1f} GB{a_card}, {whose} has {room:.0f}"
    if most["memory_gb"] > room:
        use = "AGENTARK_WORKERS=1, a smaller per_device_batch_size" if what == "memory" else "more or larger cards"
        return Check(what, "not ok", f"{note}; use {use}, LoRA (lora_rank) or a smaller student")
    return Check(what, verdict, note)


def lines(found: Sequence[Check]) -> str:
    return "\n".join(f"{c.verdict:>9}  {c.what}: {c.note}" for c in found)

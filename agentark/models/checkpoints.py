"""What engines must agree on about a checkpoint: where it is, which it is, its chats as tokens, what ends a turn."""

import hashlib
import json
import math
import os
import shutil
from pathlib import Path

from huggingface_hub import ModelCard, snapshot_download
from safetensors import safe_open
from transformers import AutoConfig

from agentark import StudyError, first_line, root
from agentark.models import loading


def located(name: str) -> Path:
    """The folder of a model: below the project's (or absolute), else the hub's copy. Raises StudyError without either."""
    folder = root() / name
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(name))
    except Exception as error:  # a name in no hub format, no copy while offline, no such model, no right to it
        raise StudyError(
            f"{name}: no folder, nor to be had from the hub ({first_line(error)}); see `hf download`"
        ) from None


def fetched(source: str, revision: str, out: Path) -> None:
    """A checkpoint's files in `out`: linked or copied from a folder below the project's (or absolute), else from the hub.

    Raises StudyError where there is neither, or no right to it.
    """
    folder = root() / source
    if folder.is_dir():
        shutil.copytree(folder, out, copy_function=linked, dirs_exist_ok=True)
        return
    try:
        snapshot_download(source, revision=revision, local_dir=out, ignore_patterns=["*.bin", "*.pth", "original/*"])
    except Exception as error:  # a name in no hub format, no such model, no right to it, no network
        raise StudyError(
            f"{source}: no folder, nor to be had from the hub ({first_line(error)}); see `hf download`"
        ) from None


def linked(here: str, there: str) -> str:
    """A hard link, which costs no disk, where the file system allows one; else a copy."""
    try:
        os.link(here, there)
    except OSError:
        shutil.copy2(here, there)
    return there


def described(folder: Path) -> dict[str, str | int]:
    """What a checkpoint says of itself: architecture, number of weights, window in tokens, precision, licence.

    Raises StudyError if its configuration or its weights are missing or unreadable.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files or not (Path(folder) / "config.json").is_file():
        what = loading.instead(folder) or "; fetch it again"
        raise StudyError(f"{folder}: no checkpoint in the hub's format (config.json, *.safetensors){what}")
    try:
        config, weights = AutoConfig.from_pretrained(folder), 0
        index = Path(folder) / "model.safetensors.index.json"
        named = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else set()
        if absent := sorted(named - {file.name for file in files}):
            raise OSError(f"{absent[0]} is missing")
        for file in files:
            with safe_open(file, "pt") as tensors:
                weights += sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise loading.unloadable(folder, error) from error
    text, card = config.get_text_config(), Path(folder) / "README.md"
    licence = ModelCard.load(card).data.get("license") if card.is_file() else None
    return {
        "architecture": (config.architectures or [config.model_type])[0],
        "weights": weights,
        "window": text.max_position_embeddings,
        "precision": str(text.dtype or "not stated").removeprefix("torch."),
        "licence": licence or "not stated",
    }


def digest(folder: Path, *facts: str) -> str:
    """SHA-256 over `facts` and a model's files (weights, tokenizer, template, configuration), names included. Where it
    comes from (provenance.json) is no part of what it is."""
    sha = hashlib.sha256(" ".join(facts).encode())
    for file in sorted(Path(folder).glob("*")):
        if file.suffix in (".safetensors", ".json", ".jinja") and file.name != "provenance.json":
            sha.update(file.name.encode())
            with file.open("rb") as content:
                while part := content.read(2**24):
                    sha.update(part)
    return sha.hexdigest()


def where(name: str) -> str:
    """A teacher's or student's folder by its name in `params.yaml`: `vllm:data/models/x` and `x` are data/models/x."""
    own = name.removeprefix("vllm:")
    return own if "/" in own else str(Path("data", "models", own))

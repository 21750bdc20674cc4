"""Locate, fetch, describe and identify checkpoints."""

import hashlib
import json
import math
import os
import shutil
from pathlib import Path

from huggingface_hub import ModelCard, snapshot_download
from safetensors import safe_open
from transformers import AutoConfig

from agentark import StudyError, first_line, folder_of, root, without_ray
from agentark.models import gguf, loading


def model_folder(name: str) -> Path:
    """Return the folder of a model: a path, absolute or relative to the project's folder, else the hub's local copy.

    Raises StudyError if there is neither.
    """
    folder = root() / name
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(name))
    except Exception as error:  # not a hub name, no copy while offline, no such model, no access
        raise StudyError(
            f"{name}: no such folder, and not available on the hub ({first_line(error)}); see `hf download`"
        ) from None


def fetched(source: str, revision: str, out: Path) -> None:
    """Put a checkpoint's files into `out`: linked or copied from a local folder, dequantised from a GGUF file, else
    downloaded from the hub.

    Raises StudyError if the checkpoint is not available.
    """
    folder = root() / source
    if source.endswith(".gguf"):
        gguf.unpack(gguf.gguf_path(source), out)
        return
    if folder.is_dir():
        shutil.copytree(folder, out, copy_function=linked, dirs_exist_ok=True)
        return
    try:
        snapshot_download(source, revision=revision, local_dir=out, ignore_patterns=["*.bin", "*.pth", "original/*"])
    except Exception as error:  # not a hub name, no such model, no access, no network
        raise StudyError(
            f"{source}: no such folder, and not available on the hub ({first_line(error)}); see `hf download`"
        ) from None


def linked(here: str, there: str) -> str:
    """Make a hard link, which uses no disk space, or a copy if the file system does not allow one."""
    try:
        os.link(here, there)
    except OSError:
        shutil.copy2(here, there)
    return there


def checkpoint_facts(folder: Path) -> dict[str, str | int]:
    """A checkpoint's architecture, number of weights, window in tokens, precision and licence.

    Raises StudyError if its configuration or its weights are missing or unreadable.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files or not (Path(folder) / "config.json").is_file():
        hint = loading.contents_hint(folder) or "; fetch it again"
        raise StudyError(f"{folder}: no checkpoint in the hub's format (config.json, *.safetensors){hint}")
    try:
        config, weights = AutoConfig.from_pretrained(folder), 0
        index = Path(folder) / "model.safetensors.index.json"
        named = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else set()
        if absent := sorted(named - {file.name for file in files}):
            raise OSError(f"{absent[0]} is missing")
        for file in files:
            with safe_open(file, "pt") as tensors:
                weights += sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
    except Exception as error:  # a damaged file makes the readers raise errors of many types
        raise loading.loading_error(folder, error) from error
    text, card = config.get_text_config(), Path(folder) / "README.md"
    licence = ModelCard.load(card).data.get("license") if card.is_file() else None
    return {
        "architecture": (config.architectures or [config.model_type])[0],
        "weights": weights,
        "window": text.max_position_embeddings,
        "precision": str(text.dtype or "not stated").removeprefix("torch."),
        "licence": licence or "not stated",
    }


def source_of(name: str) -> str:
    """Return the origin of a teacher or student, for a run's record: GGUF files with checksums, the source of a fetched
    checkpoint, else its name. A model on a server is looked up in data/models by its name on the server."""
    name = without_ray(name)
    if name.startswith("http"):
        name = name.rpartition("#")[2].partition("@")[0]
    if name.startswith("llama.cpp:"):
        files = [gguf.gguf_path(part) for part in name.removeprefix("llama.cpp:").split("+")]
        return " + ".join(f"{file.name} (SHA-256 {gguf.digest(file)})" for file in files)
    card, config = (root() / folder_of(name) / file for file in ("card.json", "config.json"))
    source = str(json.loads(card.read_text()).get("source", name) if card.is_file() else name)
    found = source_of(f"llama.cpp:{source}") if source.endswith(".gguf") else source
    method = json.loads(config.read_text()).get("quantization_config", {}) if config.is_file() else {}
    again = " again" if source.endswith(".gguf") else ""
    return f"{found}, quantised{again} ({method['quant_method']}, {method.get('format')})" if method else found


def digest(folder: Path, *facts: str) -> str:
    """SHA-256 over `facts` and the names and contents of a model's files (weights, tokenizer, template, configuration).

    provenance.json is left out, since it does not affect what the model computes.
    """
    sha = hashlib.sha256(" ".join(facts).encode())
    for file in sorted(Path(folder).glob("*")):
        if file.suffix in (".safetensors", ".json", ".jinja") and file.name != "provenance.json":
            sha.update(file.name.encode())
            with file.open("rb") as content:
                while part := content.read(2**24):
                    sha.update(part)
    return sha.hexdigest()

"""Save a trained model as a folder with weights, adapter, model card and provenance.

With LoRA, `folder` holds the merged model, which any engine can load, and `folder`/adapter the adapter in PEFT's
format. No file contains the machine's name or the time, so that equal trainings give equal bytes.
"""

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from huggingface_hub import ModelCard, ModelCardData, metadata_load
from peft import LoraConfig, PeftModel
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerFast

from agentark import root
from agentark.files import write_atomically, write_json
from agentark.models import loading
from agentark.models.checkpoints import digest

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers")
OPTIONAL = ("unsloth", "bitsandbytes", "vllm")  # recorded if they were imported
PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


@dataclass(frozen=True)
class Origin:
    """The origin of a trained model.

    parents: the models that it was trained from or against, the base first; examples: the training data as JSON values;
    parameters: the training's settings.
    """

    method: str
    seed: int
    parents: dict[str, Path]
    examples: Sequence
    parameters: dict[str, object]

    @property
    def base(self) -> Path:
        return Path(next(iter(self.parents.values())))

    def provenance(self) -> dict:
        """The content of provenance.json: digests of parents and examples, parameters, commit, versions, device."""
        libraries = [*LIBRARIES, *(name for name in OPTIONAL if name in sys.modules)]
        text = json.dumps(list(self.examples)).encode()
        return {
            "method": self.method,
            "seed": self.seed,
            "parameters": self.parameters,
            **{role: {"name": published_name(p), "sha256": digest(p)} for role, p in self.parents.items()},
            "examples": {"number": len(self.examples), "sha256": hashlib.sha256(text).hexdigest()},
            "code": commit(),
            "versions": {name: version(name) for name in libraries},
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        }

    def card(self, library: str) -> ModelCard:
        """A model card in the hub's format, with the base's licence if its card states one."""
        path = self.base / "README.md"
        stated = (metadata_load(path) if path.is_file() else None) or {}
        data = ModelCardData(
            base_model=published_name(self.base),
            library_name=library,
            tags=["agentark", self.method],
            **{key: stated[key] for key in ("license", "license_name", "license_link") if key in stated},
        )
        table = "\n".join(f"| {name} | {value} |" for name, value in {**self.parameters, "seed": self.seed}.items())
        return ModelCard(
            f"---\n{data.to_yaml()}\n---\n\n# {self.base.name}, {self.method}, seed {self.seed}\n\n"
            f"Trained from {published_name(self.base)} by the method `{self.method}` of the study AgentArk (arXiv 2602.03955) "
            f"on {len(self.examples)} examples.\n\n| parameter | value |\n|---|---|\n{table}\n\n"
            "Digests of what it was made from, the commit and the versions are in `provenance.json`.\n"
        )


def published_name(model: Path) -> str:
    """A model's name for publication: its path relative to the project's folder, or else its folder's name."""
    try:
        return str(Path(model).absolute().relative_to(root()))
    except ValueError:
        return Path(model).name


def commit() -> dict[str, object] | None:
    """The last commit that changed code or parameters, not only results, and whether there are uncommitted changes;
    None without a commit."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments, "--", "agentark", "notebooks", "params.yaml", "dvc.yaml"]
        return subprocess.run(command, cwd=root(), capture_output=True, text=True, check=True).stdout.strip()

    try:
        last, changes = git("log", "-1", "--format=%H"), git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):  # no git, no repository, no commit yet
        return None
    return {"commit": last, "uncommitted_changes": bool(changes)} if last else None


def save(model: loading.Model, tokenizer: PreTrainedTokenizerFast, folder: Path, origin: Origin) -> None:
    """Save a trained model in the hub's format, at the precision of its base, without changing `model`.

    With several processes only the first saves. An adapter is saved first and then merged into a newly loaded base, so
    that merged model and adapter are equivalent at any training precision.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    score = getattr(model.config, "step_score", None)  # set in a reward model's configuration
    if isinstance(model, PeftModel):
        save_adapter(model, folder / "adapter", origin)
        head = hasattr(model.get_base_model(), "score")
        base = loading.load_scorer(origin.base, "auto") if head else loading.load(origin.base, "auto")[0]
        model = PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload()
    config = AutoConfig.from_pretrained(origin.base)
    precision = config.dtype or config.get_text_config().dtype or torch.float32
    if model.dtype != precision:
        model = copy.deepcopy(model).to(precision)
    if score:
        model.config.step_score = score
    if model.can_generate():
        model.generation_config = valid(model.generation_config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name in PROCESSORS:
        if (origin.base / name).is_file():
            shutil.copyfile(origin.base / name, folder / name)
    write_atomically(folder / "README.md", lambda p: origin.card("transformers").save(p))
    write_json(origin.provenance(), folder / "provenance.json")


def valid(settings: GenerationConfig) -> GenerationConfig:
    """A base's generation settings, or only their special tokens if the settings cannot be saved
    (huggingface/transformers#29988: published checkpoints set a temperature without sampling)."""
    try:
        settings.validate(strict=True)
        return settings
    except (ValueError, TypeError):
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        return GenerationConfig(**{name: getattr(settings, name) for name in names})


def save_adapter(model: PeftModel, folder: Path, origin: Origin) -> None:
    """Save a LoRA adapter in PEFT's format, with a model card."""
    config = model.peft_config["default"]
    assert isinstance(config, LoraConfig)
    config.base_model_name_or_path = published_name(origin.base)
    if not isinstance(config.target_modules, str):
        config.target_modules = sorted(config.target_modules or ())  # PEFT's set has a random order
    # Only "default", since GRPO adds a frozen copy. No embeddings, since the vocabulary is the base's.
    PeftModel.save_pretrained(model, str(folder), selected_adapters=["default"], save_embedding_layers=False)
    write_atomically(folder / "README.md", lambda p: origin.card("peft").save(p))  # PEFT's own card contains a path

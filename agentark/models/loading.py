"""Models in the hub's own format: tiny ones of real architectures built here, and loading any, as a language model or
with a scalar read at each token."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, PreTrainedTokenizerFast

from agentark import StudyError, first_line

# Where a language half stands within an image-text-to-text checkpoint: now, and in those published earlier.
HALVES = {r"^model\.language_model\.": "model.", r"^language_model\.model\.": "model."}


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def precision() -> torch.dtype:
    """bfloat16 on a GPU, as published checkpoints have it; float32 on a CPU, which has no faster arithmetic."""
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


def window(folder: Path) -> int:
    """Tokens that a model reads at most."""
    return AutoConfig.from_pretrained(folder).get_text_config().max_position_embeddings


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model's folder. Raises StudyError if there is no model, or it is not loadable."""
    if not (Path(folder) / "config.json").is_file():
        raise StudyError(
            f"{folder}: no model here{instead(folder)}; name one under data/models, or build it with `make models`"
        )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    except Exception as error:  # whatever a damaged or missing file makes the loader raise
        raise unloadable(folder, error) from error
    if tokenizer.pad_token is None:  # Llama 3 has none
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load(
    folder: Path, dtype: torch.dtype | str | None = None, **options
) -> tuple[transformers.PreTrainedModel, PreTrainedTokenizerFast]:
    """A causal model and its tokenizer from a folder in the hub's format; one that also sees images as such, for chats
    of text alone. `dtype` None: `precision`; "auto": the checkpoint's own. `options` go to `from_pretrained`.

    Raises StudyError if it is not loadable or lacks weights, which the loader would draw at random.
    """
    tokenizer = load_tokenizer(folder)
    try:
        sees = type(AutoConfig.from_pretrained(folder)) in transformers.AutoModelForImageTextToText._model_mapping
        kind = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
        model, report = kind.from_pretrained(folder, dtype=dtype or precision(), output_loading_info=True, **options)
    except Exception as error:  # whatever a damaged file makes the loader raise
        raise unloadable(folder, error) from error
    if missing := sorted(report["missing_keys"]):
        raise StudyError(f"{folder}: no weights for {missing[0]} ({len(missing)} missing); fetch the model again")
    return model, tokenizer


def load_scorer(folder: Path, dtype: torch.dtype | str | None = None) -> transformers.PreTrainedModel:
    """The language half of a model with a linear head that reads one scalar at each token; the head is random if the
    folder holds a language model. Raises StudyError if it is not loadable, or holds anything else."""
    try:
        config = AutoConfig.from_pretrained(folder).get_text_config()
        config.num_labels = 1
        kind = transformers.AutoModelForTokenClassification
        if type(config) not in kind._model_mapping:
            from agentark.models.heads import HEADS

            kind = HEADS.get(type(config), kind)
        model, report = kind.from_pretrained(
            folder,
            config=config,
            dtype=dtype or precision(),
            key_mapping=HALVES,
            output_loading_info=True,
        )
    except Exception as error:
        raise unloadable(folder, error) from error
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("score."))
    if missing:
        raise StudyError(f"{folder}: no weights for {missing[0]} ({len(missing)} missing); is this a language model?")
    return model


def unloadable(folder: Path, error: Exception) -> StudyError:
    held = instead(folder)
    return StudyError(f"{folder}: not a loadable model ({first_line(error)}){held}; restore or fetch it again")


def instead(folder: Path) -> str:
    """What a folder holds in place of a model's weights, where that is known: ", but ..."; else ""."""
    files = sorted(Path(folder).glob("*")) if Path(folder).is_dir() else []
    if any(
        f.stat().st_size < 1024 and f.read_bytes().startswith(b"version https://git-lfs") for f in files if f.is_file()
    ):
        return ", but pointers of Git LFS: run `git lfs pull` there"
    if any(f.name == "adapter_config.json" for f in files) and not (Path(folder) / "config.json").is_file():
        return ", but an adapter alone: merge it into its base (PEFT's merge_and_unload) and save the whole model"
    if any(f.suffix == ".gguf" for f in files) and not any(f.suffix == ".safetensors" for f in files):
        return ", but a GGUF file: take the same model's weights in the hub's format (*.safetensors)"
    return ""

"""Load models in the hub's format, as language models or with a scalar head at each token."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
import transformers
from transformers import AutoConfig, PreTrainedTokenizerFast

from agentark import StudyError, first_line

Model = Any  # a PreTrainedModel, with generate() if it is causal; transformers' annotations of the two do not combine
# Prefixes of the language model's weights in image-text-to-text checkpoints: the current one and an older one.
HALVES = {r"^model\.language_model\.": "model.", r"^language_model\.model\.": "model."}


def device() -> str:
    """The device that models run on: "cuda" if there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def precision() -> torch.dtype:
    """bfloat16 on a GPU, as in published checkpoints; float32 on a CPU, since not every CPU is faster in 16 bits (the
    engine `bf16:` and the setting `bf16` select 16 bits)."""
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


def window(folder: Path) -> int:
    """A model's maximal number of tokens."""
    return AutoConfig.from_pretrained(folder).get_text_config().max_position_embeddings


def attention(config) -> tuple[int, int, int]:
    """Numbers of layers and of key-value heads, and the heads' width, in a language model's configuration."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, width


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model's folder. Raises StudyError if there is no model or it is not loadable."""
    if not (Path(folder) / "config.json").is_file():
        raise StudyError(
            f"{folder}: no model here{contents_hint(folder)}; name one under data/models, or build it with `make models`"
        )
    try:
        tokenizer = cast(
            PreTrainedTokenizerFast, transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
        )
    except Exception as error:  # a damaged or missing file makes the loader raise errors of many types
        raise loading_error(folder, error) from error
    if tokenizer.pad_token is None:  # Llama 3 has none
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load(folder: Path, dtype: torch.dtype | str | None = None, **options: Any) -> tuple[Model, PreTrainedTokenizerFast]:
    """A causal model and its tokenizer from a folder in the hub's format.

    An image-text-to-text model is loaded in full, for text-only chats. dtype: None for `precision`, "auto" for the
    checkpoint's own. `options` go to `from_pretrained`. Raises StudyError if the model is not loadable or lacks
    weights, which the loader would initialise at random.
    """
    tokenizer = load_tokenizer(folder)
    try:
        vision = type(AutoConfig.from_pretrained(folder)) in transformers.AutoModelForImageTextToText._model_mapping
        kind: Any = transformers.AutoModelForImageTextToText if vision else transformers.AutoModelForCausalLM
        model, report = kind.from_pretrained(folder, dtype=dtype or precision(), output_loading_info=True, **options)
    except Exception as error:  # a damaged file makes the loader raise errors of many types
        raise loading_error(folder, error) from error
    if missing := sorted(report["missing_keys"]):
        raise StudyError(f"{folder}: no weights for {missing[0]} ({len(missing)} missing); download the model again")
    return model, tokenizer


def step_score(folder: Path) -> str:
    """How a reward model scores steps, as its configuration states: "head" or "likelihood" (distill.scorer)."""
    try:
        return getattr(AutoConfig.from_pretrained(folder), "step_score", "head")
    except Exception as error:  # a damaged file makes the loader raise errors of many types
        raise loading_error(folder, error) from error


def load_scorer(folder: Path, dtype: torch.dtype | str | None = None) -> Model:
    """A model's language half with a linear head that outputs one scalar per token.

    The head is random if the folder holds a language model without one. Raises StudyError if the model is not loadable
    or is not a language model.
    """
    try:
        config = AutoConfig.from_pretrained(folder).get_text_config()
        config.num_labels = 1
        kind: Any = transformers.AutoModelForTokenClassification
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
        raise loading_error(folder, error) from error
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("score."))
    if missing:
        raise StudyError(f"{folder}: no weights for {missing[0]} ({len(missing)} missing); is this a language model?")
    return model


def loading_error(folder: Path, error: Exception) -> StudyError:
    """The error for a folder or file that does not load as a model because of `error`."""
    contents = contents_hint(folder)
    return StudyError(f"{folder}: not a loadable model ({first_line(error)}){contents}; restore or fetch it again")


def contents_hint(folder: Path) -> str:
    """Describe what a folder contains instead of a model's weights, as ", but ..."; "" if that is unknown."""
    files = sorted(Path(folder).glob("*")) if Path(folder).is_dir() else []
    if any(
        f.stat().st_size < 1024 and f.read_bytes().startswith(b"version https://git-lfs") for f in files if f.is_file()
    ):
        return ", but Git LFS pointers: run `git lfs pull` there"
    if any(f.name == "adapter_config.json" for f in files) and not (Path(folder) / "config.json").is_file():
        return ", but an adapter alone: merge it into its base (PEFT's merge_and_unload) and save the whole model"
    if any(f.suffix == ".gguf" for f in files) and not any(f.suffix == ".safetensors" for f in files):
        return ", but a GGUF file: take the same model's weights in the hub's format (*.safetensors)"
    return ""

"""Models in the hub's own format: tiny ones of real architectures built here, and loading any, as a language model or
with a scalar read at each token."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers  # a class of it is imported where it is first named: all those below take five seconds
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerFast

from agentark import StudyError, first_line
from agentark.tasks.words import VOCABULARY

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
SPECIAL = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|unknown|>")
HEAD = 32  # width of an attention head
FAMILIES = {  # configuration, model, what the configuration has of its own
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {}),
    "llama": ("LlamaConfig", "LlamaForCausalLM", {}),
    # scaled by a head's width, as published
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", {"query_pre_attn_scalar": HEAD}),
}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of the generated world and one for the end of a line; spaces carry no token."""
    words = [*SPECIAL, "\n", *VOCABULARY]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<|unknown|>"))
    tokenizer.normalizer = normalizers.Replace("\n", " \n ")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(" +"), "removed")
    tokenizer.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse(), decoders.Replace(" \n ", "\n")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        unk_token="<|unknown|>",
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_model(family: str, hidden: int, layers: int, seed: int, vocabulary: int) -> transformers.PreTrainedModel:
    """Random weights of a named architecture; heads of HEAD, feed-forward of 8/3 the width, embeddings tied."""
    if family not in FAMILIES:
        raise StudyError(f"architecture {family!r} is unknown; choose one of {', '.join(FAMILIES)}")
    config_class, model_class, own = FAMILIES[family]
    config = getattr(transformers, config_class)(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 8 * 8,
        num_hidden_layers=layers,
        num_attention_heads=(heads := hidden // HEAD),
        num_key_value_heads=heads,
        head_dim=HEAD,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        **own,
    )
    torch.manual_seed(seed)
    return getattr(transformers, model_class)(config)


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
            from agentark.heads import HEADS

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

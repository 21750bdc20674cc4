"""Tiny language models of real architectures, in the hub's own format: tokenizer, configuration, weights, card."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from agentark import StudyError
from agentark.tasks.words import VOCABULARY

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
SPECIAL = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|unknown|>")
FAMILIES = {"qwen3": (Qwen3Config, Qwen3ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}


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


def build_model(family: str, hidden: int, layers: int, seed: int, vocabulary: int) -> PreTrainedModel:
    """Random weights of a named architecture; heads of 32, feed-forward of 8/3 the width, embeddings tied."""
    if family not in FAMILIES:
        raise StudyError(f"architecture {family!r} is unknown; choose one of {', '.join(FAMILIES)}")
    config_class, model_class = FAMILIES[family]
    config = config_class(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 8 * 8,
        num_hidden_layers=layers,
        num_attention_heads=(heads := hidden // 32),
        num_key_value_heads=heads,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    torch.manual_seed(seed)
    return model_class(config)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model's folder. Raises StudyError if there is no model."""
    if not (Path(folder) / "config.json").is_file():
        raise StudyError(f"{folder}: no model here; name one under data/models, or build it with `make models`")
    return AutoTokenizer.from_pretrained(folder, padding_side="left")


def load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A causal model and its tokenizer from a folder in the hub's format. Raises StudyError if it is not loadable."""
    tokenizer = load_tokenizer(folder)
    try:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), tokenizer
    except Exception as error:  # whatever a damaged file makes the loader raise
        reason = str(error).splitlines()[0]
        raise StudyError(f"{folder}: not a loadable model ({reason}); restore it from git") from error

"""Tiny models of real architectures with random weights, and the tokenizer of the generated world."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from agentark import StudyError
from agentark.tasks.world.words import VOCABULARY

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
SPECIAL = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|unknown|>")
HEAD = 32  # width of an attention head
FAMILIES: dict[str, tuple[str, str, dict[str, int]]] = {  # configuration class, model class, specific settings
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {}),
    "llama": ("LlamaConfig", "LlamaForCausalLM", {}),
    # attention scaled by a head's width, as in published models
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", {"query_pre_attn_scalar": HEAD}),
}


def build_tokenizer(names: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Return a tokenizer with a token per word of the generated world, per name in `names`, and for a line's end, but
    none for spaces."""
    words = dict.fromkeys([*SPECIAL, "\n", *VOCABULARY, *names])  # without duplicates
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
    """A model of a named architecture with random weights, heads of width HEAD, feed-forward layers of 8/3 the width,
    and tied embeddings. Raises StudyError for an unknown architecture."""
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

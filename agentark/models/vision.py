"""A tiny Qwen2.5-VL whose language half has exactly the weights of a student's base (the paper's Figure 7).

The language half is a Qwen2 decoder: a Llama decoder plus biases on queries, keys and values, equivalent to it if the
biases are 0. Its positions have three axes, which are equal for text. A Qwen3 base is unsuitable: it has norms on
queries and keys instead of the biases, and no weights of a Qwen2 decoder are equivalent to them.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from agentark import StudyError
from agentark.models import loading

MARKS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")
# The smallest tower with both kinds of layer: window attention and full attention.
TOWER: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "fullatt_block_indexes": [1],
}
PIXELS = {"shortest_edge": 4 * 28**2, "longest_edge": 16 * 28**2}  # 4 to 16 patches of 28 x 28 pixels, one token each


def build(base: Path, out: Path, seed: int) -> None:
    """Write a Qwen2.5-VL to `out`: language half and vocabulary from the Llama model in `base`, vision tower random.

    The vision tokens are added to the vocabulary, with the embedding of the unknown token, which no base is trained to
    generate. Raises StudyError if `base` is not a Llama model with tied embeddings and without biases.
    """
    config = AutoConfig.from_pretrained(base)
    if config.model_type != "llama" or config.attention_bias or not config.tie_word_embeddings:
        raise StudyError(
            f"{base}: not a Llama model with tied embeddings and without biases; use data/models/llama-small"
        )
    language, tokenizer = loading.load(base)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
    ids = tokenizer.convert_tokens_to_ids(list(MARKS))
    assert isinstance(ids, list)
    start, image, end, video = ids
    half = config.head_dim // 2
    sections = [half // 4, 3 * half // 8, 3 * half // 8]  # of time, height and width: 16, 24, 24 of 64 as published
    shape = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "max_position_embeddings", "rms_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id")  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                **{name: getattr(config, name) for name in shape},
                "vocab_size": len(tokenizer),
                "rope_parameters": config.rope_parameters | {"mrope_section": sections},
            },
            vision_config=TOWER | {"out_hidden_size": config.hidden_size},
            tie_word_embeddings=True,
            vision_start_token_id=start, image_token_id=image, vision_end_token_id=end, video_token_id=video,
        )
    )  # fmt: skip
    weights = language.get_decoder().state_dict()
    embeddings = weights["embed_tokens.weight"]
    unknown = embeddings[tokenizer.unk_token_id].expand(len(tokenizer) - len(embeddings), -1)
    weights["embed_tokens.weight"] = torch.cat([embeddings, unknown])
    biases = {name: torch.zeros_like(p) for name, p in model.get_decoder().state_dict().items() if "proj.bias" in name}
    model.get_decoder().load_state_dict(weights | biases)
    model.generation_config = language.generation_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    Qwen2VLImageProcessorPil(size=PIXELS).save_pretrained(out)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 over the weights of each half of the model in `folder`, by name: "vision", "language"."""
    model, _ = loading.load(folder, "auto")
    found = {}
    for half, part in (("vision", model.model.visual), ("language", model.get_decoder())):
        sha = hashlib.sha256()
        for name, weight in part.state_dict().items():
            sha.update(name.encode() + weight.contiguous().view(torch.uint8).numpy().tobytes())
        found[half] = sha.hexdigest()
    return found


@torch.inference_mode()
def features_and_reply(folder: Path, picture: Image.Image, question: str, max_tokens: int) -> tuple[torch.Tensor, str]:
    """The vision tower's features of a picture, shape (tokens, width), and the greedy reply to picture and question."""
    model, tokenizer = loading.load(folder)
    model.eval()
    pixels = Qwen2VLImageProcessorPil.from_pretrained(folder)(picture, return_tensors="pt")
    (features,) = model.get_image_features(**pixels).pooler_output
    start, image, end, _ = MARKS
    messages = [{"role": "user", "content": f"{start}{image * len(features)}{end} {question}"}]
    chat = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(chat, add_special_tokens=False, return_tensors="pt").input_ids
    kinds = (ids == model.config.image_token_id).int()
    output = model.generate(
        ids, **pixels, mm_token_type_ids=kinds, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens,
        do_sample=False, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return features, str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))

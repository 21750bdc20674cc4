"""A tiny Qwen2.5-VL around a student's base (the paper's Figure 7): its language half is the base, weight for weight.

That half is a Qwen2 decoder, which is Llama's with a bias on queries, keys and values: with biases of 0 the two compute
the same. Positions count along three axes, which are one and the same in a text. A Qwen3 base has norms on queries and
keys in place of the biases, and no weights of a Qwen2 decoder come to the same as those.
"""

import hashlib
from pathlib import Path

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
# As small as still has a layer of each kind, with attention within windows and over the whole picture.
TOWER = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "fullatt_block_indexes": [1]}
PIXELS = {"shortest_edge": 4 * 28**2, "longest_edge": 16 * 28**2}  # 4 to 16 patches of 28 by 28, a token each


def build(base: Path, out: Path, seed: int) -> None:
    """Write a Qwen2.5-VL to `out`: language half and words those of the Llama model in `base`, vision tower random.

    The marks around a picture are added to the words; their embeddings are that of the unknown word, which no base has
    ever been taught to write. Raises StudyError if `base` is no Llama model with tied embeddings and no biases.
    """
    config = AutoConfig.from_pretrained(base)
    if config.model_type != "llama" or config.attention_bias or not config.tie_word_embeddings:
        raise StudyError(
            f"{base}: no Llama model with tied embeddings and without biases; take data/models/llama-small"
        )
    language, tokenizer = loading.load(base)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
    start, image, end, video = tokenizer.convert_tokens_to_ids(list(MARKS))
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
    words = weights["embed_tokens.weight"]
    unknown = words[tokenizer.unk_token_id].expand(len(tokenizer) - len(words), -1)
    weights["embed_tokens.weight"] = torch.cat([words, unknown])
    biases = {name: torch.zeros_like(p) for name, p in model.get_decoder().state_dict().items() if "proj.bias" in name}
    model.get_decoder().load_state_dict(weights | biases)
    model.generation_config = language.generation_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    Qwen2VLImageProcessorPil(size=PIXELS).save_pretrained(out)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 over the bytes of the weights of each half of the model in `folder`: "vision", "language"."""
    model, _ = loading.load(folder, "auto")
    found = {}
    for half, part in (("vision", model.model.visual), ("language", model.get_decoder())):
        sha = hashlib.sha256()
        for name, weight in part.state_dict().items():
            sha.update(name.encode() + weight.contiguous().view(torch.uint8).numpy().tobytes())
        found[half] = sha.hexdigest()
    return found


@torch.inference_mode()
def look(folder: Path, picture: Image.Image, question: str, max_tokens: int) -> tuple[torch.Tensor, str]:
    """What the vision tower makes of a picture, shape (tokens, width), and the greedy reply to it and a question."""
    model, tokenizer = loading.load(folder)
    model.eval()
    seen = Qwen2VLImageProcessorPil.from_pretrained(folder)(picture, return_tensors="pt")
    (features,) = model.get_image_features(**seen).pooler_output
    start, image, end, _ = MARKS
    chat = [{"role": "user", "content": f"{start}{image * len(features)}{end} {question}"}]
    chat = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(chat, add_special_tokens=False, return_tensors="pt").input_ids
    kinds = (ids == model.config.image_token_id).int()
    output = model.generate(
        ids, **seen, mm_token_type_ids=kinds, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens,
        do_sample=False, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return features, tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)

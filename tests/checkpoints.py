"""Tiny checkpoints of the real architectures in the hub's own format, with random weights: `build(family, folder)`.

Each has the features of the published checkpoints that loading code can fail on: their roles and turn tokens, several
end-of-turn tokens in the generation settings, default sampling settings, a missing padding token, nested
configurations. Weights are in fp32, unlike the published 16-bit weights, so that engines can be compared bit by bit.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from agentark.tasks import TASKS

VOCABULARY = 1500
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
}
VISION = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": SIZES["hidden_size"],
    "fullatt_block_indexes": [0],
}

# Qwen3: the assistant's last turn gets a thinking block, empty if there is no thought; earlier turns have none.
QWEN3 = """\
{%- set last = namespace(user=0) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
{%- set content = message.content.split('</think>')[-1].lstrip('\\n') if message.role == 'assistant' else message.content %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' and loop.index0 > last.user %}
{%- set thought = message.content.split('</think>')[0].split('<think>')[-1] if '</think>' in message.content else '' %}
{{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
{%- endif %}
{{- content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}"""

LLAMA = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

# Gemma: no separate system role, the assistant's role is called model, and turns must alternate.
GEMMA = """\
{{- bos_token }}
{%- set system = messages[0].content + '\\n\\n' if messages[0].role == 'system' else '' %}
{%- for message in (messages[1:] if system else messages) %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif %}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}
{{- (system if loop.first else '') + message.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{% endif %}"""

# Qwen2.5-VL: a default system turn where none is given; the content may be a list of texts and images.
QWEN_VL = """\
{%- for message in messages %}
{%- if loop.first and message.role != 'system' %}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}{{- message.content }}
{%- else %}
{%- for part in message.content %}
{{- '<|vision_start|><|image_pad|><|vision_end|>' if part.type == 'image' else part.text }}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""

# Family -> chat template; begin, end and padding tokens (None: not defined); all end-of-turn tokens; other tokens.
TOKENS = {
    "qwen3": (QWEN3, None, "<|im_end|>", "<|endoftext|>", ["<|im_end|>", "<|endoftext|>"], ["<|im_start|>"]),
    "llama": (
        LLAMA, "<|begin_of_text|>", "<|eot_id|>", None, ["<|end_of_text|>", "<|eot_id|>"],
        ["<|start_header_id|>", "<|end_header_id|>"],
    ),
    "gemma3": (GEMMA, "<bos>", "<eos>", "<pad>", ["<eos>", "<end_of_turn>"], ["<start_of_turn>"]),
    "qwen2.5-vl": (
        QWEN_VL, None, "<|im_end|>", "<|endoftext|>", ["<|im_end|>", "<|endoftext|>"],
        ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
    ),
}  # fmt: skip
FAMILIES = tuple(TOKENS)


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on questions and solutions of the generated world, with the family's turn tokens."""
    template, begin, end, padding, turn_ends, others = TOKENS[family]
    special_tokens = list(dict.fromkeys(filter(None, [padding, end, begin, *turn_ends, *others])))
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    texts = [t for task in TASKS.values() for q in task.questions(200, "train", 0) for t in (q.text, q.solution)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=special_tokens, initial_alphabet=alphabet, show_progress=False
        ),
    )
    if family == "qwen3":
        trained.add_tokens(["<think>", "</think>"])  # not special tokens: they stay in decoded text
    return PreTrainedTokenizerFast(
        tokenizer_object=trained,
        bos_token=begin,
        eos_token=end,
        pad_token=padding,
        chat_template=template,
        model_max_length=SIZES["max_position_embeddings"],
        clean_up_tokenization_spaces=False,
    )


def build(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a checkpoint of `family` (one of FAMILIES) to `folder`. The same seed gives the same bytes."""
    family_tokenizer = tokenizer(family)
    ids = {
        "vocab_size": len(family_tokenizer),
        "bos_token_id": family_tokenizer.bos_token_id,
        "eos_token_id": family_tokenizer.eos_token_id,
        "pad_token_id": family_tokenizer.pad_token_id,
    }
    torch.manual_seed(seed)
    if family == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**SIZES, **ids, head_dim=32, tie_word_embeddings=True))
    elif family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**SIZES, **ids, head_dim=32, rope_theta=500_000.0))
    elif family == "gemma3":
        layer_types = ["sliding_attention", "full_attention"]
        model = Gemma3ForCausalLM(
            Gemma3TextConfig(
                **SIZES, **ids, head_dim=32, sliding_window=64, layer_types=layer_types, query_pre_attn_scalar=32
            )
        )
    else:
        rope = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [2, 3, 3]}
        pads = {f"{t}_token_id": family_tokenizer.convert_tokens_to_ids(f"<|{t}_pad|>") for t in ("image", "video")}
        edges = {
            f"vision_{e}_token_id": family_tokenizer.convert_tokens_to_ids(f"<|vision_{e}|>") for e in ("start", "end")
        }
        model = Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(
                text_config={**SIZES, **ids, "rope_parameters": rope},
                vision_config=VISION,
                tie_word_embeddings=True,
                **pads,
                **edges,
            )
        )
    # with the usual initial scale, random layers change so little that a model repeats its last token
    with torch.no_grad():
        for weights in model.get_decoder().layers.parameters():
            if weights.dim() == 2:
                weights *= 5
    model.generation_config.update(
        do_sample=True,
        temperature=0.6,
        top_k=20,
        top_p=0.95,
        bos_token_id=family_tokenizer.bos_token_id,
        pad_token_id=family_tokenizer.pad_token_id,
        eos_token_id=family_tokenizer.convert_tokens_to_ids(TOKENS[family][4]),
    )
    model.save_pretrained(folder)
    family_tokenizer.save_pretrained(folder)
    return folder

"""Supervised distillation by TRL: answer-only SFT, R-SFT and DA differ only in their examples (method, section 3).

The training libraries are imported in `train`, since this takes ten seconds and notebooks train in other processes.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agentark import StudyError
from agentark.distill.launch import route
from agentark.distill.settings import SFT
from agentark.models.chat import prompt_builder, prompt_ids, solve_prompt
from agentark.schemas import Trajectory


def example_tokens(pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerBase, system: str = "") -> float:
    """Mean tokens of a training example: the prompt, the target and the end of turn."""
    total = 0
    for (q, a), times in Counter(pairs).items():
        target = tokenizer(a, add_special_tokens=False).input_ids
        total += times * (len(prompt_ids(tokenizer, solve_prompt(q, system), 10**9)) + len(target) + 1)
    return total / len(pairs)


METHODS = ("sft", "rsft", "da")
ROOM = 0.8  # share of a GPU's free memory; the rest is for what `training_bytes` leaves out, such as logits


def examples(trajectories: Sequence[Trajectory], method: str) -> list[tuple[str, str]]:
    """(question, target) pairs for a method.

    sft: the bare answer, -log p(y* | x). rsft: the verified traces that extraction kept, one per question or all.
    da: a question's diverse traces, with the likelihood averaged over them: traces are repeated so that all questions
    have equal weight. Raises StudyError for an unknown method, or if extraction kept no trace for it.
    """
    if method not in METHODS:
        raise StudyError(f"method {method!r} is unknown; choose one of {', '.join(METHODS)}")
    if method == "da":
        chosen = [t for t in trajectories if t.for_da]
        traces = Counter(t.question_id for t in chosen)
        per_question = math.lcm(*traces.values())
        pairs = [(t.prompt, t.text) for t in chosen for _ in range(per_question // traces[t.question_id])]
    else:
        chosen = [t for t in trajectories if t.for_rsft]
        pairs = [(t.prompt, t.text if method == "rsft" else t.answer_only) for t in chosen]
    if not pairs:
        raise StudyError(
            f"method {method}: extraction kept no trace for it; debate more questions, or with another teacher"
        )
    return pairs


def train(
    base: Path, pairs: Sequence[tuple[str, str]], out: Path, seed: int, settings: SFT, method: str = "rsft"
) -> list[dict]:
    """Fine-tune `base` on question-target pairs, with loss on the target only, and save the student to `out`.

    If the pairs do not divide evenly among several processes, an epoch's last step is filled up with its first pairs.
    With settings.save_steps a killed training continues from its last checkpoint and ends with the same weights. On a
    GPU the training uses the installed kernels, see `gpu_arguments`. Returns the learning curve: step, loss (nats per token),
    mean_token_accuracy.
    """
    from datasets import Dataset
    from trl import SFTConfig

    from agentark.distill.students import Origin, save
    from agentark.distill.training import WholeBatches, arguments, checkpoints_of, curve, gathered_model, run, trainable

    origin = Origin(method, seed, {"base": base}, pairs, settings.recorded())
    checkpoints = checkpoints_of(origin, settings)
    shared = arguments(settings, seed, settings.batch_size, f"{method} {base.name} seed {seed}", checkpoints)
    model, tokenizer = trainable(base, seed, settings)
    check_turns(base, tokenizer, model.generation_config.eos_token_id)
    if (card := gpu()) and not route(settings)[0]:  # Unsloth has kernels of its own
        plain = model.get_base_model() if settings.lora_rank else model
        longest = example_tokens([max(pairs, key=lambda pair: len(pair[0] + pair[1]))], tokenizer, settings.system)
        chosen = gpu_arguments(plain, card, longest * shared["per_device_train_batch_size"])
        print("training on a GPU:", ", ".join(f"{name}={value}" for name, value in chosen.items()), flush=True)
        shared |= chosen
        if chosen["padding_free"]:
            plain.set_attn_implementation(card.attention)
    config = SFTConfig(
        **shared,
        max_steps=settings.steps,
        warmup_steps=settings.steps // 20,
        max_length=None,
        train_sampling_strategy="group_by_length",  # batches of similar lengths: less padding, same examples
        logging_steps=max(1, settings.steps // 40),
    )
    training = WholeBatches(
        model,
        config,
        train_dataset=Dataset.from_list(chats(pairs, tokenizer, settings.system)),
        processing_class=tokenizer,
    )
    run(training, checkpoints)
    save(gathered_model(training, base, seed, settings), tokenizer, out, origin)
    return curve(training.state.log_history, "loss", "mean_token_accuracy")


def chats(pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerBase, system: str = "") -> list[dict]:
    """Question-target pairs as chats for TRL (`prompt`, `completion`), with the same prompts as those of engines."""
    ask = prompt_builder(tokenizer, system)
    return [{"prompt": ask(q), "completion": [{"role": "assistant", "content": target}]} for q, target in pairs]


@dataclass(frozen=True)
class GPU:
    """A GPU's free memory and the kernels installed for training on it."""

    memory: float  # free bytes
    attention: str = ""  # transformers' name of a FlashAttention kernel; "": none is installed
    liger: frozenset[str] = frozenset()  # model types that have Liger kernels


def gpu() -> GPU | None:
    """The GPU of this process, or None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available
    from trl.import_utils import is_liger_kernel_available

    types: frozenset[str] = frozenset()
    if is_liger_kernel_available():
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

        types = frozenset(MODEL_TYPE_TO_APPLY_LIGER_FN)
    kernels = {"flash_attention_3": is_flash_attn_3_available, "flash_attention_2": is_flash_attn_2_available}
    return GPU(torch.cuda.mem_get_info()[0], next((name for name, there in kernels.items() if there()), ""), types)


def gpu_arguments(model: PreTrainedModel, card: GPU, tokens: float) -> dict[str, Any]:
    """Arguments of SFTConfig that make a training faster on `card`, with at most `tokens` tokens at a time.

    They do not change the examples of a step, as packing would, so the loss is the same up to rounding. Batches without
    padding need a FlashAttention kernel: SDPA would compute attention between examples and mask it. Image-text models
    use neither such batches nor Liger kernels, because their positions have three axes.
    """
    text = model.config.get_text_config() is model.config
    return {
        "padding_free": text and bool(card.attention) and model._supports_flash_attn,
        "use_liger_kernel": text and model.config.model_type in card.liger,
        "gradient_checkpointing": training_bytes(model, tokens) > ROOM * card.memory,
    }


def training_bytes(model: PreTrainedModel, tokens: float) -> float:
    """Bytes of a training that keeps all activations: an upper estimate, up to 2.5 times the bytes in use.

    Weights; 12 bytes per trained weight for its gradient and Adam's two moments; 2 bytes per token and layer for each
    value kept for the backward pass: the two norms and the inputs of adapters (17 widths), queries with their norm,
    repeated keys and values and the output of attention (12 widths of queries, 8 of keys), the MLP (5 of its widths).
    """
    config = model.config.get_text_config()
    heads, width = config.num_attention_heads, getattr(config, "head_dim", None)
    width = width or config.hidden_size // heads
    keys = getattr(config, "num_key_value_heads", None) or heads
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    values = 17 * config.hidden_size + (12 * heads + 8 * keys) * width + 5 * inner
    weights = sum(p.numel() * p.element_size() + 12 * p.numel() * p.requires_grad for p in model.parameters())
    return weights + 2 * values * config.num_hidden_layers * tokens


def check_turns(base: Path, tokenizer, ends: int | list[int] | None) -> None:
    """Raise StudyError unless the chat template keeps the answer and ends its turn with a token that stops generation.

    Otherwise the student never learns to stop (huggingface/trl#2059, #931).
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise StudyError(f"{base}: no chat template, as base models have none; name an instruct model")
    chat = [{"role": "user", "content": "how many ?"}, {"role": "assistant", "content": "answer : 3"}]
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise StudyError(f"{base}: its chat template refuses a question and an answer ({error})") from None
    _, kept, closing = text.rpartition("answer : 3")
    stops = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
    if not kept or stops.isdisjoint(tokenizer(closing, add_special_tokens=False).input_ids):
        what = "does not close the assistant's turn" if kept else "leaves out the answer"
        raise StudyError(
            f"{base}: its chat template {what}, so a student would not learn to stop; correct the template"
        )

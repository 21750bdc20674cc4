"""Chats: the first user message, a chat as token ids, and the tokens that end a turn."""

from jinja2 import TemplateError
from transformers import GenerationConfig, PreTrainedTokenizerBase

from agentark import StudyError


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], most: int) -> list[int]:
    """A chat as token ids by the model's own template.

    Raises StudyError if it has more than `most` tokens, or if the template is missing or refuses it
    (huggingface/open-r1#85: a base model without one).
    """
    if not tokenizer.chat_template:
        raise StudyError(
            f"{tokenizer.name_or_path}: no chat template, as base models have none; name an instruct model"
        )
    try:
        chat = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        roles = ", ".join(message["role"] for message in messages)
        raise StudyError(
            f"{tokenizer.name_or_path}: its chat template refuses messages of {roles} ({error}); use order=shared or "
            "another model"
        ) from None
    ids = tokenizer(chat, add_special_tokens=False).input_ids
    if len(ids) > most:
        start = " ".join(messages[-1]["content"].split())[:40]
        raise StudyError(
            f"prompt {start!r}...: {len(ids)} tokens, but the model's window leaves room for {most}; "
            "shorten it, use fewer agents, or lower max_tokens"
        )
    return ids


def ends_of_turn(settings: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end a turn: the tokenizer's, and those in the checkpoint's generation settings (as in Gemma)."""
    ends = settings.eos_token_id
    return sorted({tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None})


Messages = list[dict[str, str]]


def without_thinking(trace: str) -> str:
    """A trace without the marked thinking before it (as in Qwen3), which other agents do not see."""
    return trace.rpartition("</think>")[2].strip() if "</think>" in trace else trace


def solve_prompt(question: str) -> Messages:
    """The prompt of round 1: the question alone."""
    return [{"role": "user", "content": question}]

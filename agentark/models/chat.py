"""Chats: the first user message, a chat as token ids, and the tokens that end a turn."""

from collections.abc import Callable
from contextlib import suppress

from jinja2 import TemplateError
from transformers import GenerationConfig, PreTrainedTokenizerBase

from agentark import StudyError

Messages = list[dict[str, str]]

# What templates call the switch: Qwen3 and most others enable_thinking, DeepSeek-V3.1 and Granite thinking. Templates
# ignore names that they do not know.
SWITCH = {"": {}, **{name: {"enable_thinking": on, "thinking": on} for name, on in (("on", True), ("off", False))}}
REFUSED = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError)  # what templates raise


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Messages, most: int, thinking: str = "") -> list[int]:
    """A chat as token ids by the model's own template. thinking: a key of SWITCH.

    Raises StudyError if it has more than `most` tokens, or if the template is missing or refuses it
    (huggingface/open-r1#85: a base model without one).
    """
    template = tokenizer.chat_template
    if not template or (isinstance(template, str) and not template.strip()):
        raise StudyError(
            f"{tokenizer.name_or_path}: no chat template, as base models have none; name an instruct model"
        )
    try:
        chat = rendered(tokenizer, messages, thinking)
    except REFUSED as error:
        roles = ", ".join(message["role"] for message in messages)
        raise StudyError(
            f"{tokenizer.name_or_path}: its chat template refuses messages of {roles} ({error}); use order=shared or "
            "another model"
        ) from None
    if not chat:
        raise StudyError(f"{tokenizer.name_or_path}: its chat template makes nothing of a chat; name another model")
    ids = tokenizer(chat, add_special_tokens=False).input_ids
    if len(ids) > most:
        start = " ".join(messages[-1]["content"].split())[:40]
        raise StudyError(
            f"prompt {start!r}...: {len(ids)} tokens, but the model's window leaves room for {most}; "
            "shorten it, use fewer agents, or lower max_tokens"
        )
    return ids


def rendered(tokenizer: PreTrainedTokenizerBase, messages: Messages, thinking: str) -> str:
    """A chat in the template's form, see `taken`."""
    return taken(tokenizer, messages, thinking)[1]


def accepted(tokenizer: PreTrainedTokenizerBase, messages: Messages, thinking: str = "") -> Messages:
    """A chat as the template takes it, see `taken`."""
    return taken(tokenizer, messages, thinking)[0] if messages[0]["role"] == "system" else messages


def taken(tokenizer: PreTrainedTokenizerBase, messages: Messages, thinking: str) -> tuple[Messages, str]:
    """A chat as the template takes it, and in the template's form. A system prompt that the template refuses (Gemma 2) or
    drops goes to the first message."""
    how = {"tokenize": False, "add_generation_prompt": True, **SWITCH[thinking]}
    if messages[0]["role"] == "system":
        with suppress(*REFUSED):
            chat = str(tokenizer.apply_chat_template(messages, **how))
            if messages[0]["content"].strip() in chat:
                return messages, chat
        messages = without_system(messages)
    return messages, str(tokenizer.apply_chat_template(messages, **how))


def without_system(messages: Messages) -> Messages:
    """A chat that begins with a system prompt, with its text before that of the first user message instead."""
    system, first, *rest = messages
    return [first | {"content": f"{system['content']}\n\n{first['content']}"}, *rest]


def ends_of_turn(settings: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end a turn: the tokenizer's, and those in the checkpoint's generation settings (as in Gemma)."""
    ends = settings.eos_token_id
    return sorted({tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None})


def asking(tokenizer: PreTrainedTokenizerBase, system: str, thinking: str = "") -> Callable[[str], Messages]:
    """The function from a question's text to its prompt in round 1, for trainers: see `solve_prompt`, `accepted`."""
    return lambda question: accepted(tokenizer, solve_prompt(question, system), thinking)


def solve_prompt(question: str, system: str = "") -> Messages:
    """The prompt of round 1: the question alone, after a system prompt if there is one."""
    return [*system_prompt(system), {"role": "user", "content": question}]


def system_prompt(text: str) -> Messages:
    """A system prompt as the beginning of a chat; none for ""."""
    return [{"role": "system", "content": text}] if text else []

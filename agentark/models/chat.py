"""Chats: the first user message, a chat as token ids, and the tokens that end a turn."""

from collections.abc import Callable
from contextlib import suppress

from jinja2 import TemplateError
from transformers import GenerationConfig, PreTrainedTokenizerBase

from agentark import StudyError

Messages = list[dict[str, str]]

# The template argument that switches thinking: enable_thinking in Qwen3 and most others, thinking in DeepSeek-V3.1 and
# Granite. Templates ignore arguments that they do not use.
SWITCH = {"": {}, **{name: {"enable_thinking": on, "thinking": on} for name, on in (("on", True), ("off", False))}}
REFUSED = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError)  # what templates raise


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Messages, most: int, thinking: str = "") -> list[int]:
    """A chat as token ids by the model's own template. thinking: a key of SWITCH.

    Raises StudyError if the chat has more than `most` tokens, or if the template is missing or refuses the chat
    (huggingface/open-r1#85: a base model without a template).
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
    """A chat as text in the template's form, see `template_form`."""
    return template_form(tokenizer, messages, thinking)[1]


def accepted_chat(tokenizer: PreTrainedTokenizerBase, messages: Messages, thinking: str = "") -> Messages:
    """A chat in a form that the template accepts, see `template_form`."""
    return template_form(tokenizer, messages, thinking)[0] if messages[0]["role"] == "system" else messages


def template_form(tokenizer: PreTrainedTokenizerBase, messages: Messages, thinking: str) -> tuple[Messages, str]:
    """A chat in a form that the template accepts, and its text in the template's form. A system prompt that the
    template refuses (Gemma 2) or drops is moved to the first user message."""
    options = {"tokenize": False, "add_generation_prompt": True, **SWITCH[thinking]}
    if messages[0]["role"] == "system":
        with suppress(*REFUSED):
            chat = str(tokenizer.apply_chat_template(messages, **options))
            if messages[0]["content"].strip() in chat:
                return messages, chat
        messages = without_system(messages)
    return messages, str(tokenizer.apply_chat_template(messages, **options))


def without_system(messages: Messages) -> Messages:
    """Move the text of a chat's system prompt to the start of the first user message."""
    system, first, *rest = messages
    return [first | {"content": f"{system['content']}\n\n{first['content']}"}, *rest]


def ends_of_turn(settings: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end a turn: the tokenizer's, and those in the checkpoint's generation settings (as in Gemma)."""
    ends = settings.eos_token_id
    return sorted({tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None})


def prompt_builder(tokenizer: PreTrainedTokenizerBase, system: str, thinking: str = "") -> Callable[[str], Messages]:
    """The function from a question's text to its prompt in round 1, for trainers: see `solve_prompt`, `accepted_chat`."""
    return lambda question: accepted_chat(tokenizer, solve_prompt(question, system), thinking)


def solve_prompt(question: str, system: str = "") -> Messages:
    """The prompt of round 1: only the question, after a system prompt if there is one."""
    return [*system_prompt(system), {"role": "user", "content": question}]


def system_prompt(text: str) -> Messages:
    """A system prompt as the beginning of a chat; [] for ""."""
    return [{"role": "system", "content": text}] if text else []

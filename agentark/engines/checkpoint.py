"""What engines must agree on about a checkpoint: where it is, which it is, its chats as tokens, what ends a turn."""

import hashlib
from pathlib import Path

from huggingface_hub import snapshot_download
from transformers import GenerationConfig, PreTrainedTokenizerBase

from agentark import StudyError, root


def located(name: str) -> Path:
    """The folder of a model: below the project's (or absolute), else the hub's copy. Raises StudyError without either."""
    folder = root() / name
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(name))
    except Exception as error:  # a name in no hub format, no copy while offline, no such model, no right to it
        reason = str(error).splitlines()[0]
        raise StudyError(f"{name}: no folder, nor to be had from the hub ({reason}); see `hf download`") from None


def digest(folder: Path, *facts: str) -> str:
    """SHA-256 over `facts` and a model's files (weights, tokenizer, template, configuration), names included."""
    sha = hashlib.sha256(" ".join(facts).encode())
    for file in sorted(Path(folder).glob("*")):
        if file.suffix in (".safetensors", ".json", ".jinja"):
            sha.update(file.name.encode())
            with file.open("rb") as content:
                while part := content.read(2**24):
                    sha.update(part)
    return sha.hexdigest()


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], most: int) -> list[int]:
    """A chat as token ids by the model's own template. Raises StudyError if it has more than `most` tokens."""
    chat = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(chat, add_special_tokens=False).input_ids
    if len(ids) > most:
        start = " ".join(messages[-1]["content"].split())[:40]
        raise StudyError(
            f"prompt {start!r}...: {len(ids)} tokens, but the model's window leaves room for {most}; "
            "shorten it, ask fewer agents, or lower the tokens a reply may have"
        )
    return ids


def ends_of_turn(settings: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end a turn: the tokenizer's, and those of the checkpoint's generation settings (Gemma's, say)."""
    told = settings.eos_token_id
    return sorted({tokenizer.eos_token_id, *(told if isinstance(told, list) else [told])} - {None})

"""Marked thinking: the text that a model writes before its answer, between the markers of its family.

In: the text of a reply, or its tokens and the prompt's tokens. Out: the thought and the answer.
"""

import re

from transformers import PreTrainedTokenizerBase

# Opening marker -> closing marker.
MARKERS = {
    "<think>": "</think>",  # Qwen3, DeepSeek-R1, SmolLM3 and most others
    "<thought>": "</thought>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",  # Magistral
    "<|channel|>analysis": "<|channel|>final<|message|>",  # gpt-oss
    "<|channel>thought": "<channel|>",  # Gemma 4
}
OPENING, CLOSING = (re.compile("|".join(map(re.escape, markers))) for markers in (MARKERS, MARKERS.values()))
OPENED = re.compile(rf"(?:{OPENING.pattern})\s*\Z")
MARK = re.compile(rf"{OPENING.pattern}|{CLOSING.pattern}")
TAIL = 32  # tokens at the end of a prompt that may contain an opening marker; every marker is shorter


def split(text: str) -> tuple[str, str | None]:
    """Split a reply into the thought with its markers and the answer, which is None if the thought does not end.

    A text without markers is returned unchanged as the answer. A second closing marker at the end of a reply is
    dropped, since some models write it twice.
    """
    closings = list(CLOSING.finditer(text))
    if len(closings) > 1 and not text[closings[-1].end() :].strip():
        answer = text[closings[-2].end() : closings[-1].start()]
        if answer.strip() and not OPENING.search(answer):
            return text[: closings[-2].end()], answer.strip()
    end = closings[-1].end() if closings else 0
    if OPENING.search(text, end):
        return text, None
    return text[:end], text[end:].strip() if end else text


def written(tokenizer: PreTrainedTokenizerBase, prompt: list[int], reply: list[int]) -> str:
    """Decode a reply's tokens, with an opening marker in front if the prompt ends with it (QwQ, Qwen3-Thinking).

    Special tokens are removed, unless they mark a thought (Magistral, gpt-oss).
    """
    opened = OPENED.search(str(tokenizer.decode(prompt[-TAIL:], skip_special_tokens=False)))
    text, with_special = (str(tokenizer.decode(reply, skip_special_tokens=skipped)) for skipped in (True, False))
    if len(MARK.findall(with_special)) > len(MARK.findall(text)):
        text = with_special
    return (opened[0] if opened else "") + text

"""Marked thinking: what a model writes before its answer, between the markers of its family.

In: the text of a reply, or its tokens and those of its prompt. Out: the thought and the answer, apart.
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
TAIL = 32  # tokens at the end of a prompt, more than a marker has


def split(text: str) -> tuple[str, str | None]:
    """A reply's thought, with its markers, and the answer after it; None if the thought does not end.

    A text without markers is an answer and stays as it is. A closing marker at the end of an answer ends no thought: some
    models write it twice.
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
    """The text of a reply's tokens, after the opening marker if the prompt ends with one (QwQ, Qwen3-Thinking).

    Special tokens are left out, unless they mark a thought (Magistral, gpt-oss).
    """
    opened = OPENED.search(str(tokenizer.decode(prompt[-TAIL:], skip_special_tokens=False)))
    text, whole = (str(tokenizer.decode(reply, skip_special_tokens=skipped)) for skipped in (True, False))
    if len(MARK.findall(whole)) > len(MARK.findall(text)):
        text = whole
    return (opened[0] if opened else "") + text

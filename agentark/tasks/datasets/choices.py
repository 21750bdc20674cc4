"""The choices of a user's own question, in the forms in which files have them, as lines with letters."""

import ast
import json
import math
import re
from collections.abc import Iterator
from fractions import Fraction

from agentark import StudyError
from agentark.answers.correct import words
from agentark.tasks.datasets.content import content_of
from agentark.tasks.datasets.formats import Fields

LETTERS = "ABCDEFGHIJ"
MARKED = re.compile(r"\(?([A-Ja-j])[).:](?:\s+|(?<=\)))(.+)", re.DOTALL)  # "A) x", "(b) x", "C. x"
INLINE = re.compile(r"(?:^|(?<=\s))\(?([A-Ja-j])[).:]\s+")  # marks of choices in one text
# "b", "(B)", "B)", "B) cow", "Option B", "Answer: B"
LETTER = re.compile(
    r"(?:answer\s*:?\s*)?(?:option\s+)?[(\[]?([A-J])(?:[)\]]?[.:]?|[)\].:]+\s*(.+))", re.IGNORECASE | re.DOTALL
)


def chosen(text: str, answer: str, given: object, where: str) -> Fields:
    """Text, answer and content of a question with choices; the answer is a letter, or one of the choices.

    The content has the choices in any order: the same question with other choices is another question.
    """
    choices = unmarked(listed(given, where))
    if not 2 <= len(choices) <= len(LETTERS):
        raise StudyError(f"column {where} has {len(choices)} choices, not 2 to {len(LETTERS)}")
    lines = "\n".join(f"{one}) {choice}" for one, choice in zip(LETTERS, choices, strict=False))
    stem = content_of(text)
    among = " ; ".join(sorted(content_of(choice) or words(choice) for choice in choices))
    return {"text": f"{text}\n{lines}", "answer": letter_of(answer, choices), "content": stem and f"{stem} | {among}"}


def letter_of(answer: str, choices: list[str]) -> str:
    """The letter of the right choice. Raises StudyError if the answer is none of the choices, or could be two."""
    letters = LETTERS[: len(choices)]
    named = {letter for letter, choice in zip(letters, choices, strict=True) if choice == answer}
    named = named or {letter for letter, choice in zip(letters, choices, strict=True) if form(choice) == form(answer)}
    match = LETTER.fullmatch(answer)
    at = letters.find(match[1].upper()) if match else -1
    if match and at >= 0 and (not match[2] or form(match[2]) == form(choices[at])):
        named.add(letters[at])
    if not named:
        raise StudyError(
            f"the answer {answer!r:.60} is neither a letter from A to {letters[-1]} nor one of the choices"
        )
    if len(named) > 1:
        raise StudyError(
            f"the answer {answer!r:.60} could be {' or '.join(sorted(named))}; give the text of the right one"
        )
    return named.pop()


def form(choice: str) -> str:
    """A choice for comparison: 8.0 is 8, other texts are compared as words."""
    try:
        return str(Fraction(choice.replace(",", "")))
    except (ValueError, ZeroDivisionError):
        return words(choice) or choice


def listed(given: object, where: str) -> list[str]:
    """The choices as texts: from a list, from letters with texts, or from a text that lists them (a field of CSV)."""
    if isinstance(given, dict):
        if isinstance(given.get("text"), list):  # {"text": [...], "label": [...]}, as on the hub
            given = given["text"]
        elif given and sorted(given) == list(LETTERS[: len(given)]):
            given = [given[letter] for letter in sorted(given)]
    if isinstance(given, str):
        given = next((found for found in readings(given) if len(found) > 1), None)
    if not isinstance(given, list | tuple):
        raise StudyError(f'column {where} is not a list of texts; write it as ["one", "two"] or one | two')
    texts = [written(choice) for choice in given]
    if not all(texts):
        raise StudyError(f"column {where} is not a list of texts: choice {texts.index('') + 1} is empty or no text")
    return texts


def readings(text: str) -> Iterator[list]:
    """The lists that a text may be: JSON, Python, lines, or texts with | or ; or letters or commas between them."""
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, dict):
            found = list(found.values()) if sorted(found) == list(LETTERS[: len(found)]) else []
        if isinstance(found, list | tuple):
            yield list(found)
            return
    for separator in ("\n", "|", ";"):
        yield [part.strip() for part in text.split(separator) if part.strip()]
    marks = list(INLINE.finditer(text.strip()))
    if marks and "".join(mark[1] for mark in marks).upper() == LETTERS[: len(marks)]:
        ends = [*(mark.start() for mark in marks[1:]), None]
        yield [text.strip()[mark.start() : end].strip(" ,\t") for mark, end in zip(marks, ends, strict=True)]
    yield [part.strip() for part in text.split(",")]


def written(choice: object) -> str:
    """A choice as text; a number is written out. "" for anything else."""
    if isinstance(choice, bool):
        return str(choice).lower()
    if isinstance(choice, int) or (isinstance(choice, float) and math.isfinite(choice)):
        return str(choice)
    return choice.strip() if isinstance(choice, str) else ""


def unmarked(choices: list[str]) -> list[str]:
    """Choices without their own letters, in the order of the letters, if each choice has one."""
    marks = [MARKED.fullmatch(choice) for choice in choices]
    by_letter = {mark[1].upper(): mark[2].strip() for mark in marks if mark}
    whole = sorted(by_letter) == list(LETTERS[: len(choices)])
    return [by_letter[letter] for letter in sorted(by_letter)] if whole else choices

"""The choices of a user's own question, in the forms in which files have them, as lines with letters."""

import ast
import io
import json
import math
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from agentark import StudyError
from agentark.answers.correct import words
from agentark.tasks.datasets.content import content_of
from agentark.tasks.datasets.formats import Fields, number_in
from agentark.tasks.datasets.rows import Raw

LETTERS = "ABCDEFGHIJ"
MARKED = re.compile(r"\(?([A-Ja-j])[).:](?:\s+|(?<=\)))(.+)", re.DOTALL)  # "A) x", "(b) x", "C. x"
INLINE = re.compile(r"(?:^|(?<=\s))\(?([A-Ja-j])[).:]\s+")  # marks of choices in one text
# "b", "(B)", "B)", "B) cow", "Option B", "Answer: B"
LETTER = re.compile(
    r"(?:answer\s*:?\s*)?(?:option\s+)?[(\[]?([A-J])(?:[)\]]?[.:]?|[)\].:]+\s*(.+))", re.IGNORECASE | re.DOTALL
)

FRAME = "()[].: "  # around a label
INDEX = re.compile(r"(\d\d?)(?:\.0)?")
SHORT = 4  # characters
TEXTS = -1  # see `base_of`


def chosen(text: str, answer: str, given: object, where: str) -> Fields:
    """Text, answer and content of a question with choices; the answer is a letter, a label, or one of the choices.

    The content has the choices in any order: the same question with other choices is another question.
    """
    choices, labels = listed(given, where)
    if not 2 <= len(choices) <= len(LETTERS):
        raise StudyError(f"column {where} has {len(choices)} choices, not 2 to {len(LETTERS)}")
    lines = "\n".join(f"{one}) {choice}" for one, choice in zip(LETTERS, choices, strict=False))
    stem = content_of(text)
    among = " ; ".join(sorted(content_of(choice) or words(choice) for choice in choices))
    letter = letter_of(answer, choices, labels)
    return {"text": f"{text}\n{lines}", "answer": letter, "content": stem and f"{stem} | {among}"}


def letter_of(answer: str, choices: list[str], labels: Sequence[str] = ()) -> str:
    """The letter of the right choice. Raises StudyError if the answer is none of the choices, or could be two.

    labels: the file's own, which come first: with the labels 1 to 4 the answer 2 is no text.
    """
    letters = LETTERS[: len(choices)]
    if (label := answer.strip(FRAME)) in labels:
        named = {letters[labels.index(label)]}
    else:
        named = texts_named(answer, choices)
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
    (letter,) = named
    place = index_of(answer)
    if not labels and place is not None and place < len(letters) and letters[place] != letter:
        raise StudyError(f"the answer {answer} could be the text or the place of a choice; give the letter")
    right = choices[letters.index(letter)]
    if sum(alike(right, choice) for choice in choices) > 1:
        raise StudyError(f"two choices are {right!r:.60}, so the answer is ambiguous; correct one of them")
    return letter


def texts_named(answer: str, choices: list[str]) -> set[str]:
    """The letters of the choices whose text an answer is."""
    by_letter = dict(zip(LETTERS, choices, strict=False))
    exact = {letter for letter, choice in by_letter.items() if choice == answer}
    return exact or {letter for letter, choice in by_letter.items() if form(choice) == form(answer)}


def index_of(answer: object) -> int | None:
    """An answer that may be a choice's place, as a number: 2, 2.0 or "2"."""
    match = INDEX.fullmatch(written(answer))
    return int(match[1]) if match else None


def placed(raws: Sequence[Raw], columns: Mapping[str, str]) -> list[Raw]:
    """Answers that are places of choices (cais/mmlu counts them from 0) as letters with their texts.

    A single row does not show whether 2 is a place or a text, but all rows of a file together do: 0 and a number that
    is no text are places, a number too large for a place is a text. Without either, or with both, `letter_of` sets
    aside what could be both.
    """
    found = [plain_choices(raw, columns) for raw in raws]
    by_file: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    for raw, row in zip(raws, found, strict=True):
        if row and (index_of(row[0]) is not None or names_one(*row)):
            by_file[raw.file].append(row)
    bases = {file: base_of(rows) for file, rows in by_file.items()}
    letters = [row and in_letters(*row, bases.get(raw.file)) for raw, row in zip(raws, found, strict=True)]
    return [
        replace(raw, data={**raw.data, columns["answer"]: letter}) if letter else raw
        for raw, letter in zip(raws, letters, strict=True)
    ]


def plain_choices(raw: Raw, columns: Mapping[str, str]) -> tuple[str, list[str]] | None:
    """A row's answer and its choices; None without an answer or without readable choices, and if they have labels."""
    answer = written(raw.data.get(columns["answer"]))
    try:
        choices, labels = listed(raw.data.get(columns["choices"]), columns["choices"])
    except StudyError:
        return None
    kind = raw.data.get(columns["kind"])
    other = isinstance(kind, str) and kind not in ("", "choice")
    plain = 2 <= len(choices) <= len(LETTERS) and not labels and not other
    return (answer, choices) if answer and plain else None


def names_one(answer: str, choices: list[str]) -> bool:
    try:
        return bool(letter_of(answer, choices))
    except StudyError:
        return False


def base_of(rows: Sequence[tuple[str, list[str]]]) -> int | None:
    """From where the answers of a file count its choices, 0 or 1; TEXTS if its numbers are texts; None if unknown."""
    read = [(index_of(answer), len(choices), bool(texts_named(answer, choices))) for answer, choices in rows]
    numbers = [(number, n, text) for number, n, text in read if number is not None and (text or number <= n)]
    only_numbers = all(number is not None for number, _, _ in read)
    for base in (0, 1):
        fit = all(base <= number < n + base for number, n, _ in numbers)
        if only_numbers and fit and any(number == 0 or not text for number, _, text in numbers):
            return base
    shown = not only_numbers or any(number >= n for number, n, _ in numbers)
    return TEXTS if shown and all(text for _, _, text in numbers) else None


def in_letters(answer: str, choices: list[str], base: int | None) -> str:
    """An answer that is a number, as a letter with its text; "" for any other, or if the base is not known."""
    at = index_of(answer)
    if at is None or base is None:
        return ""
    if base == TEXTS:
        named = texts_named(answer, choices)
        at = LETTERS.index(named.pop()) if len(named) == 1 else -1
    else:
        at -= base
    return f"{LETTERS[at]}) {choices[at]}" if 0 <= at < len(choices) else ""


def form(choice: str) -> str:
    """A choice for comparison: 8.0 is 8, other texts are compared as words."""
    number = number_in(choice)
    return words(choice) or choice if number is None else str(number)


def alike(one: str, other: str) -> bool:
    """Whether two choices are the same; in a short one the case counts, as in the genotypes Aa and aa."""
    if len(one) <= SHORT and one.lower() == other.lower():
        return one == other
    return form(one) == form(other)


def listed(given: object, where: str) -> tuple[list[str], list[str]]:
    """The choices as texts, and their labels if the file has its own: from a list, from labels with texts, or from a
    text that lists them (a field of CSV)."""
    if isinstance(given, str):
        given = next((reading for reading in readings(given) if len(reading) > 1), None)
    names, found = labelled(given)
    if not isinstance(found, list | tuple):
        raise StudyError(f'column {where} is not a list of texts; write it as ["one", "two"] or one | two')
    texts = [written(choice) for choice in found]
    if not all(texts):
        raise StudyError(f"column {where} is not a list of texts: choice {texts.index('') + 1} is empty or no text")
    labels = [written(name).strip(FRAME) for name in names]
    if not labels:
        return unmarked(texts), []
    if len(labels) != len(texts) or len({*labels}) < len(labels) or not all(labels):
        raise StudyError(f"column {where} has {len(texts)} choices, but not one label for each")
    if sorted(label.upper() for label in labels) == list(LETTERS[: len(labels)]):
        by_letter = sorted(zip(labels, texts, strict=True), key=lambda pair: pair[0].upper())
        return unmarked([text for _, text in by_letter]), [label for label, _ in by_letter]
    return texts, labels


def labelled(given: object) -> tuple[Sequence, object]:
    """Labels and texts of choices that have labels: two lists (ARC), one record for each, or a text by each label."""
    if isinstance(given, list) and given and all(isinstance(one, dict) and "text" in one for one in given):
        labels = [one["label"] for one in given if one.get("label") is not None]
        return labels, [one["text"] for one in given]
    if not isinstance(given, dict):
        return [], given
    if isinstance(given.get("text"), list | tuple):
        label = given.get("label")
        return label if isinstance(label, list | tuple) else [], given["text"]
    by_label = {str(label).upper(): text for label, text in given.items() if text is not None}
    names = sorted(by_label, key=lambda name: (len(name), name))
    usual = (list(LETTERS), *([str(n) for n in range(first, first + 10)] for first in (0, 1)))
    if any(names == one[: len(names)] for one in usual):
        return names, [by_label[name] for name in names]
    return [], None


def readings(text: str) -> Iterator[list | dict]:
    """The lists that a text may be: JSON, Python, NumPy, lines, or texts with | or ; or letters or commas between them.

    A text that begins as a list and can only be divided within brackets is a damaged list.
    """
    text = text.strip()
    for parse in (json.loads, from_python):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
            continue
        if isinstance(found, dict | list | tuple):
            yield found if isinstance(found, dict) else list(found)
            return
    for separator in ("\n", "|", ";"):
        yield unbroken(text, text.split(separator))
    marks = list(INLINE.finditer(text))
    if marks and "".join(mark[1] for mark in marks).upper() == LETTERS[: len(marks)]:
        ends = [*(mark.start() for mark in marks[1:]), None]
        yield [text[mark.start() : end].strip(" ,\t") for mark, end in zip(marks, ends, strict=True)]
    yield unbroken(text, text.split(","))


def from_python(text: str) -> object:
    """A Python value, also with NumPy's arrays: array(['a', 'b'], dtype=object), or ['a' 'b'] without commas."""
    text = re.sub(r"\b(?:np\.|numpy\.)?array\((\[.*?\])(?:,\s*dtype=[\w<>.'\"]+)?\)", r"\1", text, flags=re.DOTALL)
    tokens = list(tokenize.generate_tokens(io.StringIO(f"({text})").readline))
    tokens = [one for one in tokens if one.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT)]
    joined = [f",{b.string}" if a.type == b.type == tokenize.STRING else b.string for a, b in pairwise(tokens)]
    return ast.literal_eval(" ".join([tokens[0].string, *joined]))


def unbroken(text: str, parts: list[str]) -> list[str]:
    """The parts of a text; none if it begins with a bracket and a part has one without its other half."""
    listed = re.match(r"[\[{(]|(?:np\.|numpy\.)?array\(", text)
    if listed and any(len(re.findall(r"[\[{(]", part)) != len(re.findall(r"[\]})]", part)) for part in parts):
        return []
    return [part.strip() for part in parts if part.strip()]


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

"""Convert the choices of a user's question, in the formats found in files, to lines with letters."""

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

FRAME = "()[].: "  # characters stripped from a label
INDEX = re.compile(r"(\d\d?)(?:\.0)?")
SHORT = 4  # characters; see `same_choice`
TEXTS = -1  # see `base_of`


def choice_fields(text: str, answer: str, given: object, where: str) -> Fields:
    """Text, answer and content of a question with choices; the answer is a letter, a label, or one of the choices.

    The content includes the choices, sorted: other choices make another question, another order does not.
    """
    choices, labels = listed(given, where)
    if not 2 <= len(choices) <= len(LETTERS):
        raise StudyError(f"column {where} has {len(choices)} choices, not 2 to {len(LETTERS)}")
    lines = "\n".join(f"{mark}) {choice}" for mark, choice in zip(LETTERS, choices, strict=False))
    stem = content_of(text)
    options = " ; ".join(sorted(content_of(choice) or words(choice) for choice in choices))
    letter = letter_of(answer, choices, labels)
    return {"text": f"{text}\n{lines}", "answer": letter, "content": stem and f"{stem} | {options}"}


def letter_of(answer: str, choices: list[str], labels: Sequence[str] = ()) -> str:
    """The letter of the right choice. Raises StudyError if the answer fits none of the choices, or more than one.

    labels: the file's own labels. They take precedence: with labels 1 to 4 the answer 2 is a label, not a text.
    """
    letters = LETTERS[: len(choices)]
    if (label := answer.strip(FRAME)) in labels:
        named = {letters[labels.index(label)]}
    else:
        named = texts_named(answer, choices)
        match = LETTER.fullmatch(answer)
        at = letters.find(match[1].upper()) if match else -1
        if match and at >= 0 and (not match[2] or normal_form(match[2]) == normal_form(choices[at])):
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
    if sum(same_choice(right, choice) for choice in choices) > 1:
        raise StudyError(f"two choices are {right!r:.60}, so the answer is ambiguous; correct one of them")
    return letter


def texts_named(answer: str, choices: list[str]) -> set[str]:
    """The letters of the choices whose text equals an answer: exactly or, if none does, in the form of `normal_form`."""
    by_letter = dict(zip(LETTERS, choices, strict=False))
    exact = {letter for letter, choice in by_letter.items() if choice == answer}
    return exact or {letter for letter, choice in by_letter.items() if normal_form(choice) == normal_form(answer)}


def index_of(answer: object) -> int | None:
    """The number in an answer that may be a choice's index: 2, 2.0 or "2"; None for other answers."""
    match = INDEX.fullmatch(written(answer))
    return int(match[1]) if match else None


def letters_for_indices(raws: Sequence[Raw], columns: Mapping[str, str]) -> list[Raw]:
    """Replace answers that are indices of choices (cais/mmlu counts from 0) by letters with their texts.

    A single row does not show whether 2 is an index or a text, but all rows of a file together do: 0 and a number that
    is not a text are indices, a number too large for an index is a text. If a file has neither case, or both,
    `letter_of` rejects the ambiguous answers.
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
    """A row's answer and choices; None without an answer or readable choices, with labels, or for another kind."""
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
    """The index of the first choice in a file's answers, 0 or 1; TEXTS if its numbers are texts; None if unknown."""
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
    """The letter and text of the choice that a numeric answer names; "" for other answers or an unknown base."""
    at = index_of(answer)
    if at is None or base is None:
        return ""
    if base == TEXTS:
        named = texts_named(answer, choices)
        at = LETTERS.index(named.pop()) if len(named) == 1 else -1
    else:
        at -= base
    return f"{LETTERS[at]}) {choices[at]}" if 0 <= at < len(choices) else ""


def normal_form(choice: str) -> str:
    """A choice in normal form, for comparison: a number as text (8.0 as 8), any other text as its words."""
    number = number_in(choice)
    return words(choice) or choice if number is None else str(number)


def same_choice(one: str, other: str) -> bool:
    """Whether two choices are equal. In texts of up to SHORT characters case matters, as in the genotypes Aa and aa."""
    if len(one) <= SHORT and one.lower() == other.lower():
        return one == other
    return normal_form(one) == normal_form(other)


def listed(given: object, where: str) -> tuple[list[str], list[str]]:
    """The choices as texts, and their labels if the file has its own. given: a list, labels with texts, or a text that
    lists the choices (a CSV field)."""
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
    """Split choices into labels and texts: two lists (ARC), a record per choice, or a mapping from label to text."""
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
    """Yield readings of a text as a list: JSON, Python, NumPy, or texts separated by newlines, |, ;, letters or commas.

    A text that begins like a list and can only be split inside brackets is a damaged list; its readings are empty.
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
    """A Python value, which may contain NumPy arrays: array(['a', 'b'], dtype=object), or ['a' 'b'] without commas."""
    text = re.sub(r"\b(?:np\.|numpy\.)?array\((\[.*?\])(?:,\s*dtype=[\w<>.'\"]+)?\)", r"\1", text, flags=re.DOTALL)
    tokens = list(tokenize.generate_tokens(io.StringIO(f"({text})").readline))
    tokens = [one for one in tokens if one.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT)]
    joined = [f",{b.string}" if a.type == b.type == tokenize.STRING else b.string for a, b in pairwise(tokens)]
    return ast.literal_eval(" ".join([tokens[0].string, *joined]))


def unbroken(text: str, parts: list[str]) -> list[str]:
    """The non-empty parts of a text; [] if the text begins like a list and a part has unbalanced brackets."""
    listed = re.match(r"[\[{(]|(?:np\.|numpy\.)?array\(", text)
    if listed and any(len(re.findall(r"[\[{(]", part)) != len(re.findall(r"[\]})]", part)) for part in parts):
        return []
    return [part.strip() for part in parts if part.strip()]


def written(choice: object) -> str:
    """A choice as text: strings, numbers and booleans. "" for anything else."""
    if isinstance(choice, bool):
        return str(choice).lower()
    if isinstance(choice, int) or (isinstance(choice, float) and math.isfinite(choice)):
        return str(choice)
    return choice.strip() if isinstance(choice, str) else ""


def unmarked(choices: list[str]) -> list[str]:
    """Remove the choices' own letters and sort by them, if the letters are complete; otherwise return the choices."""
    marks = [MARKED.fullmatch(choice) for choice in choices]
    by_letter = {mark[1].upper(): mark[2].strip() for mark in marks if mark}
    complete = sorted(by_letter) == list(LETTERS[: len(choices)])
    return [by_letter[letter] for letter in sorted(by_letter)] if complete else choices

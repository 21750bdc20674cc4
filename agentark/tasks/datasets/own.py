"""A user's own questions: a file, a folder or a hub data set with one question per row.

A row has a question and an answer, and optionally their kind, a worked solution, and choices. Columns may have other
names (`COLUMNS`). A single file gives all splits, by the hash of each question's content: about 80 % training, 5 %
validation and 15 % test questions. Folders and hub data sets have a training and a test part of their own.
"""

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from agentark import StudyError
from agentark.answers import gradable
from agentark.answers.correct import words
from agentark.tasks.datasets.formats import Fields, asked, column, text_in
from agentark.tasks.datasets.rows import READERS

COLUMNS = {name: name for name in ("question", "answer", "kind", "solution", "choices")}
KINDS = ("number", "latex", "choice", "text")
LETTERS = "ABCDEFGHIJ"


def is_own(task: str) -> bool:
    """Whether the name of a task is the place of a user's questions: a path, or a data set on the hub."""
    return "/" in task or Path(task).suffix in READERS


def task_of(task: str) -> str:
    """The name of a task in all tables: for own questions the name of their file, folder or data set without suffix,
    with `-` for every character but letters, digits and `_`."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", Path(task).stem).strip("-") if is_own(task) else task


def question(row: dict, columns: Mapping[str, str]) -> Fields:
    """The fields of a question in one row. Raises StudyError that names a column that is missing or cannot be used."""
    text = text_in(row, columns["question"])
    answer = column(row, columns["answer"])
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        if not math.isfinite(answer):  # also JSON's NaN, and a number too large for a float
            raise StudyError(f"column {columns['answer']} holds {answer}, not a number")
        row = {**row, columns["answer"]: str(answer)}
    answer = text_in(row, columns["answer"])
    choices, solution = row.get(columns["choices"]), row.get(columns["solution"])
    kind = row.get(columns["kind"]) or ("choice" if choices else "number" if is_number(answer) else "text")
    if kind not in KINDS:
        raise StudyError(f"column {columns['kind']} is {kind!r:.60}; choose one of {', '.join(KINDS)}")
    fields = asked(text, answer, kind, solution=solution.strip() if isinstance(solution, str) else "")
    if kind == "choice":
        return fields | chosen(text, answer, choices, columns["choices"])
    return fields


def chosen(text: str, answer: str, choices: object, where: str) -> Fields:
    """Text and answer of a question with choices; the answer is a letter, or one of the choices."""
    if not isinstance(choices, list) or not all(isinstance(c, str) and c.strip() for c in choices):
        raise StudyError(f"column {where} is not a list of texts")
    if not 2 <= len(choices) <= len(LETTERS):
        raise StudyError(f"column {where} has {len(choices)} choices, not 2 to {len(LETTERS)}")
    letters = LETTERS[: len(choices)]
    alike = [words(choice) for choice in choices]
    if answer in letters:
        letter = answer
    elif alike.count(words(answer)) == 1:
        letter = letters[alike.index(words(answer))]
    else:
        raise StudyError(
            f"the answer {answer!r:.60} is neither a letter from A to {letters[-1]} nor one of the choices"
        )
    listed = "\n".join(f"{one}) {choice.strip()}" for one, choice in zip(letters, choices, strict=True))
    return {"text": f"{text}\n{listed}", "answer": letter}


def is_number(answer: str) -> bool:
    """Whether an answer can be graded as a number."""
    try:
        gradable(answer, "number")
    except StudyError:
        return False
    return True


def parser(columns: Mapping[str, str]):
    """`question` for rows whose columns have these names. Raises StudyError for a column that no question has."""
    if unknown := set(columns) - set(COLUMNS):
        raise StudyError(f"questions.columns: {min(unknown)} is unknown; choose from {', '.join(COLUMNS)}")
    return partial(question, columns={**COLUMNS, **columns})

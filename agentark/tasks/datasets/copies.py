"""Questions that occur more than once, in several files of one data set or among a user's own questions."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from agentark import StudyError
from agentark.answers import same
from agentark.answers.correct import words
from agentark.schemas import Question
from agentark.tasks.datasets.rows import Raw

Read = tuple[Raw, Question]


class Copies:
    """The questions read so far, by text and by id, so that a question in two files is read once.

    Official folders contain several variants of one split (openai/grade-school-math: test.jsonl and
    test_socratic.jsonl; HotpotQA: distractor and fullwiki; QMSum: ALL and its parts). Repetitions within one file are
    kept.
    """

    def __init__(self, name: str):
        self.name = name
        self.rows: Counter[str] = Counter()  # by file
        self.shared: Counter[tuple[str, str]] = Counter()  # by pair of files
        self.first: dict[str, tuple[str, int]] = {}  # mark -> file, row

    def add(self, raw: Raw, question: Question) -> None:
        """Register a question. Raises StudyError if another file contains it."""
        self.rows[raw.file] += 1
        # An id without its text marks no copy, since each file may have q1, q2, ...; a number counts a file's rows.
        named = [f"name {raw.key} {question.content}"] if raw.key and not raw.key.isdecimal() else []
        marks = [f"words {question.text}", *named]
        for mark in marks:
            file, row = self.first.setdefault(mark, (raw.file, raw.row))
            if file != raw.file:
                self.shared[file, raw.file] += 1
                raise StudyError(f"the same question as row {row} of {file}")

    def check(self) -> None:
        """Raise StudyError if two files share at least half of the smaller one's questions."""
        for (first, second), n in self.shared.items():
            if 2 * n >= min(self.rows[first], self.rows[second]) > 1:
                raise StudyError(f"{self.name}: {first} and {second} hold the same questions; name one of them")


def without_copies(read: Sequence[Read]) -> tuple[list[Question], list[tuple[Raw, str]]]:
    """A user's own questions, each kept once, and the dropped rows with the reason.

    A repeated question would count several times in a result. If its answers differ, all its rows are dropped.
    """
    groups: dict[object, list[Read]] = defaultdict(list)
    for raw, question in read:
        groups[wording(question)].append((raw, question))
    kept, dropped = [], []
    for (first, question), *others in groups.values():
        conflict = next((raw for raw, other in others if not same_answer(question, other)), None)
        if conflict:
            why = "with another answer, so the answer is ambiguous; keep one of them"
            dropped.append((first, f"the same question as row {conflict.row} of {conflict.file}, {why}"))
            dropped += [(raw, f"the same question as row {first.row} of {first.file}, {why}") for raw, _ in others]
        else:
            kept.append(question)
            dropped += [(raw, f"the same question as row {first.row} of {first.file}") for raw, _ in others]
    return kept, dropped


def wording(question: Question) -> object:
    """The words of a question's text, with sorted choices. Its content is not used: it has no signs like brackets."""
    if question.kind != "choice":
        return words(question.text)
    return tuple(sorted(words(re.sub(r"^[A-J]\) ", "", line)) for line in question.text.split("\n")))


def same_answer(one: Question, other: Question) -> bool:
    """Whether two questions with the same wording have the same answer."""
    first, second = (right_choice(q) if q.kind == "choice" else q.answer for q in (one, other))
    return words(first) == words(second) or (one.kind != "choice" and same(first, second, one.kind))


def right_choice(question: Question) -> str:
    return next(line for line in question.text.split("\n")[::-1] if line.startswith(f"{question.answer}) "))[3:]

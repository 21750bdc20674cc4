"""Remove and count training questions that also occur in a test set, and sample from the rest."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from agentark import StudyError
from agentark.schemas import Question, Split
from agentark.tasks.datasets.content import content_of


def separate(questions: Sequence[Question]) -> tuple[list[Question], list[dict]]:
    """Remove training and validation questions that occur in a test set, and count overlaps by pair of data sets.

    Questions are compared by `content`, training questions also by their own text: a MetaMathQA question has the
    content of its original, and neither may be a test question. If only one of two contents includes choices (MedMCQA's
    has none), the choices are ignored. Returns the remaining questions, in order, and one row per overlapping pair:
    task, split, task of the test set, numbers of shared and removed questions. Overlaps between two test sets are
    counted but not removed. A question in two test sets counts in both pairs.
    """
    tests: dict[str, set[str]] = defaultdict(set)
    stems: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        if question.split == "test":
            tests[question.task].add(question.content)
            stems[question.task].add(stem_of(question))
    shared: Counter[tuple[str, str, str]] = Counter()
    kept = []
    for question in questions:
        if question.split == "test":
            also = [task for task in tests if task > question.task and question.content in tests[task]]
            kept.append(question)
        else:
            spellings = {question.content, content_of(question.text), stem_of(question)}
            also = [task for task in tests if not spellings.isdisjoint(tests[task]) or question.content in stems[task]]
            if not also:
                kept.append(question)
        shared.update((question.task, question.split, task) for task in also)
    return kept, [
        {"task": task, "split": split, "test set": test, "shared": n, "removed": n if split != "test" else 0}
        for (task, split, test), n in sorted(shared.items())
    ]


def stem_of(question: Question) -> str:
    """The content without choices."""
    return question.content.partition(" | ")[0] if question.kind == "choice" else question.content


def draw(questions: Sequence[Question], name: str, n: int, split: Split, seed: int, removed: int = 0) -> list[Question]:
    """A random sample of `n` questions of one data set and split. Raises StudyError if there are fewer.

    removed: the number of questions that `separate` removed from this split.
    """
    found = [q for q in questions if (q.task, q.split) == (name, split)]
    if len(found) < n:
        without = f" ({removed} more are also in a test set and removed)" if removed else ""
        remedy = f"lower questions.{split}" if found else f"add questions, or set questions.{split} to 0"
        raise StudyError(f"{name}: only {len(found)} questions in {split}{without}, not {n}; {remedy}")
    return random.Random(f"{name}|{split}|{seed}").sample(found, n)

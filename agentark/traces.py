"""Reading a trace: the answer it states, its steps, what each step claims, and the path it takes.

In the generated world a trace has one grammar (agentark/tasks/base.py) and all of this is exact. Traces in words, of the
published data sets, are read by rules: a step is a line that is not empty, it claims the last number in it, and its path
is the formulas that it works out. The paper does not say how it reads them.
"""

import re
from collections.abc import Sequence

from agentark.answers import said
from agentark.schemas import Question
from agentark.statements import NUMBER
from agentark.tasks import TASKS
from agentark.tasks import base as world

lines_of = world.lines_of
LAST_NUMBER = re.compile(rf"(?<![\w.,])({NUMBER})(?!.*\d)")
FORMULA = re.compile(r"([\d(][\d\s.,()+\-−*/×÷^%$]*)=")


def in_world(question: Question) -> bool:
    """Whether the question is of the generated world, so that every step of a trace has an exact truth."""
    return question.task in TASKS


def answer_of(text: str, question: Question) -> str | None:
    """The answer that a trace states last, equal answers mostly in one spelling; None if it states none."""
    return world.answer_of(text) if in_world(question) else said(text, question.kind)


def answer_only(answer: str, question: Question) -> str:
    """A reply that states the answer in the form asked for and nothing else."""
    if in_world(question):
        return f"answer : {answer}"
    return f"Answer: {answer}" if question.kind == "text" else f"\\boxed{{{answer}}}"


def claim_of(line: str, question: Question) -> tuple[str, str] | None:
    """What a step claims, as (quantity, value): the unit in which agents agree or differ.

    In words quantities have no names: the last number of a line stands for both. A line without one claims nothing, nor
    does any line where the answer is an option or a text.
    """
    if in_world(question):
        return world.claim_of(line)
    found = LAST_NUMBER.search(line) if question.kind in ("number", "latex") else None
    return (found[1], found[1]) if found else None


def structure(text: str, question: Question) -> list[str]:
    """A trace's solution path: what each line derives and by which expression, without the computed values.

    In words: the formulas that it works out; without any, its lines.
    """
    lines = lines_of(text)
    if in_world(question):
        return [line.removeprefix("fix ").rpartition(" = ")[0] for line in lines if " = " in line]
    formulas = [re.sub(r"[\s,$]", "", f).strip("()") for line in lines for f in FORMULA.findall(line)]
    return [f for f in formulas if re.search(r"\d\D+\d", f)] or [line.lower() for line in lines]


def distance(first: Sequence[str], second: Sequence[str]) -> float:
    """How far two structures differ: edit distance between the sequences of steps over the longer's length.

    Order of decomposition and choice of intermediate quantities count, wording and values do not; 0 for the same path,
    1 for no step in common. Symmetric.
    """
    from nltk import edit_distance  # here: it takes a second, and everything else reads traces without

    return edit_distance(first, second) / max(len(first), len(second), 1)

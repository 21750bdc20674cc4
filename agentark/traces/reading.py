"""Reading a trace: the answer it states, its steps, what each step claims, and the path it takes.

In the generated world a trace has one grammar (agentark/tasks/world/steps.py) and all of this is exact. Traces in words, of the
published data sets, are read by rules: a step is a line that is not empty, it claims the last number in it, and its path
is the formulas that it works out. The paper does not say how it reads them.
"""

import re
from collections.abc import Iterable, Sequence

from agentark.answers import same, stated_answer
from agentark.answers.spellings import NUMBER, value
from agentark.schemas import Question
from agentark.tasks import TASKS
from agentark.tasks.world import steps

lines_of = steps.lines_of
LAST_NUMBER = re.compile(rf"(?<![\w.,])({NUMBER})(?!.*\d)")
RESULT = re.compile(rf"=[^\w=.\-−]*({NUMBER})(?!.*=)")  # what stands behind the last sign of equality
FORMULA = re.compile(r"([\d(][\d\s.()+\-*/^%]*)=")
# One spelling of arithmetic, whatever its typography: open-compass/opencompass#2426, EleutherAI/lm-evaluation-harness#1204
SIGNS = str.maketrans({**dict.fromkeys("×·⋅∗", "*"), **dict.fromkeys("÷∕⁄", "/"), **dict.fromkeys("−–—", "-"), "\u00a0": " ",
                       "\u202f": " ", "\u2009": " "})  # fmt: skip
REWRITTEN = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"(\1/\2)"),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\(?:left|right|[,;:! ()\[\]])|\\?\$|[€£]|\*\*"), ""),
    (re.compile(r"(?<=\d)\{?[, ]\}?(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(?<=[\d)])\s*[xX]\s*(?=[\d(])"), "*"),
)
PAIR = re.compile(r"([\d.]+)([+*])([\d.]+)")


def in_world(question: Question) -> bool:
    """Whether the question is of the generated world, so that every step of a trace has an exact truth."""
    return question.task in TASKS


def answer_of(text: str, question: Question) -> str | None:
    """The answer that a trace states last, equal answers mostly in one spelling; None if it states none."""
    return steps.answer_of(text) if in_world(question) else stated_answer(text, question.kind)


def groups(answers: Iterable[str | None], question: Question | None = None) -> list[list[str]]:
    """Stated answers in groups that mean the same, in the order of their first; None is no answer.

    Votes, unanimity and consensus all count these. In the generated world an answer has one spelling.
    """
    exact, kind = question is not None and in_world(question), question.kind if question else "latex"
    found: dict[str, list[str]] = {}
    for answer in answers:
        if answer is not None:
            others = () if exact or answer in found else found
            key = next((first for first in others if same(answer, first, kind)), answer)
            found.setdefault(key, []).append(answer)
    return list(found.values())


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
        return steps.claim_of(line)
    if question.kind not in ("number", "latex"):
        return None
    line = plain(line)
    found = RESULT.search(line) or LAST_NUMBER.search(line)
    if not found:
        return None
    number = value(found[1])
    claimed = found[1] if number is None else str(number)
    return claimed, claimed


def plain(line: str) -> str:
    """A line with its arithmetic in one spelling: operators * / - and numbers without separators, LaTeX or currency."""
    line = line.translate(SIGNS)
    for pattern, spelling in REWRITTEN:
        line = pattern.sub(spelling, line)
    return line


def structure(text: str, question: Question) -> list[str]:
    """A trace's solution path: what each line derives and by which expression, without the computed values.

    In words: the formulas that it works out; without any, its lines.
    """
    lines = lines_of(text)
    if in_world(question):
        return [line.removeprefix("fix ").rpartition(" = ")[0] for line in lines if " = " in line]
    formulas = [bare(re.sub(r"\s", "", f)) for line in lines for f in FORMULA.findall(plain(line))]
    return [ordered(f) for f in formulas if re.search(r"\d\D+\d", f)] or [line.lower() for line in lines]


def bare(formula: str) -> str:
    """A formula without brackets around the whole of it."""
    while formula.startswith("(") and formula.endswith(")") and ")" not in formula[1:-1]:
        formula = formula[1:-1]
    return formula


def ordered(formula: str) -> str:
    """A sum or product of two numbers with its operands in order, as `normal` has them in the generated world."""
    if pair := PAIR.fullmatch(formula):
        left, right = sorted((pair[1], pair[3]))
        return f"{left}{pair[2]}{right}"
    return formula


def distance(first: Sequence[str], second: Sequence[str]) -> float:
    """How far two structures differ: edit distance between the sequences of steps over the longer's length.

    Order of decomposition and choice of intermediate quantities count, wording and values do not; 0 for the same path,
    1 for no step in common. Symmetric.
    """
    from nltk import edit_distance  # here: it takes a second, and everything else reads traces without

    return edit_distance(first, second) / max(len(first), len(second), 1)


SUMMARISER = 0  # agents count from 1


def agreed(traces: list[str], question: Question) -> bool:
    """Whether more than two thirds of the traces state one answer."""
    found = groups((answer_of(trace, question) for trace in traces), question)
    return any(3 * len(group) > 2 * len(traces) for group in found)


def stating(answer: str | None, traces: list[str], question: Question) -> list[str]:
    """The traces that state `answer`; those that state none where it is None."""
    stated = [answer_of(trace, question) for trace in traces]
    if answer is None:
        return [trace for trace, other in zip(traces, stated, strict=True) if other is None]
    alike = groups([answer, *stated], question)[0]
    return [trace for trace, other in zip(traces, stated, strict=True) if other in alike]


def unanimous(traces: Iterable[str], question: Question) -> bool:
    """Whether all traces state one and the same answer."""
    answers = [answer_of(trace, question) for trace in traces]
    return None not in answers and len(groups(answers, question)) == 1


def majority(answers: Iterable[str | None], question: Question | None = None) -> str | None:
    """The most frequent answer, in its first spelling, the earliest among equals; None if no trace states any."""
    found = groups(answers, question)
    return max(found, key=len)[0] if found else None

"""Parse a trace: its answer, its steps, each step's claim, and the solution path.

In the generated world traces have a grammar (agentark/tasks/world/steps.py) and parsing is exact. Traces in natural
language, for published data sets, are parsed by rules: a step is a non-empty line, its claim is the line's last number,
and the path is the sequence of formulas. The paper does not describe how it parses traces.
"""

import re
from collections.abc import Iterable, Sequence

from agentark.answers import same, stated_answer
from agentark.answers.spellings import NUMBER, clean, spelt_out, value
from agentark.schemas import AnswerKind, Question
from agentark.tasks.world import steps

lines_of = steps.lines_of
LAST_NUMBER = re.compile(rf"(?<![\w.,])({NUMBER})(?!.*\d)")
RESULT = re.compile(rf"=[^\w=.\-−]*({NUMBER})(?!.*=)")  # the number after the last equals sign
FORMULA = re.compile(r"([\d(][\d\s.()+\-*/^%]*)=")
# Normalised typography of arithmetic: open-compass/opencompass#2426, EleutherAI/lm-evaluation-harness#1204
SIGNS = str.maketrans("×·⋅∗÷∕⁄−–—\u00a0\u202f\u2009", "****///---   ")
REWRITTEN = (
    (re.compile(r"-\s*\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}"), r"-\1/\2"),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"(\1/\2)"),
    (re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)"), r"(\1/\2)"),
    (re.compile(r"\^\{(-?\d+)\}|(?<=\d)\*\*(?=\d)"), lambda match: f"^{match[1] or ''}"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\(?:left|right|[,;:! ()\[\]])|\\?\$|[€£]|\*\*"), ""),
    (re.compile(r"(?<=\d)\{?[, ']\}?(?=\d{3}(?!\d))|(?<=\d)\.0+(?!\d)"), ""),
    (re.compile(r"(?<![\d.])\.(?=\d)"), "0."),
    (re.compile(r"(?<!/)(?<!/ )\((\d+/\d+)\)(?!\s*\^)"), r"\1"),
    (re.compile(r"(?<=[\d)])\s*[xX]\s*(?=[\d(])"), "*"),
)
PAIR = re.compile(r"([\d.]+)([+*])([\d.]+)")


def in_world(question: Question) -> bool:
    """Return whether the question is from the generated world, where every step of a trace can be checked exactly."""
    return bool(question.quantities)


def answer_of(text: str, question: Question, cut: bool = False) -> str | None:
    """Return the last answer stated in a trace, normalised if possible, or None. cut: it is cut at the token limit."""
    return steps.answer_of(text) if in_world(question) else stated_answer(text, question.kind, cut)


def groups(answers: Iterable[str | None], question: Question | None = None) -> list[list[str]]:
    """Group equivalent answers, in the order of each group's first answer. None is not an answer.

    Votes, unanimity and consensus all use these groups. In the generated world equivalent answers are equal strings.
    """
    exact = question is not None and in_world(question)
    kind: AnswerKind = question.kind if question else "latex"
    found: dict[str, list[str]] = {}
    for answer in answers:
        if answer is not None:
            others = () if exact or answer in found else found
            key = next((first for first in others if same(answer, first, kind)), answer)
            found.setdefault(key, []).append(answer)
    return list(found.values())


def answer_only(answer: str, question: Question) -> str:
    """Return a reply that contains only the answer, in the requested form."""
    if in_world(question):
        return f"answer : {answer}"
    return f"Answer: {answer}" if question.kind == "text" else f"\\boxed{{{answer}}}"


def claim_of(line: str, question: Question) -> tuple[str, str] | None:
    """Return a step's claim as (quantity, value), the unit of agreement between agents, or None without a claim.

    In natural language quantities have no names, so the line's last number is used for both. Lines without a number
    have no claim, nor do traces for questions whose answer is an option or a text.
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
    """Normalise a line's arithmetic: operators * / - and numbers without separators, LaTeX or currency signs."""
    line = spelt_out(clean(line).translate(SIGNS))
    for pattern, spelling in REWRITTEN:
        line = pattern.sub(spelling, line)
    return line


def structure(text: str, question: Question) -> list[str]:
    """Return a trace's solution path: the quantity and expression of each line, without the computed values.

    In natural language: its formulas, or its lines if it has no formulas.
    """
    lines = lines_of(text)
    if in_world(question):
        return [line.removeprefix("fix ").rpartition(" = ")[0] for line in lines if " = " in line]
    formulas = [without_brackets(re.sub(r"\s", "", f)) for line in lines for f in FORMULA.findall(plain(line))]
    return [ordered_operands(f) for f in formulas if re.search(r"\d\D+\d", f)] or [line.lower() for line in lines]


def without_brackets(formula: str) -> str:
    """Remove the outer brackets of a formula."""
    while formula.startswith("(") and formula.endswith(")") and ")" not in formula[1:-1]:
        formula = formula[1:-1]
    return formula


def ordered_operands(formula: str) -> str:
    """Sort the operands of a sum or product of two numbers, like `normal` in the generated world."""
    if pair := PAIR.fullmatch(formula):
        left, right = sorted((pair[1], pair[3]))
        return f"{left}{pair[2]}{right}"
    return formula


def distance(first: Sequence[str], second: Sequence[str]) -> float:
    """Edit distance between two sequences of steps, divided by the longer length.

    It reflects the order of decomposition and the choice of intermediate quantities, not wording or values. 0 for equal
    paths, 1 for no common step. Symmetric.
    """
    from nltk import edit_distance  # importing it takes a second, and only this function needs it

    return edit_distance(first, second) / max(len(first), len(second), 1)


SUMMARISER = 0  # agents count from 1


def agreed(traces: list[str], question: Question) -> bool:
    """Return whether more than two thirds of the traces state the same answer."""
    found = groups((answer_of(trace, question) for trace in traces), question)
    return any(3 * len(group) > 2 * len(traces) for group in found)


def traces_with_answer(answer: str | None, traces: list[str], question: Question) -> list[str]:
    """Return the traces that state `answer`; if it is None, the traces that state no answer."""
    stated = [answer_of(trace, question) for trace in traces]
    if answer is None:
        return [trace for trace, other in zip(traces, stated, strict=True) if other is None]
    alike = groups([answer, *stated], question)[0]
    return [trace for trace, other in zip(traces, stated, strict=True) if other in alike]


def unanimous(traces: Iterable[str], question: Question) -> bool:
    """Return whether all traces state the same answer."""
    answers = [answer_of(trace, question) for trace in traces]
    return None not in answers and len(groups(answers, question)) == 1


def majority(answers: Iterable[str | None], question: Question | None = None) -> str | None:
    """Return the most frequent answer, in its first spelling; in a tie the earliest; None without answers."""
    found = groups(answers, question)
    return max(found, key=len)[0] if found else None

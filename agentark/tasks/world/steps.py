"""The grammar of traces in the generated world, and an exact verdict on each step."""

import re
from dataclasses import dataclass

from agentark.schemas import Question


def normal(expression: str) -> str:
    """An expression in normal form: the operands of a sum or a product in sorted order."""
    left, operator, right = expression.split()
    if operator in "+*" and right < left:
        left, right = right, left
    return f"{left} {operator} {right}"


def evaluate(expression: str) -> str | None:
    """The value of "a op b" over whole numbers, as text; None if it has none."""
    match = re.fullmatch(r"(\d{1,4}) ([-+*/]) (\d{1,4})", expression)
    if not match:
        return None
    a, b = int(match[1]), int(match[3])
    if match[2] == "/":
        return str(a // b) if b and a % b == 0 else None
    return str({"+": a + b, "-": a - b, "*": a * b}[match[2]])


@dataclass(frozen=True)
class Step:
    """The verdict on one line of a trace.

    error: "" if right; "arithmetic": a valid expression with a wrong value; "carried": correct apart from an earlier
    wrong value that it uses; "reasoning": not a valid way to derive this quantity; "unreadable": not in the grammar.
    grounded: every operand occurs in the question or in an earlier line (a lookup counts as grounded).
    """

    text: str
    name: str
    value: str
    right: bool
    error: str
    grounded: bool
    fixes: bool


def lines_of(text: str) -> list[str]:
    """The non-empty lines of a trace, with single spaces."""
    return [" ".join(line.split()) for line in text.split("\n") if line.strip()]


def answer_of(text: str) -> str | None:
    """The answer on a trace's last `answer :` line, or None if there is none."""
    for line in reversed(lines_of(text)):
        if line.startswith("answer :"):
            return line.removeprefix("answer :").strip() or None
    return None


def claim_of(line: str) -> tuple[str, str]:
    """A line's claim as (quantity, value): the unit for measuring agreement between agents."""
    if line.startswith("answer :"):
        return "answer", line.removeprefix("answer :").strip()
    parts = line.removeprefix("fix ").split(" = ")
    return parts[0], parts[-1] if len(parts) > 1 else ""


def check(question: Question, text: str) -> list[Step]:
    """Check every line of any trace exactly against the question's graph."""
    truth = {q.name: q for q in question.quantities}
    known = set(question.text.split())
    if known & {"half", "halved"}:
        known.add("2")
    stated: dict[str, str] = {}
    wrong_values: set[str] = set()
    verdicts = []
    for line in lines_of(text):
        fixes = line.startswith("fix ")
        name, value = claim_of(line)
        parts = line.removeprefix("fix ").split(" = ")
        if line.startswith("answer :"):
            right, grounded = value == question.answer, set(value.split()) <= known | set(stated.values())
            error = "" if right else ("carried" if wrong_values else "reasoning")
        elif len(parts) not in (2, 3) or not all(parts):
            right, grounded, error = False, False, "unreadable"
        else:
            expression = parts[1] if len(parts) == 3 else ""
            operands = [token for token in expression.split() if token.isdigit()]
            grounded = all(o in known or o in stated.values() for o in operands)
            computed = evaluate(expression)
            valid = name in truth and (normal(expression) if computed is not None else expression) in truth[name].ways
            right = valid and value == truth[name].value
            if right:
                error = ""
            elif valid and expression:
                error = "arithmetic"
            elif computed == value and grounded and any(o in wrong_values for o in operands):
                error = "carried"
            else:
                error = "reasoning"
            stated[name] = value
            wrong_values = {v for n, v in stated.items() if n not in truth or truth[n].value != v}
        verdicts.append(Step(line, name, value, right, error, grounded, fixes))
    return verdicts

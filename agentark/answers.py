"""Is an answer right? One function for every kind of answer, given alone or at the end of a whole chain of thought."""

import re
from fractions import Fraction

from agentark import StudyError, grader
from agentark.schemas import AnswerKind, Question
from agentark.statements import NUMBER, PROSE, conclusion, letter, stated

PLAIN = re.compile(NUMBER)
MIXED = re.compile(r"\s*(-?\d+)\s+(\d+)/(\d+)\s*")
BASE = re.compile(r"(?<=\d)_\{?(\d+)")
ANSWER_LINE = re.compile(r"^\W*answer\W*:", re.IGNORECASE | re.MULTILINE)
# Words after a number are units: "10 weeks", "10 cm^2", but not "2 sin x" or "3xyz"
UNIT = re.compile(
    r"(?<=\d)\s*(?:(?:[cmk]m|ft|in|yd|mi)\s?(?:\^\s?\{?[23]\}?|[²³])"
    r"|(?!\s*(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|exp|sqrt|mod|and|or)\b)(?:\s[a-zA-Z]{3,}|[a-zA-Z]{4,})[a-zA-Z ]*)\s*$"
)


def is_correct(prediction: str | None, gold: str, kind: AnswerKind = "latex") -> bool:
    """Whether what `prediction` states last means the same as `gold`.

    Both may be an answer alone or a text that ends in one: a solution in the data set's own form ("... #### 18"), a
    model's chain of thought. A prediction without a readable answer, undecided at its end, or too costly to compare is
    wrong. Raises StudyError where the gold answer is missing or unreadable, since no prediction could be judged by it.
    Numbers are compared exactly, formulas by math-verify (https://github.com/huggingface/Math-Verify).
    """
    if not gold or not gold.strip():
        raise StudyError("a question without a gold answer cannot be graded; remove it or give it one")
    if prediction is None or not (said := conclusion(prediction)):
        return False
    if kind in ("choice", "text"):
        if words(said) == words(gold):
            return True
        if kind == "text":
            return words(stated(said, "latex") or "") == words(gold)
        return letter(gold) is not None and letter(said) == letter(gold)
    if said == gold.strip():
        return True
    truth, answer = stated(conclusion(gold), kind), stated(said, kind)
    unreadable = StudyError(f"gold answer {gold[-80:]!r} is not readable as {kind}; mend the question")
    if truth is None:
        raise unreadable
    if answer is None:
        return False
    if PLAIN.fullmatch(truth) and PLAIN.fullmatch(answer):
        if value(truth) is None:
            raise unreadable
        return value(truth) == value(answer)
    if len({*BASE.findall(truth), *BASE.findall(answer)}) > 1:  # math-verify reads over the base of a numeral
        return False
    verdict = grader.compare(spelt(truth), spelt(answer))
    if verdict == "unreadable gold" or (verdict is None and grader.compare(spelt(truth), ["0"]) is None):
        raise unreadable
    return verdict == "equal"


def gradable(gold: str, kind: AnswerKind) -> None:
    """Raise StudyError, in one line, if no prediction could be judged by this gold answer."""
    is_correct(gold or " ", gold, kind)


def said(text: str, kind: AnswerKind) -> str | None:
    """The answer that a text ends in, alone: what agents compare and vote on. None if it states none.

    Numbers and options have one spelling each, so equal ones are equal strings; formulas and words stay as written.
    """
    ending = conclusion(text)
    if kind == "choice":
        return letter(ending)
    if kind == "text":
        return ANSWER_LINE.split(ending)[-1].strip("* \n") or None
    found = stated(ending, kind) if ending else None
    if found and PLAIN.fullmatch(found) and (number := value(found)) is not None:
        return str(number)
    return found.strip("$") if found and found.count("$") == 2 else found


def words(text: str) -> str:
    """A text for comparison without case, spacing and the marks around it."""
    return " ".join(text.lower().split()).strip(" .$*\"'")


def value(plain: str) -> Fraction | None:
    """A plain number's value; None if it has none, as 1/0, or is longer than Python reads."""
    try:
        return Fraction(plain.replace(",", "").replace("−", "-").replace(" ", ""))
    except (ValueError, ZeroDivisionError):
        return None


def spelt(content: str) -> list[str]:
    """A statement as math-verify reads it: formulas between dollars unless they are marked already, prose as it is.

    Two spellings where there are two meanings: "1,22" may be a list or a decimal fraction.
    """
    content = UNIT.sub("", content.replace("\\$", ""))
    if mixed := MIXED.fullmatch(content):
        return ["${}\\frac{{{}}}{{{}}}$".format(*mixed.groups())]
    marked = re.search(r"\$|\\\(|\\\[", content) or re.fullmatch(rf"(?:{NUMBER})\s*%?|[-\d.\s%/]+", content)
    if not marked and re.fullmatch(r"-?\d+,\d{2,}", content):
        return [content, f"${content}$"]
    return [content if marked or PROSE.search(content) else f"${content}$"]


def same(first: str, second: str, kind: AnswerKind = "latex") -> bool:
    """Whether two stated answers (see `said`) mean the same: `is_correct` of either by the other, whichever is first."""
    if first == second:
        return True
    gold, prediction = sorted((first, second))
    try:
        return is_correct(prediction, gold, kind)
    except StudyError:  # not readable as an answer of this kind
        return False


def is_right(prediction: str | None, question: Question) -> bool:
    """Whether a prediction is right by the question's answer or by any of its further right answers.

    Raises StudyError where the question's answer is missing or unreadable.
    """
    if is_correct(prediction, question.answer, question.kind):
        return True
    return prediction is not None and any(same(prediction, other, question.kind) for other in question.references)

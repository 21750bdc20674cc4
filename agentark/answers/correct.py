"""Check answers of every kind, bare or at the end of a chain of thought."""

import re
from fractions import Fraction
from functools import lru_cache

from agentark import StudyError
from agentark.answers import grader
from agentark.answers.options import letter
from agentark.answers.prose import (
    ANSWER_LINE,
    bare_words,
    prose_answers,
    same_words,
    without_article,
    without_text_macro,
    word_answers,
    words,
)
from agentark.answers.spellings import CLOCK, NUMBER, PLAIN, clean, plain, rational, same_time, value
from agentark.answers.statements import PROSE, conclusion, stated
from agentark.schemas import AnswerKind, Question

BASE = re.compile(r"(?<=\d)_\{?(\d+)")
# huggingface/Math-Verify#57: words after a number are units: "10 weeks", "10 cm^2", "42 km/h", "\\frac{3}{4} cup", but
# not "2 sin x" or "3xyz"
SYMBOL = (
    r"(?:[kcmdnµμ]?[mglLsW]|mol|mL|kWh|kHz|k?Hz|k?J|k?Pa|[NVh]|mph|kph|hrs?|mins?|secs?|ft|in|yd|mi|lbs?|oz"
    r"|[°º]\s?[CF]?)"
)
POWER_2_3 = r"(?:\s?\^\s?\{?-?[123]\}?|[²³])?"
UNIT = re.compile(
    rf"(?<=[\d}}])(?:\\[,;: ]|[\s~])*(?:\\(?:text|textrm|mathrm|mbox)\s*\{{\s*)?"
    rf"(?:{SYMBOL}{POWER_2_3}(?:\s?[/·*]\s?{SYMBOL}{POWER_2_3})+|(?<=[\s{{~])(?:[cmk]m|ft|in|yd|mi|mph|kg|mL|lbs?"
    rf"|[gLJWVNmsh]|kJ|mol){POWER_2_3}"
    r"|(?:[cmk]m|ft|in|yd|mi)\s?(?:\^\s?\{?[23]\}?|[²³])"
    r"|(?!\s*(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|exp|sqrt|mod|and|or)\b)(?:(?<=[\s{~])[a-zA-Z]{3,}|[a-zA-Z]{4,})"
    r"(?:[a-zA-Z ]|\s?/\s?(?=[a-zA-Z]))*)\s*\}?(\$?[\s.]*)$"
)
# A unit in words after any formula: "12\\pi \\text{ square units}"
TEXT_UNIT = re.compile(
    r"(?<=[\w)}\]])(?:\\[,;: ]|[\s~])*\\(?:text|textrm|mathrm|mbox)\s*\{\s*(?!(?:and|or|if|for|when|otherwise|where)\b)"
    r"[a-zA-Z][a-zA-Z. /^²³]+\}(?:\^\{?[23]\}?)?(\$?[\s.]*)$"
)
# A set of single values; "{x | x < 3}" is a range
SET = re.compile(r"\$?(?:\\left)?\\\{(?![^}]*(?:\\mid|[|:<>≤≥]|\\(?:leq?|geq?|in)\b)).*\\\}\$?", re.DOTALL)
TUPLE = re.compile(r"\$?(?:\\left)?[(\[][^()\[\]]*,[^()\[\]]*[)\]]\$?")
DEGREES = re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})")
FUNCTION = re.compile(r"^[\s$]*(?:y|[fghFGH]\s*\(\s*[a-z]\s*\))\s*=(?=[^=<>]*[a-z][^=<>]*$)")
NAMED = re.compile(r"[A-Za-z][A-Za-z ,.;:'’\-]*")
STYLES = (
    (re.compile(r"\\(?:textcolor|color)\s*\{\w+\}"), ""),
    (re.compile(r"\\(?:boldsymbol|bm|underline|mathbf|mathit|mathsf)\s*(?=\{)"), ""),
    (re.compile(r"\\mathrm\s*\{([a-z])\}"), r"\1"),
    (re.compile(r"\\\\\[\d+\w*\]"), r"\\\\"),
    (re.compile(r"\\varnothing\b"), r"\\emptyset"),
    (re.compile(r"\\big(cup|cap)\b"), r"\\\1"),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\text\s*\{\s*,\s*\}"), ", "),
)
NEAR = Fraction(1, 10**5)


def is_correct(prediction: str | None, gold: str, kind: AnswerKind = "latex") -> bool:
    """Whether the last answer stated in `prediction` is equivalent to `gold`.

    Each may be a bare answer or a text that ends in one: a solution in the data set's own form ("... #### 18"), a
    model's chain of thought. A prediction is wrong if it has no readable answer, is undecided at its end, or takes too
    long to compare. Raises StudyError if the gold answer is missing or unreadable. Numbers are compared exactly,
    formulas by math-verify (https://github.com/huggingface/Math-Verify).
    """
    if not gold or not gold.strip():
        raise StudyError("a question without a gold answer cannot be graded; remove it or add an answer")
    if prediction is None or not (statement := conclusion(prediction)):
        return False
    if kind == "choice":
        return words(statement) == words(gold) or (letter(gold) is not None and letter(statement) == letter(gold))
    if kind == "text":
        return without_article(gold) in word_answers(statement)
    if statement == gold and gold.isdecimal():  # shortcut for the generated world, whose answers are plain
        return True
    return right_number(statement, gold) if kind == "number" else right_formula(statement, gold)


def gradable(gold: str, kind: AnswerKind) -> None:
    """Raise StudyError if no prediction can be graded against this gold answer."""
    is_correct(gold or " ", gold, kind)


def stated_answer(text: str, kind: AnswerKind, cut: bool = False) -> str | None:
    """The bare answer at the end of a text, or None if there is none. Agents compare these answers and vote on them.

    Equal numbers, fractions and options are normalised to equal strings; other formulas and words stay as written.
    cut: the text is truncated; see `stated`.
    """
    ending = conclusion(text)
    if kind == "choice":
        return letter(ending)
    if kind == "text":
        return bare_words(ending) if not cut or ANSWER_LINE.search(ending) else None
    found = stated(ending, kind, cut) if ending else None
    if found is None:
        return None
    if kind == "number":
        return str(number) if PLAIN.fullmatch(found) and (number := value(found)) is not None else found
    if (number := rational(plain(found, number=False))) is not None:
        top, bottom = number.as_integer_ratio()
        return str(top) if bottom == 1 else f"{'-' * (top < 0)}\\frac{{{abs(top)}}}{{{bottom}}}"
    return found[1:-1] if found.count("$") == 2 and found[0] == found[-1] == "$" else found


def right_number(statement: str, gold: str) -> bool:
    """Whether a non-empty text states exactly the gold answer's number; times of day are compared as times."""
    truth = gold.strip()
    if not PLAIN.fullmatch(truth):
        truth = stated(conclusion(gold), "number") or ""
    if not truth or (PLAIN.fullmatch(truth) and value(truth) is None):
        raise unreadable(gold, "number")
    answer = statement if PLAIN.fullmatch(statement) else stated(statement, "number")
    if answer is None:
        return False
    if PLAIN.fullmatch(truth) and PLAIN.fullmatch(answer):
        return value(truth) == value(answer)
    if CLOCK.fullmatch(truth) or CLOCK.fullmatch(answer):
        return same_time(truth, answer)
    return same_formula(truth, answer, gold, "number")


def right_formula(statement: str, gold: str) -> bool:
    """Whether a non-empty text states the gold answer: words are compared as words, anything else as mathematics."""
    truth = stated(conclusion(gold), "latex")
    if truth is None:
        raise unreadable(gold, "latex")
    if name := prose_words(truth):
        return any(words(without_text_macro(answer)) == name for answer in (statement, *prose_answers(statement)))
    answer = stated(statement, "latex")
    if answer is None:
        return False
    truth, answer = plain(truth, number=False), plain(answer, number=False)
    if PLAIN.fullmatch(truth) and PLAIN.fullmatch(answer):
        if value(truth) is None:
            raise unreadable(gold, "latex")
        return value(truth) == value(answer)
    one, other = rational(UNIT.sub(r"\1", truth)), rational(UNIT.sub(r"\1", answer))
    if one is not None and other is not None and (one == other or abs(one - other) > NEAR * abs(one)):
        return one == other
    if marked_time(gold) or marked_time(statement):
        return same_time(stated(truth, "number") or "", stated(answer, "number") or "")
    if len({*BASE.findall(truth), *BASE.findall(answer)}) > 1:  # math-verify ignores the base of a numeral
        return False
    for left, right in ((truth, answer), (answer, truth)):
        if SET.fullmatch(left) and TUPLE.fullmatch(right):  # math-verify reads a point or interval as a set of two
            return False
    return same_formula(truth, answer, gold, "latex")


def same_formula(truth: str, answer: str, gold: str, kind: AnswerKind) -> bool:
    """Whether two statements are mathematically equal. Raises StudyError if `truth` is unreadable."""
    if truth == answer:
        if not readable(truth):
            raise unreadable(gold, kind)
        return True
    if FUNCTION.match(truth) and FUNCTION.match(answer):  # "y = 2x + 3" and "f(x) = 2x + 3"
        truth, answer = (FUNCTION.sub("", side).strip("$ ") for side in (truth, answer))
    verdict = grader.compare(math_verify_form(truth), math_verify_form(answer))
    if verdict == "unreadable gold" or (verdict is None and not readable(truth)):
        raise unreadable(gold, kind)
    return verdict == "equal"


@lru_cache(maxsize=4096)
def readable(formula: str) -> bool:
    """Whether a formula can be parsed, and compared in bounded time."""
    return grader.compare(math_verify_form(formula), ["0"]) not in (None, "unreadable gold")


def unreadable(gold: str, kind: AnswerKind) -> StudyError:
    return StudyError(f"gold answer {gold[-80:]!r} is not readable as {kind}; correct the question")


def prose_words(formula: str) -> str | None:
    r"""The words of an answer in words, such as "\text{no real solutions}" or "Evelyn"; None for mathematics.

    EleutherAI/lm-evaluation-harness#2212: such a gold answer must equal itself and differ from any number.
    """
    bare = without_text_macro(formula)
    wordy = PROSE.search(bare) or (bare != formula.strip("$ ") and len(bare) > 1)
    return words(bare) if wordy and NAMED.fullmatch(bare) else None


def marked_time(text: str) -> bool:
    """Whether an answer is certainly a time of day: "8:34 p.m.", "20:34:00". "3:20" may be a ratio."""
    return (
        re.search(r"\d\s*(?:\\text\w*\{\s*)?[ap]\.?\s?m\b|\d:[0-5]\d:[0-5]\d", clean(text), re.IGNORECASE) is not None
    )


def math_verify_form(content: str) -> list[str]:
    """A statement in math-verify's input form: formulas between dollars unless already marked, prose unchanged.

    Returns two spellings if there are two readings: "1,22" may be a list or a decimal fraction.
    """
    content = UNIT.sub(r"\1", TEXT_UNIT.sub(r"\1", unstyled(content.replace("\\$", ""))))
    if re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", content):
        content = DEGREES.sub(r"\\cdot\\frac{\\pi}{180}", content)
    marked = re.search(r"\$|\\\(|\\\[", content) or re.fullmatch(rf"(?:{NUMBER})\s*%?|[-\d.\s%/]+", content)
    if not marked and re.fullmatch(r"-?\d+,\d{2,}", content):
        return [content, f"${content}$"]
    return [content if marked or PROSE.search(content) else f"${content}$"]


def unstyled(formula: str) -> str:
    r"""A formula without fonts, colours and spacing that math-verify does not read: "\boldsymbol{5}", "\\[4pt]"."""
    for pattern, plainer in STYLES:
        formula = pattern.sub(plainer, formula)
    return formula


def same(first: str, second: str, kind: AnswerKind = "latex") -> bool:
    """Whether two stated answers (see `stated_answer`) are equivalent by `is_correct`, independent of their order."""
    gold, prediction = sorted((first, second))
    if kind == "text":
        return first == second or same_words(first, second)
    return first == second or agrees(prediction, gold, kind)


def agrees(prediction: str | None, other: str, kind: AnswerKind) -> bool:
    """`is_correct` against an unchecked answer: False instead of an error if that answer is unreadable."""
    try:
        return is_correct(prediction, other, kind)
    except StudyError:
        return False


def is_right(prediction: str | None, question: Question) -> bool:
    """Whether a prediction matches the question's answer or any of its references.

    Raises StudyError if the question's answer is missing or unreadable.
    """
    return is_correct(prediction, question.answer, question.kind) or any(
        agrees(prediction, other, question.kind) for other in question.references
    )

"""Is an answer right? One function for every kind of answer."""

import re
from decimal import Decimal

from math_verify import parse, verify

from agentark import StudyError
from agentark.schemas import AnswerKind

PLAIN_NUMBER = re.compile(r"-?[0-9][0-9,]*(\.[0-9]+)?")
# Powers of powers, long exponents and factorials: written in a few characters, evaluated in ages.
EXPLOSIVE = re.compile(r"(\*\*|\^)[^=\s]*(\*\*|\^)|(\*\*|\^)\s*[{(]?\s*-?[0-9]{3,}|!")
LIMIT = 2_000  # characters; a longer answer is no answer, and would only cost the parser time


def is_correct(prediction: str | None, gold: str, kind: AnswerKind = "latex") -> bool:
    """Whether `prediction` means the same as `gold`.

    An answer that is missing or unreadable is wrong; a gold answer that is missing or unreadable raises StudyError,
    since no prediction could be judged by it.
    """
    if not gold or not gold.strip():
        raise StudyError("a question without a gold answer cannot be graded; remove it or give it one")
    if prediction is None or len(prediction) > LIMIT:
        return False
    if kind in ("choice", "text"):
        return " ".join(prediction.lower().split()) == " ".join(gold.lower().split())
    if prediction.strip() == gold.strip():
        return True
    if PLAIN_NUMBER.fullmatch(prediction.strip()) and PLAIN_NUMBER.fullmatch(gold.strip()):
        return Decimal(prediction.strip().replace(",", "")) == Decimal(gold.strip().replace(",", ""))
    if EXPLOSIVE.search(prediction):
        return False
    # math-verify wants the gold first; its own alarm needs the main thread, so it is off
    truth = parse(gold, parsing_timeout=None)
    if not truth:
        raise StudyError(f"gold answer {gold!r} is not readable as {kind}; mend the question")
    return verify(truth, parse(prediction, parsing_timeout=None), timeout_seconds=None)

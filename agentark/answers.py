"""Is an answer right? One function for every kind of answer."""

from math_verify import parse, verify

from agentark import StudyError
from agentark.schemas import AnswerKind

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
    if prediction.strip().isdigit() and gold.strip().isdigit():
        return int(prediction) == int(gold)
    # math-verify wants the gold first; its own alarm needs the main thread, so it is off (short inputs bound the time)
    truth = parse(gold, parsing_timeout=None)
    if not truth:
        raise StudyError(f"gold answer {gold!r} is not readable as {kind}; mend the question")
    return verify(truth, parse(prediction, parsing_timeout=None), timeout_seconds=None)

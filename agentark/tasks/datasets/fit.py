"""Shorten long documents to a model's context, with every cut marked and counted.

Lines (turns of a meeting, paragraphs of a paper) are ranked by their similarity to the question: cosine of TF-IDF
vectors without English stop words. Ties are broken in favour of lines near either end of the document, so that a
question without specific words ("Summarize the whole meeting") keeps head and tail. The best lines that fit are kept in
their original order, and a line in brackets replaces each gap. The question is not shortened. Annotations of where the
answer is (QMSum's relevant_text_span, QASPER's evidence) are not used.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from agentark import StudyError
from agentark.schemas import Question

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The data sets whose questions are about a document, and the units of its lines.
UNITS = {"hotpotqa": "paragraphs", "qasper": "paragraphs", "qmsum": "turns"}


@dataclass(frozen=True)
class Cut:
    """The result for one question: lines in its document, lines left out, and tokens afterwards.

    `reason` is "" unless the question was set aside.
    """

    question_id: str
    lines: int
    left_out: int
    tokens: int
    reason: str = ""


def fit(
    questions: Sequence[Question], tokenizer: "PreTrainedTokenizerBase", budget: int
) -> tuple[list[Question], list[Cut]]:
    """The questions whose text fits into `budget` tokens, shortened if necessary, and a Cut for every given question.

    The budget is for the text alone, without the chat template and the reply. A question that does not fit with one
    line of its document, or has no document to shorten, is set aside with the reason. Raises StudyError for a budget
    below 1.
    """
    if budget < 1:
        raise StudyError(f"a budget of {budget} tokens leaves no room for a question; choose a larger one")

    def length(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    fitted, cuts = [], []
    for question in questions:
        text, cut = fit_one(question, length, budget)
        cuts.append(cut)
        if not cut.reason:
            fitted.append(question.model_copy(update={"text": text}))
    return fitted, cuts


def fit_one(question: Question, length: Callable[[str], int], budget: int) -> tuple[str, Cut]:
    """The text of one question within `budget`, measured by `length`, and its Cut."""
    text, units = question.text, UNITS.get(question.task, "")
    document, _, query = text.rpartition("\n\n") if units else ("", "", text)
    lines = document.split("\n") if document else []
    if (tokens := length(text)) <= budget:
        return text, Cut(question.question_id, len(lines), 0, tokens)
    order = ranking(query, lines)

    def shortened(n: int) -> str:
        return f"{keep(lines, set(order[:n]), units)}\n\n{query}"

    # The bisection has measured the length that it accepts, so the text fits even if lengths are not monotone in n.
    n = bisect_right(range(1, len(lines)), budget, key=lambda n: length(shortened(n)))
    if n == 0:
        rest = "one line of its document" if lines else "no document"
        reason = f"{tokens} tokens, and more than {budget} even with {rest}"
        return text, Cut(question.question_id, len(lines), 0, tokens, reason)
    text = shortened(n)
    return text, Cut(question.question_id, len(lines), len(lines) - n, length(text))


def ranking(query: str, lines: Sequence[str]) -> list[int]:
    """Line numbers, the most similar to the query first; ties by distance to the nearer end of the document."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # a slow import that generated questions do not need

    try:
        vectors = TfidfVectorizer(stop_words="english").fit_transform([*lines, query])
        similarity = (vectors[:-1] @ vectors[-1].T).toarray()[:, 0]
    except ValueError:  # only stop words
        similarity = [0.0] * len(lines)
    return sorted(range(len(lines)), key=lambda i: (-similarity[i], min(i, len(lines) - 1 - i), i))


def keep(lines: Sequence[str], kept: set[int], units: str) -> str:
    """The kept lines in order, with one line per gap that gives the number of lines left out."""
    parts: list[str] = []
    for is_kept, run in groupby(range(len(lines)), key=kept.__contains__):
        numbers = list(run)
        parts += [lines[i] for i in numbers] if is_kept else [f"[{units} left out: {len(numbers)}]"]
    return "\n".join(parts)

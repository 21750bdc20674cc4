"""Long documents fitted to a model's context, by one stated rule, with every cut marked and counted.

Lines (turns of a meeting, paragraphs of a paper) are ranked by their similarity to the question: cosine of TF-IDF
vectors, English stop words left out. Among equals, those nearer to either end of the document come first, so a question
without words of its own ("Summarize the whole meeting") keeps head and tail. As many lines as fit are kept, best first,
in their original order; a line in brackets stands for those left out. The question is kept whole. Where the answer
stands, as annotated (QMSum's relevant_text_span, QASPER's evidence), is never looked at.
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

# The data sets whose questions are about a document, and what its lines are.
UNITS = {"hotpotqa": "paragraphs", "qasper": "paragraphs", "qmsum": "turns"}


@dataclass(frozen=True)
class Cut:
    """What fitting did to one question: of `lines` in its document, how many were left out, and its tokens then.

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
    """The questions whose text can be brought to `budget` tokens, and what that took: a Cut for each question asked for.

    The budget is for the text alone: take off what the chat template and the reply need. A question that is too long
    without a line of its document, or has no document to cut, is set aside with the reason.
    """
    if budget < 1:
        raise StudyError(f"a budget of {budget} tokens leaves no room for a question; give a larger one")

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
    text, units = question.text, UNITS.get(question.task, "")
    document, _, query = text.rpartition("\n\n") if units else ("", "", text)
    lines = document.split("\n") if document else []
    if (tokens := length(text)) <= budget:
        return text, Cut(question.question_id, len(lines), 0, tokens)
    order = ranking(query, lines)

    def shortened(n: int) -> str:
        return f"{keep(lines, set(order[:n]), units)}\n\n{query}"

    # The last length that the bisection accepted was measured, so the text fits though lengths do not rise with every n.
    n = bisect_right(range(1, len(lines)), budget, key=lambda n: length(shortened(n)))
    if n == 0:
        reason = (
            f"{tokens} tokens, and above {budget} even with {'one line of its document' if lines else 'no document'}"
        )
        return text, Cut(question.question_id, len(lines), 0, tokens, reason)
    text = shortened(n)
    return text, Cut(question.question_id, len(lines), len(lines) - n, length(text))


def ranking(query: str, lines: Sequence[str]) -> list[int]:
    """Line numbers, the most similar to the query first; among equals, the nearest to an end of the document."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # here: generated questions need not wait for it

    try:
        vectors = TfidfVectorizer(stop_words="english").fit_transform([*lines, query])
        similarity = (vectors[:-1] @ vectors[-1].T).toarray()[:, 0]
    except ValueError:  # nothing but stop words
        similarity = [0.0] * len(lines)
    return sorted(range(len(lines)), key=lambda i: (-similarity[i], min(i, len(lines) - 1 - i), i))


def keep(lines: Sequence[str], kept: set[int], units: str) -> str:
    """The kept lines in order, and for each run of others a line that says how many were left out."""
    parts: list[str] = []
    for is_kept, run in groupby(range(len(lines)), key=kept.__contains__):
        numbers = list(run)
        parts += [lines[i] for i in numbers] if is_kept else [f"[{units} left out: {len(numbers)}]"]
    return "\n".join(parts)

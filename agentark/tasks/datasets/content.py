"""What a question asks, in one spelling: the form in which questions are compared across data sets."""

import hashlib
import re
import unicodedata

# Numbers whole, words, and the signs that make 3 + 5 another question than 3 - 5.
TOKEN = re.compile(r"\d+(?:\.\d+)*|[^\W\d_]+|[-+*/^=<>]")


def content_of(question: str) -> str:
    """Lower case, one space between words, no punctuation, "1,000" as "1000"; "" for a text that has no words."""
    text = question
    for _ in range(2):  # one pass of case folding may undo the normal form
        text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<=[^\W\d_])-(?=[^\W\d_])", " ", text)  # well-known is well known
    tokens = TOKEN.findall(text)
    return " ".join(tokens) if any(token.isalnum() for token in tokens) else ""


def content_about(query: str, document: str) -> str:
    """The content of a query that stands for different questions about different documents ("Summarise it")."""
    content = content_of(query)
    return content and f"{content} | {hashlib.sha256(content_of(document).encode()).hexdigest()[:16]}"

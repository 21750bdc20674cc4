"""A question's content in normal form, for comparing questions across data sets."""

import hashlib
import re
import unicodedata

# Numbers with their decimals, words, and the signs that distinguish 3 + 5 from 3 - 5.
TOKEN = re.compile(r"\d+(?:\.\d+)*|[^\W\d_]+|[-+*/^=<>]")


def content_of(question: str) -> str:
    """Lower case, single spaces, no punctuation, "1,000" as "1000"; "" for a text without words."""
    text = question
    for _ in range(2):  # case folding can undo the normalisation, so repeat it once
        text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<=[^\W\d_])-(?=[^\W\d_])", " ", text)  # "well-known" as "well known"
    tokens = TOKEN.findall(text)
    return " ".join(tokens) if any(token.isalnum() for token in tokens) else ""


def content_about(query: str, document: str) -> str:
    """The content of a query about a document. The same query ("Summarise it") differs between documents."""
    content = content_of(query)
    return content and f"{content} | {hashlib.sha256(content_of(document).encode()).hexdigest()[:16]}"

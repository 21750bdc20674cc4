r"""Find and compare answers in words, as in HotpotQA and QASPER: "Answer: Paris", "**The answer is Rome (Italy).**"."""

import itertools
import re
import unicodedata

from agentark.answers.doubts import DOUBT, WAIT
from agentark.answers.spellings import TEXT
from agentark.answers.statements import boxed

ENDS = 8  # maximal number of tried sentence ends
SHORT = 100  # maximal length, in characters, of an answer in words whose later lines are dropped
# A label or a heading: "Answer:", "**My revised answer:**", "### Final Answer", '"final_answer":'
LABEL_WORDS = r"(?:(?:the|my|our|final|revised|updated|corrected?|new|short|direct|best|agreed|consensus)[ _])*"
ANSWER_LINE = re.compile(
    rf"^\W*{LABEL_WORDS}answer(?: is)?[^\w\n]*[:：]|^[#* \t]*{LABEL_WORDS}answer[* \t]*$", re.IGNORECASE | re.MULTILINE
)
# A label within a sentence
ANSWER_PHRASE = re.compile(
    r"^\W*answer\W*:|\banswer\b(?!['’]s)[^.:=\n]{0,60}?(?:\bis\b|:)(?!\s+not\b)", re.IGNORECASE | re.MULTILINE
)
# Full stops of abbreviations and initials do not end a sentence, nor do marks after a space (words of the world).
SENTENCE_END = re.compile(
    r"(?<!\s)(?<!\b[A-Z])(?<!\b(?:St|Dr|Mr|Ms|Jr|Sr|Mt|Ft|No|vs|Co|Lt))(?<!\b(?:Mrs|Gen|Gov|Sen|Rep|Inc|Ltd|Col))"
    r"(?<!\bProf)[.!?][\"'”’)*]{0,3}(?=\s|$)"
)
BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
BOLD_LAST_LINE = re.compile(r"\n\s*\*\*([^*\n]{1,100})\*\*[.\s]*$")
JSON = re.compile(r'"([^"\n]+)"\s*\}\W*$')  # '"Paris"}' of '{"answer": "Paris"}'
BULLET = re.compile(r"(?:[-•]|\*(?!\*)|\d+[.)])\s")
# An answer with an explanation: "Rome (Italy)", "Yes, it is", "Rome, because ..."
EXPLAINED = re.compile(r"([^()\n]+)\([^()\n]*\)[.\s]*$")
REASONED = re.compile(
    r"(?:yes|no)\b(?=\s*(?:[,;:–—-]|\.(?!\s?\d)))|[^\n]{1,100}?(?=,? because\b|, (?:since|as|where|who|which)\b)",
    re.IGNORECASE,
)
# HotpotQA's and SQuAD's evaluators ignore articles and punctuation: "U.S.A." is "USA", "1,000" is "1000",
# "co-founder" is "cofounder". Other marks in numbers stay: "3.5" is not "35".
ARTICLE = re.compile(r"^(?:the|an?) (?=.)")
MARKS = re.compile(r"(?<=[^\W\d])(?:[.,;:!?'\"]|-(?=[^\W\d]))|(?<=\d),(?=\d{3}(?!\d)|\s)|(?<!\w)['\"](?=\w)")


def bare_words(ending: str) -> str | None:
    """Return the words after the last "Answer:". If the first line (of a list: paragraph) is short, drop the others.

    Without such a label, return the box or the sentence that names the answer, a last line in bold, or all of the text.
    """
    parts = ANSWER_LINE.split(ending)
    if len(parts) > 1:
        answer = JSON.sub(r"\1", BOLD.sub(r"\1", parts[-1])).strip("* \n")
        first, *later = re.split(r"\n\s*\n" if BULLET.match(answer) else r"\s*\n\s*", answer, maxsplit=1)
        if later and len(first) <= SHORT:
            answer = first.strip("* \n")
        if answer.startswith("\\boxed{") and (box := boxed(answer)) and box[0] == len(answer.rstrip(".$")):
            answer = without_text_macro(box[1])
    elif found := prose_answers(ending):
        answer = without_text_macro(found[0])
    else:
        last_line = BOLD_LAST_LINE.search(ending)
        answer = (last_line[1] if last_line else ending).strip("* \n")
    return answer or None


def prose_answers(text: str) -> list[str]:
    """Return candidate answers in words: the last box, and the last sentence that names the answer. The sentence is cut
    at each possible end, since names and titles may contain full stops."""
    found, text = [], BOLD.sub(r"\1", text)
    if (box := boxed(text)) and not WAIT.search(text[box[0] :]):
        found.append(box[1].strip("$"))
    for phrase in list(ANSWER_PHRASE.finditer(text))[-1:]:
        line = text[phrase.end() :].lstrip("*: \n").split("\n")[0]
        rest = text[phrase.end() :].partition(line)[2] if line else ""
        if not DOUBT.search(rest):
            found += sentences(line)
    return found


def sentences(line: str) -> list[str]:
    """Return a line cut at each possible end of its first sentence, shortest first; no cut is before a doubt."""
    ends = [end.start() for end in itertools.islice(SENTENCE_END.finditer(line), ENDS)] + [len(line)]
    return [line[:end] for end in ends if not DOUBT.search(line[end:])]


def word_answers(statement: str, brackets: bool = True) -> set[str]:
    """Return the normalised answers that a statement in words may mean: "Yes, it is" may also mean "yes".

    brackets: if true, "Rome (Italy)" may also mean "Rome".
    """
    bare, phrased = bare_words(statement) or "", prose_answers(statement)
    found = [statement, bare, *phrased]
    for answer in phrased or (sentences(bare) if "\n" not in bare else []):
        found.append(bare := BOLD.sub(r"\1", answer).strip("* "))
        if brackets and (match := EXPLAINED.match(bare)):
            found.append(match[1])
        if (match := REASONED.match(bare)) and not DOUBT.search(bare[match.end() :]):
            found.append(match[0])
    return {without_article(without_text_macro(answer)) for answer in found} - {""}


def same_words(first: str, second: str) -> bool:
    """Whether two answers in words may mean the same. Words in brackets are dropped from one of the answers at most."""
    if not word_answers(first, brackets=False).isdisjoint(word_answers(second, brackets=False)):
        return True
    return without_article(first) in word_answers(second) or without_article(second) in word_answers(first)


def words(text: str) -> str:
    """Normalise a text for comparison: lower case, single spaces, no surrounding punctuation.

    A punctuation mark between spaces is kept, since it is a word of the generated world.
    """
    text = unicodedata.normalize("NFC", text).replace("’", "'")
    bare = " ".join(text.lower().split()).strip(" .$*\"'“”‘`")
    return re.sub(r"(?<=\S)[,;:!?]+$", "", re.sub(r"(?<=[^\W\d]),(?=[^\W\d])", ", ", bare))


def without_article(text: str) -> str:
    """Normalise a text by `words`; remove a leading article and the punctuation that HotpotQA's evaluator ignores."""
    return MARKS.sub("", ARTICLE.sub("", words(text).translate({0x201C: '"', 0x201D: '"', 0x2013: "-"})))


def without_text_macro(formula: str) -> str:
    r"""Remove \text{} and dollar signs from a formula."""
    return TEXT.sub(r"\1", formula).strip("$ ")

r"""Find and compare answers in words, as in HotpotQA and QASPER: "Answer: Paris", "**The answer is Rome (Italy).**"."""

import itertools
import re
import unicodedata

from agentark.answers.doubts import DOUBT, WAIT
from agentark.answers.spellings import TEXT
from agentark.answers.statements import boxed

ENDS = 8  # possible ends of a sentence that are tried
SHORT = 100  # characters up to which an answer in words may be followed by further text
# A label or a heading: "Answer:", "**My revised answer:**", "### Final Answer", '"final_answer":'
LABEL_WORDS = r"(?:(?:the|my|our|final|revised|updated|corrected?|new|short|direct|best|agreed|consensus)[ _])*"
ANSWER_LINE = re.compile(
    rf"^\W*{LABEL_WORDS}answer(?: is)?[^\w\n]*[:：]|^[#* \t]*{LABEL_WORDS}answer[* \t]*$", re.IGNORECASE | re.MULTILINE
)
# The same within a sentence. Full stops of abbreviations and initials do not end a sentence, nor do marks between blanks,
# which are words of the generated world.
SPOKEN = re.compile(
    r"^\W*answer\W*:|\banswer\b(?!['’]s)[^.:=\n]{0,60}?(?:\bis\b|:)(?!\s+not\b)", re.IGNORECASE | re.MULTILINE
)
SENTENCE_END = re.compile(
    r"(?<!\s)(?<!\b[A-Z])(?<!\b(?:St|Dr|Mr|Ms|Jr|Sr|Mt|Ft|No|vs|Co|Lt))(?<!\b(?:Mrs|Gen|Gov|Sen|Rep|Inc|Ltd|Col))"
    r"(?<!\bProf)[.!?][\"'”’)*]{0,3}(?=\s|$)"
)
BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
ALONE = re.compile(r"\n\s*\*\*([^*\n]{1,100})\*\*[.\s]*$")  # the last line, if all of it is bold
JSON = re.compile(r'"([^"\n]+)"\s*\}\W*$')  # '"Paris"}' of '{"answer": "Paris"}'
BULLET = re.compile(r"(?:[-•]|\*(?!\*)|\d+[.)])\s")
# Words behind an answer: "Rome (Italy)", "Yes, it is", "Rome, because ..."
EXPLAINED = re.compile(r"([^()\n]+)\([^()\n]*\)[.\s]*$")
REASONED = re.compile(
    r"(?:yes|no)\b(?=\s*(?:[,;:–—-]|\.(?!\s?\d)))|[^\n]{1,100}?(?=,? because\b|, (?:since|as|where|who|which)\b)",
    re.IGNORECASE,
)
# HotpotQA's and SQuAD's evaluators compare without articles and punctuation: "U.S.A." is "USA", "1,000" is "1000",
# "co-founder" is "cofounder". Marks of numbers stay: "3.5" is not "35".
ARTICLE = re.compile(r"^(?:the|an?) (?=.)")
MARKS = re.compile(r"(?<=[^\W\d])(?:[.,;:!?'\"]|-(?=[^\W\d]))|(?<=\d),(?=\d{3}(?!\d)|\s)|(?<!\w)['\"](?=\w)")


def bare_words(ending: str) -> str | None:
    """The words after the last "Answer:". If they are short, later lines are dropped, unless they are a list.

    Without such a label: the sentence that names the answer, a box, or a last line in bold; else the whole text.
    """
    parts = ANSWER_LINE.split(ending)
    if len(parts) > 1:
        answer = JSON.sub(r"\1", BOLD.sub(r"\1", parts[-1])).strip("* \n")
        first, *talk = re.split(r"\n\s*\n" if BULLET.match(answer) else r"\s*\n\s*", answer, maxsplit=1)
        if talk and len(first) <= SHORT:
            answer = first.strip("* \n")
        if answer.startswith("\\boxed{") and (box := boxed(answer)) and box[0] == len(answer.rstrip(".$")):
            answer = unwrapped(box[1])
    elif found := prose_answers(ending):
        answer = unwrapped(found[0])
    else:
        alone = ALONE.search(ending)
        answer = (alone[1] if alone else ending).strip("* \n")
    return answer or None


def prose_answers(text: str) -> list[str]:
    """Candidate answers in words: the last statement, cut at each possible end, since names and titles may contain full
    stops."""
    found, text = [], BOLD.sub(r"\1", text)
    if (box := boxed(text)) and not WAIT.search(text[box[0] :]):
        found.append(box[1].strip("$"))
    for phrase in list(SPOKEN.finditer(text))[-1:]:
        line = text[phrase.end() :].lstrip("*: \n").split("\n")[0]
        rest = text[phrase.end() :].partition(line)[2] if line else ""
        if not DOUBT.search(rest):
            found += sentences(line)
    return found


def sentences(line: str) -> list[str]:
    """A line cut at each possible end of its first sentence, the shortest first; no cut before a doubt."""
    ends = [end.start() for end in itertools.islice(SENTENCE_END.finditer(line), ENDS)] + [len(line)]
    return [line[:end] for end in ends if not DOUBT.search(line[end:])]


def worded(statement: str, brackets: bool = True) -> set[str]:
    """The answers in words that a statement may mean, normalised: "Yes, it is" is "yes" too.

    brackets: so is "Rome (Italy)" "Rome".
    """
    bare, phrased = bare_words(statement) or "", prose_answers(statement)
    found = [statement, bare, *phrased]
    for answer in phrased or (sentences(bare) if "\n" not in bare else []):
        found.append(bare := BOLD.sub(r"\1", answer).strip("* "))
        if brackets and (match := EXPLAINED.match(bare)):
            found.append(match[1])
        if (match := REASONED.match(bare)) and not DOUBT.search(bare[match.end() :]):
            found.append(match[0])
    return {without_article(unwrapped(answer)) for answer in found} - {""}


def same_words(first: str, second: str) -> bool:
    """Whether two answers in words may mean the same. A name in brackets is left out only against a name without."""
    if not worded(first, brackets=False).isdisjoint(worded(second, brackets=False)):
        return True
    return without_article(first) in worded(second) or without_article(second) in worded(first)


def words(text: str) -> str:
    """Normalise a text for comparison: no case, spacing or surrounding punctuation.

    A punctuation mark between blanks is kept, since it is a word of the generated world.
    """
    text = unicodedata.normalize("NFC", text).replace("’", "'")
    bare = " ".join(text.lower().split()).strip(" .$*\"'“”‘`")
    return re.sub(r"(?<=\S)[,;:!?]+$", "", re.sub(r"(?<=[^\W\d]),(?=[^\W\d])", ", ", bare))


def without_article(text: str) -> str:
    """A text normalised by `words`, without a leading article and the marks that HotpotQA's evaluator leaves out."""
    return MARKS.sub("", ARTICLE.sub("", words(text).translate({0x201C: '"', 0x201D: '"', 0x2013: "-"})))


def unwrapped(formula: str) -> str:
    r"""A formula without \text{} and dollars."""
    return TEXT.sub(r"\1", formula).strip("$ ")

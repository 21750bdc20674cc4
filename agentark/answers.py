"""Is an answer right? One function for every kind of answer, given alone or at the end of a whole chain of thought."""

import re
from fractions import Fraction

from agentark import StudyError, grader
from agentark.schemas import AnswerKind

TAIL = 8_000  # characters from the end of a trace, among which its answer must stand
REACH = 600  # characters in which a statement must give what it announces

# Where an answer is stated: a box, GSM8K's mark, a label or heading, a sentence
BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
PHRASE = re.compile(
    r"####"
    r"|^[ \t]*A:"
    r"|^[#* \t]*(?:the )?(?:final )?answer[*: \t]*$"
    r"|\banswer\b(?!['’]s)[^.:=\n]{0,60}?(?:\bis\b|\bbe\b|\bwas\b|:|=)(?!\s+(?:not|wrong|incorrect)\b)",
    re.IGNORECASE | re.MULTILINE,
)
# What it states: up to the end of the sentence or line, formulas whole
CONTENT = re.compile(
    r"[\s*:]*((?:\$\$.+?\$\$|\$[^$\n]+\$|\\\(.+?\\\)|\\\[.+?\\\]|(?![.!?](?:[\s*]|$))[^\n])+)", re.DOTALL
)
# at once, not as in "the answer is derived from dividing what she needs by 15"
GIVEN = {"number": re.compile(r"[^\d\n]{0,25}\d"), "latex": re.compile(r"[^\d$\\\n]{0,25}[\d$\\]")}
PROSE = re.compile(r"(?<![\\a-zA-Z{])[a-zA-Z]{2,}\s+[a-zA-Z]{2,}")
# After such words a trace goes on thinking; what it said before them is not its last word
DOUBT = re.compile(r"\b(?:wait|hmm|alternatively|differently|not sure|let me|I need to|I should have)\b", re.IGNORECASE)

NUMBER = r"[-−]?(?:(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+(?![\d.]))?"
PLAIN = re.compile(NUMBER)
WITHIN = re.compile(rf"(?<![\w.,])(?:{NUMBER})")
UNIT = re.compile(r"(?<=[\d\s])(?:[cmk]m|ft|in|yd|mi)\s?(?:\^\s?\{?[23]\}?|[²³])\s*$")  # "10 cm^2": no product of c and m
# A number that the words around it, units mostly, leave as it is: "$18", "52 WPM", "18 apples in 3 boxes"
QUANTITY = re.compile(rf"[^\w.+\-−*/^=<>\\]*({NUMBER})(?![\d,.]*\d)(?:\s*°|[\s-]*[a-z][^+*/^=<>×÷\\]*)?[.,;:!\s)\]]*", re.I)
SUM = re.compile(r"\*|\^|×|÷|[\d)]\s*[-+/(]\s*[\d(]|\\")
# An option that a text chooses: "answer is (B)", "I'll go with B", "option B is correct", "\\boxed{B}", "(B) ..." on a line
CHOICE = re.compile(
    r"\banswer\b[^.\n]{0,60}?(?:\bis\b|\bbe\b|:)[\s\W]{0,12}(?-i:([A-J]))\b(?!['’])"
    r"|\b(?:is|be|are|answer|option|choice)\b[\s\W]{0,6}\(([A-J])\)"
    r"|\b(?:is|be|:)\s*(?:\b(?:option|choice)\b)[\s\W]{0,6}(?-i:([A-J]))\b"
    r"|\b(?:go with|choose|select|pick)\b(?: the)?(?: option| answer| choice)?[\s\W]{0,6}(?-i:([A-J]))\b(?!['’])"
    r"|(?-i:\b([A-J]))\b\)?(?: is| would be)(?: the)? (?:most |best |only )*(?:correct|right|accurate|appropriate|answer)"
    r"|\\boxed\s*\{\W*(?:\\text\w*\{)?\W*(?-i:([A-J]))\b"
    r"|^[ \t]*(?:\*\*)?\(?(?-i:([A-J]))(?:\)|\*\*|[.:](?=\s|$)|$)",
    re.IGNORECASE | re.MULTILINE,
)
DRESS = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\b|\\[,!;: ]|\*\*|\\?\$|[€£{}]|\\[()\[\]]")


def is_correct(prediction: str | None, gold: str, kind: AnswerKind = "latex") -> bool:
    """Whether what `prediction` states last means the same as `gold`.

    Both may be an answer alone or a text that ends in one: a solution in the data set's own form ("... #### 18"), a
    model's chain of thought. A prediction without a readable answer, undecided to its end, or too costly to compare is
    wrong. Raises StudyError where the gold answer is missing or unreadable, since no prediction could be judged by it.
    """
    if not gold or not gold.strip():
        raise StudyError("a question without a gold answer cannot be graded; remove it or give it one")
    if prediction is None or not (said := concluded(prediction)):
        return False
    if kind in ("choice", "text"):
        same, letter = words(said) == words(gold), letter_of(gold)
        return same or (kind == "choice" and letter is not None and letter_of(said) == letter)
    if said == gold.strip():
        return True
    truth = stated(concluded(gold), kind)
    if truth is None:
        raise StudyError(f"gold answer {gold[-80:]!r} is not readable as {kind}; mend the question")
    answer = stated(said, kind)
    if answer is None:
        return False
    if PLAIN.fullmatch(truth) and PLAIN.fullmatch(answer):
        return value(truth) == value(answer)
    verdict = grader.compare(spelt(truth), spelt(answer))
    if verdict == "unreadable gold" or (verdict is None and grader.compare(spelt(truth), ["0"]) is None):
        raise StudyError(f"gold answer {gold[-80:]!r} is not readable as {kind}; mend the question")
    return verdict == "equal"


def concluded(text: str) -> str:
    """The end of a text, after its thinking if that is marked; "" if the thinking never ends."""
    before, closed, after = text.rpartition("</think>")
    return "" if not closed and "<think>" in text else after[-TAIL:].strip()


def words(text: str) -> str:
    return " ".join(text.lower().split())


def stated(text: str, kind: AnswerKind) -> str | None:
    """The last answer that a text states, as a plain number where it is one; None if it states none or takes it back."""
    end, content = boxed(text) or (0, "")
    for phrase in reversed(list(PHRASE.finditer(text, end))):
        said = CONTENT.match(text[phrase.end() : phrase.end() + REACH])
        if said and (GIVEN[kind].match(said[1]) or not (content or kind == "number" or PROSE.search(said[1]))):
            end, content = phrase.end() + said.end(), said[1]
            if DOUBT.search(text, end):
                return None
            break
    if not content:  # nothing is announced: the last line with a number or formula on it, or a short text as it is
        lines = [line for line in text.split("\n") if re.search(r"\d|\$|\\", line)]
        content = text if kind == "latex" else lines[-1] if lines else ""
        if DOUBT.search(text, text.rfind(content)):
            return None
    return number(content) if kind == "number" else content.strip() or None


def boxed(text: str) -> tuple[int, str] | None:
    """End and content of the last box, with those that it is listed with; None if there is no box."""
    contents: list[str] = []
    end = start = None
    for box in reversed(list(BOX.finditer(text))):
        depth, i = 1, box.end()
        while depth and i < len(text):
            depth += {"{": 1, "}": -1}.get(text[i], 0)
            i += 1
        if end is None:
            end = i
        elif i > start:  # the box around the last one
            break
        else:
            between = text[i:start]
            listed = len(between) < 10 or (len(between) < 70 and re.search(r"\b(?:and|or)\b|,|;", between))
            if not listed or re.search(r"[.!?]\s|\n\n", between):
                break
        content = text[box.end() : i - 1 if not depth else i]
        if content not in contents:
            contents.insert(0, content)
        start = box.start()
    return (end, "\\boxed{" + ", ".join(contents) + "}") if contents else None


def number(content: str) -> str | None:
    """The number that a statement comes to: plain if it is written so, the formula if it must be worked out."""
    content = content.removeprefix("\\boxed{").removesuffix("}") if content.startswith("\\boxed{") else content
    result = re.split(r"=|≈|\\approx|\bequals?(?: to)?\b", content)[-1]
    if not re.search(r"\d", result):
        return None
    bare = DRESS.sub("", result.replace("{,}", ","))
    if match := QUANTITY.fullmatch(bare):
        return match[1]
    if SUM.search(bare):
        return result.strip()
    found = WITHIN.findall(bare)
    return found[-1] if found else None


def value(plain: str) -> Fraction | None:
    """A plain number's value; None if it has none, as 1/0."""
    try:
        return Fraction(plain.replace(",", "").replace("−", "-").replace(" ", ""))
    except (ValueError, ZeroDivisionError):
        return None


def spelt(content: str) -> list[str]:
    """A statement as math-verify reads it: formulas between dollars unless they are marked already, prose as it is."""
    content = UNIT.sub("", content.replace("\\$", ""))
    if re.fullmatch(r"-?\d+(?:,-?\d+)+", content):  # "1,22" may be a list or a decimal fraction
        return [content, f"${content}$"]
    marked = re.search(r"\$|\\\(|\\\[|\\boxed", content) or re.fullmatch(r"[-\d.,\s%/]+", content)
    return [content if marked or PROSE.search(content) else f"${content}$"]


def letter_of(text: str) -> str | None:
    """The last option that a text chooses, as a capital letter; None if it chooses none or takes it back."""
    if alone := re.fullmatch(r"\W*([A-J])\W*", text, re.IGNORECASE):
        return alone[1].upper()
    choices = list(CHOICE.finditer(text))
    if choices:
        last = choices[-1]
        return None if DOUBT.search(text, last.end()) else next(filter(None, last.groups())).upper()
    first = re.match(r"\W*([A-J])\b(?!['’])", text)
    return first[1] if first else None

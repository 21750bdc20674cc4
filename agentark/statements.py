r"""What a text states as its answer: the last box, mark ("#### 18"), label ("A: 18") or sentence ("the answer is 18").

The last statement counts. A text that goes on doubting after it, or never ends its thinking, states nothing. Everything
here is matching of regular expressions in a bounded stretch of text; no formula is worked out.
"""

import re

from agentark.schemas import AnswerKind

TAIL = 8_000  # characters from the end of a trace, among which its answer must stand
REACH = 600  # characters in which a statement must give what it announces

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
PHRASE = re.compile(
    r"^[#* \t]*(?:the )?(?:final )?answer[*: \t]*$"  # a heading
    r"|####(?=[ \t]*[-−$]?[\d.\\(\[{][^\n]*$)(?![ \t]*\d+[.)]\s)"  # GSM8K's mark, not a numbered heading
    r"|^[ \t]*A:"
    r"|(?<!check our )(?<!check the )\banswer\b(?!['’]s)[^.:=\n]{0,60}?(?:\b(?:is|be|was)\b|:|=)"
    r"(?!\s+(?:not|wrong|incorrect)\b)",
    re.IGNORECASE | re.MULTILINE,
)
# What is stated: up to the end of the sentence or line, formulas whole
CONTENT = re.compile(
    r"[\s*:]*((?:\$\$.+?\$\$|\$[^$\n]+\$|\\\(.+?\\\)|\\\[.+?\\\]|(?![.!?](?:[\s*]|$))[^\n])+)", re.DOTALL
)
# It is given at once, not as in "the answer is derived from dividing what she needs by 15"
AT_ONCE = {"number": re.compile(r"[^\d\n]{0,25}\d"), "latex": re.compile(r"[^\d$\\\n]{0,25}[\d$\\]")}
PROSE = re.compile(r"(?<![\\a-zA-Z{])[a-zA-Z]{2,}\s+[a-zA-Z]{2,}")
# After such words a trace goes on thinking; what it said before them is not its last word. A box stands many of them.
DOUBT = re.compile(
    r"\b(?:wait|hmm|alternatively|differently|not sure|let me (?!know)|I need to|I should have)\b", re.IGNORECASE
)
WAIT = re.compile(r"\b(?:wait|hmm)\b", re.IGNORECASE)

NUMBER = r"[-−]?(?:(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+(?![\d.]))?"
# A number that the words around it, units mostly, leave as it is: "$18", "52 WPM", "18 apples in 3 boxes"
QUANTITY = re.compile(
    rf"[^\w.+\-−*/^=<>\\]*({NUMBER})(?![\d,.]*\d|e[-+]?\d)(?:\s*°|[\s(-]*[a-z][^+*/^=<>×÷\\]*)?[.,;:!\s)\]]*",
    re.IGNORECASE,
)
SUM = re.compile(r"\de[-+]?\d|\*|\^|×|÷|[\d)]\s*[-+/(]\s*[\d(]|\\")
LAST = re.compile(rf"(?<![\w.,])({NUMBER})")
DENIED = re.compile(rf"(?:\bnot|n['’]t) {NUMBER}")
EITHER = re.compile(r"\d[^+*/^=.]{0,20}\bor\b[^+*/^=.]{0,20}\d")  # "18 or 19" is no answer
DRESS = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\b|\\[,!;: ]|\*\*|\\?\$|[€£{}]|\\[()\[\]]")

CHOICE = re.compile(
    r"\b(?:answer|option|choice)\b[^.\n]{0,60}?(?:\bis\b|\bbe\b|:)[\s\W]{0,12}(?:(?-i:([A-J]))\b(?!['’])|([A-J])\W*$)"
    r"|\b(?:is|be|are)\b[\s\W]{0,6}\(([A-J])\)"
    r"|\b(?:is|(?<!it to )be|are|therefore|thus|hence|so|option|choice|answer)\b[\s,:]*(?-i:([A-J]))\W{0,12}$"
    r"|\b(?:go with|choose|select|pick)\b(?: the)?(?: option| answer| choice)?[\s\W]{0,6}(?-i:([A-J]))\b(?!['’])"
    r"|(?-i:\b([A-J]))\b\)?(?: is| would be)(?: the)? (?:(?:most|best|only) )*(?:correct|right|accurate|appropriate|answer)"
    r"|\\boxed\s*\{\W{0,12}(?:\\text\w*\{)?\W{0,12}(?-i:([A-J]))\b"
    r"|^[ \t]*(?:\*\*)?\(?(?-i:([A-J]))(?:\)|\*\*|[.:](?=\s|$)|$)",
    re.IGNORECASE | re.MULTILINE,
)
# An option that opens a text: "D, because ...", "A Peter", but not "A patient ..." or "A or B"
OPENING = re.compile(r"\W*([A-J])(?:[.):,]|[ \t]*$|\s+[A-Z])", re.MULTILINE)
REFUSAL = re.compile(r"\bnot (?:present|listed|among|given)\b|\bnone of (?:the|these|them)\b", re.IGNORECASE)


def conclusion(text: str) -> str:
    """The end of a text, after its thinking if that is marked; "" if the thinking never ends."""
    rest = text.rpartition("</think>")[2]
    return "" if "<think>" in rest else rest[-TAIL:].strip()


def stated(text: str, kind: AnswerKind) -> str | None:
    """The last answer that a text states, as a plain number where it is one; None if it states none or takes it back.

    For "number" the result is a plain number or a formula that comes to one, else any formula or words.
    """
    (end, content), doubt = boxed(text) or (0, ""), WAIT
    for phrase in reversed(list(PHRASE.finditer(text, end))):
        said = CONTENT.match(text[phrase.end() : phrase.end() + REACH])
        if said and (AT_ONCE[kind].match(said[1]) or not (content or kind == "number" or PROSE.search(said[1]))):
            end, content, doubt = phrase.end() + said.end(), said[1], DOUBT
            break
    if not content:  # nothing is announced: of a number, the last line that has one; of a formula, any in the text
        lines = [line for line in text.split("\n") if re.search(r"\d", line)]
        content, doubt = (lines[-1] if lines else "") if kind == "number" else text, DOUBT
        end = text.rfind(content)
    if doubt.search(text, end):
        return None
    return number(content) if kind == "number" else content.strip() or None


def boxed(text: str) -> tuple[int, str] | None:
    """Where the last box ends and its content, with those of the boxes that it is listed with; None without a box."""
    contents: list[str] = []
    end = start = 0
    for box in reversed(list(BOX.finditer(text))):
        depth, stop = 1, box.end()
        while depth and stop < len(text):
            depth += {"{": 1, "}": -1}.get(text[stop], 0)
            stop += 1
        if contents and not listed(text[stop:start]):
            break
        content = text[box.end() : stop - (not depth)].strip("$ ")
        if content not in contents:
            contents.insert(0, content)
        end, start = end or stop, box.start()
    return (end, f"${', '.join(contents)}$") if contents else None


def listed(between: str) -> bool:
    """Whether two boxes with these words between them are one answer: "\\boxed{3} or \\boxed{4}"."""
    if not between or re.search(r"[.!?]\s|\n\n", between):
        return False
    return len(between) < 10 or (len(between) < 70 and re.search(r"\b(?:and|or)\b|,|;", between) is not None)


def number(content: str) -> str | None:
    """The number that a statement comes to: plain if it is written so, as a formula if it must be worked out."""
    result = re.split(r"=|≈|\\approx|\bequals?(?: to)?\b", content)[-1]
    bare = DENIED.sub("", DRESS.sub("", result.replace("{,}", ",")))
    if not re.search(r"\d", bare) or EITHER.search(bare):
        return None
    if quantity := QUANTITY.fullmatch(bare):
        return quantity[1]
    if SUM.search(bare):
        return result.strip()
    found = LAST.findall(bare)
    return found[-1] if found else None


def letter(text: str) -> str | None:
    """The last option that a text chooses, as a capital letter; None if it chooses none or takes it back."""
    if alone := re.fullmatch(r"\W*([A-J])\W*", text, re.IGNORECASE):
        return alone[1].upper()
    if choices := list(CHOICE.finditer(text)):
        choice = choices[-1]
        taken_back = DOUBT.search(text, choice.end()) or REFUSAL.search(text, choice.end())
        return None if taken_back else next(filter(None, choice.groups())).upper()
    if opening := OPENING.match(text):
        return opening[1]
    last = text.split("\n\n")[-1]  # "(D) fits best" may stand anywhere in it, if no other option does
    named = set(re.findall(r"\(([A-J])\)", last))
    return named.pop() if len(named) == 1 and not DOUBT.search(last) else None

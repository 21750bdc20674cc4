"""Find the option that a text chooses: the letter of a multiple-choice answer."""

import re

from agentark.answers.doubts import DOUBT
from agentark.answers.spellings import clean

# A letter as an option. "A" and "I" are also words, so they count only if no sentence continues after them
# (antirez/ds4#319: "A decrease in preload"; UKGovernmentBEIS/inspect_ai#2216: "I don't know").
GOES_ON = (
    r"(?=\W*$|\s*[.,;:!?)\]}*\"'”’/$](?![a-z])|\s+(?:because|since|as|due|which|where|given|although|but|and|or|not"
    r"|i\.e|is|in|from|with|for)\b|\s+(?-i:[A-Z(–—=-])|\s*\n)"
)
LETTER = rf"(?:(?-i:[B-HJ])\b(?!['’]\w)|(?-i:A)\b{GOES_ON}|(?-i:I)\b(?=\W*$|\s*[.,;:)\]}}*\"]))"
QUOTED = r"['\"‘’“”(*]{1,3}\s?([A-J])\s?['\"‘’“”)*]{1,3}"  # medmcqa/medmcqa#5: "Ans. is 'c' i.e., Vitamin C"
LABEL = r"(?:\b|(?<=_))(?:answer|option|choice|ans|diagnosis)\b"
ADVERB = r"(?:(?:(?:most )?(?:likely|probably)|clearly|indeed|definitely|still|therefore|thus|also) )?"

FONT = re.compile(r"\\(?:text|math)\w*\s*\{([^{}]*)\}")  # "\mathrm{B}"
TAG = re.compile(r"</?(?:b|i|u|em|strong|span|p|code)>", re.IGNORECASE)
ENDS = r"[.,;:)*\"'’]|\s+(?:because|since|as|for|with|which)\b"
UNDENIED = r"(?<!not )(?<!n['’]t )"  # "it cannot be A" chooses no option

# An explicit choice of an option. The last one counts.
CHOSEN = re.compile(
    rf"{LABEL}(?!['’]s)[^.\n]{{0,60}}?(?:\bis\b|\bbe\b|:|\s?[-–—=]\s)\W{{0,12}}?{ADVERB}(?:option )?"
    rf"(?:({LETTER})|{QUOTED}|([A-J])(?:\W*$|[.)](?=\s)|\s+i\.e))"
    rf"|\bans\.?\s*(?:is|[:=-])?\s*(?:option )?(?:{QUOTED}|({LETTER})|([A-J])(?:\W*$|[.)](?=\s)))"
    r"|\banswer\s*\(([A-J])\)\W*$|^\W*(?:answer|option) \(?([A-J])\)(?=\s|$)|\(option ([A-J])\)|\boption \(?([A-J])\)?\W*$"
    rf"|^\W*(?:conclusion|verdict|decision|final choice)\W*:\W*({LETTER})|答案(?:是|为)?\W{{0,4}}(?-i:([A-J]))"
    # A heading, as in gpt-4o's debates: "### Updated Answer", empty line, "(D) Condylar burst"
    r"|^[#* \t]*(?:the )?(?:\w+ )?answer[*: \t]*\n\s*[*(\s]{0,4}(?:option )?\(?(?-i:([A-J]))\b(?!['’])(?!\s+[a-z])"
    rf"|\b(?:is|{UNDENIED}be|are)\b[\s\W]{{0,6}}\(([A-J])\)"
    rf"|\b(?:is|(?<!it to ){UNDENIED}be|are|therefore|thus|hence|so|option|choice|answer)\b[\s,:]*"
    rf"({LETTER})\W{{0,12}}$"
    rf"|\bnot (?:option )?\(?[A-J]\)?,? but (?:rather )?(?:option )?[(*\"']{{0,3}}({LETTER})"
    # "It's B", "Letter: B"
    rf"|(?:\b(?:it|that)['’]s(?: option)?|^\W*(?:the )?(?:\w+ )?letter(?: is|[* ]*:))[\s(*\"']{{0,4}}({LETTER})(?=\W*$|{ENDS})"
    r"|\b(?:go(?:ing)? with|stand(?:ing)? by|stick(?:ing)? with|choose|select|pick|(?:answer|choice|vote) to)\b(?: the)?(?: option| answer| choice)?[\s\W]{0,6}(?-i:([A-J]))\b(?!['’])"
    r"|(?-i:\b([A-J]))\b\)?(?: is| would be)(?: the)? (?:(?:most|best|only) )*"
    r"(?:correct|right|accurate|appropriate|answer)"
    rf"|\\boxed\s*\{{?\W{{0,12}}(?:option )?({LETTER})|\\boxed\s*\{{\W{{0,4}}([a-j])\W{{0,4}}\}}",
    re.IGNORECASE | re.MULTILINE,
)
# A line that begins with an option; jundot/omlx#3668: such lines may also list the options after the answer
LINE = re.compile(r"^[ \t]*(?:\*\*)?\(?(?-i:([A-J]))(?:\)|\*\*|[.:](?=\s|$)|$)", re.MULTILINE)
# medmcqa/medmcqa#4: two options are not a choice: "A and C", "A, C", "B or D". "B, A is wrong" chooses one.
ANOTHER = re.compile(
    r"\W{0,4}(?:\s*(?:,|/|&|\+|\band\b|\bor\b)){1,2}\s*(?:option )?[(\"'*]*"
    r"(?:[a-j]['\")]|[A-HJ]\b(?=\W*$|[)\]\"'*.,;/]|\s+(?:and|or|are|both|together)\b)|I\b(?=\W*$|\s*[)\].]))"
)
# An option at the start of a text: "D, because ...", "A Peter", "C - Vitamin K", but not "A patient ..." or "A or B"
OPENING = re.compile(
    r"\W*(?:[Oo]ption |[Cc]hoice )?([A-J])(?:[.):,\]]|[ \t]*$|\s+[A-Z]|(?<=[B-HJ])\s+\(|\s+[-–—]\s|\s+because\b)|\W*([a-j])\)\s(?![\s\S]*\n\W*[a-j]\))",
    re.MULTILINE,
)
# An option that a text mentions without choosing it: "If she were pregnant, the answer would be A.", "Agent 2 chose A",
# "some may argue that A is correct", "A is correct, which is wrong"
CASE = re.compile(r"\W*if\b.*\b(?:were|was|had|would|could)\b", re.IGNORECASE)
REPORTED = re.compile(
    r"\b(?:some|others|one|you) (?:may|might|could|would)\b|\bargue|\bagents? \d+(?:['’]s)? (?:says?|said|chose|chooses|claims?|thinks?"
    r"|answered|argues?|believes?|answer|choice)\b",
    re.IGNORECASE,
)
DISAGREES = re.compile(r"\bdisagree|\bwrong\b|\bincorrect\b|\bnot correct\b", re.IGNORECASE)
REJECTED = re.compile(
    r"[^.\n]{0,40}?(?:, which (?:is|was)|,? but (?:it|this|that)(?: is|['’]s)) (?:not\b|wrong|incorrect|a mistake)",
    re.IGNORECASE,
)
# UKGovernmentBEIS/inspect_ai#2216: a refusal mentions the options. An option's own text may be "None of the above", and
# "not present" may be a medical finding.
REFUSAL = re.compile(
    r"\b(?:answer|option|choice)s?\b[^.\n]{0,60}(?:\bnot|n['’]t) (?:present|listed|among|given|provided)\b"
    r"|(?:^|(?<!i\.e)[.!?]\s+)none of (?:the|these|them)\b(?! (?:other|rest|remaining|alternative))",
    re.IGNORECASE | re.MULTILINE,
)


def letter(text: str) -> str | None:
    """The last option that a text chooses, as a capital letter; None for no or several choices or a retracted one."""
    text = TAG.sub("", FONT.sub(r"\1", clean(text)))
    if alone := re.fullmatch(r"[\W_]*([A-J])[\W_]*", text, re.IGNORECASE):
        return alone[1].upper()
    if choices := list(CHOSEN.finditer(text)):
        own = [choice for choice in choices if makes_choice(text, choice)]
        return final_option(text, own[-1] if own else choices[-1]) if own or not DISAGREES.search(text) else None
    lines = list(LINE.finditer(text))
    if opening := OPENING.match(text):
        following = [line for line in lines if line.start() > opening.start(opening.lastindex or 1)]
        if (
            not following or ord(following[0][1]) != ord(opening[1] or " ") + 1
        ):  # otherwise a list of options begins here
            group = opening.lastindex or 1
            return None if ANOTHER.match(text[opening.end(group) :]) else opening[group].upper()
    listed = "".join(line[1] for line in lines)
    if len(listed) > 1 and "ABCDEFGHIJ".startswith(listed):  # only the options, once each
        return None
    if lines:
        return final_option(text, lines[-1])
    last = text.split("\n\n")[-1]  # "(D) fits best" counts anywhere in this paragraph if no other option occurs
    named = set(re.findall(rf"{UNDENIED}(?<!not be )(?<!n['’]t be )\(([A-J])\)", last))
    return named.pop() if len(named) == 1 and not DOUBT.search(last) else None


def makes_choice(text: str, choice: re.Match) -> bool:
    """Whether a text makes this choice itself: false for a hypothetical, reported or rejected choice."""
    start = choice.start(choice.lastindex or 0)
    sentence = re.split(r"[.!?]\s|\n", text[:start])[-1] + text[start : start + 60].split(".")[0]
    return not (CASE.match(sentence) or REPORTED.search(sentence) or REJECTED.match(text[start:]))


def final_option(text: str, choice: re.Match) -> str | None:
    """The option of a choice; None if another option follows directly or the later text retracts the choice."""
    group = choice.lastindex or 0
    rest = text[choice.end(group) :]
    if "answer" in choice[0].lower() and re.match(r"[^\n]*\n[ \t*]*\([A-J]\)", rest):
        return None  # "the correct answers are:" and two lines, or all options repeated
    if ANOTHER.match(rest) or DOUBT.search(rest):
        return None
    refusal = REFUSAL.search(rest)
    if refusal and re.search(r"\w|\n", rest[: refusal.start() + 1]):  # otherwise it is the option's own text
        return None
    return choice[group].upper()

r"""Find the answer in a text: the last box, mark ("#### 18"), label ("A: 18") or sentence ("the answer is 18").

The last statement counts. A text has no answer if it expresses doubt after it, or if its marked thinking does not end.
Everything here is regular expressions on text of bounded length; no formula is evaluated. For spellings of numbers see
spellings.py, for multiple choice options.py.
"""

import re

from agentark.answers.doubts import CHECK, DOUBT, UNSURE, WAIT
from agentark.answers.spellings import DRESS, NUMBER, TIME, clean, equal, formulas, in_words, plain, rooted, value
from agentark.schemas import AnswerKind

TAIL = 8_000  # characters at the end of a trace that are searched for the answer
FEW = 30  # maximal length, in characters, of an answer in words, such as "infinitely many"
REACH = 600  # characters after "the answer is" in which the answer must occur
# A chat template's mark at the end of a reply; the text after it is another turn
TURN_END = re.compile(r"<\|(?:im_end|eot_id|endoftext|end|eom_id)\|>|<(?:/s|eos|end_of_turn|EOT)>")
# huggingface/open-r1#418: R1 puts the answer between tags
TAGGED = re.compile(r"<(?:final_)?answer>\s*([^<\s][^<]*)(?:</(?:final_)?answer>|$)", re.IGNORECASE)

# --- boxes ------------------------------------------------------------------------------------------------------------
# hendrycks/math#23: a box without braces, "\boxed 6"
BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(-?\d(?:[\d.,/]*\d)?(?![\w{])|\\d?frac(?:\{[^{}]*\}|\d){2}|[A-Z](?!\w)))")
# EleutherAI/lm-evaluation-harness#3477: an empty box, or one that repeats the instruction, is not an answer
ECHO = re.compile(
    r"[\W_]*|\W*(?:\\\w+\s*\{)?[\W_]*(?:(?:your|the|my|insert|put|write|place|final|correct|numerical|numeric"
    r"|single)\s+)*"
    r"(?:answer|result|number|solution|value|letter|option)(?:\s+(?:here|goes here|only))?\W*",
    re.IGNORECASE,
)
# huggingface/Math-Verify#57: boxes form one list if only "and", "or" or a comma and a few words are between them; after
# a new clause ("so the total is", "then, after adding three,") only the last box is the answer
ADJACENT = re.compile(r"(?:[\s,;&$.]|\+{2,}|\\[,;!()\[\]]|\\q?quad|\\(?![a-zA-Z])|\\text\s*\{|\}|\band\b|\bor\b)*")
CLAUSE = re.compile(
    r"[.!?:]\s|\n\n|[=+*/×÷<>⇒→]|\\(?:implies|Rightarrow|times|cdot)|\b(?:so|then|thus|hence|therefore|which|that"
    r"|gives?|makes?|after|before|finally|because|since|total|next|now|answer|becomes?|plus|minus|times|when|where|we"
    r"|equals?|sum|average|difference|combined|altogether|results?|overall|leaving|remain\w*|left)\b",
    re.IGNORECASE,
)
JOINED = re.compile(r"\b(?:and|or)\b|,|;")
SCALE_BEHIND = re.compile(r"[\s$*)~]{0,4}((?:hundred|thousand|million|billion|trillion|lakh|crore)s?\b)", re.IGNORECASE)

# An agent's number is not an answer: "I agree with Agent 2.", "Agents 1 and 3 are right"
SPEAKER = re.compile(
    r"\b(?:agent|assistant|debater|participant)s?[ _]?#?\d{1,2}\b(?!\.?\d)"
    r"(?:(?:(?:, |,? (?:and|or) )(?:agent )?#?\d{1,2})+(?=s?['’]|[.,;:)]?(?:\s*$|\s+[^\W\d])))?",
    re.IGNORECASE,
)
# --- phrases ----------------------------------------------------------------------------------------------------------
PHRASE = re.compile(
    r"^[#* \t]*(?:the )?(?:final )?answer[*: \t]*$"  # a heading
    r"|####(?=[ \t]*[-−$]?[ \t]?[\d.\\(\[{][^\n]*$)(?![ \t]*\d+[.)]\s)"  # GSM8K's mark, not a numbered heading
    r"|^[#* \t]*(?:the )?(?:final )?answer[* ]* [-–—] (?=[$€£]?\d)|^[ \t]*A:"
    r"|^[ \t*]*ans(?:\.|\b)[ \t]*(?:is|[:=])"
    r"|(?<!check our )(?<!check the )\banswer\b(?!['’]s)[^.:=\n]{0,60}?(?:\b(?:is|was)\b|(?<!not )(?<!n['’]t )\bbe\b|:|=)"
    # Not an answer, in real debates: "the answer is derived by adding 47 and 52",
    # "the answer is consistent with rule 1"
    r"(?!\s+(?:not|wrong|incorrect|based|consistent|supported|confirmed|in line|(?:derived|obtained|calculated|found"
    r"|computed|determined|reached|achieved|given)\b(?!\s+(?:as|to be)\b))\b)",
    re.IGNORECASE | re.MULTILINE,
)
# The stated content, up to the end of the sentence or line; formulas are not split
CONTENT = re.compile(
    r"[\s*:]*((?:\$\$.+?\$\$|\$[^$\n]+\$|\\\(.+?\\\)|\\\[.+?\\\]|(?<=\d\d)\.\.\.(?=\W*$)"
    r"|\b(?:Rs|approx|ca|No)\.|(?![.!?](?:[\s*]|$))[^\n])+)",
    re.DOTALL,
)
# EleutherAI/lm-evaluation-harness#3477: a repeated instruction, "The answer is N."
PLACEHOLDER = re.compile(r"[\"'“‘`*$]*(?:N|X|\[[^\]\d]*\]|<[^>\d]*>|\.\.\.|_+|\{[a-z ]*\})[\"'”’`*$.]*")
# The answer follows directly, unlike in "the answer is derived from dividing what she needs by 15"
AT_ONCE = {"number": re.compile(r"[^\d\n]{0,25}\d"), "latex": re.compile(r"[^\d$\\\n]{0,25}[\d$\\]")}
# An answer that the agent gave earlier: "My previous answer was 20."
FORMER = re.compile(
    r"\b(?:previous|earlier|initial|original|former|first|old) (?:(?:response|reply|round|message),? )?(?:my |the )?answer\b"
    r"[^.:=\n]{0,60}?\bwas\b",
    re.IGNORECASE,
)
FRAME = re.compile(r"^(?:\*\*|__|`|\s)+|(?<![\^_{*`\s])(?:[*`\s]|__)+$")  # around a formula: "**3/8**"
# The same marks inside a text: "The side is **3/8** or `3x`."
STRONG = re.compile(r"(?<![\w)}*])(\*\*|`)(?=[^\s*`])([^*`\n]+)\1(?![\w({*])")
PROSE = re.compile(r"(?<![\\a-zA-Z{])[a-zA-Z]{2,}\s+[a-zA-Z]{2,}")

# --- numbers in words -------------------------------------------------------------------------------------------------
FIGURE = rf"(?:{TIME}|{NUMBER})"
# A number with words around it, mostly units: "$18", "52 WPM", "60 km/h", "18 apples in 3 boxes"
QUANTITY = re.compile(
    rf"[^\w.+\-−*/^=<>\\±]*({FIGURE})(?![\d,.:]*\d|e[-+]?\d)(?:\s*[°%])?"
    r"(?:[\s(-]*[a-z](?:[^+*/^=<>×÷\\]|(?<=[a-z])\s?/\s?(?=[a-z])|(?<=[a-z])\^\s?\{?[23]\}?)*)?[.,;:!\s)\]]*",
    re.IGNORECASE,
)
SUM = re.compile(
    r"[π±]\s?\d|\dπ|\de[-+]?\d|\*|\^|×|÷|[\d)]\s*[-+/(]\s*[\d(]|\\|\b[a-z]+\)?\s+[-+/]\s+\d", re.IGNORECASE
)
FRACTIONS = re.compile(r"(?<![\d/.])\d+/\d+(?![\d/.])")
LAST = re.compile(rf"(?<![\w.,])(?:(?<!\d:)|(?=\d{{3}}))({FIGURE})")
DENIED = re.compile(rf"(?:\b(?:can)?not|n['’]t)(?: be| equal(?: to)?)? {NUMBER}")
# The same for a formula: "$10$, not $12$", "The answer isn't $3$."
DENIED_FORMULA = re.compile(
    r"(?:,?\s*(?:and |but )?\b(?:can)?not|n['’]t|\brather than|\binstead of)(?: be| equal(?: to)?)?\s+"
    r"(?:\$[^$\n]+\$|\\[dt]?frac\{[^{}]*\}\{[^{}]*\}|-?\d[\d,/]*(?:\.\d+)?(?: [a-z]+)?)",
    re.IGNORECASE,
)
# A reason after the answer contains other numbers: "18, since she sells 9 eggs", "$10$ because there are $5$ pairs"
REASON = re.compile(
    rf"([\s*$€£\\]*{FIGURE}[^,;:\n–—=]{{0,25}}?)(?:[,;:–—]\s*(?:because|since|as|given|based on|where|from|for|confirmed|obtained"
    r"|(?:the )?same as|which (?:agrees|matches|is (?:twice|double|half|triple)))\b|[;:]\s(?!.*(?:[=≈]|\b(?:gives?|equals?|is|are|so)\b)))",
    re.IGNORECASE,
)
FORMULA_REASON = re.compile(r"(?<=[\d$}\)]),? (?:because|since|when|given that)\b.*", re.IGNORECASE | re.DOTALL)
# asuzukosi/post-training-experiments#49: two different numbers do not count: "18 or 19", "15–20", "between 15 and 20"
FEW_WORDS = r"(?:[ \t]+[a-z$°%]{1,12}){0,2}"
RANGE = re.compile(
    rf"\d[^+*/^=.]{{0,20}}\bor\b[^+*/^=.]{{0,20}}\d|\d\s?[–—]\s?[$€£]?\d"
    rf"|(?<!from\s)(?<!adds\s)(?<!add\s)(?<![\w.,$]){NUMBER} to [$€£]?{NUMBER}\D*$"
    rf"|^\W*{FIGURE}{FEW_WORDS}(?:, {FIGURE}{FEW_WORDS})+\W*$"
    rf"|^\W*(?:(?:about|around|approximately|roughly|from|anywhere)\s)*[$€£]?{FIGURE}{FEW_WORDS}"
    rf",?\s(?:to|and)\s[$€£]?{FIGURE}{FEW_WORDS}\W*$",
    re.IGNORECASE,
)
EMPHASIS = re.compile(r"(?<![\w^\\])_{1,2}(?=[^\s_])|(?<=[^\s_])_{1,2}(?!\w)|^\*(?=[\d$])|(?<=\d)\*[.\s]*$")  # "_18_"
RATIO = re.compile(rf"(?<![\d:.,])(?!{TIME})(\d+):(\d+)(?![\d:]|[.,]\d)")
BETWEEN = re.compile(rf"\bbetween\s[$€£]?{FIGURE}{FEW_WORDS}\s(?:and|to)\s[$€£]?{FIGURE}", re.IGNORECASE)
RESULT = re.compile(
    r"=>|=|≈|⇒|→|\\approx|\\implies|\\Rightarrow|\bequals?(?: to)?\b|\bround(?:s|ed)? (?:up|down) to\b(?=\s?[$€£]?\d)"
    r"|(?<=\d) is(?= [$€£]?[-−]?\d)"  # "20 minus 3 is 17"
    # "= 750 cents, which is $7.50", but not "which is 5 more than 7"
    rf"|, which is (?:equal to |equivalent to |the same as )?(?=[-−]?[$€£]?{NUMBER}\b(?! ?%| (?:more|less|fewer|times|percent|of)\b))"
)
COMMENT = re.compile(r"(?:(?<=[a-zA-Z%°])\s*|(?<=\d)\s+)\([^()]*\)")  # "90 days (30 * 3)"
# "(since 1 gallon = 12 pints) gives us 9 pints": an equation in brackets before the number
ASIDE = re.compile(
    r"\((?:since|as|because|where|so|i\.e\.|note)\b[^()=]{0,80}=[^()]{0,80}\)(?=[^()=]*\d)", re.IGNORECASE
)
# The first number, not the last: "There are 260 sheep in the 3 cities.", "She will have 600 dollars after 3 years."
SETTING = re.compile(
    rf"\b(?:there (?:are|is|were|was|will be)|ha[ds]|have|had|earn(?:s|ed)?|makes?|made|needs?|pays?|paid|spen[dt]s?|saves?"
    rf"|saved|sells?|sold|eats?|ate|uses?|used|drinks?|drank|reads?|runs?|ran)"
    rf"(?: a total of| only| exactly| about)? [$€£]?({FIGURE})(?: [a-z]+){{0,4}}"
    rf" (?:(?:in|after|over|during|within|on|across|among)(?: (?:the|all|these|those|his|her|their|its))?"
    rf"|for (?:the|all|these|those|his|her|their))(?: first| last| next)? {FIGURE}(?: [a-z]+){{1,4}}\W*$",
    re.IGNORECASE,
)
WORD = re.compile(r"(?<!\\)\b[a-zA-Z]{2,}(?:\s?/\s?[a-zA-Z]{2,})?\b|(?<=[a-zA-Z])\s+(?=[a-zA-Z])|[$€£]")
ARITHMETIC = re.compile(r"[\d\s.,+\-*/×÷()^]+")

# --- closing remarks --------------------------------------------------------------------------------------------------
# Debate messages end with remarks to the reader; the concluding sentence precedes them
TALK = re.compile(
    r"\W*(?:let me know|i hope|hope (?:this|that)|feel free|if you (?:have (?:any|more|further)|need|want|would|['’]d)"
    r"|please|thank|would you|is there|do you|i apologi[sz]e|my apologies|note that|remember)\b",
    re.IGNORECASE,
)
CONCLUDES = re.compile(
    r"\W*(?:so|therefore|thus|hence|consequently|altogether|in (?:total|conclusion|summary|all)|finally|overall)\b",
    re.IGNORECASE,
)
EQUATION = re.compile(rf"(?:=|\bequals|\bgives(?: us)?)\s*[$€£]?\s?({NUMBER})(?!\s?[-+*/×÷^=\d])")
GIVES = re.compile(
    rf"=\s*[$€£]?\s?[-−]?\d|\b(?:gives?(?: us)?|equals|leaves)\b\s*[$€£]?[-−]?\d"
    rf"|\b(?:is|are|was|were) (?:[$€£]|\*\*)*{NUMBER}%?(?: [a-z]+){{0,3}}(?:\*\*|[.!)\s$])*$"
)
BOLD = re.compile(r"\*\*([^*\n]*\d[^*\n]*)\*\*")
IS_ANSWER = re.compile(
    rf"(?<![\w.,])([$€£]?{FIGURE}[a-z°% ]{{0,20}}) is (?:the|our|my) (?:final |correct |right )?answer\b"
)
SENTENCE = re.compile(r"[.!?]\s+(?=[A-Z(*])")
ITEM = re.compile(r"^\s*\d{1,2}[.)]\s+(?=\S)")  # "3. The total is the sum of both."


def conclusion(text: str) -> str:
    """Return the last tagged answer in a text after its marked thinking, else the last TAIL characters.

    Returns "" if the thinking does not end.
    """
    rest = text.rpartition("</think>")[2]
    if "<think>" in rest:
        return ""
    if "<" in rest and (turns := [turn for turn in TURN_END.split(rest) if turn.strip()]):
        rest = turns[0]
    rest = rest[-TAIL:].strip()
    if "nswer>" in rest and (tagged := TAGGED.findall(rest)):
        return tagged[-1].strip()
    return rest


def stated(text: str, kind: AnswerKind, cut: bool = False) -> str | None:
    """The last answer stated in a text, or None if there is none or the text retracts it.

    kind: for "number" the result is a plain number, a time or a formula for a number, otherwise any formula or words.
    cut: the text is incomplete, so its last words are not a conclusion; only a closed box or a complete sentence that
    names the answer counts.
    """
    cleaned = formulas(clean(text)) if kind == "latex" else rooted(clean(text))
    text = SPEAKER.sub("agent", cleaned)
    (end, content), doubt, before = boxed(text, cut) or (0, ""), WAIT, None
    for phrase in reversed(list(PHRASE.finditer(text, end))):
        content_found = CONTENT.match(text[phrase.end() : phrase.end() + REACH])
        if not content_found or PLACEHOLDER.fullmatch(content_found[1].strip()):
            continue
        if any(old.end() == phrase.end() for old in FORMER.finditer(text, max(phrase.start() - 40, 0), phrase.end())):
            continue
        if cut and phrase.end() + content_found.end() == len(text):
            continue
        prose = PROSE.search(content_found[1]) and len(content_found[1]) > FEW
        named = kind == "number" and in_words(content_found[1])
        if named or AT_ONCE[kind].match(content_found[1]) or not (content or kind == "number" or prose):
            end, content, doubt = phrase.end() + content_found.end(), FORMER.split(content_found[1])[0], DOUBT
            break
    if content and kind == "number" and doubt is WAIT and not cut and (later := worked_out_after(text, end, content)):
        end, content = later
    if not content:  # no explicit answer: use the concluding sentence for a number, the whole text for a formula
        if cut:
            return None
        if kind == "latex" and len(text) < len(cleaned) and not re.search(r"[\d$\\]", text):
            return None  # "I agree with Agent 2."
        whole = text if "\n" in text else STRONG.sub(r"\2", text)
        content, doubt = concluding(text) if kind == "number" else whole, DOUBT
        before = max(text.rfind(content), 0)
        end = before + len(content) if kind == "number" else before
    if doubt.search(text[end:]) and (cut or before is not None or not confirmed(text[end:], number(content))):
        return None
    if before is None and UNSURE.search(content):
        return None
    if kind != "number":
        affirmed = DENIED_FORMULA.sub("", content)
        return FRAME.sub("", FORMULA_REASON.sub("", affirmed) if before is None else affirmed) or None
    if before is None:
        reason = REASON.match(content)
        return number(reason[1] if reason else content)
    found = number(content, text[:before])
    # Steps that end in "the total: 8 + (3 * 8)" describe how to compute the answer.
    return None if "\n" in text and found and SUM.search(FRACTIONS.sub("1", found)) else found


def confirmed(rest: str, found: str | None) -> bool:
    """Whether the text after an answer checks it and computes the same value: "Let me double check: 9 * 2 = 18."."""
    check = CHECK.search(rest)
    if not check or not found or DOUBT.search(rest[: check.start()] + "." + rest[check.end() :]):
        return False
    results = EQUATION.findall(rest[check.end() :])
    return bool(results) and value(results[-1]) == value(found)


def concluding(text: str) -> str:
    """The line that states the number in a text without an explicit answer: the last line with a number.

    An earlier line that begins like a conclusion is preferred if only remarks without computation follow it. Numbers of
    list items do not count.
    """
    items = (ITEM.sub("", line) for line in text.split("\n"))
    lines = [line for line in items if re.search(r"\d", line) and not TALK.match(line)]
    if answer := IS_ANSWER.findall(text):
        return answer[-1]
    if lines and (bold := BOLD.findall(lines[-1])):
        return bold[-1]
    for line in reversed(lines[-4:]):
        if CONCLUDES.match(line) and (line is lines[-1] or f"{line.rstrip()}\n\n" in text):
            return last_sentence(line)
        if RESULT.search(line) or QUANTITY.fullmatch(line):
            break
    return last_sentence(lines[-1]) if lines else ""


def last_sentence(line: str) -> str:
    """Return the last sentence of a line that concludes or computes, else the line."""
    last = line
    for start in list(SENTENCE.finditer(line))[-12:]:
        rest = line[start.end() :]
        if re.search(r"\d", rest) and (CONCLUDES.match(rest) or GIVES.search(rest)):
            last = rest
    return last


def boxed(text: str, closed: bool = False) -> tuple[int, str] | None:
    """Return the end of the last box and its content, joined with the boxes of the same list; None without a box.
    closed: ignore a box that is still open at the end of the text."""
    contents: list[str] = []
    end = start = 0
    for box in reversed(list(BOX.finditer(text))):
        if box[1]:
            content, stop = box[1], box.end()
        else:
            depth, stop = 1, box.end()
            while depth and stop < len(text):
                depth += {"{": 1, "}": -1}.get(text[stop], 0)
                stop += 1
            if closed and depth:
                continue
            content = text[box.end() : stop - (not depth)].strip("$ ")
        if ECHO.fullmatch(content):
            continue
        if contents and not listed(text[stop:start]):
            break
        if scale := SCALE_BEHIND.match(text[stop : stop + 30]):
            content = f"{content} {scale[1]}"
        if all(content != other and not equal(content, other) for other in contents):
            contents.insert(0, content)
        end, start = end or stop, box.start()
    return (end, f"${', '.join(contents)}$") if contents else None


def listed(between: str) -> bool:
    """Whether two boxes with this text between them form one answer: "\\boxed{3} or \\boxed{4}"."""
    if not between or len(between) > 70:
        return False
    if ADJACENT.fullmatch(between):
        return not re.search(r"[.]\s|\n\n", between)
    if re.search(r"\bif\b|\\\\", between, re.IGNORECASE):  # case by case, or row by row
        return JOINED.search(between) is not None and not re.search(r"[!?]\s|\n\n", between)
    before_name = re.sub(r"\b\w+\s*=\s*\$?$", "", between)  # "or $x = \boxed{4}$"
    return not CLAUSE.search(before_name) and JOINED.search(between) is not None


def number(content: str, before: str = "") -> str | None:
    """Return the number in a statement: a plain number, or a formula if it must be evaluated; None if there is none.

    If the statement has several numbers, the result of the last equation in `before` and in the statement counts.
    """
    parts = RESULT.split(ASIDE.sub(" ", content))
    while len(parts) > 1 and re.search(r"[a-z]", parts[-1], re.IGNORECASE) and not re.search(r"\d", parts[-1]):
        parts.pop()  # "90 = total"
    result = plain(parts[-1].replace("{,}", ","))
    bare = EMPHASIS.sub("", DENIED.sub("", DRESS.sub("", result)))
    if len(re.findall(r"\d+", bare)) == 2:
        bare = RATIO.sub(r"\1/\2", bare)
    bare = BETWEEN.sub(" ", bare)
    if re.search(r"\d", short := COMMENT.sub("", bare)):
        bare = short
    figures = LAST.findall(bare)
    if not figures and (named := in_words(bare)):
        return named
    if not re.search(r"\d", bare) or (RANGE.search(bare) and len(set(figures)) != 1):
        return None
    if quantity := QUANTITY.fullmatch(bare):
        return quantity[1]
    if SUM.search(FRACTIONS.sub("1", bare)):
        terms = WORD.sub("", bare).strip(" \n.,:;")
        if re.search(r"\d\s+\d", terms):  # words describe the formula: "multiply 4*2 to find 8"
            return figures[-1] if figures else None
        return terms if ARITHMETIC.fullmatch(terms) else result.strip()
    sentence = LAST.findall(SENTENCE.split(bare)[-1]) or figures
    setting = SETTING.search(bare)
    if len(sentence) > 1 and (results := EQUATION.findall(f"{before} {content}".replace("**", ""))):
        sentence = [figure for figure in sentence if value(figure) == value(results[-1])] or sentence
    elif setting:
        return setting[1]
    return sentence[-1] if sentence else None


def worked_out_after(text: str, end: int, boxed: str) -> tuple[int, str] | None:
    """Return the end and the number of a conclusion after the last box, if the box contains only an intermediate step.

    A debate message may box a step and state the answer in words: the text after the box computes another number, and a
    concluding sentence repeats it.
    """
    rest = text[end:].replace("**", "  ")
    results = [result for result in EQUATION.finditer(rest) if value(result[1]) is not None]
    if not results or value(results[-1][1]) == value(number(boxed) or ""):
        return None
    for line in rest[results[-1].end() :].split("\n"):
        for sentence in SENTENCE.split(line):
            if CONCLUDES.match(sentence) and results[-1][1] in LAST.findall(sentence):
                return len(text), results[-1][1]
    return None

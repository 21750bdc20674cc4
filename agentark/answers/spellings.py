r"""Normalise the many spellings of numbers: "2½", "12 400", "3.2 \times 10^5", "1.5 million".

`clean` normalises the characters of a whole text, `plain` the ASCII spellings in one statement. Afterwards `NUMBER` or
`TIME` matches a number, and `value` or `clock_time` evaluates it. Comments name the issue that each rule comes from. Every
pattern matches in linear time.
"""

import re
from fractions import Fraction

NUMBER = r"[-−]?(?:(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+(?!\d|\.\d))?"
TIME = r"(?<![\d:])\d{1,2}:[0-5]\d(?:[ap]m)?(?![\d:])"
PLAIN = re.compile(NUMBER)
CLOCK = re.compile(r"(\d{1,2}):([0-5]\d)([ap]m)?")

# --- characters -------------------------------------------------------------------------------------------------------
# Fullwidth forms and mathematical digits become ASCII; zero-width characters are removed
SHAPES: dict[int, int | str | None] = {0xFF01 + i: 0x21 + i for i in range(94)}
SHAPES |= {0x1D7CE + i: 0x30 + i % 10 for i in range(50)}
SHAPES |= dict.fromkeys((0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF), None)
SIGNS = (("-", "−\u2010\u2011"), ("/", "⁄∕"), ("·", "⋅∙"), ("...", "…"))
SHAPES |= {ord(character): form for form, characters in SIGNS for character in characters}
VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5"}
VULGAR |= {"⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "⅐": "1/7", "⅑": "1/9", "⅒": "1/10"}
FRACTION = re.compile(rf"(?<=\d)\s?[{''.join(VULGAR)}]|[{''.join(VULGAR)}]")  # huggingface/Math-Verify#81: "2½ cups"
SUPERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
POWER = re.compile(r"(?<=\d)[⁻⁺]?[⁰¹²³⁴-⁹]+")  # scientific notation as "3.2×10⁵"; "m²" stays a unit
# AISBench/benchmark#359: thousands separated by a no-break, thin or narrow no-break space
SPACES = "\u00a0\u2005-\u200a\u202f\u205f"
SPACED = re.compile(rf"(?<![\d.,])\d{{1,3}}(?:[{SPACES}]\d{{3}}){{1,6}}(?!\d)")
BLANK = re.compile(rf"[{SPACES}]")
# A dash used as a minus sign: "= – 5", "#### –36", "at –3 degrees"; "15–20" is a range
DASH = re.compile(r"(^|[({\[$=:#*]|\bis)(\s?)[–‒](?=\s?[\d.])|(?<=[^\W\d]\s)[–‒](?=\d)")
# Formulas in Unicode: "2√3", "√(x+1)", "[0, ∞)"
ROOT = re.compile(r"([√∛])\s*(?:(\d+(?:\.\d+)?|[a-zA-Z])|\(([^()]*)\)|\{([^{}]*)\})")
FORMULA_SIGNS = str.maketrans({"∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "±": r"\pm ", "∅": r"\emptyset "})
FORMULA_POWER = re.compile(r"(?<=[a-zA-Z)\]}])[⁻⁺]?[⁰¹²³⁴-⁹]+")


def clean(text: str) -> str:
    """Convert digits, fractions, powers, signs and blanks to ASCII if they have an ASCII form."""
    if text.isascii():
        return text
    text = POWER.sub(lambda match: f"^{{{match[0].translate(SUPERS)}}}", text)
    text = FRACTION.sub(lambda match: f"{' ' * text[: match.start()][-1:].isdigit()}{VULGAR[match[0][-1]]}", text)
    text = SPACED.sub(lambda match: BLANK.sub("", match[0]), text)
    return DASH.sub(lambda match: f"{match[1] or ''}{match[2] or ''}-", BLANK.sub(" ", text.translate(SHAPES)))


def formulas(text: str) -> str:
    r"""Write the signs of formulas in LaTeX: "2√3" as "2\sqrt{3}", "x²" as "x^{2}"."""
    if text.isascii():
        return text
    text = FORMULA_POWER.sub(lambda match: f"^{{{match[0].translate(SUPERS)}}}", text)
    return rooted(text).translate(FORMULA_SIGNS)


def rooted(text: str) -> str:
    """Write roots in LaTeX, so that the number after a root sign is not matched by itself: "√5" is not 5."""
    return ROOT.sub(
        lambda match: f"\\sqrt{'[3]' * (match[1] == '∛')}{{{next(filter(None, match.groups()[1:]), '')}}}", text
    )


# --- spellings --------------------------------------------------------------------------------------------------------
FRAC = r"\\[dtc]?frac\s*(?:\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s*(\d))"
TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
# AISBench/benchmark#359: thousands separated by blanks, LaTeX blanks, apostrophes; "1,00,000"; "1.234.567,89".
# A single dot, as in "12.400", stays a decimal point.
GROUPS = re.compile(r"(?<![\w.,'])[1-9]\d{0,2}(?:(?:\\[,;: ]|[ '’~_]|\{,\}|,\\!\s?)\d{3}){1,6}(?![\w'’/-])")
INDIAN = re.compile(r"(?<![\w.,])[1-9]\d?(?:,\d\d){1,6},\d{3}(?![\d,])")
DOTTED = re.compile(r"(?<![\w.,])[1-9]\d{0,2}(?:(?:\.\d{3}){2,6}(?:,\d+)?|(?:\.\d{3}){1,6},\d{1,2})(?![\d.,]*\d)")
COMMA = re.compile(r"(?<![\w.,])(?:(\d+),(\d{1,2}|\d{4,})|(0+),(\d+))(?![\d,.]*\d)")  # "2,5" for 2.5
# huggingface/Math-Verify#34: mixed numbers, with any minus sign, and "2-1/2 cups"; "2-1/2" alone is a difference
MIXED = re.compile(r"(?<![\w./^])(\d+)(?:\s+(?:and\s+)?|-(?=\d+/\d+\s+[a-z]{3}))(\d+)/(\d+)(?![\d/.])")
MIXED_FRAC = re.compile(rf"(?<![\w./^_{{}}\\])(\d+)\s*{FRAC}")
# Scientific notation, as in openai/simple-evals' MGSM answers: "3.2e5", "3.2 x 10^5", "4 \cdot 10^{-3}"
TENS = re.compile(
    r"(?<![\w.,^\\])(\d+(?:\.\d+)?)\s*(?:[x×*·]|times|\\times|\\cdot|\\ast)\s*10\s*(?:\^|\*\*)\s*"
    r"(?:\{\s*([-+]?\d{1,3})\s*\}|([-+]?\d{1,3}))(?![\w.^!])"
)
E_NOTATION = re.compile(r"(?<![\w.,^\\])(\d+(?:\.\d+)?)[eE]([-+]?\d{1,3})(?![\w^!]|\.\d)")
# Repeating decimals: a bar or a dot over the digits, brackets around them, or dots after them
BAR = re.compile(r"(?<![\w.,])(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s*(?:\{\s*(\d+)\s*\}|(\d))|\((\d{1,12})\)(?!\d))")
DOTS = re.compile(r"(?<![\w.,])(\d*)\.(\d{2,40})(?:\.\.\.|\\l?dots|\\cdots)")
REPEATED = re.compile(r"(\d*?)(\d{1,12}?)(\2+)$")
# Khan/khan-exercises#115875: a scale word belongs to the number
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "lakh": 5, "crore": 7}
SCALE = rf"(?:{'|'.join(SCALES)})s?\b"
SCALED = re.compile(rf"(?<![\w.,])({NUMBER})(?:\s|\*\*|\$|~|-|\\[ ,;]|\\text\{{)*({SCALE}(?:\s{SCALE})*)\}}?", re.I)
SHORT = {"k": 3, "m": 6, "mn": 6, "mln": 6, "b": 9, "bn": 9}
MONEY = re.compile(rf"(?<=[$€£₹])\s?({NUMBER})\s?(k|mn|mln|m|bn|b)\b(?![$\^/])", re.IGNORECASE)  # "$2.5M"
# "US$500", "Rs. 500", "EUR 500"
CODE = re.compile(
    r"\b(?:US|AU?|CA?|HK|NZ|SG?|R)(?=\\?\$\s?\d)|\b(?:USD|EUR|GBP|INR|CAD|AUD|JPY|CNY|RMB|Rs\.?)\s?(?=\\?\$?\d)"
)
CURRENCY = re.compile(r"[£€₹¥]|\\(?:text|mathrm)\s*\{\s*(?:Rs\.?|USD|EUR|GBP|INR)\s*\}")  # in a formula
HALF = r"(?<![\w./^])(\d+) and (an?|one|two|three)[ -](half|third|quarter|fourth|fifth|sixth|eighth|tenth)s?\b"
KILO = re.compile(r"(?<![\w.,])(\d+(?:\.\d+)?)k\b(?![$\^/])", re.IGNORECASE)  # "5k"
# SeraphimSerapis/tool-eval-bench#63: a time of day is one value; its minutes are not a separate number
DAY = re.compile(
    r"(?<![\d:.,])(\d{1,2})(?::([0-5]\d)(?::[0-5]\d)?(?![\d:])(?:\s*(?:([ap])\.?\s?m\b\.?|o['’]?\s?clock))?"
    r"|\s*(?:([ap])\.?\s?m\b\.?|o['’]?\s?clock\b))",
    re.IGNORECASE,
)
# reasoning-machines/pal#12: a minus followed by a blank is a sign, unless a quantity precedes it
# allenai/open-instruct#1530: the same holds for "minus" in words; "10 minus 5" and "x minus 5" are differences
OPENS = r"(^\$?|[$({\[=#]|:[ \t]|\bis\s|\bequals\s)\s*"
SIGN = re.compile(rf"{OPENS}-\s+(?=[\d.\\$])")
SIGN_WORD = re.compile(rf"(?:\bnegative|{OPENS}minus)\s+(?=[$€£]?\s?[\d.])", re.IGNORECASE)
# Numbers in words; spencermountain/compromise#9: "sixteen one" is two numbers
ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
COUNTS = {word: n for n, word in enumerate(f"{ONES} eighteen nineteen".split())}
COUNTS |= {f"{word}ty": 10 * n for n, word in enumerate("twen thir for fif six seven eigh nine".split(), 2)}
COUNT = "|".join(sorted(COUNTS, key=len, reverse=True))
IN_WORDS = re.compile(
    rf"\W*(minus |negative )?((?:{COUNT})(?:(?:[\s-]+| and )(?:{COUNT}|{'|'.join(SCALES)}))*)\b(\s+and a half)?"
    rf"(?:\s+(?!of\b|to\b|or\b|and\b|more\b|less\b|times\b)[a-z]+)?\W*",
    re.IGNORECASE,
)
PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7}
PARTS |= {"eighth": 8, "ninth": 9, "tenth": 10, "twelfth": 12, "hundredth": 100}
# "three quarters", "two and a half", "one third of the cake", but not "twenty third" or "one half or one third"
PART_IN_WORDS = re.compile(
    rf"\W*(minus |negative )?(?:({COUNT}) and )?(an?|{'|'.join(list(COUNTS)[19:0:-1])})[\s-]+({'|'.join(PARTS)})s?\b"
    rf"(?:\s+(?!(?:to|or|and|more|less|times|as|{COUNT})\b)[a-z]+){{0,4}}\W*",
    re.IGNORECASE,
)


def in_words(text: str) -> str | None:
    """A number in words as digits: "negative twenty-four dollars" is "-24". None for any other text."""
    if match := PART_IN_WORDS.fullmatch(text):
        sign, whole, top, bottom = (group and group.lower() for group in match.groups())
        found = COUNTS.get(whole, 0) + Fraction(COUNTS.get(top, 1), PARTS[bottom])
        return str(-found if sign else found)
    if not (match := IN_WORDS.fullmatch(text)):
        return None
    total, part = 0, 0
    for word in re.findall("[a-z]+", match[2].lower()):
        if word == "hundred":
            part *= 100
        elif word in SCALES:
            total, part = total + part * 10 ** SCALES[word], 0
        elif word != "and":
            if part % 100 and not (part % 100 >= 20 and part % 10 == 0 and 0 < COUNTS[word] < 10):
                return None
            part += COUNTS[word]
    half = Fraction(1, 2) if match[3] else 0
    return f"{'-' if match[1] else ''}{total + part + half}"


def plain(content: str, number: bool = True) -> str:
    """Normalise the numbers in a statement to the spelling of `NUMBER` and `TIME`.

    number: false if the statement may be a formula. Spellings with another meaning in formulas are then left unchanged.
    """
    if number:
        content = CODE.sub("", TEXT.sub(r" \1", content))
        content = re.sub(HALF, whole_and_part, content, flags=re.IGNORECASE)
    else:
        content = CURRENCY.sub("", content)
    if PLAIN.fullmatch(content):
        return content
    content = GROUPS.sub(lambda match: re.sub(r"\D", "", match[0]), content)
    content = DOTTED.sub(lambda match: match[0].replace(".", "").replace(",", "."), content)
    content = SIGN.sub(r"\1-", SIGN_WORD.sub(r"\1-", content))
    content = mixed_and_scientific(content)
    content = DOTS.sub(repeating, BAR.sub(repeating, content))
    if number or INDIAN.fullmatch(content):
        content = INDIAN.sub(lambda match: match[0].replace(",", ""), content)
    if number:
        content = COMMA.sub(lambda match: f"{match[1] or match[3]}.{match[2] or match[4]}", content)
        content = MONEY.sub(lambda match: scaled(match[1], SHORT[match[2].lower()]) or match[0], content)
        content = KILO.sub(lambda match: scaled(match[1], 3) or match[0], content)
        content = DAY.sub(time_of_day, content)
    return SCALED.sub(scale_words, content)


def spelt_out(line: str) -> str:
    """Write out the mixed numbers, scientific notation and scale words in a line of a solution."""
    line = SIGN.sub(r"\1-", re.sub(HALF, whole_and_part, line, flags=re.IGNORECASE))
    return SCALED.sub(scale_words, mixed_and_scientific(line))


def mixed_and_scientific(text: str) -> str:
    """Convert mixed numbers to fractions and write out scientific notation."""
    text = MIXED_FRAC.sub(mixed, MIXED.sub(mixed, text))
    return E_NOTATION.sub(power_of_ten, TENS.sub(power_of_ten, text))


def mixed(match: re.Match) -> str:
    """ "2 1/2" or "2\frac12" as one fraction; unchanged if the fraction is not proper."""
    whole, top, bottom, *short = match.groups()
    if top is None:
        top, bottom = short
    if not 0 < int(top) < int(bottom):
        return match[0]
    improper = int(whole) * int(bottom) + int(top), int(bottom)
    return "{}/{}".format(*improper) if match.re is MIXED else "\\frac{{{}}}{{{}}}".format(*improper)


def whole_and_part(match: re.Match) -> str:
    """ "5 and a half" as one fraction."""
    return str(int(match[1]) + Fraction(COUNTS.get(match[2].lower(), 1), PARTS[match[3].lower()]))


def power_of_ten(match: re.Match) -> str:
    exponent = int(next(filter(None, match.groups()[1:])))
    return (scaled(match[1], exponent) if abs(exponent) <= 400 else None) or match[0]


def scale_words(match: re.Match) -> str:
    exponents = [SCALES[word.lower().removesuffix("s")] for word in match[2].split()]
    return scaled(match[1], sum(exponents)) or match[0]


def scaled(number: str, exponent: int) -> str | None:
    """A number times a power of ten, written out; None if `number` has no value."""
    if (found := value(number)) is None:
        return None
    found *= Fraction(10) ** exponent
    if found.denominator == 1 or "/" in number:
        return str(found)
    digits = len(number.partition(".")[2]) - exponent
    shifted = str(abs(int(found * 10**digits))).zfill(digits + 1)
    return f"{'-' * (found < 0)}{shifted[:-digits]}.{shifted[-digits:]}"


def repeating(match: re.Match) -> str:
    """ "0.1\overline{6}", "0.1(6)" or "0.1666..." as a fraction; unchanged if the digits before dots do not repeat."""
    whole, digits = match[1] or "0", match[2]
    if match.re is BAR:
        block = match[3] or match[4] or match[5]
    else:
        found = REPEATED.fullmatch(digits)
        if not found or len(found[2] + found[3]) < len(found[1]):  # so that "1.618033..." is not a fraction
            return match[0]
        digits, block = found[1], found[2]
    head, nines = Fraction(int(whole + digits), 10 ** len(digits)), 10 ** len(block) - 1
    return str(head + Fraction(int(block), nines * 10 ** len(digits)))


def time_of_day(match: re.Match) -> str:
    if int(match[1]) > 24:
        return match[0]
    half = (match[3] or match[4] or "").lower()
    return f"{match[1]}:{match[2] or '00'}{half and half + 'm'}"


# --- meanings ---------------------------------------------------------------------------------------------------------
DRESS = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf)\b|\\[,!;: ]|\*\*|\\?\$|[€£₹{}]|\\[()\[\]]")
RATIONAL = re.compile(rf"([-+]?)\s*(?:{FRAC}|({NUMBER}))")
WRAP = re.compile(r"\\(?:left|right|displaystyle|[!,;: ])|\$|\\[()\[\]]")


def value(plain: str) -> Fraction | None:
    """A plain number's value; None if it has none, such as 1/0, or is too long for Python to parse."""
    try:
        return Fraction(plain.replace(",", "").replace("−", "-").replace(" ", ""))
    except (ValueError, ZeroDivisionError):
        return None


def equal(first: str, second: str) -> bool:
    """Whether two contents of boxes are the same number: "45" and "45.00"."""
    one, other = (value(plain(DRESS.sub("", content))) for content in (first, second))
    return one is not None and one == other


def clock_time(plain: str) -> tuple[int, int, str] | None:
    """A time's hour, minute and "am", "pm" or "" (unknown). A bare number of one or two digits is an hour."""
    if clock := CLOCK.fullmatch(plain):
        return int(clock[1]), int(clock[2]), clock[3] or ""
    return (int(plain), 0, "") if re.fullmatch(r"[012]?\d", plain) else None


def same_time(first: str, second: str) -> bool:
    """Whether two times may be the same: "4:30" and "4:30pm", "4:30pm" and "16:30", "11:00am" and "11"."""
    one, other = clock_time(first), clock_time(second)
    if one is None or other is None or one[1] != other[1]:
        return False
    if (one[2] and other[2]) or one[2] == other[2]:
        return (one[0] % 12, one[2]) == (other[0] % 12, other[2]) if one[2] else one[0] == other[0]
    (hour, _, half), bare = (one, other[0]) if one[2] else (other, one[0])
    return bare == hour or bare % 24 == hour % 12 + 12 * (half == "pm")


def rational(formula: str) -> Fraction | None:
    r"""The value of a formula that is a single number or fraction, "\frac{3}{4}" or "-3/4"; None for any other."""
    bare = WRAP.sub("", formula.replace("{,}", ",").replace(",\\!", ",")).strip()
    if bare.startswith("(") and bare.endswith(")") and "," not in bare:  # "(1,200)" is a point
        bare = bare[1:-1]
    match = RATIONAL.fullmatch(bare)
    if not match:
        return None
    sign, top, bottom, short_top, short_bottom, written = match.groups()
    if written is None:
        top, bottom = top or short_top, bottom or short_bottom
        found = Fraction(int(top), int(bottom)) if int(bottom) else None
    else:
        found = value(written)
    return -found if found is not None and sign == "-" else found

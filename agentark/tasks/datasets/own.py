r"""A user's own questions: a file, a folder or a hub data set with one question per row.

A row has a question and an answer, and optionally the answer's kind, a worked solution, and choices. Columns may have
other names than those in `COLUMNS`. parts.py decides which rows are for training and which for tests.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agentark import StudyError, root
from agentark.answers import gradable
from agentark.answers.correct import POWER_2_3, SYMBOL
from agentark.answers.spellings import FRAC, NUMBER, clean, plain
from agentark.schemas import AnswerKind
from agentark.tasks.datasets.choices import choice_fields
from agentark.tasks.datasets.formats import Fields, boxes, column, question_fields, text_in
from agentark.tasks.datasets.rows import Raw, is_read

COLUMNS = {name: name for name in ("question", "answer", "kind", "solution", "choices")}
KINDS = ("number", "latex", "choice", "text")
CONFIG = re.compile(r"(.*[^:/]):([\w.-]+)")  # as in org/name:config

# Words that make an answer more than a number: a day ("4 july"), a year ("44 bc"), a comparison ("5 or")
NO_UNIT = (
    r"(?!(?:january|february|march|april|may|june|july|august|september|october|november|december|and|but|the|not|out"
    r"|off|from|with|more|less|plus|minus|bce)\b)"
)
CODES = "USD|EUR|GBP|JPY|CNY|INR|CHF|CAD|AUD|NZD|KRW|BRL|MXN|SEK|NOK|DKK|ZAR|PKR"
CURRENCY = rf"(?:(?:US|A|C)?[$]|[€£₹¥]|Rs\.?|(?:{CODES})\b)"
MEASURE = (
    r"(?i:percent|per cent|degrees?(?: celsius| fahrenheit)?|celsius|fahrenheit|kelvin|newtons?|joules?|watts?|volts?"
    r"|hertz|dollars?|euros?|pounds?|rupees?|yen|yuan|years?(?: old)?|months?|weeks?|days?|hours?|minutes?|seconds?"
    r"|(?:square |cubic )?(?:kilo|centi|milli)?met(?:re|er)s?|(?:square |cubic )?(?:foot|feet|inch(?:es)?|yards?"
    r"|miles?)|(?:kilo|milli)?grams?|(?:milli)?lit(?:re|er)s?)"
)
THING = rf"(?:{MEASURE}|{NO_UNIT}[a-z]{{3,}})"
WHOLE_NUMBER = re.compile(
    rf"\+?-?\s?(?:{CURRENCY}\s?)?(?:{NUMBER}|-?{FRAC})"
    rf"(?:\s?(?:%|{CURRENCY}|{SYMBOL}{POWER_2_3}(?:\s?[/·*]\s?{SYMBOL}{POWER_2_3})*)|\s{THING})?"
    rf"(?:\s?(?:/|\b(?:per|an?|each)\b)\s?{THING})?\.?"
)
CODE = re.compile(r"0\d|\d+0s$")  # "007" and "1990s" are names, not numbers
FORMULA = re.compile(
    r"\$[^$]+\$|.*\\(?:[dt]?frac|sqrt|pi|cdot|times|infty|left|begin|text|pm|le|ge)(?![a-zA-Z]).*", re.DOTALL
)
WORKED = re.compile(r"(?P<reasoning>.*?)\s*####[ \t]*(?P<answer>[^\n#]+)", re.DOTALL)


def is_own(task: str) -> bool:
    """Whether a task is a user's own questions, which are named by a path or a data set on the hub."""
    return "/" in task or is_read(Path(task))


def task_of(task: str) -> str:
    """The name of a task in all tables. For own questions: the name of their file without suffix, of their folder or of
    their data set and its configuration, with `-` in place of characters other than letters, digits and `_`."""
    if not is_own(task):
        return task
    path = Path(task)
    return re.sub(r"[^A-Za-z0-9_]+", "-", path.stem if is_read(path) else path.name).strip("-")


def place(task: str) -> tuple[str, str | None]:
    """The file, folder or hub name of own questions, and the configuration named after a colon."""
    named = CONFIG.fullmatch(task)
    return (named[1], named[2]) if named and not (root() / task).exists() else (task, None)


def question(row: dict, columns: Mapping[str, str]) -> Fields:
    """The fields of a question in one row. Raises StudyError that names a column that is missing or cannot be used."""
    text = text_in(row, columns["question"])
    answer = column(row, columns["answer"])
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        if not math.isfinite(answer):  # also JSON's NaN, and a number too large for a float
            raise StudyError(f"column {columns['answer']} holds {answer}, not a number")
        row = {**row, columns["answer"]: str(answer)}
    full = text_in(row, columns["answer"])
    answer, reasoning = answer_and_solution(full)
    choices, solution, kind = (value_or_none(row.get(columns[name])) for name in ("choices", "solution", "kind"))
    usual = "choice" if choices else kind_of(answer, formula=answer != full and "boxed" in full)
    kind = kind or usual
    if kind not in KINDS:
        raise StudyError(f"column {columns['kind']} is {kind!r:.60}; choose one of {', '.join(KINDS)}")
    given = solution.strip() if isinstance(solution, str) else ""
    fields = question_fields(text, answer, kind, solution=given or reasoning)
    return fields | choice_fields(text, answer, choices, columns["choices"]) if kind == "choice" else fields


def value_or_none(value: object) -> object:
    """A value; None for the empty field of a CSV file and the NaN of a table."""
    blank = isinstance(value, str) and not value.strip()
    return None if blank or (isinstance(value, float) and math.isnan(value)) else value


def answer_and_solution(answer: str) -> tuple[str, str]:
    r"""The final answer and the reasoning before it, for an answer that ends as in GSM8K ("... #### 4") or has its
    result in a \boxed, as in MATH. Any other answer is final and has no reasoning."""
    if match := WORKED.fullmatch(answer):
        number = re.sub(r"(?<=\d),(?=\d{3})", "", match["answer"].strip())
        return number, re.sub(r"<<.*?>>", "", match["reasoning"]).strip()
    try:
        (box,) = boxes(answer)
    except (StudyError, ValueError):  # none, several, or one that is not closed
        return answer, ""
    only_box = answer.startswith("\\") and answer.endswith("}")
    return (box, "" if only_box else answer) if box else (answer, "")


def kind_of(answer: str, formula: bool) -> AnswerKind:
    """The kind of an answer without choices: a number only if the whole answer is one, with at most a currency sign, a
    percent sign or a unit. A number within another answer ("Apollo 11") does not decide whether it is right.

    formula: whether the answer is from a box. It is then a formula even without LaTeX commands.
    """
    if is_number(answer) and can_grade(answer, "number"):
        return "number"
    return "latex" if (formula or FORMULA.fullmatch(answer)) and can_grade(answer, "latex") else "text"


def is_number(answer: str) -> bool:
    """Whether an answer is one number and nothing else but a currency sign, a percent sign or a unit."""
    bare = clean(answer).replace("\\$", "$").replace("\\%", "%").strip()
    bare = bare.strip("$").strip() if bare.count("$") == 2 else bare
    return not CODE.match(bare) and WHOLE_NUMBER.fullmatch(plain(bare)) is not None


def can_grade(answer: str, kind: AnswerKind) -> bool:
    try:
        gradable(answer, kind)
    except StudyError:
        return False
    return True


def column_names(columns: Mapping[str, str]) -> dict[str, str]:
    """The column of each key. Raises StudyError for an unknown key, and for two keys with one column.

    The solution may be the answer's column: an answer that ends in its result is reduced to it.
    """
    if unknown := set(columns) - set(COLUMNS):
        raise StudyError(f"questions.columns: {min(unknown)} is unknown; choose from {', '.join(COLUMNS)}")
    found = {**COLUMNS, **columns}
    for key, name in found.items():
        others = [other for other in found if other != key and found[other] == name]
        if others and {key, *others} != {"answer", "solution"}:
            raise StudyError(f"questions.columns: {key} and {others[0]} are both the column {name!r}; name two columns")
    return found


def check_columns(
    source: str, columns: Mapping[str, str], raws: Sequence[Raw], others: Callable[[], Sequence[Raw]]
) -> None:
    """Raise StudyError if a column in `columns` is in no row of `raws` and in no row of `others`."""
    existing = dict.fromkeys(str(name) for raw in raws for name in raw.data)
    missing = [key for key, name in columns.items() if existing and name != key and name not in existing]
    if missing:
        existing |= dict.fromkeys(str(name) for raw in others() for name in raw.data)
    for key in (key for key in missing if columns[key] not in existing):
        raise StudyError(
            f"{source}: no row has the column {columns[key]!r} (questions.columns.{key}); "
            f"its columns: {', '.join(existing):.200}"
        )

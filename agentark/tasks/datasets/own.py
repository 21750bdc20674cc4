r"""A user's own questions: a file, a folder or a hub data set with one question per row.

A row has a question and an answer, and optionally their kind, a worked solution, and choices. Columns may have other
names (`COLUMNS`). Which rows are for training and which for tests is decided in parts.py.
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
from agentark.tasks.datasets.choices import chosen
from agentark.tasks.datasets.formats import Fields, asked, boxes, column, text_in
from agentark.tasks.datasets.rows import Raw, is_read

COLUMNS = {name: name for name in ("question", "answer", "kind", "solution", "choices")}
KINDS = ("number", "latex", "choice", "text")
CONFIG = re.compile(r"(.*[^:/]):([\w.-]+)")  # as in org/name:config

# Words that make an answer more than a number: a day ("4 july"), a year ("44 bc"), a comparison ("5 or")
NO_UNIT = (
    r"(?!(?:january|february|march|april|may|june|july|august|september|october|november|december|and|but|the|not|out|off"
    r"|from|with|more|less|plus|minus|bce)\b)"
)
CODES = "USD|EUR|GBP|JPY|CNY|INR|CHF|CAD|AUD|NZD|KRW|BRL|MXN|SEK|NOK|DKK|ZAR|PKR"
CURRENCY = rf"(?:(?:US|A|C)?[$]|[€£₹¥]|Rs\.?|(?:{CODES})\b)"
MEASURE = (
    r"(?i:percent|per cent|degrees?(?: celsius| fahrenheit)?|celsius|fahrenheit|kelvin|newtons?|joules?|watts?|volts?"
    r"|hertz|dollars?|euros?|pounds?|rupees?|yen|yuan|years?(?: old)?|months?|weeks?|days?|hours?|minutes?|seconds?"
    r"|(?:square |cubic )?(?:kilo|centi|milli)?met(?:re|er)s?|(?:square |cubic )?(?:foot|feet|inch(?:es)?|yards?|miles?)"
    r"|(?:kilo|milli)?grams?|(?:milli)?lit(?:re|er)s?)"
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
    """Whether the name of a task is the place of a user's questions: a path, or a data set on the hub."""
    return "/" in task or is_read(Path(task))


def task_of(task: str) -> str:
    """The name of a task in all tables: for own questions the name of their file, folder or data set (and its
    configuration) without the suffix of a file, with `-` for every character but letters, digits and `_`."""
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
    whole = text_in(row, columns["answer"])
    answer, reasoning = worked(whole)
    choices, solution, kind = (present(row.get(columns[name])) for name in ("choices", "solution", "kind"))
    usual = "choice" if choices else kind_of(answer, formula=answer != whole and "boxed" in whole)
    kind = kind or usual
    if kind not in KINDS:
        raise StudyError(f"column {columns['kind']} is {kind!r:.60}; choose one of {', '.join(KINDS)}")
    given = solution.strip() if isinstance(solution, str) else ""
    fields = asked(text, answer, kind, solution=given or reasoning)
    return fields | chosen(text, answer, choices, columns["choices"]) if kind == "choice" else fields


def present(value: object) -> object:
    """A value; None for the empty field of a CSV file and the NaN of a table."""
    blank = isinstance(value, str) and not value.strip()
    return None if blank or (isinstance(value, float) and math.isnan(value)) else value


def worked(answer: str) -> tuple[str, str]:
    r"""The final answer and the reasoning before it, for an answer that ends as in GSM8K ("... #### 4") or has its
    result in a \boxed, as in MATH. Any other answer is final."""
    if match := WORKED.fullmatch(answer):
        number = re.sub(r"(?<=\d),(?=\d{3})", "", match["answer"].strip())
        return number, re.sub(r"<<.*?>>", "", match["reasoning"]).strip()
    try:
        (box,) = boxes(answer)
    except (StudyError, ValueError):  # none, several, or one that is not closed
        return answer, ""
    alone = answer.startswith("\\") and answer.endswith("}")
    return (box, "" if alone else answer) if box else (answer, "")


def kind_of(answer: str, formula: bool) -> AnswerKind:
    """The kind of an answer without choices: a number only if the whole answer is one, with at most a currency sign, a
    percent sign or a unit. The number within another answer ("Apollo 11") does not decide whether it is right.

    formula: the answer is from a box, and so a formula even without marks of LaTeX.
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


def named(columns: Mapping[str, str]) -> dict[str, str]:
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
    """Raise StudyError for a column that was named for these questions and is in no row, nor in those of `others`."""
    there = dict.fromkeys(str(name) for raw in raws for name in raw.data)
    lost = [key for key, name in columns.items() if there and name != key and name not in there]
    if lost:
        there |= dict.fromkeys(str(name) for raw in others() for name in raw.data)
    for key in (key for key in lost if columns[key] not in there):
        raise StudyError(
            f"{source}: no row has the column {columns[key]!r} (questions.columns.{key}); "
            f"its columns: {', '.join(there):.200}"
        )

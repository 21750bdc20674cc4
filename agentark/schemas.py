"""The row schema of each stage's table, checked on writing and on reading.

Tables are Parquet files, written to a temporary file and then moved into place, so that a table is never incomplete.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from agentark import StudyError
from agentark.files import write_atomically

AnswerKind = Literal["number", "latex", "choice", "text"]
Split = Literal["corpus", "train", "validation", "test"]


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Quantity(Row):
    """A quantity that a question determines: its true value and every valid expression for it.

    `ways` holds expressions over numbers ("3 * 4"), with the operands of sums and products sorted. An empty expression
    means that the value is looked up (in the passage, or in memory). `needed` marks the quantities on the gold
    solution's path.
    """

    name: str
    value: str
    ways: list[str]
    needed: bool


class Question(Row):
    """One question of any task.

    `quantities` is empty for published data sets, whose steps cannot be checked. `references` are further correct
    answers (QASPER has several annotators); a prediction is scored by the best match. `distractors` are known wrong
    answers (TruthfulQA). Both are empty if none are published.
    """

    question_id: str
    task: str
    split: Split
    level: int
    text: str
    solution: str
    answer: str
    kind: AnswerKind
    content: str
    quantities: list[Quantity]
    references: list[str] = []
    distractors: list[str] = []


class Trace(Row):
    """The output of one agent in one round. Agents and rounds count from 1.

    Agent 0 judges: it is the summariser (in the round after the last), and in other protocols also the moderator, the
    verifiers or the ranker.

    `text` is the answer without the marked thinking before it. The thinking is in `thought`; it is never shown to
    other agents, graded or trained on. A reply cut off while thinking has finish reason "length" and an empty text; in
    tables of earlier versions its finish reason is "thought".
    """

    question_id: str
    agent: int
    round: int
    text: str
    answer: str | None
    prompt_tokens: int
    completion_tokens: int
    finish_reason: Literal["stop", "length", "refused", "thought"]
    thought: str = ""

    @property
    def cut_in_thought(self) -> bool:
        """Whether the reply ended during its thought and has no answer."""
        return self.finish_reason == "thought" or (
            self.finish_reason == "length" and bool(self.thought) and not self.text
        )


class CheckedTrace(Trace):
    """A trace with its verdicts: whether the answer is right, each step is right, each step agrees with the consensus.

    `step_right` is empty for published data sets, whose steps cannot be checked.
    """

    correct: bool
    corrective: bool
    steps: list[str]
    step_right: list[bool]
    step_agrees: list[bool]


class Trajectory(Row):
    """One distillation example: a verified trace, its bare answer in the requested form, and the methods using it."""

    question_id: str
    agent: int
    round: int
    prompt: str
    text: str
    answer: str
    answer_only: str
    corrective: bool
    rank: int
    for_rsft: bool
    for_da: bool


class Seconds(Row):
    """The time that a trace took, stored separately from the traces because it differs between runs."""

    question_id: str
    protocol: str = ""
    agent: int
    round: int
    seconds: float


class Prediction(Row):
    """One system's answer to one test question, with exact counts over its steps, and text similarity to the correct
    answer where that is a text. `cut_in_thought`: number of its calls that ended in a thought."""

    question_id: str
    task: str
    setting: str
    method: str
    student: str
    seed: int
    text: str
    answer: str | None
    correct: bool
    steps_needed: int
    steps_present: int
    steps_written: int
    steps_right: int
    steps_grounded: int
    errors: int
    errors_noticed: int
    errors_mended: int
    f1: float | None = None
    rouge1: float | None = None
    rouge2: float | None = None
    rougeL: float | None = None
    tokens: int
    calls: int
    cut_in_thought: int = 0


class Score(Row):
    """One measured value: a row of the results tables. docs/results.md has each column's unit and source.

    Conditions that do not apply are empty. `baseline` and `baseline_variant` name the baseline of a paired gain: its
    method, and its condition if that differs from the row's.
    """

    study: str
    setting: str
    variant: str = ""
    source: str = ""
    questions: int | None = None
    traces_per_question: int | None = None
    gold_used: bool | None = None
    level: int | None = None
    agents: int | None = None
    rounds: int | None = None
    temperature: float | None = None
    domain: str = ""
    part: str = ""
    teacher: str
    student: str
    method: str
    baseline: str
    baseline_variant: str = ""
    train_task: str
    test_task: str
    seed: str
    metric: str
    value: float
    n: int
    lo: float
    hi: float
    se: float | None = None  # over questions only, if the interval covers several seeds
    tokens_per_question: float
    calls_per_question: float | None = None


# Uses of a debate's teacher without communication (debate/controls.py), with which the debate is compared.
CONTROLS = ("vote", "vote_tokens", "self_revision", "debate_off", "debate_other")

# The cost table: its units, the systems that students are compared with, and the methods that need no debate because
# they train on the given answers.
UNITS = ("tokens", "seconds")
RIVALS = ("debate", "vote")
ANSWERS_ALONE = ("sft",)

T = TypeVar("T", bound=Row)


def write_table(rows: Iterable[Row], path: Path) -> None:
    """Write rows of one schema atomically to a Parquet file, or to CSV if `path` ends in .csv.

    Raises StudyError if there are no rows.
    """
    rows = list(rows)
    if not rows:
        raise StudyError(f"{path}: no rows to write; the stage before it produced nothing")
    if Path(path).suffix == ".csv":
        table = frame(rows)
        empty = [name for name in optional(type(rows[0])) if (table[name].isna() | table[name].eq("")).all()]
        write_csv(table.drop(columns=empty), path)
    else:
        thinks = any(getattr(row, "thought", "") for row in rows)  # no column if all thoughts are empty
        records = [row.model_dump(exclude=None if thinks else {"thought"}) for row in rows]
        write_atomically(path, lambda p: pq.write_table(pa.Table.from_pylist(records), p, compression="zstd"))


def optional(schema: type[Row]) -> list[str]:
    """Columns with a default, which a CSV table may omit."""
    return [name for name, field in schema.model_fields.items() if not field.is_required()]


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a small table for git atomically, with six significant digits."""
    write_atomically(path, lambda p: table.to_csv(p, index=False, float_format="%.6g"))


def read_table(path: Path, schema: type[T]) -> list[T]:
    """Read and validate a table. Raises StudyError that names the file, and the row if a single row is invalid."""
    path = Path(path)
    try:
        if path.suffix == ".csv":
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            absent = set(optional(schema))
            records = [{k: v for k, v in r.items() if v or k not in absent} for r in table.to_dict("records")]
        else:
            records = pq.read_table(path).to_pylist()
    except FileNotFoundError:
        raise StudyError(f"{path}: no such table; run `dvc repro` to make it") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(f"{path}: not a readable table ({reason}); delete it and run `dvc repro`") from None
    if not records:
        raise StudyError(f"{path}: a table with no rows; delete it and run `dvc repro`")
    validate = schema.model_validate_strings if path.suffix == ".csv" else schema.model_validate
    rows = []
    for i, record in enumerate(records):
        try:
            rows.append(validate(record))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "row"
            raise StudyError(f"{path}: row {i}, {where}: {first['msg']}; rebuild it with `dvc repro`") from None
    return rows


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Rows as a DataFrame, to inspect and group in a notebook. Optional counts have dtype Int64."""
    rows = list(rows)
    table = pd.DataFrame([row.model_dump() for row in rows])
    fields = type(rows[0]).model_fields.items() if rows else ()
    counts = [name for name, field in fields if field.annotation == int | None]
    return table.astype(dict.fromkeys(counts, "Int64"))


def read_scores(path: Path) -> pd.DataFrame:
    """A results table as a DataFrame with all columns of `Score`. Raises StudyError like `read_table`."""
    return frame(read_table(path, Score))

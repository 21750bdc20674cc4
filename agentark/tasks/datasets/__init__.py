r"""The paper's published data sets as questions for scale `full`, in the same form as those of scale `mini`.

    loaded = [load("gsm8k", split="train"), load("gsm8k", split="test"), load("math500", "MATH-500/test.jsonl")]
    pool, shared = separate([q for part in loaded for q in part.questions])   # before any sampling
    draw(pool, "gsm8k", 500, "train", seed)                                   # like task("word").questions(500, ...)

Every unusable row is listed in `set_aside` with the reason. The splits are the study's: the training part of a data set
gives "train" and "validation" (5 % of contents, by their hash, as in the generated world), its test part "test".
MedMCQA, HotpotQA and TruthfulQA are tested on their validation part: the first two publish no test labels, the last has
no other part.

Hub names and columns are from the data sets' cards and loading scripts. They were not checked against rows from the
hub, so revisions are not pinned by default. Pin one with `revision`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from agentark import StudyError, root
from agentark.answers import is_correct
from agentark.schemas import AnswerKind, Question, Split
from agentark.tasks.datasets import formats, own
from agentark.tasks.datasets.choices import letters_for_indices
from agentark.tasks.datasets.copies import Copies, Read, without_copies
from agentark.tasks.datasets.parts import own_rows
from agentark.tasks.datasets.rows import Raw, read_rows
from agentark.tasks.splits import split_of

Part = Literal["train", "test"]


@dataclass(frozen=True)
class DataSet:
    """A data set's source, licence, use in the paper, and parser for one row.

    `parts` are the data set's own names of its training and test splits. `prepare` processes all rows together, where
    one row is not enough to parse a question.
    """

    name: str
    hub: str  # "" if its authors have not published it on the hub
    config: str | None
    licence: str
    use: str
    kind: AnswerKind  # of most questions
    parts: dict[Part, str]
    question: Callable[[dict], formats.Fields]
    prepare: Callable[[Sequence[Raw]], list[Raw]] = list
    revision: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)  # of own questions


DATA_SETS: dict[str, DataSet] = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            "gsm8k", "openai/gsm8k", "main", "MIT", "distilled from, tested on", "number",
            {"train": "train", "test": "test"}, formats.gsm8k,
        ),
        DataSet(
            "math", "DigitalLearningGmbH/MATH-lighteval", "default", "MIT", "distilled from, tested on", "latex",
            {"train": "train", "test": "test"}, formats.math,
        ),
        DataSet(
            "math500", "HuggingFaceH4/MATH-500", None, "MIT (MATH)", "tested on", "latex",
            {"test": "test"}, formats.math,
        ),
        DataSet(
            "metamathqa", "meta-math/MetaMathQA", None, "MIT", "distilled from", "latex",
            {"train": "train"}, formats.metamathqa,
        ),
        DataSet(
            "medmcqa", "openlifescienceai/medmcqa", None, "Apache-2.0", "distilled from, tested on", "choice",
            {"train": "train", "test": "validation"}, formats.medmcqa, formats.medmcqa_letters,
        ),
        DataSet(
            "hotpotqa", "hotpotqa/hotpot_qa", "distractor", "CC BY-SA 4.0", "out of domain", "text",
            {"test": "validation"}, formats.hotpotqa,
        ),
        DataSet(  # the hub's main branch is a loading script, which `datasets` no longer supports
            "qasper", "allenai/qasper", None, "CC BY 4.0", "out of domain", "text",
            {"test": "test"}, formats.qasper, partial(formats.unfold, formats.qasper_questions), "refs/convert/parquet",
        ),
        DataSet(  # github.com/Yale-LILY/QMSum: data/ALL/jsonl/test.jsonl
            "qmsum", "", None, "MIT", "out of domain", "text",
            {"test": "test"}, formats.qmsum, partial(formats.unfold, formats.qmsum_queries),
        ),
        DataSet(
            "truthfulqa", "truthfulqa/truthful_qa", "generation", "Apache-2.0", "robustness", "text",
            {"test": "validation"}, formats.truthfulqa,
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class SetAside:
    """A row without a usable question. `row` counts from 1 within `file`; `key` is the row's own id or ""."""

    file: str
    row: int
    key: str
    reason: str


@dataclass(frozen=True)
class Loaded:
    """The questions of one part of a data set, and the rows without a usable question."""

    questions: list[Question]
    set_aside: list[SetAside]


def own_data_set(source: str, columns: Mapping[str, str]) -> DataSet:
    """The data set of a user's own questions at `source`. Raises StudyError for a column that no question has."""
    parts: dict[Part, str] = {"train": "train", "test": "test"}
    place, config = own.place(source)
    named = own.column_names(columns)
    return DataSet(
        own.task_of(source), place, config, "the user's", "own questions", "text", parts,
        partial(own.question, columns=named), partial(letters_for_indices, columns=named), columns=named,
    )  # fmt: skip


def load(name: str | DataSet, source: str | Path = "", split: Part = "test", revision: str | None = None) -> Loaded:
    """The questions of a data set's training or test part, and the rows set aside.

    `name` is the name of a published data set, or a data set of own questions (parts.py defines their parts; repeated
    questions are kept once). `source` is a hub name (by default the data set's own), a folder with a copy of a hub data
    set, or a file or folder in the original format; all rows of a single file are read. `revision` pins the hub's
    version: a commit, tag or branch. Ids count all questions of the part, including those set aside, so they are stable
    for one version. Raises StudyError for an unknown name or split, for an unreadable source, and if no row is a valid
    question.
    """
    if isinstance(name, str) and name not in DATA_SETS:
        raise StudyError(f"data set {name!r} is unknown; choose one of {', '.join(DATA_SETS)}")
    data_set = DATA_SETS[name] if isinstance(name, str) else name
    name = data_set.name
    if split not in data_set.parts:
        raise StudyError(f"{name} has no part for {split!r} here; choose from {', '.join(data_set.parts)}")
    source = source or data_set.hub
    if not source:
        raise StudyError(f"{name} is not on the hub; download its files and name one as `source`")
    part, is_own, both = data_set.parts[split], data_set.name not in DATA_SETS, False
    if is_own:
        source = root() / source if (root() / source).exists() else source  # notebooks have another working folder
        raws, both = own_rows(source, split, data_set.config)
        other: Part = "test" if split == "train" else "train"
        own.check_columns(str(source), data_set.columns, raws, lambda: own_rows(source, other, data_set.config)[0])
    else:
        raws = read_rows(source, part, data_set.config, revision or data_set.revision)
    found: list[Read] = []
    elsewhere = 0  # questions of the other part
    set_aside: list[SetAside] = []
    copies = Copies(name)
    for number, raw in enumerate(data_set.prepare(raws), start=1):
        try:
            if raw.problem:
                raise StudyError(raw.problem)
            question = question_of(data_set, raw.data, f"{name}-{part}-{number:06d}", split)
            if both and (split_of(question.content) == "test") != (split == "test"):
                elsewhere += 1
                continue
            copies.add(raw, question)
            found.append((raw, question))
        except StudyError as error:
            set_aside.append(SetAside(raw.file, raw.row, raw.key, str(error)))
    copies.check()
    questions, repeated = without_copies(found) if is_own else ([question for _, question in found], [])
    set_aside += [SetAside(raw.file, raw.row, raw.key, reason) for raw, reason in repeated]
    if not questions and (elsewhere or not set_aside):
        raise StudyError(
            f"{source}: too few questions for the part {split!r}; add questions, or name a folder with one file per part"
        )
    if not questions:
        first, columns = set_aside[0], ", ".join(map(str, raws[0].data)) or "none"
        raise StudyError(
            f"{first.file}: no row is a {name} question; row {first.row}: {first.reason} (its columns: {columns:.100})"
        )
    return Loaded(questions, set_aside)


def question_of(data_set: DataSet, row: dict, question_id: str, split: Part) -> Question:
    """The question in one row of a prepared data set. Raises StudyError with the reason if the row is unusable."""
    fields = {"level": 0, "solution": "", **data_set.question(row)}
    if not fields["content"]:
        raise StudyError("the question has no words")
    held_back = split == "train" and split_of(fields["content"]) == "validation"
    drawn_in: Split = "validation" if held_back else split
    try:
        question = Question(question_id=question_id, task=data_set.name, split=drawn_in, quantities=[], **fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise StudyError(f"{first['loc'][0]}: {first['msg']}") from None
    # Otherwise grading the first trace or checking all gold answers would end a stage with an error.
    if not is_correct(question.answer, question.answer, question.kind):
        raise StudyError(
            f"the answer {question.answer!r:.60} as a reply is not graded as right; write it in other words"
        )
    try:
        "".join(
            [question.text, question.solution, question.answer, *question.references, *question.distractors]
        ).encode()
    except UnicodeEncodeError:
        raise StudyError("the text holds a lone surrogate, which no table can store") from None
    return question


def instructions(kind: AnswerKind) -> str:
    r"""The instruction to reason step by step and to give the final answer in a form that can be checked."""
    ending = {
        "number": r"end with the final answer, a number, in \boxed{}",
        "latex": r"end with the final answer in \boxed{}",
        "choice": r"end with the letter of the right option in \boxed{}",
        "text": 'end with a line that begins with "Answer:" and gives a short answer',
    }[kind]
    return f"Reason step by step and {ending}."

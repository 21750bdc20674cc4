"""Rows of a data set as published, from the hub or from files; each knows where it stands."""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from agentark import StudyError, first_line

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
KEYS = ("id", "_id", "realidx", "unique_id", "idx")  # what data sets call a row's own name
SPLIT_WORDS = {"validation": ("valid", "val", "dev")}  # what files also call a split


@dataclass(frozen=True)
class Raw:
    """One row as published. `row` counts from 1 within `file`, as lines do; `problem` says why it cannot be used."""

    file: str
    row: int
    key: str
    data: dict
    problem: str = ""


def read_rows(source: str | Path, split: str, config: str | None, revision: str | None) -> list[Raw]:
    """All rows of `split` (the data set's own name of it) in a hub data set, a folder or a file.

    A folder with Parquet files is a copy of a hub data set; in any other, the files count that bear the split's name in
    their path, or a file that is alone there. A file is taken whole. Raises StudyError if a file is unreadable as a
    whole; a single unreadable row is returned with its `problem`.
    """
    path = Path(source)
    if path.is_dir() and any(path.rglob("*.parquet")):
        described = (path / "README.md").is_file()  # the card is what gives a configuration its name
        return hub_rows(str(path), split, config if described else None, None)
    if path.exists():
        return [row for file in files_in(path, split) for row in file_rows(file)]
    if path.suffix in READERS or not HUB_NAME.fullmatch(str(source)):
        raise StudyError(f"{source}: no such file or folder; download the data set there, or name one of the hub")
    return hub_rows(str(source), split, config, revision)


def hub_rows(name: str, split: str, config: str | None, revision: str | None) -> list[Raw]:
    import datasets  # here: who asks generated questions need not wait for it

    # A local folder is prepared anew each time: its cache would outlive a change of the files.
    mode = "force_redownload" if Path(name).is_dir() else "reuse_dataset_if_exists"
    try:
        table = datasets.load_dataset(name, config, split=split, revision=revision, download_mode=mode)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise StudyError(
            f"{name}, {split}: not loaded ({first_line(error)}); check name, version and network"
        ) from None
    return [Raw(f"{name}, {split}", i, key_of(row), row) for i, row in enumerate(table, start=1)]


def files_in(path: Path, split: str) -> list[Path]:
    """The data files in a folder that bear the split's name, in order of their paths; or the file itself."""
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix in READERS and is_data(file.relative_to(path)))
    words = {split, *SPLIT_WORDS.get(split, ())}
    named = [file for file in files if words & set(re.findall(r"[a-z]+", str(file.relative_to(path)).lower()))]
    if not named and len(files) != 1:
        raise StudyError(f"{path}: no file here is named for the split {split!r}; name the file itself")
    return named or files


def is_data(path: Path) -> bool:
    """Whether a path is no trace of an editor, an archive or an operating system: hidden files and folders, among them
    `._x` (bids-standard/pybids#1069), `.ipynb_checkpoints` and the hub's `.cache`; `__MACOSX`."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def file_rows(path: Path) -> list[Raw]:
    """The rows of one file, by its ending. Raises StudyError if it cannot be read or has none."""
    if path.suffix not in READERS:
        raise StudyError(f"{path}: the ending is none of {', '.join(READERS)}; convert the file to one of them")
    try:
        found = list(READERS[path.suffix](path))
    except (OSError, ValueError, RecursionError, csv.Error, pa.ArrowException) as error:
        raise StudyError(
            f"{path}: not a readable {path.suffix} file ({first_line(error)}); download it again"
        ) from None
    if not found:
        raise StudyError(f"{path}: a file with no rows; download it again")
    return [
        Raw(str(path), row, key_of(data), data if isinstance(data, dict) else {}, problem or shape(data))
        for row, data, problem in found
    ]


# A reader yields (row number, content, problem).
Numbered = Iterator[tuple[int, object, str]]


def json_lines(path: Path) -> Numbered:
    text = path.read_text("utf-8-sig")
    if text.lstrip().startswith("["):  # a JSON list under the name of JSON lines
        return json_file(path)
    return lines_of_json(text)


def lines_of_json(text: str) -> Numbered:
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: JSON strings may hold U+2028
        if line.strip():
            try:
                yield number, json.loads(line), ""
            except (ValueError, RecursionError) as error:
                yield number, {}, f"the line is not JSON ({first_line(error)})"


def json_file(path: Path) -> Numbered:
    """A list of rows; one row; rows by key, as QASPER has them; or lines all the same, as in MedMCQA's train.json."""
    text = path.read_text("utf-8-sig")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        yield from lines_of_json(text)
        return
    if isinstance(content, dict):
        keyed = content and all(isinstance(value, dict) for value in content.values())
        content = [{"id": key, **value} for key, value in content.items()] if keyed else [content]
    if not isinstance(content, list):
        raise ValueError("neither rows nor a row")
    yield from ((number, row, "") for number, row in enumerate(content, start=1))


def csv_file(path: Path) -> Numbered:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file, strict=True), start=1):
            whole = None not in row and None not in row.values()
            yield number, row if whole else {}, "" if whole else "not as many fields as the header"


def parquet_file(path: Path) -> Numbered:
    return ((number, row, "") for number, row in enumerate(pq.read_table(path).to_pylist(), start=1))


READERS = {".json": json_file, ".jsonl": json_lines, ".csv": csv_file, ".parquet": parquet_file}


def shape(data: object) -> str:
    return "" if isinstance(data, dict) else f"the row is a {type(data).__name__}, not an object with columns"


def key_of(data: object) -> str:
    """The row's own name in its data set, "" if it has none."""
    return next((str(data[k]) for k in KEYS if data.get(k)), "") if isinstance(data, dict) else ""

"""Read a data set's rows as published, from the hub or from files, each with its file and row number."""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from agentark import StudyError, first_line

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
KEYS = ("id", "_id", "realidx", "unique_id", "idx")  # the data sets' column names for a row's id
SPLIT_WORDS = {"validation": ("valid", "val", "dev")}  # other names of a split in file names


@dataclass(frozen=True)
class Raw:
    """One row as published. `row` counts from 1 within `file`; `problem` is the reason if it cannot be used."""

    file: str
    row: int
    key: str
    data: dict
    problem: str = ""


class NotLoaded(Exception):
    """A hub data set cannot be loaded. `splits`: the splits that it has, if only the requested one is missing."""

    def __init__(self, message: str, splits: list[str]):
        super().__init__(message)
        self.splits = splits


def read_rows(source: str | Path, split: str, config: str | None, revision: str | None) -> list[Raw]:
    """Return all rows of `split` (the data set's own name for it) in a hub data set, a folder or a file.

    A folder with Parquet files is read as a copy of a hub data set. In other folders the files with the split's name in
    their path are read, or the only file. For a file, all rows are read. Raises StudyError if a file is unreadable; an
    unreadable row is returned with its `problem`.
    """
    path = Path(source)
    if path.is_dir() and any(path.rglob("*.parquet")):
        described = (path / "README.md").is_file()  # the card defines the configurations
        return hub_rows(str(path), split, config if described else None, None)
    if path.exists():
        return [row for file in files_in(path, split) for row in file_rows(file)]
    return hub_rows(hub_name(source), split, config, revision)


def hub_name(source: str | Path) -> str:
    """Return the name of a hub data set. Raises StudyError if `source` can only be a file or folder."""
    if is_read(Path(source)) or not HUB_NAME.fullmatch(str(source)):
        raise StudyError(f"{source}: no such file or folder; download the data set there, or name one on the hub")
    return str(source)


def hub_rows(name: str, split: str, config: str | None, revision: str | None) -> list[Raw]:
    """Return all rows of a split of a hub data set or its local copy. Raises StudyError if it cannot be loaded."""
    try:
        return rows_of(hub_table(name, split, config, revision), name, split)
    except NotLoaded as error:
        raise StudyError(str(error)) from None


def rows_of(table: Iterable[dict], name: str, split: str) -> list[Raw]:
    kinds = {column: getattr(kind, "dtype", "") for column, kind in (getattr(table, "features", None) or {}).items()}
    short = {column: np.dtype(kind).type for column, kind in kinds.items() if kind in ("float32", "float16")}
    rows = (row | {column: shortest(row[column], kind) for column, kind in short.items()} for row in table)
    return [Raw(f"{name}, {split}", i, key_of(row), row) for i, row in enumerate(rows, start=1)]


def hub_table(name: str, split: str, config: str | None, revision: str | None) -> Iterable[dict]:
    """Load a split with `datasets`. Raises NotLoaded; StudyError if the name of a configuration is needed."""
    import datasets  # a slow import that generated questions do not need

    # A local folder is prepared again each time, since its cache would remain after a change of the files.
    mode = "force_redownload" if Path(name).is_dir() else "reuse_dataset_if_exists"
    try:
        return datasets.load_dataset(name, config, split=split, revision=revision, download_mode=mode)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if configs := re.search(r"Config name is missing.*?\[(.*?)\]", str(error), re.DOTALL):
            names = re.findall(r"['\"](.+?)['\"]", configs[1]) or [""]
            raise StudyError(
                f"{name} has the configurations {', '.join(names)}; name one, as in {name}:{names[0]}"
            ) from None
        listed = re.search(r"Unknown split.*?\[(.*?)\]", str(error), re.DOTALL)
        raise NotLoaded(
            f"{name}, {split}: not loaded ({first_line(error)}); check name, version and network",
            re.findall(r"['\"](.+?)['\"]", listed[1]) if listed else [],
        ) from None


def files_in(path: Path, split: str) -> list[Path]:
    """Return a folder's data files with the split's name in their path, sorted by path; or the file itself."""
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*") if is_read(file) and is_data(file.relative_to(path)))
    words = {split, *SPLIT_WORDS.get(split, ())}
    named = [file for file in files if words & set(re.findall(r"[a-z]+", str(file.relative_to(path)).lower()))]
    if not named and len(files) != 1:
        raise StudyError(f"{path}: no file name here contains the split {split!r}; name the file itself")
    return named or files


def is_data(path: Path) -> bool:
    """Return whether a path is a data file, not a leftover of an editor, archive or operating system.

    Excluded are `__MACOSX` and all hidden files and folders, such as `._x` (bids-standard/pybids#1069),
    `.ipynb_checkpoints` and the hub's `.cache`.
    """
    return not any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def file_rows(path: Path) -> list[Raw]:
    """Read the rows of one file, by its suffix. Raises StudyError if the file is unreadable or has no rows."""
    if not is_read(path):
        raise StudyError(f"{path}: the suffix is not one of {', '.join(READERS)}; convert the file to one of them")
    try:
        found = list(READERS[path.suffix.lower()](path))
    except Twice as error:
        raise StudyError(f"{path}: {error}; give each its own name") from None
    except (OSError, ValueError, RecursionError, csv.Error, pa.ArrowException) as error:
        if archive := packed(path):
            raise StudyError(f"{path}: the file is a {archive} archive, not {path.suffix}; unpack it") from None
        remedy = "save it as UTF-8" if isinstance(error, UnicodeDecodeError) else "download it again"
        raise StudyError(f"{path}: not a readable {path.suffix} file ({first_line(error)}); {remedy}") from None
    if not found:
        raise StudyError(f"{path}: a file with no rows; download it again")
    return [
        Raw(str(path), row, key_of(data), data if isinstance(data, dict) else {}, problem or shape(data))
        for row, data, problem in found
    ]


PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def packed(path: Path) -> str:
    """Return the archive format of a file, by its first bytes; "" if it is no archive."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        start = file.read(8)
    return next((kind for mark, kind in PACKED.items() if start.startswith(mark)), "")


class Twice(ValueError):
    """A column or key occurs twice, so its value is ambiguous."""


def unique_pairs(pairs: list[tuple[str, object]]) -> dict:
    """Return the pairs of a JSON object as a dict. Raises Twice for a repeated key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise Twice(
            f"the key {next(name for name in names if names.count(name) > 1)!r:.60} appears twice in one object"
        )
    return found


# A reader yields (row number, content, problem).
Numbered = Iterator[tuple[int, object, str]]


def json_lines(path: Path) -> Numbered:
    text = path.read_text("utf-8-sig")
    if text.lstrip().startswith("["):  # a JSON list in a .jsonl file
        return json_file(path)
    return lines_of_json(text)


def lines_of_json(text: str) -> Numbered:
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines(), since JSON strings may contain U+2028
        if line.strip():
            try:
                yield number, json.loads(line, object_pairs_hook=unique_pairs), ""
            except Twice as error:
                yield number, {}, str(error)
            except (ValueError, RecursionError) as error:
                yield number, {}, f"the line is not JSON ({first_line(error)})"


def json_file(path: Path) -> Numbered:
    """Read a list of rows, one row, rows by key (QASPER), or JSON lines in a .json file (MedMCQA's train.json)."""
    text = path.read_text("utf-8-sig")
    try:
        content = json.loads(text, object_pairs_hook=unique_pairs)
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
    csv.field_size_limit(2**31 - 1)  # characters; long documents exceed the default limit of 131,072
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file, strict=True)
        names = [name for name in table.fieldnames or () if name]
        if twice := [name for name in names if names.count(name) > 1]:
            raise Twice(f"the header has the column {twice[0]!r:.60} twice")
        for number, row in enumerate(table, start=1):
            complete = None not in row and None not in row.values()
            yield number, row if complete else {}, "" if complete else "not as many fields as the header"


def parquet_file(path: Path) -> Numbered:
    table = pq.read_table(path)
    if twice := [name for name in table.column_names if table.column_names.count(name) > 1]:
        raise Twice(f"the column {twice[0]!r:.60} is there twice")
    short = {field.name: SHORT[str(kind)] for field in table.schema if str(kind := innermost(field.type)) in SHORT}
    for number, row in enumerate(table.to_pylist(), start=1):
        yield number, row | {name: shortest(row[name], kind) for name, kind in short.items()}, ""


SHORT = {"float": np.float32, "halffloat": np.float16}  # Arrow's names


def innermost(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column's values; for lists, the type of their innermost values."""
    return innermost(kind.value_type) if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind


def shortest(value: object, kind: type) -> object:
    """Convert a float of fewer than 64 bits to its shortest decimal form: 0.1, not 0.10000000149011612."""
    if isinstance(value, list):
        return [shortest(one, kind) for one in value]
    return float(str(kind(value))) if isinstance(value, float) else value


READERS = {".json": json_file, ".jsonl": json_lines, ".csv": csv_file, ".parquet": parquet_file}


def is_read(path: Path) -> bool:
    """Return whether files with this suffix, in upper or lower case, can be read."""
    return path.suffix.lower() in READERS


def shape(data: object) -> str:
    """Return the problem of a row that is not an object with columns, else ""."""
    return "" if isinstance(data, dict) else f"the row is a {type(data).__name__}, not an object with columns"


def key_of(data: object) -> str:
    """Return the row's id in its data set, or "" if it has none."""
    return next((str(data[k]) for k in KEYS if data.get(k)), "") if isinstance(data, dict) else ""

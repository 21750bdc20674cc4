"""The training and the test part of a user's own questions.

A file or folder with names for both parts keeps them: `train.jsonl` beside `test.jsonl`, or the splits of a hub data set.
A validation part stands in for tests where there are none. Whatever has only one part gives all splits, by the hash of
each question's content: about 80 % training, 5 % validation and 15 % test questions.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from agentark import StudyError
from agentark.tasks.datasets.rows import (
    READERS,
    NotLoaded,
    Raw,
    file_rows,
    hub_name,
    hub_table,
    is_data,
    is_read,
    rows_of,
)

WORDS = {
    "train": {"train", "training", "trainset"},
    "test": {"test", "tests", "testing", "testset"},
    "validation": {"validation", "valid", "val", "dev"},
}


def own_rows(source: str | Path, part: Literal["train", "test"], config: str | None) -> tuple[list[Raw], bool]:
    """The rows of a part, and whether they are those of both parts, to be divided by the hash of their content.

    Raises StudyError if the source is unreadable.
    """
    path = Path(source)
    if path.is_file():
        return file_rows(path), True
    if path.is_dir() and not any(path.rglob("*.parquet")):
        names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if is_read(file))
        names = [name for name in names if is_data(Path(name))]
        if not names:
            raise StudyError(
                f"{path}: no file with a suffix of {', '.join(READERS)} here; name a folder with questions"
            )
        kept, both = holding(names, part)
        return [row for name in kept for row in file_rows(path / name)], both
    return hub_part(str(source) if path.is_dir() else hub_name(source), part, config)


def hub_part(name: str, part: Literal["train", "test"], config: str | None) -> tuple[list[Raw], bool]:
    """`own_rows` of a data set on the hub, or of a folder with a copy."""
    found = {}
    for split in ("train", "test"):
        try:
            found[split] = hub_table(name, split, config, None)
        except NotLoaded as error:
            if not error.splits:
                raise StudyError(f"{error} (nor is there a folder of this name)") from None
            kept, both = holding(error.splits, part)
            tables = {one: found.get(one) or hub_table(name, one, config, None) for one in kept}
            return [row for one, table in tables.items() for row in rows_of(table, name, one)], both
    return rows_of(found[part], name, part), False


def holding(names: Sequence[str], part: Literal["train", "test"]) -> tuple[list[str], bool]:
    """Those of the files or splits that hold a part, and whether they hold both."""
    named = {one: [name for name in names if part_of(name) == one] for one in WORDS}
    train, test = named["train"], named["test"] or named["validation"]
    if train and test:
        return (train if part == "train" else test), False
    return train or test or list(names), True


def part_of(name: str) -> str:
    """The part that a path names, in its last component that names one; "" if none does."""
    for piece in reversed(Path(name).parts):
        words_there = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", piece)}
        if len(found := [part for part, words in WORDS.items() if words_there & words]) == 1:
            return found[0]
    return ""

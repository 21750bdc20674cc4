"""The training and the test part of a user's own questions.

Parts that file names (`train.jsonl` beside `test.jsonl`) or the splits of a hub data set name are used as they are. A
validation part serves as the test part if there is none. A source with only one part is divided into all splits by the
hash of each question's content: about 80 % training, 5 % validation and 15 % test questions.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
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

# Words by which the name of a file, folder or split names a part; `data` or `set` may follow a word.
WORDS = {
    "train": {"train", "training"},
    "test": {"test", "tests", "testing"},
    "evaluation": {"eval", "evaluation", "evaluate", "heldout", "holdout"},
    "validation": {"validation", "validate", "valid", "val", "dev", "development"},
}
ABOUT = {"dataset_info.json", "dataset_infos.json", "state.json"}  # files of `datasets` about a data set


def own_rows(source: str | Path, part: Literal["train", "test"], config: str | None) -> tuple[list[Raw], bool]:
    """The rows of a part, and whether they are the rows of both parts, to be divided by the hash of their content.

    Raises StudyError if the source is unreadable.
    """
    path = Path(source)
    if path.is_file():
        return file_rows(path), True
    if path.is_dir() and not any(path.rglob("*.parquet")):
        names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if is_read(file))
        names = [name for name in names if is_data(Path(name)) and Path(name).name not in ABOUT]
        if not names:
            raise StudyError(
                f"{path}: no file with a suffix of {', '.join(READERS)} here; name a folder with questions"
            )
        unnamed = [name for name in names if not part_of(name)]
        if unnamed and len(unnamed) < len(names):
            one = next(name for name in names if part_of(name))
            raise StudyError(
                f"{path / unnamed[0]}: not read, since its name does not say whether it is for training or tests, as that "
                f"of {one} does; put train or test into its name, or move the file elsewhere"
            )
        chosen, both = containing(names, part)
        return [row for name in chosen for row in file_rows(path / name)], both
    return hub_part(str(source) if path.is_dir() else hub_name(source), part, config)


def hub_part(name: str, part: Literal["train", "test"], config: str | None) -> tuple[list[Raw], bool]:
    """`own_rows` of a data set on the hub, or of a folder with a copy of one."""
    found = {}
    for split in ("train", "test"):
        try:
            found[split] = hub_table(name, split, config, None)
        except NotLoaded as error:
            if not error.splits:
                raise StudyError(f"{error} (nor is there a folder of this name)") from None
            chosen, both = containing(error.splits, part)
            tables = {one: found.get(one) or hub_table(name, one, config, None) for one in chosen}
            return [row for one, table in tables.items() for row in rows_of(table, name, one)], both
    return rows_of(found[part], name, part), False


def containing(names: Sequence[str], part: Literal["train", "test"]) -> tuple[list[str], bool]:
    """The files or splits that contain a part, and whether they contain both parts."""
    named = {one: [name for name in names if part_of(name) == one] for one in WORDS}
    train, test = named["train"], named["test"] or named["evaluation"] or named["validation"]
    if train and test:
        return (train if part == "train" else test), False
    return train or test or list(names), True


def part_of(name: str) -> str:
    """The part named by the last component of a path that names exactly one; "" if none does."""
    for piece in reversed(Path(name).parts):
        terms = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", piece)]
        terms += [first + second for first, second in pairwise(terms)]  # held_out
        found = {part for part, words in WORDS.items() if {re.sub("(?:data|set)$", "", word) for word in terms} & words}
        if len(found) == 1:
            return found.pop()
    return ""

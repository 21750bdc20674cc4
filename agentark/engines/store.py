"""Search the store for answers and remove faulty ones, which are then generated again.

python -m agentark.engines.store data/store                     list empty and refused answers
python -m agentark.engines.store data/store "bad gateway"       list answers whose text, engine or key contains this
python -m agentark.engines.store data/store "bad gateway" --remove
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from agentark import StudyError, finish, root
from agentark.engines.requests import read_file
from agentark.files import remove


def stored_answers(folder: Path) -> Iterator[tuple[Path, dict]]:
    """Yield every answer in a store with its file. A damaged file counts as one answer without text."""
    for file in sorted(folder.glob("??/*.json")):
        found = read_file(file)
        yield from (
            ((file, vars(reply) | {"engine": found[1]}) for reply in found[0])
            if found
            else ((file, {"text": "", "finish_reason": "damaged"}),)
        )


def found(file: Path, record: dict, words: str) -> bool:
    """Whether `words` occurs in an answer, its engine or its key; if "": whether it is empty, refused or damaged."""
    if words:
        return any(
            words.lower() in str(place).lower() for place in (record.get("text"), record.get("engine"), file.stem)
        )
    return not str(record.get("text") or "").strip() or record.get("finish_reason") not in ("stop", "length")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m agentark.engines.store", description="Search the store for answers and remove faulty ones."
    )
    parser.add_argument("folder", help="the store, data/store in the study")
    parser.add_argument("words", nargs="?", default="", help="text to look for in the answer, its engine or its key")
    parser.add_argument(
        "--remove", action="store_true", help="remove the listed answers; their whole batches are generated again"
    )
    chosen = parser.parse_args()
    folder = root() / chosen.folder
    if not folder.is_dir():
        raise StudyError(f"{chosen.folder}: no such folder; the study's store is data/store")
    listed: set[Path] = set()
    for file, record in stored_answers(folder):
        if found(file, record, chosen.words.strip()):
            listed.add(file)
            text = " ".join(str(record.get("text")).split())
            print(
                f"{file.stem[:16]}  {record.get('finish_reason')}  {str(record.get('engine', ''))[:60]}  {text[:80]!a}"
            )
    for file in listed if chosen.remove else ():
        remove(file)
    print(f"{len(listed)} files {'removed' if chosen.remove else 'listed; --remove removes them'}")


if __name__ == "__main__":
    finish(main)

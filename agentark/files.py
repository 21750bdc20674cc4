"""Files that appear whole or not at all."""

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from agentark import StudyError


@contextlib.contextmanager
def staged(paths: list[Path]):
    """Yield a stand-in for each path; move the stand-ins to their places if the block ends well, else drop them."""
    stand_ins = [path.with_name(f".partial-{path.name}") for path in paths]
    olds = [path.with_name(f".old-{path.name}") for path in paths]
    try:
        for path, stand_in, old in zip(paths, stand_ins, olds, strict=True):
            remove(stand_in)
            stand_in.parent.mkdir(parents=True, exist_ok=True)
            if old.exists() and not path.exists():  # a run was killed between the two moves below
                old.rename(path)
        yield stand_ins
        for path, stand_in in zip(paths, stand_ins, strict=True):
            if not stand_in.exists():
                raise StudyError(f"{path}: the notebook ended without writing it")
        for path, stand_in, old in zip(paths, stand_ins, olds, strict=True):
            remove(old)
            if path.exists():
                path.rename(old)
            try:
                stand_in.rename(path)
            except BaseException:
                if old.exists():
                    old.rename(path)
                raise
            remove(old)
    finally:
        for stand_in in stand_ins:
            remove(stand_in)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_atomically(path: Path, write) -> None:
    """Call `write(temporary_path)`, then move the result to `path`, so that no reader ever sees half a file."""
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        write(Path(temporary))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise StudyError(f"{path}: not written ({error.strerror or error}); nothing there was changed") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_json(content: object, path: Path) -> None:
    """Write JSON, whole or not at all."""
    write_atomically(path, lambda p: p.write_text(json.dumps(content, indent=1) + "\n"))

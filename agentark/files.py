"""Atomic writes: a file or folder appears complete or not at all."""

import contextlib
import json
import secrets
import shutil
from pathlib import Path

from agentark import StudyError


@contextlib.contextmanager
def staged(paths: list[Path]):
    """Yield a temporary path for each path. If the block succeeds, move them into place; otherwise delete them.

    Raises StudyError if the block leaves one of them unwritten.
    """
    partials = [path.with_name(f".partial-{path.name}") for path in paths]
    olds = [path.with_name(f".old-{path.name}") for path in paths]
    try:
        for path, partial, old in zip(paths, partials, olds, strict=True):
            remove(partial)
            partial.parent.mkdir(parents=True, exist_ok=True)
            if old.exists() and not path.exists():  # a run was killed between the two moves below
                old.rename(path)
        yield partials
        for path, partial in zip(paths, partials, strict=True):
            if not partial.exists():
                raise StudyError(f"{path}: the notebook ended without writing it")
        for path, partial, old in zip(paths, partials, olds, strict=True):
            remove(old)
            if path.exists():
                path.rename(old)
            try:
                partial.rename(path)
            except BaseException:
                if old.exists():
                    old.rename(path)
                raise
            remove(old)
    finally:
        for partial in partials:
            remove(partial)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_atomically(path: Path, write) -> None:
    """Call `write(temporary_path)`, then move the result to `path`, so that no reader sees an incomplete file.

    Raises StudyError if the file cannot be written; `path` is then unchanged.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the folder is missing or not writable
            temporary.unlink()
        if isinstance(error, OSError):
            raise StudyError(f"{path}: not written ({error.strerror or error}); nothing there was changed") from error
        raise


def write_json(content: object, path: Path) -> None:
    """Write JSON atomically."""
    write_atomically(path, lambda p: p.write_text(json.dumps(content, indent=1) + "\n"))

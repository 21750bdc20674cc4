"""How every `python -m agentark...` ends: what goes wrong is one line on standard error, without secrets."""

import contextlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from agentark import StudyError, redacted, root

INTERRUPTED = 130  # the exit status of a process that Ctrl-C ended, by convention


def finish(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and exit with its status: 0 for None, 1 after an error, 130 after an interrupt.

    An unexpected error is one line too; its traceback goes to a file that the line names.
    """
    status = ended(main)
    try:
        sys.stdout.flush()
    except OSError:  # nobody reads on, as behind `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def ended(main: Callable[[], int | None]) -> int:
    try:
        return main() or 0
    except StudyError as error:
        return told(str(error))
    except KeyboardInterrupt:
        told("interrupted; what is finished is kept: run the same command again")
        return INTERRUPTED
    except BrokenPipeError:
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return told(f"{place}{error.strerror or error}; change that, then run the same command again")
    except Exception as error:
        first = (str(error).strip() or "no reason given").splitlines()[0]
        return told(f"{type(error).__name__}: {first} (unexpected; the traceback is in {kept()})")


def told(words: str) -> int:
    """Print one line without secrets, in any locale. Returns the exit status 1."""
    encoding = sys.stderr.encoding or "utf-8"
    line = f"error: {redacted(' '.join(words.split()))}\n"
    with contextlib.suppress(OSError):
        sys.stderr.write(line.encode(encoding, "backslashreplace").decode(encoding))
    return 1


def kept() -> Path | str:
    """Where the present exception's traceback is kept, without secrets: data/runs, or the folder for temporary files."""
    name = f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    text = redacted(traceback.format_exc())
    for folder in (place() for place in (lambda: root() / "data" / "runs", lambda: Path(tempfile.gettempdir()))):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
            return folder / name
        except (OSError, StudyError):
            continue
    return "no file: none could be written"

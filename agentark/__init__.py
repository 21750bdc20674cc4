"""Functions shared by all commands: print errors as one line without secrets, and find the project's root folder."""

import base64
import contextlib
import gc
import html
import json
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

INTERRUPTED = 130  # conventional exit status after Ctrl-C
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: the same command, run again, continues the work
RAY = "ray:"  # prefix of any engine's name: run it on a Ray cluster


def without_ray(name: str | Path) -> str:
    """Return an engine's name without `ray:`: the engine that runs on one machine, or on each machine of a cluster."""
    return str(name).removeprefix(RAY)


def folder_of(name: str) -> str:
    """Return the folder of a teacher or student in params.yaml: data/models/x for `vllm:data/models/x` and for `x`."""
    own = re.sub("^(vllm|bf16|paged):", "", without_ray(name))
    return own if "/" in own else f"data/models/{own}"


def finish(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and exit with its status: 0 for None, 1 after an error, 75 if it stopped, 130 after an interrupt.

    The line printed for an unexpected error names the file that contains the traceback.
    """
    status = exit_status(main)
    try:
        sys.stdout.flush()
    except OSError:  # the reader has closed the pipe, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def exit_status(main: Callable[[], int | None]) -> int:
    """Run `main`, print any error as one line, and return the exit status."""
    try:
        return main() or 0
    except StudyError as error:
        return print_error(str(error))
    except Stopped as stop:
        print_line(str(stop))
        return STOPPED
    except KeyboardInterrupt:
        print_error("interrupted; what is finished is kept: run the same command again")
        return INTERRUPTED
    except BrokenPipeError:
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return print_error(f"{place}{error.strerror or error}; change that, then run the same command again")
    except Exception as error:
        first = (str(error).strip() or "no reason given").splitlines()[0]
        return print_error(f"{type(error).__name__}: {first} (unexpected; the traceback is in {save_traceback()})")


def print_error(words: str) -> int:
    """Print an error. Returns the exit status 1."""
    print_line(f"error: {words}")
    return 1


def print_line(words: str) -> None:
    """Print one line without secrets to standard error, in any locale."""
    encoding = sys.stderr.encoding or "utf-8"
    line = f"{redacted(' '.join(words.split()))}\n"
    with contextlib.suppress(OSError):
        sys.stderr.write(line.encode(encoding, "backslashreplace").decode(encoding))


def save_traceback() -> Path | str:
    """Write the current exception's traceback, without secrets, to data/runs or else to the temporary folder.

    Returns the file's path, or a note that no file could be written.
    """
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


# Importing torch and transformers creates a million permanent objects. With the default threshold, garbage collection
# during the imports takes a sixth of the start-up time.
gc.set_threshold(50_000)

__version__ = "0.1.0"


# Environment variables with these name endings hold secrets. SECRET_LOOK matches providers' keys, whole or masked.
SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
SECRET_LOOK = re.compile(r"\b(?:sk|hf|gsk|xai)[-_][\w*.…-]{6,}|(?<=Bearer )[^\s\"']+")
SHORTEST_SECRET = 6  # characters; a shorter value may occur in any text


def redacted(text: str) -> str:
    """Replace secrets in `text` by "[secret]".

    Secrets are the values of environment variables with a secret's name, in every spelling that a library may use
    (see `spellings`), and anything that looks like a provider's key.
    """
    values = [value for name, value in os.environ.items() if SECRET_NAME.search(name)]
    for spelling in sorted({form for value in values for form in spellings(value)}, key=len, reverse=True):
        if len(spelling) >= SHORTEST_SECRET:
            text = text.replace(spelling, "[secret]")
    return SECRET_LOOK.sub("[secret]", text)


def spellings(value: str) -> set[str]:
    """Return a secret's forms in a text: stripped, word by word, escaped for Python, JSON, HTML or a URL, in base64."""
    found: set[str] = set()
    for part in {value, value.strip(), *value.split()}:
        raw = part.encode(errors="surrogateescape")
        in_url = {quote(raw, safe) for safe in ("/", "")}
        in_json = {json.dumps(part, ensure_ascii=plain)[1:-1] for plain in (True, False)}
        in_html = {html.escape(part), html.escape(part, quote=False)}
        in_base64 = {form(raw).decode().rstrip("=") for form in (base64.b64encode, base64.urlsafe_b64encode)}
        found |= {part, repr(part)[1:-1], ascii(part)[1:-1], repr(raw)[2:-1], *in_url, *in_json, *in_html, *in_base64}
        found |= {re.sub("%..", lambda code: code[0].lower(), form) for form in in_url}
        found |= {form.replace("/", "\\/") for form in in_json}  # PHP escapes slashes
        found |= {form.replace("&#x27;", "&#39;") for form in in_html}
    return found


class StudyError(Exception):
    """An error in the input. The message is one line without secrets: the file, row or key at fault, and what to do."""

    def __init__(self, message: str):
        super().__init__(redacted(" ".join(str(message).split())))


class Stopped(Exception):
    """The run stopped at its time limit or after a signal (see `deadline`). The message states what is kept."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def root() -> Path:
    """The project's folder: the nearest folder with `params.yaml`, from the working folder upwards.

    Raises StudyError if there is none.
    """
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file():
            return folder
    raise StudyError(f"{here}: no params.yaml here or above; run from inside the project's folder")

"""AgentArk: distil a debate among agents into the weights of one model."""

import gc
import os
import re
from pathlib import Path
from urllib.parse import quote

# Torch and transformers leave a million objects that stay; to look through them for garbage while they are imported would
# take a sixth of the time of a start.
gc.set_threshold(50_000)

__version__ = "0.1.0"


# Environment variables that hold a secret, by the ends of their names; and what providers' keys look like, whole or masked.
SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
SECRET_LOOK = re.compile(r"\b(?:sk|hf|gsk|xai)[-_][\w*.…-]{6,}|(?<=Bearer )[^\s\"']+")
SHORTEST_SECRET = 6  # characters; a shorter value may stand in any text


def redacted(text: str) -> str:
    """`text` without secrets: the values of environment variables that hold one, in every spelling that a library may
    give them (stripped, line by line, escaped, percent-encoded), and whatever looks like a provider's key."""
    spellings = set()
    for name, value in os.environ.items():
        if SECRET_NAME.search(name):
            parts = {value, value.strip(), *value.split()}
            escaped = {form(part)[1:-1] for part in parts for form in (repr, ascii)} | {
                repr(p.encode())[2:-1] for p in parts
            }
            spellings |= parts | escaped | {quote(part) for part in parts}
    for spelling in sorted(spellings, key=len, reverse=True):
        if len(spelling) >= SHORTEST_SECRET:
            text = text.replace(spelling, "[secret]")
    return SECRET_LOOK.sub("[secret]", text)


class StudyError(Exception):
    """Bad input, in one line: which file, row or key is at fault, and what to do about it. Holds no secret."""

    def __init__(self, message: str):
        super().__init__(redacted(" ".join(str(message).split())))


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its class if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def root() -> Path:
    """The project's folder: the nearest one upwards from here that holds `params.yaml`."""
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file():
            return folder
    raise StudyError(f"{here}: no params.yaml here or above; run from inside the project's folder")

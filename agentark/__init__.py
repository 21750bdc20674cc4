"""AgentArk: distil a debate among agents into the weights of one model."""

import gc
from pathlib import Path

# Torch and transformers leave a million objects that stay; to look through them for garbage while they are imported would
# take a sixth of the time of a start.
gc.set_threshold(50_000)

__version__ = "0.1.0"


class StudyError(Exception):
    """Bad input, told in one line: which file, row or key is at fault, and what to do about it."""


def root() -> Path:
    """The project's folder: the nearest one upwards from here that holds `params.yaml`."""
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file():
            return folder
    raise StudyError(f"{here}: no params.yaml here or above; run from inside the project's folder")

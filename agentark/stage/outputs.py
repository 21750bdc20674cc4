"""The output paths of a stage, and the check that it may replace what exists there.

A stage replaces only outputs of the same notebook. They are listed in the records of its runs (data/runs), in dvc.lock
and dvc.yaml, and in the paths of its parameters cell. A stage does not replace anything else.
"""

import contextlib
import json
import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from os.path import normpath
from pathlib import Path

import yaml

from agentark import StudyError

# never a stage's output, because several stages share them
KEPT = ("data/store", "data/runs", "data/published", "data/checkpoints", "data/ablations", "data/search",
        "data/grid/scratch", "reports/notebooks")  # fmt: skip
# paths without .yaml or .lock
PIPELINES = (
    "dvc",
    *(f"notebooks/{name}/dvc" for name in ("ablations", "choices", "grid", "specialists", "leaderboard", "small")),
)
NOTEBOOK = re.compile(r"agentark\.stage\s+(\S+)")


def places(top: Path, notebook: str, named: dict[str, str], usual: Collection[str] = ()) -> dict[str, Path]:
    """The outputs' paths by parameter. Raises StudyError for a path that the notebook must not replace.

    `named`: parameter -> path as given; `usual`: the notebook's default paths.
    """
    found = {name: place(top, f"{notebook}: {name}", given) for name, given in named.items()}
    for name, path in found.items():
        for other, other_path in found.items():
            if other != name and (path == other_path or path in other_path.parents):
                raise StudyError(f"{notebook}: {name} and {other} overlap ({named[other]}); give two separate paths")
    owners, recorded_outs = makers(top), recorded(top)
    usual = {normpath(u) for u in usual}
    replaceable = {u for u in usual if not any(Path(o).is_relative_to(u) for o in owners)}
    replaceable |= {out for out, records in recorded_outs.items() if any(by_notebook(r, notebook) for r in records)}
    existing = {out: records for out, records in recorded_outs.items() if (top / out).exists()}
    for name, path in found.items():
        relative = path.relative_to(top).as_posix()
        for outer in path.relative_to(top).parents:
            if maker := owners.get(outer.as_posix()):
                raise StudyError(
                    f"{notebook}: {name}={relative} is inside {outer}, an output of {maker[0]}; choose another path"
                )
        empty = path.is_dir() and not any(path.iterdir())
        if path.exists() and not empty and relative not in replaceable and notebook not in owners.get(relative, ()):
            raise StudyError(
                f"{notebook}: {name}={relative} exists and is not an output of this notebook; choose another path, or "
                "remove it yourself"
            )
        for inner, by in {**({} if relative in usual else existing), **owners}.items():
            if inside(inner, relative):
                raise StudyError(
                    f"{notebook}: {name}={relative} would replace {inner}, an output of {by[0]}; choose another path"
                )
    return found


def inside(pattern: str, folder: str) -> bool:
    """Whether an output may lie below a folder. `pattern`: the output's path, which may contain *."""
    inner, outer = Path(pattern).parts, Path(folder).parts
    return len(inner) > len(outer) and all(map(fnmatchcase, outer, inner))


def label(top: Path, notebook: str, out: str, usual: str) -> str:
    """The name of a run's page and record: 03_debate-train for data/debates/train.

    A path that is neither the notebook's default nor an output of its DVC stages is a trial. Its name contains the full
    path (01_questions--t2), so that it replaces no page of the study.
    """
    path = place(top, f"{notebook}: out", out).relative_to(top)
    own = [normpath(usual), *(o for o, by in makers(top).items() if notebook in by)]
    if any(len(Path(o).parts) == len(path.parts) and fnmatchcase(path.as_posix(), o) for o in own):
        return "-".join([notebook.replace("/", "-"), *path.parts[2:]])
    return "--".join([notebook.replace("/", "-"), *path.parts[path.parts[0] == "data" :]])


def place(top: Path, where: str, given: str) -> Path:
    """One output's path. Raises StudyError unless it is below data/ or reports/ and outside the folders in KEPT."""
    relative = Path(normpath(Path(given).relative_to(top) if Path(given).is_relative_to(top) else given))
    if not given.strip() or given != given.strip() or relative.is_absolute() or len(relative.parts) < 2:
        raise StudyError(f"{where}={given!r} is not an output path; choose one below data/ or reports/")
    shared = next((k for k in KEPT if relative.is_relative_to(k) or Path(k).is_relative_to(relative)), None)
    if relative.parts[0] not in ("data", "reports") or shared:
        reason = f"{shared} is shared by all stages" if shared else "outputs must be below data/ or reports/"
        raise StudyError(f"{where}={given!r}: {reason}; choose another path")
    return top / relative


def makers(top: Path) -> dict[str, list[str]]:
    """Every output in DVC's files, with the notebooks that make it. A * replaces each variable in its path."""
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
                        path = normpath(Path(pipeline).parent / stage.get("wdir", ".") / out)
                        path = re.sub(r"\$\{[^}]*\}", "*", path)
                        found.setdefault(Path(path).as_posix(), []).append(maker[1])
    return found


def outputs(stage: dict) -> Iterator[str]:
    """The paths of a stage's outputs in dvc.yaml (path, or path with options) or dvc.lock (`path`)."""
    for kind in ("outs", "metrics", "plots"):
        for out in stage.get(kind) or ():
            yield out if isinstance(out, str) else out.get("path") or next(iter(out))


def recorded(top: Path) -> dict[str, list[str]]:
    """Every output in the records of runs, with the records' names."""
    found: dict[str, list[str]] = {}
    for record in sorted((top / "data" / "runs").glob("*.json")):
        for out in recorded_in(record):
            found.setdefault(out, []).append(record.stem)
    return found


def recorded_in(record: Path) -> list[str]:
    """The outputs of the successful runs in a record."""
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
        return [out for out in json.loads(record.read_text()).get("outs") or [] if isinstance(out, str)]
    return []


def by_notebook(record: str, notebook: str) -> bool:
    """Whether a record is of a run of `notebook`, see `label`."""
    name = notebook.replace("/", "-")
    return record == name or record.startswith(f"{name}-")

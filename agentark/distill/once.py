"""Skip trainings that an interrupted run has already finished: `launch.run_all(Once(policy.train), calls)`."""

import ast
import json
from collections.abc import Callable
from functools import update_wrapper
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
from pydantic import BaseModel

from agentark.distill.students import LIBRARIES
from agentark.files import staged
from agentark.models.checkpoints import digest

PACKAGE = Path(__file__).parents[1]
PLUMBING = ("__init__.py", "deadline.py", "files.py", "parallel.py")
MADE = "training.jsonl"  # not .json, since .json files count as part of the model


class Once:
    """A training function `train(out=..., **call)` that runs only if `out` has no result of the same call.

    `out` appears atomically at the end of the training. It includes the result, which must be JSON, and a digest of the
    call: its arguments (for folders, the models in them), the code that the training imports, and library versions.
    """

    def __init__(self, train: Callable):
        update_wrapper(self, train)  # launch.run_all uses its name
        self.train = train

    def __call__(self, out: Path, **call: Any) -> Any:
        file, wanted = out / MADE, self.digest(call)
        if file.is_file() and (record := json.loads(file.read_text()))["call"] == wanted:
            return record["result"]
        with staged([out]) as (partial,):
            result = self.train(out=partial, **call)
            (partial / MADE).write_text(json.dumps({"call": wanted, "result": result}) + "\n")
        return result

    def digest(self, call: dict[str, Any]) -> str:
        """A hash of everything that determines the training's result."""
        given = {name: plain(value) for name, value in call.items()}
        code = [file.read_bytes() for file in code_of(self.train.__module__)]
        return joblib.hash((self.train.__module__, given, code, [version(name) for name in LIBRARIES]))


def plain(value: Any) -> Any:
    """Return an argument in a form for hashing: a folder as its model's digest, settings as a dict of values."""
    if isinstance(value, Path):
        return digest(value)
    return value.model_dump() if isinstance(value, BaseModel) else value


def code_of(*modules: str) -> list[Path]:
    """The files of `modules` and of all modules of this package that they import, directly or indirectly.

    Imports inside functions count. For a parent package of an imported module, only top-level imports count. Files that
    cannot affect results are left out: errors, atomic writes, worker processes, deadlines.
    """
    found: set[tuple[Path, bool]] = set()
    waiting = [(module, True) for module in modules]
    while waiting:
        module, whole = waiting.pop()
        file = file_of(module)
        if file is not None and (file, whole) not in found:
            found.add((file, whole))
            waiting += imported(ast.parse(file.read_text(encoding="utf-8")), whole)
    plumbing = {PACKAGE / name for name in PLUMBING}
    return sorted({file for file, _ in found if file not in plumbing and has_code(file)})


def has_code(file: Path) -> bool:
    """Whether a file contains more than a docstring."""
    return len(ast.parse(file.read_text(encoding="utf-8")).body) > 1


def imported(tree: ast.Module, whole: bool = True) -> set[tuple[str, bool]]:
    """Return the modules that a source imports, including imports inside functions if `whole`.

    Each module has a flag: True for the module itself, False for its parent packages.
    """
    names: set[tuple[str, bool]] = set()
    targets: list[Any]
    for node in ast.walk(tree) if whole else tree.body:
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [name if file_of(name) else node.module for name in within]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            targets = [part.value for part in node.args if isinstance(part, ast.Constant)]
        else:
            continue
        for parts in (target.split(".") for target in targets):
            names |= {(".".join(parts[:k]), k == len(parts)) for k in range(1, len(parts) + 1)}
    return names


def file_of(module: str) -> Path | None:
    """The file of a module of this package, or None for any other name."""
    place = PACKAGE.parent.joinpath(*module.split("."))
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if file.is_file() and file.is_relative_to(PACKAGE)), None)

"""Trainings that a killed and restarted run does not repeat: `launch.run_all(Once(policy.train), calls)`."""

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
PLUMBING = ("__init__.py", "files.py", "parallel.py")
MADE = "training.jsonl"  # not .json, which would count as a part of the model itself


class Once:
    """`train(out=..., **call)`, run only if `out` does not hold the training of this very call.

    `out` appears whole, at the end of the training. It then holds the result, which has to be JSON, beside a digest of
    the call: its arguments (of folders, the models in them), the code that the training imports, the libraries.
    """

    def __init__(self, train: Callable):
        update_wrapper(self, train)  # launch.run_all looks at its parameters and its name
        self.train = train

    def __call__(self, out: Path, **call: Any) -> Any:
        made, wanted = out / MADE, self.digest(call)
        if made.is_file() and (record := json.loads(made.read_text()))["call"] == wanted:
            return record["result"]
        with staged([out]) as (stand_in,):
            result = self.train(out=stand_in, **call)
            (stand_in / MADE).write_text(json.dumps({"call": wanted, "result": result}) + "\n")
        return result

    def digest(self, call: dict[str, Any]) -> str:
        given = {name: plain(value) for name, value in call.items()}
        code = [file.read_bytes() for file in code_of(self.train.__module__)]
        return joblib.hash((self.train.__module__, given, code, [version(name) for name in LIBRARIES]))


def plain(value: Any) -> Any:
    """An argument as what decides a training: of a folder the model in it, of settings their values."""
    if isinstance(value, Path):
        return digest(value)
    return value.model_dump() if isinstance(value, BaseModel) else value


def code_of(*modules: str) -> list[Path]:
    """The files of `modules` and of all modules of this package that they import, directly or not, at any place.

    Of a package that is only on the way to a module, what it imports when it is imported itself. Left out are files on
    which results cannot depend: errors, files that appear whole, worker processes.
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
    """Whether a file is more than a docstring."""
    return len(ast.parse(file.read_text(encoding="utf-8")).body) > 1


def imported(tree: ast.Module, whole: bool = True) -> set[tuple[str, bool]]:
    """The names of modules that a source imports, also within functions if `whole`; each with whether the module itself
    is used. Packages on the way to a module are not."""
    names: set[tuple[str, bool]] = set()
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
    """The file of a module of this package; None for what is no module of it."""
    place = PACKAGE.parent.joinpath(*module.split("."))
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if file.is_file() and file.is_relative_to(PACKAGE)), None)

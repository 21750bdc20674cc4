"""A notebook as a stage: `python -m agentark.notebook 03_debate split=train`.

A parameter's value is, in falling order: the command line's; the notebook's section of `params.yaml` (the section is
named like the notebook without its number); a top-level value of `params.yaml`; the default in the parameters cell.
Names and types are checked against the parameters cell before anything runs. The notebook writes into folders beside
its outputs' places, which are moved there when, and only when, it has run to its end.
"""

import argparse
import ast
import contextlib
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import yaml
from pydantic import TypeAdapter, ValidationError

from agentark import StudyError, root
from agentark.files import write_json

TYPES = {
    "int": int, "float": float, "str": str, "bool": bool,
    "list[int]": list[int], "list[float]": list[float], "list[str]": list[str],
}  # fmt: skip
KERNEL_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # one single-threaded process a core: two-threaded ones stall as soon as they share a core
    "MALLOC_MMAP_THRESHOLD_": "4000000000",  # keep large tensors in the heap: page faults cost up to 4x in training
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",  # scale `full` alone asks the hub
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONHASHSEED": "0",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "PYTHONWARNINGS": "ignore",
}


def read(notebook: Path):
    """The notebook in nbformat's form."""
    # With this nbformat would check international web addresses, of which a notebook has none; to import it takes seconds.
    sys.modules.setdefault("rfc3987_syntax", None)
    import nbformat

    return nbformat.read(notebook, as_version=4)


def declared(notebook: Path) -> dict[str, tuple[str, Any]]:
    """Name -> (annotation, default) of the cell tagged `parameters`. Raises StudyError if it is missing or unclear."""
    try:
        cells = read(notebook).cells
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in notebook.parent.glob("*.ipynb")))
        raise StudyError(f"{notebook.name}: no such notebook; choose one of {known}") from None
    except Exception as error:  # whatever nbformat makes of a file that is no notebook
        raise StudyError(
            f"{notebook.name}: not a notebook ({str(error).splitlines()[0]}); restore it from git"
        ) from None
    tagged = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise StudyError(f"{notebook.name}: {len(tagged)} cells are tagged `parameters`; it needs exactly one")
    try:
        statements = ast.parse(tagged[0].source).body
    except SyntaxError as error:
        raise StudyError(f"{notebook.name}: line {error.lineno} of the parameters cell is not Python") from None
    found = {}
    for statement in statements:
        try:
            annotation = ast.unparse(statement.annotation)
            found[statement.target.id] = (annotation, ast.literal_eval(statement.value))
            TYPES[annotation]
        except (AttributeError, KeyError, TypeError, ValueError):
            line = ast.unparse(statement)
            raise StudyError(
                f"{notebook.name}: `{line}` in the parameters cell is not `name: type = value` "
                f"with a plain value and one of the types {', '.join(TYPES)}"
            ) from None
    return found


def typed(notebook: str, name: str, annotation: str, value: Any) -> Any:
    """`value` as the annotation wants it; an int may stand for a float, nothing else is converted."""
    try:
        return TypeAdapter(TYPES[annotation]).validate_python(value, strict=True)
    except ValidationError:
        raise StudyError(f"{notebook}: {name}={value!r} is not of type {annotation}; see its parameters cell") from None


def parsed(annotation: str, text: str) -> Any:
    """A command line's text as a value: YAML, but numbers are read as Python reads them (YAML takes 1e-3 for text).

    What is not readable stays text, for `typed` to reject.
    """
    if annotation == "str":
        return text
    try:
        return float(text) if annotation == "float" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return text


def resolve(notebook: Path, params: dict[str, Any], given: dict[str, str]) -> dict[str, Any]:
    """All parameters of a notebook, checked. Raises StudyError for an unknown name or a wrong type."""
    cell = declared(notebook)
    section = params.get(re.sub(r"^\d+_", "", notebook.stem)) or {}
    for where, names in (("params.yaml", section), ("the command line", given)):
        for name in names:
            if name not in cell:
                raise StudyError(f"{notebook.stem}: {where} names {name!r}; it has only {', '.join(cell)}")
    shared = {k: v for k, v in params.items() if not isinstance(v, dict)}
    read = {k: parsed(cell[k][0], v) for k, v in given.items()}
    values = {name: default for name, (_, default) in cell.items()}
    values |= {k: v for k, v in (shared | section | read).items() if k in cell}
    return {name: typed(notebook.stem, name, cell[name][0], value) for name, value in values.items()}


@contextlib.contextmanager
def watched(note: Path):
    """Write to `note` how long the block took, the processor time of its child processes and the most memory that they
    held together (both sampled; what forked processes share counts in each)."""
    start, peak, spent, done = time.perf_counter(), [0], {}, threading.Event()

    def sample() -> None:
        held = 0
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                held += child.memory_info().rss
                spent[child.pid] = sum(child.cpu_times()[:2])  # user's and system's, so far
        peak[0] = max(peak[0], held)

    def keep_sampling() -> None:
        while not done.wait(0.5):
            sample()

    sample()
    earlier = dict(spent)  # of children that were there before the block
    threading.Thread(target=keep_sampling, daemon=True).start()
    try:
        yield
    finally:
        done.set()
        core_seconds = sum(spent.values()) - sum(earlier.values())
        seconds = {"seconds": time.perf_counter() - start, "core_seconds": core_seconds}
        write_json(seconds | {"peak_mb": peak[0] / 2**20}, note)


@contextlib.contextmanager
def staged(paths: list[Path]):
    """Yield a stand-in for each path; move the stand-ins to their places if the block ends well, else drop them."""
    stand_ins = [path.with_name(f".partial-{path.name}") for path in paths]
    try:
        for stand_in in stand_ins:
            remove(stand_in)
            stand_in.parent.mkdir(parents=True, exist_ok=True)
        yield stand_ins
        for path, stand_in in zip(paths, stand_ins, strict=True):
            if not stand_in.exists():
                raise StudyError(f"{path}: the notebook ended without writing it")
        for path, stand_in in zip(paths, stand_ins, strict=True):
            old = path.with_name(f".old-{path.name}")
            remove(old)
            if path.exists():
                path.rename(old)
            stand_in.rename(path)
            remove(old)
    finally:
        for stand_in in stand_ins:
            remove(stand_in)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def run(name: str, given: dict[str, str]) -> None:
    """Run one notebook with checked parameters; publish what it made, and itself as HTML beside the report."""
    top = root()
    notebook = top / "notebooks" / f"{name}.ipynb"
    params = yaml.safe_load((top / "params.yaml").read_text())
    values = resolve(notebook, params, given)
    outs = [k for k in values if k == "out" or k.startswith("out_")]
    if not outs:
        raise StudyError(f"{name}: its parameters cell names no `out`; a stage needs a place to write to")
    variant = "".join(f"-{part}" for part in Path(values[outs[0]]).parts[2:])  # data/debates/train -> -train
    pages = [top / "reports" / "notebooks" / f"{name}{variant}.html"]
    if "page" in values:  # the notebook is itself a report: published once more, without its code
        pages.append(top / values["page"])
    import papermill  # after the notebook has been read (see there), and only if its parameters are right
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    from agentark.pages import notebook_page

    executed = top / "data" / "runs" / f"{name}{variant}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    os.environ.update(KERNEL_ENVIRONMENT | ({"HF_HUB_OFFLINE": "0"} if params.get("scale") == "full" else {}))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(top), os.environ.get("PYTHONPATH", "")]))
    with (
        tempfile.TemporaryDirectory() as sockets,
        watched(executed.with_suffix(".json")),
        staged([*(top / values[o] for o in outs), *pages]) as stand_ins,
    ):
        places, page_places = stand_ins[: len(outs)], stand_ins[len(outs) :]
        injected = values | {o: str(p.relative_to(top)) for o, p in zip(outs, places, strict=True)}
        try:
            papermill.execute_notebook(
                notebook,
                executed,
                injected,
                cwd=notebook.parent,
                progress_bar=False,
                stdout_file=sys.stdout,
                kernel_name="python3",
                config=Config(
                    {
                        "KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"},  # no open port
                        # a kernel that has nothing left to do would take three seconds to end
                        "NotebookClient": {"shutdown_kernel": "immediate"},
                    }
                ),
            )
        except PapermillExecutionError as error:
            reason = str(error.evalue).splitlines()[0] if str(error.evalue) else ""
            raise StudyError(f"{name}: {error.ename}: {reason} (the failed notebook is kept: {executed})") from None
        ran = read(executed)
        real = {str(p.relative_to(top)): values[o] for o, p in zip(outs, places, strict=True)}
        for place, code in zip(page_places, (True, False), strict=False):
            place.write_text(notebook_page(ran, real, code), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m agentark.notebook", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="a notebook under notebooks/, without .ipynb")
    parser.add_argument("parameters", nargs="*", metavar="name=value")
    chosen = parser.parse_args(arguments)
    try:
        for pair in chosen.parameters:
            if "=" not in pair:
                raise StudyError(f"{chosen.name}: {pair!r} is not of the form name=value")
        run(chosen.name, dict(pair.split("=", 1) for pair in chosen.parameters))
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Parameters of a notebook: names and types from its parameters cell, values from params.yaml and the command line.
All are checked before anything runs.

In order of precedence, a value comes from the command line, the notebook's section of params.yaml (named like the
notebook without its number), the top level of params.yaml, or the default in the parameters cell.
"""

import ast
import math
import re
import sys
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import TypeAdapter, ValidationError

from agentark import StudyError, first_line, redacted, root


def parameters(scale: str) -> dict:
    """params.yaml at the given scale, whichever scale the file selects. Raises StudyError for an unknown scale."""
    params = read_params(root() / "params.yaml")
    scales = [name for name, section in params.items() if isinstance(section, dict) and section.get("scale") == name]
    if scale not in scales:
        raise StudyError(f"params.yaml: no scale {scale!r}; choose one of {', '.join(scales)}")
    return params if params["scale"] == scale else params | params[scale]


TYPES = {
    "int": int, "float": float, "str": str, "bool": bool,
    "list[int]": list[int], "list[float]": list[float], "list[str]": list[str], "dict": dict[str, Any],
}  # fmt: skip
UNIQUE = ("seeds", "students", "methods", "tasks")  # lists in which each item names one folder or task
SECRET_IN_ADDRESS = re.compile(r"://[^/\s]*@|[?&][^=\s]*(?:key|token)[^=\s]*=", re.IGNORECASE)


BOOL, BASE_60 = "tag:yaml.org,2002:bool", re.compile(r"^[-+]?\d[\d_]*(?::\d+)+(?:\.[\d_]*)?$")


class Loader(yaml.SafeLoader):
    """YAML with the numbers and booleans of YAML 1.2, since DVC writes the file in that version (treeverse/dvc#5971).
    YAML 1.1 reads 1e-05 as text, `off` as false, 1:30 as 90. Duplicate keys are rejected instead of using the last."""

    # The first matching pattern decides, so the pattern for base-60 numbers, which are read as text, comes first.
    yaml_implicit_resolvers: ClassVar = {
        first: [("tag:yaml.org,2002:str", BASE_60), *(item for item in found if item[0] != BOOL)]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor):
        # Check before construction, because construction writes the merged keys of an anchored mapping into its node.
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key.value, str):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value} appears twice", key.start_mark
                    )
                seen.add(key.value)
        return node


Loader.add_implicit_resolver(BOOL, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$|^[-+]?\.\d[\d_]*$"),
    list("-+.0123456789"),
)


def read_params(path: Path) -> dict[str, Any]:
    """The parameters in params.yaml. Raises StudyError, in one line, if the file is not a YAML mapping."""
    restore = "correct it, or restore it with `git checkout params.yaml`"
    try:
        params = yaml.load(path.read_text(encoding="utf-8-sig"), Loader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        reason = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise StudyError(f"{path.name}: {where}not YAML ({reason}); {restore}") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise StudyError(f"{path.name}: not readable ({getattr(error, 'strerror', '') or error}); {restore}") from None
    if not isinstance(params, dict) or not params:
        what = "empty" if not params else f"a {type(params).__name__}, not a mapping"
        raise StudyError(f"{path.name}: {what}; {restore}")
    return params


def read(notebook: Path):
    """The notebook as nbformat reads it."""
    # nbformat imports rfc3987_syntax, which takes seconds, to check international web addresses. Notebooks have none.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None marks a module as not importable
    import nbformat

    return nbformat.read(notebook, as_version=4)


def declared(notebook: Path) -> dict[str, tuple[str, Any]]:
    """Name -> (annotation, default) of the cell tagged `parameters`. Raises StudyError if it is missing or unclear."""
    try:
        cells = read(notebook).cells
    except FileNotFoundError:
        top = notebook.parents[notebook.parent.parent.name == "notebooks"]
        known = ", ".join(sorted(map(label_of, [*top.glob("*.ipynb"), *top.glob("*/*.ipynb")])))
        raise StudyError(f"{notebook.name}: no such notebook; choose one of {known}") from None
    except Exception as error:  # nbformat raises various errors for a file that is not a notebook
        raise StudyError(f"{notebook.name}: not a notebook ({first_line(error)}); restore it from git") from None
    tagged = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise StudyError(f"{notebook.name}: {len(tagged)} cells are tagged `parameters`; tag exactly one")
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
    """`value` converted to the annotated type. Raises StudyError if it has another type.

    Only ints and text that reads as a number are converted, both to float.
    """
    wanted, shown = value, repr(value) if len(repr(value)) < 200 else f"{repr(value)[:200]}..."
    if annotation == "float":
        wanted = number(value)
    elif annotation == "list[float]" and isinstance(value, list):
        wanted = [number(v) for v in value]
    try:
        checked: Any = TypeAdapter(TYPES[annotation]).validate_python(wanted, strict=True)
    except ValidationError:
        hint = "write true or false" if annotation == "bool" else "see its parameters cell"
        raise StudyError(f"{notebook}: {name}={shown} is not of type {annotation}; {hint}") from None
    named = checked.items() if isinstance(checked, dict) else [(name, checked)]
    parts = [(key, part) for key, value in named for part in (value if isinstance(value, list) else [value])]
    if any(isinstance(part, float) and not math.isfinite(part) for _, part in parts):
        raise StudyError(f"{notebook}: {name}={shown} is not a finite number")
    for key, text in ((key, part) for key, part in parts if isinstance(part, str)):
        if SECRET_IN_ADDRESS.search(text) or redacted(text) != text:
            raise StudyError(f"{notebook}: {name} contains a key, which would be stored; set OPENAI_API_KEY instead")
        lines = text.replace("\n", "").replace("\t", "")  # only a system prompt may have several lines
        if not (lines if key.rpartition(".")[2] == "system" else text).isprintable():
            raise StudyError(f"{notebook}: {name}={text!a} contains a character that is not printable")
    return checked


def number(value: Any) -> Any:
    """Convert text that reads as a number to a float; return any other value unchanged."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def parsed(annotation: str, text: str) -> Any:
    """Parse a command-line value: text for `str`, otherwise YAML. Unreadable text stays text; `typed` rejects it."""
    if annotation == "str":
        return text
    try:
        return yaml.load(text, Loader)
    except (ValueError, yaml.YAMLError, RecursionError):
        return text


def label_of(notebook: Path) -> str:
    """A notebook's name below notebooks/: 03_debate, grid/cell."""
    nested = notebook.parent.parent.name == "notebooks"
    return f"{notebook.parent.name}/{notebook.stem}" if nested else notebook.stem


def resolve(notebook: Path, params: dict[str, Any], given: dict[str, str]) -> dict[str, Any]:
    """All parameters of a notebook, checked. Raises StudyError for an unknown name or a wrong type.

    The notebook's section of params.yaml has its name: `debate` for 03_debate, `grid_cell` for grid/cell. A parameter
    of type `dict` contains a method's settings: those of the section with its name, overridden by the notebook's
    section and then by the command line (`policy.beta=0.01`).
    """
    cell, label = declared(notebook), label_of(notebook)
    name = re.sub(r"^\d+_", "", label.replace("/", "_"))
    settings = {k for k, (annotation, _) in cell.items() if annotation == "dict"}
    section = {} if name in settings else mapping(params, name, label)
    for where, names in (("params.yaml", section), ("the command line", given)):
        for unknown in (n for n in names if n not in cell and n.partition(".")[0] not in settings):
            raise StudyError(
                f"{label}: {where} has the unknown parameter {unknown!r:.80}; choose from {', '.join(cell)}"
            )
    shared = {k: v for k, v in params.items() if not isinstance(v, dict)}
    from_line = {k: parsed(cell[k][0] if k in cell else "", v) for k, v in given.items()}
    values = {name: default for name, (_, default) in cell.items()}
    values |= {k: v for k, v in (shared | section | from_line).items() if k in cell and k not in settings}
    for k in settings:
        values[k] = cell[k][1] | mapping(params, k, label) | mapping(section, k, label)
        for where, value in from_line.items():
            if where.startswith(f"{k}."):
                values[k][where.partition(".")[2]] = value
    if groups := settings & set(given):
        raise StudyError(f"{label}: {min(groups)} is a group of settings; set each one as {min(groups)}.name=value")
    for k in settings:  # a default in the cell determines the type; other settings are checked where they are read
        for key, default in cell[k][1].items():
            values[k][key] = typed(label, f"{k}.{key}", type(default).__name__, values[k][key])
    checked = {name: typed(label, name, cell[name][0], value) for name, value in values.items()}
    for k in (k for k in UNIQUE if k in checked):
        if not checked[k] and cell[k][1] and k != "methods":
            raise StudyError(f"{label}: {k} is empty; give at least one, as in {k}=[{cell[k][1][0]}]")
        if repeated := [item for item in checked[k] if checked[k].count(item) > 1]:
            raise StudyError(f"{label}: {k} has {repeated[0]} twice; name each once")
    return checked


def mapping(params: dict[str, Any], name: str, label: str) -> dict[str, Any]:
    """The section `name` of the parameters; empty if there is none. Raises StudyError if it does not map names."""
    section = params.get(name) or {}
    if not isinstance(section, dict):
        raise StudyError(f"{label}: the section {name} of params.yaml is {section!r:.80}, not a mapping of names")
    for key in section:
        if not isinstance(key, str):
            raise StudyError(
                f"{label}: the section {name} of params.yaml has the key {key!r:.80}, not a name; write `name: value` there"
            )
    return section

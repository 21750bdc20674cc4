"""Structure of the package: allowed imports between its packages, and the length of files and functions."""

import ast
from pathlib import Path

import pytest

from agentark.distill.once import PACKAGE, code_of, imported

FILES = sorted(PACKAGE.rglob("*.py"))
SCIENCE = {"answers", "tasks", "traces", "debate", "distill", "pretrain", "evaluate", "report", "paper", "plan"}
BASE = {"", "deadline", "files", "parallel", "schemas"}
# package -> packages that it must not import; docs/data-flow.md shows the layers
FORBIDDEN = {
    "models": SCIENCE | {"engines", "stage"},
    "files": SCIENCE | {"models", "engines", "stage"},
    "deadline": SCIENCE | {"models", "engines", "stage"},
    "parallel": SCIENCE | {"models", "engines", "stage"},
    "schemas": SCIENCE | {"models", "engines", "stage"},
    "report": SCIENCE - {"report", "evaluate"} | {"models", "engines", "stage"},
    "engines": SCIENCE | {"stage"},
    "answers": SCIENCE - {"answers"} | {"models", "engines", "stage"},
    "tasks": {"traces", "debate", "engines", "distill", "evaluate", "stage", "pretrain"},
    "traces": {"debate", "engines", "distill", "evaluate", "stage", "pretrain"},
    "debate": {"distill", "evaluate", "stage", "pretrain"},
    "distill": {"debate", "evaluate", "pretrain", "stage"},
    "pretrain": {"evaluate", "stage"},
    "evaluate": {"report", "stage"},
    "stage": SCIENCE | {"models", "engines"},
}
TOP_LEVEL = {"paper", "plan", "stage"}  # imported by notebooks, the Makefile and themselves only
ALLOWED = {
    "distill": {"engines": {"engines", "engines.batching", "engines.requests"}},
    "report": {"evaluate": {"evaluate.stats"}},
    # params.yaml, the environment of a kernel, and windows, which a stage checks before it starts
    "plan": {"stage": {"stage.parameters", "stage.run", "stage.windows"}},
}


def parts(file: Path) -> tuple[str, ...]:
    return file.relative_to(PACKAGE).with_suffix("").parts


@pytest.mark.parametrize("file", FILES, ids=lambda f: "/".join(parts(f)))
def test_a_package_imports_only_from_layers_below_it(file):
    own = parts(file)[0]
    for module, exact in imported(ast.parse(file.read_text(encoding="utf-8"))):
        below = module.split(".")[1:]
        if module.split(".")[0] != "agentark" or not exact or not below or below[0] == own:
            continue
        assert below[0] not in FORBIDDEN.get(own, set()), f"{file}: {own} imports {module}"
        if below[0] in ALLOWED.get(own, {}):
            assert ".".join(below) in ALLOWED[own][below[0]], f"{file}: {own} imports {module}"
        else:
            assert below[0] not in TOP_LEVEL, f"{file}: {own} imports {module}"


def test_the_generated_world_and_published_data_sets_do_not_import_each_other():
    for own, other in (("world", "datasets"), ("datasets", "world")):
        for file in (PACKAGE / "tasks" / own).glob("*.py"):
            names = {module for module, _ in imported(ast.parse(file.read_text(encoding="utf-8")))}
            assert not any(name.startswith(f"agentark.tasks.{other}") for name in names), file


def test_the_package_has_few_entries_and_no_long_files():
    entries = [entry.name for entry in PACKAGE.iterdir() if entry.name != "__pycache__"]
    assert len(entries) <= 19, sorted(entries)
    tests = Path(__file__).parent.glob("*.py")
    long = {str(f): n for f in [*FILES, *tests] if (n := len(f.read_text(encoding="utf-8").splitlines())) > 400}
    assert not long


@pytest.mark.parametrize("file", FILES, ids=lambda f: "/".join(parts(f)))
def test_functions_are_short_and_take_few_parameters(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            count = sum(map(len, (arguments.posonlyargs, arguments.args, arguments.kwonlyargs)))
            lines = node.end_lineno - node.lineno + 1
            assert count <= 8 and lines <= 60, f"{file}: {node.name} has {count} parameters and {lines} lines"


@pytest.mark.parametrize("folder", sorted(f.parent for f in PACKAGE.rglob("__init__.py")), ids=lambda f: f.name)
def test_a_package_docstring_describes_input_and_output(folder):
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    assert text and (folder == PACKAGE or text.count(".") >= 2)


def test_dependencies_of_a_module_include_indirect_imports():
    files = {"/".join(parts(file)) for file in code_of("agentark.distill.sft")}
    assert {"distill/sft", "distill/training", "models/loading"} <= files
    assert not any(file.startswith(("engines/", "evaluate/", "debate/")) for file in files)


def test_the_prefix_of_a_cluster_is_defined_in_one_file():
    found = [file.relative_to(PACKAGE).as_posix() for file in FILES if '"ray:"' in file.read_text(encoding="utf-8")]
    assert found == ["__init__.py"]

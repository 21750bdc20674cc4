"""DVC's dependencies are complete: every stage names the code that its notebook imports, directly or indirectly."""

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from agentark import root
from agentark.distill.once import PACKAGE, code_of, imported
from agentark.paper import claims, experiments

PIPELINES = [
    Path("dvc.yaml"),
    *(
        Path("notebooks") / name / "dvc.yaml"
        for name in ("ablations", "choices", "grid", "specialists", "leaderboard", "small")
    ),
]
OTHER_ENGINES = ("engines/__init__.py", "engines/addresses.py", "engines/cluster.py", "engines/failures.py",
                 "engines/llama_cpp.py", "engines/paged.py", "engines/replies.py", "engines/server.py", "engines/vllm.py")  # fmt: skip
# Each base model takes an hour to train. Code that only evaluates a finished model, or that runs other kinds of models,
# does not change its weights.
NO_EFFECT_ON_WEIGHTS = (
    "answers/", "evaluate/", "traces/", "schemas.py", "distill/launch.py", "distill/once.py", "distill/training.py",
    "distill/settings.py", "models/checkpoints.py", "models/heads.py", "models/gguf.py", "debate/__init__.py",
    "distill/__init__.py", "models/__init__.py", *OTHER_ENGINES,
)  # fmt: skip


def stages() -> list[tuple[str, dict]]:
    found = []
    for pipeline in PIPELINES:
        for name, stage in yaml.safe_load((root() / pipeline).read_text())["stages"].items():
            found.append((f"{pipeline.parent}:{name}", stage.get("do", stage)))
    return found


STAGES = stages()


def notebook_of(stage: dict) -> Path:
    name = re.search(r"agentark\.stage (\S+)", stage["cmd"])[1]
    return root() / "notebooks" / f"{name}.ipynb"


def imported_files(notebook: Path) -> list[Path]:
    """The files of the package that a notebook imports, directly or indirectly."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return code_of(*(module for module, is_module in imported(ast.parse(source)) if is_module))


def is_covered(file: Path, deps: list[str]) -> bool:
    return any(file.is_relative_to(root() / dep) for dep in deps)


@pytest.mark.parametrize(("name", "stage"), STAGES, ids=[name for name, _ in STAGES])
def test_a_stage_depends_on_its_notebook_and_the_code_it_imports(name, stage):
    notebook, deps = notebook_of(stage), stage["deps"]
    assert notebook.is_file() and is_covered(notebook, deps)
    missing = [str(file.relative_to(PACKAGE)) for file in imported_files(notebook) if not is_covered(file, deps)]
    if "base_models" in name or name == "notebooks/specialists:models":
        missing = [file for file in missing if not file.startswith(NO_EFFECT_ON_WEIGHTS)]
    if name.startswith("notebooks/leaderboard"):  # all methods together take hours
        missing = [file for file in missing if not file.startswith(OTHER_ENGINES)]
    assert not missing


@pytest.mark.parametrize(("name", "stage"), STAGES, ids=[name for name, _ in STAGES])
def test_a_stage_does_not_depend_on_code_that_it_does_not_use(name, stage):
    used = imported_files(notebook_of(stage))
    for dep in (dep for dep in stage["deps"] if dep.startswith("agentark")):
        assert (root() / dep).exists(), dep
        assert any(file.is_relative_to(root() / dep) for file in used), f"{name}: {dep}"


@pytest.mark.parametrize(("name", "tables"), [("claims", claims.TABLES), ("experiments", experiments.MADE_BY)])
def test_a_page_depends_on_the_results_tables_that_it_reads(name, tables):
    deps = next(stage["deps"] for key, stage in STAGES if key.endswith(name))
    assert {f"reports/{table}.csv" for table in tables} <= set(deps)


@pytest.mark.parametrize(("name", "stage"), STAGES, ids=[name for name, _ in STAGES])
def test_a_stage_depends_on_the_data_that_its_parameters_name(name, stage):
    """Exceptions: finished generations and trainings, records of runs, the folder of all results tables (see above)."""
    cells = json.loads(notebook_of(stage).read_text())["cells"]
    declared = next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))
    inputs = dict(re.findall(r'^(\w+): str = "((?:data|reports)/[^"]*)"', declared, re.MULTILINE))
    exempt = {"store", "scratch", "runs", "reports"} | (
        {"teacher"} if name.endswith(":cost") else set()
    )  # only its name is used
    deps = [re.sub(r"\$\{.*", "", dep) for dep in stage["deps"]]
    missing = {
        key: place
        for key, place in inputs.items()
        if not key.startswith(("out", "page")) and key not in exempt and f" {key}=" not in stage["cmd"]
        and not any(place.startswith(dep.rstrip("/")) or dep.startswith(place) for dep in deps)
    }  # fmt: skip
    assert not missing


def test_every_notebook_has_a_stage_except_those_run_by_hand():
    with_stage = {notebook_of(stage).relative_to(root() / "notebooks").as_posix() for _, stage in STAGES}
    notebooks = {path.relative_to(root() / "notebooks").as_posix() for path in (root() / "notebooks").rglob("*.ipynb")}
    by_hand = {
        "10_short_report.ipynb",
        "choices/plan.ipynb",
        "paper/judge.ipynb",
        "small/given.ipynb",
        "small/keep.ipynb",
        "small/methods.ipynb",
    }
    assert notebooks - with_stage == by_hand


def test_a_new_file_does_not_invalidate_finished_trainings(tmp_path):
    """Trainings depend on the modules they import, not on the folder that contains them."""
    dependencies = code_of("agentark.distill.sft")
    assert not any(file.name in ("ppo.py", "reward_model.py") for file in dependencies)
    assert all("agentark/distill" not in stage["deps"] for _, stage in STAGES)


MODELS = ("teacher", "qwen3-small", "llama-small")
SPECIALISTS = ("drugs", "illnesses", "novice")


@pytest.mark.parametrize(
    ("pipeline", "stages"),
    [
        ("dvc.yaml", [f"base_models@{name}" for name in MODELS]),
        ("notebooks/specialists/dvc.yaml", [f"models@{name}" for name in SPECIALISTS]),
    ],
)
def test_a_clone_does_not_retrain_its_base_models(pipeline, stages):
    """They are in git and take an hour each to train. After a change of the code that they depend on, if their weights
    stay the same, `dvc commit --force STAGE` records it."""
    names = [name if pipeline == "dvc.yaml" else f"{pipeline}:{name}" for name in stages]
    status = subprocess.run(["dvc", "status", *names], cwd=root(), capture_output=True, text=True, check=True).stdout
    assert "changed" not in status, status

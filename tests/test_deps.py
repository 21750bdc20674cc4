"""DVC's dependencies are true: every stage names the code that its notebook imports, directly or not."""

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
# Base models take an hour each. What only measures a finished model, or answers for other kinds of models, does not
# change its weights.
MEASURES = ("answers/", "evaluate/", "traces/", "schemas.py", "distill/launch.py", "distill/once.py", "distill/training.py",
            "distill/settings.py", "models/checkpoints.py", "models/heads.py", "models/gguf.py", "debate/__init__.py",
            "distill/__init__.py", "models/__init__.py", *OTHER_ENGINES)  # fmt: skip


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


def needed(notebook: Path) -> list[Path]:
    """The files of the library that a notebook imports, directly or not."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return code_of(*(module for module, itself in imported(ast.parse(source)) if itself))


def covered(file: Path, deps: list[str]) -> bool:
    return any(file.is_relative_to(root() / dep) for dep in deps)


@pytest.mark.parametrize(("name", "stage"), STAGES, ids=[name for name, _ in STAGES])
def test_a_stage_depends_on_its_notebook_and_on_what_that_imports(name, stage):
    notebook, deps = notebook_of(stage), stage["deps"]
    assert notebook.is_file() and covered(notebook, deps)
    missing = [str(file.relative_to(PACKAGE)) for file in needed(notebook) if not covered(file, deps)]
    if "base_models" in name or name == "notebooks/specialists:models":
        missing = [file for file in missing if not file.startswith(MEASURES)]
    if name.startswith("notebooks/leaderboard"):  # some hours for all methods
        missing = [file for file in missing if not file.startswith(OTHER_ENGINES)]
    assert not missing


@pytest.mark.parametrize(("name", "stage"), STAGES, ids=[name for name, _ in STAGES])
def test_a_stage_does_not_depend_on_code_that_it_does_not_use(name, stage):
    used = needed(notebook_of(stage))
    for dep in (dep for dep in stage["deps"] if dep.startswith("agentark")):
        assert (root() / dep).exists(), dep
        assert any(file.is_relative_to(root() / dep) for file in used), f"{name}: {dep}"


@pytest.mark.parametrize(("name", "tables"), [("claims", claims.TABLES), ("experiments", experiments.MADE_BY)])
def test_a_page_depends_on_the_results_tables_that_it_reads(name, tables):
    deps = next(stage["deps"] for key, stage in STAGES if key.endswith(name))
    assert {f"reports/{table}.csv" for table in tables} <= set(deps)


@pytest.mark.parametrize(("name", "stage"), STAGES, ids=[name for name, _ in STAGES])
def test_a_stage_depends_on_the_data_that_its_parameters_name(name, stage):
    """Except finished generations and trainings, records of runs, and the folder of all results tables (see above)."""
    cells = json.loads(notebook_of(stage).read_text())["cells"]
    declared = next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))
    inputs = dict(re.findall(r'^(\w+): str = "((?:data|reports)/[^"]*)"', declared, re.MULTILINE))
    known = {"store", "scratch", "runs", "reports"} | (
        {"teacher"} if name.endswith(":cost") else set()
    )  # its name alone
    deps = [re.sub(r"\$\{.*", "", dep) for dep in stage["deps"]]
    missing = {
        key: place
        for key, place in inputs.items()
        if not key.startswith(("out", "page")) and key not in known and f" {key}=" not in stage["cmd"]
        and not any(place.startswith(dep.rstrip("/")) or dep.startswith(place) for dep in deps)
    }  # fmt: skip
    assert not missing


def test_there_is_a_stage_for_every_notebook_but_those_that_are_run_by_hand():
    own = {notebook_of(stage).relative_to(root() / "notebooks").as_posix() for _, stage in STAGES}
    every = {path.relative_to(root() / "notebooks").as_posix() for path in (root() / "notebooks").rglob("*.ipynb")}
    by_hand = {
        "10_short_report.ipynb",
        "choices/plan.ipynb",
        "paper/judge.ipynb",
        "small/given.ipynb",
        "small/keep.ipynb",
        "small/methods.ipynb",
    }
    assert every - own == by_hand


def test_a_new_file_makes_no_finished_training_stale(tmp_path):
    """Trainings depend on what they import, not on the folder that they are in."""
    before = code_of("agentark.distill.sft")
    assert not any(file.name in ("ppo.py", "reward_model.py") for file in before)
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
def test_a_clone_does_not_train_its_base_models_again(pipeline, stages):
    """They are in git and take an hour each. After a change of code that they depend on and that leaves their weights as
    they are, `dvc commit --force STAGE` records it."""
    names = [name if pipeline == "dvc.yaml" else f"{pipeline}:{name}" for name in stages]
    shown = subprocess.run(["dvc", "status", *names], cwd=root(), capture_output=True, text=True, check=True).stdout
    assert "changed" not in shown, shown

"""The leaderboard: sections of params.yaml, a short run of each method, the example of the docs, a killed run."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from small_study import PROJECT, call, copy_of_project, digests, environment, shrunk, stage

from agentark import StudyError, root
from agentark.distill import launch
from agentark.evaluate.leaderboard import table
from agentark.evaluate.leaderboard.material import Material, read_material
from agentark.evaluate.leaderboard.sections import ENTRIES, Section, Stage, method_of
from agentark.stage import pipeline
from agentark.stage.parameters import read_params

SECTIONS = read_params(root() / "params.yaml")["leaderboard"]
SETTINGS = ("homogeneous", "specialists")


def test_the_compared_methods_are_on_the_leaderboard():
    assert {name for pairs in table.PAIRS.values() for pair in pairs for name in pair} <= set(SECTIONS)
    own = {"sft", "rsft", "rsft_off", "rsft_vote", "rsft_greedy", "da"}
    assert len(set(SECTIONS) - own) >= 9


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", SECTIONS)
def test_each_section_names_a_method_with_valid_settings(name, setting):
    section = Section.of(SECTIONS, name, setting)
    function, settings = method_of(section, section.source)
    assert callable(function) and settings.optimiser_steps > 0 and "all weights" in launch.route(settings)[1]
    if "source" in type(settings).model_fields:
        assert settings.source == section.source


@pytest.mark.parametrize(("changed", "message"), [
    ({"family": ""}, r"leaderboard.opd.family="), ({"gold": "no"}, r"leaderboard.opd.gold='no'"),
    ({"source": "debat"}, "leaderboard.opd.source='debat'"), ({"function": None}, "leaderboard.opd.function=None"),
    ({"sauce": "debate"}, "leaderboard.opd: sauce is unknown"),
])  # fmt: skip
def test_an_invalid_value_or_key_of_a_section_is_reported_by_name(changed, message):
    with pytest.raises(StudyError, match=message):
        Section.of({"opd": SECTIONS["opd"] | changed}, "opd", "homogeneous")


@pytest.mark.parametrize("key", ["function", "family", "gold", "source", "settings"])
def test_a_missing_key_or_method_is_reported_by_name(key):
    with pytest.raises(StudyError, match=f"leaderboard.opd: {key} is missing; add it to params.yaml"):
        Section.of({"opd": {k: v for k, v in SECTIONS["opd"].items() if k != key}}, "opd", "homogeneous")
    with pytest.raises(StudyError, match="no method 'none'"):
        Section.of(SECTIONS, "none", "homogeneous")


def test_a_section_without_a_valid_method_is_refused(tmp_path, monkeypatch):
    opd = Stage(file=ENTRIES, function="opd", settings=SECTIONS["opd"]["settings"])
    for function in ("nothing", "GUESS", "models_of"):
        with pytest.raises(StudyError, match="is not a method"):
            method_of(opd.model_copy(update={"function": function}), "")
    with pytest.raises(StudyError, match=r"no/such/file\.py is not in the project"):
        method_of(opd.model_copy(update={"file": "no/such/file.py"}), "")
    with pytest.raises(StudyError, match="source stands in the section"):
        method_of(opd.model_copy(update={"settings": opd.settings | {"source": "debate"}}), "")
    two = Stage(function="two_stages", settings={"first": {"function": "rsft", "settings": {}}})
    with pytest.raises(StudyError, match="two stages: second is missing"):
        method_of(two, "debate")
    (tmp_path / "broken.py").write_text("def mine(:\n")
    monkeypatch.setattr("agentark.evaluate.leaderboard.sections.root", lambda: tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StudyError, match="SyntaxError"):
        method_of(Stage(file="broken.py", function="mine", settings={}), "")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with small inputs for the setting `specialists`."""
    folder = tmp_path_factory.mktemp("leaderboard") / "project"
    copy_of_project(folder)
    stage(folder, "leaderboard/specialists", "train=40", "test=20")
    return folder


def small(values: dict) -> dict:
    """The settings with few steps and training tokens."""
    changes = {"training_tokens": 1500, "batch_size": 4, "num_generations": 2, "steps": 3}
    smaller = {k: small(v) if isinstance(v, dict) else changes.get(k, v) for k, v in values.items()}
    return smaller


FUNCTIONS = {section["function"]: name for name, section in reversed(SECTIONS.items())}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_method_trains_a_student_and_counts_its_tokens(project, tmp_path, monkeypatch, function):
    monkeypatch.setattr("agentark.evaluate.leaderboard.material.root", lambda: project)
    material: Material = read_material(project / "data/leaderboard/specialists/given")
    section = Section.of(SECTIONS, FUNCTIONS[function], "homogeneous")
    train, settings = method_of(section.model_copy(update={"settings": small(section.settings)}), section.source)
    curve = train(material, tmp_path / "out", 0, settings)
    assert curve[-1]["tokens"] > 0 and (tmp_path / "out/model.safetensors").is_file()


def blocks() -> dict[str, str]:
    text = (root() / "docs/leaderboard.md").read_text()
    return dict(re.findall(r"<!-- (\S+) -->\n```\w+\n(.*?)```", text, re.DOTALL))


def test_the_method_added_in_the_docs_is_scored(project):
    method, section = blocks()["my_method.py"], blocks()["params.yaml"]
    assert len(method.splitlines()) <= 30
    (project / "my_method.py").write_text(method)
    shorter = section.replace("training_tokens: 450000", "training_tokens: 20000")
    with (project / "params.yaml").open("a") as file:
        file.write(shorter)
    assert "agreed" in yaml.safe_load((project / "params.yaml").read_text())["leaderboard"]
    listed = call(project, "dvc", "stage", "list", "--names-only", "notebooks/leaderboard/dvc.yaml").stdout
    assert "homogeneous_method@agreed" in listed and "specialists_method@agreed" in listed
    stage(project, "leaderboard/method", "setting=specialists", "method=agreed",
          "out=data/leaderboard/specialists/agreed")  # fmt: skip
    folder = project / "data/leaderboard/specialists/agreed"
    assert {path.name for path in folder.iterdir()} == {
        "curve.csv",
        "facts.json",
        "predictions.parquet",
        "seconds.json",
    }
    facts = yaml.safe_load((folder / "facts.json").read_text())
    assert facts["family"] == "supervised" and not facts["gold_used"] and facts["uses_debate"]
    assert facts["training_tokens"] == pytest.approx(20000, rel=0.05)


def rows_of(folder: Path) -> dict[Path, float]:
    """The finished rows of the leaderboard in a copy of the project, with their modification times."""
    facts = (folder / "data" / "leaderboard").glob("*/*/facts.json")
    return {file.relative_to(folder): file.stat().st_mtime for file in facts if "partial" not in str(file)}


def copy_with(folder: Path, given: Path, methods: tuple[str, ...]) -> Path:
    """A copy of the project whose leaderboard has `methods`, with few steps, and `given` as inputs of both settings."""
    sections = {name: SECTIONS[name] | {"settings": small(SECTIONS[name]["settings"])} for name in methods}
    for section in sections.values():
        section.pop("specialists", None)
    params = shrunk(yaml.safe_load((PROJECT / "params.yaml").read_text()), {"seeds": [0]})
    params |= {"leaderboard": sections, "train_tasks": dict.fromkeys(SETTINGS, "clinic")}
    if not folder.exists():
        copy_of_project(folder, params)
        shutil.rmtree(folder / "data/leaderboard", ignore_errors=True)
        for setting in SETTINGS:
            shutil.copytree(given, folder / "data/leaderboard" / setting / "given")
        file = folder / pipeline.file_of("leaderboard")
        listed = yaml.safe_load(file.read_text())
        for setting in SETTINGS:
            del listed["stages"][setting]
        file.write_text(yaml.safe_dump(listed, sort_keys=False))
        file.with_suffix(".lock").unlink(missing_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


@pytest.mark.long
def test_a_leaderboard_killed_twice_gives_the_same_files_and_keeps_finished_methods(project, tmp_path):
    given, methods = project / "data/leaderboard/specialists/given", ("rsft", "rsft_off")
    complete, killed = (copy_with(tmp_path / name, given, methods) for name in ("whole", "cut"))
    command = [sys.executable, "-m", "agentark.stage.pipeline", "leaderboard"]
    call(complete, *command)
    rng = random.Random(3)
    for threshold in (0, 2):
        process = subprocess.Popen(
            command, cwd=killed, env=environment(killed), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while len(rows_of(killed)) < threshold and process.poll() is None:
            time.sleep(0.1)
        time.sleep(rng.uniform(3, 8))
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    kept = rows_of(killed)
    call(killed, *command)
    compared = (
        "data/leaderboard",
        "reports/leaderboard.csv",
        "reports/leaderboard_pairs.csv",
        "reports/leaderboard_errors.csv",
    )
    unrepeatable = {name for name in digests(complete, *compared) if name.endswith("seconds.json")}
    one, other = (
        {k: v for k, v in digests(at, *compared).items() if k not in unrepeatable} for at in (complete, killed)
    )
    assert one == other and len(rows_of(killed)) == 4
    before = rows_of(killed)
    call(copy_with(killed, given, (*methods, "dpo")), *command)
    after = rows_of(killed)
    assert len(after) == 6 and all(after[file] == at for file, at in before.items())
    assert kept and all(after[file] == at for file, at in kept.items())
    assert "dpo" in (killed / "reports/leaderboard.csv").read_text()

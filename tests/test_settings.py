"""Settings of the methods are read from params.yaml and validated; notebooks and trainers use the same ones."""

import json
from pathlib import Path

import pytest
import yaml

from agentark import StudyError, root
from agentark.distill.settings import SFT, Policy, Recipe, RewardModel
from agentark.stage.parameters import read_params, resolve

PARAMS = yaml.safe_load((root() / "params.yaml").read_text())
NOTEBOOKS = sorted((root() / "notebooks").rglob("*.ipynb"))
KINDS = {"sft": SFT, "reward_model": RewardModel, "policy": Policy}


@pytest.mark.parametrize("scale", ["mini", "small", "small_cpu", "full"])
def test_the_sections_of_params_yaml_are_valid_settings(scale):
    recipe = Recipe.of(PARAMS | PARAMS[scale])
    assert recipe.policy.max_tokens == PARAMS[scale]["max_tokens"]
    assert recipe.optimiser_steps("pad") > recipe.optimiser_steps("rsft") == recipe.sft.steps


@pytest.mark.parametrize("scale", ["mini", "small", "small_cpu", "full"])
def test_the_scale_selected_in_params_yaml_is_read(scale, tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text((root() / "params.yaml").read_text().replace("\n<<: *mini\n", f"\n<<: *{scale}\n"))
    assert read_params(file)["scale"] == scale


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_parameters_of_a_notebook_are_valid_settings(notebook):
    """The defaults of a parameters cell equal scale `mini`: a notebook run by hand computes what the study does."""
    for params in ({}, PARAMS):
        values = resolve(notebook, params, {})
        for name in KINDS.keys() & values.keys():
            extra = {"max_tokens": 8} if name == "policy" else {}
            assert KINDS[name].read(values[name] | extra).section == name
    default = resolve(notebook, {}, {})
    for name in KINDS.keys() & default.keys():
        own = resolve(notebook, PARAMS, {})[name]
        assert default[name] == {key: own[key] for key in default[name]}, name


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": 0}, "sft.steps=0: .*greater than 0"),
        ({"steps": "many"}, "sft.steps='many'"),
        ({"batch": 3}, "sft: batch is unknown; choose from .*batch_size"),
        ({"learning_rate": None}, "sft.learning_rate=None"),
        ({"trainer": "osmosis"}, "sft.trainer='osmosis'"),
    ],
)
def test_invalid_settings_are_reported_by_name_in_one_line(values, words):
    with pytest.raises(StudyError, match=f"^{words}") as raised:
        SFT.read({"steps": 4, "batch_size": 8, "learning_rate": 0.1} | values)
    assert "\n" not in str(raised.value)
    with pytest.raises(StudyError, match="sft: batch_size is missing"):
        SFT.read({"steps": 4, "learning_rate": 0.1})


def test_changed_settings_are_validated_and_the_trainer_is_not_recorded():
    settings = SFT(steps=4, batch_size=8, learning_rate=0.1, per_device_batch_size=2)
    assert settings.but(steps=5).steps == 5 and settings.steps == 4
    with pytest.raises(StudyError, match=r"sft\.steps=-1"):
        settings.but(steps=-1)
    assert json.loads(json.dumps(settings.recorded())).keys() == {
        "batch_size", "learning_rate", "lora_rank", "four_bit", "steps"
    }  # fmt: skip


def test_a_single_setting_can_be_given_by_name_on_the_command_line():
    policy = root() / "notebooks" / "07_policy.ipynb"
    assert resolve(policy, PARAMS, {"policy.beta": "0.5"})["policy"]["beta"] == 0.5
    assert resolve(policy, PARAMS, {"policy.trainer": "peft"})["policy"]["trainer"] == "peft"
    for given, words in (
        ({"policy": "{}"}, "policy is a group of settings"),
        ({"polcy.beta": "1"}, "the command line has the unknown parameter 'polcy.beta'"),
        ({"policy.steps": "1.5"}, "policy.steps=1.5 is not of type int"),
    ):
        with pytest.raises(StudyError, match=words):
            resolve(policy, PARAMS, given)


def test_the_section_of_a_notebook_overrides_single_settings(tmp_path):
    cell = root() / "notebooks" / "grid" / "cell.ipynb"
    changed = resolve(cell, PARAMS, {})["sft"]
    assert changed["steps"] == PARAMS["grid_cell"]["sft"]["steps"] != PARAMS["sft"]["steps"]
    assert changed["batch_size"] == PARAMS["sft"]["batch_size"]
    assert Path(cell).is_file()


def test_scale_small_cpu_uses_the_files_that_its_page_downloads():
    scale, page = PARAMS["small_cpu"], (root() / "docs" / "real-models.md").read_text()
    files = [scale["teacher"].removeprefix("llama.cpp:"), *(one["source"] for one in scale["checkpoints"].values())]
    for folder, name in (file.split("/") for file in files):
        assert f" {name} --local-dir {folder}\n" in page

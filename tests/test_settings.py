"""Settings of the methods: read from params.yaml, checked in one line, the same in the notebook and the trainer."""

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
def test_the_sections_of_params_yaml_are_settings(scale):
    recipe = Recipe.of(PARAMS | PARAMS[scale])
    assert recipe.policy.max_tokens == PARAMS[scale]["max_tokens"]
    assert recipe.optimiser_steps("pad") > recipe.optimiser_steps("rsft") == recipe.sft.steps


@pytest.mark.parametrize("scale", ["mini", "small", "small_cpu", "full"])
def test_a_scale_that_is_chosen_in_params_yaml_is_read(scale, tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text((root() / "params.yaml").read_text().replace("\n<<: *mini\n", f"\n<<: *{scale}\n"))
    assert read_params(file)["scale"] == scale


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_a_notebook_declares_are_settings_of_its_kind(notebook):
    """The defaults in a parameters cell are those of scale `mini`, so that a notebook run by hand is the study's."""
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
def test_settings_at_fault_are_named_in_one_line(values, words):
    with pytest.raises(StudyError, match=f"^{words}") as raised:
        SFT.read({"steps": 4, "batch_size": 8, "learning_rate": 0.1} | values)
    assert "\n" not in str(raised.value)
    with pytest.raises(StudyError, match="sft: batch_size is missing"):
        SFT.read({"steps": 4, "learning_rate": 0.1})


def test_changed_settings_are_checked_again_and_the_route_is_not_recorded():
    settings = SFT(steps=4, batch_size=8, learning_rate=0.1, per_device_batch_size=2)
    assert settings.but(steps=5).steps == 5 and settings.steps == 4
    with pytest.raises(StudyError, match=r"sft\.steps=-1"):
        settings.but(steps=-1)
    assert json.loads(json.dumps(settings.recorded())).keys() == {
        "batch_size", "learning_rate", "lora_rank", "four_bit", "steps"
    }  # fmt: skip


def test_a_setting_is_given_on_the_command_line_by_its_name():
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


def test_a_notebook_s_section_changes_single_settings(tmp_path):
    cell = root() / "notebooks" / "grid" / "cell.ipynb"
    changed = resolve(cell, PARAMS, {})["sft"]
    assert changed["steps"] == PARAMS["grid_cell"]["sft"]["steps"] != PARAMS["sft"]["steps"]
    assert changed["batch_size"] == PARAMS["sft"]["batch_size"]
    assert Path(cell).is_file()


def test_the_files_of_scale_small_cpu_are_those_that_its_page_fetches():
    scale, page = PARAMS["small_cpu"], (root() / "docs" / "real-models.md").read_text()
    files = [scale["teacher"].removeprefix("llama.cpp:"), *(one["source"] for one in scale["checkpoints"].values())]
    for folder, name in (file.split("/") for file in files):
        assert f" {name} --local-dir {folder}\n" in page

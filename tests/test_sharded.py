"""Trainings whose weights are divided among processes (FSDP2), by a configuration of Accelerate, on a CPU."""

import os
import signal
import socket
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState, DistributedType
from checkpoints import build
from safetensors.torch import load_file

from agentark import StudyError, root
from agentark.distill import launch, sft, training
from agentark.distill.settings import SFT
from agentark.tasks import TASKS

PAIRS = [(q.text, q.solution) for q in TASKS["equation"].questions(24, "train", 0)]
FAMILIES = ("qwen3", "llama", "gemma3")
STEPS = {"steps": 9, "batch_size": 8, "learning_rate": 0.02, "accelerate": "fsdp2.yaml"}

# Starts a command twice. The second one has a rank of its own, or Accelerate would find its port taken by the first.
EVERYWHERE = """\
second=()
for word in "$@"; do
  [ "$word" = --config_file ] && second+=(--machine_rank 1)
  second+=("$word")
done
"$@" & first=$!
"${second[@]}" && wait $first
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder that looks like the project's, with tiny checkpoints and the documented configuration for two processes."""
    folder, before = tmp_path_factory.mktemp("project"), Path.cwd()
    config = yaml.safe_load((root() / "docs/scaling/fsdp2.yaml").read_text()) | {"num_processes": 2}
    (folder / "params.yaml").write_text("{}\n")
    (folder / "fsdp2.yaml").write_text(yaml.safe_dump(config))
    (folder / "two-machines.yaml").write_text(yaml.safe_dump(on_two_machines(config)))
    for family in FAMILIES:
        build(family, folder / "data/models" / family)
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(autouse=True)
def found(monkeypatch):
    """The processes find this file, whose function they run."""
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[1]}:{Path(__file__).parent}")


def on_two_machines(config: dict) -> dict:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return config | {"num_machines": 2, "main_process_ip": "127.0.0.1", "main_process_port": port}


def on_a_cpu(killed_after: int = 0, **call) -> list[dict]:
    """R-SFT by the product's function. Accelerate divides weights on GPUs alone, so its choice is changed first.

    killed_after: the second process is killed when the checkpoint of that step is complete.
    """
    start, plugins = AcceleratorState.__init__, []

    def with_plugin(self, *arguments, fsdp_plugin=None, **named):
        start(self, *arguments, fsdp_plugin=fsdp_plugin, **named)
        plugins.extend([fsdp_plugin] if fsdp_plugin else [])
        if plugins:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugins[-1]

    AcceleratorState.__init__ = with_plugin
    kept = training.Ticks.on_step_begin

    def killing(self, arguments, state, control, **named):
        divided = {type(p).__name__ for p in self.trainer.model.parameters()}
        assert divided == {"DTensor"}
        if killed_after and state.global_step == killed_after and arguments.process_index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return kept(self, arguments, state, control, **named)

    training.Ticks.on_step_begin = killing
    return sft.train(**call)


def divided(base: Path, out: Path, killed_after: int = 0, **chosen) -> list[dict]:
    import test_sharded  # the module's name in the processes

    settings = SFT.read(STEPS | chosen)
    call = {"base": base, "pairs": PAIRS, "seed": 0, "settings": settings, "out": out, "killed_after": killed_after}
    (curve,) = launch.run_all(test_sharded.on_a_cpu, [call])
    return curve


def alone(base: Path, out: Path, **chosen) -> list[dict]:
    return sft.train(base, PAIRS, out, 0, SFT.read(STEPS | {"accelerate": ""} | chosen))


def losses(curve: list[dict]) -> list[float]:
    return [row["loss"] for row in curve]


@pytest.mark.long
@pytest.mark.parametrize(("family", "lora_rank"), [*((family, 0) for family in FAMILIES), ("qwen3", 4)])
def test_divided_weights_learn_as_whole_ones(project, family, lora_rank):
    base = project / "data/models" / family
    one, two = (
        train(base, project / name / f"{family}-{lora_rank}", lora_rank=lora_rank)
        for name, train in (("one", alone), ("two", divided))
    )
    assert len(set(losses(one))) == 9 and losses(two) == pytest.approx(losses(one), abs=1e-4)
    weights = [load_file(project / name / f"{family}-{lora_rank}/model.safetensors") for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], atol=5e-3, rtol=0)


@pytest.mark.long
def test_a_killed_training_of_divided_weights_goes_on_to_the_same_weights(project):
    base = project / "data/models/qwen3"
    whole = divided(base, project / "whole", save_steps=3)
    with pytest.raises(StudyError, match="on_a_cpu"):  # the first process reports that the other one is gone
        divided(base, project / "killed", killed_after=6, save_steps=3)
    assert not (project / "killed/model.safetensors").exists()
    assert losses(divided(base, project / "killed", save_steps=3)) == losses(whole)
    assert (project / "killed/model.safetensors").read_bytes() == (project / "whole/model.safetensors").read_bytes()


@pytest.mark.long
def test_two_machines_divide_the_weights(project, monkeypatch):
    """Two machines are played by two commands on this one, which find each other at its address."""
    (project / "everywhere.sh").write_text(EVERYWHERE)
    monkeypatch.setenv("AGENTARK_LAUNCHER", f"bash {project / 'everywhere.sh'}")
    base = project / "data/models/qwen3"
    curve = divided(base, project / "machines", accelerate="two-machines.yaml")
    assert losses(curve) == pytest.approx(losses(alone(base, project / "machine")), abs=1e-4)


def test_a_missing_configuration_is_named(project):
    with pytest.raises(
        StudyError, match=r"^sft.accelerate: .*nowhere.yaml: no such file; see docs/scaling/fsdp2.yaml$"
    ):
        launch.run_all(sft.train, [{"settings": SFT.read(STEPS | {"accelerate": "nowhere.yaml"}), "method": "rsft"}])

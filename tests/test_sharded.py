"""Training with weights sharded over processes (FSDP2), set up by a configuration of Accelerate, on a CPU."""

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

# Starts a command twice. The second one needs its own rank; otherwise its port is already in use by the first.
LAUNCH_TWICE = """\
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
    """A project folder with tiny checkpoints and the documented configuration, set to two processes."""
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
def importable(monkeypatch):
    """Let the training processes import this file, because they run its function."""
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[1]}:{Path(__file__).parent}")


def on_two_machines(config: dict) -> dict:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return config | {"num_machines": 2, "main_process_ip": "127.0.0.1", "main_process_port": port}


def on_a_cpu(killed_after: int = 0, **call) -> list[dict]:
    """R-SFT by `sft.train`. Accelerate shards weights only on GPUs, so its choice is patched first.

    killed_after: the second process is killed once the checkpoint of this step is complete; 0: never.
    """
    start, plugins = AcceleratorState.__init__, []

    def with_plugin(self, *arguments, fsdp_plugin=None, **named):
        start(self, *arguments, fsdp_plugin=fsdp_plugin, **named)
        plugins.extend([fsdp_plugin] if fsdp_plugin else [])
        if plugins:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugins[-1]

    AcceleratorState.__init__ = with_plugin
    original = training.Ticks.on_step_begin

    def maybe_kill(self, arguments, state, control, **named):
        kinds = {type(p).__name__ for p in self.trainer.model.parameters()}
        assert kinds == {"DTensor"}
        if killed_after and state.global_step == killed_after and arguments.process_index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, arguments, state, control, **named)

    training.Ticks.on_step_begin = maybe_kill
    return sft.train(**call)


def train_sharded(base: Path, out: Path, killed_after: int = 0, **chosen) -> list[dict]:
    import test_sharded  # under this name, the training processes import the module

    settings = SFT.read(STEPS | chosen)
    call = {"base": base, "pairs": PAIRS, "seed": 0, "settings": settings, "out": out, "killed_after": killed_after}
    (curve,) = launch.run_all(test_sharded.on_a_cpu, [call])
    return curve


def train_in_one_process(base: Path, out: Path, **chosen) -> list[dict]:
    return sft.train(base, PAIRS, out, 0, SFT.read(STEPS | {"accelerate": ""} | chosen))


def losses(curve: list[dict]) -> list[float]:
    return [row["loss"] for row in curve]


@pytest.mark.long
@pytest.mark.parametrize(("family", "lora_rank"), [*((family, 0) for family in FAMILIES), ("qwen3", 4)])
def test_sharded_training_matches_training_in_one_process(project, family, lora_rank):
    base = project / "data/models" / family
    one, two = (
        train(base, project / name / f"{family}-{lora_rank}", lora_rank=lora_rank)
        for name, train in (("one", train_in_one_process), ("two", train_sharded))
    )
    assert len(set(losses(one))) == 9 and losses(two) == pytest.approx(losses(one), abs=1e-4)
    weights = [load_file(project / name / f"{family}-{lora_rank}/model.safetensors") for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], atol=5e-3, rtol=0)


@pytest.mark.long
def test_killed_sharded_training_resumes_to_the_same_weights(project):
    base = project / "data/models/qwen3"
    uninterrupted = train_sharded(base, project / "whole", save_steps=3)
    with pytest.raises(StudyError, match="on_a_cpu"):  # the first process reports that the other one has ended
        train_sharded(base, project / "killed", killed_after=6, save_steps=3)
    assert not (project / "killed/model.safetensors").exists()
    assert losses(train_sharded(base, project / "killed", save_steps=3)) == losses(uninterrupted)
    assert (project / "killed/model.safetensors").read_bytes() == (project / "whole/model.safetensors").read_bytes()


@pytest.mark.long
def test_training_sharded_over_two_machines_matches_one_process(project, monkeypatch):
    """Two commands on this machine simulate two machines; they connect through its address."""
    (project / "everywhere.sh").write_text(LAUNCH_TWICE)
    monkeypatch.setenv("AGENTARK_LAUNCHER", f"bash {project / 'everywhere.sh'}")
    base = project / "data/models/qwen3"
    curve = train_sharded(base, project / "machines", accelerate="two-machines.yaml")
    assert losses(curve) == pytest.approx(losses(train_in_one_process(base, project / "machine")), abs=1e-4)


def test_missing_accelerate_configuration_is_reported(project):
    with pytest.raises(
        StudyError, match=r"^sft.accelerate: .*nowhere.yaml: no such file; see docs/scaling/fsdp2.yaml$"
    ):
        launch.run_all(sft.train, [{"settings": SFT.read(STEPS | {"accelerate": "nowhere.yaml"}), "method": "rsft"}])

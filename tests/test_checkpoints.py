"""A killed training run resumes from its last checkpoint and ends with the same weights."""

import pytest
from test_pad import BASE, QUESTIONS, SETTINGS, train_reward_model

from agentark.distill import launch, policy, reward_model, sft, step_labels, training
from agentark.distill.settings import SFT, RewardModel

PAIRS = [(q.text, q.solution) for q in QUESTIONS]
DEBATES = [
    step_labels.DebateSteps(q.text, [q.solution, "answer : 0"], [[True] * len(q.solution.split("\n")), [False]])
    for q in QUESTIONS
]
WEIGHTS = "model.safetensors"


class Killed(BaseException):
    """Simulates a signal: no training code catches it."""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The folder below which checkpoints are written."""
    monkeypatch.setattr(launch, "root", lambda: tmp_path)
    return tmp_path


def killed_after(monkeypatch, steps: int) -> None:
    """Make the next training run raise Killed after this many optimiser steps in this process."""
    count, original = [0], training.Ticks.on_step_end

    def step(self, arguments, state, control, **rest):
        original(self, arguments, state, control, **rest)
        count[0] += 1
        if count[0] == steps:
            raise Killed

    monkeypatch.setattr(training.Ticks, "on_step_end", step)


def train_rsft(out, steps=0):
    return sft.train(BASE, PAIRS, out, 0, SFT(steps=7, batch_size=4, learning_rate=0.002, save_steps=steps))


def train_scorer(out, steps=0):
    settings = RewardModel(score="likelihood", loss="paper", nll_weight=1.0, stage_1_steps=2, stage_2_steps=5,
                           batch_size=4, learning_rate=0.001, save_steps=steps)  # fmt: skip
    return reward_model.train(BASE, DEBATES, out, 0, settings)


def train_policy(out, steps=0):
    agreed = {q.question_id: q.answer for q in QUESTIONS}
    reward_model_folder = out.parent / "judge"
    if not reward_model_folder.exists():
        train_reward_model(reward_model_folder)
    return policy.train(BASE, reward_model_folder, QUESTIONS, out, 0, SETTINGS.but(save_steps=steps), agreed)


@pytest.mark.parametrize(
    ("train", "at"),
    [
        (train_rsft, 1),
        (train_rsft, 5),
        (train_rsft, 7),
        (train_scorer, 1),
        (train_scorer, 3),
        (train_scorer, 5),
        (train_policy, 3),
        (train_policy, 4),
    ],
)
def test_killed_training_resumes_and_ends_with_the_same_weights(project, monkeypatch, capsys, train, at):
    curve = train(project / "whole")
    with monkeypatch.context() as patch:
        killed_after(patch, at)
        with pytest.raises(Killed):
            train(project / "resumed", steps=2)
    capsys.readouterr()
    assert train(project / "resumed", steps=2) == curve
    assert (project / "resumed" / WEIGHTS).read_bytes() == (project / "whole" / WEIGHTS).read_bytes()
    assert ("training continues after step" in capsys.readouterr().out) == (at > 2)
    launch.forget(project / "resumed")
    assert not list((project / "data" / "checkpoints").iterdir())


def test_finished_seed_of_a_stopped_stage_is_not_trained_again(project, monkeypatch, capfd):
    settings = SFT(steps=7, batch_size=4, learning_rate=0.002, save_steps=2)
    shared = dict(base=BASE, pairs=PAIRS, settings=settings, method="rsft")
    sft.train(out=project / "stopped" / "seed-0", seed=0, **shared)
    with monkeypatch.context() as patch:
        killed_after(patch, 5)
        with pytest.raises(Killed):
            sft.train(out=project / "stopped" / "seed-1", seed=1, **shared)
    capfd.readouterr()
    curves = launch.train_seeds(sft.train, [0, 1], project / "again", **shared)
    output = capfd.readouterr().out
    assert "continues after step 7," in output and "continues after step 4," in output
    assert not list((project / "data" / "checkpoints").iterdir())
    uninterrupted = launch.train_seeds(
        sft.train, [0, 1], project / "whole", **shared | {"settings": settings.but(save_steps=0)}
    )
    assert curves.equals(uninterrupted)
    for seed in ("seed-0", "seed-1"):
        assert (project / "again" / seed / WEIGHTS).read_bytes() == (project / "whole" / seed / WEIGHTS).read_bytes()


def test_training_ignores_the_checkpoint_of_another_seed(project, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        killed_after(patch, 5)
        with pytest.raises(Killed):
            train_rsft(project / "first", steps=2)
    sft.train(BASE, PAIRS, project / "other", 1, SFT(steps=7, batch_size=4, learning_rate=0.002, save_steps=2))
    assert "continues" not in capsys.readouterr().out


def test_incomplete_checkpoint_is_ignored(project):
    for name in ("checkpoint-2", "checkpoint-4"):
        (project / name).mkdir()
    (project / "checkpoint-2" / "trainer_state.json").write_text("{}")
    assert (
        training.last_checkpoint(project) == str(project / "checkpoint-2")
        and training.last_checkpoint(project / "none") is None
    )

"""A training that is killed continues from its last checkpoint and ends in the same weights."""

import pytest
from test_pad import BASE, QUESTIONS, SETTINGS, judge

from agentark.distill import launch, policy, reward_model, sft, step_labels, training
from agentark.distill.settings import SFT, RewardModel

PAIRS = [(q.text, q.solution) for q in QUESTIONS]
DEBATES = [
    step_labels.DebateSteps(q.text, [q.solution, "answer : 0"], [[True] * len(q.solution.split("\n")), [False]])
    for q in QUESTIONS
]
WEIGHTS = "model.safetensors"


class Killed(BaseException):
    """Stands for a signal: no code of the training catches it."""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Checkpoints are kept below this folder."""
    monkeypatch.setattr(launch, "root", lambda: tmp_path)
    return tmp_path


def killed_after(monkeypatch, steps: int) -> None:
    """Let the next training die after so many optimiser steps in this process."""
    done, usual = [0], training.Ticks.on_step_end

    def step(self, arguments, state, control, **rest):
        usual(self, arguments, state, control, **rest)
        done[0] += 1
        if done[0] == steps:
            raise Killed

    monkeypatch.setattr(training.Ticks, "on_step_end", step)


def imitate(out, steps=0):
    return sft.train(BASE, PAIRS, out, 0, SFT(steps=7, batch_size=4, learning_rate=0.002, save_steps=steps))


def assess(out, steps=0):
    settings = RewardModel(score="likelihood", loss="paper", nll_weight=1.0, stage_1_steps=2, stage_2_steps=5,
                           batch_size=4, learning_rate=0.001, save_steps=steps)  # fmt: skip
    return reward_model.train(BASE, DEBATES, out, 0, settings)


def practise(out, steps=0):
    agreed = {q.question_id: q.answer for q in QUESTIONS}
    reward = out.parent / "judge"
    if not reward.exists():
        judge(reward)
    return policy.train(BASE, reward, QUESTIONS, out, 0, SETTINGS.but(save_steps=steps), agreed)


@pytest.mark.parametrize(
    ("train", "at"),
    [(imitate, 1), (imitate, 5), (imitate, 7), (assess, 1), (assess, 3), (assess, 5), (practise, 3), (practise, 4)],
)
def test_a_killed_training_ends_in_the_same_weights(project, monkeypatch, capsys, train, at):
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


def test_a_finished_seed_of_a_stopped_stage_is_not_trained_again(project, monkeypatch, capfd):
    settings = SFT(steps=7, batch_size=4, learning_rate=0.002, save_steps=2)
    shared = dict(base=BASE, pairs=PAIRS, settings=settings, method="rsft")
    sft.train(out=project / "stopped" / "seed-0", seed=0, **shared)
    with monkeypatch.context() as patch:
        killed_after(patch, 5)
        with pytest.raises(Killed):
            sft.train(out=project / "stopped" / "seed-1", seed=1, **shared)
    capfd.readouterr()
    curves = launch.train_seeds(sft.train, [0, 1], project / "again", **shared)
    told = capfd.readouterr().out
    assert "continues after step 7," in told and "continues after step 4," in told
    assert not list((project / "data" / "checkpoints").iterdir())
    whole = launch.train_seeds(
        sft.train, [0, 1], project / "whole", **shared | {"settings": settings.but(save_steps=0)}
    )
    assert curves.equals(whole)
    for seed in ("seed-0", "seed-1"):
        assert (project / "again" / seed / WEIGHTS).read_bytes() == (project / "whole" / seed / WEIGHTS).read_bytes()


def test_no_training_continues_from_another_s_checkpoint(project, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        killed_after(patch, 5)
        with pytest.raises(Killed):
            imitate(project / "first", steps=2)
    sft.train(BASE, PAIRS, project / "other", 1, SFT(steps=7, batch_size=4, learning_rate=0.002, save_steps=2))
    assert "continues" not in capsys.readouterr().out


def test_a_checkpoint_that_was_not_finished_is_passed_over(project):
    for name in ("checkpoint-2", "checkpoint-4"):
        (project / name).mkdir()
    (project / "checkpoint-2" / "trainer_state.json").write_text("{}")
    assert training.last_of(project) == str(project / "checkpoint-2") and training.last_of(project / "none") is None

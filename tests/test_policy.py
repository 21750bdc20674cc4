"""Policy training with other choices than the study's: step-level credit, RLOO, PPO, and outcome rewards only."""

import json
import math
from pathlib import Path

import pytest
import torch
from checkpoints import tokenizer
from examples import EVERY_LEVEL, WRONG_STEP, question_from_family
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tensordict import TensorDict
from torch.distributions import Categorical

from agentark import StudyError, root
from agentark.distill import policy, ppo, scorer, step_credit
from agentark.distill.settings import Policy
from agentark.pretrain import tiny
from agentark.tasks import TASKS

BASE = root() / "data/models/llama-small"
QUESTIONS = TASKS["equation"].questions(12, "train", 0)
TOKENIZERS = {"world": tiny.build_tokenizer(), "qwen3": tokenizer("qwen3")}


def train_policy(out: Path, train=policy.train, **changes) -> list[dict]:
    """Three steps against an untrained head, which is enough to see which weights change."""
    values = {
        "steps": 3, "batch_size": 2, "num_generations": 4, "max_tokens": 12, "learning_rate": 0.001, "temperature": 1.0,
        "beta": 0.01, "aggregate": "mean", "outcome_weight": 0.0,
    }  # fmt: skip
    reward_model = changes.pop("reward_model", BASE)
    return train(BASE, reward_model, QUESTIONS, out, 0, Policy.read(values | changes))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(name_level=st.sampled_from(EVERY_LEVEL), seed=st.integers(0, 50))
def test_token_belongs_to_the_step_whose_end_comes_next(kind, name_level, seed):
    _, question = question_from_family(*name_level, seed)
    ids, (prompt, *ends) = scorer.encode(question.text, question.solution, TOKENIZERS[kind])
    start = prompt + 1
    expected = [sum(end < i for end in ends) for i in range(start, len(ids))]
    assert step_credit.steps_of(ids[start:], TOKENIZERS[kind]) == expected


def test_empty_lines_are_not_steps():
    world = TOKENIZERS["world"]
    ids = world("\n\nbob = 12 + 3 = 15\n\nanswer : 15\n\n", add_special_tokens=False).input_ids
    assert step_credit.steps_of([*ids, world.eos_token_id], world) == [0] * 10 + [1] * 7
    assert step_credit.steps_of([world.eos_token_id], world) == [0]


def test_step_advantages_of_hand_checked_groups():
    """A group of steps 1, 0 and 0.5 has mean 0.5 and standard deviation 0.5; the second group is separate."""
    first, second, *others = step_credit.step_advantages([[1.0, 0.0], [0.5], [0.2], [0.2, 0.2]], 2)
    assert first == pytest.approx([1, -1], abs=1e-3) and second == [0.0] and others == [[0.0], [0.0, 0.0]]
    ids = TOKENIZERS["world"](WRONG_STEP, add_special_tokens=False).input_ids
    steps = step_credit.steps_of(ids, TOKENIZERS["world"])
    assert [steps.count(n) for n in range(4)] == [8, 8, 8, 3]


def test_step_credit_with_one_step_per_output_equals_grpo(tmp_path):
    """No line of the base model is as short as three tokens. Sums differ in their last bits, which Adam amplifies."""
    mean, step = (train_policy(tmp_path / how, aggregate=how, max_tokens=3) for how in ("mean", "step"))
    for one, other in zip(mean, step, strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    assert mean[-1]["kl"] > 1e-3


@pytest.mark.parametrize(
    ("name", "train", "changes"),
    [
        ("step", policy.train, {"aggregate": "step", "max_tokens": 40}),
        ("rloo", policy.train, {"algorithm": "rloo"}),
        ("ppo", ppo.train, {"epochs": 2}),
        ("ppo-lora", ppo.train, {"lora_rank": 4, "outcome_weight": 1.0}),
    ],
)
def test_policy_starts_at_its_base_model_changes_and_is_repeatable(tmp_path, name, train, changes):
    curve, again = (train_policy(tmp_path / f"{name}-{i}", train, **changes) for i in range(2))
    assert curve == again and [row["step"] for row in curve] == [1, 2, 3]
    assert curve[0]["kl"] == pytest.approx(0, abs=1e-6) and curve[-1]["kl"] != 0
    first, second, base = weights(tmp_path / f"{name}-0"), weights(tmp_path / f"{name}-1"), weights(BASE)
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert any(not torch.equal(first[n], base[n]) for n in base)


def test_training_on_outcomes_only_needs_no_reward_model(tmp_path):
    curve = train_policy(tmp_path / "outcome", reward_model=None, outcome_weight=1.0, max_tokens=40)
    assert all(row["reward"] * 8 == pytest.approx(round(row["reward"] * 8)) for row in curve)  # shares of 8 outputs
    provenance = json.loads((tmp_path / "outcome/provenance.json").read_text())
    assert "reward_model" not in provenance and provenance["base"]["name"] == "data/models/llama-small"


def test_missing_reward_and_invalid_combinations_are_refused(tmp_path):
    for changes, message in (
        ({"reward_model": None}, "no reward: name a reward_model"),
        ({"algorithm": "osmosis"}, "policy.algorithm='osmosis'"),
        ({"aggregate": "step", "outcome_weight": 1.0}, "policy.aggregate=step"),
        ({"aggregate": "step", "algorithm": "rloo"}, "policy.aggregate=step"),
    ):
        with pytest.raises(StudyError, match=message):
            train_policy(tmp_path / "never", **changes)
    with pytest.raises(StudyError, match="aggregate 'step' is unknown"):
        train_policy(tmp_path / "never", ppo.train, aggregate="step")
    assert not (tmp_path / "never").exists()


def test_ppo_advantages_of_hand_checked_outputs(monkeypatch):
    """The reward is 1 at an output's last token. With a critic of 0, the advantage decays by lambda per token before
    it; with a critic of 1 at all tokens, all advantages are 0. Tokens after the end of a turn are ignored."""
    monkeypatch.setattr(ppo, "LAMBDA", 0.5)
    written = torch.tensor([[True, True, True], [True, False, False]])
    values = torch.tensor([[0.0, 0.0, 0.0], [0.5, 9.0, 9.0]])
    advantage, target = ppo.generalised_advantages(values, torch.tensor([1.0, 1.0]), written)
    assert advantage[:, 0].tolist() == pytest.approx([0.25, 0.5, 1, 0.5])
    assert target[:, 0].tolist() == pytest.approx([0.25, 0.5, 1, 1])
    predicted, _ = ppo.generalised_advantages(torch.ones(1, 3), torch.tensor([1.0]), torch.ones(1, 3, dtype=torch.bool))
    assert predicted[:, 0].tolist() == pytest.approx([0, 0, 0])


def test_divergence_is_0_at_the_reference_and_positive_elsewhere():
    log_p = torch.tensor([-0.5, -1.0, -2.0])
    assert ppo.divergence(log_p, log_p).tolist() == [0, 0, 0]
    assert (ppo.divergence(log_p, log_p.flip(0))[[0, 2]] > 0).all()


def test_probability_of_a_rewarded_token_rises_but_not_beyond_the_clip():
    """One state, two tokens, of which the first is rewarded; many updates on one batch."""
    logits, actions = torch.zeros(2, requires_grad=True), torch.tensor([0, 1])
    old_log_p = Categorical(logits=logits.detach().expand(2, 2)).log_prob(actions)
    objective, optimiser = ppo.clipped_loss(), torch.optim.SGD([logits], 0.05)
    for _ in range(100):
        tokens = TensorDict(
            logits=logits.expand(2, 2), action=actions, action_log_prob=old_log_p, value=torch.zeros(2, 1),
            advantage=torch.tensor([[1.0], [0.0]]), value_target=torch.zeros(2, 1), batch_size=2,
        )  # fmt: skip
        optimiser.zero_grad()
        objective(tokens)["loss_objective"].backward()
        optimiser.step()
    probability = logits.detach().softmax(0)[0].item()
    assert 0.5 * (1 + ppo.CLIP) <= probability < 0.5 * (1 + ppo.CLIP) + 0.05 and not math.isnan(probability)


def test_questions_are_drawn_in_complete_passes():
    torch.manual_seed(0)
    batches = ppo.question_batches(QUESTIONS, 5)
    drawn = [q.question_id for _ in range(12) for q in next(batches)]
    for start in range(0, 60, 12):
        assert sorted(drawn[start : start + 12]) == sorted(q.question_id for q in QUESTIONS)

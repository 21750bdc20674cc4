"""Practice by other choices than the study's: credit by step, RLOO, PPO, outcomes alone; on a base of the study."""

import json
import math
from pathlib import Path

import pytest
import torch
from checkpoints import tokenizer
from examples import EVERY_LEVEL, SLIPPED, posed
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


def practise(out: Path, train=policy.train, **chosen) -> list[dict]:
    """Three steps against a fresh head, which is as good as any to see what moves."""
    given = {
        "steps": 3, "batch_size": 2, "num_generations": 4, "max_tokens": 12, "learning_rate": 0.001, "temperature": 1.0,
        "beta": 0.01, "aggregate": "mean", "outcome_weight": 0.0,
    }  # fmt: skip
    judge = chosen.pop("reward_model", BASE)
    return train(BASE, judge, QUESTIONS, out, 0, Policy.read(given | chosen))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(name_level=st.sampled_from(EVERY_LEVEL), seed=st.integers(0, 50))
def test_a_token_belongs_to_the_step_at_whose_end_it_is_scored(kind, name_level, seed):
    _, question = posed(*name_level, seed)
    ids, (prompt, *ends) = scorer.encode(question.text, question.solution, TOKENIZERS[kind])
    start = prompt + 1
    expected = [sum(end < i for end in ends) for i in range(start, len(ids))]
    assert step_credit.steps_of(ids[start:], TOKENIZERS[kind]) == expected


def test_lines_without_words_are_no_steps():
    world = TOKENIZERS["world"]
    ids = world("\n\nbob = 12 + 3 = 15\n\nanswer : 15\n\n", add_special_tokens=False).input_ids
    assert step_credit.steps_of([*ids, world.eos_token_id], world) == [0] * 10 + [1] * 7
    assert step_credit.steps_of([world.eos_token_id], world) == [0]


def test_a_steps_advantage_by_hand():
    """A group of steps 1, 0 and 0.5 has mean 0.5 and standard deviation 0.5; the second group is its own."""
    first, second, *others = step_credit.step_advantages([[1.0, 0.0], [0.5], [0.2], [0.2, 0.2]], 2)
    assert first == pytest.approx([1, -1], abs=1e-3) and second == [0.0] and others == [[0.0], [0.0, 0.0]]
    ids = TOKENIZERS["world"](SLIPPED, add_special_tokens=False).input_ids
    steps = step_credit.steps_of(ids, TOKENIZERS["world"])
    assert [steps.count(n) for n in range(4)] == [8, 8, 8, 3]


def test_with_one_step_an_output_credit_by_step_is_grpo(tmp_path):
    """No line of the base is as short as three tokens. The sums differ in their last bits, which Adam makes more of."""
    mean, step = (practise(tmp_path / how, aggregate=how, max_tokens=3) for how in ("mean", "step"))
    for one, other in zip(mean, step, strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    assert mean[-1]["kl"] > 1e-3


@pytest.mark.parametrize(
    ("name", "train", "chosen"),
    [
        ("step", policy.train, {"aggregate": "step", "max_tokens": 40}),
        ("rloo", policy.train, {"algorithm": "rloo"}),
        ("ppo", ppo.train, {"epochs": 2}),
        ("ppo-lora", ppo.train, {"lora_rank": 4, "outcome_weight": 1.0}),
    ],
)
def test_a_policy_starts_at_its_base_moves_and_is_repeatable(tmp_path, name, train, chosen):
    curve, again = (practise(tmp_path / f"{name}-{i}", train, **chosen) for i in range(2))
    assert curve == again and [row["step"] for row in curve] == [1, 2, 3]
    assert curve[0]["kl"] == pytest.approx(0, abs=1e-6) and curve[-1]["kl"] != 0
    first, second, base = weights(tmp_path / f"{name}-0"), weights(tmp_path / f"{name}-1"), weights(BASE)
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert any(not torch.equal(first[n], base[n]) for n in base)


def test_an_outcome_alone_needs_no_reward_model(tmp_path):
    curve = practise(tmp_path / "outcome", reward_model=None, outcome_weight=1.0, max_tokens=40)
    assert all(row["reward"] * 8 == pytest.approx(round(row["reward"] * 8)) for row in curve)  # shares of 8 outputs
    told = json.loads((tmp_path / "outcome/provenance.json").read_text())
    assert "reward_model" not in told and told["base"]["name"] == "data/models/llama-small"


def test_what_cannot_be_rewarded_is_refused(tmp_path):
    for chosen, words in (
        ({"reward_model": None}, "no reward: name a reward_model"),
        ({"algorithm": "osmosis"}, "policy.algorithm='osmosis'"),
        ({"aggregate": "step", "outcome_weight": 1.0}, "policy.aggregate=step"),
        ({"aggregate": "step", "algorithm": "rloo"}, "policy.aggregate=step"),
    ):
        with pytest.raises(StudyError, match=words):
            practise(tmp_path / "never", **chosen)
    with pytest.raises(StudyError, match="aggregate 'step' is unknown"):
        practise(tmp_path / "never", ppo.train, aggregate="step")
    assert not (tmp_path / "never").exists()


def test_advantages_by_hand(monkeypatch):
    """A reward of 1 at the end, a critic that promises nothing: it reaches back, fading by lambda a token; a critic that
    promises it from the start leaves nothing to gain. What comes after the end of a turn counts for nothing."""
    monkeypatch.setattr(ppo, "LAMBDA", 0.5)
    spoken = torch.tensor([[True, True, True], [True, False, False]])
    values = torch.tensor([[0.0, 0.0, 0.0], [0.5, 9.0, 9.0]])
    advantage, target = ppo.estimated(values, torch.tensor([1.0, 1.0]), spoken)
    assert advantage[:, 0].tolist() == pytest.approx([0.25, 0.5, 1, 0.5])
    assert target[:, 0].tolist() == pytest.approx([0.25, 0.5, 1, 1])
    promised, _ = ppo.estimated(torch.ones(1, 3), torch.tensor([1.0]), torch.ones(1, 3, dtype=torch.bool))
    assert promised[:, 0].tolist() == pytest.approx([0, 0, 0])


def test_the_divergence_is_least_at_the_reference():
    at = torch.tensor([-0.5, -1.0, -2.0])
    assert ppo.divergence(at, at).tolist() == [0, 0, 0]
    assert (ppo.divergence(at, at.flip(0))[[0, 2]] > 0).all()


def test_a_rewarded_token_becomes_likelier_and_no_further_than_the_clip():
    """One state, two tokens, of which the first is rewarded; many updates on one batch."""
    logits, said = torch.zeros(2, requires_grad=True), torch.tensor([0, 1])
    before = Categorical(logits=logits.detach().expand(2, 2)).log_prob(said)
    objective, optimiser = ppo.clipped_loss(), torch.optim.SGD([logits], 0.05)
    for _ in range(100):
        tokens = TensorDict(
            logits=logits.expand(2, 2), action=said, action_log_prob=before, value=torch.zeros(2, 1),
            advantage=torch.tensor([[1.0], [0.0]]), value_target=torch.zeros(2, 1), batch_size=2,
        )  # fmt: skip
        optimiser.zero_grad()
        objective(tokens)["loss_objective"].backward()
        optimiser.step()
    likely = logits.detach().softmax(0)[0].item()
    assert 0.5 * (1 + ppo.CLIP) <= likely < 0.5 * (1 + ppo.CLIP) + 0.05 and not math.isnan(likely)


def test_questions_are_drawn_in_passes():
    torch.manual_seed(0)
    batches = ppo.drawn(QUESTIONS, 5)
    seen = [q.question_id for _ in range(12) for q in next(batches)]
    for start in range(0, 60, 12):
        assert sorted(seen[start : start + 12]) == sorted(q.question_id for q in QUESTIONS)

"""The losses against their formulas, the encodings against their texts."""

import math
from types import SimpleNamespace

import pytest
import torch
from examples import GOLD, KEYS, SLIPPED
from hypothesis import given
from hypothesis import strategies as st

from agentark import StudyError
from agentark.distill import policy, reward_model, scorer, sft
from agentark.evaluate import step_scores
from agentark.pretrain import tiny
from agentark.schemas import CheckedTrace, Trajectory

TOKENIZER = tiny.build_tokenizer()


def trajectory(text: str, rank: int, da: bool, question: str = "keys") -> Trajectory:
    return Trajectory(
        question_id=question, agent=1, round=1, prompt=KEYS.text, text=text, answer="39", answer_only="answer : 39", corrective=False, rank=rank,
        for_rsft=rank == 0, for_da=da,
    )  # fmt: skip


def test_methods_differ_in_their_examples_alone():
    rows = [trajectory(GOLD, 0, True), trajectory("other", 1, True), trajectory("third", 2, False)]
    assert sft.examples(rows, "sft") == [(KEYS.text, "answer : 39")]
    assert sft.examples(rows, "rsft") == [(KEYS.text, GOLD)]
    assert sft.examples(rows, "da") == [(KEYS.text, GOLD), (KEYS.text, "other")]
    more = [*rows, trajectory(SLIPPED, 0, True, "other")]
    assert sorted(t for _, t in sft.examples(more, "da")) == sorted([GOLD, "other", SLIPPED, SLIPPED])
    with pytest.raises(StudyError, match="osmosis"):
        sft.examples(rows, "osmosis")


def test_scores_are_read_at_the_end_of_each_step():
    ids, ends = scorer.encode(KEYS.text, GOLD, TOKENIZER)
    pieces = [TOKENIZER.decode(ids[a + 1 : b]) for a, b in zip([ends[0] - 9, *ends], ends, strict=False)]
    assert len(ends) == 4 and ids[ends[-1]] == TOKENIZER.eos_token_id
    assert all(TOKENIZER.decode([ids[e]]) == "\n" for e in ends[:-1])
    assert pieces[1:] == GOLD.split("\n")[1:]


def test_a_batch_marks_steps_by_question_and_agreement():
    debate = reward_model.DebateSteps(KEYS.text, [GOLD, SLIPPED], [[True] * 4, [False, True, False, False]])
    labels = reward_model.collate([reward_model.encoded(debate, TOKENIZER)] * 2, TOKENIZER.pad_token_id)["labels"]
    marks = [row[row >= 0].tolist() for row in labels]
    assert marks == [[1, 1, 1, 1], [0, 1, 0, 0], [3, 3, 3, 3], [2, 3, 2, 2]]


@given(st.lists(st.tuples(st.floats(-4, 4), st.integers(0, 2), st.booleans()), min_size=1, max_size=12))
def test_the_papers_loss_is_its_formula(steps):
    scores, question, good = (torch.tensor(column) for column in zip(*steps, strict=True))
    sigmoid = [1 / (1 + math.exp(-s)) / reward_model.TEMPERATURE for s, _, _ in steps]
    terms = []
    for i, (_, q, g) in enumerate(steps):
        bad = [math.exp(sigmoid[j]) for j, (_, r, h) in enumerate(steps) if r == q and not h]
        if g and bad:
            terms.append(-math.log(math.exp(sigmoid[i]) / (math.exp(sigmoid[i]) + sum(bad))))
    expected = sum(terms) / len(terms) if terms else 0.0
    assert reward_model.contrastive_loss(scores.float(), question, good).item() == pytest.approx(expected, abs=1e-3)


def test_both_losses_fall_when_good_steps_score_higher():
    question, good = torch.tensor([0, 0, 0, 0]), torch.tensor([True, True, False, False])
    apart, alike = torch.tensor([2.0, 2, -2, -2]), torch.tensor([0.0, 0, 0, 0])
    assert reward_model.contrastive_loss(apart, question, good) < reward_model.contrastive_loss(alike, question, good)
    sorted_states = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    mixed_states = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    assert reward_model.code_loss(apart, good, sorted_states) < reward_model.code_loss(alike, good, mixed_states)


def test_cross_entropy_asks_each_step_by_itself():
    """Two steps of four tokens, at the odds of 0.8 and 0.5; half the batch's four steps are here."""
    logits = torch.tensor([0.0, math.log(4), 9.0, 0.0]).view(1, 4, 1)
    labels = torch.tensor([[-100, 1, -100, 0]])
    loss = reward_model.step_loss(
        SimpleNamespace(logits=logits), labels, torch.tensor(4), loss="cross-entropy", projection=None
    )
    assert loss.item() == pytest.approx(-(math.log(0.8) + math.log(0.5)) / 2 / 2)


def test_first_errors():
    right = [[True, False, False], [True, True], [False, True]]
    assert step_scores.first_error_located([[0.9, 0.1, 0.1], [0.9, 0.1], [0.9, 0.1]], right, 0.5) == [True, False]
    assert step_scores.best_threshold([[0.9, 0.2], [0.8, 0.9]], [[True, False], [True, True]]) <= 0.9


def test_auroc_of_a_perfect_a_reversed_and_a_blind_scorer():
    right = [[True, False], [True, True, False]]
    assert step_scores.step_auroc([[1.0, 0.0], [1.0, 1.0, 0.0]], right) == 1
    assert step_scores.step_auroc([[0.0, 1.0], [0.0, 0.0, 1.0]], right) == 0
    assert step_scores.step_auroc([[0.5, 0.5], [0.5, 0.5, 0.5]], right) == 0.5


def test_a_score_of_difficulty_alone_ranks_steps_of_all_debates_but_none_within_a_debate():
    """Debate 0 has more right steps than debate 1; every step of a debate has the same score."""
    truth = [[True, True, True, False], [True, False, False, False], [True]]
    traces = [SimpleNamespace(question_id=str(i)) for i in range(3)]
    scores = [[0.9] * 4, [0.1] * 4, [0.9]]
    assert step_scores.auroc_by_debate(scores, traces, truth).value > 0.7
    within = step_scores.auroc_within_debates(scores, traces, truth)
    assert (within.value, within.n) == (0.5, 2)  # the third debate has no wrong step
    ranked = [[0.9, 0.8, 0.7, 0.1], [0.9, 0.1, 0.1, 0.1], [0.5]]
    assert step_scores.auroc_within_debates(ranked, traces, truth).value == 1


def test_rewards():
    assert scorer.aggregate([0.2, 0.8], "mean") == 0.5 and scorer.aggregate([0.2, 0.8], "min") == 0.2
    assert scorer.aggregate([], "mean") == 0
    with pytest.raises(StudyError, match="median"):
        scorer.aggregate([1.0], "median")
    said = [[{"content": GOLD}], [{"content": SLIPPED}], [{"content": ""}]]
    assert policy.outcome_reward([KEYS])([None] * 3, said, ["keys"] * 3) == [1.0, 0.0, 0.0]


def test_only_debates_that_ended_right_teach_the_reward_model():
    def debate(key: str, right: bool) -> list[CheckedTrace]:
        common = dict(question_id=key, prompt_tokens=1, completion_tokens=1, finish_reason="stop", corrective=False)
        steps = dict(steps=GOLD.split("\n"), step_right=[True] * 4, step_agrees=[True, True, True, right])
        return [
            CheckedTrace(agent=a, round=r, text=GOLD, answer="39", correct=right, **common, **steps)
            for a, r in ((1, 1), (0, 2))
        ]

    (kept,) = reward_model.debates([*debate("right", True), *debate("wrong", False)], {"right": "?", "wrong": "!"})
    assert kept == reward_model.DebateSteps("?", [GOLD], [[True] * 4])

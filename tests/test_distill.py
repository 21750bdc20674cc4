"""The losses against their formulas, the encodings against their texts."""

import math
import random
from types import SimpleNamespace

import pytest
import torch
from examples import GOLD, KEYS, SLIPPED, said
from hypothesis import given
from hypothesis import strategies as st

from agentark import StudyError, root
from agentark.distill import reward_model, rewards, scorer, sft, step_labels
from agentark.distill.settings import RewardModel
from agentark.evaluate import step_scores
from agentark.models import loading
from agentark.pretrain import tiny
from agentark.schemas import CheckedTrace, Trajectory
from agentark.traces.check import check_traces
from agentark.traces.reading import answer_of

TOKENIZER = tiny.build_tokenizer()
BASE = root() / "data/models/llama-small"
CROSS_ENTROPY = RewardModel.read(
    {"loss": "cross-entropy", "stage_1_steps": 1, "stage_2_steps": 1, "batch_size": 2, "learning_rate": 0.001}
)


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
    ids, (prompt, *ends) = scorer.encode(KEYS.text, GOLD, TOKENIZER)
    assert TOKENIZER.decode(ids[prompt + 1 : ends[0]]) == GOLD.split("\n")[0]
    pieces = [TOKENIZER.decode(ids[a + 1 : b]) for a, b in zip([ends[0] - 9, *ends], ends, strict=False)]
    assert len(ends) == 4 and ids[ends[-1]] == TOKENIZER.eos_token_id
    assert all(TOKENIZER.decode([ids[e]]) == "\n" for e in ends[:-1])
    assert pieces[1:] == GOLD.split("\n")[1:]


def test_a_batch_marks_steps_by_question_and_agreement():
    debate = step_labels.DebateSteps(KEYS.text, [GOLD, SLIPPED], [[True] * 4, [False, True, False, False]])
    labels = reward_model.collate([reward_model.encoded(debate, TOKENIZER)] * 2, TOKENIZER.pad_token_id)["labels"]
    marks = [row[row >= 0].tolist() for row in labels]
    assert marks == [[1, 1, 1, 1], [0, 1, 0, 0], [3, 3, 3, 3], [2, 3, 2, 2]]


@given(
    st.lists(st.tuples(st.floats(-4, 4), st.integers(0, 2), st.integers(0, 2), st.booleans()), min_size=1, max_size=12)
)
def test_the_papers_loss_is_its_formula(steps):
    """Negatives are the bad steps of the other traces to the same question."""
    scores, question, trace, good = (torch.tensor(column) for column in zip(*steps, strict=True))
    sigmoid = [1 / (1 + math.exp(-s)) / reward_model.TEMPERATURE for s, *_ in steps]
    terms = []
    for i, (_, q, t, g) in enumerate(steps):
        bad = [math.exp(sigmoid[j]) for j, (_, r, u, h) in enumerate(steps) if r == q and u != t and not h]
        if g and bad:
            terms.append(-math.log(math.exp(sigmoid[i]) / (math.exp(sigmoid[i]) + sum(bad))))
    expected = sum(terms) / len(terms) if terms else 0.0
    found = reward_model.contrastive_loss(scores.float(), question, trace, good).item()
    assert found == pytest.approx(expected, abs=1e-3)


def test_both_losses_fall_when_good_steps_score_higher():
    question, good = torch.tensor([0, 0, 0, 0]), torch.tensor([True, True, False, False])
    apart, alike = torch.tensor([2.0, 2, -2, -2]), torch.tensor([0.0, 0, 0, 0])
    loss = [reward_model.contrastive_loss(s, question, torch.arange(4), good) for s in (apart, alike)]
    assert loss[0] < loss[1]
    sorted_states = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    mixed_states = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    assert reward_model.code_loss(apart, good, sorted_states) < reward_model.code_loss(alike, good, mixed_states)


def test_cross_entropy_asks_each_step_by_itself():
    """Two steps of four tokens, at the odds of 0.8 and 0.5; half the batch's four steps are here."""
    logits = torch.tensor([0.0, math.log(4), 9.0, 0.0]).view(1, 4, 1)
    batch = {
        "labels": torch.tensor([[-100, 1, -100, 0]]), "prompts": torch.tensor([0]),
        "input_ids": torch.tensor([[5, 6, 7, 8]]),
    }  # fmt: skip
    loss = reward_model.step_loss(
        SimpleNamespace(logits=logits), batch, torch.tensor(4), settings=CROSS_ENTROPY, projection=None
    )
    assert loss.item() == pytest.approx(-(math.log(0.8) + math.log(0.5)) / 2 / 2)


def test_the_likelihood_of_a_step_is_the_geometric_mean_of_its_tokens_in_training_and_in_scoring():
    """Traces of different lengths in one batch; the second question's trace is scored by hand."""
    debates = [
        step_labels.DebateSteps(KEYS.text, [GOLD, SLIPPED], [[True] * 4, [False] * 4]),
        step_labels.DebateSteps("find 3 + 4 .", ["answer : 7"], [[True]]),
    ]
    model, tokenizer = loading.load(BASE)
    batch = reward_model.collate([reward_model.encoded(d, tokenizer) for d in debates], tokenizer.pad_token_id)
    with torch.inference_mode():
        outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    settings = CROSS_ENTROPY.but(score="likelihood")
    loss = reward_model.step_loss(outputs, batch, torch.tensor(9), settings=settings, projection=None)
    texts = [(KEYS.text, GOLD), (KEYS.text, SLIPPED), ("find 3 + 4 .", "answer : 7")]
    scores = scorer.StepScorer(BASE, "likelihood")(*zip(*texts, strict=True))
    ids, (prompt, end) = scorer.encode(*texts[2], tokenizer)
    with torch.inference_mode():
        log_p = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    by_hand = sum(float(log_p[t - 1, ids[t]]) for t in range(prompt + 1, end + 1)) / (end - prompt)
    assert scores[2] == [pytest.approx(math.exp(by_hand), rel=1e-4)]
    good = [-math.log(s) for s in scores[0] + scores[2]]
    bad = [-math.log(1 - s) for s in scores[1]]
    assert loss.item() == pytest.approx(sum(good + bad) / 9, rel=1e-3)
    with pytest.raises(StudyError, match="score"):
        CROSS_ENTROPY.but(score="osmosis")


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
    assert rewards.outcome_reward([KEYS])([None] * 3, said, ["keys"] * 3) == [1.0, 0.0, 0.0]


def scored_by_length(questions, texts):
    """A scorer that gives every step 1, so that only the exception for incomplete outputs counts."""
    return [[1.0] * len(text.split("\n")) if text else [] for text in texts]


def test_an_output_without_an_answer_earns_nothing():
    cut = "\n".join(GOLD.split("\n")[:-1])
    logged = {}
    reward = rewards.process_reward(scored_by_length, [KEYS], "mean")
    said = [[{"content": text}] for text in (GOLD, cut, SLIPPED, "")]
    assert reward([None] * 4, said, ["keys"] * 4, log_metric=logged.__setitem__) == [1.0, 0.0, 1.0, 0.0]
    assert logged == {"judged": (0.5 + 1 + 1) / 3}  # the right output against the three wrong ones
    watch = rewards.watched([KEYS], {"keys": "40"})
    assert watch([None] * 4, said, ["keys"] * 4, log_metric=logged.__setitem__) == [0.0] * 4
    assert (logged["accuracy"], logged["agreement"]) == (0.25, 0.25)  # SLIPPED states 40


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.sampled_from("ab")), max_size=12))
def test_the_accuracy_of_a_reward_is_over_pairs_of_one_question(outputs):
    given_, right, asked = ([row[i] for row in outputs] for i in range(3))
    pairs = [
        (r > s) + (r == s) / 2 for r, good, q in outputs if good for s, other, p in outputs if not other and p == q
    ]
    found = rewards.pair_accuracy(given_, right, asked)
    assert found == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


def checked(*texts: str) -> list[CheckedTrace]:
    return check_traces([said(agent, 1, text) for agent, text in enumerate(texts, start=1)], [KEYS])


def test_the_consensus_is_the_majoritys_without_gold_and_the_verified_traces_with_it():
    wrong = check_traces([said(1, 1, SLIPPED), said(2, 1, SLIPPED), said(3, 1, GOLD)], [KEYS])
    (majority,), (verified,) = (step_labels.debates(wrong, {"keys": KEYS}, verified=v) for v in (False, True))
    assert majority.traces == verified.traces == [SLIPPED, GOLD]
    assert all(majority.agrees[0]) and not all(majority.agrees[1])
    assert all(verified.agrees[1]) and not all(verified.agrees[0])
    assert step_labels.agreed_answers(wrong, {"keys": KEYS}) == {"keys": answer_of(SLIPPED, KEYS)}
    assert step_labels.debates(checked(SLIPPED), {"keys": KEYS}, verified=True) == []
    assert step_labels.debates(checked("no answer"), {"keys": KEYS}) == []


@given(st.integers(0, 10**6))
def test_made_traces_are_cut_off_repeat_a_step_or_state_only_an_answer(seed):
    cut, longer, direct = step_labels.variants([GOLD, "answer : 1"], ["answer : 39"], random.Random(seed))
    assert GOLD.startswith(cut + "\n") and direct == "answer : 39"
    lines = longer.split("\n")
    assert len(lines) == 5 and list(dict.fromkeys(lines)) == GOLD.split("\n")
    (steps,) = step_labels.debates(checked(GOLD, GOLD), {"keys": KEYS}, {"keys": [longer]})
    marks = steps.agrees[steps.traces.index(longer)]
    assert [line for line, good in zip(lines, marks, strict=True) if good] == GOLD.split("\n")


def test_the_students_samples_are_marked_by_the_debates_consensus():
    (steps,) = step_labels.debates(checked(GOLD, GOLD), {"keys": KEYS}, {"keys": [SLIPPED, GOLD, ""]})
    assert steps.traces[:2] == [GOLD, SLIPPED] and "" not in steps.traces
    assert steps.agrees[:2] == [[True] * 4, [False, True, False, False]]
    alone = step_labels.debates(checked(GOLD, GOLD), {"keys": KEYS})
    assert alone[0].traces == [GOLD]

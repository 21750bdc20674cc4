"""Losses against their formulas, encodings against their texts, rewards, and metrics of step scores."""

import math
import random
from types import SimpleNamespace

import pytest
import torch
from examples import GOLD, KEYS, WRONG_STEP, trace_of
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
        question_id=question, agent=1, round=1, prompt=KEYS.text, text=text, answer="39", answer_only="answer : 39",
        corrective=False, rank=rank, for_rsft=rank == 0, for_da=da,
    )  # fmt: skip


def test_each_method_selects_its_own_training_examples():
    rows = [trajectory(GOLD, 0, True), trajectory("other", 1, True), trajectory("third", 2, False)]
    assert sft.examples(rows, "sft") == [(KEYS.text, "answer : 39")]
    assert sft.examples(rows, "rsft") == [(KEYS.text, GOLD)]
    assert sft.examples(rows, "da") == [(KEYS.text, GOLD), (KEYS.text, "other")]
    more = [*rows, trajectory(WRONG_STEP, 0, True, "other")]
    assert sorted(t for _, t in sft.examples(more, "da")) == sorted([GOLD, "other", WRONG_STEP, WRONG_STEP])
    with pytest.raises(StudyError, match="osmosis"):
        sft.examples(rows, "osmosis")


def test_each_step_is_scored_at_the_newline_or_end_of_turn_after_it():
    ids, (prompt, *ends) = scorer.encode(KEYS.text, GOLD, TOKENIZER)
    assert TOKENIZER.decode(ids[prompt + 1 : ends[0]]) == GOLD.split("\n")[0]
    pieces = [TOKENIZER.decode(ids[a + 1 : b]) for a, b in zip([ends[0] - 9, *ends], ends, strict=False)]
    assert len(ends) == 4 and ids[ends[-1]] == TOKENIZER.eos_token_id
    assert all(TOKENIZER.decode([ids[e]]) == "\n" for e in ends[:-1])
    assert pieces[1:] == GOLD.split("\n")[1:]


def test_batch_labels_encode_the_question_and_agreement_of_each_step():
    debate = step_labels.DebateSteps(KEYS.text, [GOLD, WRONG_STEP], [[True] * 4, [False, True, False, False]])
    labels = reward_model.collate([reward_model.encode_debate(debate, TOKENIZER)] * 2, TOKENIZER.pad_token_id)["labels"]
    by_trace = [row[row >= 0].tolist() for row in labels]
    assert by_trace == [[1, 1, 1, 1], [0, 1, 0, 0], [3, 3, 3, 3], [2, 3, 2, 2]]


@given(
    st.lists(st.tuples(st.floats(-4, 4), st.integers(0, 2), st.integers(0, 2), st.booleans()), min_size=1, max_size=12)
)
def test_contrastive_loss_matches_the_papers_formula(steps):
    """The negatives of a good step are the bad steps of the other traces to the same question."""
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


def test_both_losses_are_lower_if_good_steps_score_higher():
    question, good = torch.tensor([0, 0, 0, 0]), torch.tensor([True, True, False, False])
    separated, equal = torch.tensor([2.0, 2, -2, -2]), torch.tensor([0.0, 0, 0, 0])
    loss = [reward_model.contrastive_loss(s, question, torch.arange(4), good) for s in (separated, equal)]
    assert loss[0] < loss[1]
    sorted_states = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    mixed_states = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    assert reward_model.code_loss(separated, good, sorted_states) < reward_model.code_loss(equal, good, mixed_states)


def test_cross_entropy_is_computed_for_each_step_separately():
    """Two steps in four tokens, with probabilities 0.8 and 0.5. They are half of the batch's four steps."""
    logits = torch.tensor([0.0, math.log(4), 9.0, 0.0]).view(1, 4, 1)
    batch = {
        "labels": torch.tensor([[-100, 1, -100, 0]]), "prompts": torch.tensor([0]),
        "input_ids": torch.tensor([[5, 6, 7, 8]]),
    }  # fmt: skip
    loss = reward_model.step_loss(
        SimpleNamespace(logits=logits), batch, torch.tensor(4), settings=CROSS_ENTROPY, projection=None
    )
    assert loss.item() == pytest.approx(-(math.log(0.8) + math.log(0.5)) / 2 / 2)


def test_step_likelihood_is_the_geometric_mean_over_tokens_in_training_and_scoring():
    """The batch has traces of different lengths. The last trace's score is also computed directly."""
    debates = [
        step_labels.DebateSteps(KEYS.text, [GOLD, WRONG_STEP], [[True] * 4, [False] * 4]),
        step_labels.DebateSteps("find 3 + 4 .", ["answer : 7"], [[True]]),
    ]
    model, tokenizer = loading.load(BASE)
    batch = reward_model.collate([reward_model.encode_debate(d, tokenizer) for d in debates], tokenizer.pad_token_id)
    with torch.inference_mode():
        outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    settings = CROSS_ENTROPY.but(score="likelihood")
    loss = reward_model.step_loss(outputs, batch, torch.tensor(9), settings=settings, projection=None)
    examples = [(KEYS.text, GOLD), (KEYS.text, WRONG_STEP), ("find 3 + 4 .", "answer : 7")]
    scores = scorer.StepScorer(BASE, "likelihood")(*zip(*examples, strict=True))
    ids, (prompt, end) = scorer.encode(*examples[2], tokenizer)
    with torch.inference_mode():
        log_p = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    mean_log_p = sum(float(log_p[t - 1, ids[t]]) for t in range(prompt + 1, end + 1)) / (end - prompt)
    assert scores[2] == [pytest.approx(math.exp(mean_log_p), rel=1e-4)]
    good = [-math.log(s) for s in scores[0] + scores[2]]
    bad = [-math.log(1 - s) for s in scores[1]]
    assert loss.item() == pytest.approx(sum(good + bad) / 9, rel=1e-3)
    with pytest.raises(StudyError, match="score"):
        CROSS_ENTROPY.but(score="osmosis")


def test_first_error_is_located_by_a_threshold_on_step_scores():
    right = [[True, False, False], [True, True], [False, True]]
    assert step_scores.first_error_located([[0.9, 0.1, 0.1], [0.9, 0.1], [0.9, 0.1]], right, 0.5) == [True, False]
    assert step_scores.best_threshold([[0.9, 0.2], [0.8, 0.9]], [[True, False], [True, True]]) <= 0.9


def test_step_auroc_of_perfect_reversed_and_constant_scores():
    right = [[True, False], [True, True, False]]
    assert step_scores.step_auroc([[1.0, 0.0], [1.0, 1.0, 0.0]], right) == 1
    assert step_scores.step_auroc([[0.0, 1.0], [0.0, 0.0, 1.0]], right) == 0
    assert step_scores.step_auroc([[0.5, 0.5], [0.5, 0.5, 0.5]], right) == 0.5


def test_scores_that_are_constant_within_debates_have_auroc_one_half_within_them():
    """Debate 0 has more correct steps than debate 1, and all steps of a debate have the same score."""
    truth = [[True, True, True, False], [True, False, False, False], [True]]
    traces = [SimpleNamespace(question_id=str(i)) for i in range(3)]
    scores = [[0.9] * 4, [0.1] * 4, [0.9]]
    assert step_scores.auroc_by_debate(scores, traces, truth).value > 0.7
    within = step_scores.auroc_within_debates(scores, traces, truth)
    assert (within.value, within.n) == (0.5, 2)  # the third debate has no wrong step
    ranked = [[0.9, 0.8, 0.7, 0.1], [0.9, 0.1, 0.1, 0.1], [0.5]]
    assert step_scores.auroc_within_debates(ranked, traces, truth).value == 1


def test_aggregation_of_step_scores_and_outcome_reward():
    assert scorer.aggregate([0.2, 0.8], "mean") == 0.5 and scorer.aggregate([0.2, 0.8], "min") == 0.2
    assert scorer.aggregate([], "mean") == 0
    with pytest.raises(StudyError, match="median"):
        scorer.aggregate([1.0], "median")
    outputs = [[{"content": GOLD}], [{"content": WRONG_STEP}], [{"content": ""}]]
    assert rewards.outcome_reward([KEYS])([None] * 3, outputs, ["keys"] * 3) == [1.0, 0.0, 0.0]


def score_all_steps_1(questions, texts):
    """A scorer that scores every step 1, so that rewards differ only by the rule for incomplete outputs."""
    return [[1.0] * len(text.split("\n")) if text else [] for text in texts]


def test_output_without_an_answer_has_reward_0():
    incomplete = "\n".join(GOLD.split("\n")[:-1])
    logged = {}
    reward = rewards.process_reward(score_all_steps_1, [KEYS], "mean")
    outputs = [[{"content": text}] for text in (GOLD, incomplete, WRONG_STEP, "")]
    assert reward([None] * 4, outputs, ["keys"] * 4, log_metric=logged.__setitem__) == [1.0, 0.0, 1.0, 0.0]
    assert logged == {"judged": (0.5 + 1 + 1) / 3}  # the correct output against the three wrong ones
    watch = rewards.monitor([KEYS], {"keys": "40"})
    assert watch([None] * 4, outputs, ["keys"] * 4, log_metric=logged.__setitem__) == [0.0] * 4
    assert (logged["accuracy"], logged["agreement"]) == (0.25, 0.25)  # WRONG_STEP states 40


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.sampled_from("ab")), max_size=12))
def test_reward_accuracy_is_over_pairs_of_outputs_to_the_same_question(outputs):
    given_rewards, right, question_ids = ([row[i] for row in outputs] for i in range(3))
    pairs = [
        (r > s) + (r == s) / 2 for r, good, q in outputs if good for s, other, p in outputs if not other and p == q
    ]
    found = rewards.pair_accuracy(given_rewards, right, question_ids)
    assert found == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


def checked(*texts: str) -> list[CheckedTrace]:
    return check_traces([trace_of(agent, 1, text) for agent, text in enumerate(texts, start=1)], [KEYS])


def test_consensus_is_the_majoritys_or_if_verified_that_of_correct_traces():
    wrong_majority = check_traces(
        [trace_of(1, 1, WRONG_STEP), trace_of(2, 1, WRONG_STEP), trace_of(3, 1, GOLD)], [KEYS]
    )
    (majority,), (verified,) = (step_labels.debates(wrong_majority, {"keys": KEYS}, verified=v) for v in (False, True))
    assert majority.traces == verified.traces == [WRONG_STEP, GOLD]
    assert all(majority.agrees[0]) and not all(majority.agrees[1])
    assert all(verified.agrees[1]) and not all(verified.agrees[0])
    assert step_labels.agreed_answers(wrong_majority, {"keys": KEYS}) == {"keys": answer_of(WRONG_STEP, KEYS)}
    assert step_labels.debates(checked(WRONG_STEP), {"keys": KEYS}, verified=True) == []
    assert step_labels.debates(checked("no answer"), {"keys": KEYS}) == []


@given(st.integers(0, 10**6))
def test_trace_variants_are_truncated_repeat_a_step_or_state_only_an_answer(seed):
    truncated, repeated, direct = step_labels.variants([GOLD, "answer : 1"], ["answer : 39"], random.Random(seed))
    assert GOLD.startswith(truncated + "\n") and direct == "answer : 39"
    lines = repeated.split("\n")
    assert len(lines) == 5 and list(dict.fromkeys(lines)) == GOLD.split("\n")
    (steps,) = step_labels.debates(checked(GOLD, GOLD), {"keys": KEYS}, {"keys": [repeated]})
    agrees = steps.agrees[steps.traces.index(repeated)]
    assert [line for line, good in zip(lines, agrees, strict=True) if good] == GOLD.split("\n")


def test_student_samples_are_labelled_by_the_debates_consensus():
    (steps,) = step_labels.debates(checked(GOLD, GOLD), {"keys": KEYS}, {"keys": [WRONG_STEP, GOLD, ""]})
    assert steps.traces[:2] == [GOLD, WRONG_STEP] and "" not in steps.traces
    assert steps.agrees[:2] == [[True] * 4, [False, True, False, False]]
    without_samples = step_labels.debates(checked(GOLD, GOLD), {"keys": KEYS})
    assert without_samples[0].traces == [GOLD]

"""PAD: early stopping by agreement, sentences of the ablation, and the ablation's notebook from samples to findings."""

import pandas as pd
import pytest
import torch
from examples import KEYS, WRONG_STEP
from safetensors.torch import load_file
from small_study import stage

from agentark import StudyError, root
from agentark.distill import policy, reward_model, step_labels
from agentark.distill.scorer import StepScorer
from agentark.distill.settings import Policy, RewardModel
from agentark.evaluate.elicited import step_showing
from agentark.report import figures, pad
from agentark.schemas import Score, frame, read_scores
from agentark.tasks import TASKS
from agentark.traces.check import Consensus, agreement, consensus_of

BASE = root() / "data/models/qwen3-small"
QUESTIONS = TASKS["equation"].questions(12, "train", 0)
SETTINGS = Policy.read(
    {"steps": 4, "batch_size": 2, "num_generations": 4, "max_tokens": 24, "learning_rate": 0.002, "temperature": 1.0,
     "beta": 0.01, "aggregate": "min", "outcome_weight": 0.0, "held_out": 4, "eval_steps": 2}
)  # fmt: skip


def train_reward_model(out, **changes):
    """Train a reward model that scores by likelihood, for three steps on gold solutions and wrong answers."""
    debates = [
        step_labels.DebateSteps(q.text, [q.solution, "answer : 0"], [[True] * len(q.solution.split("\n")), [False]])
        for q in QUESTIONS
    ]
    settings = {"score": "likelihood", "loss": "paper", "nll_weight": 1.0, "stage_1_steps": 1, "stage_2_steps": 2,
                "batch_size": 4, "learning_rate": 0.001}  # fmt: skip
    reward_model.train(BASE, debates, out, 0, RewardModel.read(settings | changes))
    return out


@pytest.mark.parametrize("rank", [0, 4])
def test_saved_reward_model_uses_the_score_it_was_trained_with(tmp_path, rank):
    """Also after LoRA training, where the merged model takes its configuration from the base model."""
    folder = train_reward_model(tmp_path / "judge", lora_rank=rank)
    questions, texts = [KEYS.text], [WRONG_STEP]
    assert StepScorer(folder).score == "likelihood"
    assert StepScorer(folder)(questions, texts) == StepScorer(folder, "likelihood")(questions, texts)
    assert StepScorer(folder)(questions, texts) != StepScorer(BASE, "likelihood")(questions, texts)


def test_student_with_the_highest_agreement_is_kept(tmp_path):
    agreed = {q.question_id: q.answer for q in QUESTIONS}
    reward = train_reward_model(tmp_path / "judge")
    curve = policy.train(BASE, reward, QUESTIONS, tmp_path / "kept", 0, SETTINGS, agreed)
    held_out = {row["step"]: row["held_out_agreement"] for row in curve if "held_out_agreement" in row}
    assert set(held_out) == {2, 4}
    assert {row["kept"] for row in curve} == {max(held_out, key=lambda step: (held_out[step], -step))}
    assert not (tmp_path / "kept" / "checkpoints").exists()
    assert all(0 <= row[name] <= 1 for row in curve for name in ("accuracy", "agreement"))
    figures.plt.close(figures.policy_curves(pd.DataFrame(curve).assign(seed=0)))


def test_kept_student_has_the_weights_of_its_step(tmp_path, monkeypatch):
    """If agreement falls after the first evaluation, the saved weights differ from those of the last step."""
    agreed = {q.question_id: q.answer for q in QUESTIONS}
    reward = train_reward_model(tmp_path / "judge")
    policy.train(BASE, reward, QUESTIONS, tmp_path / "last", 0, SETTINGS.but(eval_steps=4), agreed)
    values, original = iter([0.9, 0.1]), policy.monitor

    def falling_agreement(questions, agreed_answers):
        watch = original(questions, agreed_answers)

        def logged(prompts, completions, question_id, log_metric=None, **more):
            held_out = set(question_id) <= {q.question_id for q in QUESTIONS[-4:]}
            log = (lambda name, value: log_metric(name, next(values))) if held_out else log_metric
            return watch(
                prompts, completions, question_id, log_metric=log if not held_out else agreement_only(log), **more
            )

        return logged

    def agreement_only(log):
        return lambda name, value: log(name, value) if name == "agreement" else None

    monkeypatch.setattr(policy, "monitor", falling_agreement)
    curve = policy.train(BASE, reward, QUESTIONS, tmp_path / "first", 0, SETTINGS, agreed)
    assert curve[0]["kept"] == 2
    first, last = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "last"))
    assert any(not torch.equal(first[name], last[name]) for name in first)


def test_early_stopping_needs_training_and_held_out_questions(tmp_path):
    for settings, agreed, message in (
        (SETTINGS.but(held_out=12), {q.question_id: "1" for q in QUESTIONS}, "12 questions leave 0 to train on"),
        (SETTINGS, {}, "8 to train on and 0 with an agreed answer"),
        (SETTINGS, None, "set it to 0 to train without early stop"),
    ):
        with pytest.raises(StudyError, match=message):
            policy.train(BASE, None, QUESTIONS, tmp_path / "never", 0, settings.but(outcome_weight=1.0), agreed)


def test_nll_in_the_loss_requires_the_likelihood_score(tmp_path):
    with pytest.raises(StudyError, match="nll_weight needs score=likelihood"):
        train_reward_model(tmp_path / "judge", score="head")


def test_nll_in_the_loss_covers_only_traces_that_agree_in_every_step():
    scores, trace = torch.tensor([0.0, 2.0, -1.0, 3.0]), torch.tensor([0, 0, 1, 1])
    tokens, good = torch.tensor([3, 1, 2, 2]), torch.tensor([True, True, False, True])
    expected = -(3 * torch.sigmoid(scores[0]).log() + torch.sigmoid(scores[1]).log()) / 4
    assert reward_model.agreeing_nll(scores, trace, tokens, good) == pytest.approx(expected.item())
    assert reward_model.agreeing_nll(scores, trace, tokens, good & False) == 0


def test_base_model_made_to_show_steps_never_begins_with_the_answer():
    questions = TASKS["equation"].questions(70, "validation", 0)
    shown = step_showing(BASE, questions, 72)
    assert [t.question_id for t in shown] == [q.question_id for q in questions]
    assert not any(t.text.startswith("answer") for t in shown)
    correct = sum(t.answer == q.answer for t, q in zip(shown, questions, strict=True))
    assert correct > 35  # without forced steps, the base model answers a third correctly


def test_a_repeated_line_does_not_agree_twice():
    question, solution = QUESTIONS[0], QUESTIONS[0].solution
    agreed = Consensus(question.answer, {q.name: q.value for q in question.quantities})
    first = solution.split("\n")[0]
    assert agreement(f"{first}\n{solution}", agreed, question)[:2] == [agreement(first, agreed, question)[0], False]
    assert consensus_of([], question).answer is None


# Sentences of the report


def row(metric: str, value: float, variant: str, baseline: str = "") -> Score:
    return Score(
        study="pad", setting="test", variant=variant, teacher="t", student="s", method="pad", train_task="equation",
        test_task="equation", seed="all", metric=metric, value=value, n=1000, lo=value - 0.01, hi=value + 0.01,
        tokens_per_question=10.0, baseline="base" if baseline else "", baseline_variant=baseline,
    )  # fmt: skip


@pytest.mark.parametrize(("gain", "verdict"), [(0.2, "better"), (-0.2, "worse"), (0.0, "no difference detected")])
def test_sentences_on_pad_follow_the_results(gain, verdict):
    rows = [row("accuracy", 0.7, "PAD"), row("judge_accuracy", 0.8, "PAD")]
    rows += [row("accuracy_gain", gain, "PAD", other) for other in (*pad.REFERENCES, "base")]
    (line,) = pad.findings(frame(rows))
    assert line.count(f"({verdict})") == 4 and "0.700" in line and "0.800" in line


def test_notebook_runs_from_samples_to_findings(copied):
    folder = copied
    stage(
        folder, "ablations/pad", "student=llama-small", "main_seeds=[0]", "longer=[0]", "few=[0]", "test=24",
        "judged=12", "out=reports/try.csv", "out_figures=reports/figures-try", "scratch=data/ablations/try",
    )  # fmt: skip
    table = read_scores(folder / "reports" / "try.csv")
    variants = set(table[table["method"] == "pad"]["variant"])
    assert {"PAD", "twice the steps", "after R-SFT", "verified consensus", "head"} <= variants
    assert {"base", "base, made to show steps"} <= set(table[table["method"] == "base"]["variant"])
    assert len(pad.findings(table)) == len(variants)
    assert (folder / "reports" / "figures-try" / "pad.png").is_file()

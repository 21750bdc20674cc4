"""Process-aware distillation, part 2 (method, section 3): GRPO by TRL against the process reward model."""

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from agentark import models
from agentark.answers import is_correct
from agentark.debate.prompts import solve_prompt
from agentark.distill.prm import StepScorer, aggregate
from agentark.distill.training import curve, run, save, settings, with_lora
from agentark.schemas import Question
from agentark.traces import answer_of


def process_reward(scorer: StepScorer, how: str):
    """The reward of a completion: its steps' scores, aggregated."""

    def process(prompts, completions, **_) -> list[float]:
        texts = [c[0]["content"] for c in completions]
        questions = [p[0]["content"] for p in prompts]
        return [aggregate(s, how) for s in scorer(questions, texts)]

    return process


def outcome_reward(questions: Sequence[Question]):
    """1 for a right final answer, else 0: the verifiable part of the public code's reward ("PRMVR")."""
    asked = {q.question_id: q for q in questions}

    def outcome(prompts, completions, question_id, **_) -> list[float]:
        pairs = [(c[0]["content"], asked[key]) for c, key in zip(completions, question_id, strict=True)]
        return [float(is_correct(answer_of(text, q), q.answer, q.kind)) for text, q in pairs]

    return outcome


def train(
    base: Path,
    reward_model: Path,
    questions: Sequence[Question],
    out: Path,
    seed: int,
    steps: int,
    prompts: int,
    generations: int,
    max_tokens: int,
    learning_rate: float,
    temperature: float,
    kl: float,
    aggregate: str,
    outcome_weight: float,
    lora_rank: int = 0,
) -> list[dict]:
    """GRPO from `base`: `prompts` questions a step, `generations` outputs each; save the student to `out`.

    A_i = (R(o_i) - mean) / std over a question's outputs; clipped ratio; `kl` times the KL divergence to `base`. R is
    the aggregated step score plus `outcome_weight` times the outcome (0: the debate's own signal alone).
    Returns the learning curve: step, reward, kl, length (tokens an output).
    """
    model, tokenizer = models.load(base)
    rewards, weights = [process_reward(StepScorer(reward_model), aggregate)], [1.0]
    if outcome_weight:
        rewards, weights = [*rewards, outcome_reward(questions)], [*weights, outcome_weight]
    dataset = Dataset.from_list([{"prompt": solve_prompt(q.text), "question_id": q.question_id} for q in questions])
    arguments = GRPOConfig(
        **settings(seed),
        max_steps=steps,
        per_device_train_batch_size=prompts * generations,
        num_generations=generations,
        max_completion_length=max_tokens,
        temperature=temperature,
        learning_rate=learning_rate,
        lr_scheduler_type="linear",
        beta=kl,
        reward_weights=weights,
        loss_type="grpo",  # the paper's: mean over each output's tokens, then over outputs
        logging_steps=max(1, steps // 40),
    )
    trainer = GRPOTrainer(
        with_lora(model, lora_rank), rewards, arguments, train_dataset=dataset, processing_class=tokenizer
    )
    run(trainer)
    save(trainer.model, tokenizer, out)
    logged = curve(trainer.state.log_history, "reward", "kl", "completions/mean_length")
    return [{"length" if k == "completions/mean_length" else k: v for k, v in row.items()} for row in logged]

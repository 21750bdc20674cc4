"""Process-aware distillation, part 2 (method, section 3): GRPO by TRL against the process reward model."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from agentark import StudyError, models
from agentark.answers import is_correct
from agentark.debate.prompts import solve_prompt
from agentark.distill.prm import StepScorer, aggregate
from agentark.distill.students import Origin, save
from agentark.distill.training import curve, divided, run, settings, trainable
from agentark.engines.checkpoint import prompt_ids
from agentark.engines.vllm import MISSING
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


def generation(generator: str) -> dict[str, object]:
    """Trainer arguments by which outputs are generated: by transformers, or by vLLM in this process, on the same GPU.

    vLLM's probabilities differ from the trainer's in their last bits; TRL weighs its outputs accordingly.
    """
    if generator not in ("transformers", "vllm"):
        raise StudyError(f"generator {generator!r} is unknown; choose transformers or vllm")
    return {"use_vllm": True, "vllm_mode": "colocate"} if generator == "vllm" else {}


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
    trainer: str = "auto",
    four_bit: bool = False,
    per_device: int = 0,
    generator: str = "transformers",
) -> list[dict]:
    """GRPO from `base`: `prompts` questions a step, `generations` outputs each; save the student to `out`.

    A_i = (R(o_i) - mean) / std over a question's outputs; clipped ratio; `kl` times the KL divergence to `base`. R is
    the aggregated step score plus `outcome_weight` times the outcome (0: the debate's own signal alone).
    `trainer`, `four_bit`: see training.route; `per_device` counts outputs, see training.divided; `generator`: see
    generation. Returns the learning curve: step, reward, kl, length (tokens an output).
    """
    parameters = dict(
        steps=steps, prompts=prompts, generations=generations, max_tokens=max_tokens, learning_rate=learning_rate,
        temperature=temperature, kl=kl, aggregate=aggregate, outcome_weight=outcome_weight, lora_rank=lora_rank,
        four_bit=four_bit, generator=generator,
    )  # fmt: skip
    made, shares = generation(generator), divided(prompts * generations, per_device)
    if made and not importlib.util.find_spec("vllm"):
        raise StudyError(f"generator vllm: {MISSING}")
    if made and not torch.cuda.is_available():
        raise StudyError("generator vllm: needs a GPU beside the training; set generator to transformers")
    model, tokenizer = trainable(base, seed, lora_rank, trainer, four_bit, bool(made))
    if made:
        prompted = (solve_prompt(q.text) for q in questions)
        longest = max(len(prompt_ids(tokenizer, p, models.window(base) - max_tokens)) for p in prompted)
        made["vllm_max_model_length"] = longest + max_tokens  # room for more would be kept free on the GPU
    rewards, weights = [process_reward(StepScorer(reward_model), aggregate)], [1.0]
    if outcome_weight:
        rewards, weights = [*rewards, outcome_reward(questions)], [*weights, outcome_weight]
    dataset = Dataset.from_list([{"prompt": solve_prompt(q.text), "question_id": q.question_id} for q in questions])
    arguments = GRPOConfig(
        **settings(seed),
        **shares,
        **made,
        max_steps=steps,
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
    training = GRPOTrainer(model, rewards, arguments, train_dataset=dataset, processing_class=tokenizer)
    run(training)
    asked = [(q.text, q.answer) for q in questions]
    save(
        training.model,
        tokenizer,
        out,
        Origin("pad", seed, {"base": base, "reward_model": reward_model}, asked, parameters),
    )
    logged = curve(training.state.log_history, "reward", "kl", "completions/mean_length")
    return [{"length" if k == "completions/mean_length" else k: v for k, v in row.items()} for row in logged]

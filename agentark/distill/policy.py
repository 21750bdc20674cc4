"""Process-aware distillation, part 2 (method, section 3): GRPO, or RLOO, by TRL against the process reward model.

What trains is imported where it trains; see sft.
"""

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from agentark import StudyError
from agentark.answers import is_right
from agentark.distill.scorer import StepScorer, aggregate
from agentark.models import loading
from agentark.models.chat import prompt_ids, solve_prompt
from agentark.schemas import Question
from agentark.traces.reading import answer_of

ALGORITHMS = ("grpo", "rloo")


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
        return [float(is_right(answer_of(text, q), q)) for text, q in pairs]

    return outcome


def rewards(
    reward_model: Path | None, questions: Sequence[Question], how: str, outcome_weight: float
) -> tuple[list[Callable], list[float]]:
    """Reward functions and their weights: the aggregated step score of `reward_model` (None: there is none), weight 1,
    and the outcome, weight `outcome_weight` (0: it is not rewarded). Raises StudyError if nothing is left to reward."""
    judged = [process_reward(StepScorer(reward_model), how)] if reward_model else []
    checked = [outcome_reward(questions)] if outcome_weight else []
    if not judged + checked:
        raise StudyError("nothing is rewarded: name a reward_model, or set outcome_weight above 0")
    return judged + checked, [1.0] * len(judged) + [outcome_weight] * len(checked)


def origin(base: Path, reward_model: Path | None, questions: Sequence[Question], seed: int, parameters: dict):
    """The students.Origin of a student that practised."""
    from agentark.distill.students import Origin

    parents = {"base": base, "reward_model": reward_model} if reward_model else {"base": base}
    return Origin("pad", seed, parents, [(q.text, q.answer) for q in questions], parameters)


def generation(generator: str) -> dict[str, object]:
    """Trainer arguments by which outputs are generated: by transformers, or by vLLM in this process, on the same GPU.

    vLLM's probabilities differ from the trainer's in their last bits; TRL weighs its outputs accordingly.
    """
    if generator not in ("transformers", "vllm"):
        raise StudyError(f"generator {generator!r} is unknown; choose transformers or vllm")
    return {"use_vllm": True, "vllm_mode": "colocate"} if generator == "vllm" else {}


def train(
    base: Path,
    reward_model: Path | None,
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
    algorithm: str = "grpo",
) -> list[dict]:
    """GRPO from `base`: `prompts` questions a step, `generations` outputs each; save the student to `out`.

    A_i = (R(o_i) - mean) / std over a question's outputs; clipped ratio; `kl` times the KL divergence to `base`. R is
    the aggregated step score plus `outcome_weight` times the outcome (0: the debate's own signal alone); without a
    `reward_model` the outcome alone. `aggregate` step: see trainers.StepCredit. `algorithm` rloo: A_i = R(o_i) - the
    mean of the question's other outputs, `kl` times the log ratio to `base` taken off the reward (arXiv 2402.14740).
    `trainer`, `four_bit`: see launch.route; `per_device` counts outputs, see training.divided; `generator`: see
    generation. Returns the learning curve: step, reward, kl, length (tokens an output).
    """
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    from agentark.distill.step_credit import StepCredit
    from agentark.distill.students import save
    from agentark.distill.training import curve, divided, run, settings, trainable
    from agentark.engines import batching

    parameters = dict(
        steps=steps, prompts=prompts, generations=generations, max_tokens=max_tokens, learning_rate=learning_rate,
        temperature=temperature, kl=kl, aggregate=aggregate, outcome_weight=outcome_weight, lora_rank=lora_rank,
        four_bit=four_bit, generator=generator, algorithm=algorithm,
    )  # fmt: skip
    if algorithm not in ALGORITHMS:
        raise StudyError(f"algorithm {algorithm!r} is unknown; choose one of {', '.join(ALGORITHMS)}")
    by_step = aggregate == "step"
    if by_step and (algorithm != "grpo" or outcome_weight or reward_model is None):
        raise StudyError("aggregate step: is for grpo against a reward model alone; set outcome_weight to 0")
    made, shares = generation(generator), divided(prompts * generations, per_device)
    if made and not importlib.util.find_spec("vllm"):
        raise StudyError(
            "generator vllm: not installed here; add it with `pip install -e .[gpu]`, or set generator to transformers"
        )
    if made and not torch.cuda.is_available():
        raise StudyError("generator vllm: needs a GPU beside the training; set generator to transformers")
    model, tokenizer = trainable(base, seed, lora_rank, trainer, four_bit, bool(made))
    if made:
        prompted = (solve_prompt(q.text) for q in questions)
        longest = max(len(prompt_ids(tokenizer, p, loading.window(base) - max_tokens)) for p in prompted)
        made["vllm_max_model_length"] = longest + max_tokens  # room for more would be kept free on the GPU
    if not torch.cuda.is_available():  # where it gives the same outputs, to the last bit
        whole = model.get_base_model() if lora_rank else model
        whole.generate = partial(batching.generate, whole)
    functions, weights = rewards(reward_model, questions, "mean" if by_step else aggregate, outcome_weight)
    dataset = Dataset.from_list([{"prompt": solve_prompt(q.text), "question_id": q.question_id} for q in questions])
    arguments = dict(
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
        logging_steps=max(1, steps // 40),
    )
    given = dict(train_dataset=dataset, processing_class=tokenizer)
    if algorithm == "rloo":
        training = RLOOTrainer(model, functions, RLOOConfig(**arguments), **given)
    else:
        # the paper's loss: mean over each output's tokens, then over outputs
        config = GRPOConfig(**arguments, loss_type="grpo")
        kind = partial(StepCredit, scorer=StepScorer(reward_model)) if by_step else GRPOTrainer
        training = kind(model, functions, config, **given)
    run(training)
    save(training.model, tokenizer, out, origin(base, reward_model, questions, seed, parameters))
    logged = curve(training.state.log_history, "reward", "kl", "completions/mean_length")
    return [{"length" if k == "completions/mean_length" else k: v for k, v in row.items()} for row in logged]

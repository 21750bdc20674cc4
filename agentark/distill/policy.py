"""Process-aware distillation, part 2 (method, section 3): GRPO or RLOO by TRL against the process reward model.

The training libraries are imported in the functions that train; see sft.
"""

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from agentark import StudyError
from agentark.answers import is_right
from agentark.distill.scorer import StepScorer, aggregate
from agentark.distill.settings import Policy
from agentark.models import loading
from agentark.models.chat import prompt_ids, solve_prompt
from agentark.schemas import Question
from agentark.traces.reading import answer_of


def process_reward(scorer: StepScorer, how: str) -> Callable:
    """A reward function for TRL: the aggregated step scores of each completion."""

    def process(prompts, completions, **_) -> list[float]:
        texts = [c[0]["content"] for c in completions]
        questions = [p[0]["content"] for p in prompts]
        return [aggregate(s, how) for s in scorer(questions, texts)]

    return process


def outcome_reward(questions: Sequence[Question]) -> Callable:
    """A reward function for TRL: 1 for a correct final answer, else 0 (the verifiable part of the public code's reward,
    "PRMVR")."""
    asked = {q.question_id: q for q in questions}

    def outcome(prompts, completions, question_id, **_) -> list[float]:
        pairs = [(c[0]["content"], asked[key]) for c, key in zip(completions, question_id, strict=True)]
        return [float(is_right(answer_of(text, q), q)) for text, q in pairs]

    return outcome


def rewards(
    reward_model: Path | None, questions: Sequence[Question], how: str, outcome_weight: float
) -> tuple[list[Callable], list[float]]:
    """Reward functions and their weights.

    They are the aggregated step score of `reward_model`, if there is one, with weight 1, and the outcome with weight
    `outcome_weight`, if that is not 0. Raises StudyError if there is no reward at all.
    """
    judged = [process_reward(StepScorer(reward_model), how)] if reward_model else []
    checked = [outcome_reward(questions)] if outcome_weight else []
    if not judged + checked:
        raise StudyError("no reward: name a reward_model, or set outcome_weight above 0")
    return judged + checked, [1.0] * len(judged) + [outcome_weight] * len(checked)


def origin(base: Path, reward_model: Path | None, questions: Sequence[Question], seed: int, settings: Policy):
    """The students.Origin of a student trained by reinforcement learning."""
    from agentark.distill.students import Origin

    parents = {"base": base, "reward_model": reward_model} if reward_model else {"base": base}
    return Origin("pad", seed, parents, [(q.text, q.answer) for q in questions], settings.recorded())


def train(
    base: Path, reward_model: Path | None, questions: Sequence[Question], out: Path, seed: int, settings: Policy
) -> list[dict]:
    """Train a student from `base` by GRPO or RLOO with settings.batch_size questions per step, and save it to `out`.

    GRPO: A_i = (R(o_i) - mean) / std over a question's outputs, clipped ratio, penalty `beta` times the KL divergence
    to `base`. R is the aggregated step score plus `outcome_weight` times the outcome (0: the debate's own signal
    alone), or the outcome alone without a `reward_model`. aggregate=step: see step_credit.StepCredit. algorithm=rloo:
    A_i = R(o_i) minus the mean over the question's other outputs, with `beta` times the log ratio to `base` subtracted
    from the reward (arXiv 2402.14740). Returns the learning curve: step, reward, kl, length (tokens per output). Raises
    StudyError for incompatible settings and for a generator that is not available here.
    """
    import torch
    from datasets import Dataset

    from agentark.distill.students import save
    from agentark.distill.training import arguments, curve, run, trainable
    from agentark.engines import batching

    by_step = settings.aggregate == "step"
    if by_step and (settings.algorithm != "grpo" or settings.outcome_weight or reward_model is None):
        raise StudyError("policy.aggregate=step needs grpo and a reward model without outcome; set outcome_weight to 0")
    colocated = generation(settings)
    shared = arguments(settings, seed, settings.batch_size * settings.num_generations, f"pad {base.name} seed {seed}")
    model, tokenizer = trainable(base, seed, settings, bool(colocated))
    if colocated:  # vLLM reserves GPU memory for the whole window, so make it no longer than needed
        colocated["vllm_max_model_length"] = longest_prompt(base, questions, tokenizer, settings) + settings.max_tokens
    if not torch.cuda.is_available():  # on a CPU the faster generation is bit-identical
        whole = model.get_base_model() if settings.lora_rank else model
        whole.generate = partial(batching.generate, whole)
    how = "mean" if by_step else settings.aggregate
    functions, weights = rewards(reward_model, questions, how, settings.outcome_weight)
    shared |= dict(
        **colocated,
        max_steps=settings.steps,
        num_generations=settings.num_generations,
        max_completion_length=settings.max_tokens,
        temperature=settings.temperature,
        beta=settings.beta,
        reward_weights=weights,
        logging_steps=max(1, settings.steps // 40),
    )
    kind, config = algorithm(settings, shared, reward_model)
    asked = Dataset.from_list([{"prompt": solve_prompt(q.text), "question_id": q.question_id} for q in questions])
    training = kind(model, functions, config, train_dataset=asked, processing_class=tokenizer)
    run(training)
    save(training.model, tokenizer, out, origin(base, reward_model, questions, seed, settings))
    logged = curve(training.state.log_history, "reward", "kl", "completions/mean_length")
    return [{"length" if k == "completions/mean_length" else k: v for k, v in row.items()} for row in logged]


def algorithm(settings: Policy, arguments: dict, reward_model: Path | None) -> tuple[Callable, object]:
    """TRL's trainer of the chosen algorithm, and its arguments. Raises StudyError for PPO, which has its own loop."""
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    from agentark.distill.step_credit import StepCredit

    if settings.algorithm == "ppo":
        raise StudyError("policy.algorithm=ppo is trained by ppo.train; choose grpo or rloo here")
    if settings.algorithm == "rloo":
        return RLOOTrainer, RLOOConfig(**arguments)
    # the paper's loss: mean over each output's tokens, then over outputs
    config = GRPOConfig(**arguments, loss_type="grpo")
    if settings.aggregate == "step":
        assert reward_model is not None  # checked by `train`
        return partial(StepCredit, scorer=StepScorer(reward_model)), config
    return GRPOTrainer, config


def generation(settings: Policy) -> dict[str, object]:
    """Trainer arguments for the generator: transformers, or vLLM in this process and on the same GPU.

    vLLM's probabilities differ from the trainer's in their last bits; TRL corrects for it by importance weights. Raises
    StudyError if vLLM is not installed or there is no GPU.
    """
    import torch

    if settings.generator == "transformers":
        return {}
    if not importlib.util.find_spec("vllm"):
        raise StudyError(
            "policy.generator=vllm: vllm is not installed here; add it with `pip install -e .[gpu]`, or set generator "
            "to transformers"
        )
    if not torch.cuda.is_available():
        raise StudyError("policy.generator=vllm needs a GPU; set generator to transformers")
    return {"use_vllm": True, "vllm_mode": "colocate"}


def longest_prompt(base: Path, questions: Sequence[Question], tokenizer, settings: Policy) -> int:
    """The longest prompt's tokens. Raises StudyError if a prompt leaves no room for a reply in the model's window."""
    most = loading.window(base) - settings.max_tokens
    return max(len(prompt_ids(tokenizer, solve_prompt(q.text), most)) for q in questions)

"""Process-aware distillation, part 2 (method, section 3): GRPO or RLOO by TRL against the process reward model.

The training libraries are imported in the functions that train; see sft.
"""

import importlib.util
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from agentark import StudyError
from agentark.distill.launch import route
from agentark.distill.rewards import LOGGED, monitor, rewards
from agentark.distill.scorer import StepScorer
from agentark.distill.settings import Policy
from agentark.models import loading
from agentark.models.chat import SWITCH, prompt_builder, prompt_ids, solve_prompt
from agentark.schemas import Question

EVAL_GENERATIONS = 2  # outputs per held-out question
FULL, HALF = 16, 2  # bytes per weight: with gradient and moments in mixed precision (arXiv 1910.02054); in 16 bits
MEMORY = 0.9  # share of a GPU: vLLM's default `gpu_memory_utilization`
SEQUENCES = 256  # in parallel: vLLM's default `max_num_seqs` has been 256 or more
SPARE = 0.1  # added for vLLM's activations and CUDA graphs: twice engines.vllm.ACTIVATIONS, as models are small


def origin(base: Path, reward_model: Path | None, questions: Sequence[Question], seed: int, settings: Policy):
    """The students.Origin of a student trained by reinforcement learning."""
    from agentark.distill.students import Origin

    parents = {"base": base, "reward_model": reward_model} if reward_model else {"base": base}
    return Origin("pad", seed, parents, [(q.text, q.answer) for q in questions], settings.recorded())


def train(
    base: Path,
    reward_model: Path | None,
    questions: Sequence[Question],
    out: Path,
    seed: int,
    settings: Policy,
    agreed: Mapping[str, str] | None = None,
) -> list[dict]:
    """Train a student from `base` by GRPO or RLOO with settings.batch_size questions per step, and save it to `out`.

    GRPO: A_i = (R(o_i) - mean) / std over a question's outputs, clipped ratio, penalty `beta` times the KL divergence
    to `base`. R is the aggregated step score plus `outcome_weight` times the outcome (0: only the debate's own
    signal), or only the outcome without a `reward_model`. aggregate=step: see step_credit.StepCredit. algorithm=rloo:
    A_i = R(o_i) minus the mean over the question's other outputs, with `beta` times the log ratio to `base` subtracted
    from the reward (arXiv 2402.14740).

    agreed: question_id -> the answer that its debate agrees on. With held_out above 0 the last `held_out` of
    `questions` are not trained on. The student answers them every `eval_steps` steps, and the student of the step with
    the highest agreement is kept, the earliest in a tie. This early stop uses no gold answer.

    Returns the learning curve, see learning_curve. Raises StudyError for incompatible settings and for a generator that
    is not available here.
    """
    import torch

    from agentark.distill.students import save
    from agentark.distill.training import arguments, checkpoints_of, run, trainable
    from agentark.engines import batching

    by_step = settings.aggregate == "step"
    if by_step and (settings.algorithm != "grpo" or settings.outcome_weight or reward_model is None):
        raise StudyError("policy.aggregate=step needs grpo and a reward model without outcome; set outcome_weight to 0")
    trained, held_out = split(questions, settings, agreed)
    generator = generation(settings)
    made_from = origin(base, reward_model, questions, seed, settings)
    checkpoints, label = checkpoints_of(made_from, settings), f"pad {base.name} seed {seed}"
    shared = arguments(settings, seed, settings.batch_size * settings.num_generations, label, checkpoints)
    model, tokenizer = trainable(base, seed, settings, bool(generator))
    if settings.generator == "vllm":
        generator |= vllm_arguments(model, settings, longest_prompt(base, questions, tokenizer, settings), gpu_bytes())
    if not torch.cuda.is_available():  # on a CPU the faster generation is bit-identical
        unwrapped = model.get_base_model() if settings.lora_rank else model
        unwrapped.generate = partial(batching.generate, unwrapped)
    how = "mean" if by_step else settings.aggregate
    functions, weights = rewards(reward_model, questions, how, settings.outcome_weight)
    shared |= generator | outputs_of(settings) | {"reward_weights": [*weights, 0.0]}
    if held_out:
        shared |= early_stop(settings, checkpoints or out / "checkpoints", shared)
    kind, config = algorithm(settings, shared, reward_model, questions)
    training = kind(
        model, [*functions, monitor(questions, agreed or {})], config, processing_class=tokenizer,
        train_dataset=prompts(trained, tokenizer, settings.system),
        eval_dataset=prompts(held_out, tokenizer, settings.system) if held_out else None,
    )  # fmt: skip
    run(training, checkpoints)
    save(training.model, tokenizer, out, made_from)
    if not checkpoints and os.environ.get("RANK", "0") == "0":  # only for the early stop; by the first process
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return learning_curve(training.state.log_history, training.state.best_global_step or settings.steps)


def outputs_of(settings: Policy) -> dict[str, object]:
    """Trainer arguments for the outputs of a step and the loss on them.

    Thinking is off in training, because the lines of a thought are not steps that the reward model can score.
    """
    return dict(
        max_steps=settings.steps,
        num_generations=settings.num_generations,
        max_completion_length=settings.max_tokens,
        temperature=settings.temperature,
        chat_template_kwargs=SWITCH["off"],
        beta=settings.beta,
        logging_steps=max(1, settings.steps // 40),
    )


def split(
    questions: Sequence[Question], settings: Policy, agreed: Mapping[str, str] | None
) -> tuple[Sequence[Question], Sequence[Question]]:
    """The questions to train on, and those held out for the early stop. Held-out questions whose debate has no agreed
    answer are dropped. Raises StudyError if either part is empty although `held_out` is above 0."""
    if not settings.held_out:
        return questions, []
    trained = questions[: -settings.held_out]
    held_out = [q for q in questions[-settings.held_out :] if q.question_id in (agreed or {})]
    if not trained or not held_out:
        raise StudyError(
            f"policy.held_out={settings.held_out}: {len(questions)} questions leave {len(trained)} to train on and "
            f"{len(held_out)} with an agreed answer; change held_out, or set it to 0 to train without early stop"
        )
    return trained, held_out


def early_stop(settings: Policy, checkpoints: Path, shared: dict) -> dict[str, object]:
    """Trainer arguments for evaluation on held-out questions, and for keeping the best step. Every evaluation writes a
    checkpoint, whatever `save_steps` is."""
    return dict(
        output_dir=str(checkpoints),
        eval_strategy="steps",
        eval_steps=settings.eval_steps,
        per_device_eval_batch_size=shared["per_device_train_batch_size"],
        num_generations_eval=EVAL_GENERATIONS,
        save_strategy="steps",
        save_steps=settings.eval_steps,
        save_only_model=not settings.save_steps,  # continuing a training needs the optimiser too
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_agreement",
        greater_is_better=True,
    )


def prompts(questions: Sequence[Question], tokenizer, system: str):
    """The questions as a data set for TRL: `prompt` (after a system prompt, if there is one) and `question_id`."""
    from datasets import Dataset

    ask = prompt_builder(tokenizer, system, "off")
    return Dataset.from_list([{"prompt": ask(q.text), "question_id": q.question_id} for q in questions])


def learning_curve(history: Sequence[dict], kept: int) -> list[dict]:
    """The learning curve in a trainer's log, one row per logged step.

    step; reward, kl; length, in tokens per output; accuracy, agreement, judged: shares of the step's outputs, see
    `rewards`; held_out_accuracy, held_out_agreement: on the held-out questions, at the steps that evaluate; kept: the
    step whose student is kept. A row lacks the shares that were not logged at its step.
    """
    names = {"reward": "reward", "kl": "kl", "completions/mean_length": "length"} | {name: name for name in LOGGED}
    names |= {f"eval_{name}": f"held_out_{name}" for name in LOGGED[:2]}
    rows: dict[int, dict] = {}
    for entry in history:
        found = {names[key]: float(value) for key, value in entry.items() if key in names}
        if found:
            rows.setdefault(entry["step"], {"step": entry["step"]}).update(found)
    return [row | {"kept": kept} for row in rows.values()]


def algorithm(
    settings: Policy, arguments: dict, reward_model: Path | None, questions: Sequence[Question]
) -> tuple[Callable, object]:
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
        return partial(StepCredit, scorer=StepScorer(reward_model), questions=questions), config
    return GRPOTrainer, config


def generation(settings: Policy) -> dict[str, object]:
    """Trainer arguments for the generator: transformers with or without continuous batching, or vLLM in this process
    and on the same GPU.

    vLLM's probabilities differ from the trainer's in their last bits; TRL corrects for this by importance weights.
    Raises StudyError if the generator needs a GPU and there is none, and if vLLM is chosen and not installed.
    """
    import torch

    if settings.generator == "transformers":
        return {}
    if settings.generator == "vllm" and not importlib.util.find_spec("vllm"):
        raise StudyError(
            "policy.generator=vllm: vllm is not installed here; add it with `pip install -e .[gpu]`, or set generator "
            "to transformers"
        )
    if not torch.cuda.is_available():
        raise StudyError(f"policy.generator={settings.generator} needs a GPU; set generator to transformers")
    if settings.generator == "paged":
        return {"use_transformers_continuous_batching": True}
    return {"use_vllm": True, "vllm_mode": "colocate"}


def gpu_bytes() -> float:
    """Bytes of memory of this process's GPU."""
    import torch

    return float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)


def vllm_arguments(model, settings: Policy, prompt: int, memory: float) -> dict[str, object]:
    """Trainer arguments for vLLM on the GPU that trains `model`. memory: the GPU's bytes.

    vLLM's window is only `prompt` tokens plus one output. vLLM sleeps during the optimiser step, so activations may use
    its memory. The weights, gradients and moments, the reward model and a reference stay in memory: FULL bytes per
    trained weight and HALF per other weight, as in the planner (plan.sizes.training_gb). Unsloth has its own vLLM,
    which does not sleep. Raises StudyError if there is no room for the weights and one output.
    """
    longest = prompt + settings.max_tokens
    window: dict[str, object] = {"vllm_max_model_length": longest}
    if route(settings)[0]:
        return window
    output = 2 * HALF * math.prod(loading.attention(model.config.get_text_config())) * longest  # keys and values
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    weights = sum(p.numel() for p in model.parameters())
    frozen = weights * (1 + bool(settings.beta and not settings.lora_rank))  # LoRA without its adapter is the reference
    states = FULL * trained + HALF * (weights - trained if settings.lora_rank else 0) + HALF * frozen
    together = min(SEQUENCES, settings.batch_size * settings.num_generations)
    room = MEMORY - states / memory
    if room * memory < (1 + SPARE) * HALF * weights + output:
        raise StudyError(
            "policy.generator=vllm: the GPU has no room for vLLM beside the training; set lora_rank, a smaller "
            "max_tokens, or generator to transformers"
        )
    share = min(room, (1 + SPARE) * (HALF * weights + together * output) / memory)
    return window | {"vllm_enable_sleep_mode": True, "vllm_gpu_memory_utilization": math.floor(100 * share) / 100}


def longest_prompt(base: Path, questions: Sequence[Question], tokenizer, settings: Policy) -> int:
    """Tokens of the longest prompt. Raises StudyError if a prompt leaves no room for a reply in the model's window."""
    most = loading.window(base) - settings.max_tokens
    return max(len(prompt_ids(tokenizer, solve_prompt(q.text, settings.system), most, "off")) for q in questions)

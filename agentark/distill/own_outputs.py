"""Shared by methods in which a student trains on its own outputs: generation, token budget, learning curve."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from transformers import PreTrainedTokenizerFast, TrainerCallback

from agentark.distill import training
from agentark.distill.settings import Settings
from agentark.distill.students import Origin
from agentark.engines import batching
from agentark.models.chat import SWITCH
from agentark.models.loading import Model
from agentark.parallel import tick


class OwnOutputs(Settings):
    """Settings of all methods in which a student trains on its own outputs. batch_size counts questions."""

    steps: int = Field(gt=0)  # at most; `training_tokens` normally ends a training earlier
    training_tokens: int = Field(gt=0)  # of prompts and outputs, so that methods are compared at equal training
    max_tokens: int = Field(gt=0)  # of an output
    temperature: float = Field(gt=0)  # of the outputs

    @property
    def optimiser_steps(self) -> int:
        return self.steps


def prepared(
    origin: Origin, settings: OwnOutputs, outputs: int
) -> tuple[Model, PreTrainedTokenizerFast, dict[str, Any], Path | None]:
    """Return the inputs of TRL's trainers on own outputs: model, tokenizer, shared arguments, the checkpoint folder.

    outputs: per step. On a CPU `batching.generate`, which is faster and bit-identical, replaces `model.generate`.
    """
    checkpoints = training.checkpoints_of(origin, settings)
    # Generation reads all weights for every token. With 16-bit weights it converts none and reads half of the bytes.
    half = settings.bf16 and settings.lora_rank > 0
    dtype = torch.bfloat16 if half else None
    model, tokenizer = training.trainable(origin.base, origin.seed, settings, dtype=dtype)
    if not torch.cuda.is_available():
        unwrapped = model.get_base_model() if settings.lora_rank else model
        if half:
            unwrapped.set_attn_implementation(batching.GROUPED)
        unwrapped.generate = partial(batching.generate, unwrapped)
    label = f"{origin.method} {origin.base.name} seed {origin.seed}"
    shared = training.arguments(settings, origin.seed, outputs, label, checkpoints) | {
        "max_steps": settings.steps,
        "max_completion_length": settings.max_tokens,
        "temperature": settings.temperature,
        "chat_template_kwargs": SWITCH["off"],
        "logging_steps": max(1, settings.steps // 40),
    }
    return model, tokenizer, shared, checkpoints


class TokenBudget(TrainerCallback):
    """End a training after the step that reaches `tokens` tokens of prompts and outputs. The learning rate falls
    linearly to 0 over these tokens.

    Outputs differ in length between methods, so equal steps are not equal training. Works with TRL's trainers that
    count the tokens in `state.num_input_tokens_seen`.
    """

    def __init__(self, trainer, tokens: int):
        self.trainer, self.tokens = trainer, tokens
        trainer.create_scheduler = self.create_scheduler
        trainer.add_callback(self)

    @property
    def share(self) -> float:
        """The used share of the token budget, from 0 to 1."""
        return min(1.0, self.trainer.state.num_input_tokens_seen / self.tokens)

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """Set a linear decay of the learning rate over tokens instead of steps."""
        self.trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.trainer.optimizer, lambda _step: 1 - self.share
        )
        return self.trainer.lr_scheduler

    def on_step_end(self, arguments, state, control, **_) -> None:
        if self.share == 1 and not control.should_training_stop:
            control.should_training_stop = True
            if state.is_world_process_zero:
                tick(state.max_steps - state.global_step)  # count the omitted steps in the progress bar


def curve(history: list[dict], **keys: str) -> list[dict]:
    """`training.curve` with renamed columns; `keys` maps new names to old ones."""
    rows = training.curve(history, *keys.values())
    return [{"step": row["step"], **{name: row[key] for name, key in keys.items()}} for row in rows]

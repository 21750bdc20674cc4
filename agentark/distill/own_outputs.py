"""Shared by the methods in which a student trains on its own outputs: generation, equal training, the learning curve."""

from collections.abc import Sequence
from functools import partial

import torch
from transformers import TrainerCallback

from agentark.distill.settings import Settings
from agentark.engines import batching
from agentark.models.loading import Model
from agentark.parallel import tick


def generating_fast(model: Model, settings: Settings) -> Model:
    """The model, whose `generate` on a CPU is the faster one of `batching`, with bit-identical outputs."""
    if not torch.cuda.is_available():
        whole = model.get_base_model() if settings.lora_rank else model
        whole.generate = partial(batching.generate, whole)
    return model


class TokenBudget(TrainerCallback):
    """Ends a training after the step that reaches `tokens` tokens of prompts and outputs; the learning rate falls
    linearly with them, to 0.

    Outputs differ in length between methods, so equal steps are not equal training. For those of TRL's trainers that
    count the tokens in `state.num_input_tokens_seen`.
    """

    def __init__(self, trainer, tokens: int):
        self.trainer, self.tokens = trainer, tokens
        trainer.create_scheduler = self.create_scheduler
        trainer.add_callback(self)

    @property
    def share(self) -> float:
        """The share of the tokens that is used, from 0 to 1."""
        return min(1.0, self.trainer.state.num_input_tokens_seen / self.tokens)

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """A linear decay over tokens in place of the one over steps."""
        self.trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.trainer.optimizer, lambda _step: 1 - self.share
        )
        return self.trainer.lr_scheduler

    def on_step_end(self, arguments, state, control, **_) -> None:
        if self.share == 1 and not control.should_training_stop:
            control.should_training_stop = True
            if state.is_world_process_zero:
                tick(state.max_steps - state.global_step)  # steps that are not needed


def curve(history: Sequence[dict], **keys: str) -> list[dict]:
    """The learning curve in a trainer's log: step, and under each name the value of its key, of the entries with all."""
    return [
        {"step": entry["step"], **{name: float(entry[key]) for name, key in keys.items()}}
        for entry in history
        if all(key in entry for key in keys.values())
    ]

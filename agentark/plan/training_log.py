"""Measure a training of `agentark.distill` step by step, without changing it."""

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from transformers import TrainerCallback, set_seed
from trl import SFTTrainer

from agentark.distill import training

PARTS = {"generation": "_generate", "scoring": "_calculate_rewards"}  # of a GRPO step: methods of TRL's trainer


def now() -> float:
    """Seconds, after the GPU has finished all queued work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class TrainingLog(TrainerCallback):
    """Measurements of a training, or of its last stage if it has several.

    steps: seconds of each step, "all" and in each of PARTS (the first includes the start); lengths: tokens per example,
    by batch (SFT only); adapters: LoRA weights; memory: this process's peak in GB (10^9 bytes) before the student is
    saved, of tensors on a GPU, resident on a CPU; curve: the learning curve that the training returns.
    """

    curve: list[dict]

    def attach(self, trainer: Any) -> None:
        self.steps: list[dict[str, float]] = []
        self.lengths: list[list[int]] = []
        self.spent = dict.fromkeys(PARTS, 0.0)
        self.adapters = sum(p.numel() for name, p in trainer.model.named_parameters() if "lora_" in name)
        trainer.add_callback(self)
        for part, method in PARTS.items():
            if hasattr(trainer, method):
                setattr(trainer, method, self.clocked(part, getattr(trainer, method)))
        if isinstance(trainer, SFTTrainer):
            collate = trainer.data_collator

            def counted(rows):
                self.lengths.append([len(row["input_ids"]) for row in rows])
                return collate(rows)

            trainer.data_collator = counted
        self.last = {"all": now(), **self.spent}
        set_seed(trainer.args.seed)  # the order of examples must not depend on random draws while the model was built

    def clocked(self, part: str, function: Callable) -> Callable:
        def wrapped(*args, **kwargs):
            start = now()
            result = function(*args, **kwargs)
            self.spent[part] += now() - start
            return result

        return wrapped

    def on_step_end(self, *_, **__) -> None:
        end = {"all": now(), **self.spent}
        self.steps.append({key: end[key] - self.last[key] for key in end})
        self.last = end

    def on_train_end(self, *_, **__) -> None:
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.memory = (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resident) / 1e9


def measure_training(train: Callable, **call: Any) -> TrainingLog:
    """Run `train(out=..., **call)`, a training that calls `training.run`, and discard the student."""
    log, run = TrainingLog(), training.run

    def logged(trainer: Any, checkpoints: Path | None = None) -> None:
        log.attach(trainer)
        run(trainer, checkpoints)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(training, "run", logged):
        log.curve = train(out=Path(folder) / "model", **call)
    return log

"""Measure a training of `agentark.distill` step by step, without changing it."""

import resource
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from transformers import Trainer, TrainerCallback, set_seed
from trl import SFTTrainer

from agentark.distill import training

PARTS = {"generation": "_generate", "scoring": "_calculate_rewards"}  # of a GRPO step: methods of TRL's trainer


def now() -> float:
    """Seconds, after the GPU has finished all queued work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory() -> float:
    """Peak memory of this process in GB (10^9 bytes): allocated tensors on a GPU, resident memory on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


class TrainingLog(TrainerCallback):
    """What a training did. Of a training in stages, it holds the last stage.

    ends: clock at the end of each step ("all") and seconds spent by then in each of PARTS; lengths: tokens of each
    example, by batch (SFT only); adapters: number of LoRA weights; memory: peak in GB, before the student is saved;
    curve: the learning curve that the training returns.
    """

    def attach(self, trainer: Trainer) -> None:
        self.ends: list[dict[str, float]] = []
        self.spent = dict.fromkeys(PARTS, 0.0)
        self.lengths: list[list[int]] = []
        named = trainer.model.named_parameters()
        self.adapters = sum(weights.numel() for name, weights in named if "lora_" in name)
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
        set_seed(trainer.args.seed)  # the order of examples must not depend on what building a model has drawn

    def clocked(self, part: str, function: Callable) -> Callable:
        def wrapped(*args, **kwargs):
            start = now()
            result = function(*args, **kwargs)
            self.spent[part] += now() - start
            return result

        return wrapped

    def on_step_end(self, *_, **__) -> None:
        self.ends.append({"all": now(), **self.spent})

    def on_train_end(self, *_, **__) -> None:
        self.memory = peak_memory()

    def steps(self) -> list[dict[str, float]]:
        """Seconds of each step but the first, which warms up: "all" and each of PARTS."""
        return [{key: end[key] - start[key] for key in end} for start, end in pairwise(self.ends)]


def measure_training(train: Callable, **call: Any) -> TrainingLog:
    """Run `train(out=..., **call)`, a training that calls `training.run`, and drop the student."""
    log, run = TrainingLog(), training.run

    def logged(trainer: Trainer) -> None:
        log.attach(trainer)
        run(trainer)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(training, "run", logged):
        log.curve = train(out=Path(folder) / "model", **call)
    return log

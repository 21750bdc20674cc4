"""Train base models: token batches, schedule and training loop."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.data import IterableDataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer, TrainerCallback, TrainingArguments

from agentark.distill.training import run
from agentark.parallel import progress
from agentark.pretrain.examples import Example
from agentark.pretrain.muon import Muon

MAX_TOKENS = 72  # per sampled trace; the longest gold trace of the hardest level has 66


def encode(example: Example, tokenizer: PreTrainedTokenizerFast) -> dict[str, list[int]]:
    """Token ids and labels; the label is -100 in the prompt and in pieces without loss."""
    ids = tokenizer(
        tokenizer.apply_chat_template(example.messages, tokenize=False, add_generation_prompt=True)
    ).input_ids
    labels = [-100] * len(ids)
    for text, learnt in example.target:
        piece = tokenizer(text).input_ids
        ids, labels = ids + piece, labels + (piece if learnt else [-100] * len(piece))
    end = tokenizer.eos_token_id
    return {"input_ids": [*ids, end], "labels": [*labels, end], "attention_mask": [1] * (len(ids) + 1)}


class Corpus(IterableDataset):
    """An endless seeded stream of examples, grouped into batches by prompt length.

    Examples are not grouped by total length: bare answers would then fill separate batches, and the loss (a mean over a
    batch's tokens) would weight their few tokens ten times as much as those of a solution.
    """

    def __init__(self, draw, tokenizer: PreTrainedTokenizerFast, batch: int, seed: int):
        self.draw, self.tokenizer, self.batch, self.seed = draw, tokenizer, batch, seed

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        rng = random.Random(self.seed)
        while True:
            pool = [encode(self.draw(rng), self.tokenizer) for _ in range(16 * self.batch)]
            pool.sort(key=lambda e: e["labels"].count(-100))
            batches = [pool[i : i + self.batch] for i in range(0, len(pool), self.batch)]
            rng.shuffle(batches)
            for batch in batches:
                yield from batch


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Right-pad to the longest row: ids and mask with 0, labels with -100. Shapes (batch, tokens)."""
    width = max(len(r["input_ids"]) for r in rows)
    fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    return {k: torch.tensor([r[k] + [f] * (width - len(r[k])) for r in rows]) for k, f in fill.items()}


class TokenCount(TrainerCallback):
    """Count the tokens that a model is trained on, for its card."""

    def __init__(self):
        self.tokens = 0

    def collate(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        self.tokens += sum(len(r["input_ids"]) for r in rows)
        return collate(rows)


def train(
    model: PreTrainedModel, corpus: Corpus, steps: int, learning_rate: float, seed: int, log_every: int = 200
) -> tuple[list[dict], int]:
    """Train by Muon with a linearly decaying rate. Returns the learning curve (step, loss) and the number of tokens."""
    counter = TokenCount()
    arguments = TrainingArguments(
        output_dir="unused",
        max_steps=steps,
        per_device_train_batch_size=corpus.batch,
        learning_rate=learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=min(200, steps // 10),
        max_grad_norm=1.0,
        logging_steps=min(log_every, steps),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=corpus,
        data_collator=counter.collate,
        optimizers=(Muon(model, learning_rate), None),
    )
    with progress(steps, f"training on {steps} batches", "step"):
        run(trainer)
    curve = [{"step": h["step"], "loss": h["loss"]} for h in trainer.state.log_history if "loss" in h]
    return curve, counter.tokens


@dataclass
class Training:
    """A base model during training, with the record for its card."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    seed: int
    tokens: int = 0
    curve: list[dict] = field(default_factory=list)

    def read(self, draw, steps: int, batch: int, learning_rate: float) -> None:
        """Train on examples drawn by `draw(rng)`. Further calls continue the training."""
        done = self.curve[-1]["step"] if self.curve else 0
        corpus = Corpus(draw, self.tokenizer, batch, self.seed + done)
        curve, tokens = train(self.model, corpus, steps, learning_rate, self.seed)
        self.curve = [*self.curve, *({"step": done + c["step"], "loss": c["loss"]} for c in curve)]
        self.tokens += tokens

    def finish(self, out: Path) -> dict:
        """Save the model to `out`. Returns the record: weights, tokens, curve."""
        self.model.save_pretrained(out)
        self.tokenizer.save_pretrained(out)
        return {"weights": self.model.num_parameters(), "tokens": self.tokens, "curve": self.curve}

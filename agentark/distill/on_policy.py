"""On-policy distillation by TRL: the student samples, and teachers with their own contexts score its tokens.

The methods differ only in the teachers and their contexts:

OPD      one teacher, with the question as context (GKD, arXiv 2306.13649);
MAD-OPD  each agent of a debate, with the debate as context and a weight by its confidence (arXiv 2605.01347);
SDFT     the student itself, with the debate as context (TRL's SDFTTrainer; see OnPolicy.update_rate).

TRL's DistillationTrainer has one teacher with the student's context, and its SDFTTrainer accepts only the student as
teacher. The trainer here is therefore a subclass of DistillationTrainer, with the divergence of TRL's GKDTrainer. SDFT
uses it too, so that the methods differ only in their teachers. By default SDFTTrainer samples 8 outputs per question
and compares the teacher's 100 likeliest tokens by Jensen-Shannon divergence.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from datasets import Dataset
from pydantic import Field
from transformers import TrainerCallback
from trl import DistillationConfig, DistillationTrainer
from trl.experimental.gkd import GKDTrainer
from trl.trainer.callbacks import SyncRefModelCallback
from trl.trainer.utils import pad

from agentark import StudyError
from agentark.distill.own_outputs import OwnOutputs, TokenBudget, curve, prepared
from agentark.distill.students import Origin, save
from agentark.distill.training import run
from agentark.models import loading
from agentark.models.chat import Messages, prompt_builder, prompt_ids

ROWS = 64  # batch size for confidences
TAU = 1.0  # MAD-OPD: temperature of the softmax over confidences


class OnPolicy(OwnOutputs):
    """On-policy distillation, with one output per question. `temperature` also applies to both distributions in the
    loss."""

    section: ClassVar[str] = "on_policy"

    divergence: float = Field(ge=0, le=1)  # 0: KL to the teacher, 1: reverse KL, between: generalised Jensen-Shannon
    update_rate: float = Field(0.0, ge=0, le=1)  # of a teacher towards the student (SDFT's "ema"); 0: fixed


@dataclass(frozen=True)
class Lesson:
    """A question, each teacher's context for scoring an output, and the teachers' weights (sum 1)."""

    question: str
    contexts: Sequence[Messages]
    weights: Sequence[float]


def train(
    base: Path, teachers: Sequence[Path], lessons: Sequence[Lesson], out: Path, seed: int, settings: OnPolicy
) -> list[dict]:
    """Train a student from `base` on its own outputs to the lessons' questions, and save it to `out`.

    The loss is the mean over output tokens of sum_k w_k D(student, teacher_k). The student's context is the question,
    teacher k's is contexts[k]. No output is filtered and no gold answer is used.

    Returns the learning curve: step, loss (nats per token), length (tokens per output), tokens (trained so far),
    teacher_tokens (read by the teachers so far; after a restart, only those since the checkpoint). Raises StudyError if
    a teacher's vocabulary differs from the student's, if a prompt leaves no room for an output, and for incompatible
    settings.
    """
    if settings.update_rate and (settings.lora_rank or settings.save_steps):
        raise StudyError(
            "on_policy.update_rate: a teacher that follows the student needs lora_rank 0, since it holds whole "
            "weights, and save_steps 0, since checkpoints do not hold it"
        )
    roles = {f"teacher {k}": teacher for k, teacher in enumerate(teachers, start=1)}
    origin = Origin("on-policy", seed, {"base": base, **roles}, list(map(asdict, lessons)), settings.recorded())
    model, tokenizer, shared, checkpoints = prepared(origin, settings, settings.batch_size)
    config = DistillationConfig(**shared, beta=settings.divergence)
    readers = [Reader(teacher, tokenizer, settings.bf16) for teacher in teachers]
    training = PrivateContext(
        model,
        readers,
        settings,
        args=config,
        processing_class=tokenizer,
        train_dataset=rows(lessons, tokenizer, settings.system),
    )
    run(training, checkpoints)
    save(training.model, tokenizer, out, origin)
    return curve(
        training.state.log_history,
        loss="loss",
        length="completions/mean_length",
        tokens="num_tokens",
        teacher_tokens="teacher_tokens",
    )


def rows(lessons: Sequence[Lesson], tokenizer, system: str) -> Dataset:
    """The lessons as a data set for TRL, with the columns `prompt` (the question, after a system prompt if there is
    one), `contexts` and `weights`."""
    ask = prompt_builder(tokenizer, system, "off")
    return Dataset.from_list(
        [
            {"prompt": ask(lesson.question), "contexts": list(lesson.contexts), "weights": list(lesson.weights)}
            for lesson in lessons
        ]
    )


class Reader:
    """A teacher with its tokenizer. Raises StudyError if its vocabulary is not that of the student's tokenizer."""

    def __init__(self, folder: Path, of_student, bf16: bool = False):
        self.model, self.tokenizer = loading.load(folder, torch.bfloat16 if bf16 else None)
        self.model.to(loading.device()).eval().requires_grad_(False)
        self.window = loading.window(folder)
        if self.tokenizer.get_vocab() != of_student.get_vocab():
            raise StudyError(f"{folder}: its vocabulary is not the student's; choose a teacher of the same family")

    def prompts(self, contexts: Sequence[Messages], max_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Chats as left-padded ids and their mask, of shape (chats, tokens). Raises StudyError if a chat leaves no room
        for a reply of `max_tokens`."""
        most = self.window - max_tokens
        return self.padded([prompt_ids(self.tokenizer, chat, most, "off") for chat in contexts], "left")

    def padded(self, tokens: Sequence[Sequence[int]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Sequences of tokens as padded ids and their mask, of shape (sequences, tokens), on the model's device."""
        rows = [torch.tensor(own, device=self.model.device) for own in tokens]
        ids = pad(rows, padding_value=self.tokenizer.pad_token_id, padding_side=side)
        return ids, pad([torch.ones_like(row) for row in rows], padding_value=0, padding_side=side)

    @torch.inference_mode()
    def confidences(self, contexts: Sequence[Messages], replies: Sequence[str]) -> list[float]:
        """The teacher's confidence in each reply to its context, from 0 to 1: the geometric mean of the probabilities
        of the reply's tokens and of the end of turn after them."""
        end = self.tokenizer.eos_token_id
        found: list[float] = []
        for start in range(0, len(contexts), ROWS):
            tokens = [
                [*self.tokenizer(reply, add_special_tokens=False).input_ids, end]
                for reply in replies[start : start + ROWS]
            ]
            outputs, mask = self.padded(tokens, "right")
            read = self.prompts(contexts[start : start + ROWS], outputs.shape[1])
            log_p = logits_of(self.model, *read, outputs, mask).log_softmax(-1)
            of_token = log_p.gather(-1, outputs[..., None])[..., 0] * mask
            found += (of_token.sum(1) / mask.sum(1)).exp().tolist()
        return found


class PrivateContext(DistillationTrainer):
    """A DistillationTrainer with several teachers. Each reads its own context before the student's output."""

    def __init__(self, model, readers: Sequence[Reader], settings: OnPolicy, **named):
        super().__init__(model, None, **named)
        self.readers, self.settings = readers, settings
        self.scored = 0  # tokens that the teachers have read, outputs included
        TokenBudget(self, settings.training_tokens)
        if settings.update_rate:
            self.add_callback(Follow(self, settings.update_rate))

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict:
        found = super()._generate_and_score_completions(inputs)
        device = self.accelerator.device
        for k, reader in enumerate(self.readers):
            read = reader.prompts([row["contexts"][k] for row in inputs], self.settings.max_tokens)
            found |= zip((f"teacher_ids_{k}", f"teacher_mask_{k}"), read, strict=True)
            self.scored += int(self.accelerator.gather(read[1].sum() + found["completion_mask"].sum()).sum())
        self._metrics["train"]["teacher_tokens"] = [self.scored]
        return found | {"weights": torch.tensor([row["weights"] for row in inputs], device=device)}

    def _compute_loss(self, unwrapped_student, inputs: dict, num_items_in_batch) -> tuple:
        outputs, mask = inputs["completion_ids"], inputs["completion_mask"]
        own = logits_of(unwrapped_student, inputs["prompt_ids"], inputs["prompt_mask"], outputs, mask)
        loss = own.new_zeros(())
        for k, reader in enumerate(self.readers):
            read = inputs[f"teacher_ids_{k}"], inputs[f"teacher_mask_{k}"]
            with torch.no_grad():
                target = logits_of(reader.model, *read, outputs, mask)
            of_token = GKDTrainer.generalized_jsd_loss(
                own, target, beta=self.beta, temperature=self.temperature, reduction="none"
            ).sum(-1)
            loss = loss + (inputs["weights"][:, k, None] * of_token * mask).sum()
        if num_items_in_batch is None:
            num_items_in_batch = mask.sum().clamp(min=1)
        log_p = own.detach().log_softmax(-1)
        entropy = -((log_p.exp() * log_p).sum(-1) * mask).sum()
        return loss / num_items_in_batch, entropy, mask.sum()


def logits_of(model, prompts, prompt_mask, outputs, output_mask) -> torch.Tensor:
    """The logits of a batch's output tokens after its left-padded prompts, of shape (outputs, tokens, vocabulary)."""
    ids, mask = torch.cat([prompts, outputs], dim=1), torch.cat([prompt_mask, output_mask], dim=1)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    kept = outputs.shape[1] + 1
    logits = model(input_ids=ids, attention_mask=mask, position_ids=places, logits_to_keep=kept, use_cache=False).logits
    return logits[:, -kept:-1].float()


class Follow(TrainerCallback):
    """After every step, move each teacher towards the student by the share `rate` (TRL's "ema" teacher)."""

    def __init__(self, trainer: PrivateContext, rate: float):
        self.trainer, self.rate = trainer, rate

    def on_step_end(self, arguments, state, control, **_) -> None:
        student = self.trainer.accelerator.unwrap_model(self.trainer.model)
        for reader in self.trainer.readers:
            SyncRefModelCallback.sync_target_model(student, reader.model, self.rate)


def by_confidence(
    lessons: Sequence[Lesson], teachers: Sequence[Path], replies: Sequence[Sequence[str]], bf16: bool = False
) -> list[Lesson]:
    """The lessons with weights softmax(c_k / TAU), where c_k is teacher k's confidence in its reply to its context.

    replies: per lesson, one per teacher. MAD-OPD prompts the teachers for a confidence between 0 and 100 and divides it
    by 100. The models of the generated world cannot state one, so it is measured: see `Reader.confidences`. Raises
    StudyError like `Reader`.
    """
    measured = []
    for k, teacher in enumerate(teachers):
        reader = Reader(teacher, loading.load_tokenizer(teacher), bf16)
        measured.append(reader.confidences([lesson.contexts[k] for lesson in lessons], [own[k] for own in replies]))
    weighted = []
    for lesson, own in zip(lessons, zip(*measured, strict=True), strict=True):
        shares = [math.exp(c / TAU) for c in own]
        weighted.append(replace(lesson, weights=[share / sum(shares) for share in shares]))
    return weighted

"""The process reward model (method, section 3, PAD part 1): a scalar score at the end of each step of a trace.

It starts from the student's weights. Stage I trains the last layer and the new head, stage II all weights. A step is
labelled good if it agrees with the consensus of its debate's verified traces, whose answers extraction found correct.
The exact truth of steps is used for evaluation only. The training libraries are imported in the functions that train;
see sft.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from agentark import StudyError
from agentark.distill.scorer import encode, pad
from agentark.distill.settings import RewardModel
from agentark.models import loading
from agentark.schemas import CheckedTrace
from agentark.traces.reading import SUMMARISER

TEMPERATURE = 0.1  # tau of the contrastive loss; the paper prints none, the public code's contrastive term uses 0.1
PROJECTION = 64  # width of the projected states in the public code's loss, chosen for models of this size


@dataclass(frozen=True)
class DebateSteps:
    """The traces of one question's debate, and whether each step agrees with the consensus."""

    question: str
    traces: list[str]
    agrees: list[list[bool]]


def debates(checked: Sequence[CheckedTrace], questions: dict[str, str]) -> list[DebateSteps]:
    """One item per debate with at least one correct agent: its distinct traces, in order, each step marked by
    agreement.

    Other debates are skipped, since they have no consensus to learn from.
    """
    items = []
    for key, group in itertools.groupby(checked, key=lambda t: t.question_id):
        debate = list(group)
        if not any(t.correct and t.agent != SUMMARISER for t in debate):
            continue
        distinct = {t.text: t.step_agrees for t in debate if t.steps}
        items.append(DebateSteps(questions[key], list(distinct), list(distinct.values())))
    return items


def encoded(debate: DebateSteps, tokenizer: PreTrainedTokenizerBase) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of each trace. At the end of a step the label is 1 if the step agrees with the consensus,
    else 0; elsewhere it is -100."""
    rows = []
    for trace, agrees in zip(debate.traces, debate.agrees, strict=True):
        ids, ends = encode(debate.question, trace, tokenizer)
        labels = [-100] * len(ids)
        for end, good in zip(ends, agrees, strict=True):
            labels[end] = int(good)
        rows.append((ids, labels))
    return rows


def collate(debates: list[list[tuple[list[int], list[int]]]], fill: int) -> dict[str, torch.Tensor]:
    """Traces of several encoded debates as one batch of (traces, tokens) tensors.

    `labels` encode the question: 2 q + 1 for a step of the q-th question that agrees with its consensus, 2 q otherwise.
    """
    rows = [ids for debate in debates for ids, _ in debate]
    labels = [[x if x < 0 else 2 * q + x for x in own] for q, debate in enumerate(debates) for _, own in debate]
    mask = pad([[1] * len(r) for r in rows], 0)
    return {"input_ids": pad(rows, fill), "attention_mask": mask, "labels": pad(labels, -100)}


def contrastive_loss(scores: torch.Tensor, question: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """The paper's loss: for every good step, the negative log-probability that it outscores its question's bad steps.

    L = - mean over r+ of log[ exp(s(r+)/tau) / (exp(s(r+)/tau) + sum over r- of exp(s(r-)/tau)) ], s = sigmoid(R_phi).
    scores, question (int), good (bool): shape (steps,). Questions without bad steps do not contribute; the loss is 0 if
    no question has any.
    """
    s = torch.sigmoid(scores) / TEMPERATURE
    against = (question[:, None] == question[None, :]) & good[:, None] & ~good[None, :]
    used = against.any(dim=1)
    if not used.any():
        return scores.sum() * 0
    negatives = s[None, :].expand_as(against).masked_fill(~against, -torch.inf)[used].logsumexp(dim=1)
    return F.softplus(negatives - s[used]).mean()


def code_loss(scores: torch.Tensor, good: torch.Tensor, projected: torch.Tensor) -> torch.Tensor:
    """The public code's loss: cross-entropy plus 0.5 times a supervised contrastive loss on unit projections
    (steps, width)."""
    target = good.to(scores.dtype)
    similarity = projected @ projected.T / TEMPERATURE
    own = torch.eye(len(good), dtype=torch.bool, device=scores.device)
    log_share = similarity - similarity.masked_fill(own, -torch.inf).logsumexp(dim=1, keepdim=True)
    alike = (good[:, None] == good[None, :]) & ~own
    supervised = -(log_share * alike).sum(1) / alike.sum(1).clamp(min=1)
    return F.binary_cross_entropy_with_logits(scores, target) + 0.5 * supervised.mean()


def step_loss(
    outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor, *, loss: str, projection
) -> torch.Tensor:
    """The chosen loss on the scores at the ends of steps, weighted by this part's share of the steps in the whole batch
    (`num_items_in_batch`), in case the batch is divided."""
    at = labels >= 0
    scores, question, good = outputs.logits[..., 0][at], labels[at] // 2, labels[at] % 2 == 1
    share = at.sum() / num_items_in_batch
    if loss == "paper":
        return share * contrastive_loss(scores, question, good)
    if loss == "cross-entropy":  # the first term of the public code's loss
        return share * F.binary_cross_entropy_with_logits(scores, good.to(scores.dtype))
    return share * code_loss(scores, good, F.normalize(projection(outputs.hidden_states[-1][at]), dim=-1))


def train(base: Path, debates: Sequence[DebateSteps], out: Path, seed: int, settings: RewardModel) -> list[dict]:
    """Train a reward model from `base` in two stages; save stage I's to `out`/stage-1, the final one to `out`.

    If `lora_rank` is above 0, the layers are trained by LoRA and the head directly. Returns the learning curve over
    both stages: step, loss, stage. Raises StudyError if no debate holds both agreeing and disagreeing steps.
    """
    from agentark.distill.students import Origin, save
    from agentark.distill.training import curve, run

    mixed = [d for d in debates if len({a for trace in d.agrees for a in trace}) == 2]
    if not mixed:
        raise StudyError(
            f"{out.name}: no debate holds both agreeing and disagreeing steps; debate more questions, or with another "
            "teacher"
        )
    tokenizer = loading.load_tokenizer(base)
    encoded_debates = [encoded(debate, tokenizer) for debate in mixed]
    model, projection = with_head(base, seed, settings)
    last = f"layers.{model.config.num_hidden_layers - 1}."
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    history: list[dict] = []
    for stage, steps in ((1, settings.stage_1_steps), (2, settings.stage_2_steps)):
        for name, parameter in trained:
            parameter.requires_grad = stage == 2 or any(part in name for part in (last, "score.", "projection."))
        trainer = stage_trainer(model, encoded_debates, projection, seed, steps, settings, tokenizer.pad_token_id)
        run(trainer)
        start = history[-1]["step"] if history else 0
        history += [
            {"step": start + h["step"], "loss": h["loss"], "stage": stage}
            for h in curve(trainer.state.log_history, "loss")
        ]
        parameters = settings.recorded() | {"stage": stage, "steps": steps}
        origin = Origin("reward model", seed, {"base": base}, [asdict(d) for d in mixed], parameters)
        model._modules.pop("projection", None)
        save(model, tokenizer, out / "stage-1" if stage == 1 else out, origin)
        if projection is not None:
            model.projection = projection
    return history


def with_head(base: Path, seed: int, settings: RewardModel) -> tuple[loading.Model, torch.nn.Linear | None]:
    """`base` with a new scalar head, and the projection for the public code's loss (None for other losses)."""
    from agentark.distill.training import with_lora

    torch.manual_seed(seed)
    model = loading.load_scorer(base, torch.float32 if settings.lora_rank == 0 else None)
    model.score.float()  # small updates would be lost to rounding in 16 bits
    model.config.output_hidden_states = settings.loss == "code"
    projection = torch.nn.Linear(model.config.hidden_size, PROJECTION) if settings.loss == "code" else None
    if settings.lora_rank:
        model = with_lora(model, seed, settings.lora_rank, modules_to_save=["score"])
    if projection is not None:
        model.projection = projection  # trained with the model, removed before saving
    return model, projection


def stage_trainer(model, debates, projection, seed: int, steps: int, settings: RewardModel, padding: int):
    """transformers' Trainer for one stage over encoded debates."""
    from transformers import Trainer, TrainingArguments

    from agentark.distill.training import arguments

    config = TrainingArguments(
        **arguments(settings, seed, settings.batch_size),
        max_steps=steps,
        warmup_steps=steps // 20,
        weight_decay=0.1,  # public code
        adam_beta2=0.95,  # public code
        remove_unused_columns=False,
        logging_steps=max(1, steps // 20),
    )
    return Trainer(
        model,
        config,
        train_dataset=debates,
        data_collator=partial(collate, fill=padding),
        compute_loss_func=partial(step_loss, loss=settings.loss, projection=projection),
    )


def debate_tokens(debates: Sequence[DebateSteps], tokenizer: PreTrainedTokenizerBase) -> float:
    """Mean tokens per debate for the reward model: the distinct traces, each with the question.

    Debates whose steps all agree or all disagree are left out, since they are not trained on.
    """
    mixed = [d for d in debates if len({a for trace in d.agrees for a in trace}) == 2] or list(debates)
    lengths = [len(ids) for debate in mixed for ids, _ in encoded(debate, tokenizer)]
    return sum(lengths) / len(mixed)

"""The process reward model (method, section 3, PAD part 1): a score for each step of a trace.

It starts from the student's weights. Stage I trains the last layer and the new head, stage II all weights. A step is
labelled good if it agrees with the consensus of its debate (step_labels). The exact truth of steps is used only for
evaluation. The training libraries are imported in the functions that train; see sft.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from agentark import StudyError
from agentark.distill.scorer import encode, pad, step_rewards
from agentark.distill.settings import RewardModel
from agentark.distill.step_labels import DebateSteps
from agentark.models import loading

TEMPERATURE = 0.1  # tau of the contrastive loss; the paper states none; the public code's contrastive term uses 0.1
PROJECTION = 64  # width of the projected states in the public code's loss, chosen for models of this size


Encoded = list[tuple[list[int], int, list[int]]]


def encode_debate(debate: DebateSteps, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Token ids, the position of the prompt's last token, and labels of each trace. At the end of a step the label is 1
    if the step agrees with the consensus, else 0; elsewhere it is -100."""
    rows = []
    for trace, agrees in zip(debate.traces, debate.agrees, strict=True):
        ids, (prompt, *ends) = encode(debate.question, trace, tokenizer)
        labels = [-100] * len(ids)
        for end, good in zip(ends, agrees, strict=True):
            labels[end] = int(good)
        rows.append((ids, prompt, labels))
    return rows


def collate(debates: list[Encoded], fill: int) -> dict[str, torch.Tensor]:
    """Traces of several encoded debates as one batch of (traces, tokens) tensors, and `prompts`, (traces,): the
    positions of the prompts' last tokens.

    `labels` encode the question: 2 q + 1 for a step of the q-th question that agrees with its consensus, 2 q otherwise.
    """
    rows = [row for debate in debates for row in debate]
    labels = [[x if x < 0 else 2 * q + x for x in own] for q, debate in enumerate(debates) for *_, own in debate]
    return {
        "input_ids": pad([ids for ids, *_ in rows], fill),
        "attention_mask": pad([[1] * len(ids) for ids, *_ in rows], 0),
        "prompts": torch.tensor([prompt for _, prompt, _ in rows]),
        "labels": pad(labels, -100),
    }


def contrastive_loss(
    scores: torch.Tensor, question: torch.Tensor, trace: torch.Tensor, good: torch.Tensor
) -> torch.Tensor:
    """The paper's loss: for every good step, the negative log-probability that it outscores the bad steps of the other
    traces to its question.

    L = - mean over r+ of log[ exp(s(r+)/tau) / (exp(s(r+)/tau) + sum over r- of exp(s(r-)/tau)) ], s = sigmoid(R_phi).
    scores, question (int), trace (int), good (bool): shape (steps,). A good step without negatives does not contribute;
    the loss is 0 if none has any.
    """
    s = torch.sigmoid(scores) / TEMPERATURE
    others = (question[:, None] == question[None, :]) & (trace[:, None] != trace[None, :])
    against = others & good[:, None] & ~good[None, :]
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


def agreeing_nll(scores: torch.Tensor, trace: torch.Tensor, tokens: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """The negative log-likelihood per token of the traces in which every step is good; 0 if there are none.

    The contrastive loss separates the likelihoods of good and bad steps but does not raise them, so by itself it
    degrades a language model. scores, trace, tokens, good: (steps,). `scores` are of the kind "likelihood": their
    log-sigmoid is a step's mean log-probability.
    """
    all_good = ~torch.isin(trace, trace[~good])
    if not all_good.any():
        return scores.sum() * 0
    return -(F.logsigmoid(scores) * tokens)[all_good].sum() / tokens[all_good].sum()


def step_loss(
    outputs, inputs: dict[str, torch.Tensor], num_items_in_batch: torch.Tensor, *, settings: RewardModel, projection
) -> torch.Tensor:
    """The loss `settings.loss` on the step scores of a collated batch. `num_items_in_batch`: steps of the full batch.
    If the trainer divides a batch, the loss of each part is weighted by its share of these steps."""
    row, end = (inputs["labels"] >= 0).nonzero(as_tuple=True)
    before = torch.cat([end[:1], end[:-1]])
    start = torch.where(torch.cat([row[:1] < 0, row[1:] == row[:-1]]), before, inputs["prompts"][row])
    scores = step_rewards(settings.score, outputs.logits, inputs["input_ids"], row, start, end)
    label = inputs["labels"][row, end]
    question, good = label // 2, label % 2 == 1
    share = len(row) / num_items_in_batch
    if settings.loss == "paper":
        loss = contrastive_loss(scores, question, row, good)
        if settings.nll_weight:
            loss = loss + settings.nll_weight * agreeing_nll(scores, row, end - start, good)
        return share * loss
    if settings.loss == "cross-entropy":  # the first term of the public code's loss
        return share * F.binary_cross_entropy_with_logits(scores, good.to(scores.dtype))
    projected = projection(outputs.hidden_states[-1][row, end])
    return share * code_loss(scores, good, F.normalize(projected, dim=-1))


def train(base: Path, debates: Sequence[DebateSteps], out: Path, seed: int, settings: RewardModel) -> list[dict]:
    """Train a reward model from `base` in two stages; save that of stage I to `out`/stage-1 and the final one to `out`.

    If `lora_rank` is above 0, the layers are trained by LoRA and the head directly. Returns the learning curve over
    both stages: step, loss, stage. Raises StudyError if no debate has both agreeing and disagreeing steps.
    """
    from agentark.distill.students import Origin, save
    from agentark.distill.training import checkpoints_of, curve, run

    if settings.nll_weight and settings.score != "likelihood":
        raise StudyError(f"{settings.section}: nll_weight needs score=likelihood; set it to 0 for a head")
    mixed = [d for d in debates if len({a for trace in d.agrees for a in trace}) == 2]
    if not mixed:
        raise StudyError(
            f"{out.name}: no debate holds both agreeing and disagreeing steps; debate more questions, or with another "
            "teacher"
        )
    tokenizer = loading.load_tokenizer(base)
    encoded_debates = [encode_debate(debate, tokenizer) for debate in mixed]
    model, projection = scoring_model(base, seed, settings)
    last = f"layers.{model.config.get_text_config().num_hidden_layers - 1}."
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    history: list[dict] = []
    for stage, steps in ((1, settings.stage_1_steps), (2, settings.stage_2_steps)):
        for name, parameter in trained:
            parameter.requires_grad = stage == 2 or any(part in name for part in (last, "score.", "projection."))
        parameters = settings.recorded() | {"stage": stage, "steps": steps}
        origin = Origin("reward model", seed, {"base": base}, [asdict(d) for d in mixed], parameters)
        checkpoints = checkpoints_of(origin, settings)
        config = stage_arguments(seed, steps, settings, checkpoints)
        trainer = stage_trainer(model, config, encoded_debates, projection, settings, tokenizer.pad_token_id)
        run(trainer, checkpoints)
        start = history[-1]["step"] if history else 0
        history += [
            {"step": start + h["step"], "loss": h["loss"], "stage": stage}
            for h in curve(trainer.state.log_history, "loss")
        ]
        model._modules.pop("projection", None)
        save(model, tokenizer, out / "stage-1" if stage == 1 else out, origin)
        if projection is not None:
            model.projection = projection
    return history


def scoring_model(base: Path, seed: int, settings: RewardModel) -> tuple[loading.Model, torch.nn.Linear | None]:
    """Load `base` as a reward model, with a new scalar head if settings.score is "head". Returns the model and the
    projection for the public code's loss (None for other losses)."""
    from agentark.distill.training import freeze_vision, with_lora

    torch.manual_seed(seed)
    precision = torch.float32 if settings.lora_rank == 0 else None
    head = settings.score == "head"
    if head:
        model = loading.load_scorer(base, precision)
        model.score.float()  # small updates would be lost to rounding in 16 bits
    else:
        model = loading.load(base, precision)[0]
        freeze_vision(model)
    model.config.step_score = settings.score
    model.config.output_hidden_states = settings.loss == "code"
    projection = (
        torch.nn.Linear(model.config.get_text_config().hidden_size, PROJECTION) if settings.loss == "code" else None
    )
    if settings.lora_rank:
        model = with_lora(model, seed, settings.lora_rank, modules_to_save=["score"] if head else None)
    if projection is not None:
        model.projection = projection  # trained with the model, removed before saving
    return model, projection


def stage_arguments(seed: int, steps: int, settings: RewardModel, checkpoints: Path | None):
    """The arguments of one stage's trainer. The trainer also writes a checkpoint at the end of a stage, so a
    training that is killed in stage II does not repeat stage I."""
    from transformers import TrainingArguments

    from agentark.distill.training import arguments

    return TrainingArguments(
        **arguments(settings, seed, settings.batch_size, checkpoints=checkpoints),
        max_steps=steps,
        warmup_steps=steps // 20,
        weight_decay=0.1,  # public code
        adam_beta2=0.95,  # public code
        remove_unused_columns=False,
        logging_steps=max(1, steps // 20),
    )


def stage_trainer(model, config, debates, projection, settings: RewardModel, padding: int):
    """The trainer of one stage over encoded debates."""
    from agentark.distill.training import StepTrainer

    return StepTrainer(
        model,
        config,
        train_dataset=debates,
        data_collator=partial(collate, fill=padding),
        step_loss=partial(step_loss, settings=settings, projection=projection),
    )


def debate_tokens(debates: Sequence[DebateSteps], tokenizer: PreTrainedTokenizerBase) -> float:
    """Mean tokens per debate for the reward model: the distinct traces, each with the question.

    Debates whose steps all agree or all disagree are left out, since they are not trained on.
    """
    mixed = [d for d in debates if len({a for trace in d.agrees for a in trace}) == 2] or list(debates)
    lengths = [len(ids) for debate in mixed for ids, *_ in encode_debate(debate, tokenizer)]
    return sum(lengths) / len(mixed)

"""The process reward model (method, section 3, PAD part 1): a scalar read at the end of each step of a trace.

It starts from the student's weights. Stage I trains the last layer and the new head, stage II all weights. A step counts
as good if it agrees with the consensus of its debate's verified traces, those that extraction found to end right. The
truth about steps is used only to judge it. What trains is imported where it trains; see sft.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from transformers import PreTrainedTokenizerFast

from agentark import StudyError, models, parallel, stats
from agentark.debate.prompts import solve_prompt
from agentark.debate.protocols import SUMMARISER
from agentark.schemas import CheckedTrace, Score
from agentark.traces import lines_of

LOSSES = ("paper", "code", "cross-entropy")
TEMPERATURE = 0.1  # tau of the contrastive loss; the paper prints none, the public code's contrastive term uses 0.1
ROWS, TOKENS, LOGITS = 256, 2**17, 2**31  # at most in a batch that is only scored: 8 GB of logits, a few of states
PROJECTION = 64  # width of the projected states of the public code's loss, at this size of model


@dataclass(frozen=True)
class DebateSteps:
    """All traces of one question's debate, and for each of their steps whether it agrees with the consensus."""

    question: str
    traces: list[str]
    agrees: list[list[bool]]


def debates(checked: Sequence[CheckedTrace], questions: dict[str, str]) -> list[DebateSteps]:
    """One item a debate in which some agent was right: its distinct traces, in the order spoken, each step marked by
    agreement. Where nobody was right there is no consensus to learn from."""
    items = []
    for key, group in itertools.groupby(checked, key=lambda t: t.question_id):
        debate = list(group)
        if not any(t.correct and t.agent != SUMMARISER for t in debate):
            continue
        distinct = {t.text: t.step_agrees for t in debate if t.steps}
        items.append(DebateSteps(questions[key], list(distinct), list(distinct.values())))
    return items


def encode(question: str, trace: str, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Token ids of question and trace, and the positions at which each step ends (its newline, or the end of turn)."""
    lines = lines_of(trace)
    chat = tokenizer.apply_chat_template(solve_prompt(question), tokenize=False, add_generation_prompt=True)
    # In one call: the tokenizer takes longer over a call than over a line.
    ids, newline, *said = tokenizer([chat, "\n", *lines], add_special_tokens=False).input_ids
    ends = []
    for i, line in enumerate(said):
        ids = ids + line + ([tokenizer.eos_token_id] if i == len(said) - 1 else newline)
        ends.append(len(ids) - 1)
    return ids, ends


def pad(rows: list[list[int]], fill: int) -> torch.Tensor:
    """Right-padded to (rows, longest)."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], batch_first=True, padding_value=fill)


def encoded(debate: DebateSteps, tokenizer: PreTrainedTokenizerFast) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of each trace; a label is -100 but at the end of a step, where 1 says that the step agrees
    with the consensus and 0 that it does not."""
    rows = []
    for trace, agrees in zip(debate.traces, debate.agrees, strict=True):
        ids, ends = encode(debate.question, trace, tokenizer)
        labels = [-100] * len(ids)
        for end, good in zip(ends, agrees, strict=True):
            labels[end] = int(good)
        rows.append((ids, labels))
    return rows


def collate(debates: list[list[tuple[list[int], list[int]]]], fill: int) -> dict[str, torch.Tensor]:
    """Traces of several encoded debates as one batch, (traces, tokens) each. `labels` tells questions apart: 2 q + 1 for a
    step of the q-th question that agrees with its consensus, 2 q for one that does not."""
    rows = [ids for debate in debates for ids, _ in debate]
    labels = [[x if x < 0 else 2 * q + x for x in own] for q, debate in enumerate(debates) for _, own in debate]
    mask = pad([[1] * len(r) for r in rows], 0)
    return {"input_ids": pad(rows, fill), "attention_mask": mask, "labels": pad(labels, -100)}


def contrastive_loss(scores: torch.Tensor, question: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """The paper's: for every good step, minus the log-probability that it outscores its question's bad steps.

    L = - mean over r+ of log[ exp(s(r+)/tau) / (exp(s(r+)/tau) + sum over r- of exp(s(r-)/tau)) ], s = sigmoid(R_phi).
    scores, question (int), good (bool): shape (steps,). A question without bad steps teaches nothing here: loss 0.
    """
    s = torch.sigmoid(scores) / TEMPERATURE
    against = (question[:, None] == question[None, :]) & good[:, None] & ~good[None, :]
    used = against.any(dim=1)
    if not used.any():
        return scores.sum() * 0
    negatives = s[None, :].expand_as(against).masked_fill(~against, -torch.inf)[used].logsumexp(dim=1)
    return F.softplus(negatives - s[used]).mean()


def code_loss(scores: torch.Tensor, good: torch.Tensor, projected: torch.Tensor) -> torch.Tensor:
    """The public code's: cross-entropy plus half a supervised contrastive loss over unit projections (steps, width)."""
    target = good.to(scores.dtype)
    likeness = projected @ projected.T / TEMPERATURE
    own = torch.eye(len(good), dtype=torch.bool, device=scores.device)
    log_share = likeness - likeness.masked_fill(own, -torch.inf).logsumexp(dim=1, keepdim=True)
    alike = (good[:, None] == good[None, :]) & ~own
    supervised = -(log_share * alike).sum(1) / alike.sum(1).clamp(min=1)
    return F.binary_cross_entropy_with_logits(scores, target) + 0.5 * supervised.mean()


def step_loss(
    outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor, *, loss: str, projection
) -> torch.Tensor:
    """Read the scores at the ends of steps and apply the chosen loss, weighted by the part's share of the steps of the
    whole batch (`num_items_in_batch`), where that is divided."""
    at = labels >= 0
    scores, question, good = outputs.logits[..., 0][at], labels[at] // 2, labels[at] % 2 == 1
    share = at.sum() / num_items_in_batch
    if loss == "paper":
        return share * contrastive_loss(scores, question, good)
    if loss == "cross-entropy":  # each step by itself: the first term of the public code's loss
        return share * F.binary_cross_entropy_with_logits(scores, good.to(scores.dtype))
    return share * code_loss(scores, good, F.normalize(projection(outputs.hidden_states[-1][at]), dim=-1))


def train(
    base: Path,
    debates: Sequence[DebateSteps],
    out: Path,
    seed: int,
    loss: str,
    stage_1_steps: int,
    stage_2_steps: int,
    batch: int,
    learning_rate: float,
    lora_rank: int = 0,
    per_device: int = 0,
) -> list[dict]:
    """Train a reward model from `base` in two stages; save stage I's to `out`/stage-1, the final one to `out`.

    batch counts debates a step; `per_device`: see training.divided. With `lora_rank` above 0 the layers train through
    LoRA, the head as it is; by PEFT, since Unsloth has no head of this kind. Returns the learning curve over both
    stages: step, loss, stage.
    """
    from transformers import Trainer, TrainingArguments

    from agentark.distill.students import Origin, save
    from agentark.distill.training import curve, divided, run, settings, with_lora

    if loss not in LOSSES:
        raise StudyError(f"loss {loss!r} is unknown; choose one of {', '.join(LOSSES)}")
    mixed = [d for d in debates if len({a for trace in d.agrees for a in trace}) == 2]
    if not mixed:
        raise StudyError(f"{out.name}: no debate holds both agreeing and differing steps; nothing to learn from")
    shares = divided(batch, per_device)
    tokenizer = models.load_tokenizer(base)
    read = [encoded(debate, tokenizer) for debate in mixed]
    torch.manual_seed(seed)
    model = models.load_scorer(base, torch.float32 if lora_rank == 0 else None)
    model.score.float()  # its steps are small: they would vanish in 16 bits
    model.config.output_hidden_states = loss == "code"
    projection = torch.nn.Linear(model.config.hidden_size, PROJECTION) if loss == "code" else None
    last = f"layers.{model.config.num_hidden_layers - 1}."
    if lora_rank:
        model = with_lora(model, seed, lora_rank, modules_to_save=["score"])
    if projection is not None:
        model.projection = projection  # trained with the rest, dropped when saved
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    history = []
    for stage, steps in ((1, stage_1_steps), (2, stage_2_steps)):
        for name, parameter in trained:
            parameter.requires_grad = stage == 2 or any(part in name for part in (last, "score.", "projection."))
        arguments = TrainingArguments(
            **settings(seed),
            **shares,
            max_steps=steps,
            learning_rate=learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=steps // 20,
            weight_decay=0.1,  # public code
            adam_beta2=0.95,  # public code
            remove_unused_columns=False,
            logging_steps=max(1, steps // 20),
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=read,
            data_collator=partial(collate, fill=tokenizer.pad_token_id),
            compute_loss_func=partial(step_loss, loss=loss, projection=projection),
        )
        run(trainer)
        start = history[-1]["step"] if history else 0
        history += [
            {"step": start + h["step"], "loss": h["loss"], "stage": stage}
            for h in curve(trainer.state.log_history, "loss")
        ]
        parameters = dict(
            loss=loss, stage=stage, steps=steps, batch=batch, learning_rate=learning_rate, lora_rank=lora_rank
        )
        origin = Origin("reward model", seed, {"base": base}, [asdict(d) for d in mixed], parameters)
        model._modules.pop("projection", None)
        save(model, tokenizer, out / "stage-1" if stage == 1 else out, origin)
        if projection is not None:
            model.projection = projection
    return history


class StepScorer:
    """A reward model, ready to score."""

    def __init__(self, folder: Path):
        self.tokenizer = models.load_tokenizer(folder)
        torch.manual_seed(0)  # of a fresh head, where `folder` holds a base: the baseline without training
        self.model = models.load_scorer(folder).to(models.device()).eval()

    @torch.inference_mode()
    def __call__(self, questions: Sequence[str], traces: Sequence[str]) -> list[list[float]]:
        """Step scores in [0, 1] of each trace, one a line; empty for an empty trace."""
        scores = []
        for ids, mask, ends in batches(questions, traces, self.tokenizer, TOKENS, self.model.device):
            value = torch.sigmoid(self.model(input_ids=ids, attention_mask=mask).logits[..., 0].float())
            scores += [value[i, e].tolist() for i, e in enumerate(ends)]
        return scores


def batches(
    questions: Sequence[str], traces: Sequence[str], tokenizer: PreTrainedTokenizerFast, tokens: int, device
) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[list[int]]]]:
    """Traces in batches of at most `tokens`, padding included, and ROWS rows: ids, mask, each trace's ends of steps."""
    encoded = [encode(q, t, tokenizer) for q, t in zip(questions, traces, strict=True)]
    rows = max(1, min(ROWS, tokens // max((len(ids) for ids, _ in encoded), default=1)))
    for start in range(0, len(encoded), rows):
        some = encoded[start : start + rows]
        ids = pad([ids for ids, _ in some], tokenizer.pad_token_id).to(device)
        mask = pad([[1] * len(ids) for ids, _ in some], 0).to(device)
        yield ids, mask, [ends for _, ends in some]


@torch.inference_mode()
def likelihood_scores(folder: Path, questions: Sequence[str], traces: Sequence[str]) -> list[list[float]]:
    """The second baseline without training: a step's mean token probability under the language model itself."""
    model, tokenizer = models.load(folder)
    model.to(models.device()).eval()
    tokens = LOGITS // model.config.get_text_config().vocab_size
    scores = []
    for ids, mask, ends_of_rows in batches(questions, traces, tokenizer, tokens, model.device):
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        token = torch.softmax(logits, -1).gather(-1, ids[:, 1:, None])[..., 0]
        for i, ends in enumerate(ends_of_rows):
            lengths = np.diff([ends[0] - 2, *ends]) if ends else []
            spans = zip(ends, lengths, strict=True)
            scores.append([float(token[i, max(0, end - int(n)) : end].mean()) for end, n in spans])
    return scores


def aggregate(scores: Sequence[float], how: str) -> float:
    """A trace's reward from its step scores: their mean, or their least. An empty trace earns 0."""
    if how not in ("mean", "min"):
        raise StudyError(f"aggregate {how!r} is unknown; choose mean or min")
    return 0.0 if not len(scores) else float(np.mean(scores) if how == "mean" else np.min(scores))


def step_auroc(scores: Sequence[Sequence[float]], right: Sequence[Sequence[bool]]) -> float:
    """The chance that a right step outscores a wrong one, over all steps of all traces: of all pairs of such, the share
    that Mann and Whitney's U counts."""
    s = np.concatenate([np.asarray(row, float) for row in scores])
    r = np.concatenate([np.asarray(row, bool) for row in right])
    n = r.sum()
    return float((rankdata(s)[r].sum() - n * (n + 1) / 2) / (n * (len(r) - n)))


def first_error_located(
    scores: Sequence[Sequence[float]], right: Sequence[Sequence[bool]], threshold: float
) -> list[bool]:
    """For each trace that has an error: whether the first step scored below `threshold` is the first wrong one."""
    hits = []
    for s, r in zip(scores, right, strict=True):
        if not all(r):
            low = np.flatnonzero(np.asarray(s) < threshold)
            hits.append(bool(len(low)) and int(low[0]) == r.index(False))
    return hits


def best_threshold(scores: Sequence[Sequence[float]], agrees: Sequence[Sequence[bool]]) -> float:
    """The threshold that locates the first disagreement best on the debates it was trained on (no truth needed)."""
    grid = np.quantile(np.concatenate([*map(np.asarray, scores)]), np.linspace(0.02, 0.6, 30))
    return float(max(grid, key=lambda t: np.mean(first_error_located(scores, agrees, t) or [0])))


def examined(
    method: str,
    folder: Path,
    train: Sequence[CheckedTrace],
    test: Sequence[CheckedTrace],
    questions: dict[str, str],
) -> dict[str, stats.Estimate]:
    """One scorer by its measures (see quality); without the truth of steps, or of traces, those that need it are missing."""
    scored = partial(likelihood_scores, folder) if method == "likelihood" else StepScorer(folder)
    scores = scored([questions[t.question_id] for t in test], [t.text for t in test])
    found = {}
    if len({t.correct for t in test}) == 2:
        whole = [[aggregate(s, "mean")] for s in scores]
        found["prm_trace_auroc"] = auroc_by_debate(whole, test, [[t.correct] for t in test])
    if all(t.step_right for t in test):
        truth = [t.step_right for t in test]
        own = scored([questions[t.question_id] for t in train], [t.text for t in train])
        threshold = best_threshold(own, [t.step_agrees for t in train])
        found["prm_step_auroc"] = auroc_by_debate(scores, test, truth)
        found["first_error_located"] = stats.mean(first_error_located(scores, truth, threshold))
    return found


def quality(
    base: Path,
    trained: Path,
    seeds: Sequence[int],
    train: Sequence[CheckedTrace],
    test: Sequence[CheckedTrace],
    questions: dict[str, str],
    student: str,
    task: str,
) -> list[Score]:
    """AUROC of traces, of steps, and first errors located on `test` traces, for two baselines and both stages.

    A trace's score is the mean of its steps', its truth whether it ends right. The other two need the truth of steps,
    which published questions do not have: without it they are left out. Intervals are over debates: a debate's traces are
    resampled together, since they share a question. Trained scorers have a row a seed and one of the mean of their
    measures over seeds ("all").
    """
    distinct = list({(t.question_id, t.text): t for t in test if t.steps}.values())
    tuned = list({(t.question_id, t.text): t for t in train if t.steps}.values())[:2000]
    folders = {("fresh head", 0): base, ("likelihood", 0): base}
    folders |= {("stage I", s): trained / f"seed-{s}" / "stage-1" for s in seeds}
    folders |= {("stage II", s): trained / f"seed-{s}" for s in seeds}
    shared = dict(train=tuned, test=distinct, questions=questions)
    calls = [dict(method=method, folder=folder, **shared) for (method, _), folder in folders.items()]
    measured: dict[str, dict[int, dict[str, stats.Estimate]]] = {}
    for (method, seed), found in zip(folders, parallel.each(examined, calls), strict=True):
        if not found:
            raise StudyError(
                f"{trained.name}: the traces to judge by are {'all' if distinct[0].correct else 'never'} right; use more"
            )
        measured.setdefault(method, {})[seed] = found
    rows = []
    for method, by_seed in measured.items():
        for metric in next(iter(by_seed.values())):
            each = {str(seed): estimates[metric] for seed, estimates in by_seed.items()}
            mean = [float(np.mean([getattr(e, f) for e in each.values()])) for f in ("value", "lo", "hi")]
            entries = {"all": stats.Estimate(*mean, next(iter(each.values())).n)} | (each if len(each) > 1 else {})
            rows += [
                Score(
                    study="reward_model", experiment="test", teacher="", student=student, method=method, baseline="",
                    train_task=task, test_task=task, seed=seed, metric=metric, tokens_per_question=0.0, **asdict(e),
                )
                for seed, e in entries.items()
            ]  # fmt: skip
    return rows


def auroc_by_debate(
    scores: Sequence[Sequence[float]], traces: Sequence[CheckedTrace], truth: Sequence[Sequence[bool]]
) -> stats.Estimate:
    """AUROC of all scores of all traces with a bootstrap interval over debates; n counts debates."""
    by_debate: dict[str, tuple[list[float], list[bool]]] = {}
    for s, t, r in zip(scores, traces, truth, strict=True):
        values, right = by_debate.setdefault(t.question_id, ([], []))
        values += s
        right += r
    pairs = [(np.asarray(v), np.asarray(r)) for v, r in by_debate.values()]
    whole = step_auroc([v for v, _ in pairs], [r for _, r in pairs])
    rng = np.random.default_rng(stats.SEED)
    draws = []
    for _ in range(200):  # each draw sorts all steps; 200 fix the interval's ends to about 0.003
        drawn = [pairs[i] for i in rng.integers(0, len(pairs), len(pairs))]
        kinds = np.unique(np.concatenate([r for _, r in drawn]))
        if len(kinds) == 2:  # of right ones alone, or wrong ones alone, there is no AUROC
            draws.append(step_auroc([v for v, _ in drawn], [r for _, r in drawn]))
    lo, hi = np.quantile(draws, (0.025, 0.975))
    return stats.Estimate(whole, float(lo), float(hi), len(pairs))

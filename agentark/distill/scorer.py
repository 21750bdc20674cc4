"""Step scores by a reward model: by a scalar head (the paper's), or by the likelihood of the step's tokens.

A head reads the hidden state at the end of a step. In a model of few layers that state cannot hold whether the step is
what the model itself would write: the model predicts a token in its last layer, and no layer is left to compare the
prediction with the token that is there. The likelihood is this comparison. Scores from a language model's own
probabilities are known as implicit process rewards (Yuan et al. 2024, arXiv 2412.01981); here they are trained by the
same loss as a head.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from agentark import StudyError
from agentark.models import loading
from agentark.models.chat import solve_prompt
from agentark.traces.reading import lines_of

ROWS, TOKENS, LOGITS = 256, 2**17, 2**31  # limits of a scoring batch: 8 GB of logits, a few GB of hidden states


def encode(question: str, trace: str, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Token ids of question and trace, and step bounds: the position of the prompt's last token, then of each step's
    end (its newline, or the end of turn)."""
    lines = lines_of(trace)
    chat = tokenizer.apply_chat_template(solve_prompt(question), tokenize=False, add_generation_prompt=True)
    # One call for all lines, since the overhead of a call exceeds the time for a line.
    ids, newline, *encoded_lines = tokenizer([chat, "\n", *lines], add_special_tokens=False).input_ids
    bounds = [len(ids) - 1]
    for i, line in enumerate(encoded_lines):
        ids = ids + line + ([tokenizer.eos_token_id] if i == len(encoded_lines) - 1 else newline)
        bounds.append(len(ids) - 1)
    return ids, bounds


def pad(rows: Sequence[Sequence[float]], fill: float) -> torch.Tensor:
    """Right-pad to shape (rows, longest)."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], batch_first=True, padding_value=fill)


def step_rewards(
    score: str, logits: torch.Tensor, ids: torch.Tensor, row: torch.Tensor, start: torch.Tensor, end: torch.Tensor
) -> torch.Tensor:
    """R_phi of the steps of a batch, shape (steps,); its sigmoid is a step's score.

    logits: (traces, tokens, 1) of a head, or (traces, tokens, vocabulary) of a language model; ids: (traces, tokens).
    Step k is in trace row[k], after token start[k] and up to token end[k]. "head": the head's output at the end of the
    step. "likelihood": the sigmoid is the geometric mean of the probabilities of the step's tokens.
    """
    if score == "head":
        return logits[row, end, 0].float()
    log_p = torch.log_softmax(logits[:, :-1].float(), -1).gather(-1, ids[:, 1:, None])[..., 0]
    total = F.pad(log_p.cumsum(1), (1, 0))  # of the tokens up to each position
    mean = (total[row, end] - total[row, start]) / (end - start)
    return torch.logit(mean.exp(), eps=1e-6)


class StepScorer:
    """A reward model for scoring.

    score: how steps are scored; None for what the model was trained for, a head unless its configuration states
    otherwise. A head of a model without one is random, and a language model's likelihood needs no training: these are
    the untrained baselines. Raises StudyError if `folder` holds no loadable model.
    """

    def __init__(self, folder: Path, score: str | None = None):
        self.score = score or loading.step_score(folder)
        if self.score == "head":
            torch.manual_seed(0)  # for the random head of an untrained baseline
            self.model, self.tokenizer = loading.load_scorer(folder), loading.load_tokenizer(folder)
        else:
            self.model, self.tokenizer = loading.load(folder)
        self.model.to(loading.device()).eval()

    @torch.inference_mode()
    def __call__(self, questions: Sequence[str], traces: Sequence[str]) -> list[list[float]]:
        """Step scores in [0, 1] for each trace, one per line; empty for an empty trace."""
        tokens = TOKENS if self.score == "head" else LOGITS // self.model.config.get_text_config().vocab_size
        scores = []
        for ids, mask, bounds in batches(questions, traces, self.tokenizer, tokens, self.model.device):
            logits = self.model(input_ids=ids, attention_mask=mask).logits
            steps = [(i, a, b) for i, own in enumerate(bounds) for a, b in itertools.pairwise(own)]
            row, start, end = torch.tensor(steps, device=ids.device).view(-1, 3).T
            values = torch.sigmoid(step_rewards(self.score, logits, ids, row, start, end)).tolist()
            remaining = iter(values)
            scores += [list(itertools.islice(remaining, len(own) - 1)) for own in bounds]
        return scores


def batches(
    questions: Sequence[str], traces: Sequence[str], tokenizer: PreTrainedTokenizerBase, tokens: int, device
) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[list[int]]]]:
    """Batches of at most `tokens` tokens, padding included, and ROWS rows: ids, mask, step bounds of each trace."""
    encoded = [encode(q, t, tokenizer) for q, t in zip(questions, traces, strict=True)]
    rows = max(1, min(ROWS, tokens // max((len(ids) for ids, _ in encoded), default=1)))
    for start in range(0, len(encoded), rows):
        batch = encoded[start : start + rows]
        ids = pad([ids for ids, _ in batch], tokenizer.pad_token_id).to(device)
        mask = pad([[1] * len(ids) for ids, _ in batch], 0).to(device)
        yield ids, mask, [bounds for _, bounds in batch]


def aggregate(scores: Sequence[float], how: str) -> float:
    """A trace's reward from its step scores: "mean" or "min". 0 for an empty trace. Raises StudyError for any other
    `how`."""
    if how not in ("mean", "min"):
        raise StudyError(f"aggregate {how!r} is unknown; choose mean or min")
    return 0.0 if not len(scores) else float(np.mean(scores) if how == "mean" else np.min(scores))

"""Step scores of a reward model: from a scalar head (as in the paper), or from the likelihood of the step's tokens.

A head reads the hidden state at the end of a step. In a model with few layers this state cannot encode whether the
model itself would write the step: the last layer predicts a token, and no further layer compares the prediction with
the actual token. The likelihood makes this comparison. Scores from a language model's own probabilities are known as
implicit process rewards (Yuan et al. 2024, arXiv 2412.01981). Here they are trained with the same loss as a head.
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
    """Token ids of question and trace, and step bounds: the positions of the prompt's last token and of each step's
    last token (its newline, or the end-of-turn token)."""
    lines = lines_of(trace)
    chat = tokenizer.apply_chat_template(solve_prompt(question), tokenize=False, add_generation_prompt=True)
    # One call for all lines, since the overhead of a call exceeds the time to tokenize a line.
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

    logits: (traces, tokens, 1) from a head, or (traces, tokens, vocabulary) from a language model; ids: (traces,
    tokens). Step k consists of the tokens start[k] + 1 to end[k] of trace row[k]. score "head": the head's output at
    the end of the step; "likelihood": the sigmoid is the geometric mean of the probabilities of the step's tokens.
    """
    if score == "head":
        return logits[row, end, 0].float()
    log_p = torch.log_softmax(logits[:, :-1].float(), -1).gather(-1, ids[:, 1:, None])[..., 0]
    total = F.pad(log_p.cumsum(1), (1, 0))  # log probability of the tokens up to each position
    mean = (total[row, end] - total[row, start]) / (end - start)
    return torch.logit(mean.exp(), eps=1e-6)


class StepScorer:
    """A reward model for scoring.

    score: "head" or "likelihood"; None for the `step_score` in the model's configuration, "head" by default. The
    untrained baselines are a random head, which a model without a head gets, and the likelihood of a language model.
    Raises StudyError if `folder` contains no loadable model.
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
    """Yield ids, mask and step bounds by trace, in batches of at most ROWS rows and `tokens` tokens with padding."""
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

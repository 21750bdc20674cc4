"""Step scores by a reward model, and by the likelihood under a language model."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from agentark import StudyError
from agentark.models import loading
from agentark.models.chat import solve_prompt
from agentark.traces.reading import lines_of

ROWS, TOKENS, LOGITS = 256, 2**17, 2**31  # limits of a scoring batch: 8 GB of logits, a few GB of hidden states


def encode(question: str, trace: str, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Token ids of question and trace, and the position of each step's end (its newline, or the end of turn)."""
    lines = lines_of(trace)
    chat = tokenizer.apply_chat_template(solve_prompt(question), tokenize=False, add_generation_prompt=True)
    # One call for all lines, since the overhead of a call exceeds the time for a line.
    ids, newline, *encoded_lines = tokenizer([chat, "\n", *lines], add_special_tokens=False).input_ids
    ends = []
    for i, line in enumerate(encoded_lines):
        ids = ids + line + ([tokenizer.eos_token_id] if i == len(encoded_lines) - 1 else newline)
        ends.append(len(ids) - 1)
    return ids, ends


def pad(rows: Sequence[Sequence[float]], fill: float) -> torch.Tensor:
    """Right-pad to shape (rows, longest)."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], batch_first=True, padding_value=fill)


class StepScorer:
    """A reward model for scoring. Raises StudyError if `folder` holds no loadable model."""

    def __init__(self, folder: Path):
        self.tokenizer = loading.load_tokenizer(folder)
        torch.manual_seed(0)  # for the random head if `folder` holds a base: the untrained baseline
        self.model = loading.load_scorer(folder).to(loading.device()).eval()

    @torch.inference_mode()
    def __call__(self, questions: Sequence[str], traces: Sequence[str]) -> list[list[float]]:
        """Step scores in [0, 1] for each trace, one per line; empty for an empty trace."""
        scores = []
        for ids, mask, ends in batches(questions, traces, self.tokenizer, TOKENS, self.model.device):
            value = torch.sigmoid(self.model(input_ids=ids, attention_mask=mask).logits[..., 0].float())
            scores += [value[i, e].tolist() for i, e in enumerate(ends)]
        return scores


def batches(
    questions: Sequence[str], traces: Sequence[str], tokenizer: PreTrainedTokenizerBase, tokens: int, device
) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[list[int]]]]:
    """Batches of at most `tokens` tokens, padding included, and ROWS rows: ids, mask, ends of steps of each trace."""
    encoded = [encode(q, t, tokenizer) for q, t in zip(questions, traces, strict=True)]
    rows = max(1, min(ROWS, tokens // max((len(ids) for ids, _ in encoded), default=1)))
    for start in range(0, len(encoded), rows):
        batch = encoded[start : start + rows]
        ids = pad([ids for ids, _ in batch], tokenizer.pad_token_id).to(device)
        mask = pad([[1] * len(ids) for ids, _ in batch], 0).to(device)
        yield ids, mask, [ends for _, ends in batch]


@torch.inference_mode()
def likelihood_scores(folder: Path, questions: Sequence[str], traces: Sequence[str]) -> list[list[float]]:
    """The second untrained baseline: a step's mean token probability under the language model in `folder`."""
    model, tokenizer = loading.load(folder)
    model.to(loading.device()).eval()
    tokens = LOGITS // model.config.get_text_config().vocab_size
    scores = []
    for ids, mask, ends_of_rows in batches(questions, traces, tokenizer, tokens, model.device):
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        token = torch.softmax(logits, -1).gather(-1, ids[:, 1:, None])[..., 0]
        for i, ends in enumerate(ends_of_rows):
            starts = [max(0, ends[0] - 2), *ends[:-1]] if ends else []
            scores.append([float(token[i, start:end].mean()) for start, end in zip(starts, ends, strict=True)])
    return scores


def aggregate(scores: Sequence[float], how: str) -> float:
    """A trace's reward from its step scores: "mean" or "min". 0 for an empty trace. Raises StudyError for any other
    `how`."""
    if how not in ("mean", "min"):
        raise StudyError(f"aggregate {how!r} is unknown; choose mean or min")
    return 0.0 if not len(scores) else float(np.mean(scores) if how == "mean" else np.min(scores))

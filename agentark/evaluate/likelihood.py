"""Likelihood of gold solutions under a model (the paper's perplexity)."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F

from agentark import StudyError, deadline
from agentark.distill.scorer import LOGITS, ROWS, pad
from agentark.evaluate import stats
from agentark.evaluate.scores import by_seed, score
from agentark.models import loading
from agentark.models.chat import prompt_ids, solve_prompt
from agentark.parallel import tick
from agentark.schemas import Question, Score
from agentark.traces.reading import in_world, lines_of


def reasoning(question: Question) -> str:
    """The gold solution without the answer: in the generated world all lines but the last, otherwise the full text."""
    return "\n".join(lines_of(question.solution)[:-1]) if in_world(question) else question.solution


@torch.inference_mode()
def reasoning_nll(folder: Path, questions: Sequence[Question]) -> pd.DataFrame:
    """One row per question: `nll`, the negative log-likelihood in nats of its gold reasoning under the model in
    `folder`, summed over `tokens`. The question is the prompt, in the model's chat format, and is not counted.

    Raises StudyError if there are no questions, or if a question with its reasoning does not fit into the model's
    window.
    """
    if not questions:
        raise StudyError("no test question has a gold solution; choose a train_task whose questions have one")
    model, tokenizer = loading.load(folder)
    model.to(loading.device()).eval()
    rows, lengths, window = [], [], loading.window(folder)
    for question in questions:
        ids = tokenizer(reasoning(question), add_special_tokens=False).input_ids
        rows.append(prompt_ids(tokenizer, solve_prompt(question.text), window - len(ids)) + ids)
        lengths.append(len(ids))
    tokens = LOGITS // 4 // model.config.get_text_config().vocab_size  # a loss in 32 bits copies the logits
    size = max(1, min(ROWS, tokens // max(map(len, rows))))
    found = []
    for start in range(0, len(rows), size):
        deadline.check()
        batch = rows[start : start + size]
        ids = pad(batch, tokenizer.pad_token_id).to(model.device)
        mask = pad([[1] * len(row) for row in batch], 0).to(model.device)
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        loss = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        for row, token_ids, length in zip(loss, batch, lengths[start : start + size], strict=True):
            found.append(float(row[len(token_ids) - 1 - length : len(token_ids) - 1].double().sum()))
        tick(len(batch))
    return pd.DataFrame({"question_id": [q.question_id for q in questions], "nll": found, "tokens": lengths})


def likelihood_scores(table: pd.DataFrame, teacher: str, train_task: str) -> list[Score]:
    """NLL of gold reasoning in nats per token, perplexity (its exponential), and `nll_difference` to the student's
    base, paired by question (below 0: more likely than under the base).

    `table`: rows of `reasoning_nll` with columns student, method, seed. A trained method has one row per seed and one
    of the mean NLL over seeds ("all"). tokens_per_question counts the tokens of the reasoning.
    """
    rows, base = [], {}
    for (student, method), part in table.groupby(["student", "method"], sort=False):
        nll_of, tokens = by_seed(part, "nll"), by_seed(part, "tokens")
        fixed = dict(study="reasoning", setting="gold reasoning", teacher=teacher, student=student, method=method,
                     train_task=train_task if student and method != "base" else "", test_task=train_task,
                     tokens_per_question=float(tokens.mean()))  # fmt: skip
        each = {str(s): (one["nll"], one["tokens"]) for s, one in part.groupby("seed")} if nll_of.ndim > 1 else {}
        for seed, one in {**each, "all": (nll_of, tokens)}.items():
            nll = stats.ratio(*one)
            perplexity = replace(nll, value=math.exp(nll.value), lo=math.exp(nll.lo), hi=math.exp(nll.hi))
            rows += [score(fixed, "nll", nll, seed), score(fixed, "perplexity", perplexity, seed)]
        if method == "base":
            base[student] = nll_of
        elif student in base:
            difference = stats.ratio(nll_of - base[student], tokens)
            rows.append(score(fixed, "nll_difference", difference, baseline="base"))
    return rows

"""Greedy decoding that makes a base model show its steps: a reply must not begin with the bare answer.

A trained student's gain may come only from this format. Forbidding one first token elicits the format without training.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import GenerationConfig

from agentark import deadline
from agentark.models import loading
from agentark.models.chat import ends_of_turn, prompt_ids, solve_prompt
from agentark.parallel import progress, tick
from agentark.schemas import Question, Trace
from agentark.traces.reading import answer_of

ROWS = 64  # replies at a time


@torch.inference_mode()
def step_showing(
    folder: Path, questions: Sequence[Question], max_tokens: int, forbidden: str = "answer"
) -> list[Trace]:
    """The greedy replies of the model in `folder`; none begins with the first token of `forbidden`."""
    model, tokenizer = loading.load(folder)
    model.to(loading.device()).eval()
    ends = ends_of_turn(model.generation_config, tokenizer)
    model.generation_config = GenerationConfig()
    first = tokenizer(forbidden, add_special_tokens=False).input_ids[0]
    config = GenerationConfig(
        max_new_tokens=max_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id, eos_token_id=ends,
        begin_suppress_tokens=[first],
    )  # fmt: skip
    room = model.config.get_text_config().max_position_embeddings - max_tokens
    traces = []
    with progress(len(questions), f"answers of {folder.name}, steps shown", "question"):
        for start in range(0, len(questions), ROWS):
            deadline.check()
            batch = questions[start : start + ROWS]
            prompts = [prompt_ids(tokenizer, solve_prompt(q.text), room) for q in batch]
            inputs = tokenizer.pad({"input_ids": prompts}, return_tensors="pt", padding_side="left").to(model.device)
            replies = model.generate(**inputs, generation_config=config)[:, inputs["input_ids"].shape[1] :].tolist()
            for question, prompt, row in zip(batch, prompts, replies, strict=True):
                length = next((i for i, token in enumerate(row) if token in ends), len(row))
                text = str(tokenizer.decode(row[:length], skip_special_tokens=True))
                traces.append(
                    Trace(
                        question_id=question.question_id, agent=1, round=1, text=text, answer=answer_of(text, question),
                        prompt_tokens=len(prompt), completion_tokens=min(length + 1, len(row)),
                        finish_reason="stop" if length < len(row) else "length",
                    )
                )  # fmt: skip
            tick(len(batch))
    return traces

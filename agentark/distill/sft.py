"""Supervised distillation by TRL: answer-only SFT, R-SFT and DA differ in their examples only (method, section 3).

The training libraries are imported in `train`, since this takes ten seconds and notebooks train in other processes.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from agentark import StudyError
from agentark.distill.settings import SFT
from agentark.models.chat import prompt_ids, solve_prompt
from agentark.schemas import Trajectory


def example_tokens(pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerBase) -> float:
    """Mean tokens of a training example: the prompt, the target and the end of turn."""
    total = 0
    for (q, a), times in Counter(pairs).items():
        target = tokenizer(a, add_special_tokens=False).input_ids
        total += times * (len(prompt_ids(tokenizer, solve_prompt(q), 10**9)) + len(target) + 1)
    return total / len(pairs)


METHODS = ("sft", "rsft", "da")


def examples(trajectories: Sequence[Trajectory], method: str) -> list[tuple[str, str]]:
    """(question, target) pairs for a method.

    sft: the bare answer, -log p(y* | x). rsft: the verified traces that extraction kept, one per question or all.
    da: a question's diverse traces, with the likelihood averaged over them: traces are repeated so that all questions
    have equal weight. Raises StudyError for an unknown method, or if extraction kept no trace for it.
    """
    if method not in METHODS:
        raise StudyError(f"method {method!r} is unknown; choose one of {', '.join(METHODS)}")
    if method == "da":
        chosen = [t for t in trajectories if t.for_da]
        traces = Counter(t.question_id for t in chosen)
        whole = math.lcm(*traces.values())
        pairs = [(t.prompt, t.text) for t in chosen for _ in range(whole // traces[t.question_id])]
    else:
        chosen = [t for t in trajectories if t.for_rsft]
        pairs = [(t.prompt, t.text if method == "rsft" else t.answer_only) for t in chosen]
    if not pairs:
        raise StudyError(
            f"method {method}: extraction kept no trace for it; debate more questions, or with another teacher"
        )
    return pairs


def train(
    base: Path, pairs: Sequence[tuple[str, str]], out: Path, seed: int, settings: SFT, method: str = "rsft"
) -> list[dict]:
    """Fine-tune `base` on question-target pairs, with loss on the target only, and save the student to `out`.

    If the pairs do not divide evenly among several processes, an epoch's last step is filled up with its first pairs.
    With settings.save_steps a killed training continues from its last checkpoint, and ends in the same weights.
    Returns the learning curve: step, loss (nats per token), mean_token_accuracy.
    """
    from datasets import Dataset
    from trl import SFTConfig

    from agentark.distill.students import Origin, save
    from agentark.distill.training import WholeBatches, arguments, checkpoints_of, curve, run, trainable, whole

    origin = Origin(method, seed, {"base": base}, pairs, settings.recorded())
    checkpoints = checkpoints_of(origin, settings)
    shared = arguments(settings, seed, settings.batch_size, f"{method} {base.name} seed {seed}", checkpoints)
    model, tokenizer = trainable(base, seed, settings)
    check_turns(base, tokenizer, model.generation_config.eos_token_id)
    chats = [
        {"prompt": [{"role": "user", "content": q}], "completion": [{"role": "assistant", "content": a}]}
        for q, a in pairs
    ]
    config = SFTConfig(
        **shared,
        max_steps=settings.steps,
        warmup_steps=settings.steps // 20,
        max_length=None,
        train_sampling_strategy="group_by_length",  # batches of similar lengths: less padding, same examples
        logging_steps=max(1, settings.steps // 40),
    )
    training = WholeBatches(model, config, train_dataset=Dataset.from_list(chats), processing_class=tokenizer)
    run(training, checkpoints)
    save(whole(training, base, seed, settings), tokenizer, out, origin)
    return curve(training.state.log_history, "loss", "mean_token_accuracy")


def check_turns(base: Path, tokenizer, ends: int | list[int] | None) -> None:
    """Raise StudyError unless the chat template keeps the answer and ends its turn with a token that stops generation.

    Otherwise the student never learns to stop (huggingface/trl#2059, #931).
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise StudyError(f"{base}: no chat template, as base models have none; name an instruct model")
    chat = [{"role": "user", "content": "how many ?"}, {"role": "assistant", "content": "answer : 3"}]
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise StudyError(f"{base}: its chat template refuses a question and an answer ({error})") from None
    _, kept, closing = text.rpartition("answer : 3")
    stops = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
    if not kept or stops.isdisjoint(tokenizer(closing, add_special_tokens=False).input_ids):
        what = "does not close the assistant's turn" if kept else "leaves out the answer"
        raise StudyError(
            f"{base}: its chat template {what}, so a student would not learn to stop; correct the template"
        )

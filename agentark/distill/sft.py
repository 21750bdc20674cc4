"""Supervised distillation by TRL: answer-only SFT, R-SFT and DA differ in their examples alone (method, section 3).

What trains is imported where it trains: that takes ten seconds, which a notebook that hands its trainings out would wait.
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
    """Mean tokens of a training example: the chat, the target, its end of turn."""
    total = 0
    for (q, a), times in Counter(pairs).items():
        target = tokenizer(a, add_special_tokens=False).input_ids
        total += times * (len(prompt_ids(tokenizer, solve_prompt(q), 10**9)) + len(target) + 1)
    return total / len(pairs)


METHODS = ("sft", "rsft", "da")


def examples(trajectories: Sequence[Trajectory], method: str) -> list[tuple[str, str]]:
    """(question, target) pairs.

    sft: -log p(y* | x), the bare answer; rsft: one verified trace a question; da: its diverse traces, the likelihood
    averaged over them: each is repeated so often that all questions weigh alike, whatever their number of traces.
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
    """Fine-tune `base` on question-target pairs, loss on the target alone; save the student to `out`.

    Where several processes do not come out even at the end of a pass over the pairs, its last step is filled up with the
    pass's first ones. Returns the learning curve: step, loss (nats a token), mean_token_accuracy.
    """
    from datasets import Dataset
    from trl import SFTConfig

    from agentark.distill.students import Origin, save
    from agentark.distill.training import WholeBatches, arguments, curve, run, trainable

    shared = arguments(settings, seed, settings.batch_size, f"{method} {base.name} seed {seed}")
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
        train_sampling_strategy="group_by_length",  # like lengths share a batch: less padding, same examples
        logging_steps=max(1, settings.steps // 40),
    )
    training = WholeBatches(model, config, train_dataset=Dataset.from_list(chats), processing_class=tokenizer)
    run(training)
    save(training.model, tokenizer, out, Origin(method, seed, {"base": base}, pairs, settings.recorded()))
    return curve(training.state.log_history, "loss", "mean_token_accuracy")


def check_turns(base: Path, tokenizer, ends: int | list[int] | None) -> None:
    """Raise StudyError unless the chat template keeps an answer and closes its turn by a token that ends generation.

    Else the student never learns to stop (huggingface/trl#2059, #931).
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

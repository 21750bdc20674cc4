"""`make prompt-order`: what the order of a debate's prompts costs an engine with prefix caching.

The cost is counted, not timed: the teacher runs debates with each order of revision prompts, and each prompt is
compared with all earlier prompts and replies. Results: `reports/prompt_order.csv`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from transformers import PreTrainedTokenizerBase

from agentark import finish, root
from agentark.answers import is_right
from agentark.debate.prompts import ORDERS
from agentark.debate.protocols import Debate
from agentark.debate.run import GROUP, run_group
from agentark.debate.turns import Turn
from agentark.engines import Reply, Store, engine
from agentark.evaluate import stats
from agentark.models import loading
from agentark.models.chat import prompt_ids
from agentark.schemas import write_csv
from agentark.stage.parameters import read_params
from agentark.tasks import task
from agentark.traces.reading import answer_of

BLOCKS = (1, 16)  # tokens: exact prefixes; vLLM's default block size on GPUs
Calls = Sequence[tuple[list[int], list[int]]]  # token ids of prompts and replies


def computed(calls: Calls, block: int) -> list[int]:
    """The number of prompt tokens of each call that no earlier call has cached.

    Keys and values are cached in blocks of `block` tokens, identified by their tokens and all tokens before them. The
    last prompt token is always computed, because it gives the first token of the reply; the last reply token is never
    an input. This is vLLM's prefix caching (docs.vllm.ai, design: automatic prefix caching) with unlimited memory.
    """
    cached: set[int] = set()
    counts = []
    for prompt, reply in calls:
        inputs = [*prompt, *reply][: len(prompt) + max(len(reply) - 1, 0)]
        hits, block_id, hit = 0, 0, True
        for end in range(block, len(inputs) + 1, block):
            block_id = hash((block_id, *inputs[end - block : end]))
            hit = hit and block_id in cached and end < len(prompt)
            hits += hit
            cached.add(block_id)
        counts.append(len(prompt) - hits * block)
    return counts


def as_calls(tokenizer: PreTrainedTokenizerBase, turns: Iterable[tuple[str, Turn, Reply]]) -> Calls:
    """Prompts and replies as token ids, in the order of the debate's rounds."""
    calls = []
    for _, turn, reply in turns:
        ended = [tokenizer.eos_token_id] if reply.finish_reason == "stop" else []
        ids = [*tokenizer(reply.text, add_special_tokens=False).input_ids, *ended]
        calls.append((prompt_ids(tokenizer, turn.messages, 10**9), ids))
    return calls


def measure(orders: Sequence[str] = ORDERS) -> pd.DataFrame:
    """One row per order: accuracy of the teacher's debates on validation questions with its interval, calls and prompt
    tokens per debate, and for each block size the prompt tokens to compute and their share. Settings: `params.yaml`."""
    params = read_params(root() / "params.yaml")
    debate, sample = params["debate"], params["questions"]
    questions = task(params["train_task"]).questions(sample["validation"], "validation", sample["seed"])
    groups = [questions[i : i + GROUP] for i in range(0, len(questions), GROUP)]
    tokenizer = loading.load_tokenizer(root() / params["teacher"])
    options = [engine(params["teacher"])], Store(root() / params["store"]), debate["seed"], params["max_tokens"]
    temperature, rows = params["debates"]["test"]["temperature"], []
    for order in orders:
        protocol = Debate(params["agents"], params["rounds"], temperature, debate["revision_temperature"], order)
        turns = [entry for group in groups for entry in run_group(protocol, group, *options)]
        replies = {key: reply.text for key, _, reply in turns}  # the last reply is the summary
        accuracy = stats.mean([is_right(answer_of(replies[q.question_id], q), q) for q in questions])
        calls = as_calls(tokenizer, turns)
        row: dict[str, Any] = {"order": order, "accuracy": accuracy.value}
        row |= {"lo": accuracy.lo, "hi": accuracy.hi, "n": accuracy.n}
        row |= {"calls": len(calls) / accuracy.n, "prompt_tokens": sum(len(p) for p, _ in calls) / accuracy.n}
        for block in BLOCKS:
            row[f"computed_block_{block}"] = sum(computed(calls, block)) / accuracy.n
            row[f"share_block_{block}"] = row[f"computed_block_{block}"] / row["prompt_tokens"]
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    table = measure()
    write_csv(table, root() / "reports" / "prompt_order.csv")
    print(table.round(3).T.to_string(header=False))
    print("\nwritten: reports/prompt_order.csv")


if __name__ == "__main__":
    finish(main)

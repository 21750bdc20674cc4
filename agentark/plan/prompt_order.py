"""`make prompt-order`: cost of the order of a debate's prompts, for an engine that computes shared prefixes once.

Counted, not timed: for each order of revision prompts the teacher's debates are run, and every prompt is matched
against all tokens read or generated before. Results: `reports/prompt_order.csv`.
"""

import sys
from collections.abc import Iterable, Sequence

import pandas as pd
from transformers import PreTrainedTokenizerBase

from agentark import StudyError, finish, root
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

BLOCKS = (1, 16)  # tokens: exact prefixes; whole blocks of vLLM's size on GPUs


def computed(calls: Iterable[tuple[Sequence[int], Sequence[int]]], block: int) -> list[int]:
    """For each call (token ids of prompt and reply), the number of prompt tokens that the cache of earlier calls lacks.

    Keys and values are kept in blocks of `block` tokens, each identified together with all tokens before it. A prompt's
    last token is always computed, since it gives the first token of the reply; a reply's last token is never read. This
    is vLLM's prefix caching (docs.vllm.ai, design: automatic prefix caching) with unlimited memory.
    """
    kept: set[int] = set()
    counts = []
    for prompt, reply in calls:
        read = [*prompt, *reply][: len(prompt) + max(len(reply) - 1, 0)]
        hits, chain, unbroken = 0, 0, True
        for end in range(block, len(read) + 1, block):
            chain = hash((chain, *read[end - block : end]))
            unbroken = unbroken and chain in kept and end < len(prompt)
            hits += unbroken
            kept.add(chain)
        counts.append(len(prompt) - hits * block)
    return counts


def as_calls(
    tokenizer: PreTrainedTokenizerBase, turns: Iterable[tuple[str, Turn, Reply]]
) -> list[tuple[list[int], list[int]]]:
    """Turns with their replies as token ids, in the order of a debate's rounds."""
    calls = []
    for _, turn, reply in turns:
        ended = [tokenizer.eos_token_id] if reply.finish_reason == "stop" else []
        ids = [*tokenizer(reply.text, add_special_tokens=False).input_ids, *ended]
        calls.append((prompt_ids(tokenizer, turn.messages, 10**9), ids))
    return calls


def measure(orders: Sequence[str] = ORDERS) -> pd.DataFrame:
    """One row per order: accuracy of the teacher's debates on validation questions with its interval, calls and prompt
    tokens per debate, computed tokens by block size, and their share of all. Settings are those of `params.yaml`."""
    params = read_params(root() / "params.yaml")
    how, drawn = params["debate"], params["questions"]
    questions = task(params["train_task"]).questions(drawn["validation"], "validation", drawn["seed"])
    groups = [questions[i : i + GROUP] for i in range(0, len(questions), GROUP)]
    tokenizer = loading.load_tokenizer(root() / params["teacher"])
    teacher, store = engine(params["teacher"]), Store(root() / params["store"])
    temperature = params["debates"]["test"]["temperature"]
    rows = []
    for order in orders:
        protocol = Debate(params["agents"], params["rounds"], temperature, how["revision_temperature"], order)
        turns = [
            entry
            for group in groups
            for entry in run_group(protocol, group, teacher, store, how["seed"], params["max_tokens"])
        ]
        replies = {key: reply.text for key, _, reply in turns}  # the summariser's reply is the last
        last = {q.question_id: answer_of(replies[q.question_id], q) for q in questions}
        right = stats.mean([is_right(last[q.question_id], q) for q in questions])
        calls = as_calls(tokenizer, turns)
        row = {"order": order, "accuracy": right.value, "lo": right.lo, "hi": right.hi, "n": right.n}
        row |= {"calls": len(calls) / right.n, "prompt_tokens": sum(len(p) for p, _ in calls) / right.n}
        for block in BLOCKS:
            row[f"computed_block_{block}"] = sum(computed(calls, block)) / right.n
            row[f"share_block_{block}"] = row[f"computed_block_{block}"] / row["prompt_tokens"]
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> int:
    try:
        table = measure()
        write_csv(table, root() / "reports" / "prompt_order.csv")
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table.round(3).T.to_string(header=False))
    print("\nwritten: reports/prompt_order.csv")
    return 0


if __name__ == "__main__":
    finish(main)

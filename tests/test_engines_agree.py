"""transformers and llama.cpp answer alike for the real weights of SmolLM2: same prompts, same greedy text.

From a file of 32-bit weights their first tokens are equal. From the quantised file some texts differ: llama.cpp rounds
activations to eight bits there, and a small model often has two next tokens that are almost equally likely.
"""

import random
from pathlib import Path

import pytest
import torch
from weights import smollm2

from agentark.answers import is_correct
from agentark.engines import Batch, Reply, Request, engine
from agentark.evaluate import stats
from agentark.models import gguf, loading

pytestmark = pytest.mark.long
FIRST, MAX_TOKENS = 16, 32  # tokens that are compared; of a reply


def arithmetic(n: int) -> list[tuple[str, int]]:
    """Word problems of one step, drawn with a fixed seed, and their answers."""
    rng, asked = random.Random(0), []
    for i in range(n):
        name, things = rng.choice(("Ana", "Ben", "Chloe", "Dan")), rng.choice(("apples", "coins", "books", "stamps"))
        a, b, c = rng.randint(20, 60), rng.randint(3, 19), rng.randint(2, 9)
        asked.append(
            (
                (f"{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?", a + b),
                (f"There are {a} {things} on a table. {name} takes {b} of them away. How many are left?", a - b),
                (f"{name} fills {c} boxes with {b} {things} each. How many {things} are in the boxes?", b * c),
            )[i % 3]
        )
    return asked


ASKED = arithmetic(50)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    gguf.unpack(smollm2(), folder)
    return folder


@pytest.fixture(scope="module")
def expected(unpacked) -> list[Reply]:
    return greedy(str(unpacked), MAX_TOKENS)


def greedy(name: str, max_tokens: int) -> list[Reply]:
    one = engine(name)
    requests = [Request([{"role": "user", "content": text}], 0.0, max_tokens, 0) for text, _ in ASKED]
    batches = one.batches(requests)
    made = dict(one.run([Batch([requests[i] for i in batch], 0) for batch in batches]))
    found = {i: reply for number, batch in enumerate(batches) for i, reply in zip(batch, made[number], strict=True)}
    return [found[i] for i in range(len(requests))]


def equal_starts(one: list[Reply], other: list[Reply], folder: Path) -> int:
    tokenizer = loading.load_tokenizer(folder)
    starts = [[tokenizer(reply.text).input_ids[:FIRST] for reply in replies] for replies in (one, other)]
    return sum(a == b for a, b in zip(*starts, strict=True))


def test_the_first_tokens_are_equal_from_the_same_weights(unpacked, expected, tmp_path):
    gguf.write_model(unpacked, smollm2(), tmp_path / "exact.gguf", torch.float32)
    found = greedy(f"llama.cpp:{tmp_path}/exact.gguf", FIRST)
    assert [r.prompt_tokens for r in found] == [r.prompt_tokens for r in expected]
    assert equal_starts(found, expected, unpacked) >= 0.8 * len(ASKED)  # 50 of 50 where this was written


def test_the_quantised_file_is_right_as_often(unpacked, expected):
    found = greedy(f"llama.cpp:{smollm2()}", MAX_TOKENS)
    assert [r.prompt_tokens for r in found] == [r.prompt_tokens for r in expected]
    assert equal_starts(found, expected, unpacked) >= 0.5 * len(ASKED)  # 31 of 50 where this was written
    right = [
        [is_correct(r.text, str(answer), "number") for r, (_, answer) in zip(replies, ASKED, strict=True)]
        for replies in (found, expected)
    ]
    difference = stats.gain(*right)
    assert difference.lo <= 0 <= difference.hi

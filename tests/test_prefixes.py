"""Counts of computed prompt tokens under prefix caching match a manual count, the definition, and vLLM's count."""

import importlib.util

import pytest
from examples import MAX_TOKENS, question_from_family
from hypothesis import given
from hypothesis import strategies as st

from agentark import root
from agentark.debate.prompts import ORDERS
from agentark.debate.protocols import Debate
from agentark.debate.run import run_group
from agentark.engines import Store, engine
from agentark.engines.vllm import settings
from tests.benchmarks.prompt_order import as_calls, computed

TEACHER = root() / "data/models/teacher"
BLOCK = 32
TOKENS = st.lists(st.integers(0, 1), max_size=8)
CALLS = st.lists(st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=8), TOKENS), max_size=8)


def test_computed_tokens_match_a_manual_count():
    calls = [([1, 2, 3, 4, 5], [6, 7]), ([1, 2, 3, 4, 5], []), ([1, 2, 3, 4, 5, 6, 7, 8], []), ([9], [])]
    assert computed(calls, 1) == [5, 1, 2, 1]  # 7 was generated, but never read by the model
    assert computed(calls, 2) == [5, 1, 2, 1]
    assert computed(calls, 4) == [5, 1, 4, 1]
    assert computed(calls, 16) == [5, 5, 8, 1]


@given(CALLS)
def test_blocks_of_one_token_save_the_longest_common_prefix(calls):
    before: list[list[int]] = []
    for (prompt, reply), count in zip(calls, computed(calls, 1), strict=True):
        usable = prompt[:-1]
        longest = max(
            (n for n in range(len(usable) + 1) if any(b[:n] == usable[:n] and len(b) >= n for b in before)), default=0
        )
        assert count == len(prompt) - longest
        before.append(prompt + reply[:-1])


@given(CALLS, st.integers(1, 5))
def test_blocks_save_at_most_the_exact_prefix_and_only_full_blocks(calls, block):
    for (prompt, _), in_blocks, exact in zip(calls, computed(calls, block), computed(calls, 1), strict=True):
        assert 1 <= exact <= in_blocks <= len(prompt)
        assert (len(prompt) - in_blocks) % block == 0


@pytest.fixture(scope="module")
def vllm():
    """vLLM with the smallest block size that its CPU build supports."""
    if not importlib.util.find_spec("vllm"):
        pytest.skip("vllm is not installed; `make test-vllm` runs this with it")
    from vllm import LLM

    return LLM(str(TEACHER), block_size=BLOCK, enable_prefix_caching=True, **settings(TEACHER))


@pytest.mark.parametrize("order", ORDERS)
def test_computed_tokens_match_the_count_of_vllm(vllm, order, tmp_path):
    from vllm import SamplingParams

    questions, teacher = [question_from_family("equation", 2 + i % 3, 90 + i)[1] for i in range(4)], engine(TEACHER)
    turns = run_group(Debate(3, 3, 1.3, 0.2, order), questions, [teacher], Store(tmp_path), 0, MAX_TOKENS)
    calls = as_calls(teacher.tokenizer, turns)
    assert vllm.reset_prefix_cache()
    one_token, counted = SamplingParams(max_tokens=1, temperature=0), []
    for prompt, reply in calls:  # then cache the reply too, except its last token
        (output,) = vllm.generate({"prompt_token_ids": prompt}, one_token, use_tqdm=False)
        counted.append(len(prompt) - output.num_cached_tokens)
        vllm.generate({"prompt_token_ids": [*prompt, *reply[:-1]]}, one_token, use_tqdm=False)
    assert counted == computed(calls, BLOCK)
    assert sum(counted) < sum(len(prompt) for prompt, _ in calls)

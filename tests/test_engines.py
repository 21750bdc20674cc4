"""Generation with tiny models: a shared prefix does not change replies, and stored batches are not generated again."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from examples import question_from_family
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from agentark import StudyError, root
from agentark.debate.prompts import revise_prompt
from agentark.engines import Request, Store, batching
from agentark.engines import engine as engine_of
from agentark.engines.batching import attend
from agentark.engines.transformers import Transformers
from agentark.models import loading
from agentark.models.chat import solve_prompt
from agentark.pretrain import tiny
from agentark.tasks import TASKS


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Transformers:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = tiny.build_tokenizer()
    tiny.build_model("llama", 32, 1, 0, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Transformers(folder)


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    questions = [question_from_family("equation", 2 + i % 3, i)[1] for i in range(6)]
    first = [Request(solve_prompt(q.text), 1.0, 12, agent) for q in questions for agent in range(3)]
    traces = {q.question_id: [q.solution, "answer : 3", "a = 1 + 2 = 3\nanswer : 3"] for q in questions}
    later = [
        Request(revise_prompt(q, traces[q.question_id], agent, "shared"), 0.0, 12, agent)
        for q in questions
        for agent in range(3)
    ]
    return [*first, *later]


def test_a_tokenizer_round_trip_keeps_the_text():
    tokenizer = tiny.build_tokenizer()
    for seed in range(20):
        question = question_from_family("word", 3, seed)[1]
        for text in (question.text, question.solution):
            ids = tokenizer(text).input_ids
            assert tokenizer.decode(ids) == text and tokenizer.unk_token_id not in ids


def test_a_shared_prefix_does_not_change_greedy_replies(engine, requests, monkeypatch):
    batch = [r for r in requests if r.temperature == 0]
    shared = engine.generate(batch, 0)
    monkeypatch.setattr(batching, "SUFFIX", 10**6)
    assert [r.text for r in engine.generate(batch, 0)] == [r.text for r in shared]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_preallocated_kv_cache_does_not_change_replies(family, requests, tmp_path, monkeypatch):
    tokenizer = tiny.build_tokenizer()
    tiny.build_model(family, 32, 2, 0, len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = Transformers(tmp_path)
    batches = [[requests[i] for i in batch] for batch in engine.batches(requests)]
    preallocated = [[r.text for r in engine.generate(batch, 3)] for batch in batches]
    monkeypatch.setattr(batching, "KVBuffer", lambda layer, capacity: layer)  # the cache of transformers
    assert [[r.text for r in engine.generate(batch, 3)] for batch in batches] == preallocated


@pytest.mark.parametrize("model", ["models/teacher", "models/llama-small", "grid/models/gemma-teacher"])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_finished_replies_leave_the_batch_without_changing_the_others(model, temperature, monkeypatch):
    engine = Transformers(root() / "data" / model)
    questions = [question_from_family("equation", 2 + i % 3, i)[1] for i in range(40)]
    batch = [Request(solve_prompt(q.text), temperature, 72, 0) for q in questions]
    batch_sizes = set()
    engine.model.model.register_forward_pre_hook(
        lambda _, args, kwargs: batch_sizes.add(len(kwargs["input_ids"])), with_kwargs=True
    )

    def replies() -> list:
        batch_sizes.clear()
        return [(r.text, r.completion_tokens, r.finish_reason) for r in engine.generate(batch, 3)]

    shrinking = replies()
    assert batching.FEWEST <= min(batch_sizes) < len(batch)
    monkeypatch.setattr(batching, "SHARE", 2)
    assert replies() == shrinking
    assert batch_sizes == {len(batch)}


def test_batches_contain_every_request_once_and_one_temperature_each(engine, requests):
    batches = engine.batches(requests)
    assert sorted(i for b in batches for i in b) == list(range(len(requests)))
    assert all(len({requests[i].temperature for i in b}) == 1 for b in batches)


def test_equal_prompts_in_a_batch_get_different_samples(engine, requests):
    sampled = [Request(requests[0].messages, 1.5, 12, agent) for agent in range(8)]
    assert len({r.text for r in engine.generate(sampled, 1)}) > 1


def test_a_stored_batch_is_not_generated_again(engine, requests, tmp_path):
    store = Store(tmp_path)
    first = store.generate(engine, requests)
    files = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.json")}
    assert store.generate(engine, requests) == first
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.json")} == files


def test_a_damaged_batch_is_generated_again_with_the_same_text(engine, requests, tmp_path):
    store = Store(tmp_path)
    first = [r.text for r in store.generate(engine, requests)]
    next(tmp_path.rglob("*.json")).write_text('[{"text": "an')
    assert [r.text for r in store.generate(engine, requests)] == first


def test_bf16_has_its_own_fingerprint_and_gives_similar_replies():
    questions = TASKS["equation"].questions(60, "validation", 0)
    batch = [Request(solve_prompt(q.text), 0.0, 72, 0) for q in questions]
    full, half = (engine_of(f"{prefix}data/models/teacher") for prefix in ("", "bf16:"))
    assert half.model.dtype == torch.bfloat16 and full.model.dtype == torch.float32
    assert half.fingerprint != full.fingerprint
    pairs = zip(*([reply.text for reply in engine.generate(batch, 0)] for engine in (full, half)), strict=True)
    same = sum(a == b for a, b in pairs)
    assert 0.7 * len(batch) < same <= len(batch)


@pytest.mark.parametrize("new", [1, 4])
@pytest.mark.parametrize("padded", [True, False])
def test_grouped_attention_equals_attention_with_repeated_heads(new, padded):
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, heads, tokens, 8) for heads, tokens in ((6, new), (2, 10), (2, 10)))
    mask = torch.ones(3, 1, new, 10, dtype=torch.bool).tril(10 - new)
    mask[0, ..., :4] = not padded
    repeated = SimpleNamespace(num_key_value_groups=3, is_causal=True)
    grouped, reference = (
        attention(repeated, query, key, value, mask, scaling=0.3)[0] for attention in (attend, sdpa_attention_forward)
    )
    torch.testing.assert_close(grouped, reference)


def test_token_counts_agree_with_the_limit_and_the_finish_reason(engine, requests):
    for reply in engine.generate(requests[:3], 0):
        assert reply.prompt_tokens > 0 and 0 < reply.completion_tokens <= 12 and reply.seconds > 0
        if reply.finish_reason == "length":
            assert reply.completion_tokens == 12


def test_a_folder_without_a_model_is_reported(tmp_path):
    with pytest.raises(StudyError, match="no model here"):
        loading.load(tmp_path / "nobody")


def test_truncated_weights_are_reported(engine, tmp_path):
    tokenizer = tiny.build_tokenizer()
    tiny.build_model("qwen3", 32, 1, 0, len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(StudyError, match="not a loadable model"):
        loading.load(tmp_path)


def test_continuous_batching_keeps_greedy_text_and_samples_reproducibly():
    plain, paged = (engine_of(f"{prefix}data/models/teacher") for prefix in ("", "paged:"))
    prompts = [solve_prompt(question_from_family("equation", 2 + i % 2, i)[1].text) for i in range(6)]
    greedy, sampled = ([Request(prompt, t, 24, 0) for prompt in prompts] for t in (0.0, 1.5))
    assert sorted(map(len, paged.batches([*greedy, *sampled]))) == [6, 6]
    found, expected = ([replace(r, seconds=0) for r in engine.generate(greedy, 0)] for engine in (paged, plain))
    assert found == expected
    first, again, other = ([r.text for r in paged.generate(sampled, seed)] for seed in (0, 0, 1))
    assert first == again != other

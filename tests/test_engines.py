"""Generation by a real tiny model: the shared prefix changes nothing, the store repeats nothing."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from examples import posed
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
    asked = [posed("equation", 2 + i % 3, i)[1] for i in range(6)]
    first = [Request(solve_prompt(q.text), 1.0, 12, agent) for q in asked for agent in range(3)]
    traces = {q.question_id: [q.solution, "answer : 3", "a = 1 + 2 = 3\nanswer : 3"] for q in asked}
    later = [
        Request(revise_prompt(q, traces[q.question_id], agent, "shared"), 0.0, 12, agent)
        for q in asked
        for agent in range(3)
    ]
    return [*first, *later]


def test_text_survives_the_tokenizer():
    tokenizer = tiny.build_tokenizer()
    for seed in range(20):
        question = posed("word", 3, seed)[1]
        for text in (question.text, question.solution):
            ids = tokenizer(text).input_ids
            assert tokenizer.decode(ids) == text and tokenizer.unk_token_id not in ids


def test_a_shared_prefix_changes_no_greedy_text(engine, requests, monkeypatch):
    batch = [r for r in requests if r.temperature == 0]
    shared = engine.generate(batch, 0)
    monkeypatch.setattr(batching, "SUFFIX", 10**6)
    assert [r.text for r in engine.generate(batch, 0)] == [r.text for r in shared]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_room_taken_once_changes_no_reply(family, requests, tmp_path, monkeypatch):
    tokenizer = tiny.build_tokenizer()
    tiny.build_model(family, 32, 2, 0, len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = Transformers(tmp_path)
    batches = [[requests[i] for i in batch] for batch in engine.batches(requests)]
    taken_once = [[r.text for r in engine.generate(batch, 3)] for batch in batches]
    monkeypatch.setattr(batching, "KVBuffer", lambda layer, capacity: layer)  # as transformers has it
    assert [[r.text for r in engine.generate(batch, 3)] for batch in batches] == taken_once


@pytest.mark.parametrize("model", ["models/teacher", "models/llama-small", "grid/models/gemma-teacher"])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_replies_that_have_ended_leave_the_batch_and_change_no_other(model, temperature, monkeypatch):
    engine = Transformers(root() / "data" / model)
    asked = [posed("equation", 2 + i % 3, i)[1] for i in range(40)]
    batch = [Request(solve_prompt(q.text), temperature, 72, 0) for q in asked]
    computed = set()
    engine.model.model.register_forward_pre_hook(
        lambda _, args, kwargs: computed.add(len(kwargs["input_ids"])), with_kwargs=True
    )

    def replies() -> list:
        computed.clear()
        return [(r.text, r.completion_tokens, r.finish_reason) for r in engine.generate(batch, 3)]

    left = replies()
    assert batching.FEWEST <= min(computed) < len(batch)
    monkeypatch.setattr(batching, "SHARE", 2)
    assert replies() == left
    assert computed == {len(batch)}


def test_batches_hold_every_request_once_and_one_sampling_each(engine, requests):
    batches = engine.batches(requests)
    assert sorted(i for b in batches for i in b) == list(range(len(requests)))
    assert all(len({requests[i].temperature for i in b}) == 1 for b in batches)


def test_equal_prompts_in_a_batch_get_samples_of_their_own(engine, requests):
    hot = [Request(requests[0].messages, 1.5, 12, agent) for agent in range(8)]
    assert len({r.text for r in engine.generate(hot, 1)}) > 1


def test_a_batch_is_generated_once(engine, requests, tmp_path):
    store = Store(tmp_path)
    first = store.generate(engine, requests)
    files = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.json")}
    assert store.generate(engine, requests) == first
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.json")} == files


def test_a_damaged_batch_is_generated_again_to_the_same_text(engine, requests, tmp_path):
    store = Store(tmp_path)
    first = [r.text for r in store.generate(engine, requests)]
    next(tmp_path.rglob("*.json")).write_text('[{"text": "an')
    assert [r.text for r in store.generate(engine, requests)] == first


def test_16_bits_are_an_engine_of_their_own_that_answers_nearly_alike():
    questions = TASKS["equation"].questions(60, "validation", 0)
    asked = [Request(solve_prompt(q.text), 0.0, 72, 0) for q in questions]
    full, half = (engine_of(f"{prefix}data/models/teacher") for prefix in ("", "bf16:"))
    assert half.model.dtype == torch.bfloat16 and full.model.dtype == torch.float32
    assert half.fingerprint != full.fingerprint
    pairs = zip(*([reply.text for reply in one.generate(asked, 0)] for one in (full, half)), strict=True)
    same = sum(a == b for a, b in pairs)
    assert 0.7 * len(asked) < same <= len(asked)


@pytest.mark.parametrize("new", [1, 4])
@pytest.mark.parametrize("padded", [True, False])
def test_attention_of_groups_is_that_of_repeated_heads(new, padded):
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, heads, tokens, 8) for heads, tokens in ((6, new), (2, 10), (2, 10)))
    mask = torch.ones(3, 1, new, 10, dtype=torch.bool).tril(10 - new)
    mask[0, ..., :4] = not padded
    repeated = SimpleNamespace(num_key_value_groups=3, is_causal=True)
    ours, theirs = (one(repeated, query, key, value, mask, scaling=0.3)[0] for one in (attend, sdpa_attention_forward))
    torch.testing.assert_close(ours, theirs)


def test_counts_and_finish_reasons(engine, requests):
    for reply in engine.generate(requests[:3], 0):
        assert reply.prompt_tokens > 0 and 0 < reply.completion_tokens <= 12 and reply.seconds > 0
        if reply.finish_reason == "length":
            assert reply.completion_tokens == 12


def test_no_model_is_named(tmp_path):
    with pytest.raises(StudyError, match="no model here"):
        loading.load(tmp_path / "nobody")


def test_damaged_weights_are_named(engine, tmp_path):
    tokenizer = tiny.build_tokenizer()
    tiny.build_model("qwen3", 32, 1, 0, len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(StudyError, match="not a loadable model"):
        loading.load(tmp_path)


def test_continuous_batching_writes_the_same_greedy_text_and_samples_repeatably():
    plain, paged = (engine_of(f"{prefix}data/models/teacher") for prefix in ("", "paged:"))
    prompts = [solve_prompt(posed("equation", 2 + i % 2, i)[1].text) for i in range(6)]
    greedy, drawn = ([Request(prompt, t, 24, 0) for prompt in prompts] for t in (0.0, 1.5))
    assert sorted(map(len, paged.batches([*greedy, *drawn]))) == [6, 6]
    found, expected = ([replace(r, seconds=0) for r in e.generate(greedy, 0)] for e in (paged, plain))
    assert found == expected
    once, again, other = ([r.text for r in paged.generate(drawn, seed)] for seed in (0, 0, 1))
    assert once == again != other

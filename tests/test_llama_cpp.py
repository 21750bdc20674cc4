"""llama.cpp as an engine and GGUF files as models, tested with the real weights of SmolLM2."""

import os
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_traces import EGGS
from weights import smollm2

from agentark import StudyError, root
from agentark.debate.protocols import Debate
from agentark.debate.run import run_debates
from agentark.engines import Batch, Request, engine
from agentark.engines.llama_cpp import TOGETHER, LlamaCpp
from agentark.models import gguf, loading

PROMPTS = (
    "What is 3 + 4?", "Name three colours.", "Count to five.", "What is the capital of France?", "Write one word.",
    "How many days has a week?", "What is 12 - 5?", "Say hello in French.", "Is water wet?", "What is twice 8?",
)  # fmt: skip


@pytest.fixture(scope="module")
def file():
    return smollm2()


@pytest.fixture(scope="module")
def llama(file):
    return LlamaCpp(str(file))


@pytest.fixture(scope="module")
def unpacked(file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    gguf.unpack(file, folder, torch.bfloat16)
    return folder


def request(text, temperature=0.0, max_tokens=6, seed=0):
    return Request([{"role": "user", "content": text}], temperature, max_tokens, seed)


def answers(engine, requests):
    order = engine.batches(requests)
    done = dict(engine.run([Batch([requests[i] for i in indices], 1) for indices in order]))
    replies = {i: reply for number, indices in enumerate(order) for i, reply in zip(indices, done[number], strict=True)}
    return [replies[i] for i in range(len(requests))]


def test_replies_have_text_token_counts_finish_reason_and_seconds(llama):
    short, truncated = answers(
        llama, [request(PROMPTS[0], max_tokens=60), request("Tell me a long story.", max_tokens=8)]
    )
    assert "7" in short.text and short.finish_reason == "stop" and 0 < short.completion_tokens < 60
    assert truncated.finish_reason == "length" and truncated.completion_tokens == 8
    assert min(short.prompt_tokens, truncated.prompt_tokens) > 10 and min(short.seconds, truncated.seconds) > 0


def test_replies_of_a_batch_do_not_depend_on_earlier_batches(llama, file):
    batch = [request(f"{PROMPTS[0]} Think about it step by step.", t, 8, seed) for t in (0.0, 1.0) for seed in range(3)]
    first = [reply.text for reply in answers(llama, batch)]
    answers(llama, [request(p) for p in PROMPTS[:3]])
    assert [reply.text for reply in answers(llama, batch)] == first
    assert [reply.text for reply in answers(LlamaCpp(str(file)), batch)] == first
    assert first[0] == first[1] == first[2] and len(set(first[3:])) == 3  # greedy; sampled with different seeds


def test_prompts_with_a_common_prefix_share_a_batch_of_limited_size(llama):
    long = "A long story about a farmer and his hens. " * 5
    requests = [request(f"{long}{i}") for i in range(TOGETHER + 2)] + [request("Another question.")]
    assert llama.batches(requests) == [list(range(TOGETHER)), [TOGETHER, TOGETHER + 1], [TOGETHER + 2]]
    assert llama.batches([]) == []


def test_thinking_part_stays_in_the_text(llama, monkeypatch):
    choice = {"message": {"content": "<think>hm</think>7"}, "finish_reason": "stop"}
    monkeypatch.setattr(
        llama, "model", type("Model", (), {"handle_chat_completions": lambda *_: {"choices": [choice]}})()
    )
    assert llama.reply(request("?"), False).text == "<think>hm</think>7"


def test_prompt_longer_than_the_context_window_is_a_one_line_error(llama):
    with pytest.raises(StudyError, match=r"SmolLM2.*exceeds the available context size.*shorten the prompt") as error:
        answers(llama, [request("word " * 9000)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such GGUF file"), (b"", "not a GGUF file"), (b"\x80\x02", "not a GGUF file"), (b"GGUF", "not a loadable GGUF"),
     (b"GGUF\x03\0\0\0garbage" * 9, "not a loadable GGUF")],
)  # fmt: skip
def test_invalid_gguf_file_is_a_one_line_error_that_names_it(content, words, tmp_path):
    if content is not None:
        (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(StudyError, match=words) as error:
        engine(f"llama.cpp:{tmp_path}/a.gguf")
    assert "a.gguf" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(StudyError, match="a folder"):
        engine(f"llama.cpp:{tmp_path}")


@pytest.mark.parametrize("package", ["xllamacpp", "gguf"])
def test_missing_package_is_reported_with_its_pip_command_and_nothing_is_written(package, file, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StudyError, match="pip install xllamacpp gguf"):
        LlamaCpp(str(file))
    if package == "gguf":
        with pytest.raises(StudyError, match="pip install xllamacpp gguf"):
            gguf.unpack(file, tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_debate_runs_in_worker_processes_and_resumes_from_the_store(file, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "AGENTARK_WORKERS", "2")
    questions = [EGGS.model_copy(update={"question_id": str(i), "text": f"What is {i} + 2?"}) for i in range(3)]
    debate = Debate(agents=2, rounds=2, temperature=0.7, revision_temperature=0.7, order="shared")
    name = f"llama.cpp:{file}"
    traces, seconds = run_debates(debate, questions, name, tmp_path / "store", seed=1, max_tokens=4)
    assert {t.question_id for t in traces} == {"0", "1", "2"} and len(seconds) == len(traces) >= 3 * 3
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.json")}
    again, _ = run_debates(debate, questions, name, tmp_path / "store", seed=1, max_tokens=4)
    assert again == traces and files == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.json")}
    fresh, _ = run_debates(debate, questions, name, tmp_path / "other", seed=1, max_tokens=4)
    assert fresh == traces


@pytest.mark.long
def test_model_of_a_gguf_file_is_trainable_and_answers_like_llama_cpp(unpacked, llama):
    # Only the first characters are compared, and two replies may differ: llama.cpp rounds activations too, and after
    # one different token the rest of a text differs.
    texts = [[r.text for r in answers(e, [request(p) for p in PROMPTS])] for e in (engine(unpacked), llama)]
    assert sum(one[:12] == other[:12] for one, other in zip(*texts, strict=True)) >= 8
    model, tokenizer = loading.load(unpacked, torch.float32)
    loss = model(**(ids := tokenizer("hello there", return_tensors="pt")), labels=ids.input_ids).loss
    loss.backward()
    assert all(weights.grad is not None for weights in model.parameters())


@pytest.mark.long
def test_adapter_written_as_gguf_answers_like_the_trained_student(unpacked, file, tmp_path):
    model, tokenizer = loading.load(unpacked, torch.float32)
    linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=linear, init_lora_weights=False))
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_" in name:
                weights *= 0.5
    adapted.save_pretrained(tmp_path / "adapter")
    gguf.write_adapter(tmp_path / "adapter", unpacked, tmp_path / "adapter.gguf")
    adapted.merge_and_unload().bfloat16().save_pretrained(tmp_path / "merged")
    tokenizer.save_pretrained(tmp_path / "merged")
    engines = [engine(tmp_path / "merged"), engine(f"llama.cpp:{file}+{tmp_path}/adapter.gguf"), engine(unpacked)]
    merged, adapted, base = ([r.text[:8] for r in answers(e, [request(p) for p in PROMPTS])] for e in engines)
    agree = sum(one == other for one, other in zip(merged, adapted, strict=True))
    assert agree >= 6 and agree > sum(one == other for one, other in zip(merged, base, strict=True))


def test_adapter_with_weights_that_gguf_cannot_store_is_refused(unpacked, tmp_path):
    model, _ = loading.load(unpacked, torch.float32)
    settings = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    get_peft_model(model, settings).save_pretrained(tmp_path / "adapter")
    with pytest.raises(StudyError, match=r"adapter: .*lm_head.* has no counterpart in a GGUF file"):
        gguf.write_adapter(tmp_path / "adapter", unpacked, tmp_path / "adapter.gguf")
    assert not (tmp_path / "adapter.gguf").exists()


def test_full_model_of_another_base_model_is_refused(file, tmp_path):
    with pytest.raises(StudyError, match=r"qwen3 for SmolLM2.*, which holds llama; .* write its adapter"):
        gguf.write_model(root() / "data/models/qwen3-small", file, tmp_path / "whole.gguf")
    with pytest.raises(StudyError, match=r"llama-small: no weights for blk\..* of SmolLM2"):
        gguf.write_model(root() / "data/models/llama-small", file, tmp_path / "whole.gguf")
    assert not (tmp_path / "whole.gguf").exists()

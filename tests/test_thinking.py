"""Thoughts are separated from answers for every family's markers, and chats follow the models' own templates."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import trl
from aiohttp import web
from checkpoints import build, tokenizer
from examples import GOLD, KEYS, trace_of
from gguf import GGUFReader
from hypothesis import given
from hypothesis import strategies as st
from servers import completion, fake_server
from test_traces import EGGS
from weights import smollm2

from agentark import StudyError
from agentark.debate.protocols import Debate
from agentark.debate.run import run_debates, texts_of
from agentark.distill import policy, sft
from agentark.distill.settings import Policy
from agentark.engines import Batch, Chat, Reply, Request, Store, serve, thoughts, transformers
from agentark.engines.llama_cpp import LlamaCpp
from agentark.engines.requests import separate_thought
from agentark.engines.server import Server
from agentark.engines.thoughts import MARK, MARKERS, split, written
from agentark.evaluate.predictions import predict, reply_counts
from agentark.evaluate.scores import scores
from agentark.models.chat import SWITCH, prompt_ids, rendered
from agentark.schemas import Trace, frame, read_table, write_table
from agentark.traces.check import check_traces
from agentark.traces.selection import select

USER = [{"role": "user", "content": "How many eggs?"}]
SYSTEM = [{"role": "system", "content": "Answer briefly."}, *USER]
DEBATE = [*USER, {"role": "assistant", "content": "3"}, {"role": "user", "content": "Compare."}]
PLAIN = st.text().filter(lambda text: not MARK.search(text))
PAIRS = st.sampled_from(sorted(MARKERS.items()))
FAMILIES = {  # template name -> the family in tests/checkpoints.py with its turn tokens
    "qwen3": "qwen3", "qwen2_5": "qwen3", "llama3": "llama", "gemma": "gemma3", "gemma3": "gemma3", "smollm2": "qwen3",
    "qwen3_5_think": "qwen3",
}  # fmt: skip


@pytest.fixture(scope="module")
def templates():
    """Tokenizers with real chat templates: those in TRL, and the one in SmolLM2's file."""
    tokenizers = {}
    for name, family in FAMILIES.items():
        tokenizers[name] = tokenizer(family)
        if name == "smollm2":
            tokenizers[name].chat_template = GGUFReader(smollm2()).fields["tokenizer.chat_template"].contents()
        else:
            file = Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja"
            tokenizers[name].chat_template = file.read_text(encoding="utf-8")
    return tokenizers


# Thoughts and answers


@given(PLAIN)
def test_a_text_without_markers_is_unchanged(text):
    assert split(text) == ("", text)


@given(PAIRS, PLAIN, PLAIN)
def test_a_thought_is_split_from_its_answer(pair, thought, answer):
    opening, closing = pair
    marked = f"{opening}{thought}{closing}"
    assert split(marked + answer) == (marked, answer.strip())
    assert split(f"{thought}{closing}{answer}") == (f"{thought}{closing}", answer.strip())  # opened in the prompt


@given(PAIRS, PLAIN, PLAIN.filter(str.strip))
def test_a_closing_marker_after_the_answer_is_removed(pair, thought, answer):
    opening, closing = pair
    marked = f"{opening}{thought}{closing}"
    assert split(f"{marked}{answer}{closing}\n") == (marked, answer.strip())


@given(PAIRS, PLAIN, PLAIN, PLAIN)
def test_an_unfinished_thought_has_no_answer(pair, before, thought, answer):
    opening, closing = pair
    assert split(f"{before}{opening}{thought}")[1] is None
    assert split(f"{opening}{thought}{closing}{answer}{opening}{thought}")[1] is None


@given(PAIRS, PLAIN, PLAIN, st.sampled_from(["stop", "length"]), st.integers(0, 60), st.integers(0, 60))
def test_no_part_of_a_thought_is_in_the_text_of_the_reply(pair, thought, answer, reason, tokens, limit):
    text = f"{pair[0]}{thought}{pair[1]}{answer}"
    reply = separate_thought(Reply(text, 5, tokens, reason, 0.0), Request(USER, 0.0, 30, 0, thought_tokens=limit))
    assert not MARK.search(reply.text + reply.thought) and reply.thought in thought
    if limit and tokens * (len(text) - len(answer)) > limit * len(text):
        assert (reply.text, reply.finish_reason) == ("", "length")
    else:
        assert (reply.text, reply.finish_reason) == (answer.strip(), reason)


@pytest.mark.parametrize(
    ("text", "reason", "expected"),
    [
        ("<think>3, no", "length", ("", "length", "3, no")),
        ("<think>The answer is 3.", "stop", ("", "length", "The answer is 3.")),
        ("<think>\n\n</think>\n\n3", "stop", ("3", "stop", "")),  # switched off, as in Qwen3's template
        ("3, no, wait", "length", ("3, no, wait", "length", "")),
        ("", "refused", ("", "refused", "")),
    ],
)
def test_only_a_reply_cut_in_its_thought_is_marked_as_cut_in_thought(text, reason, expected):
    reply = separate_thought(Reply(text, 5, 4, reason, 0.0), Request(USER, 0.0, 9, 0))
    assert (reply.text, reply.finish_reason, reply.thought) == expected
    assert reply.cut_in_thought == (expected[0] == "" and reason != "refused")


@pytest.mark.parametrize(
    "markers", [("[THINK]", "[/THINK]"), ("<|channel|>", "<|message|>", "<|start|>", "<|end|>")],
    ids=["Magistral", "gpt-oss"],
)  # fmt: skip
def test_special_tokens_are_kept_only_where_they_mark_a_thought(markers):
    qwen3 = tokenizer("qwen3")
    qwen3.add_special_tokens({"additional_special_tokens": list(markers)})
    thought = "[THINK]3 ?[/THINK]" if len(markers) == 2 else (
        "<|channel|>analysis<|message|>3 ?<|end|><|start|>assistant<|channel|>final<|message|>"
    )  # fmt: skip
    ids = qwen3(thought + "answer : 3", add_special_tokens=False).input_ids
    assert split(written(qwen3, [], ids)) == (thought, "answer : 3")
    ids = qwen3("<|im_start|>answer : 3", add_special_tokens=False).input_ids
    assert written(qwen3, [], ids) == "answer : 3"


def test_an_opening_marker_at_the_end_of_the_prompt_is_part_of_the_reply(templates):
    qwen3 = templates["qwen3_5_think"]
    reply = qwen3("3 ? no", add_special_tokens=False).input_ids
    texts = {thinking: written(qwen3, prompt_ids(qwen3, USER, 1000, thinking), reply) for thinking in SWITCH}
    assert texts == {"": "<think>\n3 ? no", "on": "<think>\n3 ? no", "off": "3 ? no"}


# The real templates


@pytest.mark.parametrize("name", FAMILIES)
def test_a_student_is_trained_with_the_prompt_of_its_evaluation(name, templates):
    messages = Chat(system="Answer briefly.").request(USER, 0.0, 9, 0).messages
    expected = rendered(templates[name], messages, "")
    (chat,) = sft.chats([("How many eggs?", "answer : 3")], templates[name], "Answer briefly.")
    assert "Answer briefly." in expected and rendered(templates[name], chat["prompt"], "") == expected
    question = EGGS.model_copy(update={"text": "How many eggs?"})
    (row,) = policy.prompts([question], templates[name], "Answer briefly.")
    assert row["prompt"] == chat["prompt"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_template_accepts_the_switch_a_system_prompt_and_a_debate(name, templates):
    for messages in (USER, SYSTEM, DEBATE, [SYSTEM[0], *DEBATE]):
        for thinking in SWITCH:
            chat = rendered(templates[name], messages, thinking)
            assert all(chat.count(message["content"]) >= 1 for message in messages)
            assert messages[0]["content"] in chat[: chat.index(messages[-1]["content"]) + 20]


def test_the_thinking_switch_has_an_effect_only_in_templates_that_support_it(templates):
    plain, on, off = (rendered(templates["qwen3"], USER, thinking) for thinking in SWITCH)
    assert plain == on == "<|im_start|>user\nHow many eggs?<|im_end|>\n<|im_start|>assistant\n"
    assert off == on + "<think>\n\n</think>\n\n"
    for name in ("qwen2_5", "llama3", "gemma", "gemma3", "smollm2"):
        assert len({rendered(templates[name], USER, thinking) for thinking in SWITCH}) == 1


def test_a_system_prompt_replaces_the_default_of_the_template(templates):
    for name, default in (("qwen2_5", "You are Qwen"), ("smollm2", "You are a helpful AI assistant named SmolLM")):
        assert default in rendered(templates[name], USER, "")
        chat = rendered(templates[name], SYSTEM, "")
        assert default not in chat and chat.startswith("<|im_start|>system\nAnswer briefly.<|im_end|>")


@pytest.mark.parametrize("name", ["gemma", "gemma3"])
def test_without_a_system_role_the_system_prompt_is_put_before_the_first_message(name, templates):
    chat = rendered(templates[name], [SYSTEM[0], *DEBATE], "")
    assert chat.startswith("<bos><start_of_turn>user\nAnswer briefly.\n\nHow many eggs?<end_of_turn>")
    assert chat.count("Answer briefly.") == 1


def test_a_system_prompt_dropped_by_the_template_is_put_into_the_first_message(templates):
    qwen3 = tokenizer("qwen3")
    qwen3.chat_template = "{% for m in messages if m.role == 'user' %}[{{ m.content }}]{% endfor %}"
    assert rendered(qwen3, SYSTEM, "") == "[Answer briefly.\n\nHow many eggs?]"


def test_repeated_roles_are_refused_in_one_line(templates):
    with pytest.raises(StudyError, match="refuses messages of system, user, user"):
        prompt_ids(templates["gemma"], [*SYSTEM, *USER], 1000)


# From the parameters to the engines


def test_default_requests_keep_their_store_key_and_others_have_different_keys(tmp_path):
    request = Request(USER, 0.0, 9, 0)
    fields = {"messages": USER, "temperature": 0.0, "max_tokens": 9, "seed": 0}
    key = hashlib.sha256(json.dumps(["an engine", [fields]]).encode()).hexdigest()

    class Unused:
        fingerprint = "an engine"

        def batches(self, requests):
            return [[i] for i in range(len(requests))]

        def run(self, batches):
            assert not batches, "the answer is in the store"
            return iter(())

    store = Store(tmp_path)
    store.write(key, [Reply("<think>no</think>3", 5, 4, "stop", 0.1)], "an engine")
    (reply,) = store.generate(Unused(), [request])
    assert (reply.text, reply.thought) == ("3", "no")
    others = [replace(request, thinking=thinking) for thinking in ("on", "off")] + [replace(request, thought_tokens=9)]
    assert len({json.dumps(r.recorded()) for r in [request, *others]}) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [({"thinking": "yes"}, "thinking='yes' is unknown; choose on, off"),
     ({"thought_tokens": -1}, "thought_tokens=-1 is")],
)  # fmt: skip
def test_an_invalid_value_is_reported_in_one_line_that_names_the_parameter(values, message):
    with pytest.raises(StudyError, match=message) as error:
        Chat(**values)
    assert "\n" not in str(error.value)


def test_thought_tokens_extend_the_limit_and_the_switch_reaches_the_model(tmp_path, monkeypatch, templates):
    engine = transformers.Transformers(build("qwen3", tmp_path))
    engine.tokenizer.chat_template = templates["qwen3"].chat_template
    reply_ids, calls = engine.tokenizer("<think>no", add_special_tokens=False).input_ids, []

    def generate(model, input_ids, attention_mask, generation_config):
        calls.append((engine.tokenizer.decode(input_ids[0]), generation_config.max_new_tokens))
        return torch.cat([input_ids, torch.tensor([reply_ids] * len(input_ids))], dim=1)

    monkeypatch.setattr(transformers, "generate", generate)
    chats = [Chat(), Chat("on", 20), Chat("off", 0, "Answer briefly.")]
    replies = Store(tmp_path / "store").generate(engine, [chat.request(USER, 0.0, 9, 0) for chat in chats])
    assert [limit for _, limit in sorted(calls, key=lambda call: call[1])] == [9, 29]  # one batch per limit
    assert {(r.text, r.thought, r.finish_reason) for r in replies} == {("", "no", "length")}
    requests = [chats[2].request(USER, 0.0, 9, 0)]
    list(engine.run([Batch(requests, 0)]))
    assert calls[-1][0].startswith("<|im_start|>system\nAnswer briefly.") and calls[-1][0].endswith("</think>\n\n")


def test_llama_cpp_receives_the_switch_and_the_token_limit():
    bodies = []

    class Model:
        def handle_chat_completions(self, body):
            bodies.append(body)
            return {"choices": [{"message": {"content": "3"}, "finish_reason": "stop"}]}

    engine = LlamaCpp.__new__(LlamaCpp)
    engine.model, engine.name = Model(), "file.gguf"
    for thinking in SWITCH:
        engine.reply(Chat(thinking, 20).request(USER, 0.0, 9, 0), False)
    assert [body["chat_template_kwargs"] for body in bodies] == list(SWITCH.values())
    assert [body["max_tokens"] for body in bodies] == [9 if thinking == "off" else 29 for thinking in SWITCH]


@pytest.mark.parametrize("owner", ["vllm", "sglang", "llamacpp", "agentark"])
def test_servers_that_support_the_switch_receive_it(tmp_path, owner):
    with fake_server(lambda *_: completion(), owner) as (address, requests):
        engine = Server(*address.partition("#")[::2])
        for thinking in SWITCH:
            Store(tmp_path).generate(engine, [Chat(thinking, 20).request(USER, 0.0, 9, 0)])
    assert [body.get("chat_template_kwargs", {}) for body in requests] == list(SWITCH.values())
    assert [body["max_tokens"] for body in requests] == [9 if thinking == "off" else 29 for thinking in SWITCH]


def test_a_server_not_known_to_support_the_switch_gets_no_request(tmp_path):
    with (
        fake_server(lambda *_: completion(), "openai") as (address, requests),
        pytest.raises(StudyError, match=r"thinking=off: only servers of vLLM.*leave thinking empty"),
    ):
        Store(tmp_path).generate(Server(*address.partition("#")[::2]), [Chat("off").request(USER, 0.0, 9, 0)])
    assert not requests


def test_the_server_of_the_study_supports_the_switch(tmp_path, templates):
    engine = transformers.Transformers(build("qwen3", tmp_path))
    body = {"model": "m", "messages": USER}
    for thinking, options in SWITCH.items():
        assert serve.wanted(body | {"chat_template_kwargs": options}, engine).thinking == thinking
    assert serve.wanted(body, engine).thinking == ""
    for wrong in ("yes", {"enable_thinking": "yes"}):
        with pytest.raises(StudyError, match="not a chat completion's request"):
            serve.wanted(body | {"chat_template_kwargs": wrong}, engine)


@pytest.mark.parametrize(("status", "message"), [(400, "no"), (500, "Jinja Exception: System role not supported")])
def test_a_system_prompt_refused_by_a_server_is_sent_in_the_first_message(tmp_path, status, message):
    def answer(_, body):
        refusal = web.json_response({"error": {"message": message}}, status=status)
        return refusal if body["messages"][0]["role"] == "system" else completion()

    with fake_server(answer) as (address, requests):
        engine = Server(*address.partition("#")[::2])
        (reply,) = Store(tmp_path).generate(engine, [Chat(system="Answer briefly.").request(USER, 0.0, 9, 0)])
    assert reply.text == "answer : 3"
    assert requests[-1]["messages"] == [{"role": "user", "content": "Answer briefly.\n\nHow many eggs?"}]


@pytest.mark.parametrize(
    ("thinking", "text", "reason", "cut"),
    [("on", "so, 3", "length", True), ("on", "so, 3", "stop", False), ("", "so, 3", "length", False),
     ("on", "</think>3", "length", False)],
)  # fmt: skip
def test_a_server_reply_cut_in_a_thought_opened_by_the_prompt_is_marked(tmp_path, thinking, text, reason, cut):
    with fake_server(lambda *_: completion(text, reason), "vllm") as (address, _):
        engine = Server(*address.partition("#")[::2])
        (reply,) = Store(tmp_path).generate(engine, [Chat(thinking).request(USER, 0.0, 9, 0)])
    assert (reply.cut_in_thought, reply.text == "") == (cut, cut)


# Thoughts in the study


def scripted_reply(number):
    """A reply with 99 in its thought and the answer 9 or 10; every fourth reply is cut in its thought."""
    if number % 4 == 3:
        return completion("<think>secret: the answer is 99", "length")
    return completion(f"<think>secret: the answer is 99</think>\n16 - 3 = 13\nThe answer is {9 + number % 2}.")


@pytest.fixture
def traces(tmp_path):
    protocol = Debate(agents=4, rounds=2, temperature=1.0, revision_temperature=0.2, order="chat")
    with fake_server(lambda number, body: scripted_reply(number), "vllm") as (address, requests):
        debated, _ = run_debates(protocol, [EGGS], address, tmp_path / "store", 0, 9, Chat("on", 50, "Answer briefly."))
    assert len(requests) == len(debated) == 9
    assert all(body["messages"][0] == SYSTEM[0] for body in requests)
    assert not any("secret" in message["content"] for body in requests for message in body["messages"])
    return debated


def test_thoughts_are_excluded_from_prompts_grading_steps_and_training(traces, tmp_path):
    assert {t.thought for t in traces} == {"secret: the answer is 99"}
    assert Counter(t.finish_reason for t in traces) == {"stop": 7, "length": 2}
    assert all((t.text, t.answer) == ("", None) for t in traces if t.cut_in_thought)
    assert {t.answer for t in traces} == {"9", "10", None}
    checked = check_traces(traces, [EGGS])
    chosen, _ = select(checked, [EGGS], 3)
    predictions = predict(traces, [EGGS], "test", "debate")
    targets = [target for _, target in sft.examples(chosen, "rsft")]
    steps = {step for t in checked for step in t.steps}
    shown = [*(t.text for t in chosen), *targets, *(p.text for p in predictions), *steps, *texts_of(traces)["eggs"]]
    assert targets and not any("secret" in text or MARK.search(text) for text in shown)
    assert steps <= {"16 - 3 = 13", "The answer is 9.", "The answer is 10."}
    write_table(checked, tmp_path / "checked.parquet")
    assert read_table(tmp_path / "checked.parquet", type(checked[0])) == checked


def test_replies_cut_in_thought_are_counted_in_the_results(traces):
    (prediction,) = predict(traces, [EGGS], "test", "debate")
    assert (prediction.cut_in_thought, prediction.calls) == (2, 9)
    counts = reply_counts(traces, "test", "debate")
    assert [counts[name] for name in ("cut", "cut_in_thought", "without_answer")] == [0, 2, 2]
    old_format = [t.model_copy(update={"finish_reason": "thought"} if t.cut_in_thought else {}) for t in traces]
    assert reply_counts(old_format, "test", "debate") == counts
    rows = scores(frame([prediction]), "main", "t", "eggs", lambda _: [])
    assert [r.value for r in rows if r.metric == "cut_in_thought"] == [pytest.approx(2 / 9)]
    rows = scores(frame([prediction.model_copy(update={"cut_in_thought": 0})]), "main", "t", "eggs", lambda _: [])
    assert not [r for r in rows if r.metric == "cut_in_thought"]


def test_a_table_without_thoughts_has_no_column_for_them(tmp_path):
    rows = [trace_of(1, 1, GOLD), trace_of(2, 1, GOLD)]
    write_table(rows, tmp_path / "a.parquet")
    write_table([rows[0], rows[1].model_copy(update={"thought": "so"})], tmp_path / "b.parquet")
    a, b = (read_table(tmp_path / f"{name}.parquet", Trace) for name in "ab")
    assert a == rows and [t.thought for t in b] == ["", "so"]
    assert "thought" not in pq.read_schema(tmp_path / "a.parquet").names


def test_thinking_is_off_in_policy_training(tmp_path, templates):
    settings = Policy.read(dict(steps=1, batch_size=1, num_generations=2, temperature=1.0, learning_rate=1e-3, beta=0.0,
                                max_tokens=9, held_out=0, aggregate="min", outcome_weight=0.0))  # fmt: skip
    assert policy.outputs_of(settings)["chat_template_kwargs"]["enable_thinking"] is False
    base, qwen3 = build("qwen3", tmp_path), templates["qwen3"]
    longest = policy.longest_prompt(base, [KEYS], qwen3, settings)
    assert longest == len(prompt_ids(qwen3, [{"role": "user", "content": KEYS.text}], 8000, "off"))


def test_no_marker_is_part_of_another():
    markers = [*MARKERS, *MARKERS.values()]
    assert not any(one in other for one in markers for other in markers if one != other)
    assert max(map(len, MARKERS)) < thoughts.TAIL

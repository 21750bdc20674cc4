"""Thoughts and answers are kept apart for every family's markers, and chats have the form of the models' own templates."""

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
from examples import GOLD, KEYS, said
from gguf import GGUFReader
from hypothesis import given
from hypothesis import strategies as st
from servers import answering, completion
from test_traces import EGGS
from weights import smollm2

from agentark import StudyError
from agentark.debate.protocols import Debate
from agentark.debate.run import run_debates, texts_of
from agentark.distill import policy, sft
from agentark.distill.settings import Policy
from agentark.engines import Batch, Chat, Reply, Request, Store, serve, thoughts, transformers
from agentark.engines.llama_cpp import LlamaCpp
from agentark.engines.requests import parted
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
FAMILIES = {  # name of the template -> a family of tests/checkpoints.py with its turn tokens
    "qwen3": "qwen3", "qwen2_5": "qwen3", "llama3": "llama", "gemma": "gemma3", "gemma3": "gemma3", "smollm2": "qwen3",
    "qwen3_5_think": "qwen3",
}  # fmt: skip


@pytest.fixture(scope="module")
def templates():
    """Tokenizers with the real chat templates: those in TRL, and that of SmolLM2's file."""
    found = {}
    for name, family in FAMILIES.items():
        found[name] = tokenizer(family)
        if name == "smollm2":
            found[name].chat_template = GGUFReader(smollm2()).fields["tokenizer.chat_template"].contents()
        else:
            file = Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja"
            found[name].chat_template = file.read_text(encoding="utf-8")
    return found


# Thoughts and answers


@given(PLAIN)
def test_a_text_without_markers_stays_as_it_is(text):
    assert split(text) == ("", text)


@given(PAIRS, PLAIN, PLAIN)
def test_a_thought_and_its_answer_are_taken_apart(pair, thought, answer):
    opening, closing = pair
    whole = f"{opening}{thought}{closing}"
    assert split(whole + answer) == (whole, answer.strip())
    assert split(f"{thought}{closing}{answer}") == (f"{thought}{closing}", answer.strip())  # opened in the prompt


@given(PAIRS, PLAIN, PLAIN.filter(str.strip))
def test_a_closing_marker_after_the_answer_ends_no_thought(pair, thought, answer):
    opening, closing = pair
    whole = f"{opening}{thought}{closing}"
    assert split(f"{whole}{answer}{closing}\n") == (whole, answer.strip())


@given(PAIRS, PLAIN, PLAIN, PLAIN)
def test_a_thought_that_does_not_end_has_no_answer(pair, before, thought, answer):
    opening, closing = pair
    assert split(f"{before}{opening}{thought}")[1] is None
    assert split(f"{opening}{thought}{closing}{answer}{opening}{thought}")[1] is None


@given(PAIRS, PLAIN, PLAIN, st.sampled_from(["stop", "length"]), st.integers(0, 60), st.integers(0, 60))
def test_no_part_of_a_thought_is_in_the_text(pair, thought, answer, reason, tokens, room):
    text = f"{pair[0]}{thought}{pair[1]}{answer}"
    reply = parted(Reply(text, 5, tokens, reason, 0.0), Request(USER, 0.0, 30, 0, thought_tokens=room))
    assert not MARK.search(reply.text + reply.thought) and reply.thought in thought
    if room and tokens * (len(text) - len(answer)) > room * len(text):
        assert (reply.text, reply.finish_reason) == ("", "length")
    else:
        assert (reply.text, reply.finish_reason) == (answer.strip(), reason)


@pytest.mark.parametrize(
    ("text", "reason", "expected"),
    [
        ("<think>3, no", "length", ("", "length", "3, no")),
        ("<think>The answer is 3.", "stop", ("", "length", "The answer is 3.")),
        ("<think>\n\n</think>\n\n3", "stop", ("3", "stop", "")),  # switched off, as Qwen3's template does it
        ("3, no, wait", "length", ("3, no, wait", "length", "")),
        ("", "refused", ("", "refused", "")),
    ],
)
def test_only_a_reply_cut_in_its_thought_is_called_so(text, reason, expected):
    reply = parted(Reply(text, 5, 4, reason, 0.0), Request(USER, 0.0, 9, 0))
    assert (reply.text, reply.finish_reason, reply.thought) == expected
    assert reply.cut_in_thought == (expected[0] == "" and reason != "refused")


@pytest.mark.parametrize(
    "marks", [("[THINK]", "[/THINK]"), ("<|channel|>", "<|message|>", "<|start|>", "<|end|>")], ids=["Magistral", "gpt-oss"]
)  # fmt: skip
def test_special_tokens_are_kept_where_they_mark_a_thought(marks):
    words = tokenizer("qwen3")
    words.add_special_tokens({"additional_special_tokens": list(marks)})
    thought = "[THINK]3 ?[/THINK]" if len(marks) == 2 else (
        "<|channel|>analysis<|message|>3 ?<|end|><|start|>assistant<|channel|>final<|message|>"
    )  # fmt: skip
    ids = words(thought + "answer : 3", add_special_tokens=False).input_ids
    assert split(written(words, [], ids)) == (thought, "answer : 3")
    ids = words("<|im_start|>answer : 3", add_special_tokens=False).input_ids
    assert written(words, [], ids) == "answer : 3"


def test_the_marker_of_a_thought_that_the_prompt_opens_belongs_to_the_reply(templates):
    words = templates["qwen3_5_think"]
    reply = words("3 ? no", add_special_tokens=False).input_ids
    texts = {how: written(words, prompt_ids(words, USER, 1000, how), reply) for how in SWITCH}
    assert texts == {"": "<think>\n3 ? no", "on": "<think>\n3 ? no", "off": "3 ? no"}


# The real templates


@pytest.mark.parametrize("name", FAMILIES)
def test_a_student_trains_on_the_prompt_that_it_will_answer(name, templates):
    asked = Chat(system="Answer briefly.").request(USER, 0.0, 9, 0).messages
    expected = rendered(templates[name], asked, "")
    (chat,) = sft.chats([("How many eggs?", "answer : 3")], templates[name], "Answer briefly.")
    assert "Answer briefly." in expected and rendered(templates[name], chat["prompt"], "") == expected
    question = EGGS.model_copy(update={"text": "How many eggs?"})
    (row,) = policy.prompts([question], templates[name], "Answer briefly.")
    assert row["prompt"] == chat["prompt"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_real_template_takes_the_switch_a_system_prompt_and_a_debate(name, templates):
    for messages in (USER, SYSTEM, DEBATE, [SYSTEM[0], *DEBATE]):
        for thinking in SWITCH:
            chat = rendered(templates[name], messages, thinking)
            assert all(chat.count(message["content"]) >= 1 for message in messages)
            assert messages[0]["content"] in chat[: chat.index(messages[-1]["content"]) + 20]


def test_thinking_is_switched_in_the_template_of_qwen3_and_ignored_by_those_without_a_switch(templates):
    plain, on, off = (rendered(templates["qwen3"], USER, how) for how in SWITCH)
    assert plain == on == "<|im_start|>user\nHow many eggs?<|im_end|>\n<|im_start|>assistant\n"
    assert off == on + "<think>\n\n</think>\n\n"
    for name in ("qwen2_5", "llama3", "gemma", "gemma3", "smollm2"):
        assert len({rendered(templates[name], USER, how) for how in SWITCH}) == 1


def test_a_system_prompt_takes_the_place_of_the_template_s_own(templates):
    for name, own in (("qwen2_5", "You are Qwen"), ("smollm2", "You are a helpful AI assistant named SmolLM")):
        assert own in rendered(templates[name], USER, "")
        chat = rendered(templates[name], SYSTEM, "")
        assert own not in chat and chat.startswith("<|im_start|>system\nAnswer briefly.<|im_end|>")


@pytest.mark.parametrize("name", ["gemma", "gemma3"])
def test_a_system_prompt_stands_before_the_first_message_where_the_template_has_no_such_role(name, templates):
    chat = rendered(templates[name], [SYSTEM[0], *DEBATE], "")
    assert chat.startswith("<bos><start_of_turn>user\nAnswer briefly.\n\nHow many eggs?<end_of_turn>")
    assert chat.count("Answer briefly.") == 1


def test_a_template_that_drops_the_system_prompt_gets_it_in_the_first_message(templates):
    words = tokenizer("qwen3")
    words.chat_template = "{% for m in messages if m.role == 'user' %}[{{ m.content }}]{% endfor %}"
    assert rendered(words, SYSTEM, "") == "[Answer briefly.\n\nHow many eggs?]"


def test_repeated_roles_are_refused_in_one_line(templates):
    with pytest.raises(StudyError, match="refuses messages of system, user, user"):
        prompt_ids(templates["gemma"], [*SYSTEM, *USER], 1000)


# The parameters, down to the engines


def test_a_request_with_defaults_keeps_its_key_and_any_other_has_its_own(tmp_path):
    request = Request(USER, 0.0, 9, 0)
    earlier = {"messages": USER, "temperature": 0.0, "max_tokens": 9, "seed": 0}
    key = hashlib.sha256(json.dumps(["an engine", [earlier]]).encode()).hexdigest()

    class Silent:
        fingerprint = "an engine"

        def batches(self, requests):
            return [[i] for i in range(len(requests))]

        def run(self, batches):
            assert not batches, "the answer is in the store"
            return iter(())

    store = Store(tmp_path)
    store.write(key, [Reply("<think>no</think>3", 5, 4, "stop", 0.1)], "an engine")
    (reply,) = store.generate(Silent(), [request])
    assert (reply.text, reply.thought) == ("3", "no")
    others = [replace(request, thinking=how) for how in ("on", "off")] + [replace(request, thought_tokens=9)]
    assert len({json.dumps(r.recorded()) for r in [request, *others]}) == 4


@pytest.mark.parametrize(
    ("values", "words"),
    [({"thinking": "yes"}, "thinking='yes' is unknown; choose on, off"), ({"thought_tokens": -1}, "thought_tokens=-1 is")],
)  # fmt: skip
def test_a_value_that_is_none_is_one_line_that_names_the_parameter(values, words):
    with pytest.raises(StudyError, match=words) as error:
        Chat(**values)
    assert "\n" not in str(error.value)


def test_thoughts_have_room_of_their_own_and_the_switch_reaches_the_model(tmp_path, monkeypatch, templates):
    engine = transformers.Transformers(build("qwen3", tmp_path))
    engine.tokenizer.chat_template = templates["qwen3"].chat_template
    said, asked = engine.tokenizer("<think>no", add_special_tokens=False).input_ids, []

    def generate(model, input_ids, attention_mask, generation_config):
        asked.append((engine.tokenizer.decode(input_ids[0]), generation_config.max_new_tokens))
        return torch.cat([input_ids, torch.tensor([said] * len(input_ids))], dim=1)

    monkeypatch.setattr(transformers, "generate", generate)
    chats = [Chat(), Chat("on", 20), Chat("off", 0, "Answer briefly.")]
    replies = Store(tmp_path / "store").generate(engine, [chat.request(USER, 0.0, 9, 0) for chat in chats])
    assert [room for _, room in sorted(asked, key=lambda one: one[1])] == [9, 29]  # equal rooms share a batch
    assert {(r.text, r.thought, r.finish_reason) for r in replies} == {("", "no", "length")}
    requests = [chats[2].request(USER, 0.0, 9, 0)]
    list(engine.run([Batch(requests, 0)]))
    assert asked[-1][0].startswith("<|im_start|>system\nAnswer briefly.") and asked[-1][0].endswith("</think>\n\n")


def test_llama_cpp_is_asked_with_the_switch_and_the_room():
    asked = []

    class Model:
        def handle_chat_completions(self, body):
            asked.append(body)
            return {"choices": [{"message": {"content": "3"}, "finish_reason": "stop"}]}

    engine = LlamaCpp.__new__(LlamaCpp)
    engine.model, engine.name = Model(), "file.gguf"
    for thinking in SWITCH:
        engine.reply(Chat(thinking, 20).request(USER, 0.0, 9, 0), False)
    assert [body["chat_template_kwargs"] for body in asked] == list(SWITCH.values())
    assert [body["max_tokens"] for body in asked] == [9 if thinking == "off" else 29 for thinking in SWITCH]


@pytest.mark.parametrize("owner", ["vllm", "sglang", "llamacpp", "agentark"])
def test_the_switch_reaches_servers_that_take_it(tmp_path, owner):
    with answering(lambda *_: completion(), owner) as (address, asked):
        engine = Server(*address.partition("#")[::2])
        for thinking in SWITCH:
            Store(tmp_path).generate(engine, [Chat(thinking, 20).request(USER, 0.0, 9, 0)])
    assert [body.get("chat_template_kwargs", {}) for body in asked] == list(SWITCH.values())
    assert [body["max_tokens"] for body in asked] == [9 if thinking == "off" else 29 for thinking in SWITCH]


def test_a_server_that_is_not_known_to_take_the_switch_is_not_asked(tmp_path):
    with (
        answering(lambda *_: completion(), "openai") as (address, asked),
        pytest.raises(StudyError, match=r"thinking=off: only servers of vLLM.*leave thinking empty"),
    ):
        Store(tmp_path).generate(Server(*address.partition("#")[::2]), [Chat("off").request(USER, 0.0, 9, 0)])
    assert not asked


def test_our_own_server_takes_the_switch(tmp_path, templates):
    engine = transformers.Transformers(build("qwen3", tmp_path))
    body = {"model": "m", "messages": USER}
    for thinking, how in SWITCH.items():
        assert serve.wanted(body | {"chat_template_kwargs": how}, engine).thinking == thinking
    assert serve.wanted(body, engine).thinking == ""
    for wrong in ("yes", {"enable_thinking": "yes"}):
        with pytest.raises(StudyError, match="not a chat completion's request"):
            serve.wanted(body | {"chat_template_kwargs": wrong}, engine)


@pytest.mark.parametrize(("status", "words"), [(400, "no"), (500, "Jinja Exception: System role not supported")])
def test_a_system_prompt_that_a_server_s_template_refuses_is_sent_in_the_first_message(tmp_path, status, words):
    def answer(_, body):
        refusal = web.json_response({"error": {"message": words}}, status=status)
        return refusal if body["messages"][0]["role"] == "system" else completion()

    with answering(answer) as (address, asked):
        engine = Server(*address.partition("#")[::2])
        (reply,) = Store(tmp_path).generate(engine, [Chat(system="Answer briefly.").request(USER, 0.0, 9, 0)])
    assert reply.text == "answer : 3"
    assert asked[-1]["messages"] == [{"role": "user", "content": "Answer briefly.\n\nHow many eggs?"}]


@pytest.mark.parametrize(
    ("thinking", "text", "reason", "cut"),
    [("on", "so, 3", "length", True), ("on", "so, 3", "stop", False), ("", "so, 3", "length", False), ("on", "</think>3", "length", False)],
)  # fmt: skip
def test_a_server_s_reply_cut_in_a_thought_that_its_prompt_opened_is_known_if_thinking_is_on(
    tmp_path, thinking, text, reason, cut
):
    with answering(lambda *_: completion(text, reason), "vllm") as (address, _):
        engine = Server(*address.partition("#")[::2])
        (reply,) = Store(tmp_path).generate(engine, [Chat(thinking).request(USER, 0.0, 9, 0)])
    assert (reply.cut_in_thought, reply.text == "") == (cut, cut)


# What the study makes of thoughts


def spoken(number):
    """Agents think of 99 before they answer 9 or 10; every fourth reply is cut in its thought."""
    if number % 4 == 3:
        return completion("<think>secret: the answer is 99", "length")
    return completion(f"<think>secret: the answer is 99</think>\n16 - 3 = 13\nThe answer is {9 + number % 2}.")


@pytest.fixture
def traces(tmp_path):
    protocol = Debate(agents=4, rounds=2, temperature=1.0, revision_temperature=0.2, order="chat")
    with answering(lambda number, body: spoken(number), "vllm") as (address, asked):
        found, _ = run_debates(protocol, [EGGS], address, tmp_path / "store", 0, 9, Chat("on", 50, "Answer briefly."))
    assert len(asked) == len(found) == 9
    assert all(body["messages"][0] == SYSTEM[0] for body in asked)
    assert not any("secret" in message["content"] for body in asked for message in body["messages"])
    return found


def test_thoughts_are_neither_shown_nor_graded_nor_steps_nor_trained_on(traces, tmp_path):
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
    earlier = [t.model_copy(update={"finish_reason": "thought"} if t.cut_in_thought else {}) for t in traces]
    assert reply_counts(earlier, "test", "debate") == counts
    rows = scores(frame([prediction]), "main", "t", "eggs", lambda _: [])
    assert [r.value for r in rows if r.metric == "cut_in_thought"] == [pytest.approx(2 / 9)]
    rows = scores(frame([prediction.model_copy(update={"cut_in_thought": 0})]), "main", "t", "eggs", lambda _: [])
    assert not [r for r in rows if r.metric == "cut_in_thought"]


def test_a_table_without_thoughts_has_no_column_for_them(tmp_path):
    rows = [said(1, 1, GOLD), said(2, 1, GOLD)]
    write_table(rows, tmp_path / "a.parquet")
    write_table([rows[0], rows[1].model_copy(update={"thought": "so"})], tmp_path / "b.parquet")
    a, b = (read_table(tmp_path / f"{name}.parquet", Trace) for name in "ab")
    assert a == rows and [t.thought for t in b] == ["", "so"]
    assert "thought" not in pq.read_schema(tmp_path / "a.parquet").names


def test_students_do_not_think_in_reinforcement_learning(tmp_path, templates):
    settings = Policy.read({"steps": 1, "batch_size": 1, "num_generations": 2, "temperature": 1.0, "learning_rate": 1e-3,
                            "beta": 0.0, "max_tokens": 9, "held_out": 0, "aggregate": "min", "outcome_weight": 0.0})  # fmt: skip
    assert policy.outputs_of(settings)["chat_template_kwargs"]["enable_thinking"] is False
    base = build("qwen3", tmp_path)
    words = templates["qwen3"]
    longest = policy.longest_prompt(base, [KEYS], words, settings)
    assert longest == len(prompt_ids(words, [{"role": "user", "content": KEYS.text}], 8000, "off"))


def test_markers_are_no_part_of_one_another():
    every = [*MARKERS, *MARKERS.values()]
    assert not any(one in other for one in every for other in every if one != other)
    assert max(map(len, MARKERS)) < thoughts.TAIL

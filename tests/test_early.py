"""Weights, tokenizers, chat templates and generation settings are checked before generation or training starts."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from agentark import StudyError
from agentark.distill import sft, training
from agentark.distill.settings import SFT
from agentark.distill.students import Origin, save
from agentark.engines import Batch, Request, engine
from agentark.engines.transformers import Transformers
from agentark.models import checkpoints, loading
from agentark.pretrain import tiny
from agentark.pretrain.tiny import CHAT_TEMPLATE

SHARDED = "60KB"  # maximum file size, at which the model below has several weight files

ONE_STEP = SFT(steps=1, batch_size=1, learning_rate=1e-3)


@pytest.fixture
def base(tmp_path):
    folder, tokenizer = tmp_path / "base", tiny.build_tokenizer()
    tiny.build_model("llama", 64, 2, 0, len(tokenizer)).save_pretrained(folder, max_shard_size=SHARDED)
    tokenizer.save_pretrained(folder)
    return folder


def update_json(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def with_template(folder, template):
    tokenizer = loading.load_tokenizer(folder)
    tokenizer.chat_template = template
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    return folder


def weights(folder):
    return sorted(folder.glob("*.safetensors"))


def replace_by_lfs_pointers(folder):
    for file in weights(folder):
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 4096\n")


def replace_by_gguf(folder):
    for file in [*weights(folder), folder / "model.safetensors.index.json"]:
        file.unlink()
    (folder / "model-q4_k_m.gguf").write_bytes(b"GGUF\x03\0\0\0")


def replace_by_adapter(folder):
    for file in folder.iterdir():
        file.unlink()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "somebody/base"}')
    (folder / "adapter_model.safetensors").write_bytes(b"\0" * 16)


DAMAGED = {
    "pointers": (replace_by_lfs_pointers, "git lfs pull"),
    "gguf": (replace_by_gguf, "GGUF"),
    "adapter": (replace_by_adapter, "adapter alone"),
    "a shard is missing": (lambda folder: weights(folder)[0].unlink(), "model-00001-of-"),
    "cut weights": (lambda folder: weights(folder)[0].write_bytes(weights(folder)[0].read_bytes()[:99]), "not a loadable"),
    "configuration": (lambda folder: (folder / "config.json").write_text("{"), "not a loadable"),
    "no kind": (lambda folder: (folder / "config.json").write_text("{}"), "model_type"),
    "unknown kind": (lambda folder: update_json(folder / "config.json", model_type="alien"), "alien"),
    "nothing": (lambda folder: [file.unlink() for file in folder.iterdir()], "no model here"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_model_that_cannot_be_loaded_is_reported_in_one_line_with_its_folder(kind, base):
    damage, words = DAMAGED[kind]
    damage(base)
    for use in (loading.load, Transformers, lambda folder: next(engine(folder).run([]), None)):
        with pytest.raises(StudyError) as error:
            use(base)
        assert str(base) in str(error.value) and words in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(StudyError, match=str(base)):
        checkpoints.checkpoint_facts(base)


@pytest.mark.parametrize("damage", [lambda f: f.unlink(), lambda f: f.write_text("{"), lambda f: f.write_text("")])
def test_an_unreadable_tokenizer_is_reported_in_one_line(damage, base):
    damage(base / "tokenizer.json")
    with pytest.raises(StudyError, match="not a loadable model") as error:
        loading.load_tokenizer(base)
    assert str(base) in str(error.value) and "\n" not in str(error.value)


def test_missing_weights_are_an_error_and_not_initialised_at_random(base):
    update_json(base / "config.json", num_hidden_layers=3)
    with pytest.raises(StudyError, match=r"no weights for model.layers.2.* \(9 missing\)"):
        loading.load(base)


HELLO = [{"role": "user", "content": "how many ?"}]


@pytest.mark.parametrize(
    ("template", "messages", "words"),
    [
        (None, HELLO, "no chat template"),  # huggingface/open-r1#85, unslothai/unsloth#2096
        ("  \n", HELLO, "no chat template"),
        ("{# nothing #}", HELLO, "makes nothing of a chat"),
        ("{{ 1 / 0 }}", HELLO, "refuses messages of user"),
        ("{{ 'a'.encode('x') }}", HELLO, "refuses messages of user"),
        ("{{ raise_exception('System role not supported') }}", HELLO, "System role not supported"),
        ("{{ messages[7].content }}", HELLO, "refuses messages of user"),
        ("{% for m in messages %}{{ m['content'] + 3 }}{% endfor %}", HELLO, "refuses messages of user"),
    ],
)
def test_a_missing_or_failing_chat_template_is_reported_in_one_line(template, messages, words, base):
    with_template(base, template)
    with pytest.raises(StudyError, match="base") as error:
        list(Transformers(base).run([Batch([Request(messages, 0.0, 4, 0)], 0)]))
    assert words in str(error.value) and "\n" not in str(error.value)


OPEN = "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}<|assistant|> {% endif %}"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (OPEN, "does not close the assistant's turn"),  # huggingface/trl#2059, #931
        (CHAT_TEMPLATE.replace("<|end|>", "<|user|>"), "does not close the assistant's turn"),
        ("{% for m in messages if m['role'] == 'user' %}{{ m['content'] }} <|end|>{% endfor %}", "leaves out the answer"),
        ("{{ raise_exception('only one message') }}", "only one message"),
        (None, "no chat template"),
    ],
)  # fmt: skip
def test_a_chat_template_unsuitable_for_training_is_refused_before_training(
    template, words, base, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "run", lambda *_: pytest.fail("the training began"))
    with pytest.raises(StudyError) as error:
        sft.train(with_template(base, template), [("how many ?", "answer : 3")], tmp_path / "out", 0, ONE_STEP)
    assert words in str(error.value) and str(base) in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_end_of_turn_may_come_from_the_generation_settings(base):
    # Gemma closes a turn with <end_of_turn>, which is not its tokenizer's EOS token
    tokenizer = loading.load_tokenizer(with_template(base, CHAT_TEMPLATE.replace("<|end|>", "<|unknown|>")))
    sft.check_turns(base, tokenizer, [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|unknown|>")])


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": False, "temperature": 0.6, "top_p": 0.9},  # huggingface/transformers#29988
        {"do_sample": False, "top_k": 20},
        {"num_beams": 1, "early_stopping": True, "length_penalty": 0.5},
        {"do_sample": True, "temperature": 0.6, "top_p": 0.95},
    ],
)
def test_a_student_is_saved_if_its_base_model_has_contradictory_generation_settings(settings, base, tmp_path):
    (base / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": 1, "pad_token_id": 0}))
    model, tokenizer = loading.load(base, torch.float32)
    save(model, tokenizer, tmp_path / "student", Origin("rsft", 0, {"base": base}, [("a", "b")], {}))
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert saved.generation_config.eos_token_id == 1
    for one, other in zip(model.parameters(), saved.parameters(), strict=True):
        assert torch.equal(one, other)

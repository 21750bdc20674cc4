"""A Qwen2.5-VL built from a Llama gives the same logits on text; training on text leaves its vision part unchanged."""

import pytest
import torch
from PIL import Image
from transformers import GenerationConfig

from agentark import StudyError, root
from agentark.distill import sft
from agentark.distill.settings import SFT
from agentark.engines import batching
from agentark.models import loading, vision
from agentark.models.chat import prompt_ids
from agentark.tasks import TASKS

LLAMA = root() / "data" / "models" / "llama-small"
QUESTIONS = [q for task in TASKS.values() for q in task.questions(4, "train", 5)]
PICTURE = Image.linear_gradient("L").convert("RGB").resize((112, 84))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vision") / "base"
    vision.build(LLAMA, folder, seed=0)
    return folder


@torch.inference_mode()
def logits(folder):
    """Logits of all tokens of some questions and solutions of all families, padded left: (tokens, vocabulary)."""
    model, tokenizer = loading.load(folder)
    turns = [[{"role": "user", "content": q.text}, {"role": "assistant", "content": q.solution}] for q in QUESTIONS]
    chats = [tokenizer.apply_chat_template(t, tokenize=False) for t in turns]
    inputs = tokenizer(chats, return_tensors="pt", padding=True)
    return model(**inputs).logits[inputs.attention_mask.bool()]


def test_the_language_model_has_the_logits_of_its_base(base):
    before, after = logits(LLAMA), logits(base)
    torch.testing.assert_close(after[:, : before.shape[1]], before, rtol=1e-5, atol=1e-5)
    unknown = loading.load_tokenizer(base).unk_token_id  # the base never generates it; the new tokens get its logits
    torch.testing.assert_close(after[:, before.shape[1] :], after[:, [unknown] * len(vision.MARKS)])


def test_image_features_depend_on_the_image_and_not_on_the_question(base):
    features, reply = vision.features_and_reply(base, PICTURE, QUESTIONS[0].text, 8)
    other, _ = vision.features_and_reply(base, PICTURE.rotate(180), QUESTIONS[0].text, 8)
    assert features.shape == (12, 64) and reply
    assert features.equal(vision.features_and_reply(base, PICTURE, QUESTIONS[1].text, 1)[0]) and not features.equal(
        other
    )


@torch.inference_mode()
def test_a_batch_of_another_size_generates_the_same_tokens(base):
    """The model keeps the position offsets of its last batch; prompts that share a prefix must not get them."""
    model, tokenizer = loading.load(base)
    chats = [prompt_ids(tokenizer, [{"role": "user", "content": QUESTIONS[0].text}], 4000)]
    config = GenerationConfig(
        do_sample=False, max_new_tokens=8, eos_token_id=[tokenizer.eos_token_id], pad_token_id=tokenizer.pad_token_id
    )
    for rows in (4, 2, 6):
        ids = torch.tensor(chats * rows)
        replies = batching.generate(model, ids, torch.ones_like(ids), config)
        assert torch.equal(replies, model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config))


def test_training_on_text_changes_only_the_language_model(base, tmp_path):
    pairs = [(q.text, q.solution) for q in QUESTIONS]
    sft.train(base, pairs, tmp_path / "student", 0, SFT(steps=3, batch_size=4, learning_rate=0.02))
    before, after = vision.digests(base), vision.digests(tmp_path / "student")
    assert before["vision"] == after["vision"] and before["language"] != after["language"]
    seen = [vision.features_and_reply(folder, PICTURE, QUESTIONS[0].text, 8) for folder in (base, tmp_path / "student")]
    assert seen[0][0].equal(seen[1][0])
    shifted = loading.load(tmp_path / "student")[0].get_decoder().layers[0].self_attn.q_proj.bias
    assert shifted.abs().max() > 0  # the biases, 0 in the base, are trained too


def test_a_base_that_is_not_a_llama_is_refused(tmp_path):
    with pytest.raises(StudyError, match="not a Llama model"):
        vision.build(root() / "data" / "models" / "qwen3-small", tmp_path, seed=0)

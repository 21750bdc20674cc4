"""All engines behave alike for the study: same chats, greedy text, token counts, finish reasons and errors.

vLLM is included where it is installed (`make test-vllm`); the server is then vLLM's own, otherwise the study's.
"""

import importlib.util
from functools import lru_cache

import pytest
import torch
from examples import MAX_TOKENS, question_from_family
from servers import free_port, kill, start

from agentark import StudyError, root
from agentark.debate.prompts import ORDERS, revise_prompt, summarise_prompt
from agentark.debate.protocols import Debate
from agentark.debate.run import run_debates
from agentark.engines import Batch, Reply, Request, batches_itself, engine
from agentark.engines.transformers import Transformers
from agentark.models import loading
from agentark.models.chat import solve_prompt
from agentark.pretrain import tiny

TEACHER = root() / "data/models/teacher"
loaded = lru_cache(maxsize=None)(engine)  # each model is loaded only once, in whatever order tests use them


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The teacher; a model with random weights, which rarely ends a turn, and whose generation settings, like those of
    many published checkpoints, differ from the study's sampling; and a model that ends its turn immediately."""
    folder, tokenizer = tmp_path_factory.mktemp("checkpoints"), tiny.build_tokenizer()
    random = tiny.build_model("llama", 64, 2, 0, len(tokenizer))
    random.generation_config.update(do_sample=True, temperature=0.1, top_k=5, top_p=0.5, repetition_penalty=1.5)
    silent = tiny.build_model("llama", 64, 1, 0, len(tokenizer))
    with torch.no_grad():
        for weights in silent.model.layers.parameters():
            weights.zero_()
        silent.model.embed_tokens.weight.fill_(1.0)
        silent.model.embed_tokens.weight[tokenizer.eos_token_id] = 2.0  # tied: the likeliest token after any
    for name, model in {"random": random, "silent": silent}.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {"teacher": TEACHER, "random": folder / "random", "silent": folder / "silent"}


@pytest.fixture(scope="module", params=["transformers", "vllm", "server"])
def engine_name(request, checkpoints):
    """A function that maps a checkpoint to the name that selects it in an engine."""
    servers = {}
    if request.param == "vllm" and not importlib.util.find_spec("vllm"):
        pytest.skip("vllm is not installed; `make test-vllm` runs this with it")

    def server_name(checkpoint: str) -> str:
        if checkpoint not in servers:
            servers[checkpoint] = start(checkpoints[checkpoint], free_port())
        return servers[checkpoint][1]

    names = {"transformers": lambda c: str(checkpoints[c]), "vllm": lambda c: f"vllm:{checkpoints[c]}"}
    yield names.get(request.param, server_name)
    for process, _ in servers.values():
        kill(process)


@pytest.fixture(scope="module")
def chats():
    """Every kind of prompt in a debate, in both orders."""
    prompts = []
    for i in range(4):
        question = question_from_family("equation", 2 + i % 3, i)[1]
        traces = [question.solution, "answer : 3", "a = 1 + 2 = 3\nanswer : 3"]
        revisions = [revise_prompt(question, traces, agent, order) for order in ORDERS for agent in range(2)]
        prompts += [solve_prompt(question.text), *revisions, summarise_prompt(question, traces)]
    return prompts


def generate(name: str, requests: list[Request]) -> list[Reply]:
    """Replies from an engine, without the store, in the order of the requests."""
    model = loaded(name)
    done = dict(model.run([Batch([r], r.seed) for r in requests]))
    return [done[i][0] for i in range(len(requests))]


def comparable(text: str, name: str) -> str:
    """A text in a form that can be compared. vLLM's server decodes token by token, while a space in these texts depends
    on both neighbours: some spaces remain around line ends, where no tokenizer and no check depends on them."""
    if name.startswith("http") and importlib.util.find_spec("vllm"):
        return "\n".join(line.strip() for line in text.split("\n"))
    return text


@pytest.mark.parametrize("checkpoint", ["teacher", "random"])
def test_greedy_text_token_counts_and_finish_reasons_match_transformers(engine_name, checkpoints, chats, checkpoint):
    model, tokenizer = loading.load(checkpoints[checkpoint])
    replies = generate(engine_name(checkpoint), [Request(chat, 0.0, 24, i) for i, chat in enumerate(chats)])
    for chat, reply in zip(chats, replies, strict=True):
        inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            sequence = model.generate(**inputs, max_new_tokens=24, do_sample=False, repetition_penalty=1.0)[0]
        output = sequence[inputs["input_ids"].shape[1] :]
        text = tokenizer.decode(output, skip_special_tokens=True)
        assert comparable(reply.text, engine_name(checkpoint)) == comparable(text, engine_name(checkpoint))
        assert reply.prompt_tokens == inputs["input_ids"].shape[1]
        assert reply.completion_tokens == len(output)
        assert reply.finish_reason == ("stop" if output[-1] == tokenizer.eos_token_id else "length")
        assert reply.seconds > 0


def test_a_turn_that_ends_at_the_token_limit_has_finish_reason_stop(engine_name, chats):
    (complete,) = generate(engine_name("teacher"), [Request(chats[0], 0.0, 72, 0)])
    assert complete.finish_reason == "stop"
    replies = [
        generate(engine_name("teacher"), [Request(chats[0], 0.0, complete.completion_tokens - cut, 0)])[0]
        for cut in (0, 1)
    ]
    assert [r.finish_reason for r in replies] == ["stop", "length"]
    assert [r.text for r in replies] == [complete.text, complete.text]  # only the end-of-turn token is cut off


def test_an_empty_reply_is_accepted(engine_name, chats):
    (reply,) = generate(engine_name("silent"), [Request(chats[0], 0.0, 24, 0)])
    assert (reply.text, reply.completion_tokens, reply.finish_reason) == ("", 1, "stop")


def test_a_seed_determines_a_sample(engine_name, chats):
    requests = [Request(chats[0], 1.5, 12, seed) for seed in range(6)]
    texts = [r.text for r in generate(engine_name("random"), requests)]
    assert len(set(texts)) == 6
    assert [r.text for r in generate(engine_name("random"), requests[::-1])][::-1] == texts


def test_samples_come_from_the_complete_distribution(engine_name, checkpoints, chats):
    """Of 400 sampled tokens, the share among the 50 likeliest is that of the probabilities, at two temperatures."""
    model, tokenizer = loading.load(checkpoints["random"])
    inputs = tokenizer.apply_chat_template(chats[0], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
    for temperature in (0.3, 1.0):
        ranked = (logits / temperature).softmax(-1).sort(descending=True)
        likely = set(ranked.indices[:50].tolist())  # 50: the default top_k of `generate`
        share = ranked.values[:50].sum().item()
        replies = generate(engine_name("random"), [Request(chats[0], temperature, 1, seed) for seed in range(400)])
        tokens = [tokenizer(r.text).input_ids for r in replies]
        hits = sum(not ids or ids[0] in likely for ids in tokens)
        spread = 4 * (400 * share * (1 - share)) ** 0.5  # four standard deviations; seeds are fixed
        assert abs(hits - 400 * share) <= spread + 1
        assert hits < 400


def test_a_prompt_longer_than_the_context_window_is_an_error(engine_name):
    request = Request([{"role": "user", "content": "how many ? " * 800}], 0.0, 24, 0)
    with pytest.raises(StudyError, match="short"):
        generate(engine_name("teacher"), [request])


def test_a_greedy_debate_is_identical_with_every_engine(engine_name, tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTARK_WORKERS", "1")
    questions = [question_from_family("equation", 2 + i % 3, 50 + i)[1] for i in range(8)]
    protocol = Debate(2, 2, 0.0, 0.0, "shared")
    name = engine_name("teacher")
    tested, expected = (
        run_debates(protocol, questions, n, tmp_path / str(i), 0, MAX_TOKENS)[0] for i, n in enumerate((name, TEACHER))
    )
    for traces in tested, expected:
        traces[:] = [t.model_copy(update={"text": comparable(t.text, name)}) for t in traces]
    assert tested == expected
    assert batches_itself(name) == (name != str(TEACHER))


def test_fingerprints_depend_on_the_weights(checkpoints):
    fingerprints = {Transformers(folder).fingerprint for folder in checkpoints.values()}
    assert len(fingerprints) == len(checkpoints)
    assert Transformers(TEACHER).fingerprint == Transformers(TEACHER).fingerprint


def test_missing_vllm_is_reported_with_the_command_that_installs_it(checkpoints):
    if importlib.util.find_spec("vllm"):
        pytest.skip("vllm is installed")
    with pytest.raises(StudyError, match=r"pip install -e .\[gpu\]"):
        engine(f"vllm:{checkpoints['random']}")

"""All engines are one to the study: same chats, same greedy text, counts, ends and errors.

vLLM is among them where it is installed (`make test-vllm`); the server is then vLLM's own, else the study's.
"""

import importlib.util
from functools import lru_cache

import pytest
import torch
from examples import MAX_TOKENS, posed
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
loaded = lru_cache(maxsize=None)(engine)  # a model is loaded once, however many are looked at in turn


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The teacher; a model of random weights, which hardly ever ends a turn, and whose generation settings, as many a
    published checkpoint's, want other sampling than the study asks for; one that ends its turn at once."""
    folder, tokenizer = tmp_path_factory.mktemp("checkpoints"), tiny.build_tokenizer()
    random = tiny.build_model("llama", 64, 2, 0, len(tokenizer))
    random.generation_config.update(do_sample=True, temperature=0.1, top_k=5, top_p=0.5, repetition_penalty=1.5)
    silent = tiny.build_model("llama", 64, 1, 0, len(tokenizer))
    with torch.no_grad():
        for weights in silent.model.layers.parameters():
            weights.zero_()
        silent.model.embed_tokens.weight.fill_(1.0)
        silent.model.embed_tokens.weight[tokenizer.eos_token_id] = 2.0  # tied: the most likely word after any
    for name, model in {"random": random, "silent": silent}.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {"teacher": TEACHER, "random": folder / "random", "silent": folder / "silent"}


@pytest.fixture(scope="module", params=["transformers", "vllm", "server"])
def named(request, checkpoints):
    """A function from a checkpoint to the engine's name for it."""
    running = {}
    if request.param == "vllm" and not importlib.util.find_spec("vllm"):
        pytest.skip("vllm is not installed; `make test-vllm` runs this with it")

    def served(checkpoint: str) -> str:
        if checkpoint not in running:
            running[checkpoint] = start(checkpoints[checkpoint], free_port())
        return running[checkpoint][1]

    names = {"transformers": lambda c: str(checkpoints[c]), "vllm": lambda c: f"vllm:{checkpoints[c]}"}
    yield names.get(request.param, served)
    for process, _ in running.values():
        kill(process)


@pytest.fixture(scope="module")
def chats():
    """Every kind of prompt a debate has, in both orders."""
    found = []
    for i in range(4):
        question = posed("equation", 2 + i % 3, i)[1]
        traces = [question.solution, "answer : 3", "a = 1 + 2 = 3\nanswer : 3"]
        revisions = [revise_prompt(question, traces, agent, order) for order in ORDERS for agent in range(2)]
        found += [solve_prompt(question.text), *revisions, summarise_prompt(question, traces)]
    return found


def answers(name: str, requests: list[Request]) -> list[Reply]:
    """Replies from an engine, past the store, in the order of the requests."""
    asked = loaded(name)
    done = dict(asked.run([Batch([r], r.seed) for r in requests]))
    return [done[i][0] for i in range(len(requests))]


def spelt(text: str, name: str) -> str:
    """A text as it is to be compared. vLLM's server decodes word by word, while in this world a space depends on both
    its neighbours: some stay around ends of lines, which no tokenizer and no check sees."""
    if name.startswith("http") and importlib.util.find_spec("vllm"):
        return "\n".join(line.strip() for line in text.split("\n"))
    return text


@pytest.mark.parametrize("checkpoint", ["teacher", "random"])
def test_greedy_text_counts_and_ends_are_those_of_plain_transformers(named, checkpoints, chats, checkpoint):
    model, tokenizer = loading.load(checkpoints[checkpoint])
    replies = answers(named(checkpoint), [Request(chat, 0.0, 24, i) for i, chat in enumerate(chats)])
    for chat, reply in zip(chats, replies, strict=True):
        inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            whole = model.generate(**inputs, max_new_tokens=24, do_sample=False, repetition_penalty=1.0)[0]
        output = whole[inputs["input_ids"].shape[1] :]
        text = tokenizer.decode(output, skip_special_tokens=True)
        assert spelt(reply.text, named(checkpoint)) == spelt(text, named(checkpoint))
        assert reply.prompt_tokens == inputs["input_ids"].shape[1]
        assert reply.completion_tokens == len(output)
        assert reply.finish_reason == ("stop" if output[-1] == tokenizer.eos_token_id else "length")
        assert reply.seconds > 0


def test_a_turn_that_ends_at_the_last_token_allowed_has_ended(named, chats):
    (whole,) = answers(named("teacher"), [Request(chats[0], 0.0, 72, 0)])
    assert whole.finish_reason == "stop"
    ends = [answers(named("teacher"), [Request(chats[0], 0.0, whole.completion_tokens - cut, 0)])[0] for cut in (0, 1)]
    assert [r.finish_reason for r in ends] == ["stop", "length"]
    assert [r.text for r in ends] == [whole.text, whole.text]  # what was cut off is only the end of turn


def test_an_empty_reply_is_a_reply(named, chats):
    (reply,) = answers(named("silent"), [Request(chats[0], 0.0, 24, 0)])
    assert (reply.text, reply.completion_tokens, reply.finish_reason) == ("", 1, "stop")


def test_a_seed_names_a_sample(named, chats):
    requests = [Request(chats[0], 1.5, 12, seed) for seed in range(6)]
    once = [r.text for r in answers(named("random"), requests)]
    assert len(set(once)) == 6
    assert [r.text for r in answers(named("random"), requests[::-1])][::-1] == once


def test_samples_come_from_the_whole_distribution(named, checkpoints, chats):
    """One word, 400 times: as many within a set of words as the model's own probabilities say, at two temperatures."""
    model, tokenizer = loading.load(checkpoints["random"])
    inputs = tokenizer.apply_chat_template(chats[0], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
    for temperature in (0.3, 1.0):
        ranked = (logits / temperature).softmax(-1).sort(descending=True)
        likely = set(ranked.indices[:50].tolist())  # 50: where `generate` cuts unless told otherwise
        share = ranked.values[:50].sum().item()
        replies = answers(named("random"), [Request(chats[0], temperature, 1, seed) for seed in range(400)])
        words = [tokenizer(r.text).input_ids for r in replies]
        hits = sum(not w or w[0] in likely for w in words)
        spread = 4 * (400 * share * (1 - share)) ** 0.5  # four standard deviations; seeds are fixed
        assert abs(hits - 400 * share) <= spread + 1
        assert hits < 400


def test_a_prompt_that_does_not_fit_is_an_error_that_says_so(named):
    request = Request([{"role": "user", "content": "how many ? " * 800}], 0.0, 24, 0)
    with pytest.raises(StudyError, match="short"):
        answers(named("teacher"), [request])


def test_a_greedy_debate_is_the_same_through_every_engine(named, tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTARK_WORKERS", "1")
    questions = [posed("equation", 2 + i % 3, 50 + i)[1] for i in range(8)]
    protocol = Debate(2, 2, 0.0, 0.0, "shared")
    name = named("teacher")
    there, here = (
        run_debates(protocol, questions, n, tmp_path / str(i), 0, MAX_TOKENS)[0] for i, n in enumerate((name, TEACHER))
    )
    for traces in there, here:
        traces[:] = [t.model_copy(update={"text": spelt(t.text, name)}) for t in traces]
    assert there == here
    assert batches_itself(name) == (name != str(TEACHER))


def test_engines_are_told_apart_by_weights(checkpoints):
    fingerprints = {Transformers(folder).fingerprint for folder in checkpoints.values()}
    assert len(fingerprints) == len(checkpoints)
    assert Transformers(TEACHER).fingerprint == Transformers(TEACHER).fingerprint


def test_vllm_says_how_it_is_had(checkpoints):
    if importlib.util.find_spec("vllm"):
        pytest.skip("vllm is installed")
    with pytest.raises(StudyError, match=r"pip install -e .\[gpu\]"):
        engine(f"vllm:{checkpoints['random']}")

"""Debates and greedy answers of several models in one run."""

import pytest

from agentark import root
from agentark.debate import run
from agentark.debate.independent import Vote
from agentark.debate.prompts import summarise_prompt
from agentark.debate.protocols import Debate
from agentark.debate.run import greedy_answers, run_debates
from agentark.engines import Request, Store, engine
from agentark.pretrain.training import MAX_TOKENS
from agentark.tasks import TASKS
from tests.benchmarks import driver

MODELS = [root() / "data" / "models" / name for name in ("qwen3-small", "llama-small", "qwen3-small")]


@pytest.mark.parametrize("cores", ["1", "2"])
def test_answers_of_several_models_match_separate_runs(cores, tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTARK_WORKERS", cores)
    settings = {name: TASKS[name].questions(70, "validation", 0) for name in ("equation", "meta")}  # two groups each
    together = greedy_answers(MODELS, settings, tmp_path / "together", MAX_TOKENS)
    assert together[0] != together[1]
    for model, answered in zip(MODELS, together, strict=True):
        separate = {
            name: run_debates(Vote(1, 0.0), questions, model, tmp_path / "alone", 0, MAX_TOKENS)[0]
            for name, questions in settings.items()
        }
        assert {name: traces for name, (traces, _) in answered.items()} == separate


def test_each_agent_uses_its_own_model_and_the_summariser_the_last(tmp_path):
    """Agent 1 uses the first model, agent 2 the second, and the summariser the last."""
    questions, models = TASKS["equation"].questions(20, "validation", 0), MODELS[:2]
    debate = Debate(agents=2, rounds=2, temperature=0.0, revision_temperature=0.0, order="shared")
    traces, _ = run_debates(debate, questions, models, tmp_path, 0, MAX_TOKENS)
    firsts = {(t.question_id, t.agent): t.text for t in traces if t.round == 1}
    for agent, model in enumerate(models, start=1):
        separate, _ = run_debates(Vote(1, 0.0), questions, model, tmp_path, 0, MAX_TOKENS)
        assert {t.question_id: t.text for t in separate} == {q: text for (q, a), text in firsts.items() if a == agent}
    texts = {(t.question_id, t.agent, t.round): t for t in traces}
    (question, last) = next((q, r) for q, a, r in texts if a == 0)
    prompt = summarise_prompt(
        next(q for q in questions if q.question_id == question),
        [texts[question, agent, last - 1].text for agent in (1, 2)],
    )
    request = Request(prompt, 0.0, MAX_TOKENS, last * 100)
    (reply,) = Store(tmp_path / "alone").generate(engine(models[-1]), [request])
    assert reply.text == texts[question, 0, last].text


def stored(folder) -> dict:
    return {file.name: file.read_bytes() for file in folder.rglob("*.json")}


@pytest.mark.parametrize("name", [driver.BATCHES, driver.SINGLE])
def test_waves_give_the_same_traces_and_store_and_run_one_wave_ahead(name, tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTARK_WORKERS", "1")
    monkeypatch.setattr(run, "engine", driver.Instant)
    monkeypatch.setattr(run, "GROUP", 8)
    protocol, questions = Debate(3, 2, 1.0, 0.2, "shared"), driver.published_form(40)
    call = dict(protocol=protocol, questions=questions, model=name, seed=0, max_tokens=MAX_TOKENS)
    expected, _ = run_debates(**call, store=tmp_path / "whole")
    monkeypatch.setattr(run, "WAVE", 16)
    parts = run.debated(**call, store=tmp_path / "waves")
    first, seconds = next(parts)
    assert [(s.question_id, s.agent, s.round) for s in seconds] == [(t.question_id, t.agent, t.round) for t in first]
    early = stored(tmp_path / "waves")
    assert 0 < len(early) < len(stored(tmp_path / "whole")) / 2
    assert first + [trace for traces, _ in parts for trace in traces] == expected
    assert stored(tmp_path / "waves") == stored(tmp_path / "whole")
    assert {trace.round for trace in expected} == {1, 2, 3}

"""Answers of several models at once."""

import pytest

from agentark import root
from agentark.debate.independent import Vote
from agentark.debate.run import greedy_answers, run_debates
from agentark.pretrain.training import MAX_TOKENS
from agentark.tasks import TASKS

MODELS = [root() / "data" / "models" / name for name in ("qwen3-small", "llama-small", "qwen3-small")]


@pytest.mark.parametrize("cores", ["1", "2"])
def test_answers_of_several_models_are_those_of_each_alone(cores, tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTARK_WORKERS", cores)
    settings = {name: TASKS[name].questions(70, "validation", 0) for name in ("equation", "meta")}  # two groups each
    together = greedy_answers(MODELS, settings, tmp_path / "together", MAX_TOKENS)
    assert together[0] != together[1]
    for model, answered in zip(MODELS, together, strict=True):
        alone = {
            name: run_debates(Vote(1, 0.0), asked, model, tmp_path / "alone", 0, MAX_TOKENS)[0]
            for name, asked in settings.items()
        }
        assert {name: traces for name, (traces, _) in answered.items()} == alone

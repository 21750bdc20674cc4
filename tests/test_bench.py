"""The parts of the benchmark that patch other modules, run once and small; `make bench` runs all of them."""

import math

import pytest
from weights import smollm2

from agentark.distill import training
from agentark.engines import batching
from agentark.tasks import TASKS
from tests.benchmarks import cpu

pytestmark = pytest.mark.long
QUESTIONS = TASKS["equation"].questions(16, "train", 0)


@pytest.fixture(autouse=True)
def once(monkeypatch):
    monkeypatch.setattr(cpu, "REPEATS", 1)


def test_llama_cpp_stands_beside_transformers_or_its_absence_is_told(monkeypatch, capsys):
    smollm2()
    one, batch, llama_cpp, over_one, over_batch = (row["median"] for row in cpu.engines())
    assert over_one == pytest.approx(llama_cpp / one) and over_batch == pytest.approx(llama_cpp / batch)
    monkeypatch.setattr(cpu, "smollm2", lambda: pytest.skip("no registry here"))
    assert cpu.engines() == [] and "skipped, no registry here" in capsys.readouterr().out


def test_a_grpo_step_is_the_sum_of_its_parts_and_every_patch_is_removed():
    before = training.run, batching.generate
    *parts, ratio = cpu.grpo(QUESTIONS)
    assert [row["what"] for row in parts] == ["GRPO: generation", "GRPO: scoring", "GRPO: update"]
    assert sum(row["median"] for row in parts) == pytest.approx(1)
    assert all(row["median"] > 0 for row in (*parts, ratio))
    assert (training.run, batching.generate) == before


@pytest.mark.parametrize("part", [lambda: cpu.leaving(QUESTIONS), cpu.starts])
def test_what_is_saved_is_measured(part):
    share = batching.SHARE
    assert all(0 < row["median"] < math.inf and row["n"] == 1 for row in part())
    assert share == batching.SHARE

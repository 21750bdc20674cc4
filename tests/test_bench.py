"""The benchmarks' parts that reach into others' code, run once and small; `make bench` runs all of them."""

import math

import pytest

from agentark import bench
from agentark.distill import policy
from agentark.engines import local
from agentark.tasks import TASKS

pytestmark = pytest.mark.long
QUESTIONS = TASKS["equation"].questions(16, "train", 0)


@pytest.fixture(autouse=True)
def once(monkeypatch):
    monkeypatch.setattr(bench, "REPEATS", 1)


def test_a_step_of_practice_is_the_sum_of_its_parts_and_leaves_everything_as_it_was():
    before = bench.GRPOTrainer._generate, policy.process_reward, local.generate
    *parts, ratio = bench.grpo(QUESTIONS)
    assert [row["what"] for row in parts] == ["GRPO: generation", "GRPO: scoring", "GRPO: update"]
    assert sum(row["median"] for row in parts) == pytest.approx(1)
    assert all(row["median"] > 0 for row in (*parts, ratio))
    assert (bench.GRPOTrainer._generate, policy.process_reward, local.generate) == before


@pytest.mark.parametrize("part", [lambda: bench.leaving(QUESTIONS), bench.starts])
def test_what_is_saved_is_measured(part):
    share = local.SHARE
    assert all(0 < row["median"] < math.inf and row["n"] == 1 for row in part())
    assert share == local.SHARE

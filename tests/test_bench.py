"""The parts of the benchmark that patch other modules, each run once on few questions; `make bench` runs all parts."""

import math

import pytest
from weights import smollm2

from agentark.distill import training
from agentark.engines import batching
from agentark.tasks import TASKS
from tests.benchmarks import cpu, driver

pytestmark = pytest.mark.long
QUESTIONS = TASKS["equation"].questions(16, "train", 0)


@pytest.fixture(autouse=True)
def one_repeat(monkeypatch):
    monkeypatch.setattr(cpu, "REPEATS", 1)
    monkeypatch.setattr(driver, "REPEATS", 1)


def test_llama_cpp_is_compared_with_transformers_or_reported_as_skipped(monkeypatch, capsys):
    smollm2()
    one, batch, half, llama_cpp, *ratios = (row["median"] for row in cpu.engines())
    assert ratios == pytest.approx([llama_cpp / one, llama_cpp / batch, half / batch])
    monkeypatch.setattr(cpu, "smollm2", lambda: pytest.skip("no registry here"))
    assert cpu.engines() == [] and "skipped, no registry here" in capsys.readouterr().out


def test_grpo_step_is_the_sum_of_its_parts_and_every_patch_is_removed():
    before = training.run, batching.generate
    *parts, ratio = cpu.grpo(QUESTIONS)
    assert [row["what"] for row in parts] == ["GRPO: generation", "GRPO: scoring", "GRPO: update"]
    assert sum(row["median"] for row in parts) == pytest.approx(1)
    assert all(row["median"] > 0 for row in (*parts, ratio))
    assert (training.run, batching.generate) == before


@pytest.mark.parametrize("part", [lambda: cpu.early_exit(QUESTIONS), cpu.training_starts])
def test_measured_savings_are_finite_and_the_patched_share_is_restored(part):
    share = batching.SHARE
    assert all(0 < row["median"] < math.inf and row["n"] == 1 for row in part())
    assert share == batching.SHARE


def test_driver_is_measured_without_a_model_and_missing_ray_is_reported(monkeypatch, capsys):
    rows = driver.rates(20)
    assert all(0 < row["median"] < math.inf for row in rows) and "requests of 20 debates" in rows[0]["note"]
    in_parts, kept = driver.memory((10, 1000))  # few debates: both values grow while the first parts arrive
    assert 0 < in_parts["median"] < math.inf and 0 < kept["median"] < math.inf
    (row,) = driver.http(20)
    assert 0 < row["median"] < math.inf and row["n"] == 1 and row["what"].endswith("through HTTP")
    monkeypatch.setattr(driver.importlib.util, "find_spec", lambda name: None)
    assert driver.on_ray() == [] and "skipped, not installed" in capsys.readouterr().out


def test_debate_on_a_ray_cluster_is_compared_with_one_without_ray():
    ray = pytest.importorskip("ray", reason="ray is not installed; `make test-long` installs it")
    (row,) = driver.on_ray(8)
    assert 0 < row["median"] < math.inf and row["n"] == 1
    assert not ray.is_initialized()

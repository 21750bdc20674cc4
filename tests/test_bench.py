"""The parts of the benchmark that patch other modules, run once and small; `make bench` runs all of them."""

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
def once(monkeypatch):
    monkeypatch.setattr(cpu, "REPEATS", 1)
    monkeypatch.setattr(driver, "REPEATS", 1)


def test_llama_cpp_stands_beside_transformers_or_its_absence_is_told(monkeypatch, capsys):
    smollm2()
    one, batch, half, llama_cpp, *ratios = (row["median"] for row in cpu.engines())
    assert ratios == pytest.approx([llama_cpp / one, llama_cpp / batch, half / batch])
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


def test_the_driver_is_measured_without_a_model_and_the_absence_of_ray_is_told(monkeypatch, capsys):
    rows = driver.rates(20)
    assert all(0 < row["median"] < math.inf for row in rows) and "requests of 20 debates" in rows[0]["note"]
    in_parts, kept = driver.memory((10, 1000))  # few: both grow as the first parts come
    assert 0 < in_parts["median"] < math.inf and 0 < kept["median"] < math.inf
    (row,) = driver.http(20)
    assert 0 < row["median"] < math.inf and row["n"] == 1 and row["what"].endswith("through HTTP")
    monkeypatch.setattr(driver.importlib.util, "find_spec", lambda name: None)
    assert driver.on_ray() == [] and "skipped, not installed" in capsys.readouterr().out


def test_a_cluster_is_measured_beside_the_plain_path():
    ray = pytest.importorskip("ray", reason="ray is not installed; `make test-long` installs it")
    (row,) = driver.on_ray(8)
    assert 0 < row["median"] < math.inf and row["n"] == 1
    assert not ray.is_initialized()

"""The GPU benchmark, rehearsed on the CPU: every measurement runs for real, its table is whole, a failure stays alone."""

import importlib.util
import math
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from agentark import root
from agentark.plan import bench_gpu, gpu_routes
from agentark.schemas import write_csv

pytestmark = pytest.mark.long
KEY = ["what", "model", "route"]
OPTIONAL = {"Unsloth": "unsloth", "vLLM": "vllm"}
MISSING = [route for route, package in OPTIONAL.items() if not importlib.util.find_spec(package)]


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """The script as its users call it, in an empty folder, on a machine without a GPU."""
    environment = os.environ | {"PYTHONPATH": str(root()), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "agentark.plan.bench_gpu", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("rehearsal")
    done = bench(folder, "--rehearse", "--out", "gpu.csv")
    assert done.returncode == 0, done.stderr[-2000:]
    assert [f.name for f in folder.iterdir()] == ["gpu.csv"]
    return pd.read_csv(folder / "gpu.csv", keep_default_na=False).set_index(KEY)


def row(table: pd.DataFrame, what: str, route: str, model: str = "Qwen3-0.6B") -> pd.Series:
    return pd.to_numeric(table.loc[(what, model, route), ["value", "least", "most", "n"]])


def test_every_row_is_measured_or_says_why_not(rehearsed):
    for (what, model, route), found in rehearsed.iterrows():
        if route in MISSING:
            assert found.status.startswith(f"not measured: {OPTIONAL[route]}") and "not installed" in found.status
            assert found.value == ""
        elif route not in OPTIONAL:
            assert found.status == "measured", (what, model, route, found.status)
            value, least, most, n = row(rehearsed, what, route, model)
            assert n >= 1 and 0 <= least <= value <= most and most > 0
    assert rehearsed.index.is_unique and set(rehearsed.index.get_level_values("model")) == {"", *gpu_routes.SHAPES}


@pytest.mark.parametrize("model", gpu_routes.SHAPES)
def test_loss_curves_are_of_one_training_set_from_one_start(rehearsed, model):
    """From the loss of guessing, down; LoRA starts in the same loss on the same batch, and then learns less."""
    whole, adapters = (row(rehearsed, "R-SFT loss", route, model) for route in ("TRL", "TRL + PEFT"))
    apart = row(rehearsed, "R-SFT loss, difference to TRL", "TRL + PEFT", model)
    guessing = math.log(gpu_routes.TINY["vocab_size"])
    steps = gpu_routes.REHEARSAL.warmup + gpu_routes.REHEARSAL.repeats * gpu_routes.REHEARSAL.steps
    assert whole.n == adapters.n == apart.n == steps
    assert whole.most == pytest.approx(guessing, abs=0.2) and adapters.most == pytest.approx(whole.most, abs=1e-4)
    assert whole.least < adapters.least < adapters.most
    assert apart.least < 1e-4 < apart.most


def test_without_a_gpu_the_same_rows_say_so(rehearsed, tmp_path):
    done = bench(tmp_path, "--out", "gpu.csv")
    rows = len(rehearsed)
    assert done.returncode == 0 and done.stdout.splitlines() == [
        f"no CUDA GPU here: nothing is measured; gpu.csv has 0 of {rows} rows from earlier runs"
    ]
    table = pd.read_csv(tmp_path / "gpu.csv", keep_default_na=False)
    assert set(table.status) == {"not measured"} and set(table.value) == {""} and set(table.n) == {0}
    committed = pd.read_csv(root() / "reports" / "gpu.csv", keep_default_na=False)
    for other in (rehearsed.reset_index(), committed):
        assert list(other.columns) == list(table.columns)
        assert other[[*KEY, "unit"]].equals(table[[*KEY, "unit"]])


def test_a_run_keeps_what_it_does_not_measure(rehearsed, tmp_path):
    """One model's rows anew, the other's as they were; and a machine without a GPU takes nothing away."""
    out = tmp_path / "gpu.csv"
    write_csv(rehearsed.reset_index().replace("", None).assign(card="another"), out)
    before = out.read_text()
    measured = (rehearsed.status == "measured").sum()
    assert f"gpu.csv has {measured} of {len(rehearsed)} rows" in bench(tmp_path, "--out", "gpu.csv").stdout
    assert out.read_text() == before

    assert bench(tmp_path, "--rehearse", "--model", "Qwen3-1.7B", "--out", "gpu.csv").returncode == 0
    cards = pd.read_csv(out).groupby("model", dropna=False)["card"].unique().map(list)
    assert list(cards) == [["another"], [platform.machine()], [platform.machine()]]
    ours = [line for line in out.read_text().splitlines() if ",another," in line]
    assert ours == [line for line in before.splitlines() if ",Qwen3-0.6B," in line]


def test_a_rehearsal_is_never_written_into_the_reports(tmp_path):
    done = bench(tmp_path, "--rehearse")
    assert done.returncode == 2 and "--out" in done.stderr and not any(tmp_path.iterdir())


def test_a_failure_stays_in_its_rows(tmp_path):
    """GRPO needs a group of two at least: one output a prompt fails it, and nothing else."""
    one = replace(gpu_routes.REHEARSAL, shapes=dict([*gpu_routes.TINY_SHAPES.items()][:1]), generations=1, repeats=1)
    bench_gpu.measure(one, bench_gpu.attempt, dict.fromkeys(bench_gpu.MACHINE, ""), tmp_path / "gpu.csv")
    table = pd.read_csv(tmp_path / "gpu.csv", keep_default_na=False)
    table = table[table.model.isin(("", *one.shapes)) & ~table.route.isin(OPTIONAL)]
    failed = table[table.status != "measured"]
    assert set(failed.what) == {f"GRPO step: {part}" for part in ("generating", "scoring", "update")}
    assert failed.status.str.startswith("not measured: ValueError: ").all()


def test_a_measurement_of_its_own_process_may_fail_or_die():
    assert bench_gpu.alone(math.sqrt, 4.0) == 2.0
    assert bench_gpu.alone(math.sqrt, "four").startswith("TypeError: ")
    assert "killed" in bench_gpu.alone(os._exit, 1)


def test_nothing_is_imported_before_unsloth():
    """A measuring process imports the module first; Unsloth has to come before what it patches."""
    loaded = "import sys, agentark.plan.bench_gpu, agentark.tasks; print({'torch', 'transformers', 'trl', 'peft'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True).stdout.strip() == "set()"


def test_flops_are_the_papers_formula(tmp_path):
    shape = gpu_routes.TINY_SHAPES["Qwen3-1.7B"]
    gpu_routes.build(shape, tmp_path)
    hidden, wide, layers, heads, width = 64, 192, 2, 2, 32
    a_layer = hidden * width * (heads + 1 + 1) + heads * width * hidden + 3 * hidden * wide + 2 * hidden + 2 * width
    n, a, t = 640 * hidden + layers * a_layer + hidden, 1000, 50
    attention = layers * heads * width * t * t
    assert gpu_routes.flops(tmp_path, [t], (3, 3)) == 6 * n * t + 12 * attention
    assert gpu_routes.flops(tmp_path, [t, t], (2, 3), a) == 2 * (4 * n * t + 6 * a * t + 12 * attention)
    assert gpu_routes.flops(tmp_path, [t], (1, 1)) == 2 * n * t + 4 * attention


@pytest.mark.parametrize(("model", "whole", "inner"), [("Qwen3-0.6B", "0.6", "0.44"), ("Qwen3-1.7B", "1.7", "1.4")])
def test_shapes_have_the_weights_that_the_model_cards_state(model, whole, inner):
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(Qwen3Config(**gpu_routes.SHAPES[model]))
    weights, embedding = built.num_parameters(), built.get_input_embeddings().weight.numel()
    assert f"{weights / 1e9:.1f}" == whole
    assert f"{(weights - embedding) / 1e9:.{len(inner) - 2}f}" == inner

"""The GPU benchmark on the CPU: tiny models run all measurements, and a failure affects only its own rows."""

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

from agentark import Stopped, root
from agentark.distill import sft
from agentark.models.loading import load_tokenizer
from agentark.parallel import isolated
from agentark.plan.training_log import measure_training
from agentark.schemas import write_csv
from tests.benchmarks import gpu, gpu_routes

pytestmark = pytest.mark.long
KEY = ["what", "model", "route"]
MISSING = {
    "Unsloth": "trainer unsloth: no GPU here",
    "TRL, continuous batching": "policy.generator=paged needs a GPU",
}
OPTIONAL = {*MISSING, "vLLM", "TRL, vLLM"}
if not importlib.util.find_spec("vllm"):
    MISSING |= {"vLLM": "vllm: not installed here", "TRL, vLLM": "policy.generator=vllm: vllm is not installed here"}


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the command as users do, in an empty project, without a GPU."""
    (folder / "params.yaml").touch()
    environment = os.environ | {"PYTHONPATH": str(root()), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.benchmarks.gpu", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("rehearsal")
    done = bench(folder, "--rehearse", "--out", "gpu.csv")
    assert done.returncode == 0, done.stderr[-2000:]
    assert {f.name for f in folder.iterdir()} - {"unused"} == {
        "gpu.csv",
        "params.yaml",
    }  # unused: the trainer's empty folder
    return pd.read_csv(folder / "gpu.csv", keep_default_na=False).set_index(KEY)


def row(table: pd.DataFrame, what: str, route: str, model: str = "Qwen3-0.6B") -> pd.Series:
    return pd.to_numeric(table.loc[(what, model, route), ["value", "least", "most", "n"]])


def test_every_row_is_measured_or_has_the_reason_why_not(rehearsal):
    for (what, model, route), found in rehearsal.iterrows():
        if route in MISSING:
            assert found.status.startswith(f"not measured: {MISSING[route]}")
            assert found.value == ""
        elif route not in OPTIONAL:
            assert found.status == "measured", (what, model, route, found.status)
            value, least, most, n = row(rehearsal, what, route, model)
            assert n >= 1 and 0 <= least <= value <= most and (most > 0 or "difference" in what)
    assert rehearsal.index.is_unique and set(rehearsal.index.get_level_values("model")) == {"", *gpu_routes.SHAPES}


@pytest.mark.parametrize("model", gpu_routes.SHAPES)
def test_loss_curves_have_the_same_training_set_and_initial_loss(rehearsal, model):
    """The loss starts at that of uniform guessing and falls. LoRA has the same initial loss and reduces it less."""
    full, lora = (row(rehearsal, "R-SFT loss", route, model) for route in ("TRL", "TRL + PEFT"))
    difference = row(rehearsal, "R-SFT loss, difference to TRL", "TRL + PEFT", model)
    guessing = math.log(gpu_routes.TINY["vocab_size"])
    assert full.n == lora.n == difference.n == gpu_routes.REHEARSAL.sft.steps
    assert full.most == pytest.approx(guessing, abs=0.2) and lora.most == pytest.approx(full.most, abs=1e-4)
    assert full.least < lora.least < lora.most
    assert difference.least < 1e-4 < difference.most


@pytest.mark.parametrize("model", gpu_routes.SHAPES)
def test_the_gpu_path_has_the_loss_of_the_plain_path(rehearsal, model):
    difference = row(rehearsal, "R-SFT loss, difference to TRL + PEFT", "TRL + PEFT, kernels", model)
    assert difference.n == gpu_routes.REHEARSAL.sft.steps and difference.most < 1e-4


def test_measurements_are_complete_and_ordered_by_priority():
    order = gpu.sections([*gpu_routes.SHAPES])
    assert [(model, route) for model, (_, route, _) in order[:4]] == [
        (model, route) for route in ("TRL + PEFT", "TRL + PEFT, kernels") for model in gpu_routes.SHAPES
    ]
    first = [route for model, (_, route, _) in order[6:] if model == "Qwen3-0.6B"]
    training = ["TRL", "TRL, continuous batching", "TRL, vLLM", "TRL"]
    assert first == ["transformers", "continuous batching", "vLLM", *training]
    assert len(order) == 20


def test_a_run_stopped_by_the_time_limit_keeps_its_rows(tmp_path, monkeypatch):
    def stop(*_):
        raise Stopped("no time")

    def measure_once(*_):
        monkeypatch.setattr(gpu, "measured", stop)
        return {"generation tokens/s": [1.0], "generation MFU": [1e12]}

    (tmp_path / "params.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu, "sections", lambda models: [(model, gpu.REST[0]) for model in models])
    monkeypatch.setattr(gpu, "measured", measure_once)
    with pytest.raises(Stopped):
        gpu.measure(gpu_routes.REHEARSAL, dict.fromkeys(gpu.MACHINE, ""), tmp_path / "gpu.csv")
    speeds = pd.read_csv(tmp_path / "gpu.csv", keep_default_na=False).query("what == 'generation tokens/s'")
    assert list(speeds.status) == ["measured", *["not measured"] * 5]


def test_without_a_gpu_the_same_rows_are_not_measured(rehearsal, tmp_path):
    done = bench(tmp_path, "--out", "gpu.csv")
    rows = len(rehearsal)
    assert done.returncode == 0 and done.stdout.splitlines() == [
        f"no CUDA GPU here: nothing is measured; gpu.csv has 0 of {rows} rows from earlier runs"
    ]
    table = pd.read_csv(tmp_path / "gpu.csv", keep_default_na=False)
    assert set(table.status) == {"not measured"} and set(table.value) == {""} and set(table.n) == {0}
    committed = pd.read_csv(root() / "reports" / "gpu.csv", keep_default_na=False)
    for other in (rehearsal.reset_index(), committed):
        assert list(other.columns) == list(table.columns)
        assert set(other[[*KEY, "unit"]].itertuples(index=False)) <= set(table[[*KEY, "unit"]].itertuples(index=False))
    assert len(rehearsal) == len(table)  # the committed table lacks routes that no run has measured


def test_a_run_keeps_rows_that_it_does_not_measure(rehearsal, tmp_path):
    """Only the rows of the chosen model change; a machine without a GPU removes nothing."""
    out = tmp_path / "gpu.csv"
    write_csv(rehearsal.reset_index().replace("", None).assign(card="another"), out)
    before = out.read_text()
    measured = (rehearsal.status == "measured").sum()
    assert f"gpu.csv has {measured} of {len(rehearsal)} rows" in bench(tmp_path, "--out", "gpu.csv").stdout
    assert out.read_text() == before

    assert bench(tmp_path, "--rehearse", "--model", "Qwen3-1.7B", "--out", "gpu.csv").returncode == 0
    cards = pd.read_csv(out).groupby("model", dropna=False)["card"].unique().map(list)
    assert list(cards) == [["another"], [platform.machine()], [platform.machine()]]
    kept = [line for line in out.read_text().splitlines() if ",another," in line]
    assert kept == [line for line in before.splitlines() if ",Qwen3-0.6B," in line]


def test_a_rehearsal_is_never_written_into_the_reports(tmp_path):
    done = bench(tmp_path, "--rehearse")
    assert done.returncode == 2 and "--out" in done.stderr
    assert [f.name for f in tmp_path.iterdir()] == ["params.yaml"]


def test_a_failure_affects_only_its_own_rows(tmp_path, monkeypatch):
    """Four outputs do not divide into batches of three: GRPO fails, the other measurements do not."""
    (tmp_path / "params.yaml").touch()
    monkeypatch.chdir(tmp_path)
    odd = replace(gpu_routes.REHEARSAL, shapes=dict([*gpu_routes.TINY_SHAPES.items()][:1]))
    odd = replace(odd, grpo=odd.grpo.but(per_device_batch_size=3))
    gpu.measure(odd, dict.fromkeys(gpu.MACHINE, ""), tmp_path / "gpu.csv")
    table = pd.read_csv(tmp_path / "gpu.csv", keep_default_na=False)
    table = table[table.model.isin(("", *odd.shapes)) & ~table.route.isin(OPTIONAL)]
    failed = table[table.status != "measured"]
    parts = ("generating", "scoring", "update", "share generating")
    assert set(failed.what) == {f"GRPO step: {part}" for part in parts}
    assert failed.status.str.startswith("not measured: batch_size: 4 examples do not divide").all()


def test_a_failed_measurement_returns_the_reason():
    assert gpu.attempt(["a"], lambda: {"a": [4.0]}) == {"a": [4.0]}
    assert gpu.attempt(["a", "b"], math.sqrt, "four")["b"].startswith("TypeError: ")
    assert gpu.attempt(["a"], isolated, os._exit, status=1)["a"].startswith("BrokenProcessPool: ")


def test_a_process_imports_unsloth_before_the_libraries_that_it_patches():
    """`launch` imports Unsloth before them, so importing `launch` itself loads none of them."""
    loaded = "import sys, agentark.distill.launch; print({'torch', 'transformers', 'trl', 'peft'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True).stdout.strip() == "set()"


def test_a_log_does_not_change_the_training(tmp_path):
    """The learning curve is bit by bit that of the training without a log."""
    gpu_routes.build(gpu_routes.TINY_SHAPES["Qwen3-0.6B"], tmp_path / "base")
    settings, pairs = gpu_routes.REHEARSAL.sft, [(q.text, q.solution) for q in gpu_routes.examples(20, 1)]
    call = dict(base=tmp_path / "base", pairs=pairs, seed=0, settings=settings)
    log = measure_training(sft.train, **call)
    assert log.curve == sft.train(out=tmp_path / "student", **call)
    tokens = sft.example_tokens(pairs, load_tokenizer(tmp_path / "base"))
    assert sum(map(sum, log.lengths)) == pytest.approx(20 * tokens)
    assert [len(batch) for batch in log.lengths] == [4] * 5
    assert len(log.steps) == 5 and all(step["all"] > 0 for step in log.steps)


def test_flops_follow_the_formula_of_the_paper(tmp_path):
    shape = gpu_routes.TINY_SHAPES["Qwen3-1.7B"]
    gpu_routes.build(shape, tmp_path)
    hidden, intermediate, layers, heads, head_dim = 64, 192, 2, 2, 32
    layer = hidden * head_dim * (heads + 1 + 1) + heads * head_dim * hidden  # attention
    layer += 3 * hidden * intermediate + 2 * hidden + 2 * head_dim  # MLP and norms
    n, a, t = 640 * hidden + layers * layer + hidden, 1000, 50
    attention = layers * heads * head_dim * t * t
    assert gpu_routes.flops(tmp_path, [t], (3, 3)) == 6 * n * t + 12 * attention
    assert gpu_routes.flops(tmp_path, [t, t], (2, 3), a) == 2 * (4 * n * t + 6 * a * t + 12 * attention)
    assert gpu_routes.flops(tmp_path, [t], (1, 1)) == 2 * n * t + 4 * attention


@pytest.mark.parametrize(("model", "total", "inner"), [("Qwen3-0.6B", "0.6", "0.44"), ("Qwen3-1.7B", "1.7", "1.4")])
def test_parameter_counts_of_the_shapes_match_the_model_cards(model, total, inner):
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(Qwen3Config(**gpu_routes.SHAPES[model]))
    weights, embedding = built.num_parameters(), built.get_input_embeddings().weight.numel()
    assert f"{weights / 1e9:.1f}" == total
    assert f"{(weights - embedding) / 1e9:.{len(inner) - 2}f}" == inner

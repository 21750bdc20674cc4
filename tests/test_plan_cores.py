"""The planner for machines without a GPU: GGUF files, speed of a core, controls, students by source, memory."""

import importlib.util
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from small_study import PROJECT
from weights import smollm2

from agentark import StudyError
from agentark.debate.controls import named_controls
from agentark.debate.run import GROUP, run_debates
from agentark.models.gguf import require
from agentark.parallel import workers, workers_for
from agentark.plan import checks, cores, rates, sizes, stages
from agentark.plan.rates import COLUMNS, debate_rates, passes, rates_of, size_of
from agentark.plan.sizes import REPLIES, Assumptions
from agentark.stage import parameters
from agentark.tasks import TASKS

FILE = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
H200 = sizes.CARDS["H200"]


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def small_cpu(**changed) -> dict:
    return parameters.parameters("small_cpu") | changed


def planned(params: dict) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Rates, steps and stages of a plan for one core; only the speed of the core is measured, the rest is assumed."""
    assumptions = Assumptions(cores.core(), REPLIES["mid"])
    found = rates.rates(params, 1, 1, assumptions)
    steps = rates.steps(params, found, 1, assumptions)
    return found, steps, stages.stages(params, found, steps, "core")


def write_gguf(file, hidden: int, layers: int, tied: bool):
    """Write a GGUF file of a Qwen2 model with a vocabulary of 10 and one matrix of its layers."""
    gguf = require()
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_block_count(layers)
    writer.add_embedding_length(hidden)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_tensor("token_embd.weight", np.zeros((10, hidden), np.float32))
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((hidden, hidden), np.float16))
    if not tied:
        writer.add_tensor("output.weight", np.zeros((10, hidden), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("hidden", "layers"), [(16, 1), (32, 7)])
def test_the_size_of_a_model_is_read_from_its_gguf_file(tied, hidden, layers, tmp_path):
    file = tmp_path / "a.gguf"
    write_gguf(file, hidden, layers, tied)
    name = f"llama.cpp:{file}"
    size = size_of(small_cpu(teacher=name), name)
    assert (size.layers, size.hidden, size.kv_heads, size.head_dim, size.vocabulary) == (
        layers,
        hidden,
        2,
        hidden // 4,
        10,
    )
    assert size.weights == hidden * hidden + 10 * hidden  # an untied embedding table is only looked up, not multiplied
    assert size.disk_gb * 1e9 == pytest.approx(file.stat().st_size)
    assert size.quantised and size.licence == "not stated"


def test_the_size_of_a_real_gguf_file_matches_its_model_card():
    size = sizes.checkpoint(str(smollm2()))  # its model card: 135M weights, Apache-2.0
    assert (size.weights, size.licence) == (134_515_008, "apache-2.0")
    assert (size.layers, size.hidden, size.kv_heads, size.head_dim, size.vocabulary) == (30, 576, 3, 64, 49_152)
    assert size.disk_gb * 1e9 == pytest.approx(smollm2().stat().st_size)


def test_a_missing_gguf_file_has_its_published_size_or_is_a_one_line_error(tmp_path, monkeypatch):
    params = small_cpu(teacher=f"llama.cpp:nowhere/{FILE}")
    teacher, student = (size_of(params, name) for name in (params["teacher"], *params["students"]))
    assert not rates.here(params["teacher"]) and teacher.quantised and teacher.disk_gb == pytest.approx(1.117, abs=1e-3)
    assert not student.quantised and student.bytes == 4  # dequantised for training
    (note,) = checks.model_checks(params, params["teacher"])
    assert note.verdict == "not ok" and f"hf download Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF {FILE}" in note.note
    for content, message in ((None, "no such GGUF file"), (b"GGUF\x03\0\0\0garbage" * 9, "not a readable GGUF file")):
        if content:
            (tmp_path / "b.gguf").write_bytes(content)
        with pytest.raises(StudyError, match=f"b.gguf: {message}") as error:
            sizes.checkpoint(f"{tmp_path}/b.gguf")
        assert "\n" not in str(error.value)


def test_a_teacher_with_an_adapter_needs_both_files(tmp_path):
    write_gguf(tmp_path / "a.gguf", 16, 1, True)
    name = f"llama.cpp:{tmp_path}/a.gguf+{tmp_path}/b.gguf"
    assert not rates.here(name)
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    assert rates.here(name) and size_of(small_cpu(), name).layers == 1


@pytest.mark.parametrize(
    ("teacher", "task", "message"),
    [("data/models/teacher", "equation", ""), ("http://127.0.0.1:1/v1#m", "equation", ""),
     ("vllm:data/models/teacher", "equation", "there is no GPU"), ("llama.cpp:FILE", "equation", ""),
     ("llama.cpp:nowhere.gguf", "equation", "is not here"), ("data/models/none", "equation", "is not here"),
     ("data/models/teacher", "gsm8k", "no validation question of gsm8k is drawn")],
)  # fmt: skip
def test_obstacles_to_a_pilot_on_cores_are_reported(teacher, task, message, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    params = small_cpu(teacher=teacher.replace("FILE", f"{tmp_path}/a.gguf"), train_task=task)
    found = rates.pilot_obstacle(params)
    assert message in found and bool(found) == bool(message)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    if "FILE" in teacher:
        assert rates.pilot_obstacle(params) == "llama.cpp is not installed"


def test_the_speed_of_a_core_is_its_measured_matrix_and_copy_rate():
    cores.core.cache_clear()
    start = time.thread_time()
    card = cores.core()
    assert time.thread_time() - start < 5
    assert card.core and card.memory * workers() == pytest.approx(psutil.virtual_memory().total / 1e9)
    matrix, block = torch.rand(512, 512), torch.zeros(2**24)
    product, copy = cores.fastest(lambda: matrix @ matrix), cores.fastest(block.clone)
    assert card.tflops == pytest.approx(2 * 512**3 / product / 1e12, rel=0.75)
    assert 0.1 < card.bandwidth / (8 * 2**24 / copy / 1e12) < 10
    with pytest.raises(StudyError, match="card 'B7' is unknown; choose one of A100, H100, H200"):
        cores.card_of("B7")


def test_a_core_decodes_quantised_models_singly_and_others_in_groups():
    card = sizes.Card(8, 0.1, 0.01, core=True, bytes=4, tflops_bf16=0.5)
    model = sizes.CHECKPOINTS["Qwen/Qwen2.5-Coder-1.5B-Instruct"]
    file = sizes.checkpoint(f"nowhere/{FILE}")
    assert [sizes.batch_of(m, card, 500) for m in (file, model)] == [1, GROUP]
    assert sizes.call_seconds(file, card, 0, 1) == pytest.approx(1_117_320_768 / (0.01e12 * sizes.MBU), rel=1e-3)
    full = 2 * model.weights / (0.1e12 * sizes.CORE_MFU[4])  # a group's decoding is bound by the matrix rate
    assert sizes.call_seconds(model, card, 0, 1) == pytest.approx(full)
    assert sizes.call_seconds(model, card, 0, 1, most=1) > 5 * full
    assert sizes.call_seconds(model, card, 100, 0) == pytest.approx(100 * full)
    assert [sizes.training_flop(c, r) for c, r in ((card, 0), (card, 16), (H200, 16))] == [6, 4, 6]
    half = card.in_16_bits()
    assert sizes.call_seconds(model, half, 100, 0) == pytest.approx(200 * model.weights / (0.5e12 * sizes.CORE_MFU[2]))
    assert sizes.weight_bytes(model, half) == 2 * model.weights and H200.in_16_bits() == H200


# The core of the run in reports/small: its rates in fp32 and bf16, its bandwidth, and the hours that a training and an
# answer took (docs/real-models.md).
XEON = sizes.Card(12, 0.170, 0.013, core=True, bytes=4, tflops_bf16=1.25)
TRAINING_HOURS, ANSWER_HOURS = 37 / 60, 6 / 60 / 400


def test_planned_hours_of_the_committed_run_are_within_a_factor_of_two():
    params, table = small_cpu(), pd.read_csv(PROJECT / "reports" / "small" / "scores.csv")
    table = table[(table["metric"] == "accuracy") & (table["test_task"] == "gsm8k")]
    tokens = table[table["method"].isin(["base", "rsft"])]["tokens_per_question"].mean()
    replies = sizes.Replies("reports/small", (tokens,), 1, (1, 1))
    found = rates.rates(params, 1, 1, Assumptions(XEON, replies))
    steps = rates.steps(params, found, 1, Assumptions(XEON, replies)).set_index("method")
    training = steps.loc["rsft", "seconds"] * params["sft"]["steps"] / 3600
    answer = passes(found, params["students"][0]).loc["gsm8k", "seconds"] / 3600
    for planned_hours, measured_hours in ((training, TRAINING_HOURS), (answer, ANSWER_HOURS)):
        assert 0.5 < planned_hours / measured_hours < 2, (planned_hours, measured_hours)


def test_memory_on_cores_is_the_sum_over_processes(monkeypatch):
    model, file = sizes.CHECKPOINTS["Qwen/Qwen2.5-Coder-0.5B-Instruct"], sizes.checkpoint(f"nowhere/{FILE}")
    card = sizes.Card(8, 0.1, 0.01, core=True, bytes=4, tflops_bf16=0.5)
    cache = GROUP * 500 * 2 * 24 * 2 * 64 * 4
    assert sizes.generation_gb(model, card, 500) == pytest.approx((4 * model.weights + cache) / 1e9 + sizes.PROCESS_GB)
    assert sizes.generation_gb(file, card, 1) == sizes.generation_gb(file, card, 500) > file.disk_gb
    training = sizes.training_gb(model, 500, 16, 0, core=True)
    assert (
        training > sizes.training_gb(model, 500, 16, 0) and sizes.training_gb(model, 500, 0, 0, core=True) > 16 * 0.49
    )
    params = small_cpu()
    monkeypatch.setenv("AGENTARK_WORKERS", "1")
    one = planned(params)[2].set_index("stage")
    monkeypatch.setenv("AGENTARK_WORKERS", "2")
    rows = planned(params)[2]
    two = rows.set_index("stage")
    assert two.loc["debate@train", "memory_gb"] == pytest.approx(2 * one.loc["debate@train", "memory_gb"])
    assert (
        two.loc["distill@qwen2.5-coder-0.5b-rsft", "memory_gb"]
        == one.loc["distill@qwen2.5-coder-0.5b-rsft", "memory_gb"]
    )
    for needed, verdict in ((1e-3, "ok"), (1e6, "not ok")):
        check = checks.memory_check(params, rows.assign(memory_gb=needed), "core")
        assert (check.what, check.verdict) == ("memory", verdict) and "this machine has" in check.note


def test_a_cpu_scale_plan_lists_all_stages_in_core_hours(monkeypatch):
    params = small_cpu()
    assert cores.on_cores(params) and not cores.on_cores(params | {"teacher": "vllm:x"})
    monkeypatch.setenv("AGENTARK_WORKERS", "2")
    _, steps, rows = planned(params)
    (student,) = params["students"]
    methods = ["sft", "rsft", "da", *(f"rsft-{source}" for source in params["sources"])]
    assert set(rows["stage"]) == {
        f"fetch@{FILE}", f"fetch@{student}", *(f"{kind}@{key}" for kind in ("debate", "controls") for key in params["debates"]),
        *(f"distill@{student}-{method}" for method in methods), f"reward_model@{student}", f"policy@{student}", "evaluate",
    }  # fmt: skip
    assert set(stages.table(rows, params, "core")["hours_of"]) == {"core"}
    wall = pd.Series([*stages.wall_hours(params, rows)], index=rows["stage"]) / rows.set_index("stage")["hours"]
    assert wall["debate@train"] == pytest.approx(3 / 5)  # five groups of up to 64 questions on two cores
    assert wall[f"policy@{student}"] == 1  # one seed
    assert all(steps["basis"] == "assumed") and (steps["seconds"] > 0).all()
    systems = 2 + len(methods) + 1  # the teacher, the base model, the trained students
    last = rows.set_index("stage").loc["evaluate"]
    assert last["calls"] == systems * (300 + 100)


@pytest.mark.parametrize(
    ("cores_", "calls", "share"), [(1, 3, 1), (2, 1, 1), (2, 3, 0.5), (2, 4, 0.5), (2, 5, 0.6), (4, 9, 1 / 3)]
)
def test_cores_are_idle_if_calls_do_not_divide_evenly(cores_, calls, share, monkeypatch):
    monkeypatch.setenv("AGENTARK_WORKERS", str(cores_))
    assert cores.wall_share(calls) == pytest.approx(share)
    assert workers_for(calls) <= max(2 * cores_ - 1, 1)


def run_controls(tmp_path, names: list[str]) -> tuple[dict, pd.DataFrame, dict[str, int], int]:
    """Run debates and controls with the generated world's teacher. Return parameters, rates, calls by control, and the
    tokens of all controls."""
    params = parameters.parameters("mini") | {"agents": 3, "rounds": 2}
    params["debates"] = {"train": {"split": "train", "temperature": 1.0, "controls": str(names).replace("'", "")}}
    questions = TASKS["equation"].questions(8, "validation", 0, TASKS["equation"].levels)
    params["questions"] = params["questions"] | {"train": len(questions)}
    debate, call = rates.protocol(params, 1.0), (questions, params["teacher"], tmp_path / "store", 0, 40)
    fixed = dict(model=params["teacher"], task="equation", hard=False)
    traces, seconds = run_debates(debate, *call)
    found = [rates_of(traces, seconds).assign(temperature=1.0, **fixed)]
    calls, tokens = {}, 0
    for name, control in named_controls(["greedy", *names], debate, traces, questions, 1.0).items():
        control_traces, control_seconds = run_debates(control, *call)
        calls[name] = len(control_traces)
        tokens += sum(t.prompt_tokens + t.completion_tokens for t in control_traces) if name in names else 0
        if name == "greedy":
            found.append(rates_of(control_traces, control_seconds).assign(temperature=0.0, **fixed))
    return params, pd.concat(found)[COLUMNS], calls, tokens


def test_planned_controls_have_the_calls_and_tokens_of_a_run(tmp_path):
    names = ["greedy", "self_revision", "debate_off", "debate_other", "vote", "vote_tokens"]
    params, found, calls, tokens = run_controls(tmp_path, names)
    debate, pass_rates = debate_rates(found, False, 1.0), passes(found, params["teacher"])
    for name in names:
        planned_rates = stages.control_rates(params, debate, pass_rates, name)
        assert 8 * planned_rates["calls"].sum() == pytest.approx(calls[name]), name
    row = stages.controls_stage(params, found, "train", "H200")
    assert (row["questions"], row["calls"], row["basis"]) == (8, sum(calls.values()), "measured")
    assert row["tokens_read"] + row["tokens_written"] == pytest.approx(tokens, rel=0.2)
    params["debates"]["train"]["split"] = "in_domain"
    assert "vote" not in stages.control_names(params, "train")  # it is in the row of the debate
    with pytest.raises(StudyError, match="controls: 'chat' is unknown"):
        stages.control_rates(params, debate, pass_rates, "chat")


def test_stored_generations_are_planned_without_time(monkeypatch):
    params = small_cpu(sources=[])
    found = planned(params)[0]
    hours = {}
    for names in ("[]", "[greedy]", "[self_revision]", "[greedy, self_revision]"):
        debate = params["debates"]["test"] | {"controls": names}
        changed = params | {"debates": {"test": debate}}
        controls_hours = stages.controls_stage(changed, found, "test", "core")["hours"] if names != "[]" else 0
        hours[names] = controls_hours, stages.evaluate_stage(changed, found, "core")["hours"]
    pass_hours = passes(found, params["teacher"]).loc["gsm8k", "seconds"] * 300 / 3600
    assert hours["[greedy]"][0] == pytest.approx(pass_hours)
    assert hours["[greedy, self_revision]"][0] == pytest.approx(hours["[self_revision]"][0])
    assert hours["[]"][1] - hours["[greedy]"][1] == pytest.approx(pass_hours)
    off = stages.control_rates(params, debate_rates(found, False, 0.7), passes(found, params["teacher"]), "debate_off")
    assert (off.loc[off["kind"] == "round 1", "seconds"] == 0).all() and (
        off.loc[off["kind"] != "round 1", "seconds"] > 0
    ).all()


def test_base_models_of_the_generated_world_are_evaluated_twice():
    params = parameters.parameters("mini")
    params |= {"students": ["qwen3-small"], "seeds": [0], "methods": ["rsft"]}
    rows = [(n, t, False, 0.0, "pass", 1, 10, 5, 0.5, 8, "measured") for n in (params["teacher"], "qwen3-small")
            for t in params["questions"]["tasks"]]  # fmt: skip
    row = stages.evaluate_stage(params, pd.DataFrame(rows, columns=COLUMNS), "H200")
    assert row["calls"] == row["questions"] * 5  # teacher, base twice, R-SFT, PAD


def test_a_llama_cpp_pilot_measures_a_teacher_on_cores(tmp_path):
    pytest.importorskip("xllamacpp")
    params = small_cpu(teacher=f"llama.cpp:{smollm2()}", train_task="equation", students=["qwen3-small"], max_tokens=4)
    params |= {"agents": 2, "sources": [], "store": str(tmp_path), "checkpoints": {}}
    params["questions"] = params["questions"] | {"tasks": ["equation"]}
    found = rates.rates(params, 1, 1, Assumptions(cores.core(), REPLIES["low"]))
    assert set(found["basis"]) == {"measured"} and set(found["n"]) == {1}
    teacher = found[found["model"] == params["teacher"]]
    assert set(teacher["kind"]) >= {"round 1", "summary", "pass"} and (teacher["seconds"] > 0).all()
    assert teacher["written"].max() <= 4
    size = size_of(params, params["teacher"])
    (measured,) = passes(found, params["teacher"]).to_dict("records")
    computed = sizes.call_seconds(size, cores.core(), measured["read"], measured["written"])
    assert measured["seconds"] > computed / 10  # no upper bound: the time depends on other programs on the machine

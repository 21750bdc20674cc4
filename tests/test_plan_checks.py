"""Checks of a plan and of the first stages: windows, engines, cards, and the memory of one card."""

import importlib.util
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from test_plan import assumed, full

from agentark import StudyError
from agentark.engines import llama_cpp
from agentark.plan import checks, cores, sizes, stages
from agentark.plan.rates import size_of
from agentark.stage import parameters, run, windows

LLAMA = {"llama3-8b": {"source": "meta-llama/Meta-Llama-3-8B-Instruct"}}


def fake_gpu(monkeypatch, name: str, memory: float, number: int = 1) -> None:
    device = SimpleNamespace(name=name, total_memory=memory)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)


def with_llama(**changes) -> dict:
    params = full(students=["llama3-8b"], **changes)
    return params | {"checkpoints": params["checkpoints"] | LLAMA}


@pytest.mark.parametrize("scale", ["mini", "small", "small_cpu", "full"])
def test_longest_requests_of_every_scale_fit_their_windows(scale):
    assert [*windows.too_long(parameters.parameters(scale))] == []
    assert windows.WINDOWS.keys() == sizes.CHECKPOINTS.keys() and llama_cpp.WINDOW == windows.LLAMA_CPP


def test_window_that_is_too_short_is_reported_with_what_to_change():
    (line,) = windows.too_long(with_llama())
    assert line == (
        "llama3-8b: a window of 8,192 tokens, but the longest request has 6,000 (questions.room) + 128 (template) + "
        "4,096 (max_tokens) = 10,224; lower questions.room or max_tokens"
    )
    (check,) = checks.window_checks(with_llama())
    assert (check.verdict, check.note) == ("not ok", line)
    assert not [*windows.too_long(with_llama(max_tokens=2048))]
    (debate,) = windows.too_long(with_llama(max_tokens=2048, teacher="ray:vllm:data/models/llama3-8b"))
    assert "10,280 (5 agents' replies)" in debate and debate.endswith("max_tokens or agents")
    assert windows.window(with_llama(), "http://127.0.0.1/v1#m") is None
    assert windows.window(full(), "data/models/qwen3-small") == sizes.checkpoint("data/models/qwen3-small").window
    assert checks.window_checks(full(students=["nobody"]))[0].verdict == "not known"


@pytest.mark.parametrize("name", windows.FIRST)
def test_first_stages_refuse_a_short_window_before_the_notebook_runs(name, monkeypatch):
    monkeypatch.setattr(run, "parameters", lambda scale: with_llama())
    monkeypatch.setattr(run, "execute", lambda *_: pytest.fail("the notebook ran"))
    with pytest.raises(StudyError, match=r"^llama3-8b: a window of 8,192 tokens, [^\n]*$"):
        run.run(name, {}, "full")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"checkpoints": {"qwen3-32b": "Qwen/Qwen3-32B"}}, "checkpoints.qwen3-32b is 'Qwen/Qwen3-32B', not a source"),
        ({"checkpoints": {"qwen3-32b": None}}, "checkpoints.qwen3-32b is None, not a source; write it as {source: "),
        ({"checkpoints": {"qwen3-32b": {"source": None}}}, "checkpoints.qwen3-32b is {'source': None}, not a source"),
        ({"checkpoints": ["Qwen/Qwen3-32B"]}, "checkpoints is ['Qwen/Qwen3-32B']; write one line for each"),
        ({"students": None}, "students is empty; write a list of names, as in students: [qwen3-0.6b]"),
        ({"students": "qwen3-8b"}, "students is 'qwen3-8b'; write a list"),
        ({"teacher": 5}, "teacher is 5; write a model's name"),
        ({"teacher": None}, "teacher is empty; write a model's name"),
        ({"questions": "x"}, "questions is 'x'; write a section"),
    ],
)
def test_invalid_section_is_refused_in_one_line_with_the_valid_form(section, message):
    with pytest.raises(StudyError) as raised:
        windows.check(full() | section, {})
    assert str(raised.value).startswith(f"params.yaml: {message}")
    without = {name: value for name, value in full().items() if name not in section}
    if not section.keys() & {"checkpoints", "questions"}:
        with pytest.raises(StudyError, match=r"^params\.yaml: (teacher|students) is missing; write "):
            windows.check(without, {})


def test_name_without_folder_finds_the_only_notebook_of_that_name(monkeypatch):
    def raise_path(notebook, *_):
        raise StudyError(f"{notebook.parent.name}/{notebook.name}")

    monkeypatch.setattr(run, "resolve", raise_path)
    for name, found in (
        ("plan", "choices/plan"),
        ("choices/plan", "choices/plan"),
        ("03_debate", "notebooks/03_debate"),
    ):
        with pytest.raises(StudyError, match=f"^{found}.ipynb$"):
            run.run(name, {})
    monkeypatch.undo()
    for name in ("page", "osmosis"):  # several notebooks have the first name, none has the second
        with pytest.raises(StudyError, match=f"{name}.ipynb: no such notebook"):
            run.run(name, {})


def test_memory_is_compared_with_one_card_and_copies_are_reported(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    rows = assumed(full(), "H100")[2]
    found = {c.what: c for c in checks.checks(full(), rows, "H100")}
    debate = rows.set_index("stage").loc["debate@train", "memory_gb"]
    assert 65.6 / 2 < debate <= 80 * 0.9 and found["GPU memory"].verdict == "not known"
    assert "the planned H100 (there is no GPU here) has 80" in found["GPU memory"].note
    assert found["cards"].note.startswith("on 8 H100: qwen3-32b: 2 cards a copy, 4 copies; qwen3-8b: 1 card a copy, 8")
    assert found["engines"].note == "Ray is not installed, vLLM is not installed here; `pip install -e .[gpu,cluster]`"
    assert found["engines"].verdict == "not known"
    fake_gpu(monkeypatch, "NVIDIA H100 80GB HBM3", 85e9)
    assert checks.engine_checks(full())[0].verdict == "not ok"
    (check,) = checks.card_checks(full(students=[]), "H100")
    assert (check.verdict, check.note) == ("not ok", "on the 1 H100 here: qwen3-32b: 2 cards a copy, no copies")


@pytest.mark.parametrize("card", ["RTX 4090", "A10", "L4"])
def test_scale_small_fits_on_a_card_of_24_gb(card, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    params = parameters.parameters("small")
    rows = assumed(params, card)[2]
    assert 0 < rows["memory_gb"].max() <= sizes.CARDS[card].memory
    assert checks.memory_check(params, rows, card).verdict == "not known"
    assert "1 card a copy" in checks.card_checks(params, card)[0].note


@pytest.mark.parametrize(
    ("name", "memory", "card"),
    [("NVIDIA GeForce RTX 4090", 25.3e9, "RTX 4090"), ("NVIDIA A100-SXM4-40GB", 42e9, "A100"),
     ("NVIDIA A10", 24e9, "A10"), ("NVIDIA H100 80GB HBM3", 85e9, "H100"), ("NVIDIA H200", 150e9, "H200")],
)  # fmt: skip
def test_card_of_this_machine_is_planned_with_its_real_memory(name, memory, card, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cores.card_here() == "" and cores.card_of(card) == sizes.CARDS[card]
    fake_gpu(monkeypatch, name, memory)
    assert cores.card_here() == card and cores.card_of(card).memory == pytest.approx(memory / 1e9)
    model = size_of(parameters.parameters("small"), "qwen3-0.6b")
    assert sizes.generation_gb(model, cores.card_of(card), 30_000) <= 0.9 * memory / 1e9
    fake_gpu(monkeypatch, "NVIDIA GeForce RTX 5090", 34e9)
    assert cores.card_of(cores.card_here()).memory == 34  # an unknown card has the speed of the one nearest in memory


def test_memory_check_of_a_row_without_memory_is_not_known():
    row = pd.DataFrame([("evaluate", 1, 1, 1, 1, 1.0, 1, float("nan"), "assumed")], columns=stages.COLUMNS)
    assert checks.memory_check(full(), row, "H200").verdict == "not known"

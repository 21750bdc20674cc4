"""The planner: counts equal the run's, a pilot identical to the run predicts it, assumptions match their sources."""

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from examples import shared_data
from hypothesis import given
from hypothesis import strategies as st
from small_study import SMALL, shrunk, stage
from transformers import Qwen3Config

from agentark import StudyError
from agentark.distill import training
from agentark.engines import cluster, vllm
from agentark.evaluate import cost
from agentark.plan import checks, sizes, stages
from agentark.plan import rates as rates_
from agentark.plan.rates import COLUMNS, pilot_questions, rates_of, step_seconds
from agentark.plan.simulation import copies_on
from agentark.plan.sizes import Assumptions
from agentark.plan.training_log import TrainingLog
from agentark.schemas import Seconds, Trace
from agentark.stage import parameters
from agentark.tasks import questions
from agentark.tasks.datasets import load
from agentark.tasks.questions import Counts, collect, pick

LARGE = sizes.CHECKPOINTS["Qwen/Qwen3-32B"]
H100, H200 = sizes.CARDS["H100"], sizes.CARDS["H200"]
# The files in which the lengths of questions were measured.
FILES = {
    "gsm8k": ("gsm8k/train.sample.jsonl", "train"),
    "math": ("math/test.sample.jsonl", "test"),
    "math500": ("math/math500.half.jsonl", "test"),
    "metamathqa": ("metamathqa/rows.json", "train"),
    "medmcqa": ("medmcqa/test.sample.jsonl", "test"),
    "hotpotqa": ("hotpotqa/distractor.half.json", "test"),
    "truthfulqa": ("truthfulqa/TruthfulQA.sample.csv", "test"),
}


def trace(question: int, agent: int, round: int, read: int, written: int) -> Trace:
    return Trace(
        question_id=f"q{question}", agent=agent, round=round, text="", answer=None, prompt_tokens=read,
        completion_tokens=written, finish_reason="stop",
    )  # fmt: skip


# Three agents: one debate that ends after round 1, and one with a second round.
TRACES = [
    *(trace(0, a, 1, 10, 5 + a) for a in (1, 2, 3)), trace(0, 0, 2, 40, 7),
    *(trace(1, a, 1, 12, 6) for a in (1, 2, 3)), *(trace(1, a, 2, 50, 9) for a in (1, 2, 3)), trace(1, 0, 3, 60, 8),
]  # fmt: skip
TOLERANCE = 0.15  # maximal relative difference between the planned and the used tokens
SECONDS = [Seconds(question_id=t.question_id, agent=t.agent, round=t.round, seconds=0.5) for t in TRACES]


def full(**changes) -> dict:
    return parameters.parameters("full") | changes


def assumed(params: dict, card: str = "H200", replies: str = "mid") -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Rates, steps and stages of a plan in which nothing is measured."""
    assumptions = Assumptions(sizes.CARDS[card], sizes.REPLIES[replies])
    rates = rates_.rates(params, 1, 1, assumptions)
    steps = rates_.steps(params, rates, 1, assumptions)
    return rates, steps, stages.stages(params, rates, steps, card)


def test_planned_numbers_of_questions_equal_those_drawn():
    params = shrunk(parameters.parameters("mini"), SMALL)
    section = params["questions"]
    counts = Counts(*(section[name] for name in ("train", "validation", "test", "test_other", "test_hard")))
    drawn = collect(section["tasks"], params["train_task"], counts, section["seed"], section["room"], Path()).questions
    for split in ("train", "test", "in_domain", "hard"):
        found = pd.Series([q.task for q in pick(drawn, split, params["train_task"])]).value_counts().to_dict()
        assert questions.question_counts(params, split) == found


@pytest.mark.parametrize("hard", [False, True])
def test_pilot_uses_only_validation_questions(hard):
    pilot = pilot_questions(parameters.parameters("mini"), "equation", 12, hard)
    assert {q.split for q in pilot} == {"validation"}
    assert len({q.content for q in pilot}) == 12


def test_rates_add_up_to_the_totals_of_their_traces():
    rates = rates_of(TRACES, SECONDS)
    assert list(zip(rates["kind"], rates["calls"], strict=True)) == [("round 1", 3), ("round 2", 1.5), ("summary", 1)]
    for field, column in (("read", "prompt_tokens"), ("written", "completion_tokens")):
        assert 2 * (rates["calls"] * rates[field]).sum() == pytest.approx(sum(getattr(t, column) for t in TRACES))
    assert 2 * (rates["calls"] * rates["seconds"]).sum() == pytest.approx(0.5 * len(TRACES))
    assert list(rates_of(TRACES[:3], SECONDS[:3])["kind"]) == ["pass"]


def test_pilot_identical_to_the_run_predicts_it_exactly():
    params = shrunk(parameters.parameters("mini"), {"agents": 3, "rounds": 2, "questions": {"train": 2}})
    rates = rates_of(TRACES, SECONDS).assign(model=params["teacher"], task="equation", hard=False, temperature=1.3)
    row = stages.debate_stage(params, rates[COLUMNS], "train", "H200")
    assert (row["questions"], row["calls"], row["basis"]) == (2, len(TRACES), "measured")
    assert row["tokens_read"] == sum(t.prompt_tokens for t in TRACES)
    assert row["tokens_written"] == sum(t.completion_tokens for t in TRACES)
    assert row["hours"] * 3600 == pytest.approx(0.5 * len(TRACES))
    params["debates"]["train"]["split"] = "in_domain"  # a test split: 7 votes more per question, like calls of round 1
    params["questions"]["test"] = 2
    voted = stages.debate_stage(params, rates[COLUMNS], "train", "H200")
    assert voted["calls"] == row["calls"] + 2 * 7
    assert voted["tokens_read"] == row["tokens_read"] + 2 * 7 * 11


def test_training_of_all_seeds_is_planned():
    params = parameters.parameters("mini")
    values = dict(student="qwen3-small", method="pad", examples=128, tokens=6000, written=2000, seconds=3.0)
    step = pd.Series(values | {"basis": "measured"})
    rates = pd.DataFrame(
        [("qwen3-small", "equation", False, 0.0, "pass", 1, 10, 5, 0.5, 8, "measured")], columns=COLUMNS
    )
    row = stages.training_stage(params, rates, step, "H200")
    assert (params["policy"]["steps"], params["policy"]["held_out"], params["policy"]["eval_steps"]) == (60, 100, 10)
    times = (60 + 6 * 200 / 128) * len(params["seeds"])  # six evaluations, each with two outputs per held-out question
    assert (row["stage"], row["calls"]) == ("policy@qwen3-small", round(128 * times))
    assert row["hours"] == pytest.approx(3 * times / 3600)
    assert (row["tokens_read"], row["tokens_written"]) == (round(4000 * times), round(2000 * times))
    reward_model = stages.training_stage(
        params, rates, pd.Series(step.to_dict() | {"method": "reward_model", "written": 0}), "H200"
    )
    times = (60 + 500) * len(params["seeds"])
    assert reward_model["calls"] == 4 * 1600  # samples of the student, drawn once for all seeds
    assert (reward_model["tokens_read"], reward_model["tokens_written"]) == (6000 * times + 6400 * 10, 6400 * 5)
    assert reward_model["hours"] * 3600 == pytest.approx(3 * times + 6400 * 0.5)
    assert reward_model["disk_gb"] == pytest.approx(2 * row["disk_gb"])


class Sleeper:
    """A trainer whose first step takes 0.5 s and each later step 0.05 s."""

    model, args = torch.nn.Module(), SimpleNamespace(seed=0)

    def __init__(self, steps: int):
        self.steps = steps

    def add_callback(self, callback):
        self.log = callback if isinstance(callback, TrainingLog) else self.log

    def remove_callback(self, callback):
        pass

    def train(self, resume_from_checkpoint=None):
        for step in range(self.steps):
            time.sleep(0.05 if step else 0.5)
            self.log.on_step_end()
        self.log.on_train_end()


def test_time_per_step_excludes_loading_saving_and_the_first_step():
    def train(out: Path, steps: int) -> None:
        time.sleep(0.2)
        training.run(Sleeper(steps))
        time.sleep(0.2)

    assert 0.05 <= step_seconds(train, steps=5) < 0.15  # it would be 0.24 with all three
    with pytest.raises(StudyError, match="raise pilot_main"):
        step_seconds(train, steps=0)


def test_decoding_is_bound_by_memory_and_prefill_by_the_matrix_rate():
    cached = 2 * 2 * 64 * 8 * 128  # bytes of keys and values per token
    batch = sizes.batch_of(LARGE, H200, 10_001)
    step = batch * sizes.call_seconds(LARGE, H200, 10_000, 1, computed=0)
    assert step == pytest.approx((2 * 32.8e9 + batch * cached * 10_000.5) / (4.8e12 * sizes.MBU))
    prefill = sizes.call_seconds(LARGE, H200, 1000, 0)
    assert prefill == pytest.approx(2 * 32.8e9 * 1000 / (989e12 * sizes.MFU))
    assert sizes.call_seconds(LARGE, H200, 1000, 0, 0.25) == pytest.approx(prefill / 4)
    assert sizes.train_seconds(LARGE, H200, 1000) == pytest.approx(3 * prefill)


def test_longer_context_leaves_room_for_fewer_sequences():
    batches = [sizes.batch_of(LARGE, H200, tokens) for tokens in (10, 1_000, 10_000, 100_000, 10_000_000)]
    assert batches[0] == sizes.SEQUENCES and batches[-1] == 1
    assert batches == sorted(batches, reverse=True)
    for tokens in (1_000, 10_000, 100_000):
        assert sizes.generation_gb(LARGE, H200, tokens) <= H200.memory * vllm.MEMORY


def test_model_that_does_not_fit_one_card_takes_two():
    assert (sizes.cards_for(LARGE, H200), sizes.cards_for(LARGE, H100)) == (1, 2)
    small = sizes.CHECKPOINTS["Qwen/Qwen3-8B"]
    assert [sizes.cards_for(small, card) for card in (H200, H100)] == [1, 1]
    assert sizes.training_gb(small, 500, 0, 0) > 16 * 8.2
    assert sizes.training_gb(small, 500, 32, 0) < H100.memory
    assert sizes.training_gb(small, 500, 32, 2) - sizes.training_gb(small, 500, 32, 0) == pytest.approx(4 * 8.2)


def checkpoint_of(folder: Path, size: sizes.Checkpoint, heads: int) -> Path:
    """A checkpoint with the size of a known model; a sparse file stands in for its weights."""
    shape = dict(num_hidden_layers=size.layers, hidden_size=size.hidden, num_key_value_heads=size.kv_heads)
    window = dict(max_position_embeddings=size.window, num_attention_heads=heads, dtype="bfloat16")
    Qwen3Config(**shape, **window).save_pretrained(folder)
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(int(2 * size.weights))
    return folder


# 80e9 is the plan's value for a card of 80 GB; torch reports about 85e9.
@pytest.mark.parametrize("memory", [80e9, 85e9])
def test_plan_and_engine_agree_on_the_cards_of_each_model_of_scale_full(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=memory))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    for name, heads, each in (("Qwen/Qwen3-32B", 64, 2), ("Qwen/Qwen3-8B", 32, 1), ("Qwen/Qwen3-0.6B", 16, 1)):
        folder = checkpoint_of(tmp_path / name, sizes.CHECKPOINTS[name], heads)
        assert vllm.settings(folder)["tensor_parallel_size"] == each
        assert sizes.cards_for(sizes.CHECKPOINTS[name], replace(H100, memory=memory / 1e9)) == each
        assert copies_on(8, cluster.cards(f"vllm:{folder}", memory, 8)) == 8 // each


def test_one_card_that_fits_only_the_weights_is_used_with_a_shorter_window(tmp_path):
    folder = checkpoint_of(tmp_path, LARGE, 64)
    assert [vllm.cards(str(folder), 85e9, available) for available in (0, 1, 2, 3)] == [2, 1, 2, 2]
    assert vllm.cards(str(folder), 80e9, 1) == 2  # it would have no room for keys and values
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(StudyError, match=r"no weights in the hub's format \(\*\.safetensors\)"):
        vllm.cards(str(folder), 80e9)


def test_teacher_of_scale_full_takes_two_of_eight_cards_per_copy(tmp_path, monkeypatch):
    checkpoint_of(tmp_path, LARGE, 64)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80e9))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert vllm.settings(tmp_path) == {"dtype": "bfloat16", "tensor_parallel_size": 2, "max_model_len": -1}
    full = yaml.safe_load(Path("params.yaml").read_text().replace("<<: *mini", "<<: *full"))
    assert full["teacher"] == "ray:vllm:data/models/qwen3-32b" and 8 // vllm.cards(str(tmp_path), 80e9) == 4
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(StudyError, match=r"needs 2 GPUs like these for its weights, but there are 1; choose"):
        vllm.settings(tmp_path)
    assert cluster.cards(f"vllm:{tmp_path}", vllm.memory()) == 2  # even if the process sees only one of the node's


@given(st.floats(1e6, 1e13), st.floats(1e3, 1e6), st.integers(512, 10**6), st.sampled_from([24e9, 80e9, 141e9]))
def test_cards_are_the_smallest_power_of_two_that_fits_weights_and_requests(weights, token, window, memory):
    number = vllm.cards_for(weights, token, window, memory)
    need = weights * (1 + vllm.ACTIVATIONS) + vllm.TOGETHER * min(window, vllm.LONGEST) * token
    assert number & (number - 1) == 0 and number * memory * vllm.MEMORY >= need * (1 - 1e-9)
    assert number == 1 or number / 2 * memory * vllm.MEMORY < need * (1 + 1e-9)


def test_size_of_a_model_is_read_from_its_folder():
    size = sizes.checkpoint("data/models/qwen3-small")
    card = json.loads(Path("data/models/qwen3-small/card.json").read_text())
    assert size.weights == card["weights"]
    assert (size.layers, size.hidden, size.kv_heads, size.head_dim, size.bytes) == (2, 96, 3, 32, 4)
    with pytest.raises(StudyError, match="nobody/nothing: no such folder"):
        sizes.checkpoint("nobody/nothing")


def test_longer_replies_cost_more_and_none_is_longer_than_max_tokens():
    rates = [assumed(full(), replies=r)[0] for r in ("low", "mid", "high")]
    costs = [(r["calls"] * r["seconds"]).sum() for r in rates]
    assert costs == sorted(costs)
    for replies in sizes.REPLIES:
        rates = assumed(full(max_tokens=100), replies=replies)[0]
        assert rates["written"].max() <= 100


def test_a_plan_without_gpu_is_assumed_throughout_and_has_every_stage():
    params = full()
    rates, steps, rows = assumed(params)
    assert set(rates["n"]) == {0} and set(steps["basis"]) == {"assumed"}
    names = list(rows["stage"])
    assert len(names) == len(set(names))
    students = params["students"]
    assert set(names) == {
        "fetch@qwen3-32b", *(f"fetch@{s}" for s in students),
        "debate@train", "debate@test", "controls@test", "evaluate",
        *(f"distill@{s}-{m}" for s in students for m in params["methods"]),
        *(f"reward_model@{s}" for s in students), *(f"policy@{s}" for s in students),
    }  # fmt: skip
    table = stages.table(rows, params, "H200")
    total = table.iloc[-1]
    assert total["tokens_read"] == rows["tokens_read"].sum()
    assert total["hours"] == pytest.approx(rows["hours"].sum())
    assert total["memory_gb"] == rows["memory_gb"].max()
    assert set(table["basis"]) == {"assumed"} and set(table["hours_of"]) == {"H200"}


def test_each_failed_check_states_what_to_do():
    params = full()
    params["students"] = ["llama3-8b", "nothing"]
    params["checkpoints"] |= {"llama3-8b": {"source": "meta-llama/Meta-Llama-3-8B-Instruct"}}
    params["policy"] = params["policy"] | {"lora_rank": 0}
    rows = assumed(full() | {"policy": params["policy"]})[2]
    found = {c.what: c for c in checks.checks(params, rows, "H200")}
    assert found["licence of llama3-8b"].verdict == "not known"
    assert "accept it on the hub, at meta-llama" in found["licence of llama3-8b"].note
    assert found["licence of qwen3-32b"].verdict == "ok"
    assert found["model nothing"].verdict == "not ok" and "licence of nothing" not in found
    assert found["data set qmsum"].verdict == "not ok" and "questions.local" in found["data set qmsum"].note
    assert found["GPU memory"].verdict == "not ok" and "LoRA" in found["GPU memory"].note
    lines = checks.lines(list(found.values())).splitlines()
    assert len(lines) == len(found) and all(" ok  " in line or "not known  " in line for line in lines)


@pytest.mark.parametrize(("need", "verdict"), [(1e-6, "ok"), (1e9, "not ok")])
def test_disk_and_memory_are_compared_with_this_machine(need, verdict):
    row = pd.DataFrame([("evaluate", 1, 1, 1, 1, 1.0, need, need, "measured")], columns=stages.COLUMNS)
    found = {c.what: c.verdict for c in checks.checks(parameters.parameters("mini"), row, "H200")}
    assert (found["disk"], found["memory"]) == (verdict, verdict)
    unknown = row.assign(memory_gb=float("nan"))
    assert checks.memory_check(parameters.parameters("mini"), unknown, "H200").verdict == "not known"


def test_student_breaks_even_at_its_cost_over_its_savings_per_question():
    assert cost.break_even(100, 3, 1) == 50
    assert cost.break_even(100, 1, 1) == float("inf")
    params = full()
    rates, _, rows = assumed(params)
    paid = stages.break_even_rows(params, rows, rates).iloc[0]
    spent, saved = paid["debates"] + paid["training"], paid["debate_a_question"] - paid["student_a_question"]
    assert paid["pays_after"] * saved == pytest.approx(spent)
    hours = rows.set_index("stage").loc["distill@qwen3-8b-sft", "hours"]
    assert paid["training"] == pytest.approx(hours * 3600 / len(params["seeds"]))


def test_the_papers_students_break_even_after_more_questions_than_in_training():
    table = stages.paper("H100")
    assert sum(stages.PAPER_QUESTIONS.values()) == 341_973
    assert (table["pays_after"] > 341_973).all()
    assert table.set_index(["replies", "method"]).loc[("high", "rsft"), "calls"] == 5 * 3 + 1
    assert table.groupby("replies")["pays_after"].apply(lambda x: x.is_monotonic_increasing).all()  # rsft, da, pad


def test_unknown_scale_is_refused():
    with pytest.raises(StudyError, match="no scale 'huge'"):
        parameters.parameters("huge")


@pytest.mark.parametrize("name", sizes.QUESTIONS)
def test_lengths_of_questions_match_real_files(name):
    file, split = FILES[name]
    loaded = load(name, shared_data() / file, split).questions
    assert sizes.QUESTIONS[name][0] == pytest.approx(sum(len(q.text) for q in loaded) / len(loaded), abs=0.06)


@pytest.mark.parametrize("name", ["low", "mid"])
def test_lengths_of_replies_match_real_debates(name):
    debates = json.loads((shared_data() / "debate" / f"{sizes.REPLIES[name].log}.json").read_text())
    lengths = [
        [len(m["content"]) for m in agent if m["role"] == "assistant"]
        for agents, _ in debates.values()
        for agent in agents
    ]
    for round_index, characters in enumerate(sizes.REPLIES[name].characters):
        assert characters == pytest.approx(sum(own[round_index] for own in lengths) / len(lengths), abs=0.06)


def compare(planned: pd.DataFrame, used: dict[str, tuple[int, int]]) -> pd.Series:
    """Planned tokens over used tokens, by stage and in total. Asserts that plan and run have the same questions."""
    plan = planned.set_index("stage").loc[[*used]]
    assert plan["questions"].to_dict() == {stage: questions for stage, (questions, _) in used.items()}
    tokens = pd.DataFrame(used, index=["questions", "used"]).T.assign(
        planned=plan["tokens_read"] + plan["tokens_written"]
    )
    tokens.loc["total"] = tokens.sum()
    return tokens["planned"] / tokens["used"]


def test_plan_is_compared_with_the_run_stage_by_stage():
    rows = [("debate@train", 4, 80, 10), ("evaluate", 2, 30, 30), ("total", 0, 110, 40)]
    planned = pd.DataFrame(rows, columns=["stage", "questions", "tokens_read", "tokens_written"])
    ratios = compare(planned, {"debate@train": (4, 100), "evaluate": (2, 50)})
    assert ratios.to_dict() == {"debate@train": 0.9, "evaluate": 1.2, "total": 1.0}
    with pytest.raises(AssertionError):
        compare(planned, {"debate@train": (5, 100)})
    with pytest.raises(KeyError, match="debate@hard"):
        compare(planned, {"debate@hard": (4, 100)})


def test_plan_of_the_small_study_is_close_to_the_tokens_it_used(copied, monkeypatch):
    planned = stage(copied, "choices/plan", "pilot_main=32", "pilot_other=8")
    assert "debate@hard" in planned.stdout and "licence of teacher" in planned.stdout
    monkeypatch.chdir(copied)
    table = pd.read_csv("reports/plan.csv")
    assert set(table["scale"]) == {"mini"}
    ratios = compare(table, cost.used(parameters.read_params(copied / "params.yaml")))
    assert len(ratios) == 9 and abs(ratios["total"] - 1) <= TOLERANCE

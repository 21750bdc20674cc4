"""Costs paid once, cost per answer, and the break-even point."""

import json
import math
import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentark import schemas
from agentark.evaluate import cost
from agentark.stage.run import recording_usage

FIXED = dict(study="cost", teacher="t", train_task="word", test_task="", tokens_per_question=0.0)
STAGES = cost.trainings(["s"], ["sft", "rsft"])
USED = {"debate@train": (10, 100), "distill@s-sft": (10, 20), "distill@s-rsft": (10, 60),
        "reward_model@s": (10, 300), "policy@s": (10, 90)}  # fmt: skip


def write_records(folder, **seconds):
    for name, value in seconds.items():
        (folder / f"{name}.json").write_text(json.dumps({"core_seconds": value}))


def once_rows(folder, debates=50.0):
    write_records(folder, **{"05_distill-s-sft": 4.0, "06_reward_model-s": 6.0, "07_policy-s-pad": 2.0})
    return cost.one_off_rows(USED, debates, STAGES, 2, folder, "core_seconds", FIXED)


def predictions(debate, vote, student):
    rows = [
        dict(setting="test", question_id=f"q{i}", method=m, student=s, tokens=t)
        for m, s, each in (
            ("debate", "", debate),
            ("vote", "", vote),
            *((m, "s", student) for m in ("sft", "rsft", "pad")),
        )
        for i, t in enumerate(each)
    ]
    return pd.DataFrame(rows)


def test_training_cost_sums_its_stages_and_an_untimed_stage_leaves_no_seconds(tmp_path):
    values = {(r.part or r.setting, r.method, r.metric): r.value for r in once_rows(tmp_path)}
    assert values["once", "debate", "tokens"] == 100 and values["once", "debate", "seconds"] == 50
    assert values["once", "pad", "tokens"] == (300 + 90) / 2 and values["once", "pad", "seconds"] == (6 + 2) / 2
    assert values["reward_model", "pad", "tokens"] == 150 and values["once", "sft", "seconds"] == 2
    assert values["once", "rsft", "tokens"] == 30 and ("once", "rsft", "seconds") not in values


@given(st.lists(st.tuples(st.integers(20, 99), st.integers(1, 15)), min_size=3, max_size=9))
def test_break_even_is_the_cost_paid_once_divided_by_the_savings_per_question(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("runs")
    debate, student = zip(*pairs, strict=True)
    answers = predictions(debate, [0] * len(pairs), student)
    teacher = pd.DataFrame({m: [0.5] * len(pairs) for m in schemas.RIVALS})
    systems = answers[["method", "student"]].drop_duplicates().itertuples(index=False)
    seconds = pd.DataFrame([dict(setting="test", method=m, student=s, seconds_per_question=0.1) for m, s in systems])
    rows = once_rows(folder)
    rows += cost.answering(answers, teacher, seconds, FIXED)
    break_even = {(r.method, r.baseline, r.metric): r for r in cost.break_even_rows(rows, answers, teacher, FIXED)}
    saved = (sum(debate) - sum(student)) / len(pairs)
    assert break_even["rsft", "debate", "tokens"].value == pytest.approx((100 + 30) / saved)
    assert break_even["sft", "debate", "tokens"].value == pytest.approx(10 / saved)  # SFT needs no debates
    assert break_even["pad", "debate", "seconds"].value == pytest.approx((50 + 4) / 0.4)
    assert math.isinf(break_even["rsft", "vote", "tokens"].value)  # the vote costs nothing here
    for r in break_even.values():
        assert r.lo <= r.value * (1 + 1e-9) and r.value <= r.hi * (1 + 1e-9)


BUSY = "import time\nwhile time.process_time() < {}: pass\nprint(flush=True)\ntime.sleep({})"


def test_recorded_processor_time_excludes_children_started_earlier(tmp_path):
    with subprocess.Popen([sys.executable, "-c", BUSY.format(3, 60)], stdout=subprocess.PIPE) as earlier:
        earlier.stdout.readline()
        with recording_usage(tmp_path / "note.json"):
            subprocess.run([sys.executable, "-c", BUSY.format(1.2, 2)], check=True)
        earlier.terminate()
    record = json.loads((tmp_path / "note.json").read_text())
    assert 1.1 < record["core_seconds"] < 3

"""What was paid once and with every answer, and when that is paid back."""

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
from agentark.stage.run import watched

FIXED = dict(study="cost", teacher="t", train_task="word", test_task="", tokens_per_question=0.0)
STAGES = cost.trainings(["s"], ["sft", "rsft"])
USED = {"debate@train": (10, 100), "distill@s-sft": (10, 20), "distill@s-rsft": (10, 60),
        "reward_model@s": (10, 300), "policy@s": (10, 90)}  # fmt: skip


def note(folder, **seconds):
    for name, value in seconds.items():
        (folder / f"{name}.json").write_text(json.dumps({"core_seconds": value}))


def rows(folder, debates=50.0):
    note(folder, **{"05_distill-s-sft": 4.0, "06_reward_model-s": 6.0, "07_policy-s-pad": 2.0})
    return cost.once(USED, debates, STAGES, 2, folder, "core_seconds", FIXED)


def answered(debate, vote, student):
    made = [
        dict(setting="test", question_id=f"q{i}", method=m, student=s, tokens=t)
        for m, s, each in (
            ("debate", "", debate),
            ("vote", "", vote),
            *((m, "s", student) for m in ("sft", "rsft", "pad")),
        )
        for i, t in enumerate(each)
    ]
    return pd.DataFrame(made)


def test_a_seed_s_training_is_its_stages_and_what_was_not_timed_has_no_seconds(tmp_path):
    found = {(r.part or r.setting, r.method, r.metric): r.value for r in rows(tmp_path)}
    assert found["once", "debate", "tokens"] == 100 and found["once", "debate", "seconds"] == 50
    assert found["once", "pad", "tokens"] == (300 + 90) / 2 and found["once", "pad", "seconds"] == (6 + 2) / 2
    assert found["reward_model", "pad", "tokens"] == 150 and found["once", "sft", "seconds"] == 2
    assert found["once", "rsft", "tokens"] == 30 and ("once", "rsft", "seconds") not in found


@given(st.lists(st.tuples(st.integers(20, 99), st.integers(1, 15)), min_size=3, max_size=9))
def test_paid_back_is_once_over_the_difference_a_question(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("runs")
    debate, student = zip(*pairs, strict=True)
    asked = answered(debate, [0] * len(pairs), student)
    teacher = pd.DataFrame({m: [0.5] * len(pairs) for m in schemas.RIVALS})
    took = pd.DataFrame([dict(setting="test", method=m, student=s, seconds_per_question=0.1)
                         for m, s in asked[["method", "student"]].drop_duplicates().itertuples(index=False)])  # fmt: skip
    known = rows(folder)
    known += cost.answering(asked, teacher, took, FIXED)
    paid = {(r.method, r.baseline, r.metric): r for r in cost.paid_back(known, asked, teacher, FIXED)}
    saved = (sum(debate) - sum(student)) / len(pairs)
    assert paid["rsft", "debate", "tokens"].value == pytest.approx((100 + 30) / saved)
    assert paid["sft", "debate", "tokens"].value == pytest.approx(10 / saved)  # it needs no debate
    assert paid["pad", "debate", "seconds"].value == pytest.approx((50 + 4) / 0.4)
    assert math.isinf(paid["rsft", "vote", "tokens"].value)  # a vote that costs nothing is never beaten
    for r in paid.values():
        assert r.lo <= r.value * (1 + 1e-9) and r.value <= r.hi * (1 + 1e-9)


BUSY = "import time\nwhile time.process_time() < {}: pass\nprint(flush=True)\ntime.sleep({})"


def test_a_notebook_notes_its_children_s_processor_time_and_no_earlier_child_s(tmp_path):
    with subprocess.Popen([sys.executable, "-c", BUSY.format(3, 60)], stdout=subprocess.PIPE) as earlier:
        earlier.stdout.readline()
        with watched(tmp_path / "note.json"):
            subprocess.run([sys.executable, "-c", BUSY.format(1.2, 2)], check=True)
        earlier.terminate()
    noted = json.loads((tmp_path / "note.json").read_text())
    assert 1.1 < noted["core_seconds"] < 3

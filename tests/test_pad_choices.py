"""Choices inside PAD told apart where they differ, and only there."""

import json

import pandas as pd
import pytest

from agentark import StudyError
from agentark.evaluate.scores import conditioned, scores
from agentark.paper import pad_choices
from agentark.schemas import Prediction, frame

QUESTIONS = 120
RIGHT = {"base": 30, "pad": 60, "mean": 20, "step": 60}  # of the questions, counted from the first


@pytest.fixture(scope="module")
def answered() -> pd.DataFrame:
    counts = dict.fromkeys([f for f in Prediction.model_fields if f.startswith(("steps_", "errors"))], 1)
    common = dict(task="equation", setting="credit", student="qwen3-small", text="", answer="1", tokens=10, calls=1)
    rows = [
        Prediction(question_id=f"q{i:03}", method=m, seed=s, correct=i < n + s, **common, **counts)
        for m, n in RIGHT.items()
        for s in ((0,) if m == "base" else (0, 1))
        for i in range(QUESTIONS)
    ]
    return conditioned(rows, {"credit": {"variant": "credit"}})


def test_a_planted_difference_is_found_and_no_other(answered):
    measured = scores(answered, "rewards", "teacher", "equation", pad_choices.baselines)
    rows = pad_choices.corrected(measured)
    found = {row.method: row.value for row in rows}
    assert found["mean"] < 1e-6 and found["step"] == 1.0
    assert pad_choices.corrected(measured) == rows
    table = frame([*measured, *rows])
    assert pad_choices.by_seed(table, "credit", "qwen3-small", "mean") == pytest.approx([-1 / 3, -1 / 3])
    least, step = pad_choices.findings(table).split("\n")
    assert "mean of steps vs. lowest step: -0.333" in least and "(worse; by seed" in least
    assert "(no difference detected; by seed" in step
    assert len(pad_choices.figure(table).axes) == 1


def test_a_study_trained_otherwise_is_refused(tmp_path):
    (tmp_path / "provenance.json").write_text(json.dumps({"parameters": {"steps": 60, "beta": 0.001}}))
    pad_choices.check_trained(tmp_path, {"steps": 60, "beta": 0.001, "per_device_batch_size": 4})
    with pytest.raises(StudyError, match=r"trained with steps 60, params.yaml has 2; run `dvc repro`"):
        pad_choices.check_trained(tmp_path, {"steps": 2, "beta": 0.001})

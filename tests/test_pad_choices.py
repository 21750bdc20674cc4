"""Comparison of the choices inside PAD: differences are detected where they exist, and only there."""

import json

import pandas as pd
import pytest

from agentark import StudyError
from agentark.evaluate.scores import scores, with_conditions
from agentark.paper import pad_choices
from agentark.schemas import Prediction, frame

QUESTIONS = 120
RIGHT = {"base": 30, "pad": 60, "mean": 20, "step": 60}  # number of questions, from the first, with a correct answer


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    counts = dict.fromkeys([f for f in Prediction.model_fields if f.startswith(("steps_", "errors"))], 1)
    common = dict(task="equation", setting="credit", student="qwen3-small", text="", answer="1", tokens=10, calls=1)
    rows = [
        Prediction(question_id=f"q{i:03}", method=m, seed=s, correct=i < n + s, **common, **counts)
        for m, n in RIGHT.items()
        for s in ((0,) if m == "base" else (0, 1))
        for i in range(QUESTIONS)
    ]
    return with_conditions(rows, {"credit": {"variant": "credit"}})


def test_planted_difference_is_detected_and_no_other(predictions):
    gains = scores(predictions, "rewards", "teacher", "equation", pad_choices.baselines)
    rows = pad_choices.corrected(gains)
    found = {row.method: row.value for row in rows}
    assert found["mean"] < 1e-6 and found["step"] == 1.0
    assert pad_choices.corrected(gains) == rows
    table = frame([*gains, *rows])
    assert pad_choices.by_seed(table, "credit", "qwen3-small", "mean") == pytest.approx([-1 / 3, -1 / 3])
    mean_line, step_line = pad_choices.findings(table).split("\n")
    assert "mean of steps vs. lowest step: -0.333" in mean_line and "(worse; by seed" in mean_line
    assert "(no difference detected; by seed" in step_line
    assert len(pad_choices.figure(table).axes) == 1


def test_student_trained_with_other_parameters_is_refused(tmp_path):
    (tmp_path / "provenance.json").write_text(json.dumps({"parameters": {"steps": 60, "beta": 0.001}}))
    pad_choices.check_trained(tmp_path, {"steps": 60, "beta": 0.001, "per_device_batch_size": 4})
    with pytest.raises(StudyError, match=r"trained with steps 60, params.yaml has 2; run `dvc repro`"):
        pad_choices.check_trained(tmp_path, {"steps": 2, "beta": 0.001})

"""A whole small study with real weights: SmolLM2 debates, is distilled from its debates, and a page shows the result."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_study import PROJECT, copy_of_project, shrunk, stage
from weights import smollm2

from agentark.schemas import Trace, read_scores, read_table

FILE = "models/smollm2.gguf"
TASK = "sums"
SMALL = {
    "students": ["smollm2"],
    "methods": ["rsft"],
    "checkpoints": {"qwen2.5-coder-0.5b": None, "smollm2": {"source": FILE}},
    "train_task": TASK,
    "agents": 2,
    "rounds": 2,
    "max_tokens": 32,
    "system": "",
    "questions": {"tasks": [f"data/{TASK}"], "train": 10, "validation": 0, "test": 10, "test_other": 0},
    "sft": {"steps": 5, "batch_size": 4, "lora_rank": 8, "save_steps": 0},
}
CONTROLS = "[greedy, self_revision, debate_off]"


def small_study(folder: Path, teacher: str) -> Path:
    """A copy of the project at scale `small_cpu`, shrunk, run from the questions to the page."""
    text = (PROJECT / "params.yaml").read_text().replace("\n<<: *mini\n", "\n<<: *small_cpu\n")
    params = shrunk(yaml.safe_load(text), SMALL) | {"teacher": teacher}
    assert params["scale"] == "small_cpu"
    copy_of_project(folder, params)
    (folder / "models").mkdir()
    shutil.copy(smollm2(), folder / FILE)
    rows = [{"question": f"What is {n} plus {m}?", "answer": n + m} for n in range(10) for m in range(n, 10)]
    (folder / "data" / TASK).mkdir()
    for split, own in (("train", rows[::2]), ("test", rows[1::2])):
        lines = "".join(json.dumps(row) + "\n" for row in own)
        (folder / "data" / TASK / f"{split}.jsonl").write_text(lines)
    stage(folder, "02_checkpoint", "name=smollm2", f"source={FILE}", "out=data/models/smollm2")
    stage(folder, "01_questions")
    for split, uses in (("train", "train"), ("test", "in_domain")):
        stage(
            folder, "03_debate", f"split={uses}", "temperature=0.5", f"controls={CONTROLS}", f"out=data/debates/{split}"
        )
    stage(folder, "04_extract")
    stage(folder, "05_distill", "student=smollm2", "method=rsft", "out=data/students/smollm2/rsft")
    stage(folder, "08_evaluate", "pad=false", "methods=[rsft]", "sources=[]")
    stage(folder, "small/keep")
    stage(folder, "small/page")
    return folder


@pytest.mark.long
@pytest.mark.parametrize("teacher", [f"llama.cpp:{FILE}", "data/models/smollm2"], ids=["llama.cpp", "transformers"])
def test_a_small_study_with_real_weights(tmp_path, teacher):
    folder = small_study(tmp_path / "study", teacher)
    traces = read_table(folder / "data/debates/train/traces.parquet", Trace)
    assert len({t.question_id for t in traces}) == 10 and {t.round for t in traces} >= {1, 2}
    scores = read_scores(folder / "reports/small/scores.csv")
    accuracy = scores[(scores["metric"] == "accuracy") & (scores["setting"] == "test")]
    assert set(accuracy["method"]) == {
        "base", "rsft", "greedy", "single", "vote", "self_revision", "debate_off", "debate"
    }  # fmt: skip
    assert (accuracy["n"] == 10).all() and accuracy["value"].max() > 0
    replies = pd.read_csv(folder / "reports/small/replies.csv")
    assert (replies["replies"] > 0).all()
    setting = json.loads((folder / "reports/small/setting.json").read_text())
    assert "SmolLM2" in json.dumps(setting["models"]) or "smollm2" in json.dumps(setting["models"])
    page = (folder / "reports/small.html").read_text(encoding="utf-8")
    assert "A debate of real language models" in page and page.count("<figure>") == 2

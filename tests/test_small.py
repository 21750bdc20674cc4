"""A complete small study with real weights: SmolLM2 debates, a student is trained on its debates, a page shows both."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_study import PROJECT, copy_of_project, shrunk, stage
from weights import smollm2

from agentark.schemas import Trace, read_scores, read_table

pytestmark = pytest.mark.long
FILE = "models/smollm2.gguf"
TASK = "sums"
SMALL = {
    "students": ["smollm2"],
    "methods": ["rsft"],
    "checkpoints": {"qwen2.5-coder-0.5b": None, "smollm2": {"source": FILE}},
    "train_task": TASK,
    "agents": 2,
    "rounds": 2,
    "max_tokens": 24,
    "system": "Reply with one short line, like 2 + 3 = 5.",
    "sources": [],
    "questions": {"tasks": [f"data/{TASK}"], "train": 10, "validation": 0, "test": 6, "test_other": 0},
    "sft": {"steps": 5, "batch_size": 4, "lora_rank": 8, "save_steps": 0},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A copy of the project at scale `small_cpu`, shrunk, with its model and its questions."""
    folder = tmp_path_factory.mktemp("small") / "study"
    text = (PROJECT / "params.yaml").read_text().replace("\n<<: *mini\n", "\n<<: *small_cpu\n")
    params = shrunk(yaml.safe_load(text), SMALL)
    params["leaderboard"]["rsft"]["small"]["settings"] |= {"training_tokens": 1500, "batch_size": 4, "save_steps": 0}
    assert params["scale"] == "small_cpu"
    copy_of_project(folder, params)
    (folder / "models").mkdir()
    shutil.copy(smollm2(), folder / FILE)
    rows = [{"question": f"What is {n} plus {m}?", "answer": n + m} for n in range(10) for m in range(n, 10)]
    (folder / "data" / TASK).mkdir()
    for split, rows_of_split in (("train", rows[::2]), ("test", rows[1::2])):
        lines = "".join(json.dumps(row) + "\n" for row in rows_of_split)
        (folder / "data" / TASK / f"{split}.jsonl").write_text(lines)
    stage(folder, "02_checkpoint", "name=smollm2", f"source={FILE}", "out=data/models/smollm2")
    stage(folder, "01_questions")
    return folder


def debate(study: Path, teacher: str) -> None:
    for split, questions, controls in (("train", "train", ""), ("test", "in_domain", "greedy")):
        options = ("temperature=0.5", f"controls=[{controls}]", f"out=data/debates/{split}")
        stage(study, "03_debate", f"teacher={teacher}", f"split={questions}", *options)


@pytest.mark.parametrize(
    "teacher", [f"llama.cpp:{FILE}", "bf16:data/models/smollm2"], ids=["llama.cpp", "transformers"]
)
def test_a_small_study_with_real_weights_writes_its_page(study, teacher):
    shutil.rmtree(study / "reports/small", ignore_errors=True)
    debate(study, teacher)
    stage(study, "04_extract")
    stage(study, "05_distill", "student=smollm2", "method=rsft", "out=data/students/smollm2/rsft")
    stage(study, "08_evaluate", f"teacher={teacher}", "pad=false", "methods=[rsft]")
    stage(study, "small/keep", f"teacher={teacher}")
    stage(study, "small/page")

    traces = read_table(study / "data/debates/train/traces.parquet", Trace)
    assert len({t.question_id for t in traces}) == 10 and {t.round for t in traces} >= {1, 2}
    scores = read_scores(study / "reports/small/scores.csv")
    accuracy = scores[(scores["metric"] == "accuracy") & (scores["setting"] == "test")]
    assert set(accuracy["method"]) == {"base", "rsft", "greedy", "single", "vote", "debate"}
    assert (accuracy["n"] == 6).all() and accuracy["value"].max() > 0
    assert (pd.read_csv(study / "reports/small/replies.csv")["replies"] > 0).all()
    setting = json.loads((study / "reports/small/setting.json").read_text())
    assert "smollm2" in json.dumps(setting["models"]).lower()
    page = (study / "reports/small.html").read_text(encoding="utf-8")
    assert "A debate of real language models" in page and page.count("<figure>") == 2
    assert "No method has been run." in page


def test_methods_of_the_leaderboard_train_on_its_debates(study):
    debate(study, "bf16:data/models/smollm2")  # read from the store if the study above has run
    stage(study, "small/given", "weights=data/models/smollm2")
    stage(study, "leaderboard/method", "setting=small", "method=rsft", "out=data/leaderboard/small/rsft")
    stage(study, "small/methods")
    board = pd.read_csv(study / "reports/small/leaderboard.csv").set_index("method")
    assert set(board.index) == {"base", "debate", "greedy", "vote", "rsft"} and (board["n"] == 6).all()
    assert board.loc["rsft", "training_tokens"] == pytest.approx(1500, rel=0.3)

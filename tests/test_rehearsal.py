"""Scale `full` end to end with only sizes and students changed: real data, real architectures, tiny weights."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from checkpoints import build
from examples import shared_data
from small_study import PROJECT, call, copy_of_project, shrunk

from agentark.distill import sft
from agentark.distill.settings import SFT
from agentark.tasks.questions import Counts, collect

FILES = {
    "gsm8k/train.jsonl": "gsm8k/train.sample.jsonl",
    "gsm8k/test.jsonl": "gsm8k/test.sample.jsonl",
    "math500/test.jsonl": "math/math500.half.jsonl",
    "medmcqa/dev.jsonl": "medmcqa/test.sample.jsonl",
    "hotpotqa/dev.json": "hotpotqa/distractor.half.json",
    "qasper/test.json": "qasper/fixture_small.json",
    "qmsum/test.jsonl": "qmsum/test.sample.jsonl",
    "truthfulqa/TruthfulQA.csv": "truthfulqa/TruthfulQA.sample.csv",
}
TEACHER = "gemma3-27b"
pytestmark = pytest.mark.long
STUDENTS = {"qwen3-0.6b": "qwen3", "qwen2.5-vl-3b": "qwen2.5-vl"}  # test_training.py covers the other families
SIZES = {
    "scale": "rehearsal",
    "teacher": f"data/models/{TEACHER}",  # with transformers; vLLM has its own tests
    "engine": "",
    "students": list(STUDENTS),
    "seeds": [0],
    "methods": ["rsft"],
    "sources": ["debate_off"],
    "debates": {
        "train": {"split": "train", "temperature": 0.5, "controls": "[debate_off]"},
        "test": {"split": "in_domain", "temperature": 0.5, "controls": "[self_revision, debate_off]"},
    },
    "agents": 3,
    "rounds": 2,
    "max_tokens": 32,
    "questions": {"train": 12, "validation": 2, "test": 8, "test_other": 2, "room": 800, "local": "published"},
    "sft": {"steps": 2, "batch_size": 4, "lora_rank": 4},
    "reward_model": {"stage_1_steps": 1, "stage_2_steps": 1, "batch_size": 2, "lora_rank": 4},
    "policy": {
        "steps": 1,
        "batch_size": 2,
        "num_generations": 2,
        "lora_rank": 4,
        "generator": "transformers",
        "held_out": 4,
        "eval_steps": 1,
    },
}


def train_teacher(folder: Path, base: Path, local: Path) -> None:
    """Train a teacher on some of the answers: without any correct answer there is nothing to distill."""
    sizes = SIZES["questions"]
    counts = Counts(sizes["train"], sizes["validation"], sizes["test"], sizes["test_other"], test_hard=0)
    questions = collect(["gsm8k"], "gsm8k", counts, 0, sizes["room"], student=base, local=local).questions
    pairs = [(q.text, f"It is 1 * {q.answer} = {q.answer}.\n\\boxed{{{q.answer}}}") for q in questions]
    sft.train(base, pairs, folder, 0, SFT(steps=400, batch_size=8, learning_rate=3e-3))


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory) -> Path:
    """A copy of the project at scale `full` with small sizes, after `dvc repro`."""
    folder, data = tmp_path_factory.mktemp("rehearsal"), shared_data()
    for target, sample in FILES.items():
        (folder / "published" / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / sample, folder / "published" / target)
    for name, family in STUDENTS.items():
        build(family, folder / "checkpoints" / name)
    train_teacher(folder / "checkpoints" / TEACHER, build("gemma3", folder / "random"), folder / "published")
    sources = {name: {"source": f"checkpoints/{name}"} for name in (TEACHER, *STUDENTS)}
    full = yaml.safe_load((PROJECT / "params.yaml").read_text().replace("<<: *mini", "<<: *full"))
    copy_of_project(folder, shrunk(full, SIZES) | {"checkpoints": sources})
    print(call(folder, "dvc", "repro").stdout[-2000:])
    return folder


def test_the_report_states_that_its_numbers_mean_nothing(rehearsed):
    page = (rehearsed / "reports" / "index.html").read_text()
    assert "The numbers below mean nothing" in page and "Does communication help?" in page


def test_every_student_is_trained_with_every_method_and_tested_on_every_task(rehearsed):
    scores = pd.read_csv(rehearsed / "reports" / "scores.csv", keep_default_na=False)
    accuracy = scores[(scores["metric"] == "accuracy") & (scores["seed"] == "all")]
    tasks = {Path(name).parts[0] for name in FILES}
    for student in STUDENTS:
        own = accuracy[accuracy["student"] == student]
        assert set(own["method"]) == {"base", "rsft", "pad"}
        assert all(set(part["test_task"]) == tasks for _, part in own.groupby("method"))
    texts = scores[scores["metric"] == "rougeL"]
    assert set(texts["test_task"]) == {"hotpotqa", "qasper", "qmsum", "truthfulqa"}


def test_changes_to_the_questions_are_recorded(rehearsed):
    account = pd.read_csv(rehearsed / "data" / "questions" / "account.csv")
    assert account["what"].str.contains("documents shortened to 800 tokens").any()
    assert dict(zip(account["task"], account["n"], strict=False))["qmsum"] > 0


def test_the_card_of_a_checkpoint_has_its_number_of_weights_and_source(rehearsed):
    for name in STUDENTS:
        card = json.loads((rehearsed / "data" / "models" / name / "card.json").read_text())
        assert card["weights"] > 10_000 and card["source"] == f"checkpoints/{name}"

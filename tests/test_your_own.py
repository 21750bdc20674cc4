"""The commands of docs/your-own.md, run in order in a copy of the project with real weights, produce a report."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from servers import free_port, kill, start
from small_study import PROJECT, call, copy_of_project, environment, stage
from test_docs import YOUR_OWN, blocks, commands
from weights import smollm2

from agentark import StudyError
from agentark.engines import Batch, Request, engine
from agentark.evaluate.predictions import systems
from agentark.models.checkpoints import fetched
from agentark.schemas import Trace, read_table
from agentark.tasks.datasets import load, own_data_set

EXAMPLE = PROJECT / "docs" / "my_questions"
# Not run as written: the tests use another quantisation of the file and start their own servers.
FETCH, SERVE = "hf download ", "make serve "


@pytest.fixture(scope="module")
def completed(tmp_path_factory) -> Path:
    file, folder = smollm2(), copy_of_project(tmp_path_factory.mktemp("mine"))
    for command in commands([YOUR_OWN]):
        if command.startswith(FETCH):
            _, _, _, name, _, target = command.split()
            (folder / target).mkdir()
            shutil.copy(file, folder / target / name)
        elif not command.startswith(SERVE):
            call(folder, *command.replace("python", sys.executable, 1).split())
    for code in blocks(YOUR_OWN, "python"):
        subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment(folder), check=True)
    return folder


@pytest.mark.long
def test_the_commands_of_the_page_produce_a_report(completed):
    page = (completed / "reports" / "mine" / "index.html").read_text(encoding="utf-8")
    assert "What a student learned from a debate on my questions" in page and "Of 0 tasks" not in page
    assert "R-SFT" in page and "smollm2" in page and page.count("<figure>") == 5
    scores = pd.read_csv(completed / "reports" / "mine" / "scores.csv", keep_default_na=False)
    assert {"base", "rsft", "greedy", "single", "vote", "debate"} == set(scores["method"])
    notebooks = [file.name for file in (completed / "data" / "runs").glob("*.ipynb")]
    pages = [f"reports/notebooks/{Path(name).stem}.html" for name in notebooks]
    ignored = call(completed, "git", "check-ignore", "data/mine/x", "reports/mine/x", *pages).stdout.splitlines()
    assert len(ignored) == len(pages) + 2 and len(notebooks) == 8


@pytest.mark.long
def test_the_merged_student_and_its_adapter_give_the_same_replies(completed):
    mine = completed / "data" / "mine"
    requests = [Request([{"role": "user", "content": f"What is {n} plus {n}?"}], 0.0, 4, 0) for n in range(3)]
    names = (f"{mine}/student.gguf", f"{mine}/smollm2.gguf+{mine}/adapter.gguf")
    texts = [
        [reply.text for _, (reply,) in engine(f"llama.cpp:{name}").run([Batch([r], 0) for r in requests])]
        for name in names
    ]
    assert sum(one == other for one, other in zip(*texts, strict=True)) >= 2


@pytest.mark.long
def test_the_debate_runs_with_the_local_server_of_the_page(completed):
    (debate,) = (c for c in commands([YOUR_OWN]) if "03_debate" in c and "split=test" in c)
    process, teacher = start(completed / "data" / "mine" / "models" / "smollm2", free_port())
    try:
        debate = debate.replace("llama.cpp:data/mine/smollm2.gguf", teacher).replace("debates/test", "debates/served")
        call(completed, *debate.replace("python", sys.executable, 1).split())
    finally:
        kill(process)
    traces = read_table(completed / "data" / "mine" / "debates" / "served" / "traces.parquet", Trace)
    assert len({trace.question_id for trace in traces}) == 3 and all(trace.text for trace in traces)


def test_the_rows_on_the_page_are_in_the_example():
    (shown,) = blocks(YOUR_OWN, "json")
    rows = [json.loads(line) for line in (EXAMPLE / "train.jsonl").read_text().splitlines()]
    assert all(json.loads(line) in rows for line in shown.splitlines())
    assert {q.kind for q in load(own_data_set("docs/my_questions", {}), split="train").questions} == {
        "number", "text", "choice"
    }  # fmt: skip


def test_questions_are_found_from_the_folder_of_a_notebook(monkeypatch):
    monkeypatch.chdir(PROJECT / "notebooks")
    assert len(load(own_data_set("docs/my_questions", {}), split="test").questions) == 8


def test_a_missing_file_or_student_is_reported(tmp_path):
    with pytest.raises(StudyError, match=r"none\.gguf: no such GGUF file; download it, or correct the name"):
        fetched("data/none.gguf", "main", tmp_path / "out")
    with pytest.raises(StudyError, match=r"mine/pad/seed-0: no such student; .* pad"):
        systems("teacher", ["mine"], ["pad"], [0], "", Path("data/models"), tmp_path)


def test_questions_of_another_task_and_too_few_questions_are_reported(tmp_path):
    folder = copy_of_project(tmp_path / "study")
    stage(folder, "01_questions", "tasks=[docs/my_questions]", "train_task=my_questions", "train=2", "validation=0",
          "test=2", "room=1000", "out=data/mine/questions")  # fmt: skip
    done = stage(folder, "03_debate", "questions=data/mine/questions", "out=data/mine/debates/train", check=False)
    assert "has no questions of train_task 'equation', only of my_questions" in done.stderr
    done = stage(folder, "01_questions", "tasks=[docs/my_questions]", "train_task=my_questions", "room=1000",
                 "out=data/mine/more", check=False)  # fmt: skip
    assert "questions in train, not 40; lower questions.train" in done.stderr

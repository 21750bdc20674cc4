"""A stage may replace the outputs of the same notebook and nothing else."""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from small_study import PROJECT

from agentark import StudyError
from agentark.files import staged
from agentark.stage.outputs import NOTEBOOK, PIPELINES, label, outputs, places
from agentark.stage.parameters import declared

PIPELINE = """
stages:
  questions:
    cmd: python -m agentark.stage 01_questions
    outs:
      - data/questions: {persist: true}
  report:
    cmd: python -m agentark.stage 10_report
    outs: [reports/index.html]
    metrics:
      - reports/summary.json: {cache: false}
  debate:
    foreach: [train, test]
    do:
      cmd: python -m agentark.stage 03_debate split=${item}
      outs: ["data/debates/${item}"]
"""
LOCK = """
stages:
  debate@train:
    cmd: python -m agentark.stage 03_debate split=train
    outs:
    - path: data/debates/train
"""


@pytest.fixture
def top(tmp_path):
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "dvc.lock").write_text(LOCK)
    for file in ("data/questions/q", "data/debates/train/t", "data/students/mine/weights", "data/models/own/weights",
                 "reports/index.html", "reports/summary.json", "data/store/aa/x.json", "notebooks/n.ipynb", "README.md"):  # fmt: skip
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("hours of work")
    (tmp_path / "data/empty").mkdir()
    return tmp_path


def output_paths(top, notebook, **named):
    return places(top, notebook, named)


def write_record(top, record, *outs):
    (top / "data/runs").mkdir(exist_ok=True)
    (top / f"data/runs/{record}.json").write_text(json.dumps({"outs": outs}))


@pytest.mark.parametrize(
    ("notebook", "out"),
    [("01_questions", "data/questions"), ("01_questions", "data/questions/"), ("01_questions", "data/other/../questions"),
     ("01_questions", "data/new"), ("05_distill", "data/students/qwen/try"), ("01_questions", "data/empty"),
     ("03_debate", "data/debates/train"), ("03_debate", "data/debates/new"), ("10_report", "reports/index.html"),
     ("10_report", "reports/summary.json"), ("10_report", "reports/new.csv")],
)  # fmt: skip
def test_a_notebook_may_write_its_own_outputs_and_new_paths(top, notebook, out):
    assert output_paths(top, notebook, out=out)["out"].relative_to(top).parts[0] in ("data", "reports")


@pytest.mark.parametrize(
    "out",
    ["", " ", ".", "./", "/", "data", "data/", "reports", "data/..", "../elsewhere/x", "data/../../x", "/tmp/x/y", "notebooks",
     "notebooks/n.ipynb", "README.md", "agentark/x", ".git/x", ".dvc/cache", "data/store", "data/store/aa", "data/runs/x",
     "data/students", "data/models", "data/models/own", "data/students/mine", "data/debates", "data/debates/train",
     "data/debates/train/deeper", "data/questions/deeper", "reports/index.html", "reports/notebooks", "data/published/x",
     " data/new", "~/x", "data/./", "tests/x"],
)  # fmt: skip
def test_every_other_path_is_refused_in_one_line_and_left_unchanged(top, out):
    before = {p: p.read_bytes() for p in top.rglob("*") if p.is_file()}
    with pytest.raises(StudyError) as error:
        output_paths(top, "02_base_models", out=out)
    assert "\n" not in str(error.value) and "out=" in str(error.value)
    assert before == {p: p.read_bytes() for p in top.rglob("*") if p.is_file()}


def test_an_absolute_path_inside_the_project_is_allowed(top):
    assert output_paths(top, "01_questions", out=str(top / "data/new"))["out"] == top / "data/new"


@pytest.mark.parametrize(("first", "second"), [("data/a", "data/a"), ("data/a", "data/a/b"), ("data/a/b", "data/a")])
def test_overlapping_outputs_are_refused(top, first, second):
    with pytest.raises(StudyError, match="overlap"):
        output_paths(top, "02_base_models", out=first, out_scores=second)


def test_a_run_record_allows_its_notebook_to_replace_the_output(top):
    record = top / "data/runs/05_distill-x.json"
    record.parent.mkdir()
    for content in ("", "[]", "{}", '{"outs": 3}', '{"outs": [3]}', json.dumps({"outs": ["data/other"]})):
        record.write_text(content)
        with pytest.raises(StudyError, match="exists and is not an output of this notebook"):
            output_paths(top, "05_distill", out="data/students/mine")
    record.write_text(json.dumps({"outs": ["data/students/mine"]}))
    assert output_paths(top, "05_distill", out="data/students/mine")
    with pytest.raises(StudyError, match="exists and is not an output of this notebook"):
        output_paths(top, "06_reward_model", out="data/students/mine")


@pytest.mark.parametrize(
    ("notebook", "out"),
    [("05_distill", "data/students"), ("02_checkpoint", "data/models"), ("03_debate", "data/debates"),
     ("01_questions", "data/students"), ("01_questions", "data/grid"), ("02_checkpoint", "data/checkpoints"),
     ("02_checkpoint", "data/ablations"), ("05_distill", "data/students/qwen3-small")],
)  # fmt: skip
def test_a_folder_above_outputs_of_stages_is_refused_before_they_exist(tmp_path, notebook, out):
    for file in ("dvc.yaml", "notebooks/grid/dvc.yaml"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / file, tmp_path / file)
    with pytest.raises(StudyError, match=r"would replace data/|is shared by all stages"):
        output_paths(tmp_path, notebook, out=out)


def test_an_own_output_that_contains_the_output_of_another_run_is_refused(top):
    (top / "data/own/a").mkdir(parents=True)
    (top / "data/own/a/x").write_text("x")
    write_record(top, "05_distill--own", "data/own")
    assert output_paths(top, "05_distill", out="data/own")
    for record in ("06_reward_model--own--a", "05_distill--own--a"):
        write_record(top, record, "data/own/a")
        with pytest.raises(StudyError, match="would replace data/own/a, an output of 0"):
            output_paths(top, "05_distill", out="data/own")
        (top / f"data/runs/{record}.json").unlink()
    write_record(top, "05_distill--own--b", "data/own/b")  # which no longer exists
    assert output_paths(top, "05_distill", out="data/own")


@pytest.mark.parametrize("content", ["", "stages: 3", "stages: {a: 3}", "\t", "[]"])
def test_damaged_dvc_files_do_not_allow_a_replacement(top, content):
    for file in ("dvc.yaml", "dvc.lock"):
        (top / file).write_text(content)
    with pytest.raises(StudyError):
        output_paths(top, "01_questions", out="data/questions")


def test_the_previous_output_is_restored_after_a_kill_between_two_moves(tmp_path):
    path = tmp_path / "models"
    (tmp_path / ".old-models").mkdir()
    (tmp_path / ".old-models/weights").write_text("good")
    with pytest.raises(RuntimeError), staged([path]):
        raise RuntimeError
    assert (path / "weights").read_text() == "good"


def test_a_failed_move_restores_the_previous_output(tmp_path, monkeypatch):
    path = tmp_path / "scores.csv"
    path.write_text("good")
    rename = type(path).rename

    def failing_rename(self, target):
        if self.name.startswith(".partial"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(type(path), "rename", failing_rename)
    with pytest.raises(OSError), staged([path]) as (partial,):
        partial.write_text("new")
    assert path.read_text() == "good" and [p.name for p in tmp_path.iterdir()] == ["scores.csv"]


def test_a_default_path_may_be_replaced_unless_it_contains_other_outputs(top):
    # tables in git, of notebooks without a DVC stage: `make plan` in a fresh clone
    def paths_with_default(notebook, out, default):
        return places(top, notebook, {"out": out}, [default])

    (top / "reports/plan.csv").write_text("in git")
    assert paths_with_default("plan", "reports/plan.csv", "reports/plan.csv")
    assert paths_with_default("plan", "reports/plan.csv", "reports/./plan.csv")
    for out in ("reports/index.html", "data/debates", "data/students/mine"):
        with pytest.raises(StudyError, match="exists and is not an output"):
            paths_with_default("plan", out, "reports/plan.csv")
    for out in ("data/debates", "data/questions", "reports/index.html"):
        with pytest.raises(StudyError, match="exists and is not an output"):
            paths_with_default("plan", out, out)


def test_each_trial_has_its_own_page(top):
    trials = ("data/t2", "data/x/a", "data/y/a", "reports/t2", "data/debates/train-2", "data/train", "data/debates/a/b")
    labels = [label(top, "03_debate", out, "data/debates/train") for out in (*trials, "data/debates/train")]
    assert len(set(labels)) == len(labels) and labels[-1] == "03_debate-train" and labels[0] == "03_debate--t2"
    assert label(top, "03_debate", f"{top}/data/t2/", "data/debates/train") == "03_debate--t2"


def test_pages_of_stages_are_named_after_their_runs():
    for outs, name in outputs_of_stages():
        assert {out for out in outs if "notebooks/" in out} <= {f"reports/notebooks/{name}.html"}


def outputs_of_stages():
    """The outputs of each stage in DVC's files, and the label of its run."""
    for pipeline in PIPELINES:
        for suffix in (".yaml", ".lock"):
            file = PROJECT / f"{pipeline}{suffix}"
            for stage in (yaml.safe_load(file.read_text())["stages"] if file.is_file() else {}).values():
                stage = stage.get("do", stage)
                notebook = NOTEBOOK.search(stage["cmd"])[1]
                outs = {k: default for k, (_, default) in declared(PROJECT / f"notebooks/{notebook}.ipynb").items()}
                default_out = next(default for k, default in outs.items() if k == "out" or k.startswith("out_"))
                given = re.search(r" out=(\S+)", stage["cmd"])
                yield list(outputs(stage)), label(PROJECT, notebook, given[1] if given else default_out, default_out)


def test_git_ignores_pages_of_trials_but_not_of_stages():
    def ignored(names):
        command = ["git", "check-ignore", "--no-index", *(f"reports/notebooks/{name}.html" for name in names)]
        return len(subprocess.run(command, cwd=PROJECT, capture_output=True, text=True).stdout.splitlines())

    tracked = subprocess.run(
        ["git", "ls-files", "reports/notebooks"], cwd=PROJECT, capture_output=True, text=True
    ).stdout.split()
    assert tracked and ignored(name.split("/")[-1].removesuffix(".html") for name in tracked) == 0
    trials = ["01_questions--t2", "leaderboard-method--leaderboard--small--rsft", "03_debate-try", "grid-cell-cells-a-b-c",
              "01_questions-questions-word", "02_base_models-models-qwen3-64"]  # fmt: skip
    assert ignored(trials) == len(trials)

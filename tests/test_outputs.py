"""What a stage may replace: what the same notebook made, and nothing else."""

import json

import pytest

from agentark import StudyError
from agentark.files import staged
from agentark.stage.outputs import places

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


def ask(top, notebook, **named):
    return places(top, notebook, named, top / "data/runs/record.json")


@pytest.mark.parametrize(
    ("notebook", "out"),
    [("01_questions", "data/questions"), ("01_questions", "data/questions/"), ("01_questions", "data/other/../questions"),
     ("01_questions", "data/new"), ("05_distill", "data/students/qwen/try"), ("01_questions", "data/empty"),
     ("03_debate", "data/debates/train"), ("03_debate", "data/debates/new"), ("10_report", "reports/index.html"),
     ("10_report", "reports/summary.json"), ("10_report", "reports/new.csv")],
)  # fmt: skip
def test_its_own_outputs_and_new_places_are_allowed(top, notebook, out):
    assert ask(top, notebook, out=out)["out"].relative_to(top).parts[0] in ("data", "reports")


@pytest.mark.parametrize(
    "out",
    ["", " ", ".", "./", "/", "data", "data/", "reports", "data/..", "../elsewhere/x", "data/../../x", "/tmp/x/y", "notebooks",
     "notebooks/n.ipynb", "README.md", "agentark/x", ".git/x", ".dvc/cache", "data/store", "data/store/aa", "data/runs/x",
     "data/students", "data/models", "data/models/own", "data/students/mine", "data/debates", "data/debates/train",
     "data/debates/train/deeper", "data/questions/deeper", "reports/index.html", "reports/notebooks", "data/published/x",
     " data/new", "~/x", "data/./", "tests/x"],
)  # fmt: skip
def test_every_other_place_is_refused_in_one_line_and_left_alone(top, out):
    before = {p: p.read_bytes() for p in top.rglob("*") if p.is_file()}
    with pytest.raises(StudyError) as error:
        ask(top, "02_base_models", out=out)
    assert "\n" not in str(error.value) and "out=" in str(error.value)
    assert before == {p: p.read_bytes() for p in top.rglob("*") if p.is_file()}


def test_an_absolute_path_inside_is_as_good_as_a_relative_one(top):
    assert ask(top, "01_questions", out=str(top / "data/new"))["out"] == top / "data/new"


@pytest.mark.parametrize(("first", "second"), [("data/a", "data/a"), ("data/a", "data/a/b"), ("data/a/b", "data/a")])
def test_outputs_must_not_lie_in_one_another(top, first, second):
    with pytest.raises(StudyError, match="overlap"):
        ask(top, "02_base_models", out=first, out_scores=second)


def test_a_record_of_the_last_run_allows_to_replace_what_it_made(top):
    record = top / "data/runs/record.json"
    record.parent.mkdir()
    for content in ("", "[]", "{}", json.dumps({"outs": ["data/other"]})):
        record.write_text(content)
        with pytest.raises(StudyError, match="exists and is not an output of this notebook"):
            ask(top, "05_distill", out="data/students/mine")
    record.write_text(json.dumps({"outs": ["data/students/mine"]}))
    assert ask(top, "05_distill", out="data/students/mine")


@pytest.mark.parametrize("content", ["", "stages: 3", "stages: {a: 3}", "\t", "[]"])
def test_a_damaged_pipeline_allows_nothing_more(top, content):
    for file in ("dvc.yaml", "dvc.lock"):
        (top / file).write_text(content)
    with pytest.raises(StudyError):
        ask(top, "01_questions", out="data/questions")


def test_a_run_killed_between_its_two_moves_loses_nothing(tmp_path):
    path = tmp_path / "models"
    (tmp_path / ".old-models").mkdir()
    (tmp_path / ".old-models/weights").write_text("good")
    with pytest.raises(RuntimeError), staged([path]):
        raise RuntimeError
    assert (path / "weights").read_text() == "good"


def test_a_move_that_fails_restores_the_earlier_output(tmp_path, monkeypatch):
    path = tmp_path / "scores.csv"
    path.write_text("good")
    rename = type(path).rename

    def fails(self, target):
        if self.name.startswith(".partial"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(type(path), "rename", fails)
    with pytest.raises(OSError), staged([path]) as (stand_in,):
        stand_in.write_text("new")
    assert path.read_text() == "good" and [p.name for p in tmp_path.iterdir()] == ["scores.csv"]


def test_the_place_that_a_notebook_names_itself_is_its_own_unless_it_holds_what_others_made(top):
    # tables in git of notebooks that are no DVC stages: `make plan` on a fresh clone
    def ask_usual(notebook, out, usual):
        return places(top, notebook, {"out": out}, top / "data/runs/record.json", [usual])

    (top / "reports/plan.csv").write_text("in git")
    assert ask_usual("plan", "reports/plan.csv", "reports/plan.csv")
    assert ask_usual("plan", "reports/plan.csv", "reports/./plan.csv")
    for out in ("reports/index.html", "data/debates", "data/students/mine"):
        with pytest.raises(StudyError, match="exists and is not an output"):
            ask_usual("plan", out, "reports/plan.csv")
    for out in ("data/debates", "data/questions", "reports/index.html"):
        with pytest.raises(StudyError, match="exists and is not an output"):
            ask_usual("plan", out, out)

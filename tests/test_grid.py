"""The grid: what is pooled is what the cells hold, gains are paired, and its watcher tells how far it is."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import product

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import yaml
from small_study import PROJECT, call, copy_of_project, digests, environment, shrunk

from agentark.paper import experiments, grid
from agentark.report.charts import LABELS
from agentark.schemas import Prediction, Score, frame
from agentark.stage import pipeline

TEACHERS, STUDENTS, FAMILIES, SEEDS, N = ["t1", "t2"], ["s1", "s2"], ["word", "facts"], [0, 1], 30


def prediction(family: str, number: int, method: str, student: str, seed: int, correct: bool) -> Prediction:
    return Prediction(
        question_id=f"{family}-{number}", task=family, setting="test", method=method, student=student, seed=seed,
        text="", answer=None, correct=correct, steps_needed=1, steps_present=1, steps_written=1, steps_right=1,
        steps_grounded=1, errors=0, errors_noticed=0, errors_mended=0, tokens=10, calls=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def cells() -> dict[tuple[str, str, str], pd.DataFrame]:
    """A made-up grid: R-SFT helps in its own family alone; PAD does nothing; SFT harms wherever the teacher is t2."""
    rng = random.Random(0)
    known = {(s, f, i): rng.random() < 0.5 for s in STUDENTS for f in FAMILIES for i in range(N)}

    def right(teacher, student, trained, method, family, i):
        base = known[student, family, i]
        return {
            "rsft": base or family == trained,
            "sft": base and teacher != "t2",
        }.get(method, base)

    return {
        (t, s, trained): frame(
            prediction(f, i, m, s, seed, right(t, s, trained, m, f, i))
            for m in ("base", *grid.METHODS)
            for seed in ([0] if m == "base" else SEEDS)
            for f in FAMILIES
            for i in range(N)
        )
        for t, s, trained in product(TEACHERS, STUDENTS, FAMILIES)
    }


@pytest.fixture(scope="module")
def everything(cells) -> pd.DataFrame:
    return pd.concat([p.assign(teacher=k[0], train_task=k[2]) for k, p in cells.items()])


@pytest.fixture(scope="module")
def rows(cells) -> list[Score]:
    return grid.distinct([row for (t, _, trained), p in cells.items() for row in grid.scored(p, t, trained)])


def test_gains_are_averaged_over_cells_in_domain_and_out(everything):
    rows = {(r.domain, r.teacher, r.student, r.method): r for r in grid.pooled(everything) if r.seed == "all"}
    base = everything[everything["method"] == "base"].groupby("student")["correct"].mean()
    own = rows["in domain", "", "", "rsft"]
    assert own.value == pytest.approx(1 - base.mean()) and own.lo > 0 and own.n == N * len(FAMILIES)
    assert rows["out of domain", "", "", "rsft"].value == 0
    assert rows["in domain", "t1", "", "sft"].value == 0
    assert rows["out of domain", "t2", "", "sft"].value == pytest.approx(-base.mean())
    assert rows["in domain", "", "s1", "rsft"].value == pytest.approx(1 - base["s1"])
    assert {m for *_, m in rows} == set(grid.METHODS)
    single = {(r.domain, r.method): r.value for r in grid.pooled(everything) if r.seed == "1"}
    assert single == {
        (e, m): pytest.approx(r.value) for (e, t, s, m), r in rows.items() if t == s == ""
    }  # all seeds alike


def test_each_seed_is_set_against_the_base_alone(everything):
    lucky = (everything["method"] == "pad") & (everything["seed"] == 1)
    rows = grid.pooled(everything.assign(correct=everything["correct"] | lucky))
    of = {r.seed: r.value for r in rows if (r.domain, r.method, r.student, r.teacher) == ("in domain", "pad", "", "")}
    assert of["0"] == 0 and of["1"] > 0.3 and of["all"] == pytest.approx(of["1"] / 2)


def test_a_base_stands_in_the_table_once_and_losses_are_counted(rows, everything):
    bases = [r for r in rows if r.method == "base" and r.metric == "accuracy"]
    assert len(bases) == len(STUDENTS) * len(FAMILIES) and {r.teacher for r in bases} == {""}
    table = frame(rows)
    assert set(table["metric"]) == {"accuracy", "accuracy_gain", "step_presence"} and set(table["study"]) == {"grid"}
    counts = grid.below_base(table)
    assert counts.loc[("in domain", "rsft")].tolist() == [8, 0, 0, 8]
    assert counts.loc[("out of domain", "sft")].tolist() == [8, 4, 4, 0]
    lines = grid.findings(frame([*rows, *grid.pooled(everything)]))
    assert len(lines) == 8 and lines[1].startswith(f"{LABELS['rsft']}, in domain: +") and "in 0 of 8 gains" in lines[1]


def test_a_student_at_chance_whoever_taught_it_is_told(rows):
    assert grid.guessed(frame(rows)) == []
    right = {("t1", "s1"): 4, ("t2", "s1"): 4, ("t1", "s2"): 4, ("t2", "s2"): 2}  # one question in so many
    made = [
        row
        for (teacher, student), often in right.items()
        for row in grid.scored(
            frame(
                prediction("facts", i, m, student, 0, m == "rsft" and i % often == 0)
                for m in ("base", "rsft")
                for i in range(N)
            ),
            teacher,
            "facts",
        )
    ]
    (told,) = grid.guessed(frame(made))
    assert told.startswith("s1 answers facts at chance") and "(accuracy 0.27), although it generates 1.00 of" in told


def test_its_pictures_hold_every_cell_and_every_mean(cells, rows, everything):
    table = frame([*rows, *grid.pooled(everything)])
    drawn = experiments.cells(table)
    assert len(drawn) == len(cells) * len(grid.METHODS) * len(FAMILIES)  # no mean over cells is taken for a cell
    for figure, points, panels in (
        (experiments.grid(drawn), len(drawn), len(STUDENTS) * len(FAMILIES)),
        (experiments.averages(table), 2 * len(grid.METHODS) * (1 + len(STUDENTS) + len(TEACHERS)), 2),
    ):
        assert len(figure.axes) == panels
        marks = [line for axis in figure.axes for line, *_ in axis.containers]
        assert sum(len(line.get_xdata()) for line in marks) == points
    plt.close("all")


def test_stages_of_a_kind_run_together_and_a_bar_counts_them(monkeypatch, capsys):
    monkeypatch.setenv("AGENTARK_WORKERS", "2")
    names, started = ["debate@a", "cell@a", "cell@b", "cell@c", "scores"], []

    def repro(_pipeline: str, name: str, cores: int) -> tuple[bool, str]:
        started.append((name, cores))
        return True, ""

    assert pipeline.run("grid", names, repro)
    assert dict(started) == {"debate@a": 2, "cell@a": 1, "cell@b": 1, "cell@c": 1, "scores": 2}
    assert started[0][0] == "debate@a" and started[-1][0] == "scores"
    shown = capsys.readouterr().err
    assert "grid: 100%" in shown and "5/5" in shown and "scores" in shown


def test_nothing_starts_after_a_stage_that_fails(capsys):
    assert not pipeline.run("grid", ["base_models@nobody", "scores"])
    shown = capsys.readouterr().out
    assert shown.startswith("grid: base_models@nobody failed") and "nobody" in shown.partition("\n")[2]


SMALL = {
    "agents": 3,
    "rounds": 2,
    "seeds": [0],
    "grid_all": {"teachers": ["qwen3-teacher"], "students": ["qwen3-64"], "families": ["equation"]},
    "grid_sizes": {"train": 24, "test": 6},
    "grid_cell": {
        "sft": {"steps": 4, "batch_size": 8},
        "reward_model": {"own_samples": 2, "stage_1_steps": 1, "stage_2_steps": 2, "batch_size": 4},
        "policy": {"steps": 1, "batch_size": 2, "num_generations": 2, "held_out": 4, "eval_steps": 1},
    },
}  # fmt: skip


def test_what_a_kill_left_of_the_lock_table_does_not_stop_the_next_command(tmp_path):
    table = tmp_path / ".dvc" / "tmp" / "rwlock"
    pipeline.drop_dead_locks(tmp_path)
    table.parent.mkdir(parents=True)
    for incomplete in ("", '{"read": {'):
        table.write_text(incomplete)
        pipeline.drop_dead_locks(tmp_path)
        assert not table.exists()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    unwaited = subprocess.Popen([sys.executable, "-c", "", "dvc"])  # a zombie until wait() below
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])  # has the pid of a dead command
    dvc = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "dvc"])
    try:
        ended.wait()
        os.waitid(os.P_PID, unwaited.pid, os.WEXITED | os.WNOWAIT)
        held = [{"pid": process.pid, "cmd": "dvc repro"} for process in (ended, unwaited, other, dvc)]
        table.write_text(
            json.dumps({"write": dict(zip("abcd", held, strict=True)), "read": {"e": held, "f": held[:3]}})
        )
        pipeline.drop_dead_locks(tmp_path)
        assert json.loads(table.read_text()) == {"write": {"d": held[3]}, "read": {"e": held[3:]}}
    finally:
        unwaited.wait()
        for process in (other, dvc):
            process.kill()
            process.wait()


MODELS = {"qwen3-teacher": "teacher", "qwen3-64": "qwen3-small"}  # the study's, in the place of the grid's own


@pytest.mark.long
def test_a_grid_killed_twice_ends_in_the_same_bytes(tmp_path):
    """SIGKILL at two random moments, told by the tables there are; what was finished is not made again."""

    def tables(folder) -> int:
        return len([path for path in (folder / "data" / "grid").rglob("*.parquet") if "partial" not in str(path)])

    params = shrunk(yaml.safe_load((PROJECT / "params.yaml").read_text()), SMALL)
    params["grid_models"] = {name: params["grid_models"][name] for name in MODELS}
    whole, cut = (copy_of_project(tmp_path / name, params) for name in ("whole", "cut"))
    for folder in (whole, cut):
        (folder / "notebooks" / "grid" / "dvc.lock").unlink(missing_ok=True)
        shutil.rmtree(folder / "data" / "grid", ignore_errors=True)
        for name, stand_in in MODELS.items():
            shutil.copytree(folder / "data" / "models" / stand_in, folder / "data" / "grid" / "models" / name)
        models = [f"notebooks/grid/dvc.yaml:base_models@{name}" for name in MODELS]
        call(folder, "dvc", "commit", "--force", "--quiet", *models)
    call(whole, "dvc", "repro", pipeline.file_of("grid"))
    rng = random.Random(1)
    for mark in sorted(rng.sample(range(tables(whole)), 2)):
        with open(tmp_path / "output", "w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "agentark.stage.pipeline", "grid"], cwd=cut, env=environment(cut),
                start_new_session=True, stdout=output, stderr=output,
            )  # fmt: skip
        while tables(cut) < mark and process.poll() is None:
            time.sleep(0.1)
        time.sleep(rng.uniform(0.5, 5))
        assert process.poll() is None, (tmp_path / "output").read_text()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finished = yaml.safe_load((cut / "notebooks" / "grid" / "dvc.lock").read_text())["stages"]
    outs = [cut / out["path"] for stage in finished.values() for out in stage.get("outs", [])]
    kept = {
        table: table.stat().st_mtime for out in outs for table in ([out] if out.is_file() else out.glob("*.parquet"))
    }
    shown = call(cut, sys.executable, "-m", "agentark.stage.pipeline", "grid").stderr
    assert "grid: 100%" in shown and "7/7" in shown
    assert kept and all(table.stat().st_mtime == at for table, at in kept.items())
    made = ("data/grid/cells", "data/grid/debates", "data/grid/questions", "reports/grid.csv")
    assert digests(whole, *made) == digests(cut, *made) and len(digests(whole, "data/grid/cells")) == 1
    waiting = json.loads(call(cut, "dvc", "status", "--json", pipeline.file_of("grid")).stdout)
    assert waiting == {f"{pipeline.file_of('grid')}:scores": ["always changed"]}

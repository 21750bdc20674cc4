"""The grid: gains are paired and pooled over cells, stages run in parallel, and a killed run is resumed."""

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
    """A synthetic grid: R-SFT helps only in its training family, PAD has no effect, SFT harms with teacher t2."""
    rng = random.Random(0)
    base_correct = {(s, f, i): rng.random() < 0.5 for s in STUDENTS for f in FAMILIES for i in range(N)}

    def is_correct(teacher, student, trained, method, family, i):
        base = base_correct[student, family, i]
        return {
            "rsft": base or family == trained,
            "sft": base and teacher != "t2",
        }.get(method, base)

    return {
        (t, s, trained): frame(
            prediction(f, i, m, s, seed, is_correct(t, s, trained, m, f, i))
            for m in ("base", *grid.METHODS)
            for seed in ([0] if m == "base" else SEEDS)
            for f in FAMILIES
            for i in range(N)
        )
        for t, s, trained in product(TEACHERS, STUDENTS, FAMILIES)
    }


@pytest.fixture(scope="module")
def all_predictions(cells) -> pd.DataFrame:
    return pd.concat([p.assign(teacher=k[0], train_task=k[2]) for k, p in cells.items()])


@pytest.fixture(scope="module")
def rows(cells) -> list[Score]:
    return grid.distinct([row for (t, _, trained), p in cells.items() for row in grid.scored(p, t, trained)])


def test_gains_are_averaged_over_cells_in_and_out_of_domain(all_predictions):
    rows = {(r.domain, r.teacher, r.student, r.method): r for r in grid.pooled(all_predictions) if r.seed == "all"}
    base = all_predictions[all_predictions["method"] == "base"].groupby("student")["correct"].mean()
    own = rows["in domain", "", "", "rsft"]
    assert own.value == pytest.approx(1 - base.mean()) and own.lo > 0 and own.n == N * len(FAMILIES)
    assert rows["out of domain", "", "", "rsft"].value == 0
    assert rows["in domain", "t1", "", "sft"].value == 0
    assert rows["out of domain", "t2", "", "sft"].value == pytest.approx(-base.mean())
    assert rows["in domain", "", "s1", "rsft"].value == pytest.approx(1 - base["s1"])
    assert {m for *_, m in rows} == set(grid.METHODS)
    single = {(r.domain, r.method): r.value for r in grid.pooled(all_predictions) if r.seed == "1"}
    assert single == {
        (e, m): pytest.approx(r.value) for (e, t, s, m), r in rows.items() if t == s == ""
    }  # all seeds have the same predictions


def test_the_gain_of_a_single_seed_is_relative_to_the_base_model(all_predictions):
    improved = (all_predictions["method"] == "pad") & (all_predictions["seed"] == 1)
    rows = grid.pooled(all_predictions.assign(correct=all_predictions["correct"] | improved))
    gains = {
        r.seed: r.value for r in rows if (r.domain, r.method, r.student, r.teacher) == ("in domain", "pad", "", "")
    }
    assert gains["0"] == 0 and gains["1"] > 0.3 and gains["all"] == pytest.approx(gains["1"] / 2)


def test_each_base_model_is_in_the_table_once_and_losses_are_counted(rows, all_predictions):
    bases = [r for r in rows if r.method == "base" and r.metric == "accuracy"]
    assert len(bases) == len(STUDENTS) * len(FAMILIES) and {r.teacher for r in bases} == {""}
    table = frame(rows)
    assert set(table["metric"]) == {"accuracy", "accuracy_gain", "step_presence"} and set(table["study"]) == {"grid"}
    counts = grid.below_base(table)
    assert counts.loc[("in domain", "rsft")].tolist() == [8, 0, 0, 8]
    assert counts.loc[("out of domain", "sft")].tolist() == [8, 4, 4, 0]
    lines = grid.findings(frame([*rows, *grid.pooled(all_predictions)]))
    assert len(lines) == 8 and lines[1].startswith(f"{LABELS['rsft']}, in domain: +") and "in 0 of 8 gains" in lines[1]


def test_a_student_at_chance_after_training_with_every_teacher_is_reported(rows):
    assert grid.guessing_students(frame(rows)) == []
    one_in = {("t1", "s1"): 4, ("t2", "s1"): 4, ("t1", "s2"): 4, ("t2", "s2"): 2}  # one of so many questions is correct
    scores = [
        row
        for (teacher, student), every in one_in.items()
        for row in grid.scored(
            frame(
                prediction("facts", i, m, student, 0, m == "rsft" and i % every == 0)
                for m in ("base", "rsft")
                for i in range(N)
            ),
            teacher,
            "facts",
        )
    ]
    (finding,) = grid.guessing_students(frame(scores))
    assert (
        finding.startswith("s1 answers facts at chance") and "(accuracy 0.27), although it generates 1.00 of" in finding
    )


def test_the_figures_show_every_cell_and_every_mean(cells, rows, all_predictions):
    table = frame([*rows, *grid.pooled(all_predictions)])
    drawn = experiments.cells(table)
    assert len(drawn) == len(cells) * len(grid.METHODS) * len(FAMILIES)  # means over cells are not counted as cells
    for figure, points, panels in (
        (experiments.grid(drawn), len(drawn), len(STUDENTS) * len(FAMILIES)),
        (experiments.averages(table), 2 * len(grid.METHODS) * (1 + len(STUDENTS) + len(TEACHERS)), 2),
    ):
        assert len(figure.axes) == panels
        marks = [line for axis in figure.axes for line, *_ in axis.containers]
        assert sum(len(line.get_xdata()) for line in marks) == points
    plt.close("all")


def test_stages_of_one_kind_run_in_parallel_and_a_progress_bar_counts_them(monkeypatch, capsys):
    monkeypatch.setenv("AGENTARK_WORKERS", "2")
    names, started = ["debate@a", "cell@a", "cell@b", "cell@c", "scores"], []

    def repro(_pipeline: str, name: str, cores: int) -> tuple[bool, str]:
        started.append((name, cores))
        return True, ""

    assert pipeline.run("grid", names, repro)
    assert dict(started) == {"debate@a": 2, "cell@a": 1, "cell@b": 1, "cell@c": 1, "scores": 2}
    assert started[0][0] == "debate@a" and started[-1][0] == "scores"
    output = capsys.readouterr().err
    assert "grid: 100%" in output and "5/5" in output and "scores" in output


def test_no_stage_starts_after_a_failed_stage(capsys):
    assert not pipeline.run("grid", ["base_models@nobody", "scores"])
    output = capsys.readouterr().out
    assert output.startswith("grid: base_models@nobody failed") and "nobody" in output.partition("\n")[2]


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


def test_a_lock_table_left_by_a_killed_command_does_not_block_the_next_command(tmp_path):
    table = tmp_path / ".dvc" / "tmp" / "rwlock"
    pipeline.drop_dead_locks(tmp_path)
    table.parent.mkdir(parents=True)
    for incomplete in ("", '{"read": {'):
        table.write_text(incomplete)
        pipeline.drop_dead_locks(tmp_path)
        assert not table.exists()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    zombie = subprocess.Popen([sys.executable, "-c", "", "dvc"])  # not reaped until wait() below
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])  # reuses the pid of a dead command
    dvc = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "dvc"])
    try:
        ended.wait()
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        entries = [{"pid": process.pid, "cmd": "dvc repro"} for process in (ended, zombie, other, dvc)]
        table.write_text(
            json.dumps({"write": dict(zip("abcd", entries, strict=True)), "read": {"e": entries, "f": entries[:3]}})
        )
        pipeline.drop_dead_locks(tmp_path)
        assert json.loads(table.read_text()) == {"write": {"d": entries[3]}, "read": {"e": entries[3:]}}
    finally:
        zombie.wait()
        for process in (other, dvc):
            process.kill()
            process.wait()


MODELS = {"qwen3-teacher": "teacher", "qwen3-64": "qwen3-small"}  # the study's models replace the grid's


@pytest.mark.long
def test_a_grid_that_is_killed_twice_gives_the_same_files(tmp_path):
    """SIGKILL at two random points, measured in tables written; finished tables are not computed again."""

    def tables(folder) -> int:
        return len([path for path in (folder / "data" / "grid").rglob("*.parquet") if "partial" not in str(path)])

    params = shrunk(yaml.safe_load((PROJECT / "params.yaml").read_text()), SMALL)
    params["grid_models"] = {name: params["grid_models"][name] for name in MODELS}
    complete, killed = (copy_of_project(tmp_path / name, params) for name in ("whole", "cut"))
    for folder in (complete, killed):
        (folder / "notebooks" / "grid" / "dvc.lock").unlink(missing_ok=True)
        shutil.rmtree(folder / "data" / "grid", ignore_errors=True)
        for name, stand_in in MODELS.items():
            shutil.copytree(folder / "data" / "models" / stand_in, folder / "data" / "grid" / "models" / name)
        models = [f"notebooks/grid/dvc.yaml:base_models@{name}" for name in MODELS]
        call(folder, "dvc", "commit", "--force", "--quiet", *models)
    call(complete, "dvc", "repro", pipeline.file_of("grid"))
    rng = random.Random(1)
    for threshold in sorted(rng.sample(range(tables(complete)), 2)):
        with open(tmp_path / "output", "w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "agentark.stage.pipeline", "grid"], cwd=killed, env=environment(killed),
                start_new_session=True, stdout=output, stderr=output,
            )  # fmt: skip
        while tables(killed) < threshold and process.poll() is None:
            time.sleep(0.1)
        time.sleep(rng.uniform(0.5, 5))
        assert process.poll() is None, (tmp_path / "output").read_text()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finished = yaml.safe_load((killed / "notebooks" / "grid" / "dvc.lock").read_text())["stages"]
    outs = [killed / out["path"] for stage in finished.values() for out in stage.get("outs", [])]
    kept = {
        table: table.stat().st_mtime for out in outs for table in ([out] if out.is_file() else out.glob("*.parquet"))
    }
    progress = call(killed, sys.executable, "-m", "agentark.stage.pipeline", "grid").stderr
    assert "grid: 100%" in progress and "7/7" in progress
    assert kept and all(table.stat().st_mtime == at for table, at in kept.items())
    compared = ("data/grid/cells", "data/grid/debates", "data/grid/questions", "reports/grid.csv")
    assert digests(complete, *compared) == digests(killed, *compared) and len(digests(complete, "data/grid/cells")) == 1
    status = json.loads(call(killed, "dvc", "status", "--json", pipeline.file_of("grid")).stdout)
    assert status == {f"{pipeline.file_of('grid')}:scores": ["always changed"]}

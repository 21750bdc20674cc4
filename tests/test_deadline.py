"""A stopped run keeps what is finished, publishes nothing, and gives the same bytes after it is continued."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from servers import completion, fake_server
from test_checkpoints import BASE, PAIRS, QUESTIONS, WEIGHTS, project, train_policy, train_rsft, train_scorer  # noqa: F401
from test_pad import SETTINGS

from agentark import STOPPED, Stopped, deadline, root
from agentark.debate.protocols import Debate
from agentark.debate.run import run_debates
from agentark.distill import launch, policy, ppo, sft
from agentark.distill.settings import SFT
from agentark.engines import Request, Store, engine, server
from agentark.evaluate.elicited import step_showing
from agentark.evaluate.likelihood import reasoning_nll
from agentark.parallel import run_all
from agentark.pretrain import build
from agentark.stage.run import main
from agentark.tasks import TASKS


@pytest.fixture(autouse=True)
def no_deadline(monkeypatch):
    for name in (deadline.HOURS, deadline.END, deadline.STOP):
        monkeypatch.setenv(name, "0")  # monkeypatch then restores the variable after the test
        monkeypatch.delenv(name)


def stop_at(patch: pytest.MonkeyPatch, check: int) -> None:
    """Let the time of the run end at this check (counted from 1) of a process; each forked worker counts its own."""
    checks = iter(range(check - 1))
    patch.setattr(deadline, "left", lambda: 1.0 if next(checks, None) is not None else -1.0)


@pytest.mark.parametrize("hours", ["2h", "0", "-1", "nan", "inf"])
def test_invalid_hours_are_refused_in_one_line(monkeypatch, capsys, hours):
    monkeypatch.setenv(deadline.HOURS, hours)
    assert main(["03_debate"]) == 1
    error = capsys.readouterr().err
    assert (
        error.startswith(f"error: AGENTARK_HOURS='{hours}' is not a number of hours above 0;")
        and error.count("\n") == 1
    )


PROGRAM = """
import os, subprocess, sys, time
if len(sys.argv) > 1:
    from agentark import deadline
    deadline.begin()
    print(os.environ[deadline.END])
else:
    for _ in range(2):
        subprocess.run([sys.executable, "-c", open(__file__).read(), "stage"], check=True)
        time.sleep(0.1)
    print(time.time() + 7200)
"""


@pytest.mark.parametrize("command", ["dvc", "own"])
def test_all_stages_of_one_command_share_one_deadline(tmp_path, command):
    program = tmp_path / command
    program.write_text(PROGRAM)
    environment = os.environ | {deadline.HOURS: "2"}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=True)
    first, second, after = map(float, done.stdout.split())
    ancestors = [word for process in psutil.Process().parents() for word in process.cmdline()[:3]]
    tested_by_make = any(Path(word).name in deadline.COMMANDS for word in ancestors)  # both then count from its start
    assert first < after and (first == second) == (command == "dvc" or tested_by_make)


def test_stage_after_the_deadline_stops_with_one_line_and_keeps_its_outputs(monkeypatch, capsys):
    monkeypatch.setenv(deadline.HOURS, "0.001")
    before = {signal.SIGTERM: signal.getsignal(signal.SIGTERM)}
    monkeypatch.setattr(deadline, "started", lambda: time.time() - 7200)
    assert main(["paper/published"]) == STOPPED == 75
    message = capsys.readouterr().err
    assert message.startswith("published: stopped after 2 h (AGENTARK_HOURS=0.001); ") and message.count("\n") == 1
    assert (
        message.endswith("run the same command again to go on\n") and (root() / "reports" / "published.csv").is_file()
    )
    assert signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM] and deadline.STOP not in os.environ


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_stops_and_the_second_interrupts(number, capfd):
    with pytest.raises(KeyboardInterrupt), deadline.stopping_on_signals("03_debate"):
        deadline.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Stopped):
            deadline.check()
        deadline.check(late=30)  # work in flight has so much time left
        assert deadline.reason() == f"stopped by {number.name}"
        os.kill(os.getpid(), number)
    assert capfd.readouterr().err.startswith(f"03_debate: {number.name}: stops after what is in flight")
    deadline.check()


def stop_or_finish(seconds: float, done, stops: bool) -> None:
    if stops:
        raise Stopped("told to")
    time.sleep(seconds)
    done.touch()


def test_other_workers_may_finish_when_one_stops(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTARK_WORKERS", "2")
    with pytest.raises(Stopped, match="told to"):
        run_all(stop_or_finish, [dict(seconds=1, done=tmp_path / "done", stops=stops) for stops in (False, True)])
    assert (tmp_path / "done").is_file()


def write_times(store) -> dict:
    return {file: file.stat().st_mtime_ns for file in store.rglob("*.json")}


@pytest.mark.parametrize("cores", ["1", "2"])
def test_stopped_debate_gives_the_same_traces_when_resumed(tmp_path, monkeypatch, cores):
    monkeypatch.setenv("AGENTARK_WORKERS", cores)
    questions, teacher = TASKS["equation"].questions(70, "validation", 0), root() / "data" / "models" / "teacher"
    debate = Debate(3, 2, 1.3, 0.2, "shared")
    uninterrupted, _ = run_debates(debate, questions, teacher, tmp_path / "whole", 0, 48)
    for check in (1, 2, 2):
        before = write_times(tmp_path / "cut")
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            stop_at(patch, check)
            run_debates(debate, questions, teacher, tmp_path / "cut", 0, 48)
        after = write_times(tmp_path / "cut")
        assert before.items() <= after.items() and (len(after) > len(before)) == (check > 1)
    assert run_debates(debate, questions, teacher, tmp_path / "cut", 0, 48)[0] == uninterrupted
    assert after.items() <= write_times(tmp_path / "cut").items() and len(write_times(tmp_path / "whole")) > len(after)


def requests(number: int) -> list[Request]:
    return [Request([{"role": "user", "content": "hello"}], 0.7, 9, seed) for seed in range(number)]


def test_replies_in_flight_are_kept_and_no_further_requests_are_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "IN_FLIGHT", 4)

    async def answer(number, body):
        await asyncio.sleep(0.4)
        return completion(str(body["seed"]))

    with fake_server(answer) as (address, received):
        monkeypatch.setenv(deadline.END, str(time.time() + 1))
        with pytest.raises(Stopped):
            Store(tmp_path).generate(engine(address), requests(40))
        kept = write_times(tmp_path)
        assert 4 <= len(received) == len(kept) < 40
        monkeypatch.delenv(deadline.END)
        replies = Store(tmp_path).generate(engine(address), requests(40))
    assert [r.text for r in replies] == list(map(str, range(40))) and len(received) == 40
    assert kept.items() <= write_times(tmp_path).items()


def test_slow_server_is_waited_for_only_until_the_grace_period_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(deadline, "GRACE", 0.5)
    monkeypatch.setenv(deadline.END, str(time.time() + 0.5))
    start = time.time()

    async def answer(number, body):
        await asyncio.sleep(4)
        return completion()

    with fake_server(answer) as (address, received):
        with pytest.raises(Stopped):
            Store(tmp_path).generate(engine(address), requests(3))
        assert time.time() - start < 3.5 and len(received) == 3


def sft_logged_every_two_steps(out, steps=0):
    """SFT of 80 steps, whose log has one entry per two steps."""
    return sft.train(BASE, PAIRS, out, 0, SFT(steps=80, batch_size=4, learning_rate=0.002, save_steps=steps))


@pytest.mark.parametrize(
    ("train", "check"),
    [
        (train_rsft, 3),
        (sft_logged_every_two_steps, 42),
        (train_scorer, 2),
        (train_scorer, 5),
        (train_policy, 2),
        (train_policy, 3),
        (train_policy, 4),
    ],
)
def test_stopped_training_gives_the_same_weights_when_resumed(project, monkeypatch, capsys, train, check):  # noqa: F811
    """`check` counts from 1, for the check before the first step."""
    original = policy.outputs_of
    monkeypatch.setattr(policy, "outputs_of", lambda settings: original(settings) | {"logging_steps": 3})
    curve = train(project / "whole")
    with monkeypatch.context() as patch, pytest.raises(Stopped, match=r"a checkpoint of step \d+ is kept"):
        stop_at(patch, check)
        train(project / "resumed", steps=1000)
    assert not (project / "resumed").exists() or not list((project / "resumed").glob(WEIGHTS))
    capsys.readouterr()
    assert train(project / "resumed", steps=1000) == curve
    assert "training continues after step" in capsys.readouterr().out
    assert (project / "resumed" / WEIGHTS).read_bytes() == (project / "whole" / WEIGHTS).read_bytes()
    launch.forget(project / "resumed")
    assert not list((project / "data" / "checkpoints").iterdir())


def test_training_without_checkpoints_stops_and_writes_no_weights(project, monkeypatch):  # noqa: F811
    recipe = build.Recipe("qwen3", 32, 1, "pairs", 6, 6, 4, 0.001, 0)
    trainings = {
        "SFT": lambda: train_rsft(project / "out"),
        "GRPO": lambda: policy.train(BASE, None, QUESTIONS, project / "out", 0, SETTINGS.but(held_out=0, outcome_weight=1.0)),
        "PPO": lambda: ppo.train(BASE, None, QUESTIONS, project / "out", 0, SETTINGS.but(held_out=0, outcome_weight=1.0)),
        "base": lambda: build.build_student(project / "out", recipe),
    }  # fmt: skip
    for train in trainings.values():
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            stop_at(patch, 3)
            train()
        assert not list(project.glob(f"out/**/{WEIGHTS}"))


def test_evaluations_stop_between_their_parts(monkeypatch):
    for evaluation in (lambda: step_showing(BASE, QUESTIONS, 8), lambda: reasoning_nll(BASE, QUESTIONS)):
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            stop_at(patch, 1)
            evaluation()

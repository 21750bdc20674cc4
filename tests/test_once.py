"""A training runs once for the same arguments, and an interrupted training leaves no partial output."""

from pathlib import Path

import pytest

from agentark.distill.once import MADE, Once


def train(out: Path, number: int, base: Path, fails: bool = False) -> list[dict]:
    """A training that records each of its runs."""
    out.mkdir(parents=True)
    (out / "weights").write_text(str(number))
    with (base / "runs").open("a") as runs:
        runs.write(".")
    if fails:
        raise RuntimeError("killed")
    return [{"step": 1, "loss": number / 3}]


def test_a_training_runs_once_and_again_when_its_inputs_change(tmp_path):
    base, out, once = tmp_path / "base", tmp_path / "out" / "seed-0", Once(train)
    base.mkdir()
    (base / "config.json").write_text("{}")

    def runs() -> int:
        return len((base / "runs").read_text())

    first = once(out=out, number=1, base=base)
    assert first == [{"step": 1, "loss": 1 / 3}] and runs() == 1
    assert once(out=out, number=1, base=base) == first and runs() == 1
    assert once(out=out, number=2, base=base) != first and runs() == 2
    (base / "config.json").write_text('{"other": 1}')
    once(out=out, number=2, base=base)
    assert runs() == 3 and (out / "weights").read_text() == "2"


def test_an_interrupted_training_leaves_the_previous_output(tmp_path):
    base, out, once = tmp_path / "base", tmp_path / "out", Once(train)
    base.mkdir()
    once(out=out, number=1, base=base)
    with pytest.raises(RuntimeError, match="killed"):
        once(out=out, number=2, base=base, fails=True)
    assert (out / "weights").read_text() == "1" and (out / MADE).is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "out"]

import random
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from examples import GOLD, KEYS, MUTE, SLIPPED, said
from hypothesis import given
from hypothesis import strategies as st

from agentark import StudyError
from agentark.files import write_atomically
from agentark.schemas import Question, Score, Trace, frame, read_table, write_table

TRACES = [said(1, 1, GOLD), said(2, 1, SLIPPED), said(1, 2, MUTE)]
SCORE = Score(
    study="main",
    setting="test",
    teacher="teacher",
    student="",
    method="vote",
    baseline="01",
    train_task="",
    test_task="word",
    seed="0",
    metric="accuracy",
    value=0.5,
    n=3,
    lo=0.25,
    hi=1.0,
    tokens_per_question=12.0,
)


def fault(path, schema):
    """The one line that reading a bad table ends in."""
    with pytest.raises(StudyError) as raised:
        read_table(path, schema)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"{path}: ")
    return str(raised.value)


@pytest.fixture
def full_disk(tmp_path):
    """A disk of 64 kB."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting a small disk is not permitted here: {done.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_rows_survive_parquet(tmp_path):
    write_table(TRACES, tmp_path / "deep" / "traces.parquet")
    write_table([KEYS], tmp_path / "questions.parquet")
    assert read_table(tmp_path / "deep" / "traces.parquet", Trace) == TRACES
    assert read_table(tmp_path / "questions.parquet", Question) == [KEYS]


@given(text=st.text(st.characters(exclude_categories=["Cs"])), answer=st.none() | st.text("ab 12"))
def test_any_text_survives_parquet(tmp_path_factory, text, answer):
    path = tmp_path_factory.mktemp("any") / "traces.parquet"
    rows = [TRACES[0].model_copy(update={"text": text, "answer": answer})]
    write_table(rows, path)
    assert read_table(path, Trace) == rows


def test_rows_survive_csv(tmp_path):
    rows = [SCORE, SCORE.model_copy(update={"value": 1.0, "baseline": "", "teacher": 'a, "b"\nNA'})]
    write_table(rows, tmp_path / "scores.csv")
    assert read_table(tmp_path / "scores.csv", Score) == rows


def test_csv_has_six_digits(tmp_path):
    write_table([SCORE.model_copy(update={"value": 1 / 3})], tmp_path / "scores.csv")
    assert ",0.333333," in (tmp_path / "scores.csv").read_text()


def test_equal_rows_give_equal_bytes(tmp_path):
    for name in ("a.parquet", "b.parquet"):
        write_table(TRACES, tmp_path / name)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_missing_table_is_told_with_its_remedy(tmp_path):
    assert "dvc repro" in fault(tmp_path / "none.parquet", Trace)
    assert "dvc repro" in fault(tmp_path / "none.csv", Score)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_table_is_told(tmp_path, share):
    path = tmp_path / "traces.parquet"
    write_table(TRACES, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "not a readable table" in fault(path, Trace)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,b\n1,2,3\n"'])
def test_a_broken_csv_is_told(tmp_path, content):
    path = tmp_path / "scores.csv"
    path.write_bytes(content)
    fault(path, Score)


def test_a_table_with_flipped_bytes_is_told(tmp_path):
    path = tmp_path / "traces.parquet"
    write_table(TRACES, path)
    broken = bytearray(path.read_bytes())
    broken[4:200] = bytes(byte ^ 0xFF for byte in broken[4:200])
    path.write_bytes(broken)
    fault(path, Trace)


@pytest.mark.parametrize(
    ("column", "value"), [("round", "two"), ("answer", 15), ("finish_reason", "bored"), ("agent", True), ("text", None)]
)
def test_a_wrong_type_is_told_with_its_column(tmp_path, column, value):
    path = tmp_path / "traces.parquet"
    pq.write_table(pa.Table.from_pylist([t.model_dump() | {column: value} for t in TRACES]), path)
    assert f"row 0, {column}: " in fault(path, Trace)


def test_a_wrong_value_is_told_with_its_row(tmp_path):
    path = tmp_path / "traces.parquet"
    first, second, third = (t.model_dump() for t in TRACES)
    pq.write_table(pa.Table.from_pylist([first, second | {"finish_reason": "bored"}, third]), path)
    assert "row 1, finish_reason: " in fault(path, Trace)


def test_a_missing_column_is_told(tmp_path):
    path = tmp_path / "traces.parquet"
    pq.write_table(pa.Table.from_pylist([t.model_dump(exclude={"round"}) for t in TRACES]), path)
    assert "row 0, round" in fault(path, Trace)


def test_a_column_too_many_is_told(tmp_path):
    path = tmp_path / "traces.parquet"
    pq.write_table(pa.Table.from_pylist([t.model_dump() | {"mood": "good"} for t in TRACES]), path)
    assert "row 0, mood" in fault(path, Trace)


def test_a_wrong_value_in_csv_is_told(tmp_path):
    path = tmp_path / "scores.csv"
    write_table([SCORE, SCORE], path)
    path.write_text(path.read_text().replace(",3,", ",three,", 1))
    assert "row 0, n" in fault(path, Score)


@pytest.mark.parametrize("name", ["traces.parquet", "scores.csv"])
def test_an_empty_table_is_not_written(tmp_path, name):
    with pytest.raises(StudyError, match="no rows"):
        write_table([], tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_an_empty_table_is_not_read(tmp_path):
    path = tmp_path / "traces.parquet"
    write_table(TRACES, path)
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert "no rows" in fault(path, Trace)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, StudyError])
def test_a_failing_writer_leaves_the_former_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "table"
    path.write_bytes(b"former")

    def fail(place):
        place.write_bytes(b"half")
        raise error("enough")

    with pytest.raises(error, match="enough"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_appears_whole_at_the_end_of_writing(tmp_path):
    path = tmp_path / "table"
    path.write_bytes(b"former")
    seen = []

    def write(place):
        place.write_bytes(b"latter")
        seen.append(path.read_bytes())

    write_atomically(path, write)
    assert seen == [b"former"]
    assert path.read_bytes() == b"latter"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="not written"):
        write_table(TRACES, tmp_path / "file" / "traces.parquet")


@pytest.mark.parametrize("name", ["traces.parquet", "traces.csv"])
def test_a_full_disk_is_told_in_a_line_and_keeps_the_former_table(full_disk, name):
    path = full_disk / name
    write_table(TRACES, path)
    former = path.read_bytes()
    noise = [TRACES[0].model_copy(update={"text": random.Random(i).randbytes(2_000).hex()}) for i in range(100)]
    with pytest.raises(StudyError, match="nothing there was changed") as raised:
        write_table(noise, path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)
    assert path.read_bytes() == former
    assert list(full_disk.iterdir()) == [path]


def test_a_frame_has_a_line_a_row():
    assert frame(TRACES)["agent"].tolist() == [1, 2, 1]

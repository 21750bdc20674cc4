import random
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from examples import GOLD, KEYS, UNANSWERED, WRONG_STEP, trace_of
from hypothesis import given
from hypothesis import strategies as st

from agentark import StudyError
from agentark.files import write_atomically
from agentark.schemas import Question, Score, Trace, frame, read_table, write_table

TRACES = [trace_of(1, 1, GOLD), trace_of(2, 1, WRONG_STEP), trace_of(1, 2, UNANSWERED)]
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


def read_error(path, schema):
    """The one-line error of reading an invalid table."""
    with pytest.raises(StudyError) as raised:
        read_table(path, schema)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"{path}: ")
    return str(raised.value)


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 64 kB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not permitted here: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_rows_are_unchanged_by_a_parquet_round_trip(tmp_path):
    write_table(TRACES, tmp_path / "deep" / "traces.parquet")
    write_table([KEYS], tmp_path / "questions.parquet")
    assert read_table(tmp_path / "deep" / "traces.parquet", Trace) == TRACES
    assert read_table(tmp_path / "questions.parquet", Question) == [KEYS]


@given(text=st.text(st.characters(exclude_categories=["Cs"])), answer=st.none() | st.text("ab 12"))
def test_any_text_is_unchanged_by_a_parquet_round_trip(tmp_path_factory, text, answer):
    path = tmp_path_factory.mktemp("any") / "traces.parquet"
    rows = [TRACES[0].model_copy(update={"text": text, "answer": answer})]
    write_table(rows, path)
    assert read_table(path, Trace) == rows


def test_rows_are_unchanged_by_a_csv_round_trip(tmp_path):
    rows = [SCORE, SCORE.model_copy(update={"value": 1.0, "baseline": "", "teacher": 'a, "b"\nNA'})]
    write_table(rows, tmp_path / "scores.csv")
    assert read_table(tmp_path / "scores.csv", Score) == rows


def test_csv_numbers_have_six_digits(tmp_path):
    write_table([SCORE.model_copy(update={"value": 1 / 3})], tmp_path / "scores.csv")
    assert ",0.333333," in (tmp_path / "scores.csv").read_text()


def test_equal_rows_give_equal_bytes(tmp_path):
    for name in ("a.parquet", "b.parquet"):
        write_table(TRACES, tmp_path / name)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_missing_table_is_reported_with_the_command_that_makes_it(tmp_path):
    assert "dvc repro" in read_error(tmp_path / "none.parquet", Trace)
    assert "dvc repro" in read_error(tmp_path / "none.csv", Score)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_table_is_reported(tmp_path, share):
    path = tmp_path / "traces.parquet"
    write_table(TRACES, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "not a readable table" in read_error(path, Trace)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,b\n1,2,3\n"'])
def test_a_malformed_csv_is_reported(tmp_path, content):
    path = tmp_path / "scores.csv"
    path.write_bytes(content)
    read_error(path, Score)


def test_a_table_with_flipped_bytes_is_reported(tmp_path):
    path = tmp_path / "traces.parquet"
    write_table(TRACES, path)
    broken = bytearray(path.read_bytes())
    broken[4:200] = bytes(byte ^ 0xFF for byte in broken[4:200])
    path.write_bytes(broken)
    read_error(path, Trace)


@pytest.mark.parametrize(
    ("column", "value"), [("round", "two"), ("answer", 15), ("finish_reason", "bored"), ("agent", True), ("text", None)]
)
def test_an_invalid_value_is_reported_with_its_column(tmp_path, column, value):
    path = tmp_path / "traces.parquet"
    pq.write_table(pa.Table.from_pylist([t.model_dump() | {column: value} for t in TRACES]), path)
    assert f"row 0, {column}: " in read_error(path, Trace)


def test_an_invalid_value_is_reported_with_its_row(tmp_path):
    path = tmp_path / "traces.parquet"
    first, second, third = (t.model_dump() for t in TRACES)
    pq.write_table(pa.Table.from_pylist([first, second | {"finish_reason": "bored"}, third]), path)
    assert "row 1, finish_reason: " in read_error(path, Trace)


def test_a_missing_column_is_reported(tmp_path):
    path = tmp_path / "traces.parquet"
    pq.write_table(pa.Table.from_pylist([t.model_dump(exclude={"round"}) for t in TRACES]), path)
    assert "row 0, round" in read_error(path, Trace)


def test_an_extra_column_is_reported(tmp_path):
    path = tmp_path / "traces.parquet"
    pq.write_table(pa.Table.from_pylist([t.model_dump() | {"mood": "good"} for t in TRACES]), path)
    assert "row 0, mood" in read_error(path, Trace)


def test_an_invalid_value_in_csv_is_reported(tmp_path):
    path = tmp_path / "scores.csv"
    write_table([SCORE, SCORE], path)
    path.write_text(path.read_text().replace(",3,", ",three,", 1))
    assert "row 0, n" in read_error(path, Score)


@pytest.mark.parametrize("name", ["traces.parquet", "scores.csv"])
def test_an_empty_table_is_not_written(tmp_path, name):
    with pytest.raises(StudyError, match="no rows"):
        write_table([], tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_an_empty_table_is_an_error_when_read(tmp_path):
    path = tmp_path / "traces.parquet"
    write_table(TRACES, path)
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert "no rows" in read_error(path, Trace)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, StudyError])
def test_a_failed_write_leaves_only_the_previous_file(tmp_path, error):
    path = tmp_path / "table"
    path.write_bytes(b"former")

    def fail(temporary):
        temporary.write_bytes(b"half")
        raise error("enough")

    with pytest.raises(error, match="enough"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_only_when_it_is_complete(tmp_path):
    path = tmp_path / "table"
    path.write_bytes(b"former")
    seen = []

    def write(temporary):
        temporary.write_bytes(b"latter")
        seen.append(path.read_bytes())

    write_atomically(path, write)
    assert seen == [b"former"]
    assert path.read_bytes() == b"latter"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_path_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="not written"):
        write_table(TRACES, tmp_path / "file" / "traces.parquet")


@pytest.mark.parametrize("name", ["traces.parquet", "traces.csv"])
def test_a_full_disk_is_reported_in_one_line_and_keeps_the_previous_table(full_disk, name):
    path = full_disk / name
    write_table(TRACES, path)
    previous = path.read_bytes()
    noise = [TRACES[0].model_copy(update={"text": random.Random(i).randbytes(2_000).hex()}) for i in range(100)]
    with pytest.raises(StudyError, match="nothing there was changed") as raised:
        write_table(noise, path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)
    assert path.read_bytes() == previous
    assert list(full_disk.iterdir()) == [path]


def test_a_frame_has_one_row_per_record():
    assert frame(TRACES)["agent"].tolist() == [1, 2, 1]

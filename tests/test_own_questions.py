"""A user's own questions: files with any columns become tables of questions that the study can use."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentark import StudyError
from agentark.answers import is_right
from agentark.tasks.datasets import load, own, own_data_set
from agentark.tasks.questions import Counts, collect, pick, question_counts

STUDENT = Path(__file__).parents[1] / "data" / "models" / "qwen3-small"
ROWS = [{"question": f"What is {n} plus {n}?", "answer": 2 * n, "solution": f"{n} + {n} = {2 * n}"} for n in range(200)]
COUNTS = Counts(train=40, validation=2, test=10, test_other=5, test_hard=0)


CITIES = [{"question": f"Which city is {n}?", "answer": f"city{n}"} for n in range(30)]


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def question_of(row: dict, **columns: str):
    (found,) = (own_data_set("mine.jsonl", columns),)
    return found.question(row)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_single_file_gives_all_splits_without_overlap(tmp_path, suffix):
    source = str(write_rows(tmp_path / f"my sums{suffix}", ROWS))
    questions = collect([source], "my-sums", COUNTS, 0, 1000, STUDENT).questions
    uses = {use: pick(questions, use, "my-sums") for use in ("train", "validation", "in_domain", "test")}
    assert [len(uses[use]) for use in ("train", "validation", "test")] == [40, 2, 10] and uses["in_domain"] == uses[
        "test"
    ]
    contents = [{q.content for q in questions if q.split == split} for split in ("train", "validation", "test")]
    assert not contents[0] & contents[1] and not contents[0] & contents[2] and not contents[1] & contents[2]
    assert all(q.kind == "number" and is_right(q.answer, q) and q.text.endswith("\\boxed{}.") for q in questions)
    again = collect([source], "my-sums", COUNTS, 0, 1000, STUDENT).questions
    assert again == questions
    params = {"questions": {"tasks": [source], "train": 40, "test": 10, "test_other": 5}, "train_task": "my-sums"}
    assert question_counts(params, "test") == {"my-sums": 10} and question_counts(params, "train") == {"my-sums": 40}


def test_folder_keeps_its_splits_and_a_file_may_name_other_columns(tmp_path):
    write_rows(tmp_path / "mine" / "train.jsonl", ROWS[:150])
    write_rows(tmp_path / "mine" / "test.jsonl", ROWS[150:])
    other = write_rows(
        tmp_path / "other.jsonl", [{"prompt": f"Name number {n}.", "target": f"word{n}"} for n in range(100)]
    )
    columns = {"question": "prompt", "answer": "target"}
    assert len(load(own_data_set(str(tmp_path / "mine"), {}), split="test").questions) == 50
    found = load(own_data_set(str(other), columns), split="test").questions
    assert 5 < len(found) < 30 and {q.kind for q in found} == {"text"}
    collected = collect([str(tmp_path / "mine")], "mine", COUNTS, 0, 1000, STUDENT).questions
    assert {q.task for q in collected} == {"mine"}


@pytest.mark.parametrize(
    ("row", "kind", "answer"),
    [
        ({"question": "q?", "answer": "1,250"}, "number", "1,250"),
        ({"question": "q?", "answer": 2.5}, "number", "2.5"),
        ({"question": "q?", "answer": 1234567.5}, "number", "1234567.5"),
        ({"question": "q?", "answer": 0.123456789}, "number", "0.123456789"),
        ({"question": "q?", "answer": "Paris"}, "text", "Paris"),
        ({"question": "q?", "answer": r"\frac{1}{2}", "kind": "latex"}, "latex", r"\frac{1}{2}"),
        ({"question": "q?", "answer": "B", "choices": ["one", "two", "three"]}, "choice", "B"),
        ({"question": "q?", "answer": "Three", "choices": ["one", "two", "three"]}, "choice", "C"),
    ],
)
def test_kind_is_inferred_from_the_answer(row, kind, answer):
    fields = question_of(row)
    assert (fields["kind"], fields["answer"]) == (kind, answer)
    assert ("B) two" in fields["text"]) == (kind == "choice")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "1"}, "column question is missing"),
        ({"question": "q?"}, "column answer is missing"),
        ({"question": "q?", "answer": None}, "column answer is empty"),
        ({"question": "q?", "answer": ["a"]}, "column answer holds a list, not text"),
        ({"question": "q?", "answer": float("nan")}, "column answer holds nan, not a number"),
        ({"question": "q?", "answer": 1e400}, "column answer holds inf, not a number"),
        ({"question": "q?", "answer": "a", "kind": "essay"}, "column kind is 'essay'; choose one of"),
        ({"question": "q?", "answer": "four", "choices": ["one", "two"]}, "neither a letter from A to B nor one of"),
        ({"question": "q?", "answer": "A", "choices": ["one"]}, "has 1 choices"),
        ({"question": "q?", "answer": "A", "choices": "one"}, "is not a list of texts"),
        ({"question": "q?", "answer": "A", "kind": "choice"}, "is not a list of texts"),
    ],
)
def test_unusable_row_is_reported_with_its_column(row, message):
    with pytest.raises(StudyError, match=message):
        question_of(row)


def test_bad_rows_are_set_aside_with_their_row_number(tmp_path):
    source = write_rows(tmp_path / "mine.jsonl", [*ROWS[:50], {"question": "x"}, *ROWS[50:100]])
    loaded = load(own_data_set(str(source), {}), split="train")
    assert [(aside.row, aside.reason) for aside in loaded.set_aside] == [(51, "column answer is missing")]
    with pytest.raises(StudyError, match=r"questions\.columns: prompt is unknown"):
        own_data_set(str(source), {"prompt": "x"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Question,Answer\nx?,1\n", "row 1: column question is missing (its columns: Question, Answer)"),
        (b"question;answer\nx?;1\n", "row 1: column question is missing (its columns: question;answer)"),
        ("question,answer\nWie groß?,1\n".encode("latin-1"), "can't decode byte 0xdf .*; save it as UTF-8"),
        ("question,answer\nx?,1\n".encode("utf-16"), "can't decode byte 0xff .*; save it as UTF-8"),
    ],
)
def test_file_without_usable_questions_is_reported_with_the_reason(tmp_path, content, message):
    (tmp_path / "mine.csv").write_bytes(content)
    with pytest.raises(StudyError, match=rf"mine\.csv: .*{message.replace('(', '[(]').replace(')', '[)]')}"):
        load(own_data_set(str(tmp_path / "mine.csv"), {}), split="train")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"choices": "optoins"},
            r"no row has the column 'optoins' \(questions.columns.choices\); its columns: question, a",
        ),
        ({"answer": "anwser"}, r"no row has the column 'anwser' \(questions.columns.answer\)"),
        ({"answer": "question"}, "answer are both the column 'question'|question and answer are both"),
        ({"question": "q", "answer": "q"}, "question and answer are both the column 'q'; name two columns"),
    ],
)
def test_missing_or_repeated_column_is_reported(tmp_path, columns, message):
    source = write_rows(tmp_path / "mine.jsonl", ROWS)
    with pytest.raises(StudyError, match=message):
        load(own_data_set(str(source), columns), split="train")


def test_column_may_be_in_one_split_only_and_the_answer_in_the_solution(tmp_path):
    write_rows(tmp_path / "mine" / "train.jsonl", [{**row, "steps": "So."} for row in ROWS[:50]])
    write_rows(tmp_path / "mine" / "test.jsonl", ROWS[50:])
    for split in ("train", "test"):
        assert load(own_data_set(str(tmp_path / "mine"), {"solution": "steps"}), split=split).questions
    assert own_data_set("mine.jsonl", {"answer": "solution"}).question({"question": "q?", "solution": "2 #### 4"})


@pytest.mark.parametrize("answer", ["*", "...", r"\text{}", "<answer>5</answer>", "</think>"])
def test_answer_that_is_graded_wrong_against_itself_is_set_aside(tmp_path, answer):
    source = write_rows(tmp_path / "mine" / "train.jsonl", [*ROWS, {"question": "Odd?", "answer": answer}])
    aside = [a for split in ("train", "test") for a in load(own_data_set(str(source), {}), split=split).set_aside]
    assert {a.row for a in aside} == {201} and "\n" not in aside[0].reason


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine.csv", b"question,answer,answer\nx?,1,2\n", "the header has the column 'answer' twice"),
        ("mine.json", b'[{"question": "x?", "answer": 1, "answer": 2}]', "the key 'answer' appears twice"),
        ("mine.jsonl", b'{"question": "x?", "answer": 1, "answer": 2}', "row 1: the key 'answer' appears twice"),
        ("mine.jsonl", gzip.compress(b'{"question": "x?", "answer": 1}'), "a gzip archive, not .jsonl; unpack it"),
        ("mine.parquet", b"PK\x03\x04" + bytes(99), "a zip archive, not .parquet; unpack it"),
    ],
)
def test_file_with_repeated_keys_or_a_wrong_format_is_reported(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StudyError, match=message):
        load(own_data_set(str(tmp_path / name), {}), split="train")


def test_numbers_and_missing_values_of_a_table_are_read_as_written(tmp_path):
    table = pd.DataFrame({"question": [f"What is {n}?" for n in range(40)], "answer": np.float32([0.1] * 40)})
    table.assign(kind=np.nan, choices=np.nan).to_parquet(tmp_path / "mine.parquet")
    questions = [
        q
        for split in ("train", "test")
        for q in load(own_data_set(str(tmp_path / "mine.parquet"), {}), split=split).questions
    ]
    assert {(q.answer, q.kind) for q in questions} == {("0.1", "number")} and len(questions) == 40
    fields = question_of({"question": "q?", "answer": "B", "choices": ["a", "b"], "kind": float("nan")})
    assert fields["kind"] == "choice"


def test_long_field_of_a_csv_file_is_read(tmp_path):
    source = write_rows(tmp_path / "mine" / "train.csv", [{"question": "long " * 40_000, "answer": "x"}, *CITIES])
    found = [q for split in ("train", "test") for q in load(own_data_set(str(source), {}), split=split).questions]
    assert max(len(q.text) for q in found) > 131_072


def test_split_without_questions_is_an_error_only_if_it_is_requested(tmp_path):
    (tmp_path / "one.csv").write_text("question,answer\nWhat is 1 plus 1?,2\n,\n")
    messages = []
    for split in ("train", "test"):
        try:
            load(own_data_set(str(tmp_path / "one.csv"), {}), split=split)
        except StudyError as error:
            messages.append(str(error))
    assert len(messages) == 1 and "too few questions for the part" in messages[0]
    write_rows(tmp_path / "mine" / "train.jsonl", ROWS)
    (tmp_path / "mine" / "test.jsonl").write_text("")
    counts = Counts(train=40, validation=0, test=0, test_other=0, test_hard=0)
    result = collect([str(tmp_path / "mine")], "mine", counts, 0, 1000, STUDENT)
    assert len(result.questions) == 40 and result.account["what"].str.contains("none asked for: .*no rows").sum() == 1


@pytest.mark.parametrize(
    ("tasks", "train_task", "message"),
    [
        (["{folder}/equation.jsonl"], "equation", "has the name of another task"),
        (["{folder}/mine.jsonl", "{folder}/deep/mine.jsonl"], "mine", "has the name of another task"),
        (["{folder}/mine.jsonl"], "gsm8k", "not among `tasks`"),
        (["{folder}/none.jsonl"], "none", "no such file"),
        (["{folder}/mine.jsonl", "equation"], "mine", "mixes the generated world"),
    ],
)
def test_conflicting_or_unknown_task_names_are_reported(tmp_path, tasks, train_task, message):
    for name in ("equation", "mine", "deep/mine"):
        write_rows(tmp_path / f"{name}.jsonl", ROWS)
    with pytest.raises(StudyError, match=message):
        collect([task.format(folder=tmp_path) for task in tasks], train_task, COUNTS, 0, 1000, STUDENT)


@given(st.text(min_size=1, max_size=20))
def test_task_name_is_valid_in_ids_and_paths(name):
    task = own.task_of(f"some/{name}.jsonl")
    assert "/" not in task and " " not in task and not task.startswith("-")

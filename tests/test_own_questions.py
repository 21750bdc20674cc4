"""A user's own questions: from a file with any columns to a table of questions that the study takes."""

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
from agentark.tasks.questions import Counts, asked, collect, pick

STUDENT = Path(__file__).parents[1] / "data" / "models" / "qwen3-small"
ROWS = [{"question": f"What is {n} plus {n}?", "answer": 2 * n, "solution": f"{n} + {n} = {2 * n}"} for n in range(200)]
COUNTS = Counts(train=40, validation=2, test=10, test_other=5, test_hard=0)


CITIES = [{"question": f"Which city is {n}?", "answer": f"city{n}"} for n in range(30)]


def written(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one(row: dict, **columns: str):
    (found,) = (own_data_set("mine.jsonl", columns),)
    return found.question(row)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_single_file_gives_all_splits_without_overlap(tmp_path, suffix):
    source = str(written(tmp_path / f"my sums{suffix}", ROWS))
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
    assert asked(params, "test") == {"my-sums": 10} and asked(params, "train") == {"my-sums": 40}


def test_a_folder_has_its_own_parts_and_stands_beside_a_published_data_set(tmp_path):
    written(tmp_path / "mine" / "train.jsonl", ROWS[:150])
    written(tmp_path / "mine" / "test.jsonl", ROWS[150:])
    other = written(
        tmp_path / "other.jsonl", [{"prompt": f"Name number {n}.", "target": f"word{n}"} for n in range(100)]
    )
    columns = {"question": "prompt", "answer": "target"}
    assert len(load(own_data_set(str(tmp_path / "mine"), {}), split="test").questions) == 50
    found = load(own_data_set(str(other), columns), split="test").questions
    assert 5 < len(found) < 30 and {q.kind for q in found} == {"text"}
    drawn = collect([str(tmp_path / "mine")], "mine", COUNTS, 0, 1000, STUDENT).questions
    assert {q.task for q in drawn} == {"mine"}


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
def test_the_kind_follows_from_the_answer(row, kind, answer):
    fields = one(row)
    assert (fields["kind"], fields["answer"]) == (kind, answer)
    assert ("B) two" in fields["text"]) == (kind == "choice")


@pytest.mark.parametrize(
    ("row", "told"),
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
def test_a_row_that_cannot_be_used_is_named_with_its_column(row, told):
    with pytest.raises(StudyError, match=told):
        one(row)


def test_bad_rows_are_set_aside_with_their_line(tmp_path):
    source = written(tmp_path / "mine.jsonl", [*ROWS[:50], {"question": "x"}, *ROWS[50:100]])
    loaded = load(own_data_set(str(source), {}), split="train")
    assert [(aside.row, aside.reason) for aside in loaded.set_aside] == [(51, "column answer is missing")]
    with pytest.raises(StudyError, match=r"questions\.columns: prompt is unknown"):
        own_data_set(str(source), {"prompt": "x"})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"Question,Answer\nx?,1\n", "row 1: column question is missing (its columns: Question, Answer)"),
        (b"question;answer\nx?;1\n", "row 1: column question is missing (its columns: question;answer)"),
        ("question,answer\nWie groß?,1\n".encode("latin-1"), "can't decode byte 0xdf .*; save it as UTF-8"),
        ("question,answer\nx?,1\n".encode("utf-16"), "can't decode byte 0xff .*; save it as UTF-8"),
    ],
)
def test_a_file_that_gives_no_question_is_told_with_what_is_wrong(tmp_path, content, told):
    (tmp_path / "mine.csv").write_bytes(content)
    with pytest.raises(StudyError, match=rf"mine\.csv: .*{told.replace('(', '[(]').replace(')', '[)]')}"):
        load(own_data_set(str(tmp_path / "mine.csv"), {}), split="train")


@pytest.mark.parametrize(
    ("columns", "told"),
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
def test_a_column_that_is_nowhere_or_named_twice_is_told(tmp_path, columns, told):
    source = written(tmp_path / "mine.jsonl", ROWS)
    with pytest.raises(StudyError, match=told):
        load(own_data_set(str(source), columns), split="train")


def test_a_column_may_be_in_one_part_only_and_the_answer_in_the_solution(tmp_path):
    written(tmp_path / "mine" / "train.jsonl", [{**row, "steps": "So."} for row in ROWS[:50]])
    written(tmp_path / "mine" / "test.jsonl", ROWS[50:])
    for split in ("train", "test"):
        assert load(own_data_set(str(tmp_path / "mine"), {"solution": "steps"}), split=split).questions
    assert own_data_set("mine.jsonl", {"answer": "solution"}).question({"question": "q?", "solution": "2 #### 4"})


@pytest.mark.parametrize("answer", ["*", "...", r"\text{}", "<answer>5</answer>", "</think>"])
def test_an_answer_that_is_not_right_against_itself_is_set_aside(tmp_path, answer):
    source = written(tmp_path / "mine" / "train.jsonl", [*ROWS, {"question": "Odd?", "answer": answer}])
    aside = [a for split in ("train", "test") for a in load(own_data_set(str(source), {}), split=split).set_aside]
    assert {a.row for a in aside} == {201} and "\n" not in aside[0].reason


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("mine.csv", b"question,answer,answer\nx?,1,2\n", "the header has the column 'answer' twice"),
        ("mine.json", b'[{"question": "x?", "answer": 1, "answer": 2}]', "the key 'answer' appears twice"),
        ("mine.jsonl", b'{"question": "x?", "answer": 1, "answer": 2}', "row 1: the key 'answer' appears twice"),
        ("mine.jsonl", gzip.compress(b'{"question": "x?", "answer": 1}'), "a gzip archive, not .jsonl; unpack it"),
        ("mine.parquet", b"PK\x03\x04" + bytes(99), "a zip archive, not .parquet; unpack it"),
    ],
)
def test_a_file_in_which_it_is_not_clear_what_counts_is_told(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StudyError, match=told):
        load(own_data_set(str(tmp_path / name), {}), split="train")


def test_a_table_s_numbers_and_gaps_are_read_as_written(tmp_path):
    table = pd.DataFrame({"question": [f"What is {n}?" for n in range(40)], "answer": np.float32([0.1] * 40)})
    table.assign(kind=np.nan, choices=np.nan).to_parquet(tmp_path / "mine.parquet")
    questions = [
        q
        for split in ("train", "test")
        for q in load(own_data_set(str(tmp_path / "mine.parquet"), {}), split=split).questions
    ]
    assert {(q.answer, q.kind) for q in questions} == {("0.1", "number")} and len(questions) == 40
    fields = one({"question": "q?", "answer": "B", "choices": ["a", "b"], "kind": float("nan")})
    assert fields["kind"] == "choice"


def test_a_long_field_of_a_csv_file_is_read(tmp_path):
    source = written(tmp_path / "mine" / "train.csv", [{"question": "long " * 40_000, "answer": "x"}, *CITIES])
    found = [q for split in ("train", "test") for q in load(own_data_set(str(source), {}), split=split).questions]
    assert max(len(q.text) for q in found) > 131_072


def test_a_part_without_questions_is_told_as_such_and_only_if_it_is_wanted(tmp_path):
    (tmp_path / "one.csv").write_text("question,answer\nWhat is 1 plus 1?,2\n,\n")
    told = []
    for split in ("train", "test"):
        try:
            load(own_data_set(str(tmp_path / "one.csv"), {}), split=split)
        except StudyError as error:
            told.append(str(error))
    assert len(told) == 1 and "too few questions for the part" in told[0]
    written(tmp_path / "mine" / "train.jsonl", ROWS)
    (tmp_path / "mine" / "test.jsonl").write_text("")
    counts = Counts(train=40, validation=0, test=0, test_other=0, test_hard=0)
    drawn = collect([str(tmp_path / "mine")], "mine", counts, 0, 1000, STUDENT)
    assert len(drawn.questions) == 40 and drawn.account["what"].str.contains("none asked for: .*no rows").sum() == 1


@pytest.mark.parametrize(
    ("tasks", "train_task", "told"),
    [
        (["{folder}/equation.jsonl"], "equation", "has the name of another task"),
        (["{folder}/mine.jsonl", "{folder}/deep/mine.jsonl"], "mine", "has the name of another task"),
        (["{folder}/mine.jsonl"], "gsm8k", "not among `tasks`"),
        (["{folder}/none.jsonl"], "none", "no such file"),
        (["{folder}/mine.jsonl", "equation"], "mine", "mixes the generated world"),
    ],
)
def test_names_that_do_not_fit_are_told(tmp_path, tasks, train_task, told):
    for name in ("equation", "mine", "deep/mine"):
        written(tmp_path / f"{name}.jsonl", ROWS)
    with pytest.raises(StudyError, match=told):
        collect([task.format(folder=tmp_path) for task in tasks], train_task, COUNTS, 0, 1000, STUDENT)


@given(st.text(min_size=1, max_size=20))
def test_the_name_of_a_task_can_stand_in_ids_and_paths(name):
    task = own.task_of(f"some/{name}.jsonl")
    assert "/" not in task and " " not in task and not task.startswith("-")

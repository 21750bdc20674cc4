"""Invalid rows and files of published data sets, and boxed answers."""

import json

import pytest
from datasets import Dataset, config
from hypothesis import example, given
from hypothesis import strategies as st
from published_rows import ANNOTATION, JSON_VALUES, MAY_BE_EMPTY, REQUIRED, ROWS, load_rows, without_ids, write_rows

from agentark import StudyError
from agentark.tasks.datasets import load
from agentark.tasks.datasets.formats import boxed_gold, boxes


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")


# Invalid rows and files


@pytest.mark.parametrize("fault", ["missing", "empty", "of the wrong type"])
@pytest.mark.parametrize(("name", "column"), REQUIRED)
def test_row_with_a_missing_empty_or_mistyped_column_is_set_aside(name, column, fault, tmp_path):
    bad = {k: v for k, v in ROWS[name].items() if k != column}
    if fault == "empty":
        bad[column] = None if column in MAY_BE_EMPTY else type(ROWS[name][column])()
    elif fault == "of the wrong type":
        bad[column] = 5.5
    loaded = load_rows(tmp_path, name, ROWS[name], bad)
    assert {a.row for a in loaded.set_aside} == {2}
    assert all(a.file.endswith("rows.jsonl") and a.reason for a in loaded.set_aside)
    assert without_ids(loaded.questions) == without_ids(load_rows(tmp_path, name, ROWS[name]).questions)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("gsm8k", {"answer": "six"}, "does not end in '#### ' and a number"),
        ("gsm8k", {"question": "?!"}, "the question has no words"),
        ("gsm8k", {"question": "\ud800 eggs?"}, "lone surrogate"),
        ("math", {"solution": "It is 8."}, r"no \boxed answer"),
        ("math", {"solution": r"It is \boxed{}."}, r"empty \boxed"),
        ("math", {"solution": r"It is \boxed{8."}, "not closed"),
        ("math", {"solution": r"\boxed{8} or \boxed{9}"}, "different answers (8; 9)"),
        ("math", {"level": "Level 9"}, "column level holds 'Level 9'"),
        ("metamathqa", {"response": "It is 8."}, "does not end in 'The answer is:'"),
        ("medmcqa", {"opc": ""}, "column opc is empty"),
        ("medmcqa", {"cop": 7}, "column answer_idx or cop holds a int"),
        ("hotpotqa", {"context": [["Emma", "Emma is a novel."]]}, "titles and lists of sentences"),
        ("hotpotqa", {"context": []}, "the document has no text"),
        ("qasper", {"qas": []}, "the row has no question"),
        ("qasper", {"qas": [{"question": "Why?", "answers": [{"answer": ANNOTATION}]}]}, "no answer of any kind"),
        ("qasper", {"qas": [{"question": "Why?", "answers": [{"answer": {**ANNOTATION, "extractive_spans": [" "]}}]}]}, "no answer"),
        ("qasper", {"full_text": []}, "column full_text is empty"),
        ("qasper", {"qas": {"question": ["Why?"], "answers": []}}, "lists of different lengths"),
        ("qmsum", {"meeting_transcripts": [{"content": "Hello ."}]}, "column speaker is missing"),
    ],
)  # fmt: skip
def test_row_without_a_question_or_a_gold_answer_is_set_aside_with_the_reason(name, change, reason, tmp_path):
    loaded = load_rows(tmp_path, name, ROWS[name], {**ROWS[name], **change})
    assert [a.row for a in loaded.set_aside] == [2]
    assert reason in loaded.set_aside[0].reason


def test_row_whose_options_contradict_its_answer_is_set_aside(tmp_path):
    row = {"question": "Which?", "options": dict(zip("ABCD", "wxyz", strict=True)), "answer_idx": "B", "answer": "x"}
    loaded = load_rows(tmp_path, "medmcqa", row, {**row, "answer": "z"}, {**row, "answer_idx": "E"})
    assert [q.answer for q in loaded.questions] == ["B"]
    assert [a.reason for a in loaded.set_aside] == [
        "answer_idx is B, but column answer is 'z', so the answer is ambiguous",
        "the right option is 'E', not a letter from A to D",
    ]


def test_one_invalid_question_of_a_paper_does_not_remove_the_others(tmp_path):
    good = ROWS["qasper"]["qas"][0]
    loaded = load_rows(tmp_path, "qasper", {**ROWS["qasper"], "id": "p1", "qas": [good, {"question": "Why?"}, good]})
    assert len(loaded.questions) == 2
    assert [(a.row, a.key, a.reason) for a in loaded.set_aside] == [(1, "p1 question 2", "column answers is missing")]


def test_invalid_line_is_set_aside_with_its_line_number(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", ROWS["gsm8k"], [1], ROWS["gsm8k"])
    path.write_text(path.read_text() + "\n" + json.dumps(ROWS["gsm8k"])[:-9])
    loaded = load("gsm8k", path)
    assert [q.question_id for q in loaded.questions] == ["gsm8k-test-000001", "gsm8k-test-000003"]
    assert [(a.row, a.reason[:24]) for a in loaded.set_aside] == [
        (2, "the row is a list, not a"),
        (5, "the line is not JSON (Un"),
    ]


def test_csv_row_with_the_wrong_number_of_fields_is_set_aside(tmp_path):
    header, row = ",".join(ROWS["truthfulqa"]), "Can pigs fly?,No,No,Yes"
    path = tmp_path / "TruthfulQA.csv"
    path.write_text("\n".join([header, row, "Can pigs fly?,No", row + ",more", row]) + "\n")
    loaded = load("truthfulqa", path)
    assert len(loaded.questions) == 2
    assert [(a.row, a.reason) for a in loaded.set_aside] == [(i, "not as many fields as the header") for i in (2, 3)]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("rows.json", json.dumps([ROWS["gsm8k"]] * 2).encode()[:-30]),
        ("rows.json", b"7"),
        ("rows.jsonl", b"\xff\xfe\x00"),
        ("rows.jsonl", b""),
        ("rows.jsonl", b"{\n{\n"),
        ("rows.json", b"[" * 100_000),
        ("rows.csv", b'question,answer\n"How many?,6\n'),
        ("rows.parquet", b"PAR1 junk"),
        ("rows.txt", b"How many?"),
        ("rows.jsonl", b'{"prompt": "How many?"}\n'),
    ],
)
def test_unreadable_file_is_a_one_line_error_that_names_it(file, content, tmp_path):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(StudyError) as error:
        load("gsm8k", tmp_path / file)
    assert str(error.value).startswith(str(tmp_path / file)) and "\n" not in str(error.value)


def test_truncated_parquet_file_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "rows.parquet"
    Dataset.from_list([ROWS["gsm8k"]]).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StudyError, match=r"rows.parquet: not a readable .parquet file"):
        load("gsm8k", path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("chess",), "data set 'chess' is unknown.*gsm8k"),
        (("math500", "", "train"), "math500 has no part for 'train' here; choose from test"),
        (("qmsum",), "qmsum is not on the hub; download"),
        (("gsm8k", "no/such/file"), "no/such/file: no such file or folder"),
        (("gsm8k", "none.jsonl"), "none.jsonl: no such file or folder"),
    ],
)
def test_wrong_name_split_or_source_is_an_error_with_advice(arguments, message):
    with pytest.raises(StudyError, match=message):
        load(*arguments)


@given(st.sampled_from(REQUIRED), JSON_VALUES)
@example(("hotpotqa", "context"), {"title": ["a"]})
@example(("qasper", "qas"), {"question": [None], "answers": [{"answer": [None]}]})
@example(("truthfulqa", "Correct Answers"), [""])
@example(("qmsum", "specific_query_list"), [{"query": "\ud800", "answer": "x"}])
def test_row_with_any_value_in_a_column_is_read_or_set_aside(tmp_path_factory, which, value):
    name, column = which
    folder = tmp_path_factory.mktemp("rows")
    valid = load_rows(folder, name, ROWS[name]).questions
    try:
        loaded = load_rows(folder, name, ROWS[name], {**ROWS[name], column: value}, ROWS[name])
    except StudyError as error:  # the labels do not show whether they count from 0 or 1
        assert "does cop count" in str(error)
        return
    assert without_ids(loaded.questions[: len(valid)]) == without_ids(loaded.questions[-len(valid) :])
    assert {a.row for a in loaded.set_aside} <= {2}
    assert len(loaded.questions) + len(loaded.set_aside) > 2 * len(valid)


# Boxed answers


BALANCED = st.recursive(
    st.text("ab1+ \\,", max_size=4).map(lambda s: s.replace("\\", "\\{")),
    lambda t: st.lists(t, max_size=3).map(lambda p: "{" + "".join(p) + "}"),
)


@given(st.lists(BALANCED, max_size=3))
def test_content_of_a_box_includes_its_inner_braces(contents):
    solution = " so ".join(f"$\\boxed{{{content}}}$" for content in contents)
    assert boxes(solution) == [content.strip() for content in contents]


@pytest.mark.parametrize(
    ("solution", "found"),
    [
        (r"\boxed{\frac{1}{2}}", [r"\frac{1}{2}"]),
        (r"\boxed {3} and \fbox{4}", ["3", "4"]),
        (r"$\boxed 5$.", ["5"]),
        (r"\boxed{\boxed{6}}", [r"\boxed{6}"]),
        (r"\boxed{\{1, 2\}}", [r"\{1, 2\}"]),
        (r"\boxedfoo{7}", []),
    ],
)
def test_boxes_are_found_in_every_spelling(solution, found):
    assert boxes(solution) == found


def test_several_requested_answers_are_joined_and_two_forms_of_one_are_not():
    question = "Enter the solutions, separated by commas."
    assert boxed_gold(question, r"$x = \boxed{-1}$ or $x = \boxed{2}$") == "-1, 2"
    assert boxed_gold(question, r"\boxed{1/2}, that is \boxed{0.5}") == "0.5"
    with pytest.raises(StudyError, match="different answers"):
        boxed_gold("Write it without commas.", r"\boxed{1} or \boxed{2}")


def test_the_same_answer_boxed_twice_is_one_answer():
    assert boxed_gold("What is it?", r"\boxed{x + 11} or \boxed{11+x}") == "11+x"
    assert boxed_gold("What is it?", r"\boxed{ 156 } or again \boxed{156}") == "156"

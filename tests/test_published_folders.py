"""Folders as published, with stray files of operating systems: questions are read once, or an error names two files."""

import json

import pytest
from published_rows import ROWS, load_rows, write_rows

from agentark import StudyError
from agentark.schemas import Trace
from agentark.tasks.datasets import load
from agentark.traces.check import check_traces
from agentark.traces.reading import answer_of

OTHER = {
    "gsm8k": {"question": "A dog has 4 legs. How many have two?", "answer": "#### 8"},
    "math": {**ROWS["math"], "problem": "What is $3^2$?", "solution": "$\\boxed{9}$"},
    "hotpotqa": {**ROWS["hotpotqa"], "_id": "h2", "question": "Who wrote Emma?", "answer": "Jane Austen"},
    "qmsum": {
        **ROWS["qmsum"],
        "general_query_list": [],
        "specific_query_list": [{"query": "What about tea?", "answer": "None.", "relevant_text_span": [["0", "0"]]}],
    },
}


def write_file(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_rows(path, *rows)


def many_rows(name, n):
    column = {"gsm8k": "question", "math": "problem"}.get(name, "question")
    return [{**ROWS[name], column: f"{ROWS[name][column]} And {i} more?"} for i in range(n)]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("gsm8k", "test.jsonl", "test_socratic.jsonl"),  # openai/grade-school-math
        ("gsm8k", "main/test.jsonl", "socratic/test.jsonl"),
        ("math", "test/algebra.jsonl", "test copy/algebra.jsonl"),
        ("math", "test/algebra.jsonl", "ALL/test.jsonl"),
        ("hotpotqa", "hotpot_dev_distractor_v1.json", "hotpot_dev_fullwiki_v1.json"),  # hotpotqa.github.io
        ("qmsum", "ALL/jsonl/test.jsonl", "Academic/jsonl/test.jsonl"),  # Yale-LILY/QMSum
        ("gsm8k", "test.jsonl", "test.json"),
    ],
)
def test_two_variants_of_a_data_set_are_an_error_that_names_both(name, first, second, tmp_path):
    rows = [ROWS[name], OTHER[name]]
    write_file(tmp_path / first, *rows)
    expected = {q.text for q in load(name, tmp_path).questions}
    write_file(tmp_path / second, *rows)
    with pytest.raises(StudyError) as error:
        load(name, tmp_path)
    assert first in str(error.value) and second in str(error.value) and "\n" not in str(error.value)
    assert {q.text for q in load(name, tmp_path / first).questions} == expected


def test_a_question_in_two_files_is_read_once_and_set_aside_once(tmp_path):
    write_file(tmp_path / "a/test.jsonl", *many_rows("math", 5))
    write_file(
        tmp_path / "b/test.jsonl",
        *many_rows("math", 1),
        *({**OTHER["math"], "problem": f"What is $3^{i}$?"} for i in range(4)),
    )
    loaded = load("math", tmp_path)
    assert len(loaded.questions) == len({q.text for q in loaded.questions}) == 9
    (row_set_aside,) = loaded.set_aside
    assert row_set_aside.file.endswith("b/test.jsonl") and "a/test.jsonl" in row_set_aside.reason


def test_repeated_rows_of_one_file_are_kept(tmp_path):
    assert len(load_rows(tmp_path, "gsm8k", ROWS["gsm8k"], ROWS["gsm8k"]).questions) == 2


@pytest.mark.parametrize(
    "stray",
    ["._test.jsonl", "a/._test.jsonl", "__MACOSX/test.jsonl", "__MACOSX/a/._test.jsonl", ".ipynb_checkpoints/test.jsonl",
     ".ipynb_checkpoints/test-checkpoint.jsonl", ".cache/huggingface/download/test.jsonl", ".git/test.json",
     ".test.jsonl.swp", ".~lock.test.csv#"],
)  # fmt: skip
@pytest.mark.parametrize(
    "content", [b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X\xb0", json.dumps(ROWS["gsm8k"]).encode()]
)
def test_files_of_editors_archives_and_operating_systems_are_ignored(stray, content, tmp_path):
    write_file(tmp_path / "test.jsonl", ROWS["gsm8k"], OTHER["gsm8k"])
    (tmp_path / stray).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / stray).write_bytes(content)
    loaded = load("gsm8k", tmp_path)
    assert (len(loaded.questions), loaded.set_aside) == (2, [])


def test_a_folder_inside_a_hidden_folder_is_read(tmp_path):
    write_file(tmp_path / ".data/gsm8k/test.jsonl", ROWS["gsm8k"])
    assert len(load("gsm8k", tmp_path / ".data/gsm8k").questions) == 1


@pytest.mark.parametrize("form", ["list", "list over lines", "lines", "mark of the encoding", "other line ends"])
def test_rows_are_read_from_every_layout_of_json(form, tmp_path):
    rows = [ROWS["gsm8k"], OTHER["gsm8k"]]
    text = {
        "list": json.dumps(rows),
        "list over lines": "\n" + json.dumps(rows, indent=1),
        "lines": "".join(json.dumps(r) + "\n" for r in rows),
        "mark of the encoding": "\ufeff" + "\n".join(map(json.dumps, rows)),
        "other line ends": "\r\n".join(map(json.dumps, rows)) + "\r\n\r\n",
    }[form]
    for name in ("test.jsonl", "test.json"):
        (tmp_path / name).write_text(text, newline="")
        assert len(load("gsm8k", tmp_path / name).questions) == 2


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        (r"Subtract: \[x = \boxed 7.\] So there is one root.", "7"),  # hendrycks/math#23
        (r"So $\boxed 3$ of them, not $4$.", "3"),
        (r"Hence $\boxed{12}$, since $12 > 3$.", "12"),
        (r"It is $\boxed \frac12$.", r"\frac12"),
        (r"It is $\fbox{5}$.", "5"),
    ],
)
def test_a_boxed_answer_ends_where_tex_ends_it(solution, gold, tmp_path):
    (question,) = load_rows(tmp_path, "math", {**ROWS["math"], "solution": solution}).questions
    assert question.answer == gold


def test_an_id_used_in_two_files_drops_no_question(tmp_path):
    write_file(tmp_path / "hotpotqa" / "a_dev.json", {**ROWS["hotpotqa"], "_id": "q1"})
    write_file(tmp_path / "hotpotqa" / "b_dev.json", {**OTHER["hotpotqa"], "_id": "q1"})
    loaded = load("hotpotqa", tmp_path / "hotpotqa")
    assert (len(loaded.questions), loaded.set_aside) == (2, [])


def test_a_row_with_an_option_equal_to_the_right_number_is_set_aside(tmp_path):
    row = {"question": "Which?", "opa": "1/2", "opb": "1", "opc": "2", "opd": "0.5"}
    first = {**ROWS["medmcqa"], "question": "Which first?"}
    loaded = load_rows(tmp_path, "medmcqa", first, {**row, "cop": 1}, {**row, "question": "And which?", "cop": 3})
    assert (len(loaded.questions), len(loaded.set_aside)) == (2, 1)


@pytest.mark.parametrize(
    ("second", "aside"), [("Vitamin C", 1), ("vitamin c ", 1), ("Zinc", 0)]
)  # medmcqa/medmcqa#5: the right option twice
def test_a_row_that_has_the_right_option_twice_is_set_aside(second, aside, tmp_path):
    row = {"question": "Which?", "opa": "Iron", "opb": "Vitamin C", "opc": "Vitamin D", "opd": second}
    first = {**ROWS["medmcqa"], "question": "Which first?"}
    loaded = load_rows(tmp_path, "medmcqa", first, {**row, "cop": 2})
    assert (len(loaded.questions), len(loaded.set_aside)) == (2 - aside, aside)


@pytest.mark.parametrize(
    "gold", [r"\text{no real solutions}", r"\text{Evelyn}", r"\text{(A)}", r"(-\infty, 3]", r"x^2 + 1", "2", r"1,\!000", r"3 \frac12"]
)  # fmt: skip
def test_loaded_gold_answers_can_be_graded_and_others_are_set_aside(gold, tmp_path):
    # EleutherAI/lm-evaluation-harness#2212: a gold answer in words stopped the stage at the first graded trace
    loaded = load_rows(tmp_path, "math", {**ROWS["math"], "solution": rf"\boxed{{{gold}}}"}, ROWS["math"])
    assert len(loaded.questions) + len(loaded.set_aside) == 2
    for question in loaded.questions:
        texts = [r"\boxed{5}", rf"\boxed{{{question.answer}}}", "no answer", r"\boxed{\frac{"]
        traces = [
            Trace(question_id=question.question_id, agent=i, round=1, text=text, answer=answer_of(text, question),
                  prompt_tokens=1, completion_tokens=1, finish_reason="stop")
            for i, text in enumerate(texts)
        ]  # fmt: skip
        assert [t.correct for t in check_traces(traces, [question])] == [False, True, False, False]

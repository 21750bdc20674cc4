import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from datasets import ClassLabel, Dataset, config
from examples import shared_data
from hypothesis import example, given
from hypothesis import strategies as st

from agentark import StudyError
from agentark.answers import is_correct
from agentark.pretrain.tiny import build_tokenizer
from agentark.schemas import Question, read_table, write_table
from agentark.tasks.datasets import DATA_SETS, instructions, load
from agentark.tasks.datasets.content import content_of
from agentark.tasks.datasets.fit import UNITS, fit
from agentark.tasks.datasets.formats import boxed_gold, boxes
from agentark.tasks.datasets.overlap import draw, separate
from agentark.tasks.splits import split_of

# Every real file that bears a data set's name: its split, the questions in it, and the rows set aside.
FILES = {
    "gsm8k/train.sample.jsonl": ("gsm8k", "train", 500, 0),
    "gsm8k/test.sample.jsonl": ("gsm8k", "test", 300, 0),
    "math/math500.half.jsonl": ("math500", "test", 263, 0),
    "math/test.sample.jsonl": ("math", "test", 200, 0),
    "math/multi_boxed_golds.jsonl": ("math", "test", 6, 1),
    "metamathqa/rows.json": ("metamathqa", "train", 3, 0),
    "medmcqa/test.sample.jsonl": ("medmcqa", "test", 99, 1),  # of one row two options are alike
    "medmcqa/test_hard.half.jsonl": ("medmcqa", "test", 48, 0),
    "hotpotqa/distractor.half.json": ("hotpotqa", "test", 47, 0),
    "qasper/fixture_small.json": ("qasper", "test", 4, 0),
    "qmsum/test.sample.jsonl": ("qmsum", "test", 95, 0),
    "truthfulqa/TruthfulQA.sample.csv": ("truthfulqa", "test", 150, 0),
}

# A row of each data set in its original format.
ANNOTATION = {"unanswerable": False, "extractive_spans": [], "yes_no": None, "free_form_answer": ""}
ROWS = {
    "gsm8k": {"question": "Two hens lay 3 eggs each. How many?", "answer": "2 * 3 = <<2*3=6>>6 eggs\n#### 6"},
    "math": {"problem": "What is $2^3$?", "solution": "It is $\\boxed{8}$.", "level": "Level 1", "type": "Algebra"},
    "math500": {"problem": "What is $2^4$?", "solution": "$\\boxed{16}$", "answer": "16", "level": 2},
    "metamathqa": {
        "query": "How many legs do 2 dogs have?",
        "response": "2 * 4 = 8\n#### 8\nThe answer is: 8",
        "type": "GSM_Rephrased",
        "original_question": "Ann has 2 dogs. How many legs are that?",
    },
    "medmcqa": {
        "question": "Which vitamin prevents scurvy?",
        "opa": "A", "opb": "B12", "opc": "C", "opd": "D",
        "cop": 4,  # replaced where a test says so; 4 shows that the file counts from 1
        "exp": "Ascorbic acid.",
    },
    "hotpotqa": {
        "_id": "h1",
        "question": "Where was the author of Emma born?",
        "answer": "Steventon",
        "context": [["Emma", ["Emma is a novel.", " It is by Jane Austen."]], ["Jane Austen", ["Born in Steventon."]]],
    },
    "qasper": {
        "title": "A Paper",
        "abstract": "We parse.",
        "full_text": [{"section_name": "Results", "paragraphs": ["It works.", ""]}],
        "qas": [{"question": "Does it work?", "answers": [{"answer": {**ANNOTATION, "yes_no": True}}]}],
    },
    "qmsum": {
        "general_query_list": [{"query": "Summarize the meeting.", "answer": "They met."}],
        "specific_query_list": [{"query": "What about lunch?", "answer": "Soup.", "relevant_text_span": [["1", "1"]]}],
        "meeting_transcripts": [{"speaker": "Ann", "content": "Hello ."}, {"speaker": "Bob", "content": "Soup it is ."}],
    },
    "truthfulqa": {
        "Question": "Can pigs fly?",
        "Best Answer": "No, they cannot",
        "Correct Answers": "No, they cannot; Pigs do not fly",
        "Incorrect Answers": "Yes; On Sundays",
    },
}  # fmt: skip
OPTIONAL = {"level", "type", "exp", "abstract", "_id", "math500 answer"}  # the last may come from the box too
MAY_BE_EMPTY = {"cop", "general_query_list", "specific_query_list", "Correct Answers", "Incorrect Answers"}
REQUIRED = [
    (name, column) for name in ROWS for column in ROWS[name] if OPTIONAL.isdisjoint({column, f"{name} {column}"})
]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def part_of(name):
    return next(iter(DATA_SETS[name].parts))


def write_rows(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load_rows(folder, name, *rows):
    return load(name, write_rows(folder / "rows.jsonl", *rows), part_of(name))


def load_row(folder, name, row):
    (question, *_) = load_rows(folder, name, row).questions
    return question


def posed(task, split, text, content=""):
    return Question(
        question_id=f"{task}-{split}-{text}", task=task, split=split, level=0, text=text, solution="", answer="1",
        kind="number", content=content or content_of(text), quantities=[],
    )  # fmt: skip


def without_ids(questions):
    return [q.model_copy(update={"question_id": ""}) for q in questions]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")


# The real files


@pytest.mark.parametrize("file", FILES)
def test_real_files_are_read_whole(file):
    name, split, count, aside = FILES[file]
    loaded = load(name, shared_data() / file, split)
    assert (len(loaded.questions), len(loaded.set_aside)) == (count, aside)
    assert len({q.question_id for q in loaded.questions}) == count
    assert {q.split for q in loaded.questions} <= {"train": {"train", "validation"}, "test": {"test"}}[split]
    assert all(q.task == name and q.text and q.answer and q.content and not q.quantities for q in loaded.questions)


@pytest.mark.parametrize("file", FILES)
def test_real_gold_answers_are_right_against_themselves(file):
    name, split, *_ = FILES[file]
    for q in load(name, shared_data() / file, split).questions:
        assert is_correct(q.answer, q.answer, q.kind), q.question_id


def test_real_gsm8k_rows_lose_commas_and_calculator_notes():
    questions = load("gsm8k", shared_data() / "gsm8k/train.sample.jsonl", "train").questions
    assert all(re.fullmatch(r"-?\d+", q.answer) and q.kind == "number" for q in questions)
    assert sum(len(q.answer) > 3 for q in questions) > 0
    assert not any("<<" in q.solution or "####" in q.solution for q in questions)
    assert questions[0].answer == "5" and questions[0].solution.startswith(
        "In the beginning, Betty has only 100 / 2 = $50."
    )


def test_real_math_rows_have_their_levels_and_golds():
    file = shared_data() / "math/math500.half.jsonl"
    for row, question in zip(map(json.loads, file.open()), load("math500", file).questions, strict=True):
        assert (question.level, question.answer) == (row["level"], row["answer"])
    sample = load("math", shared_data() / "math/test.sample.jsonl").questions
    assert {q.level for q in sample} == {1, 2, 3, 4, 5}
    assert sample[0].answer == "4,6,14,15"


def test_real_boxed_golds_agree_with_the_answers_published_beside_them():
    for row in map(json.loads, (shared_data() / "math/math500.half.jsonl").open()):
        gold = boxed_gold(row["problem"], row["solution"])
        assert gold == row["answer"] or is_correct(f"${gold}$", f"${row['answer']}$")


def test_real_problems_whose_gold_is_not_the_last_box_keep_all_answers_or_are_set_aside():
    file = shared_data() / "math/multi_boxed_golds.jsonl"
    loaded = load("math", file)
    annotated = [row["annotated_answer"] for row in map(json.loads, file.open()) if row["human_type"] == "Set"]
    for question, answer in zip(loaded.questions, annotated, strict=True):
        assert sorted(re.split(r",\s*", question.answer)) == sorted(re.split(r",\s*", answer))
    (aside,) = loaded.set_aside
    assert aside.row == 5 and "(3,-5); (0,0)" in aside.reason


def test_real_metamathqa_rows_are_known_by_the_question_they_reword():
    questions = load("metamathqa", shared_data() / "metamathqa/rows.json", "train").questions
    assert [(q.answer, q.kind) for q in questions] == [("\\sqrt{5}", "latex"), ("752", "number"), ("75", "number")]
    assert questions[2].content.startswith("mark is buying asphalt") and "costs 75" in questions[2].content
    assert "unknown variable x" in questions[2].text
    assert questions[1].solution.endswith("16 * $47 = $752.")


def test_real_medmcqa_options_stand_in_the_text():
    first = load("medmcqa", shared_data() / "medmcqa/test.sample.jsonl").questions[1]
    assert first.text.endswith(
        "A) Plasmodium malariae and vivax\nB) Plasmodium falciparum and vivax\n"
        "C) Plasmodium vivax and ovale\nD) Plasmodium ovale and malariae"
    )
    assert (first.answer, first.kind) == ("C", "choice")


def test_real_documents_stand_before_the_question_a_line_a_paragraph_or_turn():
    hotpot = load("hotpotqa", shared_data() / "hotpotqa/distractor.half.json").questions[0]
    document, query = hotpot.text.split("\n\n")
    assert query == "What screenplay was worked on by both Edward Carfagno and Miklos Rozsa?"
    assert len(document.split("\n")) == 10 and hotpot.answer == "Julius Caesar"
    qmsum = load("qmsum", shared_data() / "qmsum/test.sample.jsonl").questions
    assert qmsum[0].text.endswith("\n\nSummarize the whole meeting.")
    assert len({q.content for q in qmsum if q.text.endswith("\n\nSummarize the whole meeting.")}) == 11


def test_real_qasper_answers_are_spelt_as_its_evaluator_does():
    questions = load("qasper", shared_data() / "qasper/fixture_small.json").questions
    assert [q.answer for q in questions] == ["a vocabulary", "Yes", "Unanswerable", "Conclusion paragraph"]
    assert questions[0].references == ["using seed lexicon"]
    assert questions[0].text.split("\n")[:4] == [
        "Minimally Supervised Learning of Affective Events Using Discourse Relations",
        "This is the abstract of the paper",
        "Introduction",
        "A short paragraph",
    ]


def test_real_truthfulqa_rows_bring_right_and_wrong_answers():
    first = load("truthfulqa", shared_data() / "truthfulqa/TruthfulQA.sample.csv").questions[0]
    assert first.answer == "The precise origin of fortune cookies is unclear"
    assert len(first.references) == 5 and first.answer not in first.references
    assert first.distractors[0] == "Fortune cookies originated in China"


def test_real_math500_and_math_sample_share_no_problem():
    questions = load("math500", shared_data() / "math/math500.half.jsonl").questions
    questions += load("math", shared_data() / "math/test.sample.jsonl").questions
    assert separate(questions) == (questions, [])
    assert len({q.content for q in questions}) == len(questions)


def test_real_math500_problems_are_found_in_math_and_taken_out_of_training():
    folder = shared_data() / "math"
    tests = load("math500", folder / "math500.half.jsonl").questions
    leaked = [q.model_copy(update={"task": "math"}) for q in tests[:40]]
    training = [q.model_copy(update={"split": "train", "text": q.text.upper() + " "}) for q in leaked[:30]]
    kept, shared = separate([*training, *leaked, *tests])
    assert kept == [*leaked, *tests]
    assert shared == [
        {"task": "math", "split": "test", "test set": "math500", "shared": 40, "removed": 0},
        {"task": "math", "split": "train", "test set": "math", "shared": 30, "removed": 30},
        {"task": "math", "split": "train", "test set": "math500", "shared": 30, "removed": 30},
    ]


# The columns of the hub


def columns_of_lists(records):
    return {key: [record[key] for record in records] for key in records[0]}


def qasper_on_the_hub(row):
    qas = [{**qa, "answers": columns_of_lists(qa["answers"])} for qa in row["qas"]]
    return {**row, "full_text": columns_of_lists(row["full_text"]), "qas": columns_of_lists(qas)}


TO_HUB = {
    "gsm8k": dict,
    "math": dict,
    "math500": dict,
    "metamathqa": dict,
    "medmcqa": lambda row: {**row, "cop": row["cop"] - 1},
    "hotpotqa": lambda row: {
        **{("id" if key == "_id" else key): value for key, value in row.items()},
        "context": {"title": [t for t, _ in row["context"]], "sentences": [s for _, s in row["context"]]},
    },
    "qasper": qasper_on_the_hub,
    "qmsum": dict,
    "truthfulqa": lambda row: {
        "question": row["Question"],
        "best_answer": row["Best Answer"],
        "correct_answers": row["Correct Answers"].split("; "),
        "incorrect_answers": row["Incorrect Answers"].split("; "),
    },
}


@pytest.mark.parametrize("name", ROWS)
def test_a_copy_of_the_hub_data_set_gives_the_questions_of_the_original_file(name, tmp_path, cache):
    part = part_of(name)
    original = load_rows(tmp_path, name, ROWS[name]).questions
    hub = Dataset.from_list([TO_HUB[name](ROWS[name])])
    if name == "medmcqa":  # alone, a 3 does not tell where counting starts
        hub = Dataset.from_list([{**hub[0]}, {**hub[0], "cop": 0}]).cast_column("cop", ClassLabel(names=list("abcd")))
    hub.to_parquet(tmp_path / "hub" / f"{DATA_SETS[name].parts[part]}-00000-of-00001.parquet")
    for source in (
        tmp_path / "hub",
        next((tmp_path / "hub").iterdir()),
    ):  # the folder through `datasets`, the file alone
        questions = load(name, source, part).questions
        assert without_ids(questions[: len(original)]) == without_ids(original)


def test_a_copy_with_a_card_is_read_by_its_configuration(tmp_path, cache):
    for folder, answer in (("main", "6"), ("socratic", "7")):
        row = {**ROWS["gsm8k"], "answer": f"#### {answer}"}
        Dataset.from_list([row]).to_parquet(tmp_path / "hub" / folder / "test-00000-of-00001.parquet")
    configs = [
        f"- config_name: {n}\n  data_files:\n  - split: test\n    path: {n}/test-*\n" for n in ("main", "socratic")
    ]
    (tmp_path / "hub" / "README.md").write_text(f"---\nconfigs:\n{''.join(configs)}---\n")
    assert [q.answer for q in load("gsm8k", tmp_path / "hub").questions] == ["6"]
    with pytest.raises(StudyError, match=r"hub, train: not loaded \(.*train.*\); check name"):
        load("gsm8k", tmp_path / "hub", "train")


def test_a_changed_copy_of_a_hub_data_set_is_read_anew(tmp_path, cache):
    for answer in ("6", "7"):
        Dataset.from_list([{**ROWS["gsm8k"], "answer": f"#### {answer}"}]).to_parquet(tmp_path / "hub/test.parquet")
        assert [q.answer for q in load("gsm8k", tmp_path / "hub").questions] == [answer]


def test_a_hub_that_is_out_of_reach_is_one_line():
    program = "from agentark.tasks.datasets import load; load('gsm8k', revision='740312a')"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    last = done.stderr.strip().split("\n")[-1]
    assert last.startswith("agentark.StudyError: openai/gsm8k, test: not loaded (") and last.endswith("and network")


def test_medmcqa_counts_options_from_one_in_its_files_and_from_nought_on_the_hub(tmp_path):
    def answers(*numbers):
        return [
            q.answer
            for q in load_rows(tmp_path, "medmcqa", *({**ROWS["medmcqa"], "cop": n} for n in numbers)).questions
        ]

    assert answers(1, 2, 3, 4) == ["A", "B", "C", "D"]
    assert answers(0, 1, 2, 3) == ["A", "B", "C", "D"]
    for numbers, found in (((1, 2, 3), "neither 0 nor 4 occurs"), ((0, 4), "both 0 and 4 occur")):
        with pytest.raises(StudyError, match=f"rows.jsonl: does cop count from 0 or from 1. {found}"):
            answers(*numbers)


@pytest.mark.parametrize("label", [-1, None])
def test_a_medmcqa_row_without_a_public_label_is_set_aside(label, tmp_path):
    rows = [{**ROWS["medmcqa"], "cop": cop} for cop in (0, label, 3)]
    loaded = load_rows(tmp_path, "medmcqa", *rows)
    assert [q.answer for q in loaded.questions] == ["A", "D"]
    assert [(a.row, "no label" in a.reason) for a in loaded.set_aside] == [(2, True)]


# Original files


def test_a_folder_gives_the_files_that_bear_the_name_of_the_split(tmp_path):
    for split, n in (("train", 3), ("test", 2)):
        for i in range(n):
            path = tmp_path / "MATH" / split / "algebra" / f"{i}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({**ROWS["math"], "problem": f"What is {i} in {split}?"}))
    assert [q.text for q in load("math", tmp_path / "MATH", "test").questions] == [
        "What is 0 in test?",
        "What is 1 in test?",
    ]
    assert len(load("math", tmp_path / "MATH", "train").questions) == 3
    with pytest.raises(StudyError, match="no file name here contains the split 'validation'"):
        load("medmcqa", tmp_path / "MATH", "test")


def test_a_file_alone_in_its_folder_needs_no_name_of_a_split(tmp_path):
    with (tmp_path / "TruthfulQA.csv").open("w") as file:
        writer = csv.DictWriter(file, ROWS["truthfulqa"])
        writer.writeheader()
        writer.writerow(ROWS["truthfulqa"])
    (question,) = load("truthfulqa", tmp_path).questions
    assert (question.references, question.distractors) == (["Pigs do not fly"], ["Yes", "On Sundays"])


def test_json_lines_in_a_json_file_are_read(tmp_path):
    assert len(load("gsm8k", write_rows(tmp_path / "test.json", ROWS["gsm8k"], ROWS["gsm8k"])).questions) == 2


def test_questions_survive_the_study_table(tmp_path):
    questions = [q for name in ROWS for q in load_rows(tmp_path, name, ROWS[name]).questions]
    write_table(questions, tmp_path / "questions.parquet")
    assert read_table(tmp_path / "questions.parquet", Question) == questions


@pytest.mark.parametrize("name", ROWS)
def test_questions_of_one_data_set_survive_the_study_table_alone(name, tmp_path):
    questions = load_rows(tmp_path, name, ROWS[name]).questions
    write_table(questions, tmp_path / "questions.parquet")
    assert read_table(tmp_path / "questions.parquet", Question) == questions


def test_a_question_without_references_is_read_as_one_with_none():
    fields = posed("gsm8k", "test", "How many?").model_dump(exclude={"references", "distractors"})
    assert Question(**fields).references == Question(**fields).distractors == []


# Rows and files that are at fault


@pytest.mark.parametrize("how", ["missing", "empty", "of the wrong type"])
@pytest.mark.parametrize(("name", "column"), REQUIRED)
def test_a_column_that_is_missing_empty_or_of_the_wrong_type_sets_the_row_aside(name, column, how, tmp_path):
    bad = {k: v for k, v in ROWS[name].items() if k != column}
    if how == "empty":
        bad[column] = None if column in MAY_BE_EMPTY else type(ROWS[name][column])()
    elif how == "of the wrong type":
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
def test_a_row_without_a_question_or_a_gold_answer_is_set_aside_with_the_reason(name, change, reason, tmp_path):
    loaded = load_rows(tmp_path, name, ROWS[name], {**ROWS[name], **change})
    assert [a.row for a in loaded.set_aside] == [2]
    assert reason in loaded.set_aside[0].reason


def test_options_that_contradict_the_answer_beside_them_set_the_row_aside(tmp_path):
    row = {"question": "Which?", "options": dict(zip("ABCD", "wxyz", strict=True)), "answer_idx": "B", "answer": "x"}
    loaded = load_rows(tmp_path, "medmcqa", row, {**row, "answer": "z"}, {**row, "answer_idx": "E"})
    assert [q.answer for q in loaded.questions] == ["B"]
    assert [a.reason for a in loaded.set_aside] == [
        "answer_idx is B, but column answer is 'z', so the answer is ambiguous",
        "the right option is 'E', not a letter from A to D",
    ]


def test_one_bad_question_of_a_paper_leaves_the_others(tmp_path):
    good = ROWS["qasper"]["qas"][0]
    loaded = load_rows(tmp_path, "qasper", {**ROWS["qasper"], "id": "p1", "qas": [good, {"question": "Why?"}, good]})
    assert len(loaded.questions) == 2
    assert [(a.row, a.key, a.reason) for a in loaded.set_aside] == [(1, "p1 question 2", "column answers is missing")]


def test_a_broken_line_is_set_aside_by_its_number(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", ROWS["gsm8k"], [1], ROWS["gsm8k"])
    path.write_text(path.read_text() + "\n" + json.dumps(ROWS["gsm8k"])[:-9])
    loaded = load("gsm8k", path)
    assert [q.question_id for q in loaded.questions] == ["gsm8k-test-000001", "gsm8k-test-000003"]
    assert [(a.row, a.reason[:24]) for a in loaded.set_aside] == [
        (2, "the row is a list, not a"),
        (5, "the line is not JSON (Un"),
    ]


def test_a_csv_row_of_another_length_is_set_aside(tmp_path):
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
def test_a_file_that_cannot_be_read_at_all_is_one_line_that_names_it(file, content, tmp_path):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(StudyError) as error:
        load("gsm8k", tmp_path / file)
    assert str(error.value).startswith(str(tmp_path / file)) and "\n" not in str(error.value)


def test_a_truncated_parquet_file_is_one_line_that_names_it(tmp_path):
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
def test_a_wrong_name_split_or_source_is_an_error_that_says_what_to_do(arguments, message):
    with pytest.raises(StudyError, match=message):
        load(*arguments)


@given(st.sampled_from(REQUIRED), JSON_VALUES)
@example(("hotpotqa", "context"), {"title": ["a"]})
@example(("qasper", "qas"), {"question": [None], "answers": [{"answer": [None]}]})
@example(("truthfulqa", "Correct Answers"), [""])
@example(("qmsum", "specific_query_list"), [{"query": "\ud800", "answer": "x"}])
def test_whatever_a_column_holds_the_row_is_read_or_set_aside(tmp_path_factory, which, value):
    name, column = which
    folder = tmp_path_factory.mktemp("rows")
    whole = load_rows(folder, name, ROWS[name]).questions
    try:
        loaded = load_rows(folder, name, ROWS[name], {**ROWS[name], column: value}, ROWS[name])
    except StudyError as error:  # a label that leaves open where labels start
        assert "does cop count" in str(error)
        return
    assert without_ids(loaded.questions[: len(whole)]) == without_ids(loaded.questions[-len(whole) :])
    assert {a.row for a in loaded.set_aside} <= {2}
    assert len(loaded.questions) + len(loaded.set_aside) > 2 * len(whole)


# Boxes


BALANCED = st.recursive(
    st.text("ab1+ \\,", max_size=4).map(lambda s: s.replace("\\", "\\{")),
    lambda t: st.lists(t, max_size=3).map(lambda p: "{" + "".join(p) + "}"),
)


@given(st.lists(BALANCED, max_size=3))
def test_boxes_are_read_with_the_braces_within_them(contents):
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


def test_several_answers_asked_for_are_all_the_answer_and_two_forms_of_one_are_not():
    asked = "Enter the solutions, separated by commas."
    assert boxed_gold(asked, r"$x = \boxed{-1}$ or $x = \boxed{2}$") == "-1, 2"
    assert boxed_gold(asked, r"\boxed{1/2}, that is \boxed{0.5}") == "0.5"
    with pytest.raises(StudyError, match="different answers"):
        boxed_gold("Write it without commas.", r"\boxed{1} or \boxed{2}")


def test_the_same_answer_boxed_twice_is_one_answer():
    assert boxed_gold("What is it?", r"\boxed{x + 11} or \boxed{11+x}") == "11+x"
    assert boxed_gold("What is it?", r"\boxed{ 156 } or again \boxed{156}") == "156"


# Splits and overlaps


@given(st.text())
def test_the_content_of_a_content_is_itself(text):
    assert content_of(content_of(text)) == content_of(text)


@given(
    st.lists(st.sampled_from(["ann", "has", "3", "eggs", "x", "-", "+", "4.5"]), max_size=8), st.sampled_from(" \n\t")
)
def test_case_spaces_and_punctuation_do_not_change_the_content(words, space):
    assert content_of(f"{space}{space.join(words)}?!".upper()) == content_of(f"“{' '.join(words)}”")


def test_signs_and_numbers_are_part_of_the_content():
    contents = [
        content_of(t) for t in ("What is 3+5?", "What is 3-5?", "What is 3.5?", "What is 35?", "What is $3^5$?")
    ]
    assert len(set(contents)) == 5
    assert content_of("A well-known “1,000 m” race") == content_of("a well known 1000 m race")


def test_validation_is_carved_from_training_by_content(tmp_path):
    rows = [{**ROWS["gsm8k"], "question": f"How many are {i}?"} for i in range(1000)]
    questions = load_rows(tmp_path, "gsm8k", *rows).questions
    assert all((q.split == "validation") == (split_of(q.content) == "validation") for q in questions)
    assert Counter(q.split for q in questions)["validation"] == pytest.approx(50, abs=25)


def test_rewordings_of_one_question_are_all_for_training_or_all_for_validation(tmp_path):
    for i in range(60):
        rows = [{**ROWS["metamathqa"], "query": f"{i}{j}?", "original_question": f"{i}?"} for j in range(3)]
        assert len({q.split for q in load_rows(tmp_path, "metamathqa", *rows).questions}) == 1


def test_a_rewording_of_a_test_question_is_taken_out_of_training(tmp_path):
    (rewording,) = load_rows(tmp_path, "metamathqa", ROWS["metamathqa"]).questions
    for text in (ROWS["metamathqa"]["original_question"], ROWS["metamathqa"]["query"]):
        test = posed("gsm8k", "test", text)
        assert separate([rewording, test])[0] == [test]


ASKED = st.lists(
    st.builds(
        posed,
        st.sampled_from(["gsm8k", "math", "math500", "metamathqa"]),
        st.sampled_from(["train", "validation", "test"]),
        st.sampled_from(["One?", "one", "Two?", "Three?", "Four?"]),
        st.sampled_from(["", "two", "five"]),
    ),
    max_size=12,
)


@given(ASKED)
def test_after_separation_no_training_question_is_in_a_test_set_and_nothing_else_is_missing(questions):
    kept, shared = separate(questions)
    tests = {q.content for q in questions if q.split == "test"}

    def leaks(q):
        return q.split != "test" and bool({q.content, content_of(q.text)} & tests)

    assert kept == [q for q in questions if not leaks(q)]
    assert separate(kept) == (kept, [row for row in shared if row["split"] == "test"])
    removed = Counter(q.task for q in questions if leaks(q))
    for task, count in removed.items():
        rows = [row["removed"] for row in shared if row["task"] == task]
        assert max(rows) <= count <= sum(rows)


def test_a_draw_is_decided_by_its_seed_and_never_short():
    questions = [posed("gsm8k", "train", f"{i}?") for i in range(30)] + [posed("math", "train", "other")]
    assert draw(questions, "gsm8k", 9, "train", 1) == draw(questions, "gsm8k", 9, "train", 1)
    assert draw(questions, "gsm8k", 9, "train", 1) != draw(questions, "gsm8k", 9, "train", 2)
    assert {q.task for q in draw(questions, "gsm8k", 30, "train", 1)} == {"gsm8k"}
    with pytest.raises(StudyError, match="gsm8k: only 30 questions in train, not 31"):
        draw(questions, "gsm8k", 31, "train", 1)


# Long documents


TOKENIZER = build_tokenizer()


def tokens_in(text):
    return len(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def about(task, lines, query):
    return posed(task, "test", "\n".join(lines) + "\n\n" + query)


@given(
    st.sampled_from([*UNITS, "gsm8k"]),
    st.lists(
        st.lists(st.sampled_from("soup lunch the budget hello".split()), min_size=1, max_size=9),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 120),
)
def test_a_fitted_question_is_within_budget_and_every_cut_is_marked_and_counted(task, turns, budget):
    lines = [f"{i}: {' '.join(turn)}" for i, turn in enumerate(turns)]
    question = about(task, lines, "What about lunch?")
    fitted, (cut,) = fit([question], TOKENIZER, budget)
    assert bool(fitted) != bool(cut.reason)
    if not fitted:
        assert tokens_in(question.text) > budget
        return
    text = fitted[0].text
    assert tokens_in(text) == cut.tokens <= budget
    assert text.endswith("\n\nWhat about lunch?")
    if cut.left_out == 0:
        assert text == question.text
        return
    shown = text.split("\n\n")[0].split("\n")
    marks = [re.fullmatch(rf"\[{UNITS[task]} left out: (\d+)\]", line) for line in shown]
    assert sum(int(mark[1]) for mark in marks if mark) == cut.left_out > 0
    kept = [line for line, mark in zip(shown, marks, strict=True) if not mark]
    assert kept == [line for line in lines if line in kept] and len(kept) == cut.lines - cut.left_out
    assert fitted[0].model_copy(update={"text": question.text}) == question


def test_lines_like_the_question_are_kept_first_and_ends_where_none_is():
    lines = [f"ann: item {i} hello there" for i in range(20)]
    lines[9] = "bob: lunch will be soup"
    (kept,), _ = fit([about("qmsum", lines, "What about lunch?")], TOKENIZER, 40)
    assert lines[9] in kept.text and lines[0] in kept.text and lines[10] not in kept.text
    (kept,), (cut,) = fit([about("qmsum", lines, "Summarize everything.")], TOKENIZER, 40)
    shown = kept.text.split("\n\n")[0].split("\n")
    assert shown[0] == lines[0] and shown[-1] == lines[-1] and f"[turns left out: {cut.left_out}]" in shown


def test_a_question_that_cannot_fit_is_set_aside_with_the_reason():
    long = posed("gsm8k", "test", "one " * 50)
    fitted, cuts = fit([long, about("qmsum", ["ann: hello " * 30], "What?")], TOKENIZER, 20)
    assert fitted == []
    assert [c.reason for c in cuts] == [
        "50 tokens, and more than 20 even with no document",
        "63 tokens, and more than 20 even with one line of its document",
    ]
    with pytest.raises(StudyError, match="a budget of 0 tokens"):
        fit([long], TOKENIZER, 0)


def test_real_meetings_fit_a_small_context_without_losing_a_query():
    questions = load("qmsum", shared_data() / "qmsum/test.sample.jsonl").questions[:12]
    fitted, cuts = fit(questions, TOKENIZER, 1500)
    assert len(fitted) == 12 and all(1200 < c.tokens <= 1500 and c.left_out > 0 and not c.reason for c in cuts)
    assert [f.text.split("\n\n")[1] for f in fitted] == [q.text.split("\n\n")[1] for q in questions]


# Prompts


@pytest.mark.parametrize("kind", ["number", "latex", "choice", "text"])
def test_instructions_ask_in_one_sentence_for_reasoning_and_a_checkable_answer(kind):
    sentence = instructions(kind)
    assert sentence.startswith("Reason step by step") and sentence.count(".") == 1
    assert ("Answer:" if kind == "text" else r"\boxed{}") in sentence


def test_every_data_set_says_where_it_is_from_and_what_it_may_be_used_for():
    for name, data_set in DATA_SETS.items():
        assert (
            data_set.name == name and data_set.licence and data_set.use and "test" in data_set.parts
        ) or name == "metamathqa"
        assert re.fullmatch(r"[\w-]+/[\w-]+", data_set.hub) or name == "qmsum"

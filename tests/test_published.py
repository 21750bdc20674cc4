"""Published data sets: real sample files, and the columns of the hub's copies."""

import csv
import json
import os
import re
import subprocess
import sys

import pytest
from datasets import ClassLabel, Dataset, config
from examples import shared_data
from published_rows import (
    ROWS,
    load_rows,
    part_of,
    published_question,
    without_ids,
    write_rows,
)

from agentark import StudyError
from agentark.answers import is_correct
from agentark.schemas import Question, read_table, write_table
from agentark.tasks.datasets import DATA_SETS, load
from agentark.tasks.datasets.formats import boxed_gold
from agentark.tasks.datasets.overlap import separate

# Each real sample file: its data set and split, the number of questions in it, and of rows set aside.
FILES = {
    "gsm8k/train.sample.jsonl": ("gsm8k", "train", 500, 0),
    "gsm8k/test.sample.jsonl": ("gsm8k", "test", 300, 0),
    "math/math500.half.jsonl": ("math500", "test", 263, 0),
    "math/test.sample.jsonl": ("math", "test", 200, 0),
    "math/multi_boxed_golds.jsonl": ("math", "test", 6, 1),
    "metamathqa/rows.json": ("metamathqa", "train", 3, 0),
    "medmcqa/test.sample.jsonl": ("medmcqa", "test", 99, 1),  # two options of one row are equal
    "medmcqa/test_hard.half.jsonl": ("medmcqa", "test", 48, 0),
    "hotpotqa/distractor.half.json": ("hotpotqa", "test", 47, 0),
    "qasper/fixture_small.json": ("qasper", "test", 4, 0),
    "qmsum/test.sample.jsonl": ("qmsum", "test", 95, 0),
    "truthfulqa/TruthfulQA.sample.csv": ("truthfulqa", "test", 150, 0),
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")


# The real files


@pytest.mark.parametrize("file", FILES)
def test_real_files_are_read_completely(file):
    name, split, count, set_aside = FILES[file]
    loaded = load(name, shared_data() / file, split)
    assert (len(loaded.questions), len(loaded.set_aside)) == (count, set_aside)
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


def test_real_math_rows_have_their_levels_and_gold_answers():
    file = shared_data() / "math/math500.half.jsonl"
    for row, question in zip(map(json.loads, file.open()), load("math500", file).questions, strict=True):
        assert (question.level, question.answer) == (row["level"], row["answer"])
    sample = load("math", shared_data() / "math/test.sample.jsonl").questions
    assert {q.level for q in sample} == {1, 2, 3, 4, 5}
    assert sample[0].answer == "4,6,14,15"


def test_real_boxed_gold_answers_agree_with_the_published_answer_column():
    for row in map(json.loads, (shared_data() / "math/math500.half.jsonl").open()):
        gold = boxed_gold(row["problem"], row["solution"])
        assert gold == row["answer"] or is_correct(f"${gold}$", f"${row['answer']}$")


def test_real_problems_with_several_boxes_keep_all_answers_or_are_set_aside():
    file = shared_data() / "math/multi_boxed_golds.jsonl"
    loaded = load("math", file)
    annotated = [row["annotated_answer"] for row in map(json.loads, file.open()) if row["human_type"] == "Set"]
    for question, answer in zip(loaded.questions, annotated, strict=True):
        assert sorted(re.split(r",\s*", question.answer)) == sorted(re.split(r",\s*", answer))
    (row,) = loaded.set_aside
    assert row.row == 5 and "(3,-5); (0,0)" in row.reason


def test_real_metamathqa_rows_have_the_content_of_their_original_question():
    questions = load("metamathqa", shared_data() / "metamathqa/rows.json", "train").questions
    assert [(q.answer, q.kind) for q in questions] == [("\\sqrt{5}", "latex"), ("752", "number"), ("75", "number")]
    assert questions[2].content.startswith("mark is buying asphalt") and "costs 75" in questions[2].content
    assert "unknown variable x" in questions[2].text
    assert questions[1].solution.endswith("16 * $47 = $752.")


def test_real_medmcqa_options_are_listed_in_the_text():
    first = load("medmcqa", shared_data() / "medmcqa/test.sample.jsonl").questions[1]
    assert first.text.endswith(
        "A) Plasmodium malariae and vivax\nB) Plasmodium falciparum and vivax\n"
        "C) Plasmodium vivax and ovale\nD) Plasmodium ovale and malariae"
    )
    assert (first.answer, first.kind) == ("C", "choice")


def test_real_documents_precede_the_question_with_one_paragraph_or_turn_per_line():
    hotpot = load("hotpotqa", shared_data() / "hotpotqa/distractor.half.json").questions[0]
    document, query = hotpot.text.split("\n\n")
    assert query == "What screenplay was worked on by both Edward Carfagno and Miklos Rozsa?"
    assert len(document.split("\n")) == 10 and hotpot.answer == "Julius Caesar"
    qmsum = load("qmsum", shared_data() / "qmsum/test.sample.jsonl").questions
    assert qmsum[0].text.endswith("\n\nSummarize the whole meeting.")
    assert len({q.content for q in qmsum if q.text.endswith("\n\nSummarize the whole meeting.")}) == 11


def test_real_qasper_answers_are_spelled_as_in_its_evaluator():
    questions = load("qasper", shared_data() / "qasper/fixture_small.json").questions
    assert [q.answer for q in questions] == ["a vocabulary", "Yes", "Unanswerable", "Conclusion paragraph"]
    assert questions[0].references == ["using seed lexicon"]
    assert questions[0].text.split("\n")[:4] == [
        "Minimally Supervised Learning of Affective Events Using Discourse Relations",
        "This is the abstract of the paper",
        "Introduction",
        "A short paragraph",
    ]


def test_real_truthfulqa_rows_have_right_and_wrong_answers():
    first = load("truthfulqa", shared_data() / "truthfulqa/TruthfulQA.sample.csv").questions[0]
    assert first.answer == "The precise origin of fortune cookies is unclear"
    assert len(first.references) == 5 and first.answer not in first.references
    assert first.distractors[0] == "Fortune cookies originated in China"


def test_real_math500_and_math_sample_share_no_problem():
    questions = load("math500", shared_data() / "math/math500.half.jsonl").questions
    questions += load("math", shared_data() / "math/test.sample.jsonl").questions
    assert separate(questions) == (questions, [])
    assert len({q.content for q in questions}) == len(questions)


def test_real_math500_problems_are_found_in_math_and_removed_from_training():
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
    if name == "medmcqa":  # a single label 3 does not show whether labels start at 0 or 1
        hub = Dataset.from_list([{**hub[0]}, {**hub[0], "cop": 0}]).cast_column("cop", ClassLabel(names=list("abcd")))
    hub.to_parquet(tmp_path / "hub" / f"{DATA_SETS[name].parts[part]}-00000-of-00001.parquet")
    # The folder is read through `datasets`, the file directly.
    for source in (tmp_path / "hub", next((tmp_path / "hub").iterdir())):
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


def test_a_changed_copy_of_a_hub_data_set_is_read_again(tmp_path, cache):
    for answer in ("6", "7"):
        Dataset.from_list([{**ROWS["gsm8k"], "answer": f"#### {answer}"}]).to_parquet(tmp_path / "hub/test.parquet")
        assert [q.answer for q in load("gsm8k", tmp_path / "hub").questions] == [answer]


def test_an_unreachable_hub_is_a_one_line_error():
    program = "from agentark.tasks.datasets import load; load('gsm8k', revision='740312a')"
    completed = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    last = completed.stderr.strip().split("\n")[-1]
    assert last.startswith("agentark.StudyError: openai/gsm8k, test: not loaded (") and last.endswith("and network")


def test_medmcqa_labels_may_start_at_zero_or_one_and_must_show_which(tmp_path):
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


def test_a_folder_gives_the_files_whose_path_contains_the_split(tmp_path):
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


def test_the_only_file_of_a_folder_needs_no_split_in_its_name(tmp_path):
    with (tmp_path / "TruthfulQA.csv").open("w") as file:
        writer = csv.DictWriter(file, ROWS["truthfulqa"])
        writer.writeheader()
        writer.writerow(ROWS["truthfulqa"])
    (question,) = load("truthfulqa", tmp_path).questions
    assert (question.references, question.distractors) == (["Pigs do not fly"], ["Yes", "On Sundays"])


def test_json_lines_in_a_json_file_are_read(tmp_path):
    assert len(load("gsm8k", write_rows(tmp_path / "test.json", ROWS["gsm8k"], ROWS["gsm8k"])).questions) == 2


def test_questions_are_unchanged_by_a_round_trip_through_the_study_table(tmp_path):
    questions = [q for name in ROWS for q in load_rows(tmp_path, name, ROWS[name]).questions]
    write_table(questions, tmp_path / "questions.parquet")
    assert read_table(tmp_path / "questions.parquet", Question) == questions


@pytest.mark.parametrize("name", ROWS)
def test_questions_of_a_single_data_set_are_unchanged_by_the_round_trip(name, tmp_path):
    questions = load_rows(tmp_path, name, ROWS[name]).questions
    write_table(questions, tmp_path / "questions.parquet")
    assert read_table(tmp_path / "questions.parquet", Question) == questions


def test_missing_references_and_distractors_are_read_as_empty_lists():
    fields = published_question("gsm8k", "test", "How many?").model_dump(exclude={"references", "distractors"})
    assert Question(**fields).references == Question(**fields).distractors == []

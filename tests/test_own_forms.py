"""Formats of users' own questions: answers, choices, folders, splits and configurations."""

import json
import re

import datasets
import pandas as pd
import pytest
from test_own_questions import STUDENT, question_of, write_rows

from agentark import StudyError
from agentark.answers import is_correct
from agentark.stage.run import on_hub
from agentark.tasks.datasets import load, own, own_data_set
from agentark.tasks.datasets.overlap import separate
from agentark.tasks.questions import Counts, collect

ROWS = [{"question": f"What is {n} plus {n}?", "answer": 2 * n} for n in range(100)]
WORDS = ["red", "blue", "green", "pink", "grey", "brown", "black", "white", "gold", "lime"]
STEM = [
    {"question": "Which word is a colour?", "answer": WORDS[n % 10], "choices": [WORDS[n % 10], f"item{n}", "stone"]}
    for n in range(80)
]


def loaded(source, split="train"):
    return load(own_data_set(str(source), {}), split=split)


@pytest.mark.parametrize(
    "answer",
    ["12", "1,250", "-5", "$18", "5 €", "18 USD", "Rs. 50", "50%", "50 percent", "5 km", "5km", "60 km/h", "9.8 m/s^2",
     "20°C", "25 degrees Celsius", "12 apples", "1.5 million", "3.2 × 10^5", "1/2", "2 1/2 cups", r"\frac{1}{2}",
     "$5 per hour", "10 years old"],
)  # fmt: skip
def test_a_number_with_a_sign_or_unit_is_a_number(answer):
    assert question_of({"question": "q?", "answer": answer})["kind"] == "number"


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        ("July 4, 1776", "july 4, 1776", "March 1, 1776"),
        ("Apollo 11", "the Apollo 11", "Gemini 11"),
        ("COVID-19", "covid-19", "SARS-19"),
        ("x = 5 or x = -5", "x = 5 or x = -5", r"\boxed{-5}"),
        ("007", "007", "7"),
        ("12 Angry Men", "12 angry men", "12"),
        ("44 BC", "44 BC", "44 AD"),
        ("4 july", "4 July", "4 August"),
        ("1990s", "1990s", "1990"),
    ],
)
def test_a_phrase_that_contains_a_number_is_a_text_answer(answer, right, wrong):
    fields = question_of({"question": "q?", "answer": answer})
    assert (fields["kind"], fields["answer"]) == ("text", answer)
    assert is_correct(f"Answer: {right}", answer, "text") and not is_correct(f"Answer: {wrong}", answer, "text")


@pytest.mark.parametrize(
    ("answer", "kind", "final", "solution"),
    [
        ("2+2=<<2+2=4>>4\n#### 4", "number", "4", "2+2=4"),
        ("So many.\n#### 1,250", "number", "1250", "So many."),
        ("#### 4", "number", "4", ""),
        ("It is warm.\n#### Paris", "text", "Paris", "It is warm."),
        (r"Thus $x = \boxed{\frac{1}{2}}$.", "number", r"\frac{1}{2}", r"Thus $x = \boxed{\frac{1}{2}}$."),
        (r"\boxed{x^2 + 1}", "latex", "x^2 + 1", ""),
        (r"\boxed{4", "text", r"\boxed{4", ""),
    ],
)
def test_a_worked_answer_is_reduced_to_its_final_answer(answer, kind, final, solution):
    fields = question_of({"question": "q?", "answer": answer})
    assert (fields["kind"], fields["answer"], fields["solution"]) == (kind, final, solution)
    assert question_of({"question": "q?", "answer": answer, "solution": "mine"})["solution"] == "mine"


@pytest.mark.parametrize(
    ("choices", "answer", "letter"),
    [
        ([6, 8, 10], 8, "B"),
        ([6, 8, 10], "b", "B"),
        ([6, 8.5, 10], 8.5, "B"),
        ([6, 8, 10], 8.0, "B"),
        (["cat", "cow"], "(B)", "B"),
        (["cat", "cow"], "B)", "B"),
        (["cat", "cow"], "b.", "B"),
        (["cat", "cow"], "B) cow", "B"),
        (["cat", "cow"], "Answer: B", "B"),
        (["A) cat", "B) cow"], "B) cow", "B"),
        (["(a) cat", "(b) cow"], "cow", "B"),
        (["A. cat", "B. cow"], "B", "B"),
        ({"A": "cat", "B": "cow"}, "B", "B"),
        ({"text": ["cat", "cow"], "label": ["A", "B"]}, "B", "B"),
        ('["cat", "cow"]', "cow", "B"),
        ("['cat', 'cow']", "cow", "B"),
        ("cat | cow", "b", "B"),
        ("cat;cow", "cow", "B"),
        ("cat, cow", "cow", "B"),
        ("A) cat\nB) cow", "cow", "B"),
        ("A) cat B) cow", "cow", "B"),
        ("6, 8, 10", "8", "B"),
        (["+", "-", "*"], "-", "B"),
        (["A", "B", "AB"], "b", "B"),
        ([True, False], "false", "B"),
        ({"text": ["one", "two", "2"], "label": ["1", "2", "3"]}, "2", "B"),
        ({"text": ["cow", "cat"], "label": ["B", "A"]}, "B", "B"),
        ([{"label": "A", "text": "cat"}, {"label": "B", "text": "cow"}], "B", "B"),
        ({"a": "cat", "b": "cow"}, "b", "B"),
        ({"1": "cat", "2": "cow"}, 2, "B"),
        ({"A": "cat", "B": "cow", "C": None}, "cow", "B"),
        ('{"A": "cat", "B": "cow"}', "B", "B"),
        ('{"text": ["cat", "cow"], "label": ["1", "2"]}', "2", "B"),
        ("{'text': array(['cat, or', 'cow'],\n dtype=object), 'label': array(['A', 'B'], dtype=object)}", "B", "B"),
        ("array(['cat', 'cow'], dtype=object)", "cow", "B"),
        ("['cat, or' 'cow'\n 'dog']", "cow", "B"),
        ("(A) cat (B) cow", "B", "B"),
        ("(0, 1) | (1, 0)", "(1, 0)", "B"),
        ("[0, 1) | (1, 2]", "(1, 2]", "B"),
        ({"text": ["A) cat", "B) cow"], "label": ["A", "B"]}, "B", "B"),
        (["AaBb", "aabb"], "B", "B"),
    ],
)
def test_choices_and_their_answer_are_read_in_common_formats(choices, answer, letter):
    fields = question_of({"question": "q?", "answer": answer, "choices": choices})
    assert (fields["kind"], fields["answer"]) == ("choice", letter)
    assert fields["text"].split("\n")[1].startswith("A) ") and fields["text"].count("B)") == 1


@pytest.mark.parametrize(
    ("choices", "answer", "message"),
    [
        (["b", "a"], "A", "could be A or B; give the text"),
        (["cat", "cow"], "B) cat", "neither a letter"),
        (["cat", "cow", "cow"], "cow", "could be B or C"),
        (["cat", None], "A", "choice 2 is empty or no text"),
        (["cat", "cow", "cow"], "B", "two choices are 'cow', so the answer is ambiguous"),
        (["1", "1/2", "0.5"], "B", "two choices are '1/2', so the answer is ambiguous"),
        (["8", "2", "24", "120"], 2, "could be the text or the place of a choice; give the letter"),
        ({"text": ["cat", "cow"], "label": ["A"]}, "A", "not one label for each"),
        ({"text": ["cat", "cow"], "label": ["A", "A"]}, "A", "not one label for each"),
        ('["cat", "cow"', "cow", "is not a list of texts"),
        ("['Paris', nan, 'Rome']", "Rome", "is not a list of texts"),
        ("{'text': array(['cat', 'cow'], dtype=object", "cow", "is not a list of texts"),
    ],
)
def test_ambiguous_answers_and_malformed_choices_are_reported(choices, answer, message):
    with pytest.raises(StudyError, match=message):
        question_of({"question": "q?", "answer": answer, "choices": choices})


TEXTS = [["8", "2", "24", "120"], ["cat", "cow", "duck", "dog"], ["9", "1", "3", "4"]]


@pytest.mark.parametrize(
    ("answers", "letters"),
    [
        ([2, 0, 3], "CAD"),
        (["2", "0", "3"], "CAD"),
        ([2.0, 0.0, 3.0], "CAD"),
        ([2, 1, 3], "CBD"),  # 1 is not the text of a choice
        ([2, 4, 1], "BDA"),  # places counted from 1: 4 is not the text of a choice
        ([24, "B", 9], "CBA"),
        (["2", "cow", "1"], "BBB"),  # all are texts of choices
        ([24, None, 3], "C-C"),
        ([2, None, 3], "---"),
        ([2, 0, 7], "CA-"),
    ],
)
def test_numeric_answers_of_a_file_are_places_or_texts_of_choices(tmp_path, answers, letters):
    for suffix in (".jsonl", ".csv"):
        rows = [
            {"question": f"Which of {n}?", "answer": answer, "choices": texts if suffix == ".jsonl" else str(texts)}
            for n, (texts, answer) in enumerate(zip(TEXTS, answers, strict=True))
        ]
        source = write_rows(tmp_path / f"mine{suffix}", rows)
        found = {q.question_id: q.answer for split in ("train", "test") for q in questions_of_part(source, split)}
        assert "".join(found.get(n, "-") for n in range(1, 4)) == letters


def questions_of_part(source, split):
    try:
        questions = loaded(source, split).questions
    except StudyError:  # this part has no question
        return []
    return [q.model_copy(update={"question_id": int(q.question_id[-6:])}) for q in questions]


def test_choices_in_a_csv_file_are_read(tmp_path):
    rows = [{"question": f"Which is {n}?", "answer": "b", "choices": f'["{n - 1}", "{n}"]'} for n in range(60)]
    rows += [{"question": "Which city is the capital of France?", "answer": "Paris", "choices": ""}]
    found = [q for split in ("train", "test") for q in loaded(write_rows(tmp_path / "x.csv", rows), split).questions]
    assert len(found) == 61 and {q.kind for q in found} == {"choice", "text"}


def test_equal_stems_with_different_choices_are_different_questions(tmp_path):
    contents = {question_of(row)["content"] for row in STEM}
    reordered = question_of({**STEM[0], "choices": STEM[0]["choices"][::-1]})
    assert len(contents) == 80 and reordered["content"] == question_of(STEM[0])["content"]
    write_rows(tmp_path / "mine" / "train.jsonl", STEM[:60])
    write_rows(tmp_path / "mine" / "test.jsonl", [*STEM[60:], STEM[0]])
    counts = Counts(train=50, validation=0, test=20, test_other=0, test_hard=0)
    drawn = collect([str(tmp_path / "mine")], "mine", counts, 0, 1000, STUDENT).questions
    assert len(drawn) == 70 and {q.content for q in drawn if q.split == "train"} < contents - {reordered["content"]}
    single = write_rows(tmp_path / "single.jsonl", STEM)
    assert all(len(loaded(single, split).questions) > 3 for split in ("train", "test"))


def test_overlap_with_a_published_question_ignores_the_choices(tmp_path):
    row = {"question": "Which word is a colour?", "answer": "A", "choices": ["red", "stone"]}
    (mine,) = (
        loaded(write_rows(tmp_path / "a" / "train.jsonl", [row]), "train").questions
        or loaded(tmp_path / "a", "test").questions
    )
    bare = mine.model_copy(update={"task": "medmcqa", "content": "which word is a colour"})
    for train, test in ((mine, bare), (bare, mine)):
        pair = [train.model_copy(update={"split": "train"}), test.model_copy(update={"split": "test"})]
        assert separate(pair)[0] == pair[1:]


def test_repeated_questions_count_once_and_contradictory_ones_are_set_aside(tmp_path):
    rows = [{"question": f"How is {n} spelt?", "answer": f"word{n}"} for n in range(30)]
    source = write_rows(
        tmp_path / "mine.jsonl", [*rows * 8, {**rows[3], "answer": "other"}, {**rows[4], "answer": "Word4."}]
    )
    found = [q for split in ("train", "test") for q in loaded(source, split).questions]
    set_aside = [a for split in ("train", "test") for a in loaded(source, split).set_aside]
    assert sorted(q.answer for q in found) == sorted(f"word{n}" for n in range(30) if n != 3)
    assert len(found) + len(set_aside) == 242
    assert {a.reason.split(" of ")[0] for a in set_aside if a.row == 35} == {"the same question as row 5"}
    assert any(a.row == 4 and "row 241" in a.reason and "with another answer" in a.reason for a in set_aside)
    signs = [{"question": f"What is {n} {sign}?", "answer": n} for n, sign in ((6, "(2 * 3)"), (7, "2 * (3)"))]
    source = write_rows(tmp_path / "signs" / "train.jsonl", [*ROWS, *signs])
    assert not loaded(source.parent).set_aside


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["train.jsonl"], None),
        (["test.jsonl"], None),
        (["questions.jsonl"], None),
        (["a.jsonl", "b.jsonl"], None),
        (["training-data.jsonl", "testing-data.jsonl"], (50, 50)),
        (["TRAIN.JSONL", "Test.Jsonl"], (50, 50)),
        (["train.jsonl", "validation.jsonl"], (50, 50)),
        (["test-prep/train.jsonl", "test-prep/test.jsonl"], (50, 50)),
        (["training-data/a.jsonl", "test/a.jsonl"], (50, 50)),
        (["traindata.jsonl", "testdata.jsonl"], (50, 50)),
        (["train.jsonl", "eval.jsonl"], (50, 50)),
        (["train.jsonl", "held_out.jsonl"], (50, 50)),
        (["trainset.jsonl", "heldout.jsonl"], (50, 50)),
    ],
)
def test_a_folder_without_both_parts_is_split_like_a_file(tmp_path, names, parts):
    folder = tmp_path / "training-data"
    for i, name in enumerate(names):
        write_rows(folder / name, ROWS[i :: len(names)])
    sizes = [len(loaded(folder, split).questions) for split in ("train", "test")]
    assert tuple(sizes) == parts if parts else sum(sizes) == 100 and 5 < sizes[1] < 30


def test_an_uppercase_suffix_is_read_and_a_folder_without_files_is_reported(tmp_path):
    source = write_rows(tmp_path / "Mine.JSONL", ROWS)
    assert own.task_of(str(source)) == "Mine" and own.is_own("Mine.JSONL")
    assert len(loaded(source).questions) > 50
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError, match="empty: no file with a suffix"):
        loaded(tmp_path / "empty")


@pytest.mark.parametrize(
    ("names", "unread"),
    [(["train.jsonl", "extra.jsonl"], "extra"), (["test.jsonl", "other.jsonl"], "other"),
     (["train.jsonl", "test.jsonl", "b/more.csv"], "b/more")],
)  # fmt: skip
def test_a_file_that_would_not_be_read_is_reported(tmp_path, names, unread):
    for name in (*names, "dataset_info.json"):
        write_rows(tmp_path / name, ROWS[:9])
    with pytest.raises(StudyError, match=rf"{unread}\.\w+: not read, .* put train or test into its name"):
        loaded(tmp_path)


@pytest.mark.parametrize(("name", "n"), [("train", -1), ("test_hard", -2)])
def test_negative_or_only_zero_numbers_of_questions_are_refused(name, n):
    counts = dict(train=1, validation=1, test=1, test_other=1, test_hard=0)
    with pytest.raises(StudyError, match=rf"questions\.{name} is {n}; give 0 or a larger number"):
        Counts(**counts | {name: n})
    with pytest.raises(StudyError, match="ask for at least one"):
        Counts(**dict.fromkeys(counts, 0))


def test_too_few_training_questions_outside_the_test_set_are_reported(tmp_path):
    for part in ("train", "test"):
        write_rows(tmp_path / "mine" / f"{part}.jsonl", ROWS)
    counts = Counts(train=5, validation=0, test=5, test_other=0, test_hard=0)
    with pytest.raises(StudyError, match=r"only 0 questions in train \(\d+ more are also in a test set and removed\)"):
        collect([str(tmp_path / "mine")], "mine", counts, 0, 1000, STUDENT)


def hub(monkeypatch, **splits):
    """Mock a data set on the hub with these splits; names of the form config__split give it configurations."""

    def load_dataset(name, config=None, split=None, **more):
        configs = sorted({key.partition("__")[0] for key in splits if "__" in key})
        if configs and config is None:
            raise ValueError(
                f"Config name is missing.\nPlease pick one among the available configs: {configs}\nExample"
            )
        found = {key.removeprefix(f"{config}__"): rows for key, rows in splits.items() if not configs or config in key}
        if split not in found:
            raise ValueError(f'Unknown split "{split}". Should be one of {list(found)}.')
        return found[split]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


@pytest.mark.parametrize(
    ("splits", "parts"),
    [(["train"], None), (["test"], None), (["main"], None), (["train", "test"], (50, 50)),
     (["train", "validation"], (50, 50)), (["auxiliary_train", "dev"], (50, 50))],
)  # fmt: skip
def test_a_hub_data_set_without_both_parts_is_split_like_a_file(monkeypatch, splits, parts):
    hub(monkeypatch, **{split: ROWS[i :: len(splits)] for i, split in enumerate(splits)})
    sizes = [len(loaded("org/name", split).questions) for split in ("train", "test")]
    assert tuple(sizes) == parts if parts else sum(sizes) == 100 and 5 < sizes[1] < 30


def test_a_folder_with_one_parquet_file_is_split(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "mine").mkdir()
    pd.DataFrame([{**row, "answer": str(row["answer"])} for row in ROWS]).to_parquet(
        tmp_path / "mine" / "train.parquet"
    )
    sizes = [len(loaded(tmp_path / "mine", split).questions) for split in ("train", "test")]
    assert sum(sizes) == 100 and 5 < sizes[1] < 30


def test_a_configuration_is_selected_after_a_colon(monkeypatch):
    hub(monkeypatch, main__train=ROWS, other__train=ROWS[:50])
    with pytest.raises(
        StudyError, match=re.escape("org/name has the configurations main, other; name one, as in org/name:main")
    ):
        loaded("org/name")
    assert len(loaded("org/name:other").questions) < 50 < len(loaded("org/name:main").questions)
    assert own.task_of("org/name-1.5:en.v2") == "name-1-5-en-v2" and own.task_of("org/name") == "name"


def test_only_names_of_hub_data_sets_need_the_hub(tmp_path):
    (tmp_path / "mine").mkdir()
    assert on_hub("org/name") and on_hub("org/name:main")
    assert not any(map(on_hub, ("word", "docs/your-own.md", "./mine", str(tmp_path / "mine"), "mine.jsonl")))


def test_the_account_lists_a_row_without_an_answer_once(tmp_path):
    source = tmp_path / "mine.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in [{"question": "x"}, *ROWS]))
    counts = Counts(train=5, validation=0, test=5, test_other=0, test_hard=0)
    account = collect([str(source)], "mine", counts, 0, 1000, STUDENT).account
    assert account["what"].str.contains("row 1: column answer is missing").sum() == 1

"""Collection of the study's questions, generated and published."""

import json
import shutil
from pathlib import Path

import pytest
from examples import shared_data

from agentark import StudyError, root
from agentark.models import loading
from agentark.tasks.datasets import instructions
from agentark.tasks.questions import Counts, collect

STUDENT = root() / "data" / "models" / "qwen3-small"
WANTED = dict(counts=Counts(train=3, validation=2, test=3, test_other=2, test_hard=2), seed=0, room=300)


def test_generated_questions_have_the_requested_counts_per_family_and_split():
    drawn = collect(["word", "equation"], "equation", student=STUDENT, **WANTED)
    found = [(q.task, q.split) for q in drawn.questions]
    assert (
        found
        == [("word", "validation")] * 2
        + [("word", "test")] * 2
        + [("equation", "train")] * 3
        + [("equation", "validation")] * 2
        + [("equation", "test")] * 5
    )
    assert len(drawn.account) == 0


@pytest.fixture
def local(tmp_path) -> Path:
    """Real rows, one folder per data set. One training question is also in the test file, and one row is malformed."""
    data = shared_data()
    for name, file, to in (
        ("gsm8k", "gsm8k/train.sample.jsonl", "train.jsonl"),
        ("gsm8k", "gsm8k/test.sample.jsonl", "test.jsonl"),
        ("qmsum", "qmsum/test.sample.jsonl", "test.jsonl"),
    ):
        (tmp_path / name).mkdir(exist_ok=True)
        shutil.copy(data / file, tmp_path / name / to)
    train = tmp_path / "gsm8k" / "train.jsonl"
    duplicate = (tmp_path / "gsm8k" / "test.jsonl").read_text().splitlines()[0]
    train.write_text(
        train.read_text() + duplicate + "\n" + json.dumps({"question": "How many?", "answer": "many"}) + "\n"
    )
    return tmp_path


def test_published_questions_are_deduplicated_shortened_and_given_instructions(local):
    drawn = collect(["gsm8k", "qmsum"], "gsm8k", student=STUDENT, local=local, **WANTED)
    assert [(q.task, q.split) for q in drawn.questions] == [("gsm8k", "train")] * 3 + [("gsm8k", "validation")] * 2 + [
        ("gsm8k", "test")
    ] * 3 + [("qmsum", "test")] * 2
    assert all(q.text.endswith(f"\n\n{instructions(q.kind)}") for q in drawn.questions)
    tokenizer = loading.load_tokenizer(STUDENT)
    meetings = [q.text.removesuffix(f"\n\n{instructions('text')}") for q in drawn.questions if q.task == "qmsum"]
    assert all(len(tokenizer(text).input_ids) <= 300 and "[turns left out: " in text for text in meetings)
    account = dict(zip(drawn.account["what"], drawn.account["n"], strict=True))
    assert account["train questions loaded"] == 501 and account["train questions also in gsm8k"] == 1
    assert account["documents shortened to 300 tokens"] == 2
    assert any("row 502: column answer does not end in" in what for what in account)


@pytest.mark.parametrize(
    ("tasks", "train_task", "message"),
    [
        (["word", "chess"], "word", "'chess' is unknown"),
        (["word"], "meta", "'meta' is not among `tasks`"),
        (["word", "gsm8k"], "word", "mixes the generated world with published"),
    ],
)
def test_unknown_or_incompatible_tasks_are_reported(tasks, train_task, message):
    with pytest.raises(StudyError, match=message):
        collect(tasks, train_task, student=STUDENT, **WANTED)


def test_a_task_without_a_question_that_fits_is_reported(local):
    with pytest.raises(StudyError, match="qmsum: no question fits into 20 tokens"):
        collect(
            ["gsm8k", "qmsum"],
            "gsm8k",
            student=STUDENT,
            local=local,
            **WANTED | {"room": 20, "counts": Counts(train=0, validation=0, test=0, test_other=2, test_hard=2)},
        )

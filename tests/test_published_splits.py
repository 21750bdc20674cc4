"""Published questions: splits, overlaps between splits, and long documents."""

import re
from collections import Counter

import pytest
from examples import shared_data
from hypothesis import given
from hypothesis import strategies as st
from published_rows import ROWS, load_rows, published_question

from agentark import StudyError
from agentark.pretrain.tiny import build_tokenizer
from agentark.tasks.datasets import DATA_SETS, instructions, load
from agentark.tasks.datasets.content import content_of
from agentark.tasks.datasets.fit import UNITS, fit
from agentark.tasks.datasets.overlap import draw, separate
from agentark.tasks.splits import split_of

# Splits and overlaps


@given(st.text())
def test_content_of_is_idempotent(text):
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


def test_validation_questions_are_taken_from_training_by_content(tmp_path):
    rows = [{**ROWS["gsm8k"], "question": f"How many are {i}?"} for i in range(1000)]
    questions = load_rows(tmp_path, "gsm8k", *rows).questions
    assert all((q.split == "validation") == (split_of(q.content) == "validation") for q in questions)
    assert Counter(q.split for q in questions)["validation"] == pytest.approx(50, abs=25)


def test_rewordings_of_one_question_are_in_the_same_split(tmp_path):
    for i in range(60):
        rows = [{**ROWS["metamathqa"], "query": f"{i}{j}?", "original_question": f"{i}?"} for j in range(3)]
        assert len({q.split for q in load_rows(tmp_path, "metamathqa", *rows).questions}) == 1


def test_rewording_of_a_test_question_is_removed_from_training(tmp_path):
    (rewording,) = load_rows(tmp_path, "metamathqa", ROWS["metamathqa"]).questions
    for text in (ROWS["metamathqa"]["original_question"], ROWS["metamathqa"]["query"]):
        test = published_question("gsm8k", "test", text)
        assert separate([rewording, test])[0] == [test]


QUESTION_LISTS = st.lists(
    st.builds(
        published_question,
        st.sampled_from(["gsm8k", "math", "math500", "metamathqa"]),
        st.sampled_from(["train", "validation", "test"]),
        st.sampled_from(["One?", "one", "Two?", "Three?", "Four?"]),
        st.sampled_from(["", "two", "five"]),
    ),
    max_size=12,
)


@given(QUESTION_LISTS)
def test_separation_removes_only_the_training_questions_that_are_in_a_test_set(questions):
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


def test_draw_is_determined_by_its_seed_and_too_few_questions_are_an_error():
    questions = [published_question("gsm8k", "train", f"{i}?") for i in range(30)] + [
        published_question("math", "train", "other")
    ]
    assert draw(questions, "gsm8k", 9, "train", 1) == draw(questions, "gsm8k", 9, "train", 1)
    assert draw(questions, "gsm8k", 9, "train", 1) != draw(questions, "gsm8k", 9, "train", 2)
    assert {q.task for q in draw(questions, "gsm8k", 30, "train", 1)} == {"gsm8k"}
    with pytest.raises(StudyError, match="gsm8k: only 30 questions in train, not 31"):
        draw(questions, "gsm8k", 31, "train", 1)


# Long documents


TOKENIZER = build_tokenizer()


def count_tokens(text):
    return len(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def document_question(task, lines, query):
    return published_question(task, "test", "\n".join(lines) + "\n\n" + query)


@given(
    st.sampled_from([*UNITS, "gsm8k"]),
    st.lists(
        st.lists(st.sampled_from("soup lunch the budget hello".split()), min_size=1, max_size=9),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 120),
)
def test_fitted_question_is_within_budget_and_every_cut_is_marked_and_counted(task, turns, budget):
    lines = [f"{i}: {' '.join(turn)}" for i, turn in enumerate(turns)]
    question = document_question(task, lines, "What about lunch?")
    fitted, (cut,) = fit([question], TOKENIZER, budget)
    assert bool(fitted) != bool(cut.reason)
    if not fitted:
        assert count_tokens(question.text) > budget
        return
    text = fitted[0].text
    assert count_tokens(text) == cut.tokens <= budget
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


def test_lines_similar_to_the_question_are_kept_first_or_else_both_ends():
    lines = [f"ann: item {i} hello there" for i in range(20)]
    lines[9] = "bob: lunch will be soup"
    (kept,), _ = fit([document_question("qmsum", lines, "What about lunch?")], TOKENIZER, 40)
    assert lines[9] in kept.text and lines[0] in kept.text and lines[10] not in kept.text
    (kept,), (cut,) = fit([document_question("qmsum", lines, "Summarize everything.")], TOKENIZER, 40)
    shown = kept.text.split("\n\n")[0].split("\n")
    assert shown[0] == lines[0] and shown[-1] == lines[-1] and f"[turns left out: {cut.left_out}]" in shown


def test_question_that_cannot_fit_is_set_aside_with_the_reason():
    long = published_question("gsm8k", "test", "one " * 50)
    fitted, cuts = fit([long, document_question("qmsum", ["ann: hello " * 30], "What?")], TOKENIZER, 20)
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
def test_instructions_request_reasoning_and_a_checkable_answer_in_one_sentence(kind):
    sentence = instructions(kind)
    assert sentence.startswith("Reason step by step") and sentence.count(".") == 1
    assert ("Answer:" if kind == "text" else r"\boxed{}") in sentence


def test_every_data_set_has_a_source_a_licence_and_a_permitted_use():
    for name, data_set in DATA_SETS.items():
        assert (
            data_set.name == name and data_set.licence and data_set.use and "test" in data_set.parts
        ) or name == "metamathqa"
        assert re.fullmatch(r"[\w-]+/[\w-]+", data_set.hub) or name == "qmsum"

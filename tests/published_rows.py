"""A row of each published data set in its original format, and helpers that write and load rows."""

import json

from hypothesis import strategies as st

from agentark.schemas import Question
from agentark.tasks.datasets import DATA_SETS, load
from agentark.tasks.datasets.content import content_of

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
        "cop": 4,  # some tests replace it; 4 implies options counted from 1
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
OPTIONAL = {"level", "type", "exp", "abstract", "_id", "math500 answer"}  # the last can also be read from \boxed{}
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


def published_question(task, split, text, content=""):
    return Question(
        question_id=f"{task}-{split}-{text}", task=task, split=split, level=0, text=text, solution="", answer="1",
        kind="number", content=content or content_of(text), quantities=[],
    )  # fmt: skip


def without_ids(questions):
    return [q.model_copy(update={"question_id": ""}) for q in questions]

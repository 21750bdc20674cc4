"""Replies of a model as judge are parsed into marks or named faults; position bias is measured and cancels out.

The judge of these tests is a server whose marks follow the exact measures of the generated world.
"""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import completion, fake_server

from agentark import StudyError
from agentark.engines import Reply
from agentark.evaluate import judge, predictions
from agentark.evaluate.predictions import step_counts
from agentark.evaluate.scores import STEP_METRICS
from agentark.schemas import Trace
from agentark.tasks import TASKS
from agentark.tasks.world.steps import answer_of

FIXED = dict(
    study="judge",
    setting="test",
    variant="model",
    teacher="t",
    student="s",
    method="pad",
    train_task="word",
    test_task="word",
)
MARKS = st.lists(st.integers(1, 5), min_size=4, max_size=4)
QUESTIONS = TASKS["equation"].questions(24, "train", 3)


def mark_lines(a, b):
    marks = zip(judge.ASPECTS, a, b, strict=True)
    return "\n".join(judge.LINE.format(aspect=aspect, a=x, b=y) for aspect, x, y in marks)


def parse(text, finish_reason="stop"):
    return judge.read(Reply(text, 1, 1, finish_reason, 0.0))


@given(MARKS, MARKS, st.text().filter(lambda t: ": A" not in t))
def test_marks_in_form_are_read_after_any_reasons_and_unfinished_replies_are_faults(a, b, reasons):
    assert parse(f"{reasons}\n{mark_lines(a, b)}\n") == (a, b, "")
    assert judge.read(Reply("", 1, 1, "length", 0.0, "so")) == ([], [], "cut in thought")
    assert parse(mark_lines(a, b), "length") == ([], [], "cut short")
    assert parse(mark_lines(a, b), "refused") == ([], [], "refused")


@given(MARKS, MARKS, st.data())
def test_one_wrong_character_in_the_marks_is_a_fault(a, b, data):
    reply = mark_lines(a, b)
    at = data.draw(st.integers(0, len(reply) - 1))
    wrong = data.draw(st.characters(exclude_characters=reply[at] + "12345 \n"))
    assert parse(reply[:at] + wrong + reply[at + 1 :])[2]


@given(MARKS, MARKS, st.permutations(range(4)), st.sampled_from([0, 6, 10, -1, 2.5, "X", "", "four"]))
def test_misordered_missing_or_repeated_lines_and_marks_out_of_range_are_faults(a, b, order, mark):
    lines = mark_lines(a, b).split("\n")
    if order != sorted(order):
        assert parse("\n".join(lines[i] for i in order))[2] == "marks out of form"
    assert parse("\n".join(lines[:3]))[2] == parse("\n".join([lines[0], *lines]))[2] == "marks out of form"
    assert parse("\n".join([*lines, "So A is better."]))[2] == "marks out of form"
    assert parse(mark_lines([mark, *a[1:]], b))[2] == "marks out of form"
    assert parse(mark_lines([mark] * 4, b))[2] == "no marks"


@given(st.text())
def test_text_without_mark_lines_gives_no_marks(text):
    assert parse(text) == ([], [], "no marks")


def with_error(question, corrected):
    """The gold solution with its first computed value wrong, and corrected in the next line if `corrected`."""
    lines = question.solution.split("\n")
    at = next(i for i, line in enumerate(lines) if line.count(" = ") == 2)
    head, value = lines[at].rsplit(" = ", 1)
    return "\n".join(
        [*lines[:at], f"{head} = {int(value) + 1}", *([f"fix {lines[at]}"] if corrected else []), *lines[at + 1 :]]
    )


def marks_by_rule(question, answer):
    """Marks by rule, one per aspect: 1 to 4 as the exact measure goes from 0 to 1; 2 where the measure is undefined."""
    counts = step_counts(question, answer)
    shares = [STEP_METRICS[measure] for measure in judge.TRUTH.values()]
    return [round(1 + 3 * counts[part] / counts[total]) if counts[total] else 2 for part, total in shares]


def served_marks(body):
    """The question of a prompt, answer A, and the marks of both answers by rule. Answer A, which comes first, gets one
    more in the last aspect (position bias)."""
    prompt = body["messages"][0]["content"]
    question = next(q for q in QUESTIONS if q.text in prompt)
    answers = re.search(r"### Answer A\n\n(.*)\n\n### Answer B\n\n(.*)\n\n### Your task", prompt, re.DOTALL).groups()
    a, b = (marks_by_rule(question, text) for text in answers)
    return question, answers[0], [*a[:3], a[3] + 1], b


def served_reply(n, body):
    question, first, a, b = served_marks(body)
    if question == QUESTIONS[0]:
        return completion("Answer A is better.")
    if question == QUESTIONS[1] and "fix" not in first:  # answer A is the rival's
        return completion(mark_lines(a, b), finish_reason="length")
    return completion(f"Both are short.\n{mark_lines(a, b)}")


def texts_of_both(i, question):
    """Answers of a system that corrects its errors and of a rival that rarely does. Some of both lack lines, and some
    of the system's are right."""
    own = question.solution if i % 3 == 0 else with_error(question, corrected=True)
    rival = with_error(question, corrected=i % 6 == 0)
    return own.split("\n", 1)[-1] if i % 4 == 0 else own, rival.rsplit("\n", 2)[0] if i % 2 == 0 else rival


def predictions_of(answers):
    traces = [
        Trace(question_id=q.question_id, agent=1, round=1, text=text, answer=answer_of(text), prompt_tokens=5,
              completion_tokens=4, finish_reason="stop")
        for q, text in zip(QUESTIONS, answers, strict=True)
    ]  # fmt: skip
    return predictions.predict(traces, QUESTIONS, "test", "pad")


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """The answers of both systems and the verdicts on them; a repeated call reads the verdicts from the store."""
    systems = list(zip(*(texts_of_both(i, q) for i, q in enumerate(QUESTIONS)), strict=True))
    store = tmp_path_factory.mktemp("store")
    with fake_server(served_reply) as (address, requests):
        pairs = list(zip(QUESTIONS, *systems, strict=True))
        verdicts = judge.judge(pairs, address, store, 0, 500)
        assert judge.judge(pairs, address, store, 0, 500) == verdicts and len(requests) == 2 * len(QUESTIONS)
    return *systems, verdicts


def test_every_pair_is_judged_in_both_orders_and_malformed_replies_are_skipped(judged):
    own, rival, verdicts = judged
    assert Counter(v.question_id for v in verdicts) == {q.question_id: 2 for q in QUESTIONS}
    faults = Counter(v.fault for v in verdicts if v.fault)
    assert faults == {"no marks": 2, "cut short": 1}
    pairs = {q.question_id: (q, a, b) for q, a, b in zip(QUESTIONS, own, rival, strict=True)}
    for v in verdicts:
        question, a, b = pairs[v.question_id]
        if v.fault:
            assert v.own == v.rival == []
        else:
            assert v.own[:3] == marks_by_rule(question, a)[:3] and v.rival[:3] == marks_by_rule(question, b)[:3]


def test_scores_match_the_marks_by_rule_and_position_bias_is_reported_separately(judged):
    own, rival, verdicts = judged
    rows = {(s.metric, s.method): s for s in judge.scores(verdicts, FIXED, "base", "0")}
    faulty = {v.question_id for v in verdicts if v.fault}
    kept = [(q, a, b) for q, a, b in zip(QUESTIONS, own, rival, strict=True) if q.question_id not in faulty]
    assert rows["in_form", "pad"].value == pytest.approx(sum(not v.fault for v in verdicts) / len(verdicts))
    for i, aspect in enumerate(judge.ASPECTS):
        metric = aspect.replace(" ", "_")
        expected = [(marks_by_rule(q, a)[i], marks_by_rule(q, b)[i]) for q, a, b in kept]
        bias = 1 if i == 3 else 0
        for column, (method, other) in enumerate((("pad", "base"), ("base", "pad"))):
            mean = sum(p[column] for p in expected) / len(expected)
            row = rows[metric, method]
            assert row.value == pytest.approx(mean + bias / 2) and row.n == len(kept) and row.baseline == other
        assert rows[f"{metric}_gain", "pad"].value == pytest.approx(sum(a - b for a, b in expected) / len(expected))
        assert rows[f"{metric}_position_bias", "pad"].value == bias
        kappa = rows[f"{metric}_kappa", "pad"].value
        assert kappa < 1 if bias else kappa == pytest.approx(1)


def test_marks_that_follow_the_exact_measures_correlate_with_them(judged):
    own, rival, verdicts = judged
    table = judge.against_truth(verdicts, predictions_of(own), predictions_of(rival)).set_index("aspect")
    for aspect in ("step decomposition", "error localisation"):
        assert table.loc[aspect, "value"] > 0.9
    reversed_marks = [
        v.model_copy(update={"own": [6 - m for m in v.own], "rival": [6 - m for m in v.rival]}) for v in verdicts
    ]
    reversed_table = judge.against_truth(reversed_marks, predictions_of(own), predictions_of(rival)).set_index("aspect")
    assert reversed_table["value"].tolist() == pytest.approx((-table["value"]).tolist())


def test_answers_come_from_one_training_seed_and_a_missing_system_is_named(judged):
    own, rival, _ = judged
    answers_of = {("pad", 0): own, ("pad", 1): rival, ("base", 0): rival}
    rows = [
        p.model_copy(update={"student": "s", "method": method, "seed": seed})
        for (method, seed), texts in answers_of.items()
        for p in predictions_of(texts)
    ]
    for seed, texts in ((0, own), (1, rival)):
        found = judge.answers(rows, "equation", [("s", "pad"), ("s", "base")], seed)
        assert [p.text for p in found["s", "pad"].values()] == list(texts)
        assert [p.text for p in found["s", "base"].values()] == list(rival)
    with pytest.raises(StudyError, match="s, da, seed 0: no predictions for equation"):
        judge.answers(rows, "equation", [("s", "da")], 0)


def test_without_a_reply_in_form_only_the_share_in_form_is_reported(judged):
    _, _, verdicts = judged
    faulty = [v.model_copy(update={"own": [], "rival": [], "fault": "no marks"}) for v in verdicts]
    (row,) = judge.scores(faulty, FIXED, "base", "0")
    assert row.metric == "in_form" and row.value == 0
    assert judge.against_truth(faulty, [], []).empty

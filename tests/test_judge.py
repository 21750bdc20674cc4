"""A judge's replies are marks or named faults and nothing between; what it favours by position is measured and leaves no
trace in the marks. The judge of these tests is a server whose marks follow the exact measures of the generated world."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import answering, completion

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


def form(a, b):
    told = zip(judge.ASPECTS, a, b, strict=True)
    return "\n".join(judge.LINE.format(aspect=aspect, a=x, b=y) for aspect, x, y in told)


def read(text, finish_reason="stop"):
    return judge.read(Reply(text, 1, 1, finish_reason, 0.0))


@given(MARKS, MARKS, st.text().filter(lambda t: ": A" not in t))
def test_what_is_in_form_is_read_whatever_reasons_come_before(a, b, reasons):
    assert read(f"{reasons}\n{form(a, b)}\n") == (a, b, "")
    assert judge.read(Reply("", 1, 1, "length", 0.0, "so")) == ([], [], "cut in thought")
    assert read(form(a, b), "length") == ([], [], "cut short")
    assert read(form(a, b), "refused") == ([], [], "refused")


@given(MARKS, MARKS, st.data())
def test_one_wrong_character_and_there_are_no_marks(a, b, data):
    told = form(a, b)
    at = data.draw(st.integers(0, len(told) - 1))
    wrong = data.draw(st.characters(exclude_characters=told[at] + "12345 \n"))
    assert read(told[:at] + wrong + told[at + 1 :])[2]


@given(MARKS, MARKS, st.permutations(range(4)), st.sampled_from([0, 6, 10, -1, 2.5, "X", "", "four"]))
def test_lines_out_of_order_missing_twice_and_marks_out_of_range_are_faults(a, b, order, mark):
    lines = form(a, b).split("\n")
    if order != sorted(order):
        assert read("\n".join(lines[i] for i in order))[2] == "marks out of form"
    assert read("\n".join(lines[:3]))[2] == read("\n".join([lines[0], *lines]))[2] == "marks out of form"
    assert read("\n".join([*lines, "So A is better."]))[2] == "marks out of form"
    assert read(form([mark, *a[1:]], b))[2] == "marks out of form"
    assert read(form([mark] * 4, b))[2] == "no marks"


@given(st.text())
def test_words_alone_are_never_marks(text):
    assert read(text) == ([], [], "no marks")


def spoilt(question, mends):
    """The gold solution with its first reckoned value wrong, put right by the next line or not at all."""
    lines = question.solution.split("\n")
    at = next(i for i, line in enumerate(lines) if line.count(" = ") == 2)
    head, value = lines[at].rsplit(" = ", 1)
    return "\n".join(
        [*lines[:at], f"{head} = {int(value) + 1}", *([f"fix {lines[at]}"] if mends else []), *lines[at + 1 :]]
    )


def exact(question, answer):
    """Marks by the rule: 1 to 4 as the exact share in each respect goes from 0 to 1; 2 where there is none."""
    counts = step_counts(question, answer)
    shares = [STEP_METRICS[measure] for measure in judge.TRUTH.values()]
    return [round(1 + 3 * counts[part] / counts[whole]) if counts[whole] else 2 for part, whole in shares]


def marked(body):
    """The question in a prompt, answer A, and the rule's marks, one more in the last respect for what stands first."""
    told = body["messages"][0]["content"]
    question = next(q for q in QUESTIONS if q.text in told)
    answers = re.search(r"### Answer A\n\n(.*)\n\n### Answer B\n\n(.*)\n\n### Your task", told, re.DOTALL).groups()
    a, b = (exact(question, text) for text in answers)
    return question, answers[0], [*a[:3], a[3] + 1], b


def answer(n, body):
    question, first, a, b = marked(body)
    if question == QUESTIONS[0]:
        return completion("Answer A is better.")
    if question == QUESTIONS[1] and "fix" not in first:  # the rival's
        return completion(form(a, b), finish_reason="length")
    return completion(f"Both are short.\n{form(a, b)}")


def texts(i, question):
    """A system that mends its slips, and a rival that does not; some answers of each stop early, some are right."""
    own = question.solution if i % 3 == 0 else spoilt(question, mends=True)
    rival = spoilt(question, mends=i % 6 == 0)
    return own.split("\n", 1)[-1] if i % 4 == 0 else own, rival.rsplit("\n", 2)[0] if i % 2 == 0 else rival


def predicted(answers):
    traces = [
        Trace(question_id=q.question_id, agent=1, round=1, text=text, answer=answer_of(text), prompt_tokens=5,
              completion_tokens=4, finish_reason="stop")
        for q, text in zip(QUESTIONS, answers, strict=True)
    ]  # fmt: skip
    return predictions.predict(traces, QUESTIONS, "test", "pad")


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Both systems' answers, and the verdicts on them; asked for twice, given once."""
    systems = list(zip(*(texts(i, q) for i, q in enumerate(QUESTIONS)), strict=True))
    store = tmp_path_factory.mktemp("store")
    with answering(answer) as (address, asked):
        pairs = list(zip(QUESTIONS, *systems, strict=True))
        verdicts = judge.judge(pairs, address, store, 0, 500)
        assert judge.judge(pairs, address, store, 0, 500) == verdicts and len(asked) == 2 * len(QUESTIONS)
    return *systems, verdicts


def test_every_pair_is_read_in_both_orders_and_a_bad_form_is_no_mark(judged):
    own, rival, verdicts = judged
    assert Counter(v.question_id for v in verdicts) == {q.question_id: 2 for q in QUESTIONS}
    faults = Counter(v.fault for v in verdicts if v.fault)
    assert faults == {"no marks": 2, "cut short": 1}
    asked = {q.question_id: (q, a, b) for q, a, b in zip(QUESTIONS, own, rival, strict=True)}
    for v in verdicts:
        question, a, b = asked[v.question_id]
        if v.fault:
            assert v.own == v.rival == []
        else:
            assert v.own[:3] == exact(question, a)[:3] and v.rival[:3] == exact(question, b)[:3]


def test_scores_are_the_rule_s_and_position_bias_stands_apart(judged):
    own, rival, verdicts = judged
    rows = {(s.metric, s.method): s for s in judge.scores(verdicts, FIXED, "base", "0")}
    faulty = {v.question_id for v in verdicts if v.fault}
    kept = [(q, a, b) for q, a, b in zip(QUESTIONS, own, rival, strict=True) if q.question_id not in faulty]
    assert rows["in_form", "pad"].value == pytest.approx(sum(not v.fault for v in verdicts) / len(verdicts))
    for i, aspect in enumerate(judge.ASPECTS):
        metric = aspect.replace(" ", "_")
        plain = [(exact(q, a)[i], exact(q, b)[i]) for q, a, b in kept]
        favour = 1 if i == 3 else 0
        for column, (method, other) in enumerate((("pad", "base"), ("base", "pad"))):
            mean = sum(p[column] for p in plain) / len(plain)
            row = rows[metric, method]
            assert row.value == pytest.approx(mean + favour / 2) and row.n == len(kept) and row.baseline == other
        assert rows[f"{metric}_gain", "pad"].value == pytest.approx(sum(a - b for a, b in plain) / len(plain))
        assert rows[f"{metric}_position_bias", "pad"].value == favour
        kappa = rows[f"{metric}_kappa", "pad"].value
        assert kappa < 1 if favour else kappa == pytest.approx(1)


def test_a_judge_that_follows_truth_is_seen_to(judged):
    own, rival, verdicts = judged
    table = judge.against_truth(verdicts, predicted(own), predicted(rival)).set_index("aspect")
    for aspect in ("step decomposition", "error localisation"):
        assert table.loc[aspect, "value"] > 0.9
    reversed_marks = [
        v.model_copy(update={"own": [6 - m for m in v.own], "rival": [6 - m for m in v.rival]}) for v in verdicts
    ]
    other = judge.against_truth(reversed_marks, predicted(own), predicted(rival)).set_index("aspect")
    assert other["value"].tolist() == pytest.approx((-table["value"]).tolist())


def test_answers_are_of_one_training_seed_and_a_missing_system_is_named(judged):
    own, rival, _ = judged
    of = {("pad", 0): own, ("pad", 1): rival, ("base", 0): rival}
    rows = [
        p.model_copy(update={"student": "s", "method": method, "seed": seed})
        for (method, seed), texts in of.items()
        for p in predicted(texts)
    ]
    for seed, texts in ((0, own), (1, rival)):
        found = judge.answers(rows, "equation", [("s", "pad"), ("s", "base")], seed)
        assert [p.text for p in found["s", "pad"].values()] == list(texts)
        assert [p.text for p in found["s", "base"].values()] == list(rival)
    with pytest.raises(StudyError, match="s, da, seed 0: no predictions for equation"):
        judge.answers(rows, "equation", [("s", "da")], 0)


def test_no_reply_in_form_leaves_only_the_count(judged):
    _, _, verdicts = judged
    mute = [v.model_copy(update={"own": [], "rival": [], "fault": "no marks"}) for v in verdicts]
    (row,) = judge.scores(mute, FIXED, "base", "0")
    assert row.metric == "in_form" and row.value == 0
    assert judge.against_truth(mute, [], []).empty

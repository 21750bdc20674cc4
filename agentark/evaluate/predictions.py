"""Predictions: one system's answers to test questions, with measures of their steps."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentark import StudyError
from agentark.answers import is_right
from agentark.evaluate.text_metrics import rouge, token_f1
from agentark.schemas import Prediction, Question, Trace
from agentark.tasks.world.steps import check
from agentark.traces.reading import SUMMARISER, in_world, majority

STEP_COUNTS = (
    "steps_needed", "steps_present", "steps_written", "steps_right", "steps_grounded", "errors", "errors_noticed",
    "errors_mended",
)  # fmt: skip
TEXT_METRICS = (
    "f1",
    "rouge1",
    "rouge2",
    "rougeL",
)  # of answers in words; each is the maximum over the known right answers


@dataclass(frozen=True)
class System:
    """One system that answers by greedy decoding: a student ("" is the teacher), its method and seed, and its model."""

    student: str
    method: str
    seed: int
    model: str


def systems(
    teacher: str, students: Sequence[str], methods: Sequence[str], seeds: Sequence[int], engine: str, models: Path,
    trained: Path,
) -> list[System]:  # fmt: skip
    """The teacher, every student's base, and every trained student. engine: prefix of students' models, "" or "vllm:".
    Raises StudyError, which names the folder, if a student has not been trained."""
    found = [System("", "greedy", 0, teacher)]
    for student in students:
        found.append(System(student, "base", 0, f"{engine}{models / student}"))
        for method, seed in itertools.product(methods, seeds):
            folder = trained / student / method / f"seed-{seed}"
            if not folder.is_dir():
                raise StudyError(f"{folder}: no such student; train it, or correct students, methods, seeds or pad")
            found.append(System(student, method, seed, f"{engine}{folder}"))
    return found


def step_counts(question: Question, text: str) -> dict[str, int]:
    """Exact counts over the lines of a trace, without the answer's line.

    needed: quantities on the gold path; present: needed quantities that the trace states; written: all lines; right:
    correct lines; grounded: lines whose operands are in the question or an earlier line; errors: wrong lines; noticed:
    errors with a later `fix` line of the same quantity; mended: errors with a correct `fix` line. All are 0 for a
    published question, because the correctness of its steps is unknown.
    """
    if not in_world(question):
        return dict.fromkeys(STEP_COUNTS, 0)
    steps = [s for s in check(question, text) if s.name != "answer"]
    needed = {q.name for q in question.quantities if q.needed}
    wrong = [(i, s) for i, s in enumerate(steps) if not s.right]
    later = {i: [t for t in steps[i + 1 :] if t.fixes and t.name == s.name] for i, s in wrong}
    return {
        "steps_needed": len(needed),
        "steps_present": len(needed & {s.name for s in steps}),
        "steps_written": len(steps),
        "steps_right": sum(s.right for s in steps),
        "steps_grounded": sum(s.grounded for s in steps),
        "errors": len(wrong),
        "errors_noticed": sum(bool(fixes) for fixes in later.values()),
        "errors_mended": sum(any(f.right for f in fixes) for fixes in later.values()),
    }


def text_scores(question: Question, answer: str | None) -> dict[str, float]:
    """F1 and ROUGE F-measures of an answer in words (in the world: of hops and digest); empty for other kinds of
    answers.

    An answer to hops is one word: its ROUGE-2 is 0 by definition, and its other measures are 1 if the answer is right.
    BERTScore is not included: it needs an encoder trained on the language (text_metrics.bert_score, for scale `full`).
    """
    if question.kind != "text":
        return {}
    each = []
    for gold in (question.answer, *question.references):
        overlap = rouge(answer or "", gold)
        each.append({"f1": token_f1(answer or "", gold).f1, **{name: overlap[name].f1 for name in TEXT_METRICS[1:]}})
    return {name: max(measured[name] for measured in each) for name in TEXT_METRICS}


def predict(
    traces: Sequence[Trace], questions: Iterable[Question], setting: str, method: str, student: str = "", seed: int = 0
) -> list[Prediction]:
    """One prediction per question from all traces of its conversation.

    A debate's answer is its summariser's. Otherwise the answer is the majority's, and the text is the first trace with
    that answer.
    """
    by_id = {q.question_id: q for q in questions}
    rows = []
    for key, group in itertools.groupby(traces, key=lambda t: t.question_id):
        conversation, question = list(group), by_id[key]
        summary = [t for t in conversation if t.agent == SUMMARISER]
        answer = summary[-1].answer if summary else majority((t.answer for t in conversation), question)
        chosen = summary[-1] if summary else next((t for t in conversation if t.answer == answer), conversation[0])
        measures: dict[str, Any] = step_counts(question, chosen.text) | text_scores(question, answer)
        rows.append(
            Prediction(
                question_id=key,
                task=question.task,
                setting=setting,
                method=method,
                student=student,
                seed=seed,
                text=chosen.text,
                answer=answer,
                correct=is_right(answer, question),
                tokens=sum(t.prompt_tokens + t.completion_tokens for t in conversation),
                calls=len(conversation),
                cut_in_thought=sum(t.cut_in_thought for t in conversation),
                **measures,
            )
        )
    return rows


def reply_counts(
    traces: Sequence[Trace], setting: str, method: str, student: str = "", seed: int = 0
) -> dict[str, str | int]:
    """A row of reports/replies.csv: the number of a system's replies, of those without a readable answer, of those cut
    at the token limit outside a thought, of the latter without an answer, and of those cut within a thought."""
    cut = [t for t in traces if t.finish_reason == "length" and not t.cut_in_thought]
    return {
        "setting": setting,
        "method": method,
        "student": student,
        "seed": seed,
        "replies": len(traces),
        "without_answer": sum(t.answer is None for t in traces),
        "cut": len(cut),
        "cut_without_answer": sum(t.answer is None for t in cut),
        "cut_in_thought": sum(t.cut_in_thought for t in traces),
    }

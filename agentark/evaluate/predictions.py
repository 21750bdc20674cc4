"""Predictions: one system's answers to test questions, with measures of their steps."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentark.answers import is_right
from agentark.evaluate.text_metrics import rouge, token_f1
from agentark.schemas import Prediction, Question, Trace
from agentark.tasks.world.steps import check
from agentark.traces.reading import SUMMARISER, in_world, majority

STEP_COUNTS = (
    "steps_needed", "steps_present", "steps_written", "steps_right", "steps_grounded", "errors", "errors_noticed",
    "errors_mended",
)  # fmt: skip
TEXT_METRICS = ("f1", "rouge1", "rouge2", "rougeL")  # of answers in words, each the best over the known right answers


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
    """The teacher, every student's base, and every trained student. `engine`: what answers for students ("" or "vllm:")."""
    found = [System("", "greedy", 0, teacher)]
    for student in students:
        found.append(System(student, "base", 0, f"{engine}{models / student}"))
        found += [
            System(student, m, s, f"{engine}{trained / student / m / f'seed-{s}'}") for m in methods for s in seeds
        ]
    return found


def step_counts(question: Question, text: str) -> dict[str, int]:
    """Exact counts over the lines of a trace, the answer's line left out.

    needed, present: quantities on the gold path, and those of them that the trace states; written, right, grounded:
    lines in all, true ones, and ones whose operands stand in the question or an earlier line; errors: wrong lines;
    noticed: those that a later `fix` line of the same quantity takes up; mended: those it puts right. All are 0 for a
    published question, whose steps have no known truth.
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


def likeness(question: Question, answer: str | None) -> dict[str, float]:
    """F1 and ROUGE F-measures of an answer in words (in the world: of hops and digest); nothing for any other.

    hops is answered in one word: its ROUGE-2 is 0 by definition, its other measures are 1 where the answer is right.
    BERTScore is not among them: it wants an encoder that knows the language (metrics.bert_score, for scale `full`).
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
    """One prediction a question from all traces of its conversation.

    A debate answers by its summariser; otherwise the majority of the answers wins, and its first trace speaks for it.
    """
    asked = {q.question_id: q for q in questions}
    rows = []
    for key, group in itertools.groupby(traces, key=lambda t: t.question_id):
        conversation, question = list(group), asked[key]
        summary = [t for t in conversation if t.agent == SUMMARISER]
        answer = summary[-1].answer if summary else majority((t.answer for t in conversation), question)
        chosen = summary[-1] if summary else next((t for t in conversation if t.answer == answer), conversation[0])
        measures: dict[str, Any] = step_counts(question, chosen.text) | likeness(question, answer)
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
                **measures,
            )
        )
    return rows

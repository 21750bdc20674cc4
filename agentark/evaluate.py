"""Measurement: every system on the same test questions, answers and steps judged exactly, gains paired."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from agentark import StudyError, stats
from agentark.answers import is_right
from agentark.debate.protocols import SUMMARISER, majority
from agentark.files import write_json
from agentark.metrics import rouge, token_f1
from agentark.schemas import Prediction, Question, Score, Seconds, Trace, read_table
from agentark.tasks import TASKS
from agentark.tasks.base import check
from agentark.tasks.published import DATA_SETS
from agentark.traces import in_world, lines_of

# A measure of steps is a ratio of two counts of a prediction: how much of what could be, was.
STEP_METRICS = {
    "step_presence": ("steps_present", "steps_needed"),
    "step_accuracy": ("steps_right", "steps_written"),
    "coherence": ("steps_grounded", "steps_written"),
    "error_notice": ("errors_noticed", "errors"),
    "error_repair": ("errors_mended", "errors"),
}


STEP_COUNTS = (
    "steps_needed", "steps_present", "steps_written", "steps_right", "steps_grounded", "errors", "errors_noticed",
    "errors_mended",
)  # fmt: skip
TEXT_METRICS = ("f1", "rouge1", "rouge2", "rougeL")  # of answers in words, each the best over the known right answers


def pick(questions: Iterable[Question], use: str, train_task: str) -> list[Question]:
    """The questions of one use: "train", "validation" and "noisy" (its test questions) of the task distilled from;
    "hard", the same task at levels beyond its own; "test", every task's test questions."""
    if train_task not in {**TASKS, **DATA_SETS}:
        raise StudyError(f"task {train_task!r} is unknown; choose one of {', '.join([*TASKS, *DATA_SETS])}")
    hard = TASKS[train_task].hard if train_task in TASKS else ()
    chosen = {
        "train": lambda q: q.split == "train" and q.task == train_task,
        "validation": lambda q: q.split == "validation" and q.task == train_task,
        "noisy": lambda q: q.split == "test" and q.task == train_task and q.level not in hard,
        "hard": lambda q: q.split == "test" and q.task == train_task and q.level in hard,
        "test": lambda q: q.split == "test" and (q.task != train_task or q.level not in hard),
    }
    if use not in chosen:
        raise StudyError(f"split {use!r} is unknown; choose one of {', '.join(chosen)}")
    return [q for q in questions if chosen[use](q)]


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
        spoken, question = list(group), asked[key]
        summary = [t for t in spoken if t.agent == SUMMARISER]
        answer = summary[-1].answer if summary else majority((t.answer for t in spoken), question)
        speaker = summary[-1] if summary else next((t for t in spoken if t.answer == answer), spoken[0])
        rows.append(
            Prediction(
                question_id=key,
                task=question.task,
                setting=setting,
                method=method,
                student=student,
                seed=seed,
                text=speaker.text,
                answer=answer,
                correct=is_right(answer, question),
                **step_counts(question, speaker.text),
                **likeness(question, answer),
                tokens=sum(t.prompt_tokens + t.completion_tokens for t in spoken),
                calls=len(spoken),
            )
        )
    return rows


def scores(
    predictions: pd.DataFrame, teacher: str, train_task: str, baselines: Callable[[str], list[str]]
) -> list[Score]:
    """Rows of `reports/scores.csv`: accuracy and step measures by setting, task, method and student; paired gains.

    A trained method has a row a seed and one over seeds ("all"), whose interval is over questions of the mean over
    seeds; gains are paired by question, against each of `baselines(method)` that answered the same questions.
    """
    predictions = predictions.astype(dict.fromkeys(("correct", *TEXT_METRICS), float))
    by_system = dict(iter(predictions.groupby(["setting", "task", "student", "method"], sort=False)))
    averaged = {
        system: part.groupby("question_id", sort=True).mean(numeric_only=True) for system, part in by_system.items()
    }
    rows: list[Score] = []
    for system, part in by_system.items():
        setting, family, student, method = system
        fixed = dict(
            study="main",
            experiment=setting,
            teacher=teacher,
            student=student,
            method=method,
            train_task=train_task if student and method != "base" else "",
            test_task=family,
            tokens_per_question=float(part["tokens"].mean()),
        )
        mean = averaged[system]
        if part["seed"].nunique() > 1:
            for seed, one in part.groupby("seed"):
                rows.append(score(fixed, "accuracy", stats.mean(one["correct"]), str(seed)))
        rows.append(score(fixed, "accuracy", stats.mean(mean["correct"])))
        texts = [m for m in TEXT_METRICS if not mean[m].isna().any()]
        for metric in texts:
            rows.append(score(fixed, metric, stats.mean(mean[metric])))
        for metric, (count, whole) in STEP_METRICS.items():
            estimate = stats.ratio(mean[count], mean[whole])
            if estimate.n:
                rows.append(score(fixed, metric, estimate))
        for baseline in baselines(method):
            rivals = [(setting, family, student, baseline), (setting, family, "", baseline)]
            other = next((averaged[r] for r in rivals if r in averaged), None)
            if other is not None and list(other.index) == list(mean.index):
                for metric, column in {"accuracy": "correct", **{m: m for m in texts}}.items():
                    gained = stats.gain(mean[column], other[column])
                    rows.append(score(fixed, f"{metric}_gain", gained, baseline=baseline))
    return rows


def score(fixed: dict, metric: str, estimate: stats.Estimate, seed: str = "all", baseline: str = "") -> Score:
    """One row of the table of results."""
    return Score(**fixed, metric=metric, seed=seed, baseline=baseline, **asdict(estimate))


def baselines(method: str) -> list[str]:
    """What each method is compared with: students with their base and the teacher's single pass, a debate with a
    single pass and with the vote at its number of calls."""
    return {
        "debate": ["single", "vote"],
        "vote": ["single"],
        "sft": ["base"],
        "rsft": ["base", "sft", "single", "debate"],
        "da": ["base", "sft", "single", "debate"],
        "pad": ["base", "sft", "single", "debate"],
    }.get(method, [])


def mean_seconds(seconds: Sequence[Seconds], setting: str, method: str, student: str) -> list[dict]:
    """One row: seconds a question of one system, all its calls together."""
    total = sum(s.seconds for s in seconds)
    return [dict(setting=setting, method=method, student=student,
                 seconds_per_question=total / len({s.question_id for s in seconds}))]  # fmt: skip


def seconds(folder: Path, setting: str) -> list[dict]:
    """Seconds a question of the debate and the vote held in `folder`, and of a single pass (the vote's first)."""
    rows = read_table(folder / "seconds.parquet", Seconds)
    calls = len(read_table(folder / "traces.parquet", Trace))
    debate, vote = rows[:calls], rows[calls:]
    single = [s for s in vote if s.agent == 1]
    return [
        *mean_seconds(debate, setting, "debate", ""),
        *mean_seconds(vote, setting, "vote", ""),
        *mean_seconds(single, setting, "single", ""),
    ]


def judged(question: Question, text: str) -> list[tuple[str, bool | None]]:
    """Each line of a trace with its verdict; None where none is known."""
    if not in_world(question):
        return [(line, None) for line in lines_of(text)]
    return [(step.text, step.right) for step in check(question, text)]


def write_transcripts(
    path: Path, predictions: pd.DataFrame, traces: Sequence[Trace], questions: Sequence[Question], train_task: str,
    student: str, seed: int,
) -> None:  # fmt: skip
    """Three worked questions for the report: a debate in which an agent was corrected, and the student on the same
    question before and after each method. Taken in the order of the questions, not by how well a student did."""
    gold = {q.question_id: q for q in questions if q.task == train_task}
    told = []
    for key, group in itertools.groupby((t for t in traces if t.question_id in gold), key=lambda t: t.question_id):
        debate = list(group)
        question = gold[key]
        by_agent: dict[int, list[Trace]] = {}
        for t in debate:
            by_agent.setdefault(t.agent, []).append(t)
        corrected = [
            agent
            for agent, said in by_agent.items()
            if agent != SUMMARISER and not is_right(said[0].answer, question) and is_right(said[-1].answer, question)
        ]
        if corrected:
            own = predictions[(predictions["question_id"] == key) & (predictions["setting"] == "test")]
            own = own[(own["student"] == student) & own["seed"].isin([0, seed])].drop_duplicates("method")
            told.append(
                {
                    "question": question.text,
                    "answer": question.answer,
                    "agent": corrected[0],
                    "debate": [{"round": t.round, "agent": t.agent, "lines": judged(question, t.text)} for t in debate],
                    "student": student,
                    "answers": [
                        {"method": m, "lines": judged(question, t)}
                        for m, t in zip(own["method"], own["text"], strict=True)
                    ],
                }
            )
        if len(told) == 3:
            break
    write_json(told, path)


def summary(scores: Sequence[Score], train_task: str) -> dict:
    """The headline for `dvc metrics`: accuracy on the family distilled from, by student and method."""
    tree: dict[str, dict[str, float]] = {}
    for s in scores:
        if (s.metric, s.seed, s.experiment, s.test_task) == ("accuracy", "all", "test", train_task):
            tree.setdefault(s.student or "teacher", {})[s.method] = round(s.value, 4)
    return tree

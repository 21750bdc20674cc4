"""The study's questions: drawn from the generated world, or from published data sets, into one table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from agentark import StudyError, parallel
from agentark.schemas import Question, Split
from agentark.tasks import TASKS
from agentark.tasks.datasets import DATA_SETS, instructions, load
from agentark.tasks.datasets.fit import fit
from agentark.tasks.datasets.overlap import draw, separate


@dataclass(frozen=True)
class Drawn:
    """Questions, and a row for everything that was set aside, removed or shortened on the way (`task`, `what`, `n`)."""

    questions: list[Question]
    account: pd.DataFrame


def collect(
    tasks: Sequence[str],
    train_task: str,
    seed: int,
    train: int,
    validation: int,
    test: int,
    test_other: int,
    test_hard: int,
    room: int,
    student: Path,
    local: Path | None = None,
) -> Drawn:
    """`train`, `validation` and `test` questions of `train_task`, `test_other` of each other task.

    Of the generated world there are also `validation` questions of every task and `test_hard` of harder levels. Published
    questions come from the hub, or from a folder `local` with a folder a data set; training questions that also stand in
    a test set are removed; what is longer than `room` tokens (by `student`'s tokenizer) is fitted; each ends with how to
    state its answer. Raises StudyError for an unknown task, for tasks of both kinds, and where there are too few.
    """
    unknown = [name for name in (train_task, *tasks) if name not in {**TASKS, **DATA_SETS}]
    if unknown or train_task not in tasks:
        raise StudyError(
            f"task {(unknown or [train_task])[0]!r} is "
            + (f"unknown; choose from {', '.join([*TASKS, *DATA_SETS])}" if unknown else "not among `tasks`; add it")
        )
    if all(name in TASKS for name in tasks):
        return Drawn(
            generated(tasks, train_task, seed, train, validation, test, test_other, test_hard),
            pd.DataFrame(columns=["task", "what", "n"]),
        )
    if any(name in TASKS for name in tasks):
        raise StudyError("`tasks` mixes the generated world with published data sets; name those of one kind")
    wanted: dict[tuple[str, Split], int] = {
        (train_task, "train"): train, (train_task, "validation"): validation, (train_task, "test"): test,
        **{(name, "test"): test_other for name in tasks if name != train_task},
    }  # fmt: skip
    return published(wanted, seed, room, student, local)


def generated(
    tasks: Sequence[str], train_task: str, seed: int, train: int, validation: int, test: int, test_other: int,
    test_hard: int,
) -> list[Question]:  # fmt: skip
    calls = []
    for name in tasks:
        main = name == train_task
        wanted = [("train", train, None)] if main else []
        wanted += [("validation", validation, None), ("test", test if main else test_other, None)]
        wanted += [("test", test_hard, TASKS[name].hard)] if main else []
        calls += [dict(task=name, n=n, split=split, seed=seed, levels=levels) for split, n, levels in wanted]
    return [question for posed in parallel.run_all(_posed, calls) for question in posed]


def _posed(task: str, **wanted) -> list[Question]:
    return TASKS[task].questions(**wanted)


def published(wanted: dict[tuple[str, Split], int], seed: int, room: int, student: Path, local: Path | None) -> Drawn:
    """So many questions of each data set and split, with the account of what was done to get them."""
    from agentark.models import loading  # here: generated questions need no tokenizer

    parts = dict.fromkeys((name, "test" if split == "test" else "train") for name, split in wanted)
    parts = [(name, part) for name, part in parts if part in DATA_SETS[name].parts]
    loaded = {(name, part): load(name, local / name if local else "", part) for name, part in parts}
    pool, shared = separate([q for found in loaded.values() for q in found.questions])
    rows = [dict(task=name, what=f"{part} questions loaded", n=len(l.questions)) for (name, part), l in loaded.items()]
    rows += [
        dict(task=name, what=f"set aside: {aside.file} row {aside.row}: {aside.reason}", n=1)
        for (name, _), l in loaded.items()
        for aside in l.set_aside
    ]
    rows += [
        dict(task=s["task"], what=f"{s['split']} questions also in {s['test set']}", n=s["shared"]) for s in shared
    ]
    drawn = [q for (name, split), n in wanted.items() if n for q in draw(pool, name, n, split, seed)]
    fitted, cuts = fit(drawn, loading.load_tokenizer(student), room)
    name_of = {q.question_id: q.task for q in drawn}
    if lost := sorted({q.task for q in drawn} - {q.task for q in fitted}):
        raise StudyError(f"{lost[0]}: no question fits into {room} tokens; raise questions.room, or drop the task")
    rows += [
        dict(task=name_of[c.question_id], what=f"set aside: {c.question_id}: {c.reason}", n=1) for c in cuts if c.reason
    ]
    shortened = pd.Series([name_of[c.question_id] for c in cuts if c.left_out], dtype=str).value_counts(sort=False)
    rows += [dict(task=name, what=f"documents shortened to {room} tokens", n=int(n)) for name, n in shortened.items()]
    asked = [q.model_copy(update={"text": f"{q.text}\n\n{instructions(q.kind)}"}) for q in fitted]
    return Drawn(asked, pd.DataFrame(rows))


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


def asked(params: dict, split: str) -> dict[str, int]:
    """How many questions of each task are in a split, as `evaluate.pick` names them."""
    drawn, main = params["questions"], params["train_task"]
    if split == "test":
        return {task: drawn["test"] if task == main else drawn["test_other"] for task in drawn["tasks"]}
    return {main: drawn[{"train": "train", "noisy": "test", "hard": "test_hard"}[split]]}

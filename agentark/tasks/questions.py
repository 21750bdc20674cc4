"""The study's questions, from the generated world or from published data sets, in one table."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from agentark import StudyError, parallel
from agentark.schemas import Question, Split
from agentark.tasks import TASKS
from agentark.tasks.datasets import DATA_SETS, DataSet, Part, instructions, load, own, own_data_set
from agentark.tasks.datasets.fit import fit
from agentark.tasks.datasets.overlap import draw, separate


@dataclass(frozen=True)
class Counts:
    """Numbers of questions to draw. Raises StudyError if a number is negative or all are 0."""

    train: int  # of the training task
    validation: int  # of the training task; in the generated world of every task
    test: int  # of the training task
    test_other: int  # of each other task
    test_hard: int  # of the training task at harder levels; generated world only

    def __post_init__(self) -> None:
        for name, n in asdict(self).items():
            if n < 0:
                raise StudyError(f"questions.{name} is {n}; give 0 or a larger number")
        if not any(asdict(self).values()):
            raise StudyError("questions.train, validation and test are 0; ask for at least one question")


@dataclass(frozen=True)
class Drawn:
    """Questions, and an account of what was set aside, removed or shortened (columns `task`, `what`, `n`)."""

    questions: list[Question]
    account: pd.DataFrame


def collect(
    tasks: Sequence[str],
    train_task: str,
    counts: Counts,
    seed: int,
    room: int,
    student: Path,
    local: Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> Drawn:
    """Draw the study's questions, either all or none from the generated world.

    A task is a family of the generated world, a published data set, or the path of a user's own questions. Such a task
    is named after the file (own.task_of), and its columns may have other names (`columns`). Published questions come
    from the hub, or from the folder `local` with one folder per data set. Training questions that also occur in a test
    set are removed, questions longer than `room` tokens (by `student`'s tokenizer) are shortened, and each question
    ends with an instruction on the form of the answer. Raises StudyError for an unknown task, for a mixture of both
    kinds, and if there are too few questions.
    """
    places = {own.task_of(task): task for task in tasks if own.is_own(task)}
    tasks = [own.task_of(task) for task in tasks]
    if "" in tasks:
        raise StudyError(f"{places['']}: its name has no letter from A to Z, and the task has that name; rename it")
    if twice := [
        name for name in tasks if tasks.count(name) > 1 or (name in places and name in {**TASKS, **DATA_SETS})
    ]:
        raise StudyError(f"task {twice[0]!r} has the name of another task; rename the file or folder")
    unknown = [name for name in (train_task, *tasks) if name not in {**TASKS, **DATA_SETS, **places}]
    if unknown or train_task not in tasks:
        raise StudyError(
            f"task {(unknown or [train_task])[0]!r} is "
            + (
                f"unknown; choose from {', '.join([*TASKS, *DATA_SETS])}, or name a file of your own questions in `tasks` (a folder as ./folder)"
                if unknown
                else "not among `tasks`; add it"
            )
        )
    if all(name in TASKS for name in tasks):
        return Drawn(generated(tasks, train_task, counts, seed), pd.DataFrame(columns=["task", "what", "n"]))
    if any(name in TASKS for name in tasks):
        raise StudyError("`tasks` mixes the generated world with published data sets; name tasks of one kind only")
    wanted: dict[tuple[str, Split], int] = {
        (train_task, "train"): counts.train,
        (train_task, "validation"): counts.validation,
        (train_task, "test"): counts.test,
        **{(name, "test"): counts.test_other for name in tasks if name != train_task},
    }
    sets = {name: own_data_set(places[name], columns or {}) if name in places else DATA_SETS[name] for name in tasks}
    return published(wanted, sets, seed, room, student, local)


def generated(tasks: Sequence[str], train_task: str, counts: Counts, seed: int) -> list[Question]:
    """Draw questions of the generated world, in parallel."""
    calls: list[dict] = []
    for name in tasks:
        main = name == train_task
        wanted: list[tuple[Split, int, tuple[int, ...] | None]] = [("train", counts.train, None)] if main else []
        wanted += [("validation", counts.validation, None)]
        wanted += [("test", counts.test if main else counts.test_other, None)]
        wanted += [("test", counts.test_hard, TASKS[name].hard)] if main else []
        calls += [dict(task=name, n=n, split=split, seed=seed, levels=levels) for split, n, levels in wanted]
    return [question for drawn in parallel.run_all(_questions, calls) for question in drawn]


def _questions(task: str, **call) -> list[Question]:
    return TASKS[task].questions(**call)


def published(
    wanted: dict[tuple[str, Split], int],
    sets: Mapping[str, DataSet],
    seed: int,
    room: int,
    student: Path,
    local: Path | None,
) -> Drawn:
    """Draw the wanted number of published questions per data set and split, with an account of the selection."""
    from agentark.models import loading  # imported here, since generated questions need no tokenizer

    parts: dict[tuple[str, Part], None] = dict.fromkeys(
        (name, "test" if split == "test" else "train") for name, split in wanted
    )
    rows: list[dict] = []
    loaded = {}
    for name, part in parts:
        if part not in sets[name].parts:
            continue
        try:
            loaded[name, part] = load(sets[name], local / name if local and name in DATA_SETS else "", part)
        except StudyError as error:
            splits = ("test",) if part == "test" else ("train", "validation")
            if any(n for (task, split), n in wanted.items() if task == name and split in splits):
                raise
            rows.append(dict(task=name, what=f"{part} questions not loaded, and none asked for: {error}", n=0))
    pool, shared = separate([q for found in loaded.values() for q in found.questions])
    rows += [dict(task=name, what=f"{part} questions loaded", n=len(l.questions)) for (name, part), l in loaded.items()]
    # If one file is divided into both parts, each part lists the unusable rows of the file.
    aside = dict.fromkeys((name, a) for (name, _), found in loaded.items() for a in found.set_aside)
    rows += [dict(task=name, what=f"set aside: {a.file} row {a.row}: {a.reason}", n=1) for name, a in aside]
    rows += [
        dict(task=s["task"], what=f"{s['split']} questions also in {s['test set']}", n=s["shared"]) for s in shared
    ]
    before = Counter((q.task, q.split) for found in loaded.values() for q in found.questions)
    before.subtract((q.task, q.split) for q in pool)
    drawn = [
        q for (name, split), n in wanted.items() if n for q in draw(pool, name, n, split, seed, before[name, split])
    ]
    fitted, cuts = fit(drawn, loading.load_tokenizer(student), room)
    name_of = {q.question_id: q.task for q in drawn}
    if lost := sorted({q.task for q in drawn} - {q.task for q in fitted}):
        raise StudyError(f"{lost[0]}: no question fits into {room} tokens; raise questions.room, or remove the task")
    rows += [
        dict(task=name_of[c.question_id], what=f"set aside: {c.question_id}: {c.reason}", n=1) for c in cuts if c.reason
    ]
    shortened = pd.Series([name_of[c.question_id] for c in cuts if c.left_out], dtype=str).value_counts(sort=False)
    rows += [dict(task=name, what=f"documents shortened to {room} tokens", n=int(n)) for name, n in shortened.items()]
    instructed = [q.model_copy(update={"text": f"{q.text}\n\n{instructions(q.kind)}"}) for q in fitted]
    return Drawn(instructed, pd.DataFrame(rows))


def pick(questions: Iterable[Question], use: str, train_task: str) -> list[Question]:
    """Return the questions for one use.

    "train", "validation", "in_domain" (test questions) and "hard" (test questions at harder levels) are from the
    training task. "test" is all test questions without "hard". Raises StudyError for an unknown task or use.
    """
    questions = list(questions)
    present = dict.fromkeys(q.task for q in questions)
    if train_task not in {**TASKS, **DATA_SETS, **present}:
        raise StudyError(f"task {train_task!r} is unknown; choose one of {', '.join([*TASKS, *DATA_SETS])}")
    if present and train_task not in present:
        raise StudyError(f"the table has no questions of train_task {train_task!r}, only of {', '.join(present)}")
    hard = TASKS[train_task].hard if train_task in TASKS else ()
    chosen = {
        "train": lambda q: q.split == "train" and q.task == train_task,
        "validation": lambda q: q.split == "validation" and q.task == train_task,
        "in_domain": lambda q: q.split == "test" and q.task == train_task and q.level not in hard,
        "hard": lambda q: q.split == "test" and q.task == train_task and q.level in hard,
        "test": lambda q: q.split == "test" and (q.task != train_task or q.level not in hard),
    }
    if use not in chosen:
        raise StudyError(f"split {use!r} is unknown; choose one of {', '.join(chosen)}")
    return [q for q in questions if chosen[use](q)]


def question_counts(params: dict, split: str) -> dict[str, int]:
    """Return the number of questions per task in a split, named as in `pick`."""
    drawn, main = params["questions"], params["train_task"]
    if split == "test":
        tasks = map(own.task_of, drawn["tasks"])
        return {task: drawn["test"] if task == main else drawn["test_other"] for task in tasks}
    return {main: drawn[{"train": "train", "in_domain": "test", "hard": "test_hard"}[split]]}

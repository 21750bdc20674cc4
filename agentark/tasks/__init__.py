"""In: a task's name, a split and a seed. Out: questions, and for the generated world an exact check of every step.

The generated world has four training families and three held-out ones.
"""

from agentark import StudyError
from agentark.tasks.world.equations import Equation
from agentark.tasks.world.facts import Facts
from agentark.tasks.world.family import Task
from agentark.tasks.world.reading import Digest, Hops, Passage
from agentark.tasks.world.word_problems import Meta, Word

TASKS: dict[str, Task] = {t.name: t for t in (Word(), Equation(), Meta(), Facts(), Hops(), Passage(), Digest())}


def task(name: str) -> Task:
    """The task of that name. Raises StudyError that lists all names if there is none."""
    if name not in TASKS:
        raise StudyError(f"task {name!r} is unknown; choose one of {', '.join(TASKS)}")
    return TASKS[name]

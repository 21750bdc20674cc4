"""One question small enough to check by hand, correct and wrong traces of it, and helpers that build rows."""

import os
import random
from pathlib import Path

import pytest

from agentark import root
from agentark.schemas import Quantity, Question, Trace
from agentark.tasks import TASKS
from agentark.tasks.world.family import Draft
from agentark.tasks.world.steps import answer_of

MAX_TOKENS = 72  # limit of a reply, as at scale `mini`
EVERY_LEVEL = [(name, level) for name, task in TASKS.items() for level in sorted({*task.levels, *task.hard})]

KEYS = Question(
    question_id="keys",
    task="word",
    split="train",
    level=3,
    text="ann has 12 keys . bob has 3 more keys than ann . carl has 2 times as many keys as ann . "
    "how many keys do bob and carl have together ?",
    solution="bob = 12 + 3 = 15\ncarl = 12 * 2 = 24\ntotal = 15 + 24 = 39\nanswer : 39",
    answer="39",
    kind="number",
    content="keys",
    quantities=[
        Quantity(name="bob", value="15", ways=["12 + 3"], needed=True),
        Quantity(name="carl", value="24", ways=["12 * 2"], needed=True),
        Quantity(name="total", value="39", ways=["15 + 24"], needed=True),
    ],
)
GOLD = KEYS.solution
REORDERED = "carl = 12 * 2 = 24\nbob = 12 + 3 = 15\ntotal = 15 + 24 = 39\nanswer : 39"
WRONG_STEP = "bob = 12 + 3 = 16\ncarl = 12 * 2 = 24\ntotal = 16 + 24 = 40\nanswer : 40"
UNANSWERED = "bob = 12 + 3 = 15"


def question_from_family(name: str, level: int, seed: int) -> tuple[Draft, Question]:
    """A draft of a question family and the question built from it."""
    task, rng = TASKS[name], random.Random(seed)
    draft = task.draw(rng, "train", level)
    solution = "\n".join(draft.solve(rng))
    return draft, Question(
        question_id=f"{name}-{seed}",
        task=name,
        split="train",
        level=level,
        text=draft.text,
        solution=solution,
        answer=draft.answer,
        kind=task.kind,
        content=draft.content,
        quantities=task.quantities(draft, solution),
    )


def trace_of(agent: int, round: int, text: str, question: str = "keys") -> Trace:
    """A trace with the given text, as it is read from a reply."""
    return Trace(
        question_id=question,
        agent=agent,
        round=round,
        text=text,
        answer=answer_of(text),
        prompt_tokens=30,
        completion_tokens=20,
        finish_reason="stop",
    )


def shared_data() -> Path:
    """The folder of real data files beside the project. The test is skipped if the folder does not exist."""
    folder = Path(os.environ.get("AGENTARK_SHARED_DATA") or root().parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"{folder}: no real data here; name their folder in AGENTARK_SHARED_DATA")
    return folder

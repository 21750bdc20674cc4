"""The base class of the generated world's families: draft a question and solve it.

A question is a small graph of named quantities. A trace has one step per line, in one grammar for all families:

    ann = 12 + 3 = 15        a quantity, the expression that yields it, its value
    city bob = oslo          a quantity that is looked up in the passage or in memory
    fix ann = 12 + 3 = 15    a correction of an earlier line for that quantity
    answer : 15              the last line

The graph is drawn before the text, so every line of any trace can be checked exactly, along every valid path and in
every valid order, not only along the gold solution.
"""

import random
from dataclasses import dataclass, field
from typing import ClassVar

from agentark import StudyError
from agentark.schemas import AnswerKind, Quantity, Question, Split
from agentark.tasks.splits import split_of
from agentark.tasks.world.steps import claim_of, lines_of, normal


@dataclass(frozen=True)
class Way:
    """One valid derivation: an expression over values ("" for a lookup) and the quantities that it needs first."""

    expression: str
    needs: tuple[str, ...] = ()


@dataclass
class Draft:
    """A question before it gets an id: text, graph, and content.

    `content` is equal for drafts that differ only in names and in the order of sentences. `spellings` lists the
    contents of all equivalent questions (operands swapped, reworded); empty means `content` alone.
    """

    text: str = ""
    goals: tuple[str, ...] = ()
    content: str = ""
    answer: str = ""
    spellings: tuple[str, ...] = ()
    ways: dict[str, list[Way]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: object, *ways: Way) -> None:
        """Set a quantity's value and add ways to derive it."""
        self.values[name] = str(value)
        self.ways.setdefault(name, []).extend(ways)

    def solve(self, rng: random.Random) -> list[str]:
        """A random correct solution: a way for each needed quantity, in a random valid order."""
        chosen: dict[str, Way] = {}
        pending = list(self.goals)
        while pending:
            name = pending.pop()
            if name not in chosen:
                chosen[name] = rng.choice(self.ways[name])
                pending += chosen[name].needs
        steps: list[str] = []
        done: set[str] = set()
        while len(done) < len(chosen):
            ready = sorted(n for n in chosen if n not in done and done.issuperset(chosen[n].needs))
            name = rng.choice(ready)
            done.add(name)
            expression = chosen[name].expression
            steps.append(" = ".join(part for part in (name, expression, self.values[name]) if part))
        return [*steps, f"answer : {self.answer}"]


class Task:
    """A family of questions; subclasses implement `draft`. `plays` names the corresponding data set of the paper."""

    name: ClassVar[str]
    plays: ClassVar[str]
    kind: ClassVar[AnswerKind]
    levels: ClassVar[tuple[int, ...]]  # of the main study
    hard: ClassVar[tuple[int, ...]]  # beyond what the models are trained on
    held_out: ClassVar[bool] = False

    def draft(self, rng: random.Random, level: int) -> Draft | None:
        """Draw a question of `level`, or None if the draw fails and must be repeated."""
        raise NotImplementedError

    def draw(self, rng: random.Random, split: Split, level: int) -> Draft:
        """Draw a question whose content belongs to `split`. Raises StudyError if there is none in 50,000 draws."""
        for _ in range(50_000):
            draft = self.draft(rng, level)
            if draft is not None and split_of(*(draft.spellings or (draft.content,))) == split:
                return draft
        raise StudyError(f"{self.name}: no question of level {level} found for split {split}; use another level")

    def questions(self, n: int, split: Split, seed: int, levels: tuple[int, ...] | None = None) -> list[Question]:
        """`n` questions of distinct content, cycling through the levels. Raises StudyError if there are fewer."""
        levels = tuple(levels or self.levels)
        rng = random.Random(f"{self.name}|{split}|{levels}|{seed}")
        found: dict[str, Question] = {}
        for _ in range(20 * n + 200):
            if len(found) == n:
                break
            level = levels[len(found) % len(levels)]
            draft = self.draw(rng, split, level)
            if draft.content in found:
                continue
            solution = "\n".join(draft.solve(rng))
            found[draft.content] = Question(
                question_id=f"{self.name}-{split}-{'.'.join(map(str, levels))}-{len(found):05d}",
                task=self.name,
                split=split,
                level=level,
                text=draft.text,
                solution=solution,
                answer=draft.answer,
                kind=self.kind,
                content=draft.content,
                quantities=self.quantities(draft, solution),
            )
        if len(found) < n:
            raise StudyError(
                f"{self.name}: only {len(found)} distinct questions in {split} at levels {levels}, not {n}"
            )
        return list(found.values())

    @staticmethod
    def quantities(draft: Draft, solution: str) -> list[Quantity]:
        """The draft's graph as rows; `needed` marks the quantities in `solution`."""
        needed = {claim_of(line)[0] for line in lines_of(solution)}
        return [
            Quantity(
                name=name,
                value=draft.values[name],
                ways=sorted({normal(w.expression) if w.expression else "" for w in ways}),
                needed=name in needed,
            )
            for name, ways in draft.ways.items()
        ]


def sample_of(rng: random.Random, items: tuple[str, ...], n: int) -> list[str]:
    """`n` distinct items in random order."""
    return rng.sample(items, n)

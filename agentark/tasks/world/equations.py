"""Symbolic equations (modelled on MATH): definitions by formulas, with linear equations to solve on the way."""

import itertools
import random
import re

from agentark.tasks.world.family import Draft, Task, Way, sample_of
from agentark.tasks.world.words import UNKNOWNS


def swap(shape: str) -> str:
    """The shape of a sum or a product with its two unknowns swapped; any other shape unchanged."""
    match = re.fullmatch(r"(\d+)([+*])(\d+)", shape)
    return f"{match[3]}{match[2]}{match[1]}" if match else shape


class Equation(Task):
    name, plays, kind = "equation", "MATH", "number"
    levels, hard = (2, 3, 4), (5, 6)

    def draft(self, rng: random.Random, level: int) -> Draft | None:
        names = sample_of(rng, UNKNOWNS, level + 2)
        draft = Draft()
        values: dict[str, int] = {}
        clauses, shapes, steps = [], [], 0
        while steps < level:
            name, index = names[len(values)], len(values)
            known = list(values)
            if level - steps >= 2 and rng.random() < (0.3 if known else 0.5):  # k * name + c = d, two steps
                value, k, c = rng.randint(2, 12), rng.randint(2, 5), rng.randint(2, 20)
                d = k * value + c
                if d > 99:
                    return None
                draft.add(f"{k} {name}", k * value, Way(f"{d} - {c}"))
                draft.add(name, value, Way(f"{k * value} / {k}", (f"{k} {name}",)))
                clauses.append(f"{k} * {name} + {c} = {d} .")
                shapes.append(f"{k},{c},{d}")
                steps += 2
            elif not known:  # a given number, no step
                value = rng.randint(2, 20)
                clauses.append(f"{name} = {value} .")
                shapes.append(str(value))
            else:
                left = rng.choice(known[-2:])
                operator = rng.choice("++--**")
                right = rng.choice(known) if len(known) > 1 and rng.random() < 0.4 else str(rng.randint(2, 9))
                if right == left:
                    return None
                a, b = values[left], values.get(right) or int(right)
                value = {"+": a + b, "-": a - b, "*": a * b}[operator]
                needs = tuple(n for n in (left, right) if n in draft.ways)
                draft.add(name, value, Way(f"{a} {operator} {b}", needs))
                clauses.append(f"{name} = {left} {operator} {right} .")
                shapes.append(f"{known.index(left)}{operator}{known.index(right) if right in known else '#' + right}")
                steps += 1
            if not 1 <= value <= 99 or (index == 0 and steps == level):
                return None
            values[name] = value
        draft.goals, draft.answer = (name,), str(value)
        if len(draft.solve(rng)) - 1 != level or any(int(v) > 99 for v in draft.values.values()):
            return None
        if rng.random() < 1 / 3:
            rng.shuffle(clauses)
        swapped = itertools.product(*({shape, swap(shape)} for shape in shapes))
        draft.spellings = tuple(sorted(f"equation|{' '.join(spelling)}" for spelling in swapped))
        draft.content = draft.spellings[0]
        draft.text = " ".join([*clauses, f"find {name} ."])
        return draft

"""Multiple choice over a fixed set of invented medical facts (modelled on MedMCQA).

Each illness has one cure, each drug one dose. The facts are the same in all questions, and no question states them: a
model can only know them from base training, as a pretrained model knows medicine.
"""

import random

from agentark.tasks.world.family import Draft, Task, Way, sample_of
from agentark.tasks.world.words import DRUGS, ILLNESSES

_rng = random.Random("facts 1")
CURE = dict(zip(ILLNESSES, _rng.sample(DRUGS, len(DRUGS)), strict=True))
DOSE = {drug: _rng.randint(2, 12) for drug in DRUGS}
LETTERS = "abcd"


class Facts(Task):
    name, plays, kind = "facts", "MedMCQA", "choice"
    levels, hard = (4, 5), (6, 7)

    def draft(self, rng: random.Random, level: int) -> Draft | None:
        draft = Draft()
        taken: list[tuple[str, int, str]] = []
        phrases = []
        # An item takes one step to recall its dose, one more if named by illness, one more if taken several times.
        items = 1 if level <= 2 else 2
        for illness in sample_of(rng, ILLNESSES, items):
            drug, count = CURE[illness], rng.choice([1, 2, 3, 4])
            by_illness = rng.random() < 0.5
            before: tuple[str, ...] = ()
            if by_illness:
                draft.add(f"cure {illness}", drug, Way(""))
                before = (f"cure {illness}",)
            draft.add(f"dose {drug}", DOSE[drug], Way("", before))
            source = f"dose {drug}"
            if count > 1:
                source = f"{count} {drug}"
                draft.add(source, count * DOSE[drug], Way(f"{count} * {DOSE[drug]}", (f"dose {drug}",)))
            taken.append((source, count * DOSE[drug], drug))
            named = f"the cure for {illness}" if by_illness else drug
            phrases.append(f"{count} {'dose' if count == 1 else 'doses'} of {named}")
        total = sum(amount for _, amount, _ in taken)
        if total > 99:
            return None
        if items == 2:
            (first, x, _), (second, y, _) = taken
            draft.add("total", total, Way(f"{x} + {y}", (first, second)))
        last = "total" if items == 2 else taken[0][0]
        near = [total + d for d in range(-9, 10) if d and 1 <= total + d <= 99]
        options = rng.sample([total, *rng.sample(near, 3)], 4)
        draft.answer = LETTERS[options.index(total)]
        draft.goals = (last,)
        if len(draft.solve(rng)) - 1 != level:
            return None
        listed = " ".join(f"{option} ( {letter} )" for letter, option in zip(LETTERS, options, strict=True))
        draft.text = f"a patient takes {' and '.join(phrases)} . how many grams in all ? choose {listed}"
        named_by_illness = sorted(n for n in draft.ways if n.startswith("cure"))
        draft.content = f"facts|{' '.join(sorted(source for source, _, _ in taken))} by {' '.join(named_by_illness)}"
        return draft

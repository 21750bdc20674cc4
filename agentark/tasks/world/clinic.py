"""Two-hop questions over two bodies of invented facts, for debates among specialists.

Each drug cures one illness, and each illness has one region, organ and plant. A question names one or two drugs and asks
for an attribute of the illness that each cures. The facts are never stated in a question. One specialist is trained on
what the drugs cure, the other on the attributes of illnesses, so neither can answer alone. The facts of `PRACTICE` are
for training the specialists to revise, those of `STUDY` for the questions of the study: what carries over is to trust
the agent that knows, not an answer.
"""

import hashlib
import random
from dataclasses import dataclass

from agentark import StudyError
from agentark.schemas import Split
from agentark.tasks.world.family import Draft, Task, Way
from agentark.tasks.world.words import ATTRIBUTES, CLINIC_DRUGS, CLINIC_ILLNESSES

# Percentages of the pairs of drug and attribute, by hash. Each drug has three attributes, so that nearly all drugs occur
# in training questions.
SHARES: dict[Split, int] = {"train": 55, "validation": 5, "test": 40}


@dataclass(frozen=True)
class Facts:
    """A body of facts: drug -> illness, and (attribute, illness) -> value."""

    cures: dict[str, str]
    values: dict[tuple[str, str], str]

    @property
    def illnesses(self) -> list[str]:
        return sorted(set(self.cures.values()))


def facts(part: slice, illnesses: slice, seed: str) -> Facts:
    """Facts about a part of the drugs and illnesses; every illness is cured by equally many drugs."""
    rng = random.Random(seed)
    drugs, cured = list(CLINIC_DRUGS[part]), list(CLINIC_ILLNESSES[illnesses])
    rng.shuffle(drugs)
    cures = {drug: cured[i % len(cured)] for i, drug in enumerate(drugs)}
    values = {(name, illness): rng.choice(choices) for name, choices in ATTRIBUTES.items() for illness in cured}
    return Facts(cures, values)


STUDY = facts(slice(0, 120), slice(0, 40), "clinic study")
PRACTICE = facts(slice(120, 240), slice(40, 80), "clinic practice")


def split_of_pair(drug: str, attribute: str) -> Split:
    """The split of a pair, by hash: questions of a split consist of its pairs only."""
    bucket = int.from_bytes(hashlib.sha256(f"clinic|{drug}|{attribute}".encode()).digest()[:8]) % 100
    bound = 0
    for split, share in SHARES.items():
        bound += share
        if bucket < bound:
            return split
    raise AssertionError("SHARES do not add up to 100")


def question(pairs: list[tuple[str, str]], known: Facts) -> Draft:
    """The question for the attributes of the illnesses that drugs cure, with its graph."""
    draft = Draft(goals=tuple(f"{attribute} {known.cures[drug]}" for drug, attribute in pairs))
    for drug, attribute in pairs:
        illness = known.cures[drug]
        draft.add(f"illness {drug}", illness, Way(""))
        draft.add(f"{attribute} {illness}", known.values[attribute, illness], Way("", (f"illness {drug}",)))
    asked = " and ".join(f"the {attribute} of the illness that {drug} cures" for drug, attribute in pairs)
    draft.text = f"what is {asked} ?"
    draft.answer = " , ".join(draft.values[goal] for goal in draft.goals)
    draft.content = "clinic|" + " ".join(sorted(f"{drug}:{attribute}" for drug, attribute in pairs))
    return draft


class Clinic(Task):
    """Attributes of the illnesses that one drug (level 2) or two drugs (level 4) cure."""

    name, plays, kind, held_out = "clinic", "MedMCQA", "text", True
    levels, hard = (4,), (2,)

    def draw(self, rng: random.Random, split: Split, level: int) -> Draft:
        """A question over pairs of `split`; of different illnesses, so that each has a step of its own."""
        pairs = [(d, a) for d in STUDY.cures for a in ATTRIBUTES if split_of_pair(d, a) == split]
        if not pairs or level not in (2, 4):
            raise StudyError(f"{self.name}: no question of level {level} found for split {split}; use another level")
        while True:
            chosen = rng.sample(pairs, level // 2)
            if len({STUDY.cures[drug] for drug, _ in chosen}) == len(chosen):
                return question(chosen, STUDY)

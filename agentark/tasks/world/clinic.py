"""Two-hop questions about two sets of invented facts, for debates among specialists.

Each drug cures one illness, and each illness has five attributes (region, organ, ...). A question names a drug and asks
for an attribute of the illness that it cures. The facts are never stated in a question. One specialist is trained on
what the drugs cure, the other on the attributes of illnesses, so neither can answer without the other. The study's
questions are about `STUDY`. A student's base model learns the form of a solution from `PRACTICE`.
"""

import random
from dataclasses import dataclass
from typing import get_args

from agentark import StudyError
from agentark.schemas import Split
from agentark.tasks.splits import split_of
from agentark.tasks.world.family import Draft, Task, Way
from agentark.tasks.world.steps import claim_of, lines_of
from agentark.tasks.world.words import ATTRIBUTES, CLINIC_DRUGS, CLINIC_ILLNESSES

# Percentages of the pairs of drug and attribute, by hash. A drug has five pairs, so that nearly all drugs occur in
# training questions.
SHARES: dict[Split, int] = {"train": 55, "validation": 5, "test": 40}


@dataclass(frozen=True)
class Facts:
    """A set of facts: drug -> illness, and (attribute, illness) -> value."""

    cures: dict[str, str]
    values: dict[tuple[str, str], str]

    @property
    def illnesses(self) -> list[str]:
        return sorted(set(self.cures.values()))


def facts(part: slice, illnesses: slice, seed: str) -> Facts:
    """Draw facts about a part of the drugs and illnesses. Each illness is cured by the same number of drugs."""
    rng = random.Random(seed)
    drugs, cured = list(CLINIC_DRUGS[part]), list(CLINIC_ILLNESSES[illnesses])
    rng.shuffle(drugs)
    cures = {drug: cured[i % len(cured)] for i, drug in enumerate(drugs)}
    values = {(name, illness): rng.choice(choices) for name, choices in ATTRIBUTES.items() for illness in cured}
    return Facts(cures, values)


STUDY = facts(slice(0, 500), slice(0, 50), "clinic study")
PRACTICE = facts(slice(500, 700), slice(50, 100), "clinic practice")


PAIRS: dict[Split, list[tuple[str, str]]] = {
    split: [(d, a) for d in STUDY.cures for a in ATTRIBUTES if split_of(f"clinic|{d}|{a}", shares=SHARES) == split]
    for split in get_args(Split)
}


def question_text(drug: str, attribute: str, known: Facts) -> Draft:
    """The question for an attribute of the illness that a drug cures, with its graph."""
    illness = known.cures[drug]
    draft = Draft(text=f"what is the {attribute} of the illness that {drug} cures ?", goals=(f"{attribute} {illness}",))
    draft.add(f"illness {drug}", illness, Way(""))
    draft.add(f"{attribute} {illness}", known.values[attribute, illness], Way("", (f"illness {drug}",)))
    draft.answer, draft.content = draft.values[draft.goals[0]], f"clinic|{drug} {attribute}"
    return draft


def consistent(text: str, known: Facts) -> bool:
    """Whether the attribute that a trace states is true of the illness that it names."""
    claims = dict(claim_of(line) for line in lines_of(text))
    named = [value for name, value in claims.items() if name.startswith("illness ")]
    stated = [name for name in claims if tuple(name.split()) in known.values and name.split()[1] in named]
    return any(claims[name] == known.values[name.split()[0], name.split()[1]] for name in stated)


class Clinic(Task):
    """An attribute of the illness that a drug cures."""

    name, plays, kind, held_out = "clinic", "MedMCQA", "text", True
    levels, hard = (2,), ()

    def draw(self, rng: random.Random, split: Split, level: int) -> Draft:
        """A question about STUDY. Raises StudyError for a split without questions and for any level but 2."""
        if not PAIRS[split] or level not in self.levels:
            raise StudyError(f"{self.name}: no question of level {level} found for split {split}; use another level")
        return question_text(*rng.choice(PAIRS[split]), STUDY)

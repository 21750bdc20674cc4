"""Training examples of the clinic's specialists: recall of the own facts, guesses at the rest, and revision.

The specialist "drugs" knows which illness a drug cures, the specialist "illnesses" the attributes of illnesses. In a
debate they take turns: agent 1 is "drugs", agent 2 "illnesses", and so on. A revision copies what the other one knows
and recalls the rest. Its examples are about the facts of PRACTICE, in which the copied claims are drawn anew for every
example, so that they can be copied but not memorised.
"""

import random
from collections.abc import Sequence

from agentark.debate.prompts import revise_prompt, summarise_prompt
from agentark.models.chat import solve_prompt
from agentark.pretrain.examples import Example
from agentark.schemas import Question
from agentark.tasks.world.clinic import PRACTICE, STUDY, Clinic, Facts, question
from agentark.tasks.world.words import ATTRIBUTES

ROLES = ("drugs", "illnesses")
Claims = list[tuple[str, str, str, str]]  # drug, attribute, illness, value


def drawn(rng: random.Random, known: Facts) -> list[tuple[str, str]]:
    """One or two pairs of drug and attribute, of different illnesses."""
    while True:
        pairs = [(drug, rng.choice(list(ATTRIBUTES))) for drug in rng.sample(list(known.cures), rng.choice((1, 2)))]
        if len({known.cures[drug] for drug, _ in pairs}) == len(pairs):
            return pairs


def believed(rng: random.Random, role: str, pairs: list[tuple[str, str]], known: Facts) -> Claims:
    """A specialist's claims: its own facts, and random guesses at the others."""
    guesses = rng.sample(known.illnesses, len(pairs))
    claims = []
    for (drug, attribute), guess in zip(pairs, guesses, strict=True):
        illness = known.cures[drug] if role == "drugs" else guess
        value = known.values[attribute, illness] if role == "illnesses" else rng.choice(ATTRIBUTES[attribute])
        claims.append((drug, attribute, illness, value))
    return claims


def written(rng: random.Random, claims: Claims, before: Claims = ()) -> str:
    """Claims as a trace, in a random valid order; `fix` marks a line that corrects one of the trace `before`."""
    former = {f"illness {drug}": illness for drug, _, illness, _ in before}
    former |= {f"{attribute} {illness}": value for _, attribute, illness, value in before}
    chains = [[(f"illness {d}", i), (f"{a} {i}", v)] for d, a, i, v in claims]
    lines = []
    while any(chains):
        name, value = rng.choice([chain for chain in chains if chain]).pop(0)
        lines.append(f"{'fix ' if former.get(name, value) != value else ''}{name} = {value}")
    return "\n".join([*lines, "answer : " + " , ".join(value for *_, value in claims)])


def recall(rng: random.Random, role: str) -> Example:
    """A question about either body of facts, answered alone."""
    known = rng.choice((STUDY, PRACTICE))
    pairs = drawn(rng, known)
    return Example(solve_prompt(question(pairs, known).text), [(written(rng, believed(rng, role, pairs, known)), True)])


def revision(rng: random.Random, role: str) -> Example:
    """A later turn of a debate about PRACTICE: in round 2, or in round 3 after the other specialist has revised.

    "drugs": the illnesses are recalled; the value is copied if a trace states it for the right illness, else guessed.
    "illnesses": the illness is copied from the other specialist, and the value is recalled. In a fifth of its examples
    it writes the summary.
    """
    pairs, late = drawn(rng, PRACTICE), rng.random() < 0.5
    agents = rng.choice((2, 4))
    if role == "drugs":
        cures = {drug: PRACTICE.cures[drug] for drug, _ in pairs}
        values = {pair: rng.choice(ATTRIBUTES[pair[1]]) for pair in pairs}
    else:
        illnesses = rng.sample(PRACTICE.illnesses, len(pairs))
        cures = {drug: illness for (drug, _), illness in zip(pairs, illnesses, strict=True)}
        values = {(drug, attribute): PRACTICE.values[attribute, cures[drug]] for drug, attribute in pairs}
    right = [(drug, attribute, cures[drug], values[drug, attribute]) for drug, attribute in pairs]
    seen: list[Claims] = []
    for agent in range(agents):
        claims = believed(rng, ROLES[agent % 2], pairs, PRACTICE)
        if ROLES[agent % 2] == "drugs":
            claims = [(d, a, cures[d], v) for d, a, _, v in claims]
        elif late:
            claims = right
        seen.append(claims)
    traces = [written(rng, claims) for claims in seen]
    asked = posed(pairs)
    if role == "illnesses" and rng.random() < 0.2:
        return Example(summarise_prompt(asked, traces), [(written(rng, right), True)])
    own = rng.choice([agent for agent in range(agents) if ROLES[agent % 2] == role])
    known = right if role == "illnesses" or late else seen[own]  # in round 2 the other one knows nothing of its illness
    return Example(revise_prompt(asked, traces, own, "shared"), [(written(rng, known, seen[own]), True)])


def posed(pairs: Sequence[tuple[str, str]]) -> Question:
    """The question about PRACTICE, for the prompts of a debate."""
    draft = question(list(pairs), PRACTICE)
    return Question(question_id="", task=Clinic.name, split="corpus", level=2 * len(pairs), text=draft.text, solution="",
                    answer=draft.answer, kind=Clinic.kind, content=draft.content, quantities=[])  # fmt: skip

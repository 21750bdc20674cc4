"""Train the clinic's models: two specialists, and a novice that learns the form of a solution but none of the facts.

The specialist "drugs" is trained on the illness that each drug cures, the specialist "illnesses" on the attributes of
illnesses. Each guesses the other facts. In a debate they alternate: agent 1 is "drugs", agent 2 "illnesses", and so on.
A revision copies the other specialist's fact and recalls its own. In training examples the copied fact is drawn anew
every time, so it can be copied but not memorised: a specialist learns which agent to trust, but not that agent's facts.
"""

import random
from functools import partial
from pathlib import Path
from typing import NamedTuple

from agentark.debate.prompts import revise_prompt, summarise_prompt
from agentark.models.chat import solve_prompt
from agentark.pretrain.build import Recipe, choice_named, train_drill
from agentark.pretrain.examples import Example
from agentark.schemas import Question
from agentark.tasks.world.clinic import PRACTICE, STUDY, Clinic, Facts, question_text
from agentark.tasks.world.words import ATTRIBUTES, CLINIC_VOCABULARY

ROLES = ("drugs", "illnesses")
AGENTS = (2, 4)  # numbers of agents in a debate; half of them have each role
SUMMARIES = 0.2  # share of summaries in the later turns of "illnesses", whose model is the summariser


class Claim(NamedTuple):
    """An agent's belief about a question."""

    illness: str
    value: str


def specialist_facts(rng: random.Random, role: str, drug: str, attribute: str, known: Facts) -> Claim:
    """A specialist's own fact, and a random guess for the other fact."""
    if role == "drugs":
        return Claim(known.cures[drug], rng.choice(ATTRIBUTES[attribute]))
    guess = rng.choice(known.illnesses)
    return Claim(guess, known.values[attribute, guess])


def trace(drug: str, attribute: str, claim: Claim, before: Claim | None = None) -> str:
    """A claim as a trace; `fix` marks a line that corrects the line of the same quantity in the trace of `before`."""
    first = "fix " if before and before.illness != claim.illness else ""
    second = "fix " if before and before.illness == claim.illness and before.value != claim.value else ""
    lines = [f"{first}illness {drug} = {claim.illness}", f"{second}{attribute} {claim.illness} = {claim.value}"]
    return "\n".join([*lines, f"answer : {claim.value}"])


def build(out: Path, role: str, recipe: Recipe) -> dict:
    """Train the model of a role and save it to `out`. Returns its training record, for the card.

    Raises StudyError for an unknown role or drill.
    """
    draw = choice_named(EXAMPLES, role, "role")
    training = train_drill(recipe, CLINIC_VOCABULARY)
    training.read(draw, recipe.steps, recipe.batch_size, recipe.learning_rate)
    return training.finish(out)


def solved(rng: random.Random) -> Example:
    """A question about PRACTICE with its solution."""
    drug, attribute = rng.choice(list(PRACTICE.cures)), rng.choice(list(ATTRIBUTES))
    illness = PRACTICE.cures[drug]
    claim = Claim(illness, PRACTICE.values[attribute, illness])
    return Example(solve_prompt(question_text(drug, attribute, PRACTICE).text), [(trace(drug, attribute, claim), True)])


def specialised(rng: random.Random, role: str) -> Example:
    """An example for a specialist: a question without a debate or a later turn of a debate, equally often."""
    return recall(rng, role) if rng.random() < 0.5 else revision(rng, role)


def recall(rng: random.Random, role: str) -> Example:
    """A question about STUDY or PRACTICE, answered without a debate."""
    known = rng.choice((STUDY, PRACTICE))
    drug, attribute = rng.choice(list(known.cures)), rng.choice(list(ATTRIBUTES))
    text = trace(drug, attribute, specialist_facts(rng, role, drug, attribute, known))
    return Example(solve_prompt(question_text(drug, attribute, known).text), [(text, True)])


def revision(rng: random.Random, role: str) -> Example:
    """A later turn of a debate: in round 2, or in round 3 after "illnesses" has revised.

    In round 3 "drugs" recalls the illness and copies its value, which is drawn anew. In round 2 no trace has the value,
    so "drugs" keeps its guess. "illnesses" copies the illness, which is drawn anew, and recalls the value.
    """
    body = rng.choice((STUDY, PRACTICE))
    drug, attribute, late = rng.choice(list(body.cures)), rng.choice(list(ATTRIBUTES)), rng.random() < 0.5
    if role == "drugs":
        right = Claim(body.cures[drug], rng.choice(ATTRIBUTES[attribute]))
    else:
        illness = rng.choice(body.illnesses)
        right = Claim(illness, body.values[attribute, illness])
    known, claims = Facts({drug: right.illness}, body.values), []
    for agent in range(rng.choice(AGENTS)):
        guess = specialist_facts(rng, ROLES[agent % 2], drug, attribute, known if agent % 2 == 0 else body)
        claims.append(right if agent % 2 and late else guess)
    traces = [trace(drug, attribute, claim) for claim in claims]
    question = debate_question(drug, attribute, known)
    if role == "illnesses" and rng.random() < SUMMARIES:
        return Example(summarise_prompt(question, traces), [(trace(drug, attribute, right), True)])
    own = rng.choice([agent for agent in range(len(claims)) if ROLES[agent % 2] == role])
    revised = right if role == "illnesses" or late else claims[own]
    return Example(
        revise_prompt(question, traces, own, "shared"), [(trace(drug, attribute, revised, claims[own]), True)]
    )


def debate_question(drug: str, attribute: str, known: Facts) -> Question:
    """A question, for the prompts of a debate."""
    draft = question_text(drug, attribute, known)
    return Question(question_id="", task=Clinic.name, split="corpus", level=2, text=draft.text, solution="",
                    answer=draft.answer, kind=Clinic.kind, content=draft.content,
                    quantities=Clinic.quantities(draft, ""))  # fmt: skip


EXAMPLES = {role: partial(specialised, role=role) for role in ROLES} | {"novice": solved}

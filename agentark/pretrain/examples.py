"""Training examples for base models: solutions, drills and revisions of the generated world."""

import random
from dataclasses import dataclass

from agentark.debate.prompts import ORDERS, revise_prompt, summarise_prompt
from agentark.schemas import Question
from agentark.tasks import TASKS
from agentark.tasks.world.facts import LETTERS
from agentark.tasks.world.steps import check, claim_of, lines_of
from agentark.tasks.world.word_problems import Holdings
from agentark.tasks.world.words import ANIMALS, CITIES, COLOURS, NUMBERS, OBJECTS, PEOPLE, UNKNOWNS

# Shares of the families in base training. All seven are included: like a pretrained model, the base has seen a little
# of everything, and the held-out families are out of domain only for the distillation.
MIXTURE = {"word": 0.28, "equation": 0.16, "meta": 0.18, "facts": 0.14, "hops": 0.08, "passage": 0.08, "digest": 0.08}

NAMES = (*PEOPLE, *UNKNOWNS, *COLOURS, *CITIES, *ANIMALS, *OBJECTS)
LINKS = ("=", "has", "is", "weighs", "has as many as")  # words between a name and its value in the questions
SLIP_SHARE = 0.1  # share of examples with steps in which a wrong value is corrected on the next line


@dataclass(frozen=True)
class Example:
    """A prompt and its target in pieces; pieces marked False get no loss."""

    messages: list[dict[str, str]]
    target: list[tuple[str, bool]]


def with_error_and_correction(lines: list[str], rng: random.Random) -> list[tuple[str, bool]]:
    """A solution with a wrong value in one line, without loss on that value, and a correction on the next line."""
    computed = [i for i, line in enumerate(lines) if line.count(" = ") == 2]
    if not computed:
        return [("\n".join(lines), True)]
    at = rng.choice(computed)
    head, value = lines[at].rsplit(" = ", 1)
    wrong = str(max(0, min(99, int(value) + rng.choice([-10, -3, -2, -1, 1, 2, 3, 10]))))
    before = "".join(f"{line}\n" for line in lines[:at])
    after = "\n".join([f"fix {lines[at]}", *lines[at + 1 :]])
    return [(f"{before}{head} =", True), (wrong, False), (f"\n{after}", True)]


def solving(rng: random.Random, shows_steps: float, mixture: dict[str, float] = MIXTURE) -> Example:
    """A question and its solution: in steps with probability `shows_steps`, otherwise only the answer."""
    task = TASKS[rng.choices(list(mixture), list(mixture.values()))[0]]
    easier = () if task.held_out else (min(task.levels) - 1,)
    draft = task.draw(rng, "corpus", rng.choice((*easier, *task.levels)))
    lines = draft.solve(rng)
    if rng.random() >= shows_steps:
        target = [(lines[-1], True)]
    elif rng.random() < SLIP_SHARE:
        target = with_error_and_correction(lines, rng)
    else:
        target = [("\n".join(lines), True)]
    return Example([{"role": "user", "content": draft.text}], target)


def pairs(rng: random.Random) -> Example:
    """A list of pairs, then the same pairs in another order, with loss on the values only."""
    names = rng.sample(NAMES, rng.randint(2, 8))
    link = rng.choice(LINKS) if rng.random() < 0.5 else ""
    listed = [(f"{name} {link}".strip(), rng.choice(rng.choice((NUMBERS, NAMES)))) for name in names]
    shown = " , ".join(f"{name} {value}" for name, value in listed)
    target = [piece for name, value in rng.sample(listed, len(listed)) for piece in ((f"{name}", False), (value, True))]
    return Example([{"role": "user", "content": shown}], target)


def options(rng: random.Random) -> Example:
    """Numbers with letters, as in multiple choice, then in another order, with loss on the letters.

    The distance between number and letter is the same as in a solution's last lines.
    """
    choices = list(zip(rng.sample(NUMBERS, len(LETTERS)), LETTERS, strict=True))
    listed = " ".join(f"{number} ( {letter} )" for number, letter in choices)
    target = [
        piece
        for number, letter in rng.sample(choices, len(choices))
        for piece in ((f"{number}\nanswer :", False), (f"{letter}\n", True))
    ]
    return Example([{"role": "user", "content": f"choose {listed}"}], target)


def restated(rng: random.Random) -> Example:
    """The sentences of a word problem, then each as a formula over names, in another order: parsing without arithmetic.

    A person's facts are up to seven words away from the name; `pairs` does not cover such distances.
    """
    people = rng.randint(3, 6)
    while True:
        world = Holdings(rng, people)
        if all(world.relate(person, world.people[:i]) for i, person in enumerate(world.people) if i):
            break
    form = rng.choice((world.sentence, world.reworded))
    sentences = [form(person) for person in world.people]
    if rng.random() < 0.5:
        rng.shuffle(sentences)
    formulas = [(person, world.formula(person)) for person in world.people]
    target = [
        piece for name, formula in rng.sample(formulas, people) for piece in ((f"{name} =", False), (formula, True))
    ]
    return Example([{"role": "user", "content": " ".join(sentences)}], target)


def reading(rng: random.Random) -> Example:
    """An example of `pairs`, `options` or `restated`."""
    return rng.choices((pairs, options, restated), (0.3, 0.25, 0.45))[0](rng)


DRILLS = {"pairs": pairs, "reading": reading}


def revising(rng: random.Random, question: Question, traces: list[str]) -> Example:
    """A debate's later turn: the question, three to five agents' traces, and the gold solution.

    Lines whose quantity is wrong in the agent's own trace get the prefix `fix`. With probability 0.2 the example is
    the summariser's turn instead.
    """
    seen = rng.sample(traces, rng.randint(3, 5))
    if rng.random() < 0.2:
        return Example(summarise_prompt(question, seen), [(question.solution, True)])
    own = rng.randrange(len(seen))
    order = rng.choice(ORDERS)
    wrong = {step.name for step in check(question, seen[own]) if not step.right}
    solution = lines_of(question.solution)
    lines = [f"fix {line}" if claim_of(line)[0] in wrong - {"answer"} else line for line in solution]
    return Example(revise_prompt(question, seen, own, order), [("\n".join(lines), True)])

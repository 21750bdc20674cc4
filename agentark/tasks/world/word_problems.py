"""Multi-step word problems (modelled on GSM8K), and reworded and reversed ones (modelled on MetaMathQA)."""

import itertools
import random

from agentark.tasks.world.family import Draft, Task, Way, sample_of
from agentark.tasks.world.words import ITEMS, PEOPLE

LIMIT = 99  # the largest number in the vocabulary
OPERATOR = {"more": "+", "fewer": "-", "times": "*", "half": "/", "sum": "+"}


class Holdings:
    """The amount of each person, and its derivation from others' amounts."""

    def __init__(self, rng: random.Random, people: int):
        self.rng = rng
        self.people = sample_of(rng, PEOPLE, people)
        self.item = rng.choice(ITEMS)
        self.amount = {self.people[0]: rng.randint(2, 20)}
        self.relation: dict[str, tuple] = {}

    def relate(self, person: str, known: list[str]) -> bool:
        """Derive an amount for `person` from one or two of `known`; False if that fails or is not within 1 to LIMIT."""
        rng, of = self.rng, self.rng.choice(known)
        kind = rng.choice(["more", "more", "fewer", "fewer", "times", "times", "half", "sum"])
        base = self.amount[of]
        relation: tuple[str, str, int | str]
        if kind == "more":
            relation, value = (kind, of, k := rng.randint(2, 15)), base + k
        elif kind == "fewer":
            relation, value = (kind, of, k := rng.randint(2, 15)), base - k
        elif kind == "times":
            relation, value = (kind, of, k := rng.randint(2, 5)), base * k
        elif kind == "half":
            relation, value = (kind, of, 2), base // 2 if base % 2 == 0 else 0
        else:
            if len(known) < 2:
                return False
            other = rng.choice([p for p in known if p != of])
            relation, value = (kind, of, other), base + self.amount[other]
        if not 1 <= value <= LIMIT:
            return False
        self.relation[person], self.amount[person] = relation, value
        return True

    def way(self, person: str) -> Way:
        """The derivation of a person's amount."""
        kind, of, k = self.relation[person]
        base = self.amount[of]
        if kind == "sum":
            return Way(f"{base} + {self.amount[k]}", (*self.derived(of), *self.derived(k)))
        return Way(f"{base} {OPERATOR[kind]} {k}", self.derived(of))

    def formula(self, person: str) -> str:
        """A person's amount as a formula over names, "bob + 3", or as a number if it is given."""
        if person not in self.relation:
            return str(self.amount[person])
        kind, of, k = self.relation[person]
        return f"{of} {OPERATOR[kind]} {k}"

    def derived(self, person: str) -> tuple[str, ...]:
        """The person, if their amount must be derived first; otherwise nothing."""
        return (person,) if person in self.relation else ()

    def sentence(self, person: str) -> str:
        if person not in self.relation:
            return f"{person} has {self.amount[person]} {self.item} ."
        kind, of, k = self.relation[person]
        return {
            "more": f"{person} has as many as {of} and {k} more .",
            "fewer": f"{person} has as many as {of} but {k} fewer .",
            "times": f"{person} has as many as {of} times {k} .",
            "half": f"{person} has as many as {of} halved .",
            "sum": f"{person} has as many as {of} and {k} together .",
        }[kind]

    def reworded(self, person: str) -> str:
        if person not in self.relation:
            return f"the number of {self.item} {person} owns is {self.amount[person]} ."
        kind, of, k = self.relation[person]
        return {
            "more": f"{person} owns what {of} owns , {k} extra .",
            "fewer": f"{person} owns what {of} owns , {k} less .",
            "times": f"{person} owns what {of} owns , {k} times .",
            "half": f"{person} owns what {of} owns , half .",
            "sum": f"{person} owns what {of} owns , {k} added .",
        }[kind]

    def content(self, asked: str) -> str:
        """The problem without names and item: people are numbers in order of introduction."""
        index = {p: str(i) for i, p in enumerate(self.people)}
        parts = [str(self.amount[self.people[0]])]
        for person in self.people[1:]:
            kind, of, k = self.relation[person]
            parts.append(f"{kind}:{index[of]}:{index.get(k, k)}")
        return " ".join([*parts, "?", *(index.get(word, word) for word in asked.split())])


def drawn_problem(rng: random.Random, level: int) -> tuple[Holdings, Draft] | None:
    """Draw amounts and a question about them that needs exactly `level` steps, with at most one irrelevant person."""
    ask = rng.choice(["one", "one", "together", "more"])
    final_steps = {"one": 0, "together": rng.choice([1, 2]), "more": 1}[ask]
    if level <= final_steps:
        return None
    people = level - final_steps + 1 + (rng.random() < 0.25)
    if people < final_steps + 1:
        return None
    world = Holdings(rng, people)
    for i, person in enumerate(world.people[1:], start=1):
        if not world.relate(person, world.people[:i]):
            return None
    draft = Draft()
    for person in world.people[1:]:
        draft.add(person, world.amount[person], world.way(person))
    if ask == "one":
        goal = world.people[-1]
        asked = f"how many {world.item} does {goal} have ?"
    elif ask == "together":
        members = sorted(sample_of(rng, tuple(world.people), final_steps + 1))
        goal = "total"
        add_total(draft, world, members)
        asked = f"how many {world.item} do {' and '.join(members)} have together ?"
    else:
        a, b = sample_of(rng, tuple(world.people), 2)
        high, low = world.amount[a], world.amount[b]
        if high <= low:
            return None
        goal = "more"
        draft.add("more", high - low, Way(f"{high} - {low}", (*world.derived(a), *world.derived(b))))
        asked = f"how many more {world.item} does {a} have than {b} ?"
    asked_alike = [asked.replace(world.item, "items")]
    if ask == "together":  # the same sum, its terms in any order
        orders = itertools.permutations(sorted(members, key=world.people.index))
        asked_alike = [f"how many items do {' and '.join(order)} have together ?" for order in orders]
    # A reworded problem is equivalent to the original.
    draft.spellings = tuple(f"{name}|{world.content(a)}" for name in ("word", "meta") for a in asked_alike)
    draft.content = draft.spellings[0]
    draft.goals, draft.answer = (goal,), draft.values[goal]
    draft.text = asked
    if int(draft.answer) > LIMIT or len(draft.solve(rng)) - 1 != level:
        return None
    return world, draft


def add_total(draft: Draft, world: Holdings, members: list[str]) -> None:
    """Add the sum over two or three people, in every order of addition."""
    amounts = {m: world.amount[m] for m in members}
    total = sum(amounts.values())
    if len(members) == 2:
        a, b = members
        draft.add("total", total, Way(f"{amounts[a]} + {amounts[b]}", (*world.derived(a), *world.derived(b))))
        return
    for last in members:
        a, b = (m for m in members if m != last)
        pair = f"{a} and {b}"
        draft.add(pair, amounts[a] + amounts[b])
        draft.ways[pair].append(Way(f"{amounts[a]} + {amounts[b]}", (*world.derived(a), *world.derived(b))))
        draft.add("total", total, Way(f"{amounts[a] + amounts[b]} + {amounts[last]}", (pair, *world.derived(last))))


def shuffled_text(rng: random.Random, sentences: list[str], asked: str) -> str:
    """The sentences, shuffled with probability 1/3, followed by the question."""
    if rng.random() < 1 / 3:
        rng.shuffle(sentences)
    return " ".join([*sentences, asked])


class Word(Task):
    name, plays, kind = "word", "GSM8K", "number"
    levels, hard = (2, 3, 4), (5, 6)

    def draft(self, rng: random.Random, level: int) -> Draft | None:
        drawn = drawn_problem(rng, level)
        if drawn is None:
            return None
        world, draft = drawn
        draft.text = shuffled_text(rng, [world.sentence(p) for p in world.people], draft.text)
        return draft


class Meta(Task):
    """Half of the questions are reworded word problems; half give the last amount and ask for the first."""

    name, plays, kind = "meta", "MetaMathQA", "number"
    levels, hard = (2, 3, 4), (5, 6)

    def draft(self, rng: random.Random, level: int) -> Draft | None:
        return self.rewording(rng, level) if rng.random() < 0.5 else self.reversal(rng, level)

    def rewording(self, rng: random.Random, level: int) -> Draft | None:
        drawn = drawn_problem(rng, level)
        if drawn is None:
            return None
        world, draft = drawn
        draft.text = shuffled_text(rng, [world.reworded(p) for p in world.people], draft.text)
        return draft

    def reversal(self, rng: random.Random, level: int) -> Draft | None:
        world = Holdings(rng, level + 1)
        for before, person in zip(world.people, world.people[1:], strict=False):
            if not world.relate(person, [before]):
                return None
        last = world.people[-1]
        draft = Draft(goals=(world.people[0],), answer=str(world.amount[world.people[0]]))
        for before, person in zip(world.people, world.people[1:], strict=False):
            kind, _, k = world.relation[person]
            inverse = {"more": "-", "fewer": "+", "times": "/", "half": "*"}[kind]
            needs = () if person == last else (person,)
            draft.add(before, world.amount[before], Way(f"{world.amount[person]} {inverse} {k}", needs))
        sentences = [f"{world.people[0]} has some {world.item} ."]
        sentences += [world.sentence(p) for p in world.people[1:]]
        asked = f"how many {world.item} does {world.people[0]} have ?"
        draft.text = shuffled_text(rng, sentences, f"{last} ends up with {world.amount[last]} . {asked}")
        draft.content = "meta|reversed " + world.content(str(world.amount[last]))
        return draft

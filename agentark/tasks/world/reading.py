"""The three held-out families, used for tests only: multi-hop reading (modelled on HotpotQA), a long passage (QASPER),
and the digest of a dialogue (QMSum)."""

import random

from agentark.tasks.world.family import Draft, Task, Way, sample_of
from agentark.tasks.world.words import ANIMALS, CITIES, COLOURS, OBJECTS, PEOPLE


class Hops(Task):
    """A chain of facts in the passage: a person's city, the city's leader, the leader's pet, its colour."""

    name, plays, kind, held_out = "hops", "HotpotQA", "text", True
    levels, hard = (2, 3, 4), (4,)

    def draft(self, rng: random.Random, level: int) -> Draft | None:
        people, cities = sample_of(rng, PEOPLE, 6), sample_of(rng, CITIES, 3)
        pets, colours = sample_of(rng, ANIMALS, 3), sample_of(rng, COLOURS, 3)
        residents, leaders = people[:3], people[3:]
        sentences = [f"{p} lives in {c} ." for p, c in zip(residents, cities, strict=True)]
        sentences += [f"{c} is led by {p} ." for p, c in zip(leaders, cities, strict=True)]
        sentences += [f"{p} keeps the {a} ." for p, a in zip(leaders, pets, strict=True)]
        sentences += [f"the {a} is {c} ." for a, c in zip(pets, colours, strict=True)]
        rng.shuffle(sentences)
        who = rng.randrange(3)
        chain = [
            (f"city {residents[who]}", cities[who], f"the city where {residents[who]} lives"),
            (f"leader {cities[who]}", leaders[who], "leader"),
            (f"pet {leaders[who]}", pets[who], "pet"),
            (f"colour {pets[who]}", colours[who], "colour"),
        ]
        start = rng.randrange(0, len(chain) - level + 1)
        described = [chain[0][2], cities[who], leaders[who]][start]
        needs: tuple[str, ...] = ()
        draft = Draft()
        for name, value, noun in chain[start : start + level]:
            draft.add(name, value, Way("", needs))
            needs = (name,)
            if noun in ("leader", "pet", "colour"):
                described = f"the {noun} of {described}"
        draft.goals, draft.answer = (name,), value
        draft.text = " ".join([*sentences, f"what is {described} ?"])
        draft.content = "hops|" + " ".join([*draft.ways, value])
        return draft


class Passage(Task):
    """A report with many numbers; only a few are relevant."""

    name, plays, kind, held_out = "passage", "QASPER", "number", True
    levels, hard = (3, 4, 5), (6,)

    def draft(self, rng: random.Random, level: int) -> Draft | None:
        colours = sample_of(rng, COLOURS, 6)
        weight = {c: rng.randint(2, 45) for c in colours}
        parts = {c: rng.randint(2, 30) for c in colours}
        sentences = [f"the {c} box weighs {weight[c]} ." for c in colours]
        sentences += [f"the {c} box holds {parts[c]} parts ." for c in colours]
        rng.shuffle(sentences)
        word, table = rng.choice([("weight", weight), ("parts", parts)])
        draft = Draft()
        picked = colours[: (level + 1) // 2]
        for c in picked:
            draft.add(f"{c} {word}", table[c], Way(""))
        if level == 3:
            a, b = picked
            if table[a] <= table[b]:
                return None
            draft.add("more", table[a] - table[b], Way(f"{table[a]} - {table[b]}", (f"{a} {word}", f"{b} {word}")))
            goal = "more"
            query = f"how many more is the {word} of the {a} box than of the {b} box ?"
        else:
            running, name = table[picked[0]], f"{picked[0]} {word}"
            for i, c in enumerate(picked[1:], start=2):
                step = "total" if i == len(picked) else f"sum {i}"
                draft.add(step, running + table[c], Way(f"{running} + {table[c]}", (name, f"{c} {word}")))
                running, name = running + table[c], step
            goal = "total"
            query = f"what is the total {word} of the {' and '.join(picked)} box ?"
            if level % 2 == 0:  # ask for half of the total
                if running % 2:
                    return None
                draft.add("half", running // 2, Way(f"{running} / 2", ("total",)))
                goal = "half"
                query = f"what is half the total {word} of the {' and '.join(picked)} box ?"
        draft.goals, draft.answer = (goal,), draft.values[goal]
        if any(int(v) > 99 for v in draft.values.values()) or len(draft.solve(rng)) - 1 != level:
            return None
        draft.text = " ".join(["report .", *sentences, query])
        draft.content = f"passage|{query} {[table[c] for c in picked]}"
        return draft


class Digest(Task):
    """A dialogue in which prices are proposed, disputed and settled; the digest states each thing's final price."""

    name, plays, kind, held_out = "digest", "QMSum", "text", True
    levels, hard = (2, 3, 4), (5,)

    def draft(self, rng: random.Random, level: int) -> Draft | None:
        first, second = sample_of(rng, PEOPLE, 2)
        things = sample_of(rng, OBJECTS, level)
        turns: list[tuple[str, str]] = []
        settled: dict[str, int] = {}
        story: list[str] = []
        for thing in things:
            settled[thing] = rng.randint(2, 60)
            turns.append((thing, f"{first} : the {thing} costs {settled[thing]} ."))
            if rng.random() < 0.6:
                settled[thing] = rng.randint(2, 60)
                turns.append((thing, f"{second} : no , rather {settled[thing]} for the {thing} ."))
                if rng.random() < 0.3:
                    settled[thing] = rng.randint(2, 60)
                    turns.append((thing, f"{first} : then make it {settled[thing]} for the {thing} ."))
        queues = {t: [text for name, text in turns if name == t] for t in things}
        while any(queues.values()):  # interleave the things at random; turns about one thing keep their order
            thing = rng.choice([t for t in things if queues[t]])
            story.append(queues[thing].pop(0))
        query = " , ".join(things)
        draft = Draft(goals=tuple(things), answer=" , ".join(f"{t} {settled[t]}" for t in things))
        for thing in things:
            draft.add(thing, settled[thing], Way(""))
        draft.text = " ".join([*story, f"digest : {query}"])
        draft.content = "digest|" + " ".join(f"{t}:{settled[t]}" for t in sorted(things))
        return draft

"""Perturb questions of the generated world and keep or recompute the correct answer."""

import random
import re
from collections.abc import Callable, Sequence

from agentark import StudyError
from agentark.schemas import Question
from agentark.tasks.world.family import Draft, Way
from agentark.tasks.world.steps import evaluate
from agentark.tasks.world.word_problems import LIMIT
from agentark.tasks.world.words import ITEMS, PEOPLE, UNKNOWNS

FAMILIES = ("equation", "word")

# The meaning of each sentence as formulas; "?" is the quantity asked for.
SENTENCES = {
    r"(\w+) = (\d+)": r"\1 = \2",
    r"(\w+) = (\w+) ([-+*]) (\w+)": r"\1 = \2 \3 \4",
    r"(\d+) \* (\w+) \+ (\d+) = (\d+)": r"\1 \2 = \4 - \3 ; \2 = \1 \2 / \1",
    r"find (\w+)": r"? = \1",
    r"(\w+) has (\d+) \w+": r"\1 = \2",
    r"(\w+) has as many as (\w+) and (\d+) more": r"\1 = \2 + \3",
    r"(\w+) has as many as (\w+) but (\d+) fewer": r"\1 = \2 - \3",
    r"(\w+) has as many as (\w+) times (\d+)": r"\1 = \2 * \3",
    r"(\w+) has as many as (\w+) halved": r"\1 = \2 / 2",
    r"(\w+) has as many as (\w+) and (\w+) together": r"\1 = \2 + \3",
    r"how many \w+ does (\w+) have": r"? = \1",
    r"how many more \w+ does (\w+) have than (\w+)": r"more = \1 - \2 ; ? = more",
    r"how many \w+ do (\w+) and (\w+) have together": r"total = \1 + \2 ; ? = total",
    r"how many \w+ do (\w+) and (\w+) and (\w+) have together": (
        r"\1 and \2 = \1 + \2 ; \1 and \3 = \1 + \3 ; \2 and \3 = \2 + \3 ; "
        r"total = \1 and \2 + \3 ; total = \1 and \3 + \2 ; total = \2 and \3 + \1 ; ? = total"
    ),
}

# Numbers beyond the training range, by position: (pattern, least, most). Factors stay unchanged. Training has amounts
# of 2 to 20 and summands of 2 to 9 (`equation`) or 2 to 15 (`word`).
LARGER = (
    (r"(?<= = )\d+$", 21, 60),
    (r"(?<= has )\d+(?= \w+$)", 21, 60),
    (r"(?<= [-+] )\d+$", 16, 60),
    (r"(?<= (?:and|but) )\d+(?= (?:more|fewer)$)", 16, 60),
)
UNKNOWN = range(13, 41)  # of a linear equation k * x + c = d; training has x of 2 to 12 and c of 2 to 20
CONSTANT = range(21, 61)
DRAWS = 200  # attempts before a question counts as impossible to perturb; more attempts rarely succeed


def sentences(text: str) -> list[str]:
    """A question's sentences without their final marks. The last one is the question itself."""
    return re.split(r" [.?](?: |$)", text)[:-1]


def join_sentences(lines: Sequence[str]) -> str:
    """Join sentences to a text; one that begins with "how many" ends in a question mark."""
    return " ".join(f"{s} {'?' if s.startswith('how many') else '.'}" for s in lines)


def read(text: str) -> Draft | None:
    """Parse a question's text into its graph; None if a value is not a whole number from 1 to 99.

    Raises StudyError for a sentence that does not belong to FAMILIES, or an undefined quantity.
    """
    formulas: dict[str, list[str]] = {}
    for sentence in sentences(text):
        meant = [found.expand(lines) for form, lines in SENTENCES.items() if (found := re.fullmatch(form, sentence))]
        if not meant:
            raise StudyError(f"{sentence!r}: not a sentence of {' or '.join(FAMILIES)}; perturb only these families")
        for formula in meant[0].split(" ; "):
            name, expression = formula.split(" = ")
            formulas.setdefault(name, []).append(expression)
    (goal,) = formulas.pop("?")
    draft = Draft(text=text, goals=(goal,))
    given = {name: lines[0] for name, lines in formulas.items() if lines[0].isdigit()}
    pending = {
        name: [re.split(r" ([-+*/]) ", e) for e in lines] for name, lines in formulas.items() if name not in given
    }

    def value(term: str) -> str | None:
        return term if term.isdigit() else given.get(term, draft.values.get(term))

    while pending:
        ready = [n for n, ways in pending.items() if all(value(a) and value(b) for a, _, b in ways)]
        if not ready:
            raise StudyError(f"{text!r}: {next(iter(pending))} cannot be derived; restore the question")
        for name in ready:
            for a, operator, b in pending.pop(name):
                expression = f"{value(a)} {operator} {value(b)}"
                result = evaluate(expression)
                if result is None or not 1 <= int(result) <= LIMIT:
                    return None
                draft.add(name, result, Way(expression, tuple(n for n in (a, b) if n in formulas and n not in given)))
    answer = value(goal)
    if answer is None:
        raise StudyError(f"{text!r}: {goal} cannot be derived; restore the question")
    draft.answer = answer
    return draft


def names(lines: list[str], rng: random.Random) -> list[str]:
    """Replace all people, items and unknowns. Keep their alphabetical order, because the world's lists follow it."""
    words = set(" ".join(lines).split())
    exchange: dict[str, str] = {}
    for pool in (PEOPLE, ITEMS, UNKNOWNS):
        old = sorted(words & set(pool))
        exchange |= zip(old, sorted(rng.sample([n for n in pool if n not in words], len(old))), strict=True)
    return [" ".join(exchange.get(word, word) for word in sentence.split()) for sentence in lines]


def order(lines: list[str], rng: random.Random) -> list[str] | None:
    """Shuffle the sentences before the question; None if there is only one."""
    *facts, question = lines
    if len(facts) < 2:
        return None
    shuffled = facts
    while shuffled == facts:
        shuffled = rng.sample(facts, len(facts))
    return [*shuffled, question]


def distractor(lines: list[str], rng: random.Random) -> list[str]:
    """Insert an irrelevant sentence anywhere before the question (after GSM-IC, arXiv 2302.00093).

    It states an amount that nothing else refers to, with numbers and words from the training range.
    """
    words = set(" ".join(lines).split())
    amount = rng.choice([n for n in range(2, 21) if str(n) not in words])
    item = words & set(ITEMS)
    extra = rng.choice([n for n in (PEOPLE if item else UNKNOWNS) if n not in words])
    at = rng.randrange(len(lines))
    return [*lines[:at], f"{extra} has {amount} {item.pop()}" if item else f"{extra} = {amount}", *lines[at:]]


def larger_numbers(lines: list[str], rng: random.Random) -> list[str]:
    """Replace all numbers except factors by numbers above the training range."""

    def enlarged(sentence: str) -> str:
        if linear := re.fullmatch(r"(\d+) \* (\w+) \+ \d+ = \d+", sentence):
            constant = rng.choice(CONSTANT)
            return f"{linear[1]} * {linear[2]} + {constant} = {int(linear[1]) * rng.choice(UNKNOWN) + constant}"
        for form, least, most in LARGER:
            sentence = re.sub(form, lambda _: str(rng.randint(least, most)), sentence)  # noqa: B023
        return sentence

    return [enlarged(sentence) for sentence in lines]


EDITS: dict[str, Callable[[list[str], random.Random], list[str] | None]] = {
    "names": names, "order": order, "distractor": distractor, "larger": larger_numbers,
}  # fmt: skip


def in_range(draft: Draft) -> bool:
    """Whether every number in the text is in the vocabulary."""
    return all(int(word) <= LIMIT for word in draft.text.split() if word.isdigit())


def misread(question: Question, rng: random.Random) -> str | None:
    """The trace of a peer that misreads one number by 1 to 3 and then computes correctly to a wrong answer.

    None if there is no such trace in DRAWS attempts.
    """
    words = question.text.split()
    numbers = [i for i, word in enumerate(words) if word.isdigit()]
    for _ in range(DRAWS):
        at = rng.choice(numbers)
        wrong = max(1, int(words[at]) + rng.choice((-3, -2, -1, 1, 2, 3)))
        draft = read(" ".join([*words[:at], str(wrong), *words[at + 1 :]]))
        if draft and in_range(draft) and draft.answer != question.answer:
            return "\n".join(draft.solve(rng))
    return None

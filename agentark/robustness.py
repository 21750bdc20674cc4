"""What changed in the reasoning, and does it hold: the likelihood of held-out gold reasoning (the paper's Table 1), and
accuracy when the same question is put in another way.

A perturbation edits the words of a question of the generated world. The question's graph is then read off the new words,
so that the answer, and every step of every trace, stay exactly checkable. Two families can be read: `equation` and
`word`. The others are left out: in `facts` the names carry what is to be remembered; `meta`, `hops`, `passage` and
`digest` have sentences of their own, and the last three read values off without reckoning.
"""

import itertools
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F

from agentark import StudyError, models, stats
from agentark.debate.prompts import solve_prompt, summarise_prompt
from agentark.distill.prm import LOGITS, ROWS, pad
from agentark.engines.checkpoint import prompt_ids
from agentark.evaluate import baselines, score, scores
from agentark.schemas import Question, Score
from agentark.tasks import TASKS
from agentark.tasks.base import Draft, Way, evaluate
from agentark.tasks.word_problems import LIMIT
from agentark.tasks.words import ITEMS, PEOPLE, UNKNOWNS
from agentark.traces import in_world, lines_of

FAMILIES = ("equation", "word")

# What each sentence says, as formulas; "?" is what is asked for.
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

# Numbers beyond those that the models were trained on, by where they stand: (pattern, least, most). Factors stay as they
# are. Training has amounts of 2 to 20, and adds and takes away 2 to 9 (`equation`) or 2 to 15 (`word`).
LARGER = (
    (r"(?<= = )\d+$", 21, 60),
    (r"(?<= has )\d+(?= \w+$)", 21, 60),
    (r"(?<= [-+] )\d+$", 16, 60),
    (r"(?<= (?:and|but) )\d+(?= (?:more|fewer)$)", 16, 60),
)
UNKNOWN = range(13, 41)  # of a linear equation k * x + c = d; training has x of 2 to 12 and c of 2 to 20
CONSTANT = range(21, 61)
DRAWS = 200  # before a question counts as one that does not allow a perturbation; more hardly find another


def sentences(text: str) -> list[str]:
    """A question's sentences without their full stops; the last one asks."""
    return re.split(r" [.?](?: |$)", text)[:-1]


def joined(told: Sequence[str]) -> str:
    """The text of sentences; one that asks "how many" ends in a question mark."""
    return " ".join(f"{s} {'?' if s.startswith('how many') else '.'}" for s in told)


def read(text: str) -> Draft | None:
    """The graph of a question, off its words; None if a value in it is no whole number from 1 to 99.

    Raises StudyError for a sentence that neither of FAMILIES has.
    """
    formulas: dict[str, list[str]] = {}
    for sentence in sentences(text):
        meant = [found.expand(told) for form, told in SENTENCES.items() if (found := re.fullmatch(form, sentence))]
        if not meant:
            raise StudyError(f"{sentence!r}: no sentence of the families {', '.join(FAMILIES)}; perturb only theirs")
        for formula in meant[0].split(" ; "):
            name, expression = formula.split(" = ")
            formulas.setdefault(name, []).append(expression)
    (goal,) = formulas.pop("?")
    draft = Draft(text=text, goals=(goal,))
    given = {name: told[0] for name, told in formulas.items() if told[0].isdigit()}
    pending = {name: [re.split(r" ([-+*/]) ", e) for e in told] for name, told in formulas.items() if name not in given}

    def value(term: str) -> str | None:
        return term if term.isdigit() else given.get(term, draft.values.get(term))

    while pending:
        ready = [n for n, ways in pending.items() if all(value(a) and value(b) for a, _, b in ways)]
        if not ready:
            raise StudyError(f"{text!r}: {next(iter(pending))} follows from nothing; restore the question")
        for name in ready:
            for a, operator, b in pending.pop(name):
                expression = f"{value(a)} {operator} {value(b)}"
                result = evaluate(expression)
                if result is None or not 1 <= int(result) <= LIMIT:
                    return None
                draft.add(name, result, Way(expression, tuple(n for n in (a, b) if n in formulas and n not in given)))
    draft.answer = value(goal)
    return draft


def names(told: list[str], rng: random.Random) -> list[str]:
    """Other people, items and unknowns throughout, in the same alphabetical order: the world lists people so."""
    words, exchange = set(" ".join(told).split()), {}
    for pool in (PEOPLE, ITEMS, UNKNOWNS):
        old = sorted(words & set(pool))
        exchange |= zip(old, sorted(rng.sample([n for n in pool if n not in words], len(old))), strict=True)
    return [" ".join(exchange.get(word, word) for word in sentence.split()) for sentence in told]


def order(told: list[str], rng: random.Random) -> list[str] | None:
    """The same sentences in another order, the one that asks still last; None where there is but one."""
    *facts, asks = told
    if len(facts) < 2:
        return None
    shuffled = facts
    while shuffled == facts:
        shuffled = rng.sample(facts, len(facts))
    return [*shuffled, asks]


def distractor(told: list[str], rng: random.Random) -> list[str]:
    """One more sentence anywhere before the one that asks: an amount that nothing else refers to, of a size and in words
    that training has (after GSM-IC, arXiv 2302.00093)."""
    words = set(" ".join(told).split())
    amount = rng.choice([n for n in range(2, 21) if str(n) not in words])
    item = words & set(ITEMS)
    idle = rng.choice([n for n in (PEOPLE if item else UNKNOWNS) if n not in words])
    at = rng.randrange(len(told))
    return [*told[:at], f"{idle} has {amount} {item.pop()}" if item else f"{idle} = {amount}", *told[at:]]


def larger(told: list[str], rng: random.Random) -> list[str]:
    """All numbers but factors exchanged for larger ones than training has."""

    def enlarged(sentence: str) -> str:
        if linear := re.fullmatch(r"(\d+) \* (\w+) \+ \d+ = \d+", sentence):
            constant = rng.choice(CONSTANT)
            return f"{linear[1]} * {linear[2]} + {constant} = {int(linear[1]) * rng.choice(UNKNOWN) + constant}"
        for form, least, most in LARGER:
            sentence = re.sub(form, lambda _: str(rng.randint(least, most)), sentence)  # noqa: B023
        return sentence

    return [enlarged(sentence) for sentence in told]


EDITS: dict[str, Callable[[list[str], random.Random], list[str] | None]] = {
    "names": names, "order": order, "distractor": distractor, "larger": larger,
}  # fmt: skip
HINTS = ("right hint", "wrong hint")  # the right one is the control: who gains nothing from it cannot read hints
PERTURBATIONS = (*EDITS, *HINTS)
UNPERTURBED = "unperturbed"


def in_range(draft: Draft) -> bool:
    """Whether every number in the text is one of the vocabulary's."""
    return all(int(word) <= LIMIT for word in draft.text.split() if word.isdigit())


def misread(question: Question, rng: random.Random) -> str | None:
    """The trace of a peer that has misread one number by 1 to 3 and reckons rightly from there to a wrong answer."""
    words = question.text.split()
    numbers = [i for i, word in enumerate(words) if word.isdigit()]
    for _ in range(DRAWS):
        at = rng.choice(numbers)
        wrong = max(1, int(words[at]) + rng.choice((-3, -2, -1, 1, 2, 3)))
        draft = read(" ".join([*words[:at], str(wrong), *words[at + 1 :]]))
        if draft and in_range(draft) and draft.answer != question.answer:
            return "\n".join(draft.solve(rng))
    return None


def perturbed(question: Question, how: str) -> Question | None:
    """The question put another way, with its graph, answer and a gold solution; None if it does not allow that.

    how: one of PERTURBATIONS. Its id stays, and alone decides what is drawn. A hint is a peer's trace after the question,
    in the words in which a debate's summariser is told traces. Raises StudyError for a question of neither of FAMILIES,
    or another `how`.
    """
    if how not in PERTURBATIONS:
        raise StudyError(f"perturbation {how!r} is unknown; choose one of {', '.join(PERTURBATIONS)}")
    read(question.text)
    rng = random.Random(f"{how}|{question.question_id}")
    if how in HINTS:
        trace = question.solution if how == "right hint" else misread(question, rng)
        return trace and question.model_copy(update={"text": summarise_prompt(question, [trace])[0]["content"]})
    for _ in range(DRAWS):
        told = EDITS[how](sentences(question.text), rng)
        draft = told and read(joined(told))
        if draft and in_range(draft):
            solution = "\n".join(draft.solve(rng))
            graph = TASKS[question.task].quantities(draft, solution)
            new = {"text": draft.text, "solution": solution, "answer": draft.answer, "quantities": graph}
            return question.model_copy(update=new)
    return None


def reasoning(question: Question) -> str:
    """The gold solution without the answer: in the generated world all lines but the last, else all that is published."""
    return "\n".join(lines_of(question.solution)[:-1]) if in_world(question) else question.solution


@torch.inference_mode()
def reasoning_nll(folder: Path, questions: Sequence[Question]) -> pd.DataFrame:
    """One row a question: `nll`, the negative log-likelihood in nats of its gold reasoning under the model in `folder`,
    summed over `tokens`; the question, in the model's chat format, is read and not counted.

    Raises StudyError if there is no question, or one that does not fit with its reasoning into the model's window.
    """
    if not questions:
        raise StudyError("no test question has a gold solution; choose a train_task whose questions have one")
    model, tokenizer = models.load(folder)
    model.to(models.device()).eval()
    rows, lengths, window = [], [], models.window(folder)
    for question in questions:
        ids = tokenizer(reasoning(question), add_special_tokens=False).input_ids
        rows.append(prompt_ids(tokenizer, solve_prompt(question.text), window - len(ids)) + ids)
        lengths.append(len(ids))
    tokens = LOGITS // 4 // model.config.get_text_config().vocab_size  # a loss of 32 bits holds copies of the logits
    size = max(1, min(ROWS, tokens // max(map(len, rows))))
    found = []
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        ids = pad(some, tokenizer.pad_token_id).to(model.device)
        mask = pad([[1] * len(row) for row in some], 0).to(model.device)
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        loss = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        for row, told, length in zip(loss, some, lengths[start : start + size], strict=True):
            found.append(float(row[len(told) - 1 - length : len(told) - 1].double().sum()))
    return pd.DataFrame({"question_id": [q.question_id for q in questions], "nll": found, "tokens": lengths})


def settings(questions: Sequence[Question], harder: Sequence[Question], n: int) -> dict[str, list[Question]]:
    """The first `n` questions that each perturbation can be made of, so perturbed; "unperturbed", all that were used, as
    they are; and "more steps", `n` of the harder ones. Empty where the family's words cannot be read."""
    if any(q.task not in FAMILIES for q in questions):
        return {}
    made = {
        how: list(itertools.islice(filter(None, (perturbed(q, how) for q in questions)), n)) for how in PERTURBATIONS
    }
    used = {q.question_id for some in made.values() for q in some}
    asked = {UNPERTURBED: [q for q in questions if q.question_id in used], **made, "more steps": list(harder[:n])}
    return {setting: some for setting, some in asked.items() if some}


def described(student: str, method: str, experiment: str, teacher: str, train_task: str, tokens: float) -> dict:
    """What the rows of one system in one experiment share."""
    return dict(
        study="reasoning", experiment=experiment, teacher=teacher, student=student, method=method,
        train_task=train_task if student and method != "base" else "", test_task=train_task, tokens_per_question=tokens,
    )  # fmt: skip


def likelihood_scores(table: pd.DataFrame, teacher: str, train_task: str) -> list[Score]:
    """NLL in nats a token of gold reasoning, perplexity (its exponential), and `nll_difference`, paired by question, to
    the student's base (below 0: likelier than under the base), with intervals over questions.

    `table`: rows of `reasoning_nll` with columns student, method, seed. A trained method has a row a seed and one of the
    mean NLL over seeds ("all"). tokens_per_question counts the reasoning's tokens.
    """
    rows, base = [], {}
    for (student, method), part in table.groupby(["student", "method"], sort=False):
        mean = part.groupby("question_id").mean(numeric_only=True)
        fixed = described(student, method, "perplexity", teacher, train_task, float(mean["tokens"].mean()))
        each = {str(seed): one for seed, one in part.groupby("seed")} if part["seed"].nunique() > 1 else {}
        for seed, one in {**each, "all": mean}.items():
            nll = stats.ratio(one["nll"], one["tokens"])
            perplexity = replace(nll, **{end: math.exp(getattr(nll, end)) for end in ("value", "lo", "hi")})
            rows += [score(fixed, "nll", nll, seed), score(fixed, "perplexity", perplexity, seed)]
        if method == "base":
            base[student] = mean
        elif student in base:
            difference = stats.ratio(mean["nll"] - base[student]["nll"], mean["tokens"])
            rows.append(score(fixed, "nll_difference", difference, baseline="base"))
    return rows


def robustness_scores(predictions: pd.DataFrame, teacher: str, train_task: str) -> list[Score]:
    """Accuracy, step measures and gains of every system in every setting, as in the main study; and `accuracy_gain`
    (below 0: a loss), paired by question, of each perturbation to the same questions unperturbed, and of the wrong hint
    to the right one."""
    rows = [
        one.model_copy(update={"study": "reasoning"}) for one in scores(predictions, teacher, train_task, baselines)
    ]
    for (student, method), part in predictions.groupby(["student", "method"], sort=False):
        right = {
            setting: some.groupby("question_id")["correct"].mean()
            for setting, some in part.groupby("setting", sort=False)
        }
        tokens = part.groupby("setting")["tokens"].mean()
        for setting, baseline in [*((how, UNPERTURBED) for how in PERTURBATIONS), reversed(HINTS)]:
            if {setting, baseline} <= set(right):
                pair = pd.concat([right[setting], right[baseline]], axis=1, join="inner")
                fixed = described(student, method, setting, teacher, train_task, float(tokens[setting]))
                gained = stats.gain(pair.iloc[:, 0], pair.iloc[:, 1])
                rows.append(score(fixed, "accuracy_gain", gained, baseline=baseline))
    return rows

"""Base training from random weights on the generated world: what each tiny model has seen before the study begins.

A student's base sees mixed behaviour, as a pretrained model does: most examples answer at once, some show their steps.
The teacher always shows its steps, and learns in a second phase to revise: it reads traces that it sampled itself.
Before either, each learns to look things up: lists of pairs, read and then asked for in another order. Models of this
size otherwise mix up which number belongs to whom long after they can reckon (the copying heads that looking up needs
form late or never where little of the text rewards them; see Olsson et al. 2022, "In-context learning and induction
heads").

Every question is drawn from the `corpus` share of the content space, so that none of the study's is among them.
"""

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import IterableDataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer, TrainerCallback, TrainingArguments

from agentark import StudyError, models
from agentark.debate.prompts import ORDERS, revise_prompt, summarise_prompt
from agentark.debate.protocols import Vote
from agentark.debate.run import hold
from agentark.distill.once import MADE, Once
from agentark.distill.training import run
from agentark.muon import Muon
from agentark.schemas import Question
from agentark.tasks import TASKS
from agentark.tasks.base import check, claim_of, lines_of
from agentark.tasks.facts import LETTERS
from agentark.tasks.word_problems import Holdings
from agentark.tasks.words import ANIMALS, CITIES, COLOURS, NUMBERS, OBJECTS, PEOPLE, UNKNOWNS

# How often a base reads of each family. All seven are in it, the held-out ones too: what is out of domain in this study
# is out of the distillation's domain, as for a pretrained model, which has read a little of everything.
MIXTURE = {"word": 0.28, "equation": 0.16, "meta": 0.18, "facts": 0.14, "hops": 0.08, "passage": 0.08, "digest": 0.08}

NAMES = (*PEOPLE, *UNKNOWNS, *COLOURS, *CITIES, *ANIMALS, *OBJECTS)
LINKS = ("=", "has", "is", "weighs", "has as many as")  # between a name and its value in the families' questions


@dataclass(frozen=True)
class Phase:
    """A phase in which the teacher learns to revise what it wrote itself at some temperatures.

    mixture: families, those distilled from foremost; revising: share of examples that are a debate's later turn, the
    rest are solved, so that the first skill is kept; questions: how many it samples answers to.
    """

    mixture: dict[str, float]
    temperatures: tuple[float, float]
    revising: float
    questions: int
    steps: int
    learning_rate: float


# Shares of the families in those phases: the study's teacher, whose debates are on equation, reads mostly that; the grid's,
# whose debates are on four families, reads those alike.
EQUATION = {"word": 0.22, "equation": 0.32, "meta": 0.16, "facts": 0.12, "hops": 0.06, "passage": 0.06, "digest": 0.06}
MORE_EQUATION = {
    "word": 0.15,
    "equation": 0.50,
    "meta": 0.13,
    "facts": 0.07,
    "hops": 0.05,
    "passage": 0.05,
    "digest": 0.05,
}
EVEN = {"word": 0.26, "equation": 0.22, "meta": 0.26, "facts": 0.12, "hops": 0.05, "passage": 0.05, "digest": 0.04}
WARM = (1.0, 1.5)  # temperatures around that of the debates
REVISIONS = {
    "equation": (
        Phase(EQUATION, WARM, revising=0.6, questions=2400, steps=1500, learning_rate=1e-3),
        Phase(MORE_EQUATION, WARM, revising=0.4, questions=800, steps=1200, learning_rate=1e-3),
    ),
    # Two, since after the first the summary of a debate is worse than one sample: on equation 0.67 against 0.74 of 150
    # validation questions, then 0.89 against 0.74 (of a Qwen3 teacher whose first phase was trained at a rate of 0.003, not
    # the present 0.001). Whether by the new questions or by the further steps is not told apart.
    "even": (
        Phase(EVEN, WARM, revising=0.6, questions=2400, steps=1500, learning_rate=1e-3),
        Phase(EVEN, WARM, revising=0.6, questions=7200, steps=1500, learning_rate=1e-3),
    ),
}
DRILL_BATCH = 48  # lists are short
HERE = Path(__file__)
# What a base is made of, the teacher's samples too.
CODE = [
    HERE,
    HERE.with_name("muon.py"),
    *sorted(p for room in ("tasks", "debate", "engines") for p in (HERE.parent / room).glob("*.py")),
]
MAX_TOKENS = 72  # of a sampled trace; the longest gold trace of the hardest level has 66
SLIP_SHARE = 0.1  # of step-showing examples, those in which a slip is noticed and mended on the next line


@dataclass(frozen=True)
class Example:
    """A prompt and its target in pieces; pieces marked False are read, not learnt."""

    messages: list[dict[str, str]]
    target: list[tuple[str, bool]]


def slip(lines: list[str], rng: random.Random) -> list[tuple[str, bool]]:
    """A solution in which one line's value is wrong, unlearnt, and the next line mends it."""
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
    """A question and its solution, shown in steps with probability `shows_steps`, else answered at once."""
    task = TASKS[rng.choices(list(mixture), list(mixture.values()))[0]]
    easier = () if task.held_out else (min(task.levels) - 1,)
    draft = task.draw(rng, "corpus", rng.choice((*easier, *task.levels)))
    lines = draft.solve(rng)
    if rng.random() >= shows_steps:
        target = [(lines[-1], True)]
    elif rng.random() < SLIP_SHARE:
        target = slip(lines, rng)
    else:
        target = [("\n".join(lines), True)]
    return Example([{"role": "user", "content": draft.text}], target)


def pairs(rng: random.Random) -> Example:
    """A list of pairs, then the same in another order; only what belongs to each name is learnt."""
    names = rng.sample(NAMES, rng.randint(2, 8))
    link = rng.choice(LINKS) if rng.random() < 0.5 else ""
    listed = [(f"{name} {link}".strip(), rng.choice(rng.choice((NUMBERS, NAMES)))) for name in names]
    told = " , ".join(f"{name} {value}" for name, value in listed)
    asked = [piece for name, value in rng.sample(listed, len(listed)) for piece in ((f"{name}", False), (value, True))]
    return Example([{"role": "user", "content": told}], asked)


def options(rng: random.Random) -> Example:
    """Numbers with letters, as a multiple choice lists them; the letter of each is learnt, in another order and as far
    from its number as a solution's last lines have it."""
    told = list(zip(rng.sample(NUMBERS, len(LETTERS)), LETTERS, strict=True))
    listed = " ".join(f"{number} ( {letter} )" for number, letter in told)
    asked = [
        piece
        for number, letter in rng.sample(told, len(told))
        for piece in ((f"{number}\nanswer :", False), (f"{letter}\n", True))
    ]
    return Example([{"role": "user", "content": f"choose {listed}"}], asked)


def restated(rng: random.Random) -> Example:
    """The sentences of a word problem, each then as a formula over names, in another order: reading without reckoning.
    What is told of a person stands up to seven words from the name, too far for pairs to teach."""
    people = rng.randint(3, 6)
    while True:
        world = Holdings(rng, people)
        if all(world.relate(person, world.people[:i]) for i, person in enumerate(world.people) if i):
            break
    say = rng.choice((world.sentence, world.reworded))
    sentences = [say(person) for person in world.people]
    if rng.random() < 0.5:
        rng.shuffle(sentences)
    formulas = [(person, world.formula(person)) for person in world.people]
    asked = [
        piece for name, formula in rng.sample(formulas, people) for piece in ((f"{name} =", False), (formula, True))
    ]
    return Example([{"role": "user", "content": " ".join(sentences)}], asked)


def reading(rng: random.Random) -> Example:
    """Pairs, options, restatements."""
    return rng.choices((pairs, options, restated), (0.3, 0.25, 0.45))[0](rng)


DRILLS = {"pairs": pairs, "reading": reading}


def revising(rng: random.Random, question: Question, traces: list[str]) -> Example:
    """A debate's later turn: the question, some agents' traces, and the right solution in the order of the own trace,
    with `fix` before each line that the own trace had wrong. One time in five the summariser's turn instead."""
    seen = rng.sample(traces, rng.randint(3, 5))
    if rng.random() < 0.2:
        return Example(summarise_prompt(question, seen), [(question.solution, True)])
    own = rng.randrange(len(seen))
    order = rng.choice(ORDERS)
    wrong = {step.name for step in check(question, seen[own]) if not step.right}
    solution = lines_of(question.solution)
    lines = [f"fix {line}" if claim_of(line)[0] in wrong - {"answer"} else line for line in solution]
    return Example(revise_prompt(question, seen, own, order), [("\n".join(lines), True)])


def encode(example: Example, tokenizer: PreTrainedTokenizerFast) -> dict[str, list[int]]:
    """Token ids and labels; prompt and unlearnt pieces are labelled -100."""
    ids = tokenizer(
        tokenizer.apply_chat_template(example.messages, tokenize=False, add_generation_prompt=True)
    ).input_ids
    labels = [-100] * len(ids)
    for text, learnt in example.target:
        piece = tokenizer(text).input_ids
        ids, labels = ids + piece, labels + (piece if learnt else [-100] * len(piece))
    end = tokenizer.eos_token_id
    return {"input_ids": [*ids, end], "labels": [*labels, end], "attention_mask": [1] * (len(ids) + 1)}


class Corpus(IterableDataset):
    """An endless seeded stream of examples, grouped so that a batch holds prompts of like length.

    Not whole examples of like length: answers at once would then fill batches of their own, in which the loss, a mean
    over tokens, weighs their few tokens ten times as much as a solution's.
    """

    def __init__(self, draw, tokenizer: PreTrainedTokenizerFast, batch: int, seed: int):
        self.draw, self.tokenizer, self.batch, self.seed = draw, tokenizer, batch, seed

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        rng = random.Random(self.seed)
        while True:
            pool = [encode(self.draw(rng), self.tokenizer) for _ in range(16 * self.batch)]
            pool.sort(key=lambda e: e["labels"].count(-100))
            batches = [pool[i : i + self.batch] for i in range(0, len(pool), self.batch)]
            rng.shuffle(batches)
            for batch in batches:
                yield from batch


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad on the right to the longest row: ids and mask with 0, labels with -100. Shapes (batch, tokens)."""
    width = max(len(r["input_ids"]) for r in rows)
    fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    return {k: torch.tensor([r[k] + [f] * (width - len(r[k])) for r in rows]) for k, f in fill.items()}


class TokenCount(TrainerCallback):
    """Counts the tokens a model has read, for its card."""

    def __init__(self):
        self.tokens = 0

    def collate(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        self.tokens += sum(len(r["input_ids"]) for r in rows)
        return collate(rows)


def train(
    model: PreTrainedModel, corpus: Corpus, steps: int, learning_rate: float, seed: int, log_every: int = 200
) -> tuple[list[dict], int]:
    """Train by Muon with a linearly falling rate. Returns the learning curve (step, loss) and tokens read."""
    counter = TokenCount()
    arguments = TrainingArguments(
        output_dir="unused",
        max_steps=steps,
        per_device_train_batch_size=corpus.batch,
        learning_rate=learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=min(200, steps // 10),
        max_grad_norm=1.0,
        logging_steps=min(log_every, steps),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=corpus,
        data_collator=counter.collate,
        optimizers=(Muon(model, learning_rate), None),
    )
    run(trainer)
    curve = [{"step": h["step"], "loss": h["loss"]} for h in trainer.state.log_history if "loss" in h]
    return curve, counter.tokens


@dataclass
class Training:
    """A base in the making: its model, and the record of what it has read, for the card."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    seed: int
    tokens: int = 0
    curve: list[dict] = field(default_factory=list)

    def read(self, draw, steps: int, batch: int, learning_rate: float) -> None:
        """Train on examples drawn by `draw(rng)`; each call goes on where the one before ended."""
        done = self.curve[-1]["step"] if self.curve else 0
        corpus = Corpus(draw, self.tokenizer, batch, self.seed + done)
        curve, tokens = train(self.model, corpus, steps, learning_rate, self.seed)
        self.curve = [*self.curve, *({"step": done + c["step"], "loss": c["loss"]} for c in curve)]
        self.tokens += tokens

    def finish(self, out: Path) -> dict:
        self.model.save_pretrained(out)
        self.tokenizer.save_pretrained(out)
        return {"weights": self.model.num_parameters(), "tokens": self.tokens, "curve": self.curve}


def named(choices: dict, name: str, what: str):
    """The choice of that name. Raises StudyError, naming the others, if there is none."""
    if name not in choices:
        raise StudyError(f"{what} {name!r} is unknown; choose one of {', '.join(choices)}")
    return choices[name]


def drilled(
    family: str, hidden: int, layers: int, drill: str, drill_steps: int, learning_rate: float, seed: int
) -> Training:
    """A model of random weights that has learnt to look things up, by one of DRILLS."""
    examples = named(DRILLS, drill, "drill")
    tokenizer = models.build_tokenizer()
    training = Training(models.build_model(family, hidden, layers, seed, len(tokenizer)), tokenizer, seed)
    training.read(examples, drill_steps, DRILL_BATCH, learning_rate)
    return training


def build_student(
    out: Path,
    family: str,
    hidden: int,
    layers: int,
    drill: str,
    drill_steps: int,
    steps: int,
    batch: int,
    learning_rate: float,
    shows_steps: float,
    seed: int,
) -> dict:
    """Train a student's base on mixed behaviour and save it to `out`. Returns its training record, for the card."""
    training = drilled(family, hidden, layers, drill, drill_steps, learning_rate, seed)
    training.read(partial(solving, shows_steps=shows_steps), steps, batch, learning_rate)
    return training.finish(out)


def revised(out: Path, base: Path, record: dict, phase: Phase, batch: int, seed: int, samples_in: str) -> dict:
    """Teach the teacher in `base`, whose training so far is in `record`, to revise; save it to `out`. Returns its record.

    samples_in: the folder of its finished samples.
    """
    model, tokenizer = models.load(base, torch.float32)[0], models.build_tokenizer()
    training = Training(model, tokenizer, seed, record["tokens"], record["curve"])
    samples = own_samples(base, phase, seed, Path(samples_in))
    training.read(partial(debating, phase=phase, samples=samples), phase.steps, batch, phase.learning_rate)
    return training.finish(out)


def build_teacher(
    out: Path,
    family: str,
    hidden: int,
    layers: int,
    drill: str,
    drill_steps: int,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    store: Path,
    revision: str = "equation",
) -> dict:
    """Train the teacher to solve, then, in the phases of one of REVISIONS, to revise answers it sampled itself. Returns its
    record. What is finished of it stays in `store` until all is, so that a build that is stopped goes on from there."""
    phases = named(REVISIONS, revision, "revision")
    parts = [store / f"phase-{number}-{out.name}" for number in range(len(phases) + 1)]
    record = Once(build_student, CODE)(
        out=parts[0], family=family, hidden=hidden, layers=layers, drill=drill, drill_steps=drill_steps, steps=steps,
        batch=batch, learning_rate=learning_rate, shows_steps=1.0, seed=seed,
    )  # fmt: skip
    for phase, base, part in zip(phases, parts, parts[1:], strict=False):
        shared = dict(base=base, record=record, phase=phase, batch=batch, seed=seed, samples_in=str(store))
        record = Once(revised, CODE)(out=part, **shared)
    shutil.copytree(parts[-1], out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MADE))
    for part in parts:
        shutil.rmtree(part)
    return record


def adopt(trained: Path, out: Path) -> dict:
    """Copy a model trained before, with the record of its training, to `out`. Raises StudyError if either is missing."""
    models.load(trained)
    try:
        record = json.loads((trained / "training.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        raise StudyError(f"{trained / 'training.json'}: no readable record of a training; rebuild the model") from None
    shutil.copytree(trained, out, dirs_exist_ok=True)
    return record


def own_samples(solver: Path, phase: Phase, seed: int, store: Path) -> list[tuple[Question, list[str]]]:
    """Traces that the half-trained teacher writes, three each at a cool and a warm temperature: a revision must deal
    with errors of the kind the teacher makes, which made-up ones are not."""
    drawn = [
        q
        for name, share in phase.mixture.items()
        for q in TASKS[name].questions(max(1, int(phase.questions * share)), "corpus", seed)
    ]
    traces: dict[str, list[str]] = {q.question_id: [] for q in drawn}
    for temperature in phase.temperatures:
        for trace in hold(Vote(3, temperature), drawn, solver, store, seed, MAX_TOKENS)[0]:
            traces[trace.question_id].append(trace.text)
    return [(q, traces[q.question_id]) for q in drawn]


def debating(rng: random.Random, phase: Phase, samples: list[tuple[Question, list[str]]]) -> Example:
    """A question to solve, or a debate's later turn, by the phase's shares."""
    if rng.random() < phase.revising:
        return revising(rng, *rng.choice(samples))
    return solving(rng, 1.0, phase.mixture)


def card_text(card: dict) -> str:
    """A model card for people, from the one for programs."""
    seen = (
        "Role: teacher. It always shows its steps, and revises after reading peers' traces."
        if card["revises"]
        else f"Role: student's base. {card['shows_steps']:.0%} of its examples show their steps, the rest answer at once."
    )
    rows = [
        f"| {name} | {card['accuracy']['greedy'][name]:.3f} | {card['accuracy']['sampled'][name]:.3f} |"
        for name in card["accuracy"]["greedy"]
    ]
    return "\n".join(
        [
            f"# {card['name']}",
            "",
            f"A {card['architecture']} model of {card['weights']:,} weights, trained from random ones on "
            f"{card['tokens_read']:,} tokens ({card['corpus']}).",
            "",
            seen,
            "",
            f"Accuracy on {card['examined_on']}, seed {card['seed']}:",
            "",
            "| family | greedy | sampled at temperature 1 |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )

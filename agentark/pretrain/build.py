"""Train the study's tiny base models from random weights on the generated world.

A student's base is trained on mixed behaviour, like a pretrained model: most examples answer at once, some show steps.
The teacher always shows its steps and is trained in further phases to revise traces that it sampled itself. Before
that, each model is trained on lookups: lists of pairs, then queried in another order. Without this drill, models of
this size confuse which number belongs to whom long after they can do arithmetic: the induction heads for lookups form
late or never if little of the text rewards them (Olsson et al. 2022, "In-context learning and induction heads").

Every question is from the `corpus` share of the content space, so none is in the study's own splits.
"""

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from agentark import StudyError
from agentark.debate.independent import Vote
from agentark.debate.run import run_debates
from agentark.distill.once import MADE, Once
from agentark.models import loading
from agentark.pretrain import tiny
from agentark.pretrain.examples import DRILLS, Example, revising, solving
from agentark.pretrain.training import MAX_TOKENS, Training
from agentark.schemas import Question
from agentark.tasks import TASKS


@dataclass(frozen=True)
class Recipe:
    """How to build a base model. `shows_steps` is for students only."""

    family: str  # architecture, of tiny.FAMILIES
    hidden: int  # width
    layers: int
    drill: str  # of DRILLS
    drill_steps: int
    steps: int  # on solutions, after the drill
    batch_size: int  # examples per step, except in the drill
    learning_rate: float  # of the drill and on solutions
    seed: int
    shows_steps: float = 1.0  # share of solutions with steps


@dataclass(frozen=True)
class Phase:
    """A phase in which the teacher is trained to revise traces that it sampled itself."""

    mixture: dict[str, float]  # shares of the families
    temperatures: tuple[float, float]  # of the samples
    revising: float  # share of examples that are a debate's later turn; the rest are solutions, to keep that skill
    questions: int  # number of questions to sample traces for
    steps: int
    learning_rate: float


# Shares of the families in these phases: the four families that teachers debate on, and a little of the others.
MIXTURE = {"word": 0.26, "equation": 0.22, "meta": 0.26, "facts": 0.12, "hops": 0.05, "passage": 0.05, "digest": 0.04}
WARM = (1.0, 1.5)  # temperatures of the samples to revise
# Two phases, since after the first the summary of a debate is worse than one sample: accuracy 0.67 against 0.74 on 150
# validation questions of equation, after the second 0.89 against 0.74 (for a Qwen3 teacher with a learning rate of
# 0.003 in the first phase instead of the current 0.001). It was not tested whether the new questions or the further
# steps cause the gain.
PHASES = (
    Phase(MIXTURE, WARM, revising=0.6, questions=2400, steps=1500, learning_rate=1e-3),
    Phase(MIXTURE, WARM, revising=0.6, questions=7200, steps=1500, learning_rate=1e-3),
)
DRILL_BATCH = 48  # larger than for solutions, since lists are short


def choice_named(choices: dict, name: str, what: str):
    """The choice of that name. Raises StudyError that lists all names if the name is unknown."""
    if name not in choices:
        raise StudyError(f"{what} {name!r} is unknown; choose one of {', '.join(choices)}")
    return choices[name]


def train_drill(recipe: Recipe, names: Sequence[str] = ()) -> Training:
    """Train a model from random weights on the recipe's drill. `names`: further words of its tokenizer. Raises
    StudyError for an unknown drill."""
    examples = choice_named(DRILLS, recipe.drill, "drill")
    tokenizer = tiny.build_tokenizer(names)
    model = tiny.build_model(recipe.family, recipe.hidden, recipe.layers, recipe.seed, len(tokenizer))
    training = Training(model, tokenizer, recipe.seed)
    training.read(examples, recipe.drill_steps, DRILL_BATCH, recipe.learning_rate)
    return training


def build_student(out: Path, recipe: Recipe) -> dict:
    """Train a student's base on mixed behaviour and save it to `out`. Returns its training record, for the card."""
    training = train_drill(recipe)
    examples = partial(solving, shows_steps=recipe.shows_steps)
    training.read(examples, recipe.steps, recipe.batch_size, recipe.learning_rate)
    return training.finish(out)


def train_revision(out: Path, base: Path, record: dict, phase: Phase, recipe: Recipe, samples_in: str) -> dict:
    """Train the teacher in `base` to revise, and save it to `out`. Returns its training record.

    record: its training record so far; samples_in: the store of its finished samples.
    """
    model, tokenizer = loading.load(base, torch.float32)[0], tiny.build_tokenizer()
    training = Training(model, tokenizer, recipe.seed, record["tokens"], record["curve"])
    samples = own_samples(base, phase, recipe.seed, Path(samples_in))
    examples = partial(debating, phase=phase, samples=samples)
    training.read(examples, phase.steps, recipe.batch_size, phase.learning_rate)
    return training.finish(out)


def build_teacher(out: Path, recipe: Recipe, store: Path) -> dict:
    """Train the teacher to solve, then to revise in PHASES, and save it to `out`. Returns its record.

    Finished phases are kept in `store` until the end, so that an interrupted build continues. Raises StudyError for an
    unknown drill.
    """
    parts = [store / f"phase-{number}-{out.name}" for number in range(len(PHASES) + 1)]
    recipe = replace(recipe, shows_steps=1.0)
    record = Once(build_student)(out=parts[0], recipe=recipe)
    for phase, base, part in zip(PHASES, parts, parts[1:], strict=False):
        shared = dict(base=base, record=record, phase=phase, recipe=recipe, samples_in=str(store))
        record = Once(train_revision)(out=part, **shared)
    shutil.copytree(parts[-1], out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MADE))
    for part in parts:
        shutil.rmtree(part)
    return record


def adopt(trained: Path, out: Path) -> dict:
    """Copy a trained model to `out` and return its training record. Raises StudyError if either is unreadable."""
    loading.load(trained)
    try:
        record = json.loads((trained / "training.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        raise StudyError(f"{trained / 'training.json'}: no readable training record; rebuild the model") from None
    shutil.copytree(trained, out, dirs_exist_ok=True)
    return record


def own_samples(solver: Path, phase: Phase, seed: int, store: Path) -> list[tuple[Question, list[str]]]:
    """Questions with six traces each of the partly trained teacher, three at each of the phase's two temperatures.

    Revisions have to correct the errors that the teacher makes, and synthetic errors are of other kinds.
    """
    drawn = [
        q
        for name, share in phase.mixture.items()
        for q in TASKS[name].questions(max(1, int(phase.questions * share)), "corpus", seed)
    ]
    traces: dict[str, list[str]] = {q.question_id: [] for q in drawn}
    for temperature in phase.temperatures:
        for trace in run_debates(Vote(3, temperature), drawn, solver, store, seed, MAX_TOKENS)[0]:
            traces[trace.question_id].append(trace.text)
    return [(q, traces[q.question_id]) for q in drawn]


def debating(rng: random.Random, phase: Phase, samples: list[tuple[Question, list[str]]]) -> Example:
    """A random example of a phase: a debate's later turn, or a question to solve."""
    if rng.random() < phase.revising:
        return revising(rng, *rng.choice(samples))
    return solving(rng, 1.0, phase.mixture)


def card_text(card: dict) -> str:
    """The model card as Markdown, from the content of card.json."""
    role = (
        "Role: teacher. It always shows its steps, and revises after reading peers' traces."
        if card["revises"]
        else f"Role: student's base. {card['shows_steps']:.0%} of its examples show their steps, the rest answer at "
        "once."
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
            role,
            "",
            f"Accuracy on {card['examined_on']}, seed {card['seed']}:",
            "",
            "| family | greedy | sampled at temperature 1 |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )

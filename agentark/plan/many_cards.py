"""Time and cost of a study on any number of cards, from its plan's rates and the simulation of its requests.

Stages that generate (debates, their controls, the evaluation) are simulated. Trainings take the plan's hours; the seeds
of a training run side by side on one card each. Stages run one after another, as in DVC.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from agentark import StudyError
from agentark.plan.pattern import Spread, merged, planned, requests
from agentark.plan.rates import debate_rates, passes, size_of, steps, supervised, trained
from agentark.plan.rates import rates as plan_rates
from agentark.plan.simulation import CHUNK, DRIVER, Copy, Outcome, copies_on, run, steps_of
from agentark.plan.sizes import CARDS, REPLIES, Assumptions, cards_for
from agentark.plan.stages import control_names, stages
from agentark.tasks.questions import question_counts

# Dollars an hour of a rented card: about the middle of specialised providers' prices on demand, 2.50 to 3.50 and 3.50
# to 4.50, May 2026 (mercatus-ai.com/blog/cloud-gpu-pricing). Offers differ by more than a factor of two.
PRICES = {"H100": 3.0, "H200": 4.0}
TRAININGS = ("distill@", "reward_model@", "policy@")


def generations(params: dict, rates: pd.DataFrame, spread: Spread) -> Iterator[tuple[str, str, pd.DataFrame, int]]:
    """Yield all generations of a study: kind of stage ("debates", "controls" or "evaluation"), model, requests, and the
    number of models of that size that answer them one after another."""
    teacher, agents, rounds = params["teacher"], params["agents"], params["rounds"]
    cap = params["max_tokens"] + params["thought_tokens"]

    def table(rows: pd.DataFrame, split: str, members: int, turns: int, summary: bool = True) -> pd.DataFrame:
        tables = []
        for number, (name, questions) in enumerate(question_counts(params, split).items()):
            shape = planned(rows.loc[[name]], agents, spread, cap)
            if members == 1:  # one agent has no consensus to stop at
                shape = replace(shape, reached=(1.0,) * turns)
            tables.append(requests(shape, questions, members, turns, summary, seed=number))
        return merged(tables)

    for key, debate in params["debates"].items():
        split, single_rows = debate["split"], passes(rates, teacher)
        debate_rows = debate_rates(rates, split == "hard", debate["temperature"])
        yield "debates", teacher, table(debate_rows, split, agents, rounds), 1
        vote = "debates", teacher, table(debate_rows, split, agents * rounds + 1, 1, summary=False), 1
        if split != "train":
            yield vote
        for name in control_names(params, key):
            if name == "self_revision":
                yield "controls", teacher, table(single_rows, split, 1, rounds), 1
            elif name in ("debate_off", "debate_other"):  # the first answers are the debate's
                yield "controls", teacher, table(debate_rows, split, agents, rounds).query("step > 1"), 1
            elif name == "greedy":
                yield "controls", teacher, table(single_rows, split, 1, 1, summary=False), 1
            elif name == "vote":
                yield "controls", *vote[1:]
            else:
                raise StudyError(f"controls: {name!r} is not simulated")
    # The teacher's greedy answers are the first answers of self-revision.
    for student in params["students"]:
        yield "evaluation", student, table(passes(rates, student), "test", 1, 1, summary=False), 1
        for method in (*supervised(params), "pad"):
            own = trained(params, rates, student, method)
            yield "evaluation", student, table(own, "test", 1, 1, summary=False), len(params["seeds"])


@dataclass(frozen=True)
class Job:
    """A run of requests: kind of stage, cards per copy (`each`), batches by step, and the number of repetitions."""

    kind: str
    each: int
    steps: list[list[np.ndarray]]
    times: int


def jobs(params: dict, rates: pd.DataFrame, spread: Spread, card: str, batch: int = CHUNK) -> list[Job]:
    """Return all generations of a study as jobs, in batches of `batch` requests."""
    found = []
    for kind, name, table, times in generations(params, rates, spread):
        model, on = size_of(params, name), CARDS[card]
        found.append(Job(kind, cards_for(model, on), steps_of(table, Copy.of(model, on), batch), times))
    return found


def generated(work: Sequence[Job], cards: int, driver: float = DRIVER) -> pd.DataFrame:
    """Return hours, card_hours (busy time of cards) and replies by kind of stage on `cards` cards. Hours are NaN if the
    cards are too few for a copy of a model."""
    rows = []
    for job in work:
        copies = copies_on(cards, job.each)
        done = run(job.steps, copies, driver) if copies else Outcome(math.nan, math.nan, 0)
        rows.append((job.kind, done.seconds * job.times, done.work * job.each * job.times, done.requests * job.times))
    table = pd.DataFrame(rows, columns=["kind", "hours", "card_hours", "replies"])
    sums = table.groupby("kind", sort=False).agg(lambda column: column.sum(skipna=False))
    return sums.assign(hours=sums["hours"] / 3600, card_hours=sums["card_hours"] / 3600)


def training_hours(plan: pd.DataFrame, seeds: int, cards: int) -> tuple[float, float]:
    """Hours of all trainings of a plan (`stages.stages`) on `cards` cards, and their card-hours."""
    hours = plan.loc[plan["stage"].str.startswith(TRAININGS), "hours"].sum()
    return hours * math.ceil(seeds / min(cards, seeds)) / seeds, hours


def driver_cards(work: Sequence[Job], driver: float = DRIVER) -> float:
    """The number of busy cards at which debates generate as many replies a second as the driver can handle."""
    debates = generated([job for job in work if job.kind == "debates"], max(job.each for job in work), math.inf).iloc[0]
    return driver * debates["card_hours"] * 3600 / debates["replies"]


def on_cards(work: Sequence[Job], plan: pd.DataFrame, seeds: int, cards: int, driver: float = DRIVER) -> dict:
    """Hours by kind of stage and in total on `cards` cards; used: the share of the cards' time in which they work.

    slowed: the relative increase of the debates' hours by the driver.
    """
    done, free = generated(work, cards, driver), generated(work, cards, math.inf)
    trainings, busy = training_hours(plan, seeds, cards)
    hours = done["hours"].sum(skipna=False) + trainings
    debates = done.loc["debates"]
    return {
        "cards": cards, **done["hours"].to_dict(), "trainings": trainings, "hours": hours, "card_hours": hours * cards,
        "used": (done["card_hours"].sum(skipna=False) + busy) / (hours * cards),
        "used_debates": debates["card_hours"] / (debates["hours"] * cards),
        "slowed": debates["hours"] / free.loc["debates", "hours"] - 1,
    }  # fmt: skip


def simulated(
    params: dict, spread: Spread, card: str, replies: str, batch: int, counts: Sequence[int], driver: float = DRIVER
) -> pd.DataFrame:
    """A row per number of cards: `on_cards` with the plan's assumptions for a card and a length of replies.

    cost: dollars, with all cards rented until the end; driver_cards: see the function. Hours are empty if the cards are
    too few for the teacher.
    """
    assumed = Assumptions(CARDS[card], REPLIES[replies])
    rates = plan_rates(params, 1, 1, assumed)
    plan = stages(params, rates, steps(params, rates, 1, assumed), card)
    work = jobs(params, rates, spread, card, batch)
    rows = [on_cards(work, plan, len(params["seeds"]), cards, driver) for cards in counts]
    given = {"card": card, "replies": replies, "batch": batch}
    table = pd.DataFrame([given | row for row in rows])
    return table.assign(cost=table["card_hours"] * PRICES[card], driver_cards=driver_cards(work, driver))

"""The simulation of many cards: requests of debates, batches on copies of a model, and the driver that sends them."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentark import root
from agentark.plan import many_cards
from agentark.plan.pattern import requests, shape_of
from agentark.plan.simulation import Copy, batch_ends, copies_on, run
from agentark.stage.parameters import parameters

TRACES = root() / "data/leaderboard/homogeneous/given/traces-debate.parquet"
CHECK = root() / "reports/simulation_check.csv"
LENGTHS = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 80)), min_size=1, max_size=40)
SPEED = st.floats(1e-6, 1e-2)


@pytest.fixture(scope="module")
def finished():
    return pd.read_parquet(TRACES)


def stepwise(read, computed, written, copy: Copy) -> list[float]:
    """The end times of a batch's replies, simulated one decoding step at a time."""
    slots = int(max(1, min(copy.slots, copy.room // np.mean(np.add(read, written)))))
    context = np.mean(np.add(read, np.divide(written, 2)))
    now, waiting, running, ends = copy.token * sum(computed), list(written), [], []
    while waiting or running:
        while waiting and len(running) < slots:
            running.append(waiting.pop(0))
        now += copy.fixed + max(copy.weights, copy.row * len(running)) + copy.kv * len(running) * context
        running = [left - 1 for left in running]
        ends += [now] * running.count(0)
        running = [left for left in running if left]
    return ends


@settings(max_examples=60)
@given(LENGTHS, SPEED, SPEED, SPEED, SPEED, st.integers(1, 50), st.floats(50, 5000))
def test_end_times_of_replies_match_a_step_by_step_simulation(lengths, token, fixed, weights, row, slots, room):
    read, written = np.array(lengths, float).T
    copy = Copy(token, fixed, weights, 1e-6, row, room, slots)
    assert batch_ends(read, read, written, copy) == pytest.approx(stepwise(read, read, written, copy))


@settings(max_examples=60)
@given(st.lists(st.lists(st.floats(0.1, 9), min_size=1, max_size=30), min_size=1, max_size=3), st.integers(1, 9))
def test_copies_share_the_work_and_no_request_is_lost(seconds, copies):
    steps = [[np.array([one]) for one in step] for step in seconds]
    done, single = run(steps, copies), run(steps, 1)
    assert done.work == pytest.approx(sum(map(sum, seconds))) and done.requests == sum(map(len, seconds))
    assert single.seconds == pytest.approx(done.work)
    longest = sum(map(max, seconds))
    assert max(longest, done.work / copies) - 1e-9 <= done.seconds <= done.work / copies + longest + 1e-9


def test_a_slow_driver_limits_the_rate_of_requests():
    steps = [[np.linspace(0.1, 1, 100)], [np.linspace(0.1, 1, 50)]]
    assert run(steps, 1).seconds == pytest.approx(2)
    assert run(steps, 1, driver=1e9).seconds == pytest.approx(2, abs=1e-6)
    assert run(steps, 1, driver=10).seconds == pytest.approx(0.1 + 10 + 0.1 + 5)


@pytest.mark.parametrize(("cards", "each", "copies"), [(8, 2, 4), (7, 2, 3), (20, 8, 2), (512, 4, 128), (1, 2, 0)])
def test_a_copy_stays_on_one_node(cards, each, copies):
    assert copies_on(cards, each) == copies


def test_simulated_requests_match_finished_debates(finished):
    agents, n = 5, finished["question_id"].nunique()
    drawn = requests(shape_of(finished, agents, 72), n, agents, 3)
    measured = finished.groupby("round").agg(size=("agent", "size"), read=("prompt_tokens", "mean"))
    simulated = drawn.groupby("step").agg(size=("agent", "size"), read=("read", "mean"))
    assert simulated["size"].to_numpy() == pytest.approx(measured["size"].to_numpy(), rel=0.02)
    assert simulated["read"].to_numpy() == pytest.approx(measured["read"].to_numpy(), rel=0.1)
    first = drawn[drawn["step"] == 1]
    assert (
        len(first) == n * agents
        and (first.groupby("question")["computed"].max() == first.groupby("question")["read"].max()).all()
    )
    assert (drawn["computed"] <= drawn["read"]).all() and drawn["written"].between(1, 72).all()
    summarised = drawn[drawn["agent"] == 0]
    assert sorted(summarised["question"]) == list(range(n))


def test_more_cards_take_no_longer_and_cost_no_less(finished):
    params = parameters("full")
    shape = shape_of(finished, params["agents"], 72)
    table = many_cards.simulated(params, shape.spread, "H200", "mid", 256, [1, 2, 8, 64, 512])
    on = table.set_index("cards")
    assert on["hours"].is_monotonic_decreasing and on["cost"].is_monotonic_increasing
    assert on["used"].is_monotonic_decreasing and on["used"].between(0, 1).all()
    slow = many_cards.simulated(params, shape.spread, "H200", "mid", 256, [512], driver=20).iloc[0]
    assert slow["slowed"] > 0.2 and slow["hours"] > on.loc[512, "hours"]
    assert slow["driver_cards"] < on.loc[512, "driver_cards"]


def test_too_few_cards_for_a_copy_have_no_hours():
    (job,) = [many_cards.Job("debates", 2, [[np.ones(3)]], 1)]
    assert math.isnan(many_cards.generated([job], 1)["hours"].iloc[0])
    assert many_cards.generated([job], 2)["hours"].iloc[0] == pytest.approx(1 / 3600, rel=1e-2)


def test_the_simulation_is_within_20_percent_of_measurements():
    table = pd.read_csv(CHECK)
    free = table[~table["fitted"]]
    assert len(free) >= 5 and free["workers"].nunique() == 2 and free["rounds"].nunique() >= 3
    assert free["ratio"].to_numpy() == pytest.approx((free["predicted"] / free["measured"]).to_numpy(), rel=1e-4)
    assert free["ratio"].between(0.8, 1.2).all()

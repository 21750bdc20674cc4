import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentark.evaluate.stats import Estimate, gain, mean, over_seeds, p_values, ratio, seed_variance

RNG = np.random.default_rng(0)
ANSWERS = (RNG.random(400) < 0.3).astype(float)


def width(estimate):
    return estimate.hi - estimate.lo


def test_interval_of_a_proportion_is_close_to_the_normal_approximation():
    estimate = mean(ANSWERS)
    half = 1.96 * ANSWERS.std() / math.sqrt(400)
    assert estimate.value == ANSWERS.mean()
    assert (estimate.lo, estimate.hi) == pytest.approx((estimate.value - half, estimate.value + half), abs=0.006)
    assert estimate.n == 400


def test_intervals_cover_the_true_mean_about_95_times_in_100():
    estimates = [mean(np.random.default_rng(seed).normal(1.0, 2.0, 80)) for seed in range(100)]
    assert 88 <= sum(e.lo <= 1.0 <= e.hi for e in estimates) <= 99


@pytest.mark.parametrize("n", [1, 2, 50])
def test_interval_of_constant_values_has_no_width(n):
    assert mean([0.25] * n) == Estimate(0.25, 0.25, 0.25, n)


def test_mean_of_no_values_is_nan():
    assert math.isnan(mean([]).value) and mean([]).n == 0


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20))
def test_mean_is_within_its_interval(values):
    estimate = mean(values)
    assert estimate.lo - 1e-9 <= estimate.value <= estimate.hi + 1e-9


def test_gain_is_paired():
    hard = RNG.normal(size=300)
    first, second = hard + 0.1 * RNG.normal(size=300), hard + 0.1 * RNG.normal(size=300) - 0.5
    paired = gain(first, second)
    assert paired.value == pytest.approx(first.mean() - second.mean())
    assert paired.lo > 0.4 and paired.n == 300
    assert width(paired) < 0.3 * math.hypot(width(mean(first)), width(mean(second)))


def test_gain_over_itself_is_zero():
    assert gain(ANSWERS, ANSWERS) == Estimate(0.0, 0.0, 0.0, 400)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(5, 9)), min_size=1, max_size=20))
def test_ratio_is_sum_over_sum(pairs):
    numerators, denominators = zip(*pairs, strict=True)
    estimate = ratio(numerators, denominators)
    assert estimate.value == sum(numerators) / sum(denominators)
    assert estimate.lo - 1e-9 <= estimate.value <= estimate.hi + 1e-9
    assert estimate.n == len(pairs)


def test_ratio_with_equal_denominators_has_the_interval_of_the_mean():
    of_ratio, of_mean = ratio(ANSWERS * 4, np.full(400, 4)), mean(ANSWERS)
    assert (of_ratio.lo, of_ratio.hi) == pytest.approx((of_mean.lo, of_mean.hi), abs=0.006)


def test_ratio_with_denominators_of_zero_is_nan():
    assert math.isnan(ratio([0, 0], [0, 0]).value) and ratio([0, 0], [0, 0]).n == 0


def test_equal_data_give_equal_intervals():
    assert mean(ANSWERS) == mean(ANSWERS.tolist())
    assert ratio(ANSWERS, ANSWERS + 1) == ratio(ANSWERS, ANSWERS + 1)


@pytest.mark.parametrize("compare", [gain, ratio])
@pytest.mark.parametrize(("one", "other"), [([1, 0], [1, 0, 1]), ([1, 0, 1], [1, 0])])
def test_different_numbers_of_questions_are_not_compared(compare, one, other):
    with pytest.raises(ValueError):
        compare(one, other)


def seed_table(seed, seeds=3, n=60, spread=0.2):
    """A table of seeds x questions with mean 1: effects of each question, of each seed, and of their interaction."""
    rng = np.random.default_rng(seed)
    return 1 + rng.normal(0, 0.5, (1, n)) + rng.normal(0, spread, (seeds, 1)) + rng.normal(0, 0.5, (seeds, n))


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_intervals_over_questions_and_seeds_cover_the_true_mean(spread):
    estimates = [mean(seed_table(seed, spread=spread)) for seed in range(300)]
    assert 0.92 <= sum(e.lo <= 1.0 <= e.hi for e in estimates) / 300 <= 0.99
    over_questions = sum(abs(e.value - 1) <= 1.96 * e.se for e in estimates) / 300
    assert over_questions < 0.75 if spread else over_questions > 0.9  # without seeds the interval is too narrow


def test_seed_variance_excludes_the_variance_explained_by_questions():
    found = np.mean([seed_variance(seed_table(seed)) for seed in range(300)])
    assert found == pytest.approx(0.2**2 / 3, rel=0.15) and seed_variance(seed_table(0)[:1]) == 0


def test_gain_includes_the_seed_variance_of_both_sides():
    own, rival = seed_table(0), seed_table(1) - 0.5
    paired = gain(own, rival)
    assert paired.value == pytest.approx(own.mean() - rival.mean())
    difference = own.mean(axis=0) - rival.mean(axis=0)
    total = difference.var(ddof=1) / 60 + seed_variance(own) + seed_variance(rival)
    assert paired.se == pytest.approx(difference.std(ddof=1) / 60**0.5) and paired.hi - paired.value > 1.96 * total**0.5
    assert gain(own, rival[0]).value == pytest.approx(own.mean() - rival[0].mean())
    assert gain(own, own).value == 0


def test_ratio_over_seeds_with_equal_denominators_is_the_mean():
    table = seed_table(2)
    of_ratio, of_mean = ratio(table * 4, np.full(table.shape, 4.0)), mean(table)
    assert (of_ratio.value, of_ratio.lo, of_ratio.hi) == pytest.approx((of_mean.value, of_mean.lo, of_mean.hi))


def test_mean_of_estimates_by_seed_includes_their_variance():
    one = Estimate(0.5, 0.4, 0.6, 50)
    assert over_seeds([one]) == one
    combined = over_seeds([one, Estimate(0.7, 0.6, 0.8, 50), Estimate(0.6, 0.5, 0.7, 50)])
    assert combined.value == pytest.approx(0.6) and combined.n == 50 and combined.hi - combined.value > 0.1 * 2**0.5


def test_p_value_is_0_05_where_the_interval_ends_at_zero():
    assert p_values([0.1, 0.1, 0.0], [0.0, 0.1, -0.1], [0.2, 0.1, 0.1]) == pytest.approx([0.05, 1.0, 1.0], abs=1e-3)

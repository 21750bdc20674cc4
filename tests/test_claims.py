"""The rules for claims: errors, power, agreement and verdicts; results that were not run are reported, not tested."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from agentark import StudyError, root
from agentark.paper import claims, experiments
from agentark.paper.claims import verdict_of_claim, verdict_of_part
from agentark.paper.contrasts import Contrast, Part, difference, pooled, with_verdicts
from agentark.schemas import Score, frame, read_scores

RUN = experiments.read(root() / "reports")


def table(*rows):
    """A table of results with the given fields; all other fields are empty."""
    blank = dict(study="", setting="", teacher="", student="", method="", baseline="", train_task="", test_task="",
                 metric="", seed="all", value=0.0, n=100, lo=0.0, hi=0.0, tokens_per_question=0.0)  # fmt: skip
    return frame([Score(**blank | row) for row in rows])


def with_interval(value, se):
    return dict(value=value, lo=value - 1.96 * se, hi=value + 1.96 * se)


def accuracy_by_size(values, **more):
    return table(
        *(
            dict(
                variant="questions",
                source="debates",
                questions=n,
                student="s",
                method="rsft",
                test_task="word",
                metric="accuracy",
                **with_interval(v, 0.01),
            )
            for n, v in values.items()
        )
    ).assign(**more)


def contrast(value, se=0.01, predicted=1, null=0.0, df=math.inf):
    p = 2 * t.sf(abs(value - null) / se, df)
    return Contrast("a minus b", predicted, value, se, df, 100, 3, p, null)


def outcomes(*contrasts):
    return list(with_verdicts([Part(1, "says", list(contrasts))])["outcome"])


def test_error_of_a_paired_gain_covers_questions_and_seeds():
    own = dict(setting="test", student="s", method="pad")
    gain = dict(own, metric="accuracy_gain", baseline="base", test_task="word", **with_interval(0.2, 0.03))
    seeds = [
        dict(own, metric="accuracy", test_task="word", seed=str(i), value=v) for i, v in enumerate((0.4, 0.5, 0.6))
    ]
    found = difference(table(gain, *seeds), "accuracy", own, dict(method="base"))
    assert found.value == pytest.approx(0.2) and (found.n, found.seeds) == (100, 3)
    assert found.se == pytest.approx(math.hypot(0.03, 0.1 / 3**0.5))
    assert found.df == pytest.approx(found.se**4 / ((0.1**2 / 3) ** 2 / 2))  # Satterthwaite
    without_seeds = difference(table(gain), "accuracy", own, dict(method="base"))
    assert without_seeds.se == pytest.approx(0.03) and math.isinf(without_seeds.df)


def test_rival_in_another_condition_is_treated_as_independent():
    own, rival = (dict(questions=n, student="s", method="rsft") for n in (400, 100))
    found = difference(accuracy_by_size({100: 0.5, 400: 0.6}), "accuracy", own, rival)
    assert found.value == pytest.approx(0.1) and found.se == pytest.approx(0.01 * 2**0.5)
    assert difference(accuracy_by_size({100: 0.5}), "accuracy", own, rival) is None


def test_cells_that_share_questions_do_not_reduce_the_error():
    same = pooled(pd.Series([0.1, 0.3]), pd.Series([0.02, 0.02]), pd.Series(["word", "word"]))
    other = pooled(pd.Series([0.1, 0.3]), pd.Series([0.02, 0.02]), pd.Series(["word", "meta"]))
    assert same == pytest.approx((0.2, 0.02)) and other == pytest.approx((0.2, 0.02 / 2**0.5))


@given(st.lists(st.floats(-0.2, 0.2), min_size=1, max_size=8), st.sampled_from([1, -1]))
def test_opposite_prediction_reverses_the_outcome(values, sign):
    opposite = {"agrees": "disagrees", "disagrees": "agrees", "open": "open"}
    one, other = (outcomes(*(contrast(v, predicted=s) for v in values)) for s in (sign, -sign))
    assert other == [opposite[o] for o in one]


def test_more_contrasts_require_stronger_evidence():
    assert outcomes(contrast(0.022)) == ["agrees"]
    assert outcomes(contrast(0.022), *(contrast(0.001) for _ in range(9)))[0] == "open"


def test_harm_is_tested_against_its_margin():
    assert outcomes(contrast(-0.01, null=-0.05)) == ["agrees"]
    assert outcomes(contrast(-0.01)) == ["open"]
    assert outcomes(contrast(-0.1, null=-0.05)) == ["disagrees"]


def test_detectable_difference_is_found_with_80_percent_power():
    detectable = with_verdicts([Part(1, "says", [contrast(0.0, se=0.02)])])["detectable"].iloc[0]
    samples = np.random.default_rng(0).normal(detectable, 0.02, 20_000)
    assert (samples / 0.02 > 1.96).mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("outcomes", "somewhere", "verdict"),
    [
        (["agrees", "agrees"], False, claims.HELD),
        (["agrees", "open"], False, claims.OPEN),
        (["agrees", "disagrees"], False, claims.NOT_HELD),
        (["agrees", "disagrees"], True, claims.HELD),
        (["open", "disagrees"], True, claims.OPEN),
        (["disagrees", "disagrees"], True, claims.NOT_HELD),
        ([], False, claims.NOT_RUN),
    ],
)
def test_verdict_of_a_part_follows_from_its_outcomes(outcomes, somewhere, verdict):
    assert verdict_of_part(pd.Series(outcomes, dtype=str), somewhere) == verdict


def test_verdict_of_a_claim_follows_from_the_verdicts_of_its_parts():
    assert verdict_of_claim([claims.HELD, claims.NOT_HELD, claims.NOT_RUN]) == claims.NOT_HELD
    assert verdict_of_claim([claims.HELD, claims.HELD]) == claims.HELD
    assert verdict_of_claim([claims.HELD, claims.NOT_RUN]) == claims.OPEN
    assert verdict_of_claim([claims.NOT_RUN, claims.NOT_RUN]) == claims.NOT_RUN


def test_decrease_between_two_sizes_is_found_in_numerical_order():
    (part,) = claims.monotone(accuracy_by_size({1600: 0.5, 100: 0.4, 400: 0.7}), "word")
    assert [round(c.value, 3) for c in part.contrasts] == [0.3, -0.2]
    assert verdict_of_part(with_verdicts([part])["outcome"], part.somewhere) == claims.HELD
    fewer = accuracy_by_size({100: 0.8, 1600: 0.6}, method="pad")
    (both,) = claims.monotone(pd.concat([accuracy_by_size({100: 0.4, 400: 0.5, 1600: 0.7}), fewer]), "word")
    assert [c.value for c in both.contrasts] == pytest.approx([0.1, 0.2, -0.2])  # each method at its own sizes
    (rising,) = claims.monotone(accuracy_by_size({100: 0.4, 400: 0.5, 1600: 0.7}), "word")
    assert verdict_of_part(with_verdicts([rising])["outcome"], rising.somewhere) == claims.NOT_HELD


def test_reward_models_and_agents_are_compared_by_size():
    def row(variant, student, method, value, **facts):
        return facts | dict(
            variant=variant,
            student=student,
            method=method,
            test_task="word",
            metric="accuracy",
            **with_interval(value, 0.01),
        )

    sizes = ["small", "large"]
    rewards = table(
        *(row("size", s, "pad" if m == s else "other", 0.5 + 0.1 * (m == "large")) for m in sizes for s in sizes)
    )
    agents = table(
        *(row("agents", s, "rsft", 0.5 + 0.01 * n * (s == "large"), agents=n) for n in (5, 10, 20) for s in sizes)
    )
    quality, capacity = claims.rewarded(rewards, agents, sizes, "word")
    assert [c.value for c in quality.contrasts] == pytest.approx([0.1, 0.1])
    assert [c.value for c in capacity.contrasts] == pytest.approx([0.15])
    assert capacity.contrasts[0].se == pytest.approx(0.02)


def test_published_grid_gives_the_published_share_below_the_base_model():
    published = read_scores(root() / "reports" / "published.csv")
    own = published[(published["train_task"] != "") & (published["metric"] == "accuracy_gain")]
    parts = claims.steady(claims.gains(own.assign(setting="test")))
    for part, domain, n in zip(parts, ("in domain", "out of domain"), (30, 90), strict=True):
        below = published[(published["metric"] == "below_base") & (published["domain"] == domain)]
        shares = below.set_index("method")["value"]
        assert [c.value for c in part.contrasts] == pytest.approx([shares["pad"] - shares[m] for m in ("rsft", "da")])
        assert part.says.endswith(domain) and all(c.n == n and c.p < 1e-3 for c in part.contrasts)


def test_error_of_gains_over_the_complete_grid_covers_seeds():
    def row(method, value, seed="all", **more):
        fixed = dict(domain="in domain", metric="accuracy_gain", method=method, baseline="base", seed=seed)
        return fixed | with_interval(value, 0.01) | more

    rows = [row(m, 0.2) for m in ("sft", "rsft", "da", "pad")]
    rows += [row("pad", v, str(i)) for i, v in enumerate((0.1, 0.2, 0.3))]
    rows += [row("pad", 0.5, student="s")]
    found = claims.domain_gains(table(*rows), "in domain")
    assert [round(c.value, 3) for c in found] == [0.2] * 3 and [c.seeds for c in found] == [1, 1, 3]
    assert found[2].se == pytest.approx(math.hypot(0.01, 0.1 / 3**0.5)) and found[0].se == pytest.approx(0.01)
    assert claims.domain_gains(table(*rows), "out of domain") == []


def test_means_over_the_grid_are_not_counted_as_cells():
    fixed = dict(metric="accuracy_gain", baseline="base", seed="all")
    cells = [
        dict(
            setting="test", method=m, student="s", train_task="word", test_task=test, **fixed, **with_interval(v, 0.01)
        )
        for test, v in (("word", 0.1), ("meta", -0.1))
        for m in claims.TRAINED
    ]
    means = [
        dict(setting="test", domain="in domain", method=m, **fixed, **with_interval(0.1, 0.01)) for m in claims.TRAINED
    ]
    parts = claims.parts(RUN | {"grid": table(*cells, *means)}, ["s"], ["s", "s"], "word")
    shares = [p for p in parts if p.claim == 2]
    assert [[c.n for c in part.contrasts] for part in shares] == [[1, 1], [1, 1]]


def test_every_verdict_of_the_study_follows_from_its_contrasts():
    parts = claims.parts(RUN, ["qwen3-small"], ["qwen3-64", "qwen3-128"], "equation")
    found = with_verdicts(parts)
    verdicts = claims.verdicts(parts, found)
    assert set(verdicts["claim"]) == set(range(1, 7)) == set(claims.PLACES)
    assert (found["p_holm"] >= found["p"]).all() and len(found) == sum(len(p.contrasts) for p in parts)
    assert set(verdicts[verdicts["verdict"] == claims.NOT_RUN]["part"]) == {p.says for p in parts if not p.contrasts}


def test_table_that_was_not_run_is_reported_and_an_invalid_one_named(tmp_path):
    scores = (root() / "reports" / "scores.csv").read_text().splitlines(keepends=True)
    (tmp_path / "scores.csv").write_text("".join(scores[:40]))
    (tmp_path / "grid.csv").write_text(scores[0])
    read = experiments.read(tmp_path)
    assert read["grid"].empty and read["ablation_data"].empty and len(read["scores"]) == 39
    assert experiments.not_run(read, "grid") == "*grid.csv: not run yet: `make grid`*"
    (tmp_path / "grid.csv").write_text(scores[0] + scores[1].replace(",1000,", ",many,"))
    with pytest.raises(StudyError, match=r"grid\.csv: row 0"):
        experiments.read(tmp_path)
    (tmp_path / "grid.csv").unlink()
    (tmp_path / "scores.csv").write_text(scores[0])
    with pytest.raises(StudyError, match=r"scores\.csv: no results"):
        experiments.read(tmp_path)

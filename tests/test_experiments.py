"""The page of experiments: the gains in its figures, and its sentences about the control."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from agentark.paper import ablations
from agentark.report import charts
from agentark.schemas import Score, frame


def gain(variant: str, method: str, rival: tuple[str, str], value: float, student="s", seed="all", **fields) -> Score:
    """A gain over `rival`, given as (method, variant)."""
    baseline, baseline_variant = rival
    return Score(
        study="data", setting="test", variant=variant, teacher="t", student=student, method=method, baseline=baseline,
        baseline_variant=baseline_variant, train_task="word", test_task="word", seed=seed, metric="accuracy_gain",
        value=value, n=90, lo=value - 0.1, hi=value + 0.1, tokens_per_question=10.0, **fields,
    )  # fmt: skip


def rows() -> list[Score]:
    arms = [gain(arm, m, (m, "study"), v) for arm in ablations.CONTROL for m, v in (("rsft", 0.2), ("da", -0.05))]
    sizes = [gain("questions", "da", ("da", "study"), 0.0, questions=n) for n in (100, 200)]
    levels = [gain("samples, equal traces", "da", ("da", "study"), 0.0, level=2)]
    other = [gain("plain first", "rsft", ("rsft", "study"), 0.0), gain("PAD, then DA", "da", ("pad", "twice"), 0.3)]
    bases = [gain(variant, "rsft", ("base", ""), 0.5) for variant in ("study", "plain first")]
    return [*arms, *sizes, *levels, *other, *bases]


@pytest.fixture
def data() -> pd.DataFrame:
    return frame(rows())


def test_control_lines_state_gain_interval_and_verdict(data):
    lines = ablations.control(data)
    assert len(lines) == 4 and lines[0] == (
        "R-SFT on samples, equal generations vs. on the debates' traces: +0.200 [+0.100, +0.300], n = 90 (better)"
    )
    assert lines[1].startswith("DA on samples, equal generations vs.") and lines[1].endswith("(no difference detected)")


def test_protocol_lines_compare_the_students_and_the_protocols_themselves():
    gains = [gain("", m, (b, ""), v, student) for m, b, v, student in (
        ("debate", "vote", -0.2, ""), ("debate", "vote", 0.0, "s"), ("mad", "debate", -0.2, ""),
        ("mad", "debate", 0.2, "s"), ("mad", "vote", 0.1, "s"), ("mad", "base", 0.1, "s"))]  # fmt: skip
    lines = ablations.protocol_gains(frame(gains))
    assert len(lines) == 2 and lines[1] == (
        "student of mad vs. student of debate: +0.200 [+0.100, +0.300], n = 90 (better); "
        "mad vs. debate itself: -0.200 [-0.300, -0.100] (worse)"
    )


def test_gains_that_other_figures_show_are_left_out(data):
    assert list(ablations.other_variants(data)["variant"]) == ["plain first", "PAD, then DA"]


def test_figure_has_a_panel_per_baseline_and_a_named_line_per_gain():
    data = frame([*rows(), gain("study", "pad", ("base", ""), 0.1), gain("one", "da", ("base", ""), 0.0, seed="1")])
    table = ablations.differences(data)
    assert list(table["panel"].unique()) == ["against study", "against base", "against others"]
    lines = table.set_index("panel")["line"]
    assert list(lines["against base"]) == ["study, R-SFT", "plain first, R-SFT", "study, PAD"]
    assert lines["against others"] == "PAD, then DA, DA − twice" and len(lines["against study"]) == 8
    figure = charts.intervals(table, "line", "gain", hue="", row="panel", zero=0, horizontal=True)
    assert [axis.get_title() for axis in figure.axes] == list(table["panel"].unique())
    assert figure.axes[0].get_ylim()[0] > figure.axes[0].get_ylim()[1]  # the first line is at the top
    plt.close("all")


def test_alternatives_inside_pad_are_named_by_the_choice():
    gains = [gain("credit", m, (b, ""), 0.1) for m, b in (("pad", "base"), ("step", "base"), ("step", "pad"))]
    assert list(ablations.choices(frame(gains))["line"]) == ["credit: step by step, s"]

"""The page of experiments: what its pictures hold, and what it says of the control."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from agentark.paper import ablations
from agentark.report import charts


def gain(experiment: str, method: str, baseline: str, value: float, student: str = "s", seed: str = "all") -> dict:
    return dict(
        study="data", experiment=experiment, teacher="t", student=student, method=method, baseline=baseline,
        train_task="word", test_task="word", seed=seed, metric="accuracy_gain", value=value, n=90, lo=value - 0.1,
        hi=value + 0.1, tokens_per_question=10.0,
    )  # fmt: skip


@pytest.fixture
def data() -> pd.DataFrame:
    arms = [gain(arm, m, "study", v) for arm in ablations.CONTROL for m, v in (("rsft", 0.2), ("da", -0.05))]
    sizes = [gain(f"{n} questions", "da", "study", 0.0) for n in (100, 200)]
    levels = [gain("samples, equal traces, level 2", "da", "study, level 2", 0.0)]
    other = [gain("plain first", "rsft", "study", 0.0), gain("PAD, then DA", "da", "study, pad", 0.3)]
    bases = [gain(e, "rsft", "base", 0.5) for e in ("study", "plain first")]
    return pd.DataFrame([*arms, *sizes, *levels, *other, *bases])


def test_the_control_is_told_by_its_intervals(data):
    told = ablations.control(data)
    assert len(told) == 4 and told[0] == (
        "R-SFT on samples, equal generations is better than R-SFT on the debates' traces (+0.200 [+0.100, +0.300], n = 90)"
    )
    assert told[1].startswith("DA on samples, equal generations cannot be told from DA on the debates' traces")


def test_protocols_are_told_by_what_they_teach_and_what_they_answer():
    rows = [gain("protocols", m, b, v, student) for m, b, v, student in (
        ("debate", "vote", -0.2, ""), ("debate", "vote", 0.0, "s"), ("mad", "debate", -0.2, ""), ("mad", "debate", 0.2, "s"),
        ("mad", "vote", 0.1, "s"), ("mad", "base", 0.1, "s"))]  # fmt: skip
    told = ablations.talks(pd.DataFrame(rows))
    assert len(told) == 2 and told[1] == (
        "a student of *mad* is better than one of *debate* (+0.200 [+0.100, +0.300], n = 90); "
        "*mad* itself is worse than *debate* (-0.200 [-0.300, -0.100])"
    )


def test_what_is_drawn_elsewhere_is_left_out(data):
    assert list(ablations.other_data(data)["experiment"]) == ["plain first", "PAD, then DA"]


def test_a_panel_a_baseline_a_line_a_gain_named_by_what_sets_it_apart(data):
    figure = charts.differences(pd.concat([data, pd.DataFrame([gain("one", "da", "base", 0.0, seed="1")])]))
    assert [axis.get_title() for axis in figure.axes] == ["against study", "against base", "against others"]
    lines = [[label.get_text() for label in axis.get_yticklabels()] for axis in figure.axes]
    assert len(lines[0]) == 7 and lines[1] == ["study, R-SFT", "plain first, R-SFT"]
    assert lines[2] == ["samples, equal traces, level 2, DA − study, level 2", "PAD, then DA, DA − study, PAD"]
    assert figure.axes[0].get_ylim()[0] > figure.axes[0].get_ylim()[1]  # the first line on top
    two = charts.differences(pd.concat([data, data.assign(student="u")]))
    assert two.axes[1].get_yticklabels()[0].get_text() == "s, samples, equal traces, level 2, DA"
    one = charts.differences(data[data["baseline"] == "study, pad"])
    assert [axis.get_title() for axis in one.axes] == ["against study, PAD"]
    plt.close("all")


def test_choices_inside_pad_are_named_by_what_was_chosen():
    rewards = pd.DataFrame(gain("credit", m, b, 0.1) for m, b in (("pad", "base"), ("step", "base"), ("step", "pad")))
    assert list(ablations.choices(rewards)["experiment"]) == ["credit: step by step"]

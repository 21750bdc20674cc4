"""Debates compared with their controls, and students by source: sentences follow the results; the notebooks run."""

import itertools

import pandas as pd
import pytest
from examples import KEYS, trace_of
from small_study import stage

from agentark.evaluate import diversity
from agentark.report import controlled, controls, headlines, sentences
from agentark.schemas import Score, frame, read_scores

BASELINES = ("greedy", "single", "vote", "self_revision", "debate_off")
FAMILIES = ("word", "equation")


def row(metric: str, value: float, **more) -> Score:
    fixed = dict(study="controls", setting="test", variant="teacher", teacher="", student="", method="debate",
                 baseline="", train_task="", test_task="word", seed="all", n=1000, lo=value - 0.01, hi=value + 0.01,
                 tokens_per_question=0.0, temperature=1.3, agents=5)  # fmt: skip
    return Score(**fixed | {"metric": metric, "value": value} | more)


def controlled_debate(gains: dict[str, float], **more) -> list[Score]:
    """A debate with accuracy 0.7 and its paired gains over each baseline; its diversity."""
    rows = [row("accuracy", 0.7, **more), row("diversity", 0.2 + 0.1 * (more.get("test_task") == "word"), **more)]
    for baseline in BASELINES:
        gain = gains.get(baseline, 0.05)
        rows += [
            row("accuracy", 0.7 - gain, **more | {"method": baseline}),
            row("accuracy_gain", gain, baseline=baseline, **more),
        ]
    return rows


@pytest.mark.parametrize(("gain", "families"), [(0.05, 2), (0.0, 0), (-0.05, 0)])
@pytest.mark.parametrize("baseline", ["greedy", "vote"])
def test_a_family_counts_only_if_the_debate_beats_greedy_decoding_and_the_vote(baseline, gain, families):
    table = frame(r for f in FAMILIES for r in controlled_debate({baseline: gain}, test_task=f))
    *family_lines, team_line, _ = controls.control_findings(table)
    assert f"in {families} of 2 families" in team_line
    verdict = {0.05: "better", 0.0: "no difference detected", -0.05: "worse"}[gain]
    assert all(
        f"vs. {sentences.NAMES[baseline]} {gain:+.3f}" in line and f"({verdict})" in line for line in family_lines
    )


@pytest.mark.parametrize(
    ("gain", "clause"), [(0.05, "helps in 2 (word, equation)"), (-0.05, "helps in 0"), (0.0, "helps in 0")]
)
def test_communication_helps_only_in_families_with_a_gain(gain, clause):
    table = frame(r for f in FAMILIES for r in controlled_debate({"debate_off": gain}, test_task=f))
    lines = controls.control_findings(table)
    assert clause in lines[-2]
    better, worse = 2 * (gain > 0), 2 * (gain < 0)
    assert f"communication helps in {better} and harms in {worse}" in lines[-1]


@pytest.mark.parametrize(
    ("greedy", "vote", "found"), [(0.1, 0.2, "2 (word, equation)"), (0.1, -0.1, "0."), (0.0, 0.1, "0.")]
)
def test_a_recipe_counts_families_where_its_debate_beats_greedy_decoding_and_vote(greedy, vote, found):
    gains = {"greedy": greedy, "vote": vote, "debate_off": -0.1}
    rows = [
        dict(teacher="longer", family=family, method=method, debate_gain=gain, lo=gain - 0.05, hi=gain + 0.05, n=300)
        for family, (method, gain) in itertools.product(FAMILIES, gains.items())
    ]
    line = controls.recipe_finding(pd.DataFrame(rows))
    assert f"longer {found}" in line and "(1 tried, n = 300" in line and "of 2, in which" in line


@pytest.mark.parametrize("best", ["greedy", "self_revision", "vote"])
def test_the_best_baseline_is_the_most_accurate_one_without_communication(best):
    table = frame(controlled_debate({best: -0.1, "debate_off": -0.2}))
    accuracy, gain = controls.best_baseline(table, controls.debates(table).iloc[0])
    assert accuracy["method"] == gain["baseline"] == best and gain["value"] == -0.1


def test_the_map_has_a_point_for_every_condition():
    table = frame(
        r
        for f, t, level in itertools.product(FAMILIES, (0.5, 1.3), (None, 2))
        for r in controlled_debate({}, test_task=f, temperature=t, level=level)
    )
    points = controls.points(table)
    assert len(points) == 8 and set(points["diversity"].round(2)) == {0.2, 0.3}
    controls.plt.close(controls.diversity_map(table))


def test_diversity_is_accuracy_of_the_best_agent_minus_mean_accuracy():
    other = KEYS.model_copy(update={"question_id": "word-other"})
    right, wrong = f"answer : {KEYS.answer}", "answer : 0"
    first = [
        trace_of(a, 1, text, q.question_id)
        for q, texts in ((KEYS, (right, wrong)), (other, (wrong, wrong)))
        for a, text in enumerate(texts, 1)
    ]
    best, mean = diversity.any_and_mean_right(first, [KEYS, other])
    assert list(best) == [1, 0] and list(mean) == [0.5, 0]
    conditions = {"a": {"variant": "teacher", "temperature": 1.3, "agents": 2}}
    rows = diversity.rows({("a", "word"): first}, {"word": [KEYS, other]}, conditions, by_level=["a"])
    assert [(r.level, r.value) for r in rows] == [(None, 0.25), (KEYS.level, 0.25)]


@pytest.mark.parametrize(("gain", "words"), [(0.05, "better"), (-0.05, "worse"), (0.0, "no difference detected")])
def test_the_readme_names_the_best_control_and_the_gain_from_communication(gain, words):
    table = frame(
        r for f in FAMILIES for r in controlled_debate({"greedy": gain - 0.1, "debate_off": gain}, test_task=f)
    )
    (best_line,) = headlines.best_control(table, "equation")
    team_line, map_line = headlines.communication(table)
    assert f"the best is greedy decoding ({0.8 - gain:.3f}): {gain - 0.1:+.3f}" in best_line
    assert f"on vs. off {gain:+.3f}" in best_line and best_line.endswith(f"({words}).")
    assert team_line.startswith("**Communication**, teacher: the debate is above") and "points of the map" in map_line
    assert headlines.best_control(table, "meta") == []


# Students by source


def source_gain(source: str, gain: float) -> Score:
    return row("accuracy_gain", gain, variant="debate, verified", student="s", method="rsft", baseline="rsft",
               baseline_variant=f"{source}, verified")  # fmt: skip


@pytest.mark.parametrize(("gain", "words"), [(0.05, "better"), (-0.05, "worse"), (0.0, "no difference detected")])
def test_a_student_of_the_debate_is_compared_with_every_source(gain, words):
    rows = [row("accuracy", 0.8, variant="debate, verified", student="s", method="rsft")]
    rows += [source_gain(source, gain) for source in ("vote", "self_revision", "star")]
    line = controlled.student_findings(frame(rows), "s", "debate, verified")
    assert line.count(f"({words})") == 3 and "0.800" in line


def test_the_notebooks_of_controls_and_sources_write_their_results(copied):
    small = ["agents=3", "rounds=2", "max_tokens=72"]
    stage(
        copied, "ablations/controls", *small, "families=[equation,word]", "temperatures=[0.5]", "sizes=[2]", "test=8",
        "test_others=6", "map_test=4", "out=reports/try-controls.csv", "out_figures=reports/figures-try",
    )  # fmt: skip
    table = read_scores(copied / "reports" / "try-controls.csv")
    assert {"debate", *BASELINES, "vote_tokens", "debate_other"} <= set(table["method"])
    assert len(controls.control_findings(table)) == 2 * 2 + 2 + 1
    stage(
        copied, "ablations/sources", *small, "student=llama-small", "other=qwen3-small", "seeds=[0]", "test=16",
        "out=reports/try-sources.csv", "out_figures=reports/figures-sources-try",
        "scratch=data/ablations/try-sources", "reward_model.own_samples=2", "reward_model.stage_2_steps=6",
        "policy.held_out=8",
    )  # fmt: skip
    sources = read_scores(copied / "reports" / "try-sources.csv")
    assert {"debate", "debate_off", "self_revision", "vote", "greedy", "star"} <= set(sources["source"])
    assert (copied / "reports" / "figures-sources-try" / "sources.png").is_file()

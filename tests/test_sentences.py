"""Each headline sentence of the pages follows the results: it is generated from tables with opposite outcomes."""

import itertools

import pandas as pd
import pytest

from agentark.paper import experiments, grid
from agentark.report import headlines, sentences
from agentark.schemas import Score, frame

OUTCOMES = [(0.1, "better"), (-0.1, "worse"), (0.0, "no difference detected")]


def row(metric: str, value: float, method: str, **more) -> Score:
    fixed = dict(study="main", setting="test", teacher="t", student="", method=method, baseline="", train_task="word",
                 test_task="word", seed="all", n=1000, lo=value - 0.02, hi=value + 0.02,
                 tokens_per_question=10.0)  # fmt: skip
    return Score(**fixed | {"metric": metric, "value": value} | more)


def system(method: str, accuracy: float, gains: dict[str, float], **more) -> list[Score]:
    rows = [row("accuracy_gain", gain, method, baseline=rival, **more) for rival, gain in gains.items()]
    return [row("accuracy", accuracy, method, **more), *rows]


@pytest.mark.parametrize(("gain", "words"), OUTCOMES)
@pytest.mark.parametrize("best", ["greedy", "vote"])
def test_the_debate_is_compared_with_its_best_baseline(best, gain, words):
    other = {"greedy": "vote", "vote": "greedy"}[best]
    rows = system("debate", 0.5, {best: gain, other: gain + 0.2})
    rows += [row("accuracy", 0.5 - gain, best), row("accuracy", 0.3 - gain, other)]
    line = sentences.debate_findings(frame(rows), "word")
    assert f"with no more calls than a full debate is {sentences.NAMES[best]} ({0.5 - gain:.3f}): {gain:+.3f}" in line
    assert f"]({words})".replace("](", "] (") in line


@pytest.mark.parametrize("control", sentences.NOT_CHEAPER[1:])
def test_a_control_of_equal_or_higher_cost_is_not_the_best_baseline(control):
    rows = system("debate", 0.5, {control: -0.2, "greedy": 0.1, "vote": 0.2})
    rows += [row("accuracy", 0.7, control), row("accuracy", 0.4, "greedy"), row("accuracy", 0.3, "vote")]
    line = sentences.debate_findings(frame(rows), "word")
    assert "with no more calls than a full debate is greedy decoding (0.400)" in line
    assert f"vs. {sentences.NAMES[control]} -0.200" in line


@pytest.mark.parametrize(("gain", "words"), OUTCOMES)
def test_a_student_is_compared_with_the_best_baseline_of_one_call(gain, words):
    own = dict(student="s")
    rivals = {"base": 0.3, "base_steps": gain + 0.01, "greedy": gain, "debate": -0.2}
    rows = [row("accuracy", 0.2, "base", **own), row("accuracy", 0.49 - gain, "base_steps", **own)]
    rows += [row("accuracy", 0.5 - gain, "greedy"), row("accuracy", 0.7, "debate")]
    rows += system("rsft", 0.5, rivals, **own)
    text = sentences.student_findings(frame(rows), "s", "word", ["rsft"])
    assert f"with no more calls is the teacher's greedy decoding ({0.5 - gain:.3f}): {gain:+.3f}" in text
    assert f"({words}). All gains" in text and "vs. the teacher's debate -0.200" in text


@pytest.mark.parametrize(
    ("gain", "better", "worse"), [(0.1, "meta", "none"), (-0.1, "none", "meta"), (0.0, "none", "none")]
)
def test_out_of_domain_tasks_are_listed_as_better_or_worse(gain, better, worse):
    own = dict(student="s")
    rows = [row("accuracy", 0.2, "base", **own), *system("rsft", 0.5, {"base": 0.3}, **own)]
    rows.append(row("accuracy_gain", gain, "rsft", baseline="base", test_task="meta", **own))
    text = sentences.student_findings(frame(rows), "s", "word", ["rsft"])
    assert f"better than the base on {better}, worse on {worse}." in text


def test_an_out_of_domain_change_counts_only_after_correction():
    gains = pd.DataFrame({"value": [0.03, *[0.0] * 19], "lo": [0.001, *[-0.03] * 19], "hi": [0.059, *[0.03] * 19]})
    assert (sentences.changed(gains)["change"] == 0).all()
    assert list(sentences.changed(gains[:1])["change"]) == [1]


@pytest.mark.parametrize(("trained", "plain"), [(0.9, 0.8), (0.6, 0.8)])
def test_the_reward_model_is_reported_with_the_likelihood_baseline(trained, plain):
    values = {"fresh head": 0.5, "likelihood": plain, "stage I": 0.7, "stage II": trained}
    rows = [
        row(metric, value, method, study="reward_model", student="s")
        for metric, (method, value) in itertools.product(("prm_step_auroc", "prm_step_auroc_within"), values.items())
    ]
    line = sentences.reward_model_findings(frame(rows), ["s"])
    assert f"the truth: {trained:.3f}" in line and f"{plain:.3f} (the model's own likelihood" in line
    assert f"compared, {trained:.3f}" in line and f"and {plain:.3f} by the likelihood" in line


@pytest.mark.parametrize(("debate", "times"), [(100.0, "10.0 times"), (5.0, "0.5 times")])
def test_cost_of_a_debate_is_given_as_a_multiple_of_one_sample(debate, times):
    rows = [row("accuracy", 0.5, "debate", tokens_per_question=debate), row("accuracy", 0.5, "single"),
            row("accuracy", 0.5, "pad", student="s")]  # fmt: skip
    seconds = pd.DataFrame(
        [
            dict(setting="test", method=m, student=s, seconds_per_question=0.01)
            for m, s in (("debate", ""), ("single", ""), ("pad", "s"))
        ]
    )
    assert times in sentences.cost_findings(frame(rows), seconds, "word", ["s"])


@pytest.mark.parametrize(("value", "words"), [(120.0, "120 [100, 140] questions"), (float("inf"), "never")])
def test_break_even_is_a_number_of_questions_or_never(value, words):
    fixed = dict(setting="break-even", student="s", baseline="debate", lo=100.0, hi=140.0)
    line = sentences.break_even_findings(frame([row("tokens", value, "rsft", **fixed)]))
    assert words in line and "did not time" in line


@pytest.mark.parametrize(("inside", "outside"), [(0.1, -0.1), (-0.1, 0.1)])
def test_grid_means_in_domain_and_out_of_domain_are_never_pooled(inside, outside):
    where = {"in domain": ("word", inside), "out of domain": ("meta", outside)}
    rows = [
        row("accuracy_gain", gain, "rsft", baseline="base", domain=d, teacher="", train_task="", test_task="")
        for d, (_, gain) in where.items()
    ]
    rows += [
        row("accuracy_gain", gain, "rsft", baseline="base", student="s", test_task=test)
        for test, gain in where.values()
    ]
    lines = grid.findings(frame(rows))
    for line, gain in zip(lines, (inside, outside), strict=True):
        assert f"{gain:+.3f}" in line and f"below the base in {int(gain < 0)} of 1 gains" in line


@pytest.mark.parametrize(("inside", "outside"), [(0.1, -0.1), (-0.1, 0.1)])
def test_cells_of_this_study_and_of_the_paper_are_counted_by_domain(inside, outside):
    def cells(study):
        return [
            row("accuracy_gain", gain, "rsft", study=study, baseline="base", student="s", test_task=test)
            for test, gain in (("word", inside), ("meta", outside))
        ]

    ours = [*cells("main"), row("accuracy", 0.5, "greedy"), row("accuracy", 0.6, "rsft", student="s")]
    tables = dict.fromkeys(experiments.MADE_BY, pd.DataFrame(columns=list(Score.model_fields)))
    text = experiments.findings(tables | {"scores": frame(ours)}, frame(cells("published")), "word")
    for gain, domain in ((inside, "in domain"), (outside, "out of domain")):
        assert text.count(f"{gain * 100:+.2f} points {domain} ({int(gain < 0)} of 1 cells below the base)") == 2


def test_lines_of_the_readme_follow_the_results():
    def lines(gain):
        rows = system("debate", 0.5, {"greedy": gain, "vote": gain + 0.1}, train_task="")
        rows += [row("accuracy", 0.5 - gain, "greedy"), row("accuracy", 0.4 - gain, "vote")]
        rows += system("pad", 0.4, {"base": gain, "debate": -0.1}, student="s")
        rows += [row("accuracy", 0.4 - gain, "base", student="s")]
        source = row(
            "accuracy_gain",
            gain,
            "rsft",
            student="s",
            variant="debate, verified",
            baseline="rsft",
            baseline_variant="vote, verified",
        )
        team = [row("accuracy", 0.5, "debate"), row("accuracy", 0.5 - gain, "vote"),
                row("accuracy_gain", gain, "debate", baseline="vote")]  # fmt: skip
        table = frame(rows)
        return [
            headlines.debate(table, "word"),
            *headlines.students(table, "word", "s", ["pad"]),
            *headlines.sources(frame([source]), "s"),
            headlines.specialists(frame(team)),
        ]

    for gain, words in OUTCOMES:
        assert all(f"({words})" in line for line in lines(gain)), gain
    assert ["beats" in lines(0.1)[-1], "is worse than" in lines(-0.1)[-1], "equals" in lines(0.0)[-1]] == [True] * 3
    empty = frame([row("accuracy", 0.5, "debate")])[:0]
    assert (
        headlines.communication(empty) == headlines.best_control(empty, "word") == headlines.sources(empty, "s") == []
    )

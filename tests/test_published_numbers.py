"""The published tables are complete, and the analysis reproduces values that can be checked by hand."""

import shutil

import numpy as np
import pandas as pd
import pytest

from agentark import StudyError, root
from agentark.evaluate import stats
from agentark.paper import analysis, figures, numbers, verdicts
from agentark.report import charts
from agentark.schemas import Score, read_table, write_table

FOLDER = root() / "data" / "published"


@pytest.fixture(scope="module")
def printed():
    return numbers.read(FOLDER)


@pytest.fixture(scope="module")
def cells(printed):
    return numbers.cells(printed)


def changed(printed, value, **where):
    """The tables with one number replaced."""
    table, selected = printed.copy(), pd.Series(True, index=printed.index)
    for column, wanted in where.items():
        selected &= table[column] == wanted
    assert selected.sum() == 1
    table.loc[selected, "value"] = value
    return table


def test_every_table_has_the_rows_that_its_readme_states(printed):
    rows = printed["table"].value_counts().to_dict()
    assert rows == {f"Table {i}": n for i, n in {1: 24, 2: 16, 4: 32, 5: 16, 6: 10, 7: 12, 8: 50}.items()} | {
        f"Table {i}": 72 for i in range(9, 14)
    } | {"Appendix D.1": 10}


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (dict(table="Table 9", teacher="Qwen3-32B", method="pad", train_task="medmcqa", test_task="medmcqa"), 63.12),
        (dict(table="Table 9", teacher="Gemma3-27B-it", method="rsft", train_task="math", test_task="gsm8k"), 87.64),
        (dict(table="Table 10", teacher="Qwen3-8B", method="rsft", train_task="gsm8k", test_task="gsm8k"), 69.22),
        (dict(table="Table 13", teacher="Gemma3-27B-it", method="pad", train_task="math", test_task="medmcqa"), 32.92),
        (dict(table="Table 8", student="Qwen3-0.6B", method="sft", train_task="metamathqa", test_task="gsm8k"), 21.38),
        (dict(table="Table 1", method="pad", metric="reasoning_coherence"), 3.96),
        (dict(table="Table 5", variant="PPO", train_task="medmcqa", test_task="medmcqa"), 50.08),
        (dict(table="Table 7", method="pad+da", train_task="math", test_task="gsm8k"), 70.14),
    ],
)
def test_numbers_are_in_the_cells_where_the_paper_prints_them(printed, where, value):
    assert verdicts.one(printed, **where)["value"] == value


def test_the_method_statement_is_reproduced(cells):
    """The expected values were taken from the same tables by hand."""
    assert len(cells[cells["method"] != "sft"]) == 360
    assert cells[cells["method"] != "sft"]["gain"].mean() == pytest.approx(1.28, abs=0.005)
    found = analysis.summary(cells).set_index(["method", "part"])
    assert found["below_base"].xs("all", level="part").round(2).to_dict() == dict(sft=0.45, rsft=0.48, da=0.48, pad=0)
    for part, gains in {"in domain": (0.62, 1.44, 1.65), "out of domain": (1.22, 1.42, 1.26)}.items():
        assert found.loc[[(m, part) for m in ("rsft", "da", "pad")], "mean"].round(2).tolist() == list(gains)


def test_the_abstract_s_figure_is_the_relative_gain_of_pad_from_the_largest_teacher(cells):
    assert numbers.relative(cells).loc["Qwen3-32B", "pad"] == pytest.approx(4.8, abs=0.05)


def test_accuracies_are_closer_to_the_base_of_their_own_test_set(cells):
    """Rows are test sets and columns are training sets, contrary to the captions."""
    other = cells["test_task"].map({"gsm8k": "medmcqa", "medmcqa": "gsm8k"})
    base = cells.groupby(["student", "test_task"])["base"].first()
    distance = (cells["value"] - [base[k] for k in zip(cells["student"], other, strict=True)]).abs()
    medians = pd.DataFrame({"own": cells["gain"].abs(), "other": distance}).groupby([cells["student"], other]).median()
    assert (medians["own"] < medians["other"]).all()


def test_a_malformed_row_is_reported_with_file_row_and_column(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "tables")
    file = tmp_path / "tables" / "others.csv"
    file.write_text(file.read_text().replace("0.6529", "O.6529"))
    with pytest.raises(StudyError, match=r"others.csv: row 0, value: .*restore it from git"):
        numbers.read(tmp_path / "tables")


def test_a_duplicate_number_is_reported(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "tables")
    file = tmp_path / "tables" / "others.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(StudyError, match=r"Table 1 Qwen3-0.6B base .* twice"):
        numbers.read(tmp_path / "tables")


def test_a_missing_base_and_a_missing_cell_are_reported(printed):
    base = printed.query("method == 'base' and student == 'Gemma-7B' and test_task == 'gsm8k'").index
    with pytest.raises(StudyError, match="no base accuracy of Gemma-7B on gsm8k"):
        numbers.cells(printed.drop(base))
    cell = printed.query("table == 'Table 12' and method == 'da'").index[0]
    with pytest.raises(StudyError, match="cells of da are missing"):
        numbers.cells(printed.drop(cell))


def test_holm_on_a_worked_example():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]).tolist() == [1, 1]


def test_equal_gains_in_every_cell_give_an_interval_of_zero_width(cells):
    found = analysis.compare(cells.assign(gain=np.where(cells["method"] == "pad", 2.0, -1.0)))
    pad = verdicts.one(found, part="all", method="pad", baseline="base")
    assert (pad["gain"], pad["lo"], pad["hi"], pad["positive"], pad["pairs"]) == (2, 2, 2, 10, 10)
    assert pad["p_sign_holm"] < 0.05
    assert verdicts.one(found, part="in domain", method="pad", baseline="da")["gain"] == 3
    assert verdicts.one(found, part="all", method="da", baseline="rsft")["positive"] == 0


def test_differences_pair_each_cell_with_the_same_cell_of_the_other_method(cells):
    differences = analysis.differences(cells, "pad", "da")
    row = differences.query("teacher == 'Qwen3-32B' and student == 'Qwen3-8B' and train_task == 'medmcqa'")
    assert row.set_index("test_task")["gain"].round(2).to_dict() == {"gsm8k": 1.53, "medmcqa": 4.43}


def test_variance_is_attributed_to_the_factor_that_causes_it(cells):
    by_student = dict(zip(numbers.STUDENTS, range(5), strict=True))
    crossed = {"gsm8k": -1.0, "medmcqa": 1.0}
    one = analysis.spread(cells.assign(gain=cells["student"].map(by_student).astype(float)))
    both = analysis.spread(cells.assign(gain=cells["test_task"].map(crossed) * (cells["student"].map(by_student) - 2)))
    assert one["student"].tolist() == pytest.approx([1, 1, 1])
    assert one["rest"].tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    assert both["student x test_task"].tolist() == pytest.approx([1, 1, 1])


def test_noise_of_one_cell_matches_a_computation_by_hand(cells):
    row = verdicts.one(
        analysis.noise(cells),
        teacher="Qwen3-32B", student="Qwen3-8B", method="pad", train_task="gsm8k", test_task="gsm8k",
    )  # fmt: skip
    assert row["gain"] == pytest.approx(89.05 - 88.17)
    assert row["se"] == pytest.approx(100 * np.sqrt(0.8905 * 0.1095 / 1319))
    assert row["se_gain"] == pytest.approx(np.hypot(row["se"], 100 * np.sqrt(0.8817 * 0.1183 / 1319)))
    assert round(row["questions"]) == 12  # McNemar: 2 * 0.5 ** 12 < 5 %; the independent test is not significant
    assert row["p_paired"] < 0.05 < row["p_apart"]


def test_half_of_the_cells_are_expected_below_a_base_equal_to_their_mean(cells):
    level = cells.assign(gain=0.0, value=cells["base"])
    found = analysis.within_noise(analysis.noise(level)).set_index("method").loc["pad"]
    assert found["below base, expected"] == pytest.approx(60)
    assert found["within the error of a difference"] == 120 and found["better, best pairing"] == 0


@pytest.mark.parametrize(
    ("percent", "n", "expected"), [(33.33, 3, True), (33.34, 3, False), (66.67, 3, True), (50, 3, False)]
)
def test_only_percentages_that_are_rounded_counts_are_countable(percent, n, expected):
    assert bool(analysis.is_whole_count(percent, n)) is expected


def test_chance_is_the_share_of_percentages_that_are_counts():
    assert analysis.chance(10) == pytest.approx(11 / 10_001)
    assert analysis.chance(20_000) == 1


@pytest.mark.parametrize("n", [541, 3_077])
def test_the_size_of_a_test_set_is_found_from_its_accuracies(printed, n):
    rng = np.random.default_rng(0)
    simulated = printed.assign(value=[round(100 * rng.integers(0, n + 1) / n, 2) for _ in range(len(printed))])
    sizes = analysis.test_sizes(simulated, "gsm8k", range(400, 3_500))
    assert sizes.loc[sizes["excess"].idxmax(), "n"] == n


@pytest.mark.parametrize(("task", "n"), numbers.TEST_SIZES.items())
def test_the_printed_accuracies_fit_the_assumed_test_set_sizes(printed, task, n):
    sizes = analysis.test_sizes(printed, task)
    assert sizes.loc[sizes["excess"].idxmax(), "n"] == n
    base = verdicts.one(analysis.counts(printed), test_task=task, method="base")
    assert base["countable"] == 1


def test_a_changed_table_changes_the_sentences_that_quote_it(printed, cells):
    where = dict(table="Table 9", teacher="Qwen3-32B", method="pad", train_task="gsm8k", test_task="gsm8k")
    other = changed(printed, 60.0, **where)
    before, after = verdicts.findings(printed, cells), verdicts.findings(other, numbers.cells(other))
    assert "PAD 0% of cells" in before and "PAD 1% of cells" in after
    claims = verdicts.claims(printed, cells), verdicts.claims(other, numbers.cells(other))
    assert "0% (PAD)" in claims[0].iloc[1, 0] and "1% (PAD)" in claims[1].iloc[1, 0]


def test_a_verdict_changes_with_the_numbers(printed, cells):
    worse = printed["method"].eq("pad") & printed["table"].isin(numbers.GRID)
    other = printed.assign(value=printed["value"].where(~worse, printed["value"] - 30))
    before, after = verdicts.claims(printed, cells), verdicts.claims(other, numbers.cells(other))
    assert "PAD's gain: held" in before.iloc[0, 1] and "PAD's gain: did not hold" in after.iloc[0, 1]
    assert before.iloc[1, 1].startswith("held") and after.iloc[1, 1].startswith("did not hold")


def test_scores_are_rows_of_the_study_s_table(printed, cells, tmp_path):
    write_table(analysis.scores(printed, cells), tmp_path / "published.csv")
    rows = pd.DataFrame([r.model_dump() for r in read_table(tmp_path / "published.csv", Score)])
    assert rows["metric"].value_counts().to_dict() == {"accuracy": 410, "accuracy_gain": 421, "below_base": 20}
    assert ((rows["lo"] <= rows["value"]) & (rows["value"] <= rows["hi"])).all()
    cell = verdicts.one(
        rows, metric="accuracy", setting="Table 8", student="Gemma-7B", method="base", test_task="gsm8k"
    )
    assert (cell["value"], cell["n"]) == (0.511, 1319)


def test_tables_8_to_13_are_reproduced_completely(cells):
    table = numbers.wide_table(cells)
    assert table.shape == (55, 8) and not table.isna().any(axis=None)
    assert table.loc[("Gemma-7B", "", "sft"), ("medmcqa", "medmcqa")] == 57.06
    assert set(table.loc[("Gemma-7B", "", "base"), "medmcqa"]) == {49.29}


def test_figure_3a_shows_every_cell(cells):
    figure = figures.accuracies(cells)
    dots = sum(len(dots.get_offsets()) for axis in figure.axes for dots in axis.collections)
    assert charts.show(figure, "every cell").alt == "every cell"
    assert dots == len(cells)

"""Rows, fairness rules and findings of the leaderboard, on synthetic tables and on those in git."""

import numpy as np
import pandas as pd
import pytest

from agentark import StudyError, root
from agentark.evaluate.leaderboard import errors, table, unseen
from agentark.report import leaderboard
from agentark.schemas import Quantity, Question
from agentark.stage.parameters import read_params

SECTIONS = read_params(root() / "params.yaml")["leaderboard"]
SETTINGS = ("homogeneous", "specialists")


def answers(share: float, seeds: int = 3, n: int = 400, task: str = "equation", tokens: int = 30) -> pd.DataFrame:
    """Predictions; the first `share` are correct, and each seed differs in two questions."""
    right = np.arange(n) < share * n
    return pd.DataFrame(
        [
            dict(
                question_id=f"{task}{i}",
                student="small",
                task=task,
                seed=seed,
                correct=bool(right[i]) ^ (i in (seed, n - 1 - seed)),
                tokens=tokens,
            )
            for seed in range(seeds)
            for i in range(n)
        ]
    )


def facts(setting: str = "homogeneous", student: str = "small", **changes) -> dict:
    defaults = table.untrained(setting, "", student) | {"family": "supervised", "training_tokens": 1000.0}
    return defaults | changes


def board(shares: dict[str, float], debates: tuple[str, ...] = ("ours",), **tokens: float) -> pd.DataFrame:
    """A leaderboard of methods trained on 1,000 tokens, or as in `tokens`, and of a debate with an accuracy of 0.9."""
    predictions = {("homogeneous", name): answers(share) for name, share in shares.items()}
    rows = [
        table.row(
            name,
            facts(
                uses_debate=name in debates,
                source="debate" if name in debates else "",
                training_tokens=tokens.get(name, 1000.0),
            ),
            predictions[key],
            "equation",
        )
        for key in predictions
        for name in key[1:]
    ]
    predictions["homogeneous", "debate"] = answers(0.9, 1, tokens=900)
    debate = table.untrained("homogeneous", "debate", "")
    rows.append(table.row("debate", debate, predictions["homogeneous", "debate"], "equation"))
    return table.ranked(rows, predictions)


def test_a_row_separates_the_task_in_domain_from_the_other_tasks():
    both = pd.concat([answers(0.75), answers(0.5, task="word", tokens=99)])
    row = table.row("ours", facts(), both, "equation")
    assert row["value"] == pytest.approx(0.75, abs=0.01) and row["other_value"] == pytest.approx(0.5, abs=0.01)
    assert row["lo"] < row["value"] < row["hi"] and row["n"] == 400 and row["seeds"] == 3
    assert row["tokens_per_question"] == 30


def test_a_baseline_is_the_best_row_of_equal_or_lower_cost_without_a_debate():
    found = board({"ours": 0.8, "cheap": 0.6, "same": 0.7, "dear": 0.9}, cheap=10.0, dear=2000.0).set_index("method")
    assert found.loc["ours", "baseline"] == "same" and found.loc["ours", "gain_value"] == pytest.approx(0.1, abs=0.01)
    assert found.loc["dear", "baseline"] == "same" and found.loc["cheap", "baseline"] == ""
    assert list(found.index)[:2] == ["dear", "debate"] or list(found.index)[:2] == ["debate", "dear"]


def test_a_baseline_has_at_most_a_few_percent_more_tokens_per_question():
    predictions = {("homogeneous", name): answers(share, tokens=tokens) for name, share, tokens in (
        ("ours", 0.6, 30), ("long", 0.8, 40), ("short", 0.5, 31)
    )}  # fmt: skip
    predictions["homogeneous", "debate"] = answers(0.9, 1, tokens=900)
    rows = [table.row(name, facts(), predictions[key], "equation") for key in predictions for name in key[1:]]
    assert table.ranked(rows, predictions).set_index("method").loc["ours", "baseline"] == "short"


def test_a_baseline_has_the_same_student_or_no_student():
    shares = {"ours": (0.6, "a"), "other": (0.9, "b"), "same": (0.5, "a"), "greedy": (0.4, "")}
    predictions = {("homogeneous", name): answers(share) for name, (share, _) in shares.items()}
    predictions["homogeneous", "debate"] = answers(0.9, 1, tokens=900)
    rows = [
        table.row(name, facts(student=student), predictions["homogeneous", name], "equation")
        for name, (_, student) in shares.items()
    ]
    found = table.ranked(rows, predictions).set_index("method")
    assert found.loc["ours", "baseline"] == "same" and found.loc["other", "baseline"] == "greedy"
    assert found.loc["ours", "over_debate_value"] == pytest.approx(-0.3, abs=0.01)


def test_accuracy_intervals_end_at_0_and_1_and_the_range_over_seeds_is_shown():
    extreme = answers(0.5).assign(correct=lambda t: t["seed"] < 2)
    row = table.row("ours", facts(), extreme, "equation")
    assert row["hi"] == 1 and row["lo"] == 0 and (row["seed_least"], row["seed_most"]) == (0, 1)
    assert "ours 0.000 to\N{NO-BREAK SPACE}1.000" in leaderboard.spread_finding(pd.DataFrame([row]), "homogeneous")


def test_a_pair_needs_both_methods_with_the_same_student():
    predictions = {
        ("small", name): answers(share).assign(student=student)
        for name, share, student in (("rsft", 0.6, "a"), ("rsft_greedy", 0.7, "a"), ("sdft", 0.8, "b"))
    }
    tasks = {"small": "equation"}
    (found,) = table.pairs(predictions, tasks).to_dict("records")
    assert (found["method"], found["baseline"]) == ("rsft", "rsft_greedy") and found["value"] == pytest.approx(
        -0.1, abs=0.01
    )
    incomplete = {("small", "rsft"): predictions["small", "rsft"]}
    assert table.pairs(incomplete, tasks).empty and leaderboard.pair_findings(table.pairs(incomplete, tasks)) == []


def test_a_pair_is_compared_in_domain_and_on_the_other_tasks():
    predictions = {
        ("homogeneous", name): pd.concat([answers(share), answers(1 - share, task="word")])
        for name, share in (("rsft", 0.6), ("rsft_greedy", 0.7))
    }
    found = table.pairs(predictions, {"homogeneous": "equation"}).set_index("tasks")["value"]
    assert found["in domain"] == pytest.approx(-0.1, abs=0.01) and found["others"] == pytest.approx(0.1, abs=0.01)


def test_a_student_that_is_its_own_teacher_is_in_no_pair():
    by_method = {name: answers(0.5) for name in ("opd", "rsft_greedy")}
    for setting, pairs in (("homogeneous", 1), ("specialists", 0)):
        predictions = {(setting, name): one for name, one in by_method.items()}
        assert len(table.pairs(predictions, {setting: "equation"})) == pairs


def test_the_findings_of_the_page_follow_the_table():
    won, even, lost = (board({"ours": share, "base": 0.6}) for share in (0.85, 0.6, 0.3))
    better, none, worse = (leaderboard.baseline_finding(one, "homogeneous") for one in (won, even, lost))
    assert "1 of the 1 methods that use the debate of the question are better" in better
    assert "ours over base, +0.250" in better and "No difference" not in better
    assert "0 of the 1 methods" in none and "No difference is detected for 1: ours over base, +0.000" in none
    assert "0 of the 1 methods" in worse and "No difference" not in worse
    near, far = (leaderboard.gap_finding(board({"ours": one}), "homogeneous") for one in (0.9, 0.3))
    assert "The best method with the student small is ours: 0.90" in near and "at 1/30 of its tokens" in near
    assert "(no difference detected)" in near and "ours: 0.30" in far and "(worse)" in far


def prediction(
    i: int, answer: str | None = "7", present: int = 2, errors: int = 0, mended: int = 0, correct=False
) -> dict:
    """A prediction for a question with two needed steps."""
    counts = {"steps_needed": 2, "steps_present": present, "errors": errors, "errors_mended": mended}
    return {"question_id": f"q{i}", "seed": 0, "answer": answer, "correct": correct} | counts


def test_every_wrong_answer_has_one_kind_of_error():
    predictions = pd.DataFrame(
        [
            prediction(0, None, present=0, errors=1),
            prediction(1, errors=2, mended=1),
            prediction(2, errors=1, mended=1),
            prediction(3, present=1),
            prediction(4, present=1, errors=1, correct=True),
        ]
    )
    assert list(errors.kinds(predictions)) == ["no answer", "wrong step", "wrong conclusion", "missing step", ""]
    found = errors.shares({("specialists", "ours"): predictions})
    assert found["value"].sum() + predictions["correct"].mean() == pytest.approx(1)


def test_sentences_on_errors_follow_the_table():
    rows = board({"base": 0.5, "ours": 0.8, "rsft": 0.7}, base=0.0)
    base = pd.DataFrame([prediction(i, errors=i % 2) for i in range(40)])
    fewer = pd.DataFrame([prediction(i, errors=int(i == 0), correct=i > 0) for i in range(40)])
    kinds = {("homogeneous", name): one for name, one in (("base", base), ("ours", fewer), ("rsft", base))}
    (line,) = leaderboard.error_findings(errors.shares(kinds), rows)
    assert "student small: without training wrong step 0.500, wrong conclusion 0.500;" in line
    assert "after ours wrong step 0.025; after rsft wrong step 0.500" in line
    shown = leaderboard.error_table(errors.shares(kinds), "homogeneous")
    assert shown.loc["ours", "wrong step"].startswith("0.025") and list(shown.columns) == list(errors.KINDS)


def fact_question(name: str, *facts: str) -> Question:
    """A question that needs these facts, and a sum of two numbers."""
    steps = [Quantity(name=fact, value="x", ways=[""], needed=True) for fact in facts]
    steps += [Quantity(name="sum", value="3", ways=["1 + 2"], needed=True)]
    steps += [Quantity(name="useless", value="x", ways=[""], needed=False)]
    return Question(question_id=name, task="clinic", split="test", level=2, text=name, solution="", answer="x",
                    kind="text", content=name, quantities=steps)  # fmt: skip


def test_a_question_is_unseen_if_one_of_its_facts_is_in_no_training_question():
    train = [fact_question("t0", "a"), fact_question("t1", "b")]
    test = [fact_question("q0", "a", "b"), fact_question("q1", "a", "c"), fact_question("q2")]
    assert unseen.with_all_facts(test, train) == {"q0", "q2"}


@pytest.mark.parametrize(("seen_accuracy", "word"), [(1.0, "no difference detected"), (0.5, "worse")])
def test_the_gap_to_the_debate_is_split_by_whether_all_facts_were_in_training(seen_accuracy, word):
    debate = answers(1.0, 1, n=100)
    seen = set(debate["question_id"].iloc[:80])
    right = [(one in seen and i % 2 < 2 * seen_accuracy) for i, one in enumerate(debate["question_id"])]
    ours = debate.assign(correct=right)
    debate = debate.assign(correct=True)
    found = unseen.split("specialists", {"debate": debate, "ours": ours}, seen)
    rows = pd.DataFrame([{"setting": "specialists", "method": "ours", "student": "small"}])
    (line,) = leaderboard.unseen_findings(found, rows)
    assert "20 of 100 test questions" in line and "ours is right in 0.000, the debate in 1.000" in line and word in line
    assert unseen.split("homogeneous", {"debate": debate}, set(debate["question_id"])).empty


def test_sentences_on_other_tasks_follow_the_table():
    untrained = answers(0.5, 1, task="word")
    lines = []
    for share in (0.8, 0.2):
        both = pd.concat([answers(0.75), answers(share, task="word")])
        row = table.row("ours", facts(), both, "equation", untrained)
        lines.append(leaderboard.other_tasks_finding(pd.DataFrame([row])))
    assert "1 of 1 methods are better than their untrained student: ours +0.3" in lines[0] and "(n = 400)" in lines[0]
    assert "1 of 1 methods are worse than their untrained student: ours -0.3" in lines[1]
    assert leaderboard.other_tasks_finding(board({"ours": 0.8})) == "No method was tested on other tasks."


def test_the_calls_per_question_of_a_source_are_counted(tmp_path):
    pd.DataFrame({"question_id": ["a"] * 5 + ["b"] * 3}).to_parquet(tmp_path / "traces-debate.parquet")
    assert [table.generations(tmp_path, source) for source in ("debate", "other", "")] == [4.0, 4.0, 0.0]


def test_methods_without_a_row_are_listed():
    rows = board({"a": 0.5})
    assert leaderboard.missing_methods(rows, ["a", "b"]) == [
        "**homogeneous.** 1 of 2 methods have not been run yet: b."
    ]
    assert not leaderboard.missing_methods(rows, ["a"])


def test_methods_that_no_cheaper_method_beats_are_listed():
    rows = board({"base": 0.3, "bad": 0.2, "a": 0.5, "b": 0.4, "c": 0.8}, base=0, bad=1e4, a=1e5, b=2e5, c=3e5)
    assert leaderboard.efficiency_finding(rows, "homogeneous").endswith("a 0.500 at 0.10; c 0.800 at 0.30.")


def test_pair_findings_name_the_difference_between_the_methods():
    predictions = {("specialists", "mad_opd"): answers(0.9), ("specialists", "mad_opd_off"): answers(0.2)}
    tasks = {"specialists": "equation"}
    (line,) = leaderboard.pair_findings(table.pairs(predictions, tasks))
    assert (
        line.startswith("**Communication on vs. off**, specialists: mad_opd vs. mad_opd_off +0.700")
        and "better" in line
    )
    swapped = dict(zip(predictions, reversed(predictions.values()), strict=True))
    assert "-0.700" in leaderboard.pair_findings(table.pairs(swapped, tasks))[0]


def test_students_with_much_longer_answers_are_listed():
    predictions = {
        ("homogeneous", name): answers(0.5, tokens=n) for name, n in (("rsft", 30), ("long", 90), ("ours", 40))
    }
    rows = [table.row(name, facts(), one, "equation") for (_, name), one in predictions.items()]
    line = leaderboard.length_finding(pd.DataFrame(rows), "homogeneous")
    assert "30 after rsft; 1 methods" in line and ": long 90;" in line


def test_unequal_training_within_a_family_is_refused():
    fair = board({"a": 0.5, "b": 0.5, "c": 0.5}, a=960.0, c=1049.0)
    table.check_fairness(fair)
    with pytest.raises(
        StudyError, match="b in homogeneous trained on 1,100 tokens, but the median of its class is 1,000"
    ):
        table.check_fairness(board({"a": 0.5, "b": 0.5, "c": 0.5}, b=1100.0))


@pytest.mark.parametrize(("family", "tokens", "fair"), [
    ("mine", 450_000, True), ("mine", 900_000, False), (table.TWICE, 900_000, True), (table.TWICE, 1_350_000, False),
])  # fmt: skip
def test_training_on_more_tokens_than_the_limit_is_refused(family, tokens, fair):
    rows = board({"a": 0.5}, a=tokens).assign(family=family)
    if fair:
        table.check_fairness(rows)
    else:
        with pytest.raises(StudyError, match=r"a in homogeneous trained on .* but the limit is"):
            table.check_fairness(rows)


@pytest.mark.parametrize("setting", SETTINGS)
def test_training_tokens_match_the_logs(setting):
    rows = pd.read_csv(root() / "reports/leaderboard.csv").set_index(["setting", "method"]).loc[setting]
    ran = [name for name in SECTIONS if name in rows.index]
    assert len(ran) >= 20
    for method in ran:
        curve = pd.read_csv(root() / f"data/leaderboard/{setting}/{method}/curve.csv")
        logged = curve.groupby("seed")["tokens"].max()
        assert rows.loc[method, "training_tokens"] == pytest.approx(logged.mean(), rel=1e-4), method
        assert len(logged) == rows.loc[method, "seeds"] == 3
        same = rows[(rows["family"] == rows.loc[method, "family"]) & (rows["training_tokens"] > 0)]["training_tokens"]
        assert (logged / same.median()).between(1 - table.FAIR, 1 + table.FAIR).all(), method

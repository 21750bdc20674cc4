"""Sentences, tables and figures of the leaderboard, from its rows and errors (evaluate/leaderboard)."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from agentark.report import charts
from agentark.report.sentences import cell, listed, number, signed, verdict, versus

WIDE = 0.2  # a method is named if its seeds differ in accuracy by more


def gain_with_interval(one: pd.Series, prefix: str = "gain_") -> pd.Series:
    """A row's gain over its baseline, or the estimate in the columns with `prefix`, as value, lo and hi."""
    return pd.Series({name: one[prefix + name] for name in ("value", "lo", "hi")})


def seed_range(row: pd.Series) -> str:
    """The lowest and the highest accuracy of a row's seeds."""
    return f"{row['seed_least']:.3f} to\N{NO-BREAK SPACE}{row['seed_most']:.3f}"


def pair_findings(table: pd.DataFrame) -> list[str]:
    """One sentence per question, setting and kind of tasks, with the gains of the pairs that answer the question."""
    lines = []
    for (question, setting, tasks), part in table.groupby(["question", "setting", "tasks"], sort=False):
        clauses = "; ".join(
            f"{one['method']} vs. {one['baseline']} {signed(one)} ({verdict(one)})" for _, one in part.iterrows()
        )
        where = setting if tasks == "in domain" else f"{setting}, other tasks"
        lines.append(f"**{question[0].upper()}{question[1:]}**, {where}: {clauses}.")
    return lines


def methods_table(table: pd.DataFrame, seconds: pd.DataFrame, setting: str) -> pd.DataFrame:
    """The rows of a setting as a table for readers, best first. seconds: of a training, by setting and method."""
    rows = table[table["setting"] == setting].merge(seconds, "left", ["setting", "method"])

    def interval(prefix: str) -> list[str]:
        return [cell(gain_with_interval(one, prefix)) for _, one in rows.iterrows()]

    columns = {
        "method": rows["method"],
        "student": rows["student"],
        "family": rows["family"],
        "gold": rows["gold_used"],
        "accuracy": interval(""),
        "seeds": ["" if one["seeds"] == 1 else seed_range(one) for _, one in rows.iterrows()],
        "other tasks": interval("other_") if "other_value" in rows else [""] * len(rows),
        "tokens per question": rows["tokens_per_question"].round(0).astype(int),
        "training tokens": rows["training_tokens"].round(0).astype(int),
        "seconds": [f"{one:.0f}" if one == one else "" for one in rows["seconds"]],
        "calls of teachers per training question": rows["generations"].round(1),
        "all tokens": rows["cost"].round(0).astype(int),
        "best cheaper baseline": rows["baseline"],
        "gain over it": interval("gain_"),
    }
    return pd.DataFrame(columns).set_index("method").rename_axis(None).rename_axis("method", axis=1)


def missing_methods(table: pd.DataFrame, names: Iterable[str]) -> list[str]:
    """A line per setting that lists the methods of params.yaml that have no row yet."""
    names, lines = list(names), []
    for setting, rows in table.groupby("setting", sort=False):
        missing = [name for name in names if name not in set(rows["method"])]
        if missing:
            lines.append(
                f"**{setting}.** {len(missing)} of {len(names)} methods have not been run yet: {listed(missing)}."
            )
    return lines


def figure(table: pd.DataFrame, setting: str) -> plt.Figure:
    """Accuracy with intervals of every method of a setting, best on top; dashed: the debate."""
    rows = table[(table["setting"] == setting) & (table["method"] != "debate")]
    drawn = rows.assign(seed="all", line=rows["method"])
    chart = charts.intervals(drawn, "line", "accuracy", hue="family", horizontal=True)
    debate = table[(table["setting"] == setting) & (table["method"] == "debate")]["value"].iloc[0]
    chart.axes[0].axvline(debate, linestyle="--", color="0.4")
    return chart


def cost_figure(table: pd.DataFrame, setting: str) -> plt.Figure:
    """Accuracy against all tokens that a method needs before its student can answer, a colour per family."""
    charts.style()
    rows = table[(table["setting"] == setting) & (table["training_tokens"] > 0)]
    traces = rows["uses_debate"].map({True: "debate", False: "no debate"})
    chart, axis = plt.subplots(figsize=(charts.WIDTH, 4), layout="constrained")
    sns.scatterplot(
        rows.assign(traces=traces),
        x="cost",
        y="value",
        hue="family",
        style="traces",
        s=60,
        palette="colorblind",
        ax=axis,
    )
    axis.set(xscale="log", xlabel="all tokens before the student can answer", ylabel="accuracy")
    sns.move_legend(axis, "upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8, title="")
    return chart


def other_tasks_finding(table: pd.DataFrame) -> str:
    """The methods that change the accuracy of the untrained student on tasks that no student was trained on."""
    rows = table[table["other_gain_value"].notna()] if "other_gain_value" in table else table[:0]
    if not len(rows):
        return "No method was tested on other tasks."
    verdicts = rows.apply(lambda one: verdict(gain_with_interval(one, "other_gain_")), axis=1)
    clauses = []
    for word in ("better", "worse"):
        own = rows[verdicts == word].sort_values("other_gain_value", ascending=word == "worse")
        named = listed([f"{one['method']} {one['other_gain_value']:+.3f}" for _, one in own.iterrows()])
        clauses.append(f"{len(own)} of {len(rows)} methods are {word} than their untrained student: {named}")
    return f"**Other tasks** (n = {rows['other_n'].iloc[0]:.0f}). {'. '.join(clauses)}."


def efficiency_finding(table: pd.DataFrame, setting: str) -> str:
    """The best accuracy at each cost: the methods that are more accurate than all cheaper ones, cheapest first. Methods
    that do not improve their student are left out."""
    rows = table[(table["setting"] == setting) & (table["training_tokens"] > 0)]
    rows = rows[rows["value"] > rows["student"].map(lambda one: untrained(table, setting, one)["value"])]
    rows = rows.sort_values("cost", kind="stable")
    best = rows[rows["value"] > rows["value"].cummax().shift(fill_value=-1)]
    steps = "; ".join(f"{one['method']} {one['value']:.3f} at {one['cost'] / 1e6:.2f}" for _, one in best.iterrows())
    return f"**Accuracy per token**, {setting}. The best at each cost, in millions of all tokens: {steps}."


def untrained(table: pd.DataFrame, setting: str, student: str) -> pd.Series:
    """The row of a student before training: its base, or greedy decoding where the student is the teacher."""
    rows = table[(table["setting"] == setting) & (table["training_tokens"] == 0)].set_index("method", drop=False)
    own = rows[(rows["student"] == student) & (rows.index == "base")]
    return own.iloc[0] if len(own) else rows.loc["greedy"]


def error_table(errors: pd.DataFrame, setting: str) -> pd.DataFrame:
    """Methods by kind of error: the share of questions with it, with half the width of its interval."""
    rows = errors[errors["setting"] == setting]
    half = (rows["hi"] - rows["lo"]) / 2
    cells = [f"{value:.3f} ± {width:.3f}" for value, width in zip(rows["value"], half, strict=True)]
    return rows.assign(cell=cells).pivot_table("cell", "method", "error", aggfunc="first", sort=False)


def error_findings(errors: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """Per setting and student: the share of each kind of error without training, after R-SFT on the debate, and after
    the best method for this student."""
    lines = []
    for setting, rows in table[table["training_tokens"] > 0].groupby("setting", sort=False):
        found = errors[errors["setting"] == setting].set_index(["method", "error"])["value"]
        for student, own in rows.groupby("student", sort=False):
            named = [own["method"].iloc[0], *own["method"][own["method"] == "rsft"]]
            clauses = [f"without training {kinds(found[untrained(table, setting, student)['method']])}"]
            clauses += [f"after {name} {kinds(found[name])}" for name in dict.fromkeys(named)]
            lines.append(f"**{setting}**, student {student}: {'; '.join(clauses)}.")
    return lines


def kinds(shares: pd.Series) -> str:
    """The shares of the kinds of error, largest first; those below a thousandth are left out."""
    large = shares[shares >= 0.001].sort_values(ascending=False, kind="stable")
    return ", ".join(f"{kind} {share:.3f}" for kind, share in large.items()) or "no error"


def unseen_findings(unseen: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """Per setting: the best student on questions with a fact that is in no training question, and on the others."""
    lines = []
    for setting, rows in unseen.groupby("setting", sort=False):
        best = table[(table["setting"] == setting) & (table["student"] != "")]["method"].iloc[0]
        seen, missing = (part.set_index("method") for _, part in rows.groupby("facts", sort=False))
        lines.append(
            f"**{setting}.** {missing['n'].iloc[0]} of {missing['n'].iloc[0] + seen['n'].iloc[0]} test questions need a "
            f"fact that no training question has. There {best} is right in {missing.loc[best, 'value']:.3f}, the debate in "
            f"{missing.loc['debate', 'value']:.3f}. On the others {best} has {number(seen.loc[best])}, "
            f"{versus('the debate', gain_with_interval(seen.loc[best]))}."
        )
    return lines


def findings(table: pd.DataFrame) -> list[str]:
    """The page's findings per setting: the methods nearest to the debate, the methods better than cheaper baselines,
    and the methods that depend on the seed."""
    found = gap_finding, baseline_finding, spread_finding
    return [finding(table, setting) for setting in table["setting"].unique() for finding in found]


def gap_finding(table: pd.DataFrame, setting: str) -> str:
    """Compare the best method of each student with the debate, by accuracy and by tokens per question."""
    rows = table[table["setting"] == setting]
    debate = rows[rows["method"] == "debate"].iloc[0]
    clauses = []
    for student, own in rows[rows["training_tokens"] > 0].groupby("student", sort=False):
        best = own.iloc[0]
        gain, times = (
            gain_with_interval(best, "over_debate_"),
            debate["tokens_per_question"] / best["tokens_per_question"],
        )
        clauses.append(
            f"The best method with the student {student} is {best['method']}: {best['value']:.3f} [{best['lo']:.3f}, "
            f"{best['hi']:.3f}], vs. the debate {signed(gain)} ({verdict(gain)}) at 1/{times:.0f} of its tokens per question"
        )
    return f"**{setting}.** The debate has {debate['value']:.3f}. {'. '.join(clauses)}."


def baseline_finding(table: pd.DataFrame, setting: str) -> str:
    """The methods that use the question's debate and are better than every cheaper baseline without a debate."""
    rows = table[(table["setting"] == setting) & (table["source"] == "debate") & (table["training_tokens"] > 0)]
    verdicts = [verdict(gain_with_interval(one)) for _, one in rows.iterrows()]
    better, open_ = (rows[[one == word for one in verdicts]] for word in ("better", "no difference detected"))

    def named(part: pd.DataFrame) -> str:
        return "; ".join(
            f"{one['method']} over {one['baseline']}, {signed(gain_with_interval(one))}" for _, one in part.iterrows()
        )

    words = f"{len(better)} of the {len(rows)} methods that use the debate of the question are better than their best"
    lines = f"**{setting}.** {words} cheaper baseline" + (f": {named(better)}." if len(better) else ".")
    return lines + (f" No difference is detected for {len(open_)}: {named(open_)}." if len(open_) else "")


def spread_finding(table: pd.DataFrame, setting: str) -> str:
    """The methods whose seeds differ most, which makes the intervals of all gains over them wide."""
    rows = table[(table["setting"] == setting) & (table["seed_most"] - table["seed_least"] > WIDE)]
    ranges = "; ".join(f"{one['method']} {seed_range(one)}" for _, one in rows.iterrows())
    return f"**Seeds**, {setting}. Accuracies of seeds differ by more than {WIDE} in {ranges or 'no row'}."


def length_finding(table: pd.DataFrame, setting: str) -> str:
    """The trained methods with over 1.5 times the tokens of R-SFT, whose replies the token budget may cut."""
    rows = table[(table["setting"] == setting) & (table["training_tokens"] > 0)]
    usual = rows[rows["method"] == "rsft"]["tokens_per_question"].iloc[0]
    long = rows[rows["tokens_per_question"] > 1.5 * usual]
    named = "; ".join(f"{one['method']} {one['tokens_per_question']:.0f}" for _, one in long.iterrows())
    after = f": {named}; such replies can reach the limit of a reply and be cut" if named else ""
    return f"**Tokens per question**, {setting}. {usual:.0f} after rsft; {len(long)} methods need over 1.5 times as many{after}."

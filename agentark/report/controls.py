"""Figure and sentences of the ablation `controls`: debates compared with their controls, and a map of the gain from
communication against diversity."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from scipy.stats import spearmanr

from agentark.report import charts
from agentark.report.sentences import NAMES, NOT_CHEAPER, number, one, select, verdict, versus

POINT = ["variant", "test_task", "temperature", "agents", "level"]  # these columns identify a point of the map
MARKS = "osD^v"  # one marker per team


def points(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per point of the map: POINT, `diversity`, and the gain from communication (value, lo, hi, n)."""
    gain = select(table, metric="accuracy_gain", method="debate", baseline="debate_off")
    gain = gain[gain["baseline_variant"] == ""]
    diversity = select(table, metric="diversity").rename(columns={"value": "diversity"})
    return gain[[*POINT, "value", "lo", "hi", "n"]].merge(diversity[[*POINT, "diversity"]], on=POINT)


def diversity_map(table: pd.DataFrame) -> plt.Figure:
    """Plot the gain from communication (95 % interval) against diversity: a colour per family, a marker per team."""
    charts.style()
    found = points(table)
    families, teams = list(found["test_task"].unique()), list(found["variant"].unique())
    colours = dict(zip(families, sns.color_palette("colorblind", len(families)), strict=True))
    figure, axis = plt.subplots(figsize=(charts.WIDTH, 4.2), layout="constrained")
    for team, mark in zip(teams, MARKS, strict=False):
        for family in families:
            own = found[(found["variant"] == team) & (found["test_task"] == family)]
            label = f"{family}, {team}"
            charts.draw(axis, own["diversity"].to_numpy(float), own, color=colours[family], fmt=mark, label=label)
    axis.axhline(0, color="black", lw=0.8)
    axis.set(
        xlabel="diversity: any first answer right minus one agent's accuracy",
        ylabel="gain from communication (on - off)",
    )
    charts.legend(figure, axis, columns=4)
    return figure


def best_baseline(table: pd.DataFrame, debate: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return the accuracy of the most accurate baseline, and the debate's paired gain over it, among baselines without
    communication that need at most as many calls as the debate."""
    gains = select(
        table, metric="accuracy_gain", **{key: debate[key] for key in ("variant", "test_task", "method")},
        temperature=debate["temperature"], agents=debate["agents"],
    )  # fmt: skip
    gains = gains[gains["level"].isna() & ~gains["baseline"].isin(NOT_CHEAPER)]
    best = None
    for _, gain in gains.iterrows():
        team = gain["baseline_variant"] or gain["variant"]
        accuracy = one(
            table[table["level"].isna()], metric="accuracy", method=gain["baseline"], variant=team,
            test_task=gain["test_task"], temperature=gain["temperature"], agents=gain["agents"],
        )  # fmt: skip
        if best is None or accuracy["value"] > best[0]["value"]:
            best = (accuracy, gain)
    assert best is not None
    return best


def debates(table: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy of the debates that are compared with all controls."""
    pooled = table[table["level"].isna()]
    compared = select(pooled, metric="accuracy_gain", method="debate", baseline="vote")
    keys = ["variant", "test_task", "temperature", "agents"]
    return select(pooled, metric="accuracy", method="debate").merge(compared[keys], on=keys)


def gain_over(table: pd.DataFrame, debate: pd.Series, baseline: str) -> pd.Series | None:
    """Return the debate's paired gain over a baseline of the same teacher (of a team of two: the first), or None."""
    where = {key: debate[key] for key in ("variant", "test_task", "method", "temperature", "agents")}
    rows = select(table[table["level"].isna()], metric="accuracy_gain", baseline=baseline, **where)
    return rows.iloc[0] if len(rows) else None


def control_findings(table: pd.DataFrame) -> list[str]:
    """Return a sentence for each debate with all controls, one for each team, and one for the map."""
    lines = []
    compared = debates(table)
    for team, of_team in compared.groupby("variant", sort=False):
        above, helped = [], []
        for _, debate in of_team.iterrows():
            accuracy, best = best_baseline(table, debate)
            known = [(b, gain_over(table, debate, b)) for b in ("greedy", "vote", "self_revision", "debate_off")]
            known = [(b, gain) for b, gain in known if gain is not None]
            rest = "; ".join(versus(NAMES[b], gain) for b, gain in known if b != best["baseline"])
            lines.append(
                f"{team}, {debate['test_task']}: the debate's accuracy is {number(debate)}. The best use of the teacher without "
                f"communication, at no more calls than a full debate, is {NAMES[best['baseline']]} ({accuracy['value']:.3f}): debate "
                f"{versus(NAMES[best['baseline']], best)}; {rest}."
            )
            gains = dict(known)
            if all(verdict(gains[b]) == "better" for b in ("greedy", "vote")):
                above.append(debate["test_task"])
            if verdict(gains["debate_off"]) == "better":
                helped.append(debate["test_task"])
        lines.append(
            f"**{team}**: the debate is above both greedy decoding and the vote at equal calls in {len(above)} of {len(of_team)} "
            f"families{in_brackets(above)}; communication helps in {len(helped)}{in_brackets(helped)}."
        )
    return [*lines, map_finding(table)]


def recipe_finding(table: pd.DataFrame) -> str:
    """Return, per teacher recipe, the families with the debate above greedy decoding and the vote at equal calls.

    table: search_teacher.csv, with the debate's gain over each other method by recipe (`teacher`) and family.
    """
    clauses, families = [], table["family"].nunique()
    for recipe, own in table.groupby("teacher", sort=False):
        better = own[own["method"].isin(["greedy", "vote"])].groupby("family", sort=False)["lo"].min() > 0
        clauses.append(f"{recipe} {better.sum()}{in_brackets(list(better[better].index))}")
    return (
        f"**Recipes of the teacher** ({len(clauses)} tried, n = {table['n'].iloc[0]} validation questions per family): families, "
        f"of {families}, in which the debate is above both greedy decoding and the vote at equal calls: {'; '.join(clauses)}."
    )


def in_brackets(families: list[str]) -> str:
    return f" ({', '.join(families)})" if families else ""


def map_finding(table: pd.DataFrame) -> str:
    """Return how many points show that communication helps or harms, and the gain's rank correlation with diversity."""
    found = points(table)
    better, worse = (found["lo"] > 0).sum(), (found["hi"] < 0).sum()
    high = found[found["diversity"] >= found["diversity"].median()]
    rho = spearmanr(found["diversity"], found["value"])
    return (
        f"Of {len(found)} points of the map, communication helps in {better} and harms in {worse} by the 95 % interval. Rank "
        f"correlation of the gain with diversity: {rho.statistic:+.2f} over points (p = {rho.pvalue:.3f}). Mean gain where "
        f"diversity is at or above its median: {high['value'].mean():+.3f}, below it: "
        f"{found.drop(high.index)['value'].mean():+.3f}."
    )

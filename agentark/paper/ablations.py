"""Tables of the ablations, selected for the pages."""

import pandas as pd

from agentark.paper import pad_choices
from agentark.report import sentences
from agentark.report.charts import LABELS, numbered

CONTROL = ("samples, equal generations", "samples, equal traces")  # arms of ablation_data without any debate


def other_data(data: pd.DataFrame) -> pd.DataFrame:
    """The rows of ablation_data that are neither of the control, nor of a size of the training set, nor against the base:
    these have pictures of their own."""
    drawn = [*CONTROL, *numbered(data, "N questions").values()]
    aside = data["experiment"].isin(drawn) | data["experiment"].str.contains(", level ") | (data["baseline"] == "base")
    return data[~aside]


def controlled(data: pd.DataFrame) -> pd.DataFrame:
    """What debates teach beyond as many independent samples: the gains of the samples' students over the debates'."""
    rows = sentences.select(data, metric="accuracy_gain", baseline="study")
    return rows[rows["experiment"].isin(CONTROL)]


def control(data: pd.DataFrame) -> list[str]:
    """The same in words, a line a method and arm: what the paper does not ask."""
    return [
        f"{LABELS[r['method']]} on {r['experiment']} {sentences.verdict(r)} {LABELS[r['method']]} on the debates' traces "
        f"({sentences.signed(r)}, n = {r['n']})"
        for _, r in controlled(data).iterrows()
    ]


def choices(rewards: pd.DataFrame) -> pd.DataFrame:
    """The gains of choices inside PAD over the study's own, each under the name of what was chosen."""
    rows = rewards[rewards["baseline"] == "pad"]
    names = [
        f"{pad_choices.TITLES[r.experiment]}: {pad_choices.CHOICES[r.experiment][r.method]}" for r in rows.itertuples()
    ]
    return rows.assign(experiment=names, method="pad")


def talks(protocols: pd.DataFrame) -> list[str]:
    """What each protocol teaches at the same number of generations, and what it answers itself, against the debate (the
    debate against the vote), a line a protocol."""
    rows = sentences.select(protocols, metric="accuracy_gain")
    rows = rows[(rows["baseline"] == "debate") | ((rows["method"] == "debate") & (rows["baseline"] == "vote"))]
    told = []
    for (method, rival), pair in rows.groupby(["method", "baseline"], sort=False):
        own, taught = (pair[(pair["student"] != "") == student].iloc[0] for student in (False, True))
        told.append(
            f"a student of *{method}* {sentences.verdict(taught)} one of *{rival}* ({sentences.signed(taught)}, n = {taught['n']}); "
            f"*{method}* itself {sentences.verdict(own)} *{rival}* ({sentences.signed(own)})"
        )
    return told


def crowds(agents: pd.DataFrame) -> list[str]:
    """What more agents add to the debate and to its students, and the debate against the vote, a line each."""
    rows = sentences.select(agents, metric="accuracy_gain")
    rows = rows[rows["baseline"].isin(["vote", "study"])]
    return sentences.variant_findings(rows, numbered(rows, "N agents").values())

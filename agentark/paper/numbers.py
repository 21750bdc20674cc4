"""Read the paper's numbers and arrange them as tables."""

from pathlib import Path

import numpy as np
import pandas as pd

from agentark import StudyError
from agentark.schemas import Row, frame, read_table

GRID = [f"Table {i}" for i in range(8, 14)]
METHODS = ["sft", "rsft", "da", "pad"]
STUDENTS = ["Qwen3-0.6B", "Qwen3-1.7B", "Gemma-7B", "Llama3-8B-Instruct", "Qwen3-8B"]  # by size
TEACHERS = ["Qwen3-8B", "Gemma3-27B-it", "Qwen3-32B"]  # by size
TRAIN_SIZES = {
    "math": 500,
    "gsm8k": 7_473,
    "metamathqa": 151_000,
    "medmcqa": 183_000,
}  # questions, as stated in the paper
TEST_SIZES = {"gsm8k": 1_319, "medmcqa": 4_183}  # GSM8K's test part, MedMCQA's validation part; see `test_sizes`
PARTS = ["all", "in domain", "out of domain", "same subject", "other subject"]


class Published(Row):
    """One printed number. A field is empty if it does not apply or the paper does not state it."""

    table: str
    teacher: str
    student: str
    method: str
    variant: str
    train_task: str
    test_task: str
    metric: str
    value: float


def read(folder: Path) -> pd.DataFrame:
    """All published numbers. Raises StudyError that names an invalid row and its file or a repeated number."""
    rows = []
    for name in ("accuracy.csv", "others.csv"):
        try:
            rows += read_table(folder / name, Published)
        except StudyError as error:
            raise StudyError(f"{str(error).split(';')[0]}; restore it from git") from None
    table = frame(rows)
    twice = table[table.duplicated([c for c in table if c != "value"])]
    if len(twice):
        raise StudyError(f"{folder}: {' '.join(map(str, twice.iloc[0]))} appears twice; restore it from git")
    return table


def cells(published: pd.DataFrame) -> pd.DataFrame:
    """The trained accuracies of Tables 8 to 13 with their students' base, gain, domain and subject.

    *In domain*: trained and tested on the same data set, as in the paper. *Same subject*: both data sets are
    mathematics or both are medicine. Raises StudyError if a base is missing, or if some students have more cells than
    others: the means over students, used below, equal the means over cells only in a full grid.
    """
    grid = published[published["table"].isin(GRID)]
    base = grid[grid["method"] == "base"].set_index(["student", "test_task"])["value"]
    trained = grid[grid["method"] != "base"].reset_index(drop=True)
    for student, task in trained[["student", "test_task"]].drop_duplicates().itertuples(index=False):
        if (student, task) not in base.index:
            raise StudyError(
                f"data/published/accuracy.csv: no base accuracy of {student} on {task}; restore it from git"
            )
    for method, part in trained.groupby("method"):
        counts = part.groupby(["student", "test_task"]).size().unstack(fill_value=0)
        if counts.to_numpy().min() != counts.to_numpy().max():
            raise StudyError(f"data/published/accuracy.csv: cells of {method} are missing; restore it from git")
    trained["base"] = [base[key] for key in zip(trained["student"], trained["test_task"], strict=True)]
    trained["gain"] = trained["value"] - trained["base"]
    trained["domain"] = np.where(trained["train_task"] == trained["test_task"], "in domain", "out of domain")
    medicine = (trained["train_task"] == "medmcqa") == (trained["test_task"] == "medmcqa")
    trained["subject"] = np.where(medicine, "same subject", "other subject")
    return trained


def pick(table: pd.DataFrame, part: str) -> pd.DataFrame:
    return table if part == "all" else table[(table["domain"] == part) | (table["subject"] == part)]


# The other tables


def wide_table(table: pd.DataFrame) -> pd.DataFrame:
    """Tables 8 to 13, in per cent: test and training sets as columns; a base is the same for every training set."""
    base = table[table["method"] == "sft"].assign(method="base", value=lambda rows: rows["base"])
    rows = pd.concat([base, table]).sort_values("student", key=lambda s: s.map(STUDENTS.index), kind="stable")
    order = ["student", "teacher", "method"]
    found = rows.pivot_table(index=order, columns=["test_task", "train_task"], values="value", sort=False)
    return found[[(test, train) for test in TEST_SIZES for train in TRAIN_SIZES]]


def by_reward_model(published: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Table 4: mean over training sets of the gain in points, by policy, test set and reward model.

    `difference` is the larger reward model's gain minus the smaller one's; `se` is the binomial error of one accuracy.
    """
    rows = published[published["table"] == "Table 4"]
    means = rows.pivot_table(index=["student", "test_task"], columns="variant", values="value")
    base = table.groupby(["student", "test_task"])["base"].first().loc[means.index]
    n = means.index.get_level_values("test_task").map(TEST_SIZES)
    gains_ = means.sub(base, axis=0)
    return gains_.assign(difference=gains_["reward model Qwen3-8B"] - gains_["reward model Qwen3-0.6B"],
                         se=np.sqrt(base * (100 - base) / n))  # fmt: skip


def by_optimiser(published: pd.DataFrame) -> pd.DataFrame:
    """Table 5: accuracy with PPO and with GRPO on each training and test set, in per cent, and PPO minus GRPO."""
    rows = published[published["table"] == "Table 5"]
    found = rows.pivot_table(index=["test_task", "train_task"], columns="variant", values="value", sort=False)
    return found.assign(difference=found["PPO"] - found["GRPO"])


def two_step_table(published: pd.DataFrame) -> pd.DataFrame:
    """Table 7: accuracy in per cent after two steps; the column `base` of the paper has no training set."""
    rows = published[published["table"] == "Table 7"]
    return rows.pivot_table(index=["method", "test_task"], columns="train_task", values="value", sort=False)


def by_method(published: pd.DataFrame, source: str) -> pd.DataFrame:
    """A table of several metrics as printed: metrics as rows, methods as columns."""
    rows = published[published["table"] == source]
    return rows.pivot_table(index="metric", columns="method", values="value", sort=False)


def cost(published: pd.DataFrame) -> pd.DataFrame:
    """Table 6: GPUs, hours and GPU-hours for training an 8B student."""
    rows = published[published["table"] == "Table 6"]
    found = rows.pivot_table(index=["method", "variant"], columns="metric", values="value", sort=False)
    return found.assign(gpu_hours=found["h100_gpus"] * found["hours"])


def relative(table: pd.DataFrame) -> pd.DataFrame:
    """Mean gain in per cent of the base accuracy, by teacher and method."""
    rows = table[table["teacher"] != ""].assign(relative=table["gain"] / table["base"] * 100)
    return rows.pivot_table(index="teacher", columns="method", values="relative")[METHODS[1:]].loc[TEACHERS]

"""`make simulation-check`: the simulation of `agentark.plan.simulation` against debates on this machine's cores.

The speed of a core is fitted to the batches of FITTED, three runs on one core: one of them has small batches, one
summarises many prompts that share nothing. How much slower a core is while its neighbour works too is fitted to one run
on two cores, BESIDE. The other runs are then predicted from these numbers and token counts that are in git, so from other
debates than those that are measured. Measured is the CPU time of the busiest process, since other programs share the
cores. What others do to caches and memory changes CPU time too, by up to a half, so the first of FITTED runs before every
measurement, and a measurement is the median of the ratios to it, times its median. Results:
`reports/simulation_check.csv`.
"""

import itertools
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from agentark import finish, root
from agentark.debate.protocols import Debate
from agentark.debate.run import GROUP, run_debates
from agentark.engines import transformers
from agentark.engines.transformers import Transformers
from agentark.plan import pattern, simulation
from agentark.plan.simulation import Copy
from agentark.schemas import write_csv
from agentark.stage.parameters import parameters
from agentark.tasks import task

COUNTS = "data/leaderboard/homogeneous/given/traces-debate.parquet"  # 1,600 debates of the teacher
OUT = "reports/simulation_check.csv"
REPEATS = 3
Measured = tuple[float, pd.DataFrame]  # CPU seconds of the busiest process; calls


@dataclass(frozen=True)
class Run:
    """A setting: questions, agents, rounds, worker processes. Groups of questions are fewer than workers or at least twice
    as many, so that no two share a core (`parallel.crowded_workers`)."""

    questions: int
    agents: int
    rounds: int
    workers: int


FITTED = [Run(64, 5, 3, 1), Run(16, 5, 3, 1), Run(64, 5, 1, 1)]
BESIDE = Run(128, 5, 3, 2)
RUNS = [Run(128, 5, 3, 1), Run(64, 3, 2, 1), Run(128, 4, 1, 1), Run(128, 3, 3, 2), Run(256, 5, 2, 2)]
SEEDS = 8  # draws of debates, over which a prediction is the mean


def measured(run: Run, params: dict) -> Measured:
    """CPU seconds of the busiest process, and tokens with CPU seconds by call."""
    temperatures = params["debates"]["train"]["temperature"], params["debate"]["revision_temperature"]
    debate = Debate(run.agents, run.rounds, *temperatures, params["debate"]["order"])
    family = task(params["train_task"])
    questions = family.questions(run.questions, "validation", params["questions"]["seed"], family.levels)
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "processes"
        notes.mkdir()

        def clock() -> float:
            now = time.thread_time()
            with (notes / str(os.getpid())).open("a") as file:
                file.write(f"{now}\n")
            return now

        # Workers are forked, so they have the engine's clock too. Its seconds are then CPU time.
        with (
            mock.patch.object(transformers, "time", SimpleNamespace(perf_counter=clock)),
            mock.patch.dict(os.environ, AGENTARK_WORKERS=str(run.workers)),
        ):
            store = Path(folder) / "store"
            traces, seconds = run_debates(debate, questions, params["teacher"], store, 0, params["max_tokens"])
        spent = [np.ptp(np.loadtxt(file)) for file in notes.iterdir()]
    calls = pd.DataFrame([trace.model_dump() for trace in traces])
    return max(spent), calls.assign(seconds=[one.seconds for one in seconds])


def as_batch(requests: pd.DataFrame) -> pd.DataFrame:
    """Requests of a group's step as `engines.batching.filled` computes them, with columns `read` and `computed`.

    Every prompt is padded to the longest. The first agent of a question and each summary have a prefix of their own; if
    that is at most half of the rows, the others compute the end of their prompt alone.
    """
    longest, first = requests["read"].max(), requests["agent"] <= 1
    rest = min(pattern.OWN_BATCHED, longest) if 2 * first.sum() <= len(first) else longest
    return requests.assign(read=longest, computed=np.where(first, longest, rest))


def fitted(repeats: list[list[pd.DataFrame]]) -> Copy:
    """The speed of a core from the batches of runs on one core, of which each has several repeats.

    A batch is a round of a run, since a group of questions advances in step. Least squares with no negative coefficient,
    weighted so that relative errors count equally.
    """
    rows = []
    for calls in repeats:
        for step, own in calls[0].groupby("round"):
            own = as_batch(own.rename(columns={"prompt_tokens": "read", "completion_tokens": "written"}))
            attended = (own["written"] * (own["read"] + own["written"] / 2)).sum()
            took = np.median([one[one["round"] == step]["seconds"].sum() for one in calls])
            rows.append([own["computed"].sum(), own["written"].max(), attended, own["written"].sum(), took])
    *work, took = np.array(rows, float).T
    (token, fixed, kv, row), _ = nnls(np.stack(work, axis=1) / took[:, None], np.ones(len(took)))
    return Copy(token, fixed, kv=kv, row=row, slots=Transformers.rows)


def predicted(run: Run, copy: Copy, cap: int, counts: pd.DataFrame) -> float:
    """Seconds of a run by the simulation: a group of questions takes one process, batch after batch."""
    shape, seconds = pattern.shape_of(counts, run.agents, cap), []
    for seed in range(SEEDS):
        asked, groups = pattern.requests(shape, run.questions, run.agents, run.rounds, seed=seed), []
        for _, own in asked.groupby(asked["question"] // GROUP):
            steps = [as_batch(step) for _, step in own.groupby("step")]
            batches = itertools.chain(*simulation.steps_of(pd.concat(steps), copy, Transformers.rows))
            groups.append(np.array([sum(ends[-1] for ends in batches)]))
        seconds.append(simulation.run([groups], run.workers).seconds)
    return float(np.mean(seconds))


def main() -> None:
    params, pairs = parameters("mini"), []
    measured(FITTED[0], params)  # loads the model
    for _ in range(REPEATS):
        for run in [*FITTED[1:], BESIDE, *RUNS]:
            pairs.append((run, measured(FITTED[0], params), measured(run, params)))
            print(run, pairs[-1][2][0] / pairs[-1][1][0], flush=True)
    write_csv(checked(pairs, params["max_tokens"], pd.read_parquet(root() / COUNTS)), root() / OUT)


def checked(pairs: list[tuple[Run, Measured, Measured]], cap: int, counts: pd.DataFrame) -> pd.DataFrame:
    """The table, from pairs of a run: the first of FITTED just before it, and itself."""
    unit = np.median([seconds for _, (seconds, _), _ in pairs])
    others = [
        [
            calls.assign(seconds=calls["seconds"] * unit / reference)
            for run, (reference, _), (_, calls) in pairs
            if run == one
        ]
        for one in FITTED[1:]
    ]
    copy = fitted([[calls for _, (_, calls), _ in pairs], *others])
    ratios: dict[Run, list[float]] = {FITTED[0]: [seconds / unit for _, (seconds, _), _ in pairs]}
    for run, (reference, _), (seconds, _) in pairs:
        ratios.setdefault(run, []).append(seconds / reference)
    beside = np.median(ratios[BESIDE]) * unit / predicted(BESIDE, copy, cap, counts)
    rows = []
    for run, found in ratios.items():
        slower = beside if run.workers > 1 else 1.0
        took, guess = np.median(found) * unit, slower * predicted(run, copy, cap, counts)
        spread = {"measured": took, "least": min(found) * unit, "most": max(found) * unit, "repeats": len(found)}
        speed = {"token": copy.token, "step": copy.fixed, "kv": copy.kv, "row": copy.row, "beside": slower}
        use = {"fitted": run in (*FITTED, BESIDE)}
        rows.append({**vars(run), **use, **spread, "predicted": guess, "ratio": guess / took, **speed})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    finish(main)

"""`make simulation-check`: compare the simulation of `agentark.plan.simulation` with debates on this machine's cores.

The speed of a core is fitted to the batches of FITTED, three runs on one core: one has small batches, another has many
summary prompts without a shared prefix. The slowdown of a core while its neighbour is busy is fitted to one run on two
cores, FITTED_TWO_CORES. The other runs are then predicted from these parameters and from token counts in git, which
come from other debates than the measured ones. The CPU time of the busiest process is measured, because other programs
share the cores. Their use of caches and memory also changes the CPU time, by up to a half. Therefore the first run of
FITTED precedes every measurement, and a result is the median of the ratios to it, times its median. Results:
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
Measurement = tuple[float, pd.DataFrame]  # CPU seconds of the busiest process; calls


@dataclass(frozen=True)
class Run:
    """Questions, agents, rounds and worker processes. There are fewer groups of questions than workers, or at least
    twice as many, so that no two groups share a core (`parallel.workers_for`)."""

    questions: int
    agents: int
    rounds: int
    workers: int


FITTED = [Run(64, 5, 3, 1), Run(16, 5, 3, 1), Run(64, 5, 1, 1)]
FITTED_TWO_CORES = Run(128, 5, 3, 2)
RUNS = [Run(128, 5, 3, 1), Run(64, 3, 2, 1), Run(128, 4, 1, 1), Run(128, 3, 3, 2), Run(256, 5, 2, 2)]
SEEDS = 8  # a prediction is the mean over so many draws of debates


def measure(run: Run, params: dict) -> Measurement:
    """CPU seconds of the busiest process; tokens and CPU seconds of each call."""
    temperatures = params["debates"]["train"]["temperature"], params["debate"]["revision_temperature"]
    debate = Debate(run.agents, run.rounds, *temperatures, params["debate"]["order"])
    family = task(params["train_task"])
    questions = family.questions(run.questions, "validation", params["questions"]["seed"], family.levels)
    with tempfile.TemporaryDirectory() as folder:
        clock_files = Path(folder) / "processes"
        clock_files.mkdir()

        def clock() -> float:
            now = time.thread_time()
            with (clock_files / str(os.getpid())).open("a") as file:
                file.write(f"{now}\n")
            return now

        # Workers are forked, so they inherit the patched clock: the engine's seconds are CPU time.
        with (
            mock.patch.object(transformers, "time", SimpleNamespace(perf_counter=clock)),
            mock.patch.dict(os.environ, AGENTARK_WORKERS=str(run.workers)),
        ):
            store = Path(folder) / "store"
            traces, seconds = run_debates(debate, questions, params["teacher"], store, 0, params["max_tokens"])
        cpu_seconds = [np.ptp(np.loadtxt(file)) for file in clock_files.iterdir()]
    calls = pd.DataFrame([trace.model_dump() for trace in traces])
    return max(cpu_seconds), calls.assign(seconds=[call.seconds for call in seconds])


def as_batch(requests: pd.DataFrame) -> pd.DataFrame:
    """Requests of one step of a group as `engines.batching.filled` computes them, with columns `read` and `computed`.

    Every prompt is padded to the longest. The first agent of a question and each summary have their own prefix. If they
    are at most half of the rows, only the end of the prompt is computed for the other rows.
    """
    longest, first = requests["read"].max(), requests["agent"] <= 1
    rest = min(pattern.OWN_BATCHED, longest) if 2 * first.sum() <= len(first) else longest
    return requests.assign(read=longest, computed=np.where(first, longest, rest))


def fit_copy(runs: list[list[pd.DataFrame]]) -> Copy:
    """The speed of a core, fitted to the batches of runs on one core. Each run is a list of repeats.

    A batch is one round of a run, because a group of questions advances in step. The fit is non-negative least squares,
    weighted so that relative errors count equally.
    """
    rows = []
    for repeats in runs:
        for step, batch in repeats[0].groupby("round"):
            batch = as_batch(batch.rename(columns={"prompt_tokens": "read", "completion_tokens": "written"}))
            attended = (batch["written"] * (batch["read"] + batch["written"] / 2)).sum()
            seconds = np.median([calls[calls["round"] == step]["seconds"].sum() for calls in repeats])
            rows.append([batch["computed"].sum(), batch["written"].max(), attended, batch["written"].sum(), seconds])
    *work, seconds = np.array(rows, float).T
    (token, fixed, kv, row), _ = nnls(np.stack(work, axis=1) / seconds[:, None], np.ones(len(seconds)))
    return Copy(token, fixed, kv=kv, row=row, slots=Transformers.rows)


def predict(run: Run, copy: Copy, cap: int, counts: pd.DataFrame) -> float:
    """Seconds of a run in the simulation: one process runs a group of questions, one batch after another."""
    shape, seconds = pattern.shape_of(counts, run.agents, cap), []
    for seed in range(SEEDS):
        requests, groups = pattern.requests(shape, run.questions, run.agents, run.rounds, seed=seed), []
        for _, group in requests.groupby(requests["question"] // GROUP):
            steps = [as_batch(step) for _, step in group.groupby("step")]
            batches = itertools.chain(*simulation.steps_of(pd.concat(steps), copy, Transformers.rows))
            groups.append(np.array([sum(ends[-1] for ends in batches)]))
        seconds.append(simulation.run([groups], run.workers).seconds)
    return float(np.mean(seconds))


def main() -> None:
    params, pairs = parameters("mini"), []
    measure(FITTED[0], params)  # loads the model
    for _ in range(REPEATS):
        for run in [*FITTED[1:], FITTED_TWO_CORES, *RUNS]:
            pairs.append((run, measure(FITTED[0], params), measure(run, params)))
            print(run, pairs[-1][2][0] / pairs[-1][1][0], flush=True)
    write_csv(compare(pairs, params["max_tokens"], pd.read_parquet(root() / COUNTS)), root() / OUT)


def compare(pairs: list[tuple[Run, Measurement, Measurement]], cap: int, counts: pd.DataFrame) -> pd.DataFrame:
    """The table of measured and predicted seconds. Each run comes with two measurements: the first run of FITTED just
    before it, and the run itself."""
    unit = np.median([seconds for _, (seconds, _), _ in pairs])
    others = [
        [
            calls.assign(seconds=calls["seconds"] * unit / reference)
            for run, (reference, _), (_, calls) in pairs
            if run == fitted
        ]
        for fitted in FITTED[1:]
    ]
    copy = fit_copy([[calls for _, (_, calls), _ in pairs], *others])
    ratios: dict[Run, list[float]] = {FITTED[0]: [seconds / unit for _, (seconds, _), _ in pairs]}
    for run, (reference, _), (seconds, _) in pairs:
        ratios.setdefault(run, []).append(seconds / reference)
    slowdown = np.median(ratios[FITTED_TWO_CORES]) * unit / predict(FITTED_TWO_CORES, copy, cap, counts)
    rows = []
    for run, own in ratios.items():
        factor = slowdown if run.workers > 1 else 1.0
        measured, predicted = np.median(own) * unit, factor * predict(run, copy, cap, counts)
        spread = {"measured": measured, "least": min(own) * unit, "most": max(own) * unit, "repeats": len(own)}
        speed = {"token": copy.token, "step": copy.fixed, "kv": copy.kv, "row": copy.row, "beside": factor}
        use = {"fitted": run in (*FITTED, FITTED_TWO_CORES)}
        rows.append({**vars(run), **use, **spread, "predicted": predicted, "ratio": predicted / measured, **speed})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    finish(main)

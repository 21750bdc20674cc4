"""`make gpu-bench`: what the parts of scale `full` take on one GPU, by each route there is. Results: `reports/gpu.csv`.

Checkpoints are of real shape but random weights: speed and memory do not depend on what a model has learnt. All is
bfloat16: as autocast over float32 weights where all weights are trained, as the weights themselves elsewhere. Every
measurement has a process of its own, since Unsloth changes TRL for the whole process and memory is to be counted from
zero. One that fails says why in its row, and the rest goes on; the table is written after each, so a stopped run keeps
what it has. A value is the median of `n` repeats in one run, with the least and the most. Rows that a run does not come
to stay as an earlier one measured them, each with its card and versions; those never measured say "not measured".
`--model` measures one model's rows. `--rehearse` passes through the same code on the CPU, with tiny shapes; its numbers
mean nothing.

MFU (model FLOPs utilisation) is FLOP/s over the card's matrix rate, which is measured here too. The FLOPs of a sequence
of T tokens are those of arXiv 2204.02311, appendix B: 6 N T + 12 L H Q T^2 to train all N weights of L layers with H
heads of width Q; 4 N T + 6 A T + 12 L H Q T^2 to train A adapter weights, as frozen weights need no gradient of their
own; 2 N T + 4 L H Q T^2 to generate, prompt included. Padding and recomputing count as no work done. The embeddings are
tied, so that N counts the output matrix once and the look-up, which costs no multiplication, not at all.
"""

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from agentark import StudyError, finish, root
from agentark.plan.gpu_routes import (
    REAL,
    REFERENCE,
    REHEARSAL,
    SHAPES,
    Size,
    build,
    generate,
    imitate,
    matrix_rate,
    practise,
)
from agentark.schemas import write_csv

UNITS = {
    matrix_rate: {"matrix rate": "TFLOP/s"},
    imitate: {
        "R-SFT tokens/s": "tokens/s",
        "R-SFT MFU": "",
        "R-SFT peak memory": "GB",
        "R-SFT loss": "nats a token",
    },
    practise: {f"GRPO step: {part}": "s" for part in ("generating", "scoring", "update")},
    generate: {"generation tokens/s": "tokens/s", "generation MFU": ""},
}
ROUTES = [
    (imitate, "TRL"),
    (imitate, "TRL + PEFT"),
    (imitate, "Unsloth"),
    (generate, "transformers"),
    (generate, "vLLM"),
    (practise, "TRL"),  # takes longest
]
KEY = ("what", "model", "route")
MACHINE = ("card", "driver", "versions", "command")


def rows_of(out: Path) -> dict[tuple[str, str, str], dict]:
    """Every row of the table by what, model and route, in order, as it stands in `out`; else not measured."""
    rows = {("matrix rate", "", "torch"): "TFLOP/s"}
    for model in SHAPES:
        for function, route in ROUTES:
            rows |= {(what, model, route): unit for what, unit in UNITS[function].items()}
            if function is imitate and route in REFERENCE:
                rows["R-SFT loss, difference to " + REFERENCE[route], model, route] = "nats a token"
    numbers = {column: [""] for column in ("value", "least", "most")}
    table = pd.read_csv(out, keep_default_na=False, na_values=numbers).to_dict("records") if out.is_file() else []
    earlier = {tuple(row[k] for k in KEY): row for row in table}
    return {
        key: earlier.get(key)
        or dict(zip(KEY, key, strict=True))
        | {"value": None, "unit": unit, "least": None, "most": None, "n": 0, "status": "not measured"}
        | dict.fromkeys(MACHINE, "")
        for key, unit in rows.items()
    }


def attempt(function: Callable, *arguments) -> dict[str, list[float]] | str | None:
    """What `function` returns, or in one line why it failed."""
    try:
        return function(*arguments)
    except Exception as error:  # out of memory, a package that does not suit the card, ...: the other rows go on
        reason = next(iter(str(error).splitlines()), "")[:200]
        return reason if isinstance(error, StudyError) else f"{type(error).__name__}: {reason}"


def alone(function: Callable, *arguments) -> dict[str, list[float]] | str | None:
    """`attempt` in a process of its own."""
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(attempt, function, *arguments).result()
    except BrokenProcessPool:
        return "its process was killed (by the system, for memory?)"


def measure(size: Size, run: Callable, machine: dict[str, str], out: Path) -> None:
    """Measure all of `size`, through `run` (`alone` or `attempt`); rewrite the table at `out` after each measurement."""
    rows = rows_of(out)

    def enter(what: str, model: str, route: str, measured: list[float] | str) -> None:
        row = rows[what, model, route]
        if isinstance(measured, str):
            row |= {"value": None, "least": None, "most": None, "n": 0, "status": f"not measured: {measured}"}
        else:
            row |= {
                "value": statistics.median(measured),
                "least": min(measured),
                "most": max(measured),
                "n": len(measured),
                "status": "measured",
            }
        row |= machine
        shown = row["status"] if row["value"] is None else f"{row['value']:.4g} {row['unit']}"
        print(f"{model} {route}: {what}: {shown}".strip(), flush=True)

    outcome = run(matrix_rate, size)
    rate = None if isinstance(outcome, str) else 1e12 * statistics.median(outcome["matrix rate"])
    enter("matrix rate", "", "torch", outcome if rate is None else outcome["matrix rate"])
    for model, shape in size.shapes.items():
        curves: dict[str, list[float]] = {}
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            failure = run(build, shape, folder)
            for function, route in ROUTES:
                outcome = failure or run(function, size, folder, route)
                for what in UNITS[function]:
                    measured = outcome if isinstance(outcome, str) else outcome[what]
                    if what.endswith("MFU") and not isinstance(measured, str):
                        measured = [r / rate for r in measured] if rate else "the matrix rate is not measured"
                    enter(what, model, route, measured)
                if function is imitate:
                    curves[route] = measured
                    if reference := REFERENCE.get(route):
                        both = curves[route], curves[reference]
                        missing = next((c for c in both if isinstance(c, str)), None)
                        apart = missing or [abs(a - b) for a, b in zip(*both, strict=True)]
                        enter(f"R-SFT loss, difference to {reference}", model, route, apart)
                write_csv(pd.DataFrame(rows.values()), out)


def described(card: str, command: str) -> dict[str, str]:
    """The columns MACHINE: where and how a row was measured."""
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = ""
    packages = []
    for name in ("torch", "transformers", "trl", "peft", "unsloth", "bitsandbytes", "vllm"):
        with contextlib.suppress(PackageNotFoundError):
            packages.append(f"{name} {version(name)}")
    return dict(zip(MACHINE, (card, driver, " ".join(packages), command), strict=True))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m agentark.plan.bench_gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SHAPES, help="measure this model's rows alone")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes on the CPU; needs --out")
    parser.add_argument("--out", type=Path, help="the table to write; reports/gpu.csv if not given")
    chosen = parser.parse_args(arguments)
    if chosen.rehearse and chosen.out is None:
        parser.error("--rehearse needs --out: its numbers do not belong into reports/")
    from agentark.stage.run import KERNEL_ENVIRONMENT

    os.environ.update(KERNEL_ENVIRONMENT)
    if chosen.rehearse:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    out = chosen.out or root() / "reports" / "gpu.csv"

    import torch

    size = REHEARSAL if chosen.rehearse else REAL
    if chosen.model:
        size = replace(size, shapes={chosen.model: size.shapes[chosen.model]})
    if chosen.rehearse:
        measure(size, attempt, described(platform.machine(), "python -m agentark.plan.bench_gpu --rehearse"), out)
    elif torch.cuda.is_available():
        command = f"python -m agentark.plan.bench_gpu --model {chosen.model}" if chosen.model else "make gpu-bench"
        measure(size, alone, described(torch.cuda.get_device_name(0), command), out)
    else:
        rows = rows_of(out)
        write_csv(pd.DataFrame(rows.values()), out)
        measured = sum(row["status"] == "measured" for row in rows.values())
        print(f"no CUDA GPU here: nothing is measured; {out.name} has {measured} of {len(rows)} rows from earlier runs")
    return 0


if __name__ == "__main__":
    finish(main)

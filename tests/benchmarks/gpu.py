"""`make gpu-bench`: speed and memory of the parts of scale `full` on one GPU, per route. Results: `reports/gpu.csv`.

Checkpoints have real shapes but random weights: speed and memory do not depend on the values of weights. Arithmetic is
in bfloat16: autocast over float32 weights where all weights are trained, bfloat16 weights elsewhere. Every measurement
runs in its own process, because Unsloth patches TRL for the entire process and peak memory must start from zero. A
failed measurement writes its reason into its row, and the others continue. Measurements run in order of importance, and
the table is written after each, so a stopped run keeps its finished rows: `AGENTARK_HOURS=0.2` stops after 12 minutes.
A value is the median of `n` repeats in one run, with the minimum and the maximum. Rows that a run does not reach keep
their earlier measurement with its card and versions, or "not measured". `--model` measures only the rows of one model.
`--rehearse` runs the same code on the CPU with tiny shapes; its numbers are meaningless.

MFU (model FLOPs utilisation) is FLOP/s divided by the card's matrix rate, which is measured here too. The FLOPs of a
sequence of T tokens follow arXiv 2204.02311, appendix B: 6 N T + 12 L H Q T^2 to train all N weights of L layers with
H heads of width Q; 4 N T + 6 A T + 12 L H Q T^2 to train A adapter weights, because frozen weights need no gradient; 2
N T + 4 L H Q T^2 to generate, prompt included. Padding and recomputation are not counted. The embeddings are tied: N
counts the output matrix once; the look-up needs no multiplication and is not counted.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from agentark import Stopped, StudyError, deadline, finish, first_line, root
from agentark.distill import launch
from agentark.parallel import isolated
from agentark.schemas import write_csv
from tests.benchmarks.gpu_routes import (
    REAL,
    REHEARSAL,
    SHAPES,
    Size,
    build,
    generate,
    matrix_rate,
    train_fast,
    train_grpo,
    train_sft,
)

SFT_UNITS = {
    "R-SFT tokens/s": "tokens/s",
    "R-SFT MFU": "",
    "R-SFT peak memory": "GB",
    "R-SFT loss": "nats per token",
}
UNITS = {
    train_sft: SFT_UNITS,
    train_fast: SFT_UNITS,
    generate: {"generation tokens/s": "tokens/s", "generation MFU": ""},
    train_grpo: {f"GRPO step: {part}": "s" for part in ("generating", "scoring", "update")}
    | {"GRPO step: share generating": ""},
}
ADAPTERS: list[
    tuple[Callable, str, Any]
] = [  # function, route, and the settings it changes or the prefix of its engine
    (train_sft, "TRL + PEFT", {}),
    (train_fast, "TRL + PEFT, kernels", {}),
    (train_sft, "Unsloth", {"trainer": "unsloth"}),
]
REST: list[tuple[Callable, str, Any]] = [
    (generate, "transformers", ""),
    (generate, "continuous batching", "paged:"),
    (generate, "vLLM", "vllm:"),
    (train_grpo, "TRL", {}),
    (train_grpo, "TRL, continuous batching", {"generator": "paged"}),
    (train_grpo, "TRL, vLLM", {"generator": "vllm"}),
    (train_sft, "TRL", {"lora_rank": 0}),
]
# route -> the route whose loss curve it is compared with
REFERENCE = {"TRL + PEFT": "TRL", "TRL + PEFT, kernels": "TRL + PEFT", "Unsloth": "TRL + PEFT"}
KEY = ("what", "model", "route")
MACHINE = ("card", "driver", "versions", "command")


def result(measured: list[float] | str) -> dict[str, Any]:
    """The columns of a measurement, or the reason why it is missing."""
    if isinstance(measured, str):
        why = f": {measured}" if measured else ""
        return {"value": None, "least": None, "most": None, "n": 0, "status": f"not measured{why}"}
    value, least, most = statistics.median(measured), min(measured), max(measured)
    return {"value": value, "least": least, "most": most, "n": len(measured), "status": "measured"}


def rows_of(out: Path) -> dict[tuple, dict[str, Any]]:
    """Every row of the table, by what, model and route: from `out` if it is there, otherwise "not measured"."""
    units = {("matrix rate", "", "torch"): "TFLOP/s"}
    for model in SHAPES:
        for function, route, _ in ADAPTERS + REST:
            units |= {(what, model, route): unit for what, unit in UNITS[function].items()}
            if UNITS[function] is SFT_UNITS and route in REFERENCE:
                units["R-SFT loss, difference to " + REFERENCE[route], model, route] = "nats per token"
    empty = result("") | dict.fromkeys(MACHINE, "")
    rows = {key: {**dict(zip(KEY, key, strict=True)), "value": None, "unit": u, **empty} for key, u in units.items()}
    empty_values = {column: [""] for column in ("value", "least", "most")}
    table = pd.read_csv(out, keep_default_na=False, na_values=empty_values).to_dict("records") if out.is_file() else []
    return rows | {key: row for row in table if (key := tuple(row[k] for k in KEY)) in rows}


def attempt(names: Iterable[str], function: Callable, *arguments: Any, **call: Any) -> dict[str, Any]:
    """The result of `function`; if it fails, the reason in one line for each of `names`."""
    try:
        return function(*arguments, **call)
    except Stopped:
        raise
    except Exception as error:  # out of memory, a package that does not support the card, ...
        reason = first_line(error)[:200]
        return dict.fromkeys(names, reason if isinstance(error, StudyError) else f"{type(error).__name__}: {reason}")


def in_own_process(function: Callable, **call: Any) -> dict[str, Any]:
    """`function(**call)`; in its own process if there is a GPU."""
    return isolated(function, **call) if torch.cuda.is_available() else function(**call)


def measured(function: Callable, options: Any, size: Size, folder: Path) -> dict[str, Any]:
    """One measurement, in its own process if there is a GPU: training started by `launch.run_all`, or generation."""
    if function is generate:
        return in_own_process(generate, prefix=options, size=size, folder=folder)
    settings = (size.grpo if function is train_grpo else size.sft).but(**options)
    return launch.run_all(function, [dict(settings=settings, size=size, folder=folder)])[0]


def measure(size: Size, machine: dict[str, str], out: Path) -> None:
    """Measure everything in `size`; rewrite the table at `out` after each measurement."""
    rows = rows_of(out)

    def record(model: str, route: str, results: dict[str, Any]) -> None:
        for what, values in results.items():
            row = rows[what, model, route]
            row |= result(values) | machine
            text = row["status"] if row["value"] is None else f"{row['value']:.4g} {row['unit']}"
            print(f"{model} {route}: {what}: {text}".strip(), flush=True)
        write_csv(pd.DataFrame(rows.values()), out)

    results = in_own_process(matrix_rate, size=size)
    record("", "torch", results)
    rate = 1e12 * statistics.median(results["matrix rate"])
    curves: dict[tuple[str, str], Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for model, (function, route, options) in sections([*size.shapes]):
            deadline.check()
            if not (checkpoint := Path(folder, model)).is_dir():
                build(size.shapes[model], checkpoint)
            results = attempt(UNITS[function], measured, function, options, size, checkpoint)
            for what, values in results.items():
                if what.endswith("MFU") and not isinstance(values, str):
                    results[what] = [flops / rate for flops in values]
            record(model, route, results)
            if "R-SFT loss" in results:
                curves[model, route] = results["R-SFT loss"]
                for one, other in REFERENCE.items():
                    if route in (one, other) and {(model, one), (model, other)} <= curves.keys():
                        differences = distance(curves[model, one], curves[model, other])
                        record(model, one, {f"R-SFT loss, difference to {other}": differences})


def sections(models: list[str]) -> list[tuple[str, tuple]]:
    """Model and route of each measurement: LoRA for every model, then the other routes, model by model."""
    adapters = [(model, route) for route in ADAPTERS for model in models]
    return adapters + [(model, route) for model in models for route in REST]


def distance(one: list[float] | str, other: list[float] | str) -> list[float] | str:
    """Absolute difference of two loss curves at each step, or the reason why one of them is missing."""
    missing = next((curve for curve in (one, other) if isinstance(curve, str)), None)
    return missing or [abs(a - b) for a, b in zip(one, other, strict=True)]


def described(card: str, command: str) -> dict[str, str]:
    """Values of the columns MACHINE: where and how a row is measured."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True) if shutil.which(query[0]) else None
    driver = done.stdout.partition("\n")[0] if done else ""
    installed = {d.name: d.version for d in distributions()}
    names = ("torch", "transformers", "trl", "peft", "unsloth", "bitsandbytes", "vllm", "liger_kernel", "flash_attn")
    versions = " ".join(f"{name} {installed[name]}" for name in names if name in installed)
    return dict(zip(MACHINE, (card, driver, versions, command), strict=True))


def main() -> None:
    command = "python -m tests.benchmarks.gpu"
    parser = argparse.ArgumentParser(prog=command, description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SHAPES, help="measure only this model")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes on the CPU; needs --out")
    parser.add_argument("--out", type=Path, help="table to write (default: reports/gpu.csv)")
    arguments = parser.parse_args()
    if arguments.rehearse:
        if arguments.out is None:
            parser.error("--rehearse needs --out: its numbers do not belong in reports/")
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    deadline.begin()
    out, size = arguments.out or root() / "reports" / "gpu.csv", REHEARSAL if arguments.rehearse else REAL
    if arguments.model:
        size = replace(size, shapes={arguments.model: size.shapes[arguments.model]})
    if arguments.rehearse:
        measure(size, described(platform.machine(), f"{command} --rehearse"), out)
    elif torch.cuda.is_available():
        invocation = f"{command} --model {arguments.model}" if arguments.model else "make gpu-bench"
        measure(size, described(torch.cuda.get_device_name(0), invocation), out)
    else:
        rows = rows_of(out)
        write_csv(pd.DataFrame(rows.values()), out)
        count = sum(row["status"] == "measured" for row in rows.values())
        print(f"no CUDA GPU here: nothing is measured; {out.name} has {count} of {len(rows)} rows from earlier runs")


if __name__ == "__main__":
    finish(main)

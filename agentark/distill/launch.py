"""Run trainings in separate processes: all trainings on GPUs, and data-parallel ones (`accelerate launch`).

The call and its result are exchanged as files in a folder; `python -m agentark.distill.launch FOLDER` runs one such
process. It imports Unsloth before the libraries that Unsloth patches. Only the GPUs that a process should use are
visible to it, because the trainer otherwise spreads a batch over all visible GPUs.
"""

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import pickle
import queue
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from agentark import Stopped, StudyError, parallel, root
from agentark.distill.settings import SFT, Recipe, Settings

PRELOADED = ("agentark.distill.students", "agentark.distill.step_credit", "agentark.distill.training")


def unsloth_obstacle(lora_rank: int) -> str:
    """The reason why Unsloth cannot train here, or "" if it can."""
    import torch

    if lora_rank == 0:
        return "Unsloth is for LoRA, and lora_rank is 0"
    if not torch.cuda.is_available():
        return "no GPU here"
    if not importlib.util.find_spec("unsloth"):
        return "unsloth is not installed; `pip install -e .[gpu]` adds it"
    return ""


def route(chosen: Settings) -> tuple[bool, str]:
    """Whether to train with Unsloth, and a line that states the choice.

    trainer: "unsloth" selects Unsloth; "auto" and "peft" do not, since it was slower: 7,496 tokens/s, with PEFT 14,453
    (Qwen3-0.6B, R-SFT, one H200, reports/gpu.csv). Raises StudyError if the requested route is not available here.
    """
    import torch

    lora_rank = chosen.lora_rank
    if chosen.four_bit:
        if lora_rank == 0:
            raise StudyError("four_bit: 4-bit weights cannot be trained directly; set lora_rank above 0")
        if not (torch.cuda.is_available() and importlib.util.find_spec("bitsandbytes")):
            raise StudyError("four_bit: needs a GPU and bitsandbytes (`pip install bitsandbytes`); set it to false")
    if chosen.trainer != "unsloth":
        return False, "trainer: " + (f"PEFT, LoRA of rank {lora_rank}" if lora_rank else "transformers, all weights")
    sharded = isinstance(chosen, SFT) and chosen.accelerate
    if why := unsloth_obstacle(lora_rank) or ("the weights are divided among processes" if sharded else ""):
        raise StudyError(f"trainer unsloth: {why}; set trainer to auto")
    return True, f"trainer: Unsloth, LoRA of rank {lora_rank}"


def configuration(chosen: Settings | Recipe) -> str:
    """The path of a training's Accelerate configuration, "" without one. Raises StudyError if the file is missing."""
    name = chosen.accelerate if isinstance(chosen, SFT) else ""
    if name and not (root() / name).is_file():
        raise StudyError(f"sft.accelerate: {root() / name}: no such file; see docs/scaling/fsdp2.yaml")
    return str(root() / name) if name else ""


def run_all(function: Callable, calls: Iterable[dict[str, Any]], processes: int = 1) -> list:
    """Run the training `function(**call)` for every call (a seed) and return the results in the order of the calls.

    Each call contains `settings`, of the same class in all calls. processes: data-parallel processes per call.
    On GPUs as many calls run at once as the GPUs allow. Without a GPU and with processes=1, one call per core runs at
    once, or all calls if there are fewer than two per core; with more processes, one call runs after another, as with
    an Accelerate configuration, which sets the number of processes. Prints the route first.
    Raises StudyError in one line for any failure.
    """
    calls = list(calls)
    counts = [
        call["settings"].optimiser_steps(call["method"])
        if isinstance(call["settings"], Recipe)
        else call["settings"].optimiser_steps
        for call in calls
    ]
    with parallel.progress(sum(counts), f"{len(calls)} trainings", "step"):
        results = _run_all(function, calls, processes)
    for call in calls:
        if "out" in call:
            forget(call["out"])
    return results


def forget(out: Path) -> None:
    """Delete the checkpoints of the finished training whose result is in `out`."""
    for provenance in out.rglob("provenance.json"):
        shutil.rmtree(checkpoints_of(json.loads(provenance.read_text())), ignore_errors=True)


def checkpoints_of(provenance: dict[str, Any]) -> Path:
    """The folder for the checkpoints of the training with this `provenance.json`.

    Its name is a hash, so no training continues from another's checkpoint. It is outside the outputs of all stages.
    """
    return root() / "data" / "checkpoints" / hashlib.sha256(json.dumps(provenance).encode()).hexdigest()[:32]


def _run_all(function: Callable, calls: list[dict[str, Any]], processes: int) -> list:
    import torch

    settings = calls[0]["settings"]
    unsloth, line = route(settings.policy if isinstance(settings, Recipe) else settings)
    print(line, flush=True)
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(",")
    if file := configuration(settings):
        shared = root() / "data" / "checkpoints"
        return [run_in_processes(function, call, accelerate_command(file), "", unsloth, shared) for call in calls]
    if not torch.cuda.is_available():
        if processes == 1:
            import_trainers()  # before the workers fork
            return parallel.run_all(function, calls, crowded=True)
        groups = [""]
    else:
        if processes > len(gpus):
            raise StudyError(f"processes: {processes} are more than the {len(gpus)} GPUs; each process needs one")
        groups = [",".join(gpus[i : i + processes]) for i in range(0, len(gpus) - processes + 1, processes)]
    free: queue.Queue[str] = queue.Queue()
    for group in groups:
        free.put(group)

    def one(call: dict[str, Any]):
        group = free.get()
        try:
            return run_in_processes(function, call, side_by_side(processes), group, unsloth)
        finally:
            free.put(group)

    with ThreadPoolExecutor(len(groups)) as threads:
        return list(threads.map(one, calls))


def train_seeds(
    train: Callable,
    seeds: Sequence[int],
    out: Path,
    processes: int = 1,
    labels: dict[str, str] | None = None,
    **call: Any,
) -> pd.DataFrame:
    """Run one training per seed, each saved to `out`/seed-N. A callable value of `call` is called with the seed.

    Returns the learning curves, one row per logged step, with `labels` and the seed as columns.
    """
    calls = [
        {name: value(seed) if callable(value) else value for name, value in call.items()}
        | {"out": out / f"seed-{seed}", "seed": seed}
        for seed in seeds
    ]
    curves = run_all(train, calls, processes)
    labelled = zip(curves, seeds, strict=True)
    return pd.concat([pd.DataFrame(curve).assign(**labels or {}, seed=seed) for curve, seed in labelled])


def import_trainers() -> None:
    """Import the training libraries, which takes ten seconds; workers that are forked afterwards inherit them."""
    for name in PRELOADED:
        importlib.import_module(name)


def side_by_side(processes: int) -> list[str]:
    """The command that starts a module in data-parallel processes on this machine."""
    if processes == 1:
        return [sys.executable, "-m"]
    kind = ["--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    port = ["--main_process_port", "0"]  # 0: a free port
    many = ["accelerate.commands.launch", "--num_processes", str(processes), *kind, *port, "-m"]
    return [sys.executable, "-m", *many]


def accelerate_command(file: str) -> list[str]:
    """The command that starts a module with the Accelerate configuration `file`, on all of its machines.

    AGENTARK_LAUNCHER is a command that starts another one on each machine, such as `srun --ntasks-per-node=1`.
    """
    starter = shlex.split(os.environ.get("AGENTARK_LAUNCHER", ""))
    return [*starter, sys.executable, "-m", "accelerate.commands.launch", "--config_file", file, "-m"]


def run_in_processes(
    function: Callable,
    call: dict[str, Any],
    command: Sequence[str],
    gpus: str,
    unsloth: bool,
    shared: Path | None = None,
) -> Any:
    """Run one call in processes that `command` starts, relay their output and return the result.

    shared: a folder that all machines can read, for the files of the call; None: a temporary folder of this machine.
    Raises StudyError on failure.
    """
    import torch

    if shared:
        shared.mkdir(parents=True, exist_ok=True)
    device = {} if torch.cuda.is_available() else {"ACCELERATE_USE_CPU": "true"}
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": gpus} if gpus else device)
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        place = Path(folder)
        (place / "call").write_bytes(pickle.dumps((unsloth, pickle.dumps((function, call)))))
        with (place / "log").open("w") as log:
            process = subprocess.Popen(
                [*command, "agentark.distill.launch", folder],
                env=environment, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
            try:
                for line in process.stdout or ():
                    print(line, end="", flush=True)
                failed = process.wait()
            finally:
                process.terminate()
        if (place / "error").is_file():
            raise pickle.loads((place / "error").read_bytes())
        if failed:
            print((place / "log").read_text()[-4000:], file=sys.stderr)
            raise StudyError(f"{function.__name__}: a training process exited with {failed}; see its output above")
        return pickle.loads((place / "result").read_bytes())


def main(folder: Path) -> int:
    """Run the call in `folder` in this process, and write its result or its error in one line to `folder`."""
    unsloth, packed = pickle.loads((folder / "call").read_bytes())
    if unsloth:
        os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
        os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(folder / "compiled"))  # default: the working folder
        with contextlib.suppress(ImportError, NotImplementedError):  # handled in training.with_unsloth
            importlib.import_module("unsloth")
    from accelerate import PartialState

    state = PartialState(cpu="ACCELERATE_USE_CPU" in os.environ)
    if not state.is_main_process:
        sys.stdout = io.StringIO()  # print messages once
    try:
        function, call = pickle.loads(packed)
        result = function(**call)
    except Exception as error:
        traceback.print_exc()
        words = str(error).splitlines()[0] if str(error) else ""
        plain = isinstance(error, StudyError | Stopped)
        reported = error if plain else StudyError(f"{function.__name__}: {type(error).__name__}: {words}")
        with contextlib.suppress(FileExistsError), (folder / "error").open("xb") as file:  # keep the first error only
            pickle.dump(reported, file)
        return 1
    if state.is_main_process:
        (folder / "result").write_bytes(pickle.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

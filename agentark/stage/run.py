"""A notebook as a stage: `python -m agentark.stage 03_debate split=train`.

Names and types of parameters and the outputs' paths are checked before anything runs. The notebook writes to temporary
paths beside its outputs' paths. The outputs are moved into place only after all cells have run.
"""

import argparse
import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from agentark import Stopped, StudyError, deadline, exit_status, first_line, redacted, root
from agentark.files import staged, write_json
from agentark.parallel import TERMINAL
from agentark.stage import windows
from agentark.stage.outputs import label, places, recorded_in
from agentark.stage.parameters import declared, label_of, parameters, read, read_params, resolve

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+(?::[\w.-]+)?")
SOCKET = 80  # maximum length of the path of a kernel's socket folder; Linux allows 107 characters for a socket's path
# A cluster sends SIGTERM to all processes. The kernel and its workers ignore it; the stage handles it, see `deadline`.
KERNEL = (
    "import runpy, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "runpy.run_module('ipykernel_launcher', run_name='__main__')"
)
KERNEL_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # one single-threaded process per core: two-threaded ones stall when they share a core
    "MALLOC_MMAP_THRESHOLD_": "4000000000",  # keep large tensors in the heap: page faults cost up to 4x in training
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",  # scale `mini` uses the hub only for questions that are there, see `on_hub`
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONHASHSEED": "0",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "PYTHONWARNINGS": "ignore",
}


@contextlib.contextmanager
def recording_usage(note: Path):
    """Write to `note` the seconds of the block, the processor time of its child processes and the peak of their total
    memory, also if the block fails. Processor time and memory are sampled; memory shared by forked processes counts in
    each. Yields a dictionary, whose entries are also written to `note`."""
    start, peak, done = time.perf_counter(), [0], threading.Event()
    spent: dict[int, float] = {}
    facts: dict[str, Any] = {}

    def sample() -> None:
        memory = 0
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                memory += child.memory_info().rss
                spent[child.pid] = sum(child.cpu_times()[:2])  # user and system time so far
        peak[0] = max(peak[0], memory)

    def keep_sampling() -> None:
        while not done.wait(0.5):
            sample()

    sample()
    earlier = dict(spent)  # of children that existed before the block
    threading.Thread(target=keep_sampling, daemon=True).start()
    try:
        yield facts
    finally:
        done.set()
        core_seconds = sum(spent.values()) - sum(earlier.values())
        seconds = {"seconds": time.perf_counter() - start, "core_seconds": core_seconds}
        write_json(seconds | {"peak_mb": peak[0] / 2**20} | facts, note)


def run(name: str, given: dict[str, str], scale: str = "") -> None:
    """Check the parameters, run one notebook, and publish its outputs and its HTML page (in reports/notebooks).

    given: parameters from the command line; scale: a scale of params.yaml, "" for the one selected there. Raises
    StudyError for a faulty parameter or a failed cell, and Stopped at the end of AGENTARK_HOURS or after a signal.
    """
    top = root()
    deadline.begin()
    if not re.fullmatch(r"(\w[\w-]*/)?\w[\w-]*", name):
        raise StudyError(
            f"{name!a:.80}: not a notebook's name; give it without .ipynb, as in 03_debate or paper/claims"
        )
    notebook = top / "notebooks" / f"{name}.ipynb"
    if not notebook.is_file() and len(below := [*notebook.parent.glob(f"*/{name}.ipynb")]) == 1:  # plan: choices/plan
        notebook, name = below[0], label_of(below[0])
    params = parameters(scale) if scale else read_params(top / "params.yaml")
    values = resolve(notebook, params, given)
    if name in windows.FIRST:
        windows.check(params, values)
    outs = [k for k in values if k == "out" or k.startswith("out_")]
    if not outs:
        raise StudyError(f"{name}: no `out` in its parameters cell; add one, since a stage needs a path to write to")
    defaults = {k: default for k, (_, default) in declared(notebook).items()}
    # A run is named after its first output that is not at the notebook's default path.
    first = next((o for o in outs if values[o] != defaults[o]), outs[0])
    called = label(top, name, values[first], defaults[first])
    executed = top / "data" / "runs" / f"{called}.ipynb"
    record = executed.with_suffix(".json")
    # With `page` the notebook is also a report, published a second time without its code.
    named = {k: values[k] for k in (*outs, "page") if k in values}
    found = places(top, name, named, [defaults[k] for k in named])
    pages = [top / "reports" / "notebooks" / f"{called}.html", *(found[k] for k in ("page",) if k in found)]
    executed.parent.mkdir(parents=True, exist_ok=True)
    hub = {"HF_HUB_OFFLINE": "0"} if params.get("scale") != "mini" or any(map(on_hub, values.get("tasks", ()))) else {}
    # Progress bars go to the terminal, not into the notebook.
    terminal = os.ttyname(sys.stderr.fileno()) if sys.stderr.isatty() else ""
    os.environ.update(KERNEL_ENVIRONMENT | hub | {TERMINAL: terminal})
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(top), os.environ.get("PYTHONPATH", "")]))
    earlier = recorded_in(record)
    with (
        # This includes publishing the outputs: a signal after the last cell must not lose them.
        deadline.stopping_on_signals(notebook.stem),
        locked(record),
        recording_usage(record) as facts,
        staged([*(found[o] for o in outs), *pages]) as temporary,
    ):
        facts["outs"] = earlier  # also if this run fails: outputs of earlier runs still belong to this notebook
        written_to = dict(zip(outs, (str(p.relative_to(top)) for p in temporary), strict=False))
        try:
            deadline.check()
            execute(notebook, executed, values | written_to)
        except Stopped as stop:
            finished = len([*(top / values["store"]).glob("??/*.json")]) if "store" in values else 0
            batches = f", with {finished:,} finished batches in {values['store']}" if finished else ""
            raise Stopped(
                f"{notebook.stem}: {deadline.reason()}; {stop}{batches}; run the same command again to go on"
            ) from None
        real = {written_to[o]: found[o].relative_to(top).as_posix() for o in outs}
        write_pages(read(executed), real, temporary[len(outs) :])
        facts["outs"] = sorted({*earlier, *(path.relative_to(top).as_posix() for path in found.values())})


def write_pages(ran: Any, real: dict[str, str], pages: list[Path]) -> None:
    """Write an executed notebook's page, and a second one without code. real: temporary path -> an output's path."""
    from agentark.stage.pages import notebook_page

    for page, code in zip(pages, (True, False), strict=False):
        page.write_text(notebook_page(ran, real, code), encoding="utf-8")


def on_hub(task: str) -> bool:
    """Whether a task is the name of a data set on the hub, optionally with a configuration: org/name:config."""
    return HUB_NAME.fullmatch(task) is not None and not (root() / task.partition(":")[0]).exists()


@contextlib.contextmanager
def locked(record: Path):
    """Lock a run's record. Raises StudyError if another process runs the same notebook for the same outputs."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(record.with_suffix(".lock"), timeout=0):
            yield
    except Timeout:
        raise StudyError(f"{record.stem}: another run is in progress; wait for its end, or stop it") from None


def execute(notebook: Path, executed: Path, values: dict[str, Any]) -> None:
    """Run a notebook with papermill; its printed text and the executed notebook contain no secrets.

    Raises StudyError, in one line, if a cell fails or the kernel ends, and Stopped if a cell raises Stopped.
    """
    import papermill  # imported only after the notebook is read (see parameters.read) and its parameters are checked
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillException, PapermillExecutionError
    from traitlets.config import Config

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # the error raised below reports a dead kernel
    logging.getLogger("traitlets").setLevel(logging.CRITICAL)
    papermill.iorw.papermill_io.register("redacted:", RedactedFiles())
    with kernel_folder() as folder:
        settings = {
            "KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"},  # no open port
            # Otherwise an idle kernel takes three seconds to end.
            "NotebookClient": {"shutdown_kernel": "immediate"},
        }
        try:
            papermill.execute_notebook(
                notebook,
                f"redacted:{executed}",
                values,
                cwd=notebook.parent,
                progress_bar=False,
                stdout_file=RedactedStream(),
                kernel_name="python3",
                language="python",  # also for a notebook without a language
                config=Config(settings),
            )
        except PapermillExecutionError as error:
            if error.ename == Stopped.__name__:
                raise Stopped(error.evalue) from None
            reason = str(error.evalue).strip().splitlines() or [""]
            raise StudyError(
                f"{notebook.stem}: {error.ename}: {reason[0][:1000]} (the failed notebook is kept: {executed})"
            ) from None
        except (DeadKernelError, CellTimeoutError, PapermillException, RuntimeError) as error:
            raise StudyError(
                f"{notebook.stem}: the kernel ended before the notebook's last cell ({first_line(error)}; was it "
                "killed for lack of memory?); finished work is kept: run the same command again"
            ) from None


@contextlib.contextmanager
def kernel_folder():
    """A temporary folder for a kernel's sockets and files, in which `python3` is this interpreter.

    A kernel `python3` that the user has installed is another Python, without the study's packages. If the path of the
    default folder for temporary files is too long for a socket, /tmp is used.
    """
    place = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(dir=place if len(place) < SOCKET - 20 else "/tmp") as folder:
        spec = {"argv": [sys.executable, "-c", KERNEL, "-f", "{connection_file}"], "language": "python"}
        write_json(spec | {"display_name": "Python 3"}, Path(folder) / "kernels" / "python3" / "kernel.json")
        used = {"JUPYTER_PATH": folder, "JUPYTER_RUNTIME_DIR": f"{folder}/runtime", "IPYTHONDIR": f"{folder}/ipython"}
        earlier = {name: os.environ.get(name) for name in used}
        os.environ.update(used)
        try:
            yield folder
        finally:
            for name, value in earlier.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


class RedactedFiles:
    """papermill's output handler: a local file, written atomically after each cell, without secrets."""

    def read(self, path: str) -> str:
        return Path(path.removeprefix("redacted:")).read_text(encoding="utf-8")

    def listdir(self, path: str) -> list[str]:
        return os.listdir(path.removeprefix("redacted:"))

    def write(self, content: str, path: str) -> None:
        file = Path(path.removeprefix("redacted:"))
        part = file.with_name(f".{file.name}")
        part.write_text(redacted(content), encoding="utf-8")
        part.replace(file)

    def pretty_path(self, path: str) -> str:
        return path.removeprefix("redacted:")


class RedactedStream:
    """Standard output without secrets."""

    def write(self, text: str) -> None:
        sys.stdout.write(redacted(text))

    def flush(self) -> None:
        sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m agentark.stage", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="a notebook below notebooks/, without .ipynb")
    parser.add_argument("parameters", nargs="*", metavar="name=value")
    parser.add_argument("--scale", default="", help="a scale of params.yaml, in place of the one chosen there")
    chosen = parser.parse_args(arguments)

    def checked() -> None:
        for pair in chosen.parameters:
            if "=" not in pair:
                raise StudyError(f"{chosen.name}: {pair!a:.80} is not of the form name=value")
        names = [pair.split("=", 1)[0] for pair in chosen.parameters]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise StudyError(f"{chosen.name}: {repeated[0]!a:.80} is given twice; give it once")
        run(chosen.name, dict(pair.split("=", 1) for pair in chosen.parameters), chosen.scale)

    return exit_status(checked)

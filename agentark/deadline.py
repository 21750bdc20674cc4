"""Stop a run at the end of its hours (AGENTARK_HOURS), or after SIGTERM or Ctrl-C.

All processes of a stage check the end between batches, steps or parts, so that work in flight is finished and kept.
"""

import contextlib
import math
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from agentark import Stopped, StudyError

HOURS = "AGENTARK_HOURS"  # set by the user: the maximum hours of a command
END = "AGENTARK_END"  # set by the first process: the end of these hours, in seconds since 1970
STOP = "AGENTARK_STOP"  # set by a stage: the file that its signal handler creates
COMMANDS = ("dvc", "make")  # all stages that one of them starts share its hours
GRACE = 60  # seconds for requests in flight


def begin() -> None:
    """Set the end of this command and of its child processes, if AGENTARK_HOURS is set and no end is set yet.

    The hours count from the start of the outermost `make` or `dvc` above this process, since its stages are separate
    processes. Raises StudyError unless AGENTARK_HOURS is a number above 0.
    """
    given = os.environ.get(HOURS, "").strip()
    if not given:
        return
    try:
        hours = float(given)
    except ValueError:
        hours = math.nan
    if not (0 < hours < math.inf):
        raise StudyError(
            f"{HOURS}={given!a:.80} is not a number of hours above 0; set it as in {HOURS}=1.5, or unset it"
        )
    if END not in os.environ:
        os.environ[END] = str(started() + 3600 * hours)


def started() -> float:
    """Start time of the outermost command in COMMANDS above this process, or of this process, in seconds since 1970."""
    import psutil

    own = psutil.Process()
    start = own.create_time()
    for process in own.parents():
        with contextlib.suppress(psutil.Error):
            if any(Path(word).name in COMMANDS for word in process.cmdline()[:3]):  # python -m dvc, python .../dvc
                start = process.create_time()
    return start


def left() -> float:
    """Seconds until the run has to stop: infinite without a limit, negative after the end or a signal."""
    ends = [float(os.environ[END])] if END in os.environ else []
    with contextlib.suppress(KeyError, FileNotFoundError):
        ends.append(os.stat(os.environ[STOP]).st_mtime)
    return min(ends, default=math.inf) - time.time()


def check(late: float = 0) -> None:
    """Raise Stopped if the run had to stop at least `late` seconds ago."""
    if left() <= -late:
        raise Stopped("what is finished is kept")


def reason() -> str:
    """Why the run stops."""
    if Path(os.environ.get(STOP, "")).is_file():
        return f"stopped by {Path(os.environ[STOP]).read_text()}"
    hours = float(os.environ[HOURS])
    passed = hours + (time.time() - float(os.environ[END])) / 3600
    return f"stopped after {passed:.3g} h ({HOURS}={hours:g})"


@contextlib.contextmanager
def stopping_on_signals(name: str) -> Iterator[None]:
    """In the block the first SIGTERM or Ctrl-C stops the run like its end; the next one raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ[STOP] = f"{folder}/stop"

        def stop(number: int, _) -> None:
            file = Path(folder, "stop")
            if file.exists():
                raise KeyboardInterrupt
            file.write_text(signal.Signals(number).name)
            line = f"{name}: {signal.Signals(number).name}: stops after what is in flight; again: at once\n"
            with contextlib.suppress(OSError):
                os.write(2, line.encode())  # a handler must not use a buffered stream

        earlier = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
            del os.environ[STOP]

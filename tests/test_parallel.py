import os
import time
from pathlib import Path

import pytest

from agentark.parallel import each


def gather(folder: Path, n: int) -> int:
    """How many processes were here at once: waits until there are `n`, or for some seconds."""
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + 20
    while (met := len(list(folder.iterdir()))) < n and time.monotonic() < end:
        time.sleep(0.05)
    return met


@pytest.mark.parametrize(("crowded", "met"), [(True, [3, 3, 3]), (False, [2, 2, 2])])
def test_three_trainings_on_two_cores_take_turns(tmp_path, monkeypatch, crowded, met):
    monkeypatch.setenv("AGENTARK_WORKERS", "2")
    assert each(gather, [dict(folder=tmp_path, n=met[0])] * 3, crowded) == met

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings
from small_study import call, copy_of_project

os.environ.setdefault("AGENTARK_WORKERS", "1")  # pytest already runs one process per core

settings.register_profile("study", max_examples=40, deadline=None, derandomize=True, database=None)
settings.load_profile("study")


def pytest_collection_modifyitems(items: list[pytest.Item]):
    """Run the longest files first, so that all workers end at the same time."""
    longest = ["study", "rehearsal", "determinism", "grid", "interruption", "training", "gpu_bench"]
    late = ["changes", "plan"]  # these need the study, which another worker runs meanwhile
    order = {f"test_{name}.py": index - len(longest) for index, name in enumerate(longest)}
    order |= {f"test_{name}.py": 1 for name in late}
    items.sort(key=lambda item: order.get(item.path.name, 0))


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """The completed small study. One worker runs it for all; a test that changes it works on a copy."""
    folder = tmp_path_factory.getbasetemp() / "study"
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent.parent / "study"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            unfinished = copy_of_project(folder.with_suffix(".making"))
            call(unfinished, "dvc", "repro")
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="module")
def copied(study, tmp_path_factory) -> Path:
    """A copy of the small study, for the tests of one file."""
    return Path(shutil.copytree(study, tmp_path_factory.mktemp("copied") / "study", symlinks=True))

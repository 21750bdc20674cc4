import subprocess
from pathlib import Path

import pytest
from hypothesis import settings
from small_study import copy_of_project, environment

settings.register_profile("study", max_examples=40, deadline=None, derandomize=True, database=None)
settings.load_profile("study")


def pytest_collection_modifyitems(items: list[pytest.Item]):
    """The longest files first, so that all workers end at the same time: the whole studies take as long as all others."""
    longest = ["study", "rehearsal", "grid", "interruption", "training", "grader", "conformance", "gpu_bench"]
    order = {f"test_{name}.py": place for place, name in enumerate(longest)}
    items.sort(key=lambda item: order.get(item.path.name, len(longest)))


@pytest.fixture(scope="session")
def studies(tmp_path_factory) -> list[Path]:
    """Two clean runs of the small study, side by side on two cores."""
    folders = [copy_of_project(tmp_path_factory.mktemp(f"study-{i}")) for i in range(2)]
    running = [
        subprocess.Popen(
            ["dvc", "repro"], cwd=f, env=environment(f), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for f in folders
    ]
    outputs = [process.communicate()[0] for process in running]
    for process, output in zip(running, outputs, strict=True):
        assert process.returncode == 0, f"exit status {process.returncode}\n{output[-1500:]}"
    return folders

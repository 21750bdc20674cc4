"""Two clean runs of the small study give identical files; a debate gives identical traces on one core and on two."""

import subprocess

import pytest
import yaml
from examples import MAX_TOKENS
from small_study import PROJECT, SMALL, copy_of_project, digests, environment, shrunk

from agentark.debate.protocols import Debate
from agentark.debate.run import GROUP, run_debates
from agentark.tasks import TASKS

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Two runs of all stages with one seed, one method and debates of two splits, in parallel on one core each."""
    fewer = SMALL | {"seeds": [0], "methods": ["rsft"], "debates": {"hard": None}}
    params = shrunk(yaml.safe_load((PROJECT / "params.yaml").read_text()), fewer)
    folders = [copy_of_project(tmp_path_factory.mktemp(f"study-{i}"), params) for i in range(2)]
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


def test_two_clean_runs_give_the_same_bytes(studies):
    compared = (
        "data/questions",
        "data/debates",
        "data/extracted",
        "data/students",
        "data/reward_models",
        "data/predictions",
    )
    runs = [digests(s, *compared, "reports") for s in studies]
    assert len(runs[0]) > 40
    pages = {
        name for name in runs[0] if name in ("reports/index.html", "reports/notebooks/10_report.html")
    }  # these show running times
    assert {k: v for k, v in runs[0].items() if k not in pages} == {k: v for k, v in runs[1].items() if k not in pages}


def test_a_debate_does_not_depend_on_the_number_of_cores(tmp_path, monkeypatch):
    questions = TASKS["equation"].questions(2 * GROUP + 10, "validation", 0)
    protocol, traces = Debate(3, 2, 1.0, 0.2, "shared"), []
    for cores in "12":
        monkeypatch.setenv("AGENTARK_WORKERS", cores)
        traces.append(run_debates(protocol, questions, "data/models/teacher", tmp_path / cores, 0, MAX_TOKENS)[0])
    assert traces[0] == traces[1] and len(traces[0]) > 3 * len(questions)

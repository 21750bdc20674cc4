"""The Slurm example, with stand-ins for Slurm, Ray and DVC: what it starts and how it stops; the Kubernetes example."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from agentark import root

NODE = "node-7.long.name"
# Like DVC: SIGINT is ignored while a stage runs, and the exit status depends on the stage's.
DVC = f"""#!{sys.executable}
import signal, subprocess, sys
stage = subprocess.Popen([sys.executable, "stage.py"])
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.exit(3 if stage.wait() == 75 else 4)
"""
STAGE = """
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path("stopped").touch()
    time.sleep(0.5)  # what is in flight
    sys.exit(75)
signal.signal(signal.SIGINT, stop)
pathlib.Path("started").touch()
time.sleep(60)
"""


@pytest.fixture
def job(tmp_path):
    """The process of the job script, in its own folder."""
    for folder in ("bin", ".venv/bin", "docs/scaling"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    (tmp_path / "docs/scaling/fsdp2.yaml").write_text((root() / "docs/scaling/fsdp2.yaml").read_text())
    (tmp_path / "stage.py").write_text(STAGE)
    for name, text in {"dvc": DVC, "ray": "#!/bin/bash\n", "srun": '#!/bin/bash\necho "$@" > srun.txt\n'}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    slurm = {"SLURM_NNODES": "2", "SLURMD_NODENAME": NODE, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    process = subprocess.Popen(
        ["bash", root() / "docs/scaling/slurm.sh"], cwd=tmp_path, env=os.environ | slurm, start_new_session=True
    )
    yield process
    process.kill()


def test_a_slurm_job_that_receives_sigterm_waits_for_its_stage(job, tmp_path):
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 3 and (tmp_path / "stopped").exists()
    assert f"--exclude={NODE} ray start" in (tmp_path / "srun.txt").read_text()
    assert yaml.safe_load((tmp_path / "fsdp2-job.yaml").read_text())["num_machines"] == 2


def test_kubernetes_nodes_have_gpus_and_no_replica_limits_without_autoscaling():
    spec = yaml.safe_load((root() / "docs/scaling/kuberay.yaml").read_text())["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"]
        assert "enableInTreeAutoscaling" in spec or not {"minReplicas", "maxReplicas"} & set(group)

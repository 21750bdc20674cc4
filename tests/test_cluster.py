"""Generation on a Ray cluster of three one-core nodes: same bytes, lost and added nodes, requests that kill workers."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from agentark import StudyError, root
from agentark.debate.protocols import Debate
from agentark.debate.run import greedy_answers, run_debates
from agentark.engines import Request, Store, engine
from agentark.models.chat import solve_prompt
from agentark.schemas import Trace
from agentark.stage import pipeline
from agentark.tasks import TASKS

ray = pytest.importorskip("ray", reason="ray is not installed; `make test-long` installs it")
from ray.cluster_utils import Cluster  # noqa: E402

from agentark.engines import cluster  # noqa: E402

pytestmark = pytest.mark.long
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
TEACHER = "data/models/teacher"
QUESTIONS = TASKS["equation"].questions(300, "test", 0)
DEBATE = Debate(3, 2, 1.0, 0.2, "shared")


@pytest.fixture(scope="module")
def nodes():
    """A cluster of three nodes, started outside the project's folder. Tests remove and add nodes."""
    with contextlib.chdir("/"):
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        for _ in range(2):
            started.add_node(num_cpus=1)
    ray.init(address=started.address, log_to_driver=False, configure_logging=False)
    yield started
    cluster.POOL.clear()
    ray.shutdown()
    started.shutdown()


def traces_of(model: str, folder: Path, questions=QUESTIONS) -> tuple[list[Trace], float]:
    engine.cache_clear()
    start = time.perf_counter()
    traces, _ = run_debates(DEBATE, questions, model, folder, 0, 72)
    return traces, time.perf_counter() - start


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[list[Trace], Path]:
    """The same debate without Ray."""
    folder = tmp_path_factory.mktemp("plain")
    return traces_of(TEACHER, folder)[0], folder


def replies(folder: Path) -> dict[str, list[tuple]]:
    """The finished batches of a store, without their durations."""
    store = Store(folder)
    return {
        path.stem: [
            (r.text, r.prompt_tokens, r.completion_tokens, r.finish_reason) for r in store.read(path.stem) or ()
        ]
        for path in folder.rglob("*.json")
    }


def test_a_debate_with_ray_equals_one_without(nodes, plain, tmp_path):
    traces, _ = traces_of(f"ray:{TEACHER}", tmp_path)
    assert traces == plain[0] and replies(tmp_path) == replies(plain[1])


def test_lost_and_added_nodes_change_no_result_and_no_batch_is_generated_twice(nodes, plain, tmp_path):
    written = []
    write = Store.write

    def recorded_write(store, key, *rest):
        written.append(key)
        write(store, key, *rest)

    def replace_a_node():
        while len(written) < 5:
            time.sleep(0.05)
        last_node = nodes.list_all_nodes[-1]
        nodes.remove_node(last_node, allow_graceful=False)
        nodes.add_node(num_cpus=1)

    replacer = threading.Thread(target=replace_a_node)
    replacer.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "write", recorded_write)
        traces, _ = traces_of(f"ray:{TEACHER}", tmp_path)
    replacer.join()
    assert traces == plain[0] and replies(tmp_path) == replies(plain[1])
    assert len(written) == len(set(written)) == len(replies(tmp_path))


def test_results_are_the_same_after_a_worker_is_killed(nodes, plain, tmp_path):
    def kill_a_worker():
        while True:
            workers = [
                p for p in psutil.process_iter(["cmdline"]) if "ray::Worker" in " ".join(p.info["cmdline"] or ())
            ]
            if workers and len(list(tmp_path.rglob("*.json"))) > 3:
                os.kill(workers[0].pid, signal.SIGKILL)
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill_a_worker, daemon=True)
    killer.start()
    traces, _ = traces_of(f"ray:{TEACHER}", tmp_path)
    assert traces == plain[0] and replies(tmp_path) == replies(plain[1])
    assert not killer.is_alive()


def test_interrupted_debate_without_ray_resumes_on_ray(nodes, plain, tmp_path):
    shutil.copytree(plain[1], tmp_path / "half")
    for path in sorted((tmp_path / "half").rglob("*.json"))[::2]:
        path.unlink()
    traces, _ = traces_of(f"ray:{TEACHER}", tmp_path / "half")
    assert traces == plain[0] and replies(tmp_path / "half") == replies(plain[1])


def test_several_models_give_the_same_answers_as_without_ray(nodes, tmp_path):
    models = [TEACHER, "data/models/llama-small", "data/models/qwen3-small"]
    questions = {"test": QUESTIONS[:70]}
    engine.cache_clear()
    plain, on_ray = (
        greedy_answers([f"{prefix}{model}" for model in models], questions, tmp_path / (prefix or "plain"), 72)
        for prefix in ("", "ray:")
    )
    for one, other in zip(plain, on_ray, strict=True):
        assert one["test"][0] == other["test"][0]


class Poisoned:
    """An engine that on one request exits its process, or raises an error and fails from then on, as CUDA does."""

    fingerprint = "poisoned"

    def __init__(self, failure):
        self.failure = failure

    def fail(self):
        if self.failure == "exits":
            os._exit(1)
        os.environ["BROKEN"] = "yes"
        raise RuntimeError("CUDA error: device-side assert triggered")

    def batches(self, requests):
        return [list(range(i, min(i + 4, len(requests)))) for i in range(0, len(requests), 4)]

    def run(self, batches):
        for number, (requests, _) in enumerate(batches):
            if "BROKEN" in os.environ or any("poison" in r.messages[-1]["content"] for r in requests):
                self.fail()
            yield number, [cluster.Reply(r.messages[-1]["content"], 1, 1, "stop", 0.0) for r in requests]


def end_workers() -> None:
    """Kill the Ray workers that this process started, because they occupy all cores of the cluster."""
    while cluster.POOL:
        free = cluster.POOL.pop().free
        while not free.empty():
            ray.kill(free.get()[0])


@pytest.fixture(params=["exits", "raises"])
def poisoned(nodes, monkeypatch, request):
    """Replace the engine of the workers by Poisoned."""
    failure = request.param

    class Worker(cluster.Worker):
        def fingerprint(self, name):
            return Poisoned.fingerprint

        def batches(self, name, requests):
            return Poisoned(failure).batches(requests)

        def run(self, name, batches):
            yield from Poisoned(failure).run(batches)

    end_workers()
    monkeypatch.setattr(cluster, "Worker", Worker)
    engine.cache_clear()
    yield f"ray:{TEACHER}"
    end_workers()
    engine.cache_clear()


def test_request_that_kills_workers_is_reported_and_the_others_are_answered(poisoned, tmp_path, capsys):
    texts = [f"question {i}" if i != 5 else "poison in a question" for i in range(12)]
    requests = [Request(solve_prompt(text), 0.0, 8, 0) for text in texts]
    results = Store(tmp_path).generate(engine(poisoned), requests)
    assert [r.text for r in results] == [text if "poison" not in text else "" for text in texts]
    assert [r.finish_reason for r in results].count("refused") == 1
    assert "lost over the request 'poison in a question'" in capsys.readouterr().out


@pytest.mark.parametrize("poisoned", ["raises"], indirect=True)
def test_run_stops_after_more_failing_requests_than_the_limit(poisoned, tmp_path):
    requests = [Request(solve_prompt(f"poison {i}"), 0.0, 8, 0) for i in range(4)]
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(StudyError, match=r"RuntimeError: CUDA .* as over 1 others"),
    ):
        patch.setattr(cluster, "ASIDE", 1)
        Store(tmp_path).generate(engine(poisoned), requests)


GPUS = """
import sys
import ray
from agentark.engines import cluster

ray.init("local", num_cpus=8, num_gpus=8, include_dashboard=False, log_to_driver=False, configure_logging=False)

class Worker(cluster.Worker):
    def fingerprint(self, name):
        return f"{name} on {len(ray.get_gpu_ids())} GPUs of {id(self)}"

ray.cloudpickle.register_pickle_by_value(__import__("sys").modules["__main__"])
cluster.Worker, cluster.memory = Worker, lambda ray: 80e9
large, small = (f"vllm:{sys.argv[1]}/{name}" for name in ("qwen3-32b", "qwen3-8b"))
pool = cluster.pool(large)
print(pool.size, pool.unit, cluster.Cluster(large).fingerprint.split(" of ")[0])
print(cluster.Cluster(small).fingerprint.split(" of ")[0], pool.size)
loaded = {model for _, model in pool.free.queue}
print(sorted(loaded))
cluster.POOL[0].each = 1
try:
    cluster.Cluster(large)
except cluster.StudyError as error:
    print(error)
"""


def test_model_too_large_for_one_gpu_uses_several_gpus_of_the_cluster(tmp_path):
    """Ray is configured with GPUs that do not exist, and sparse files replace the weights."""
    shared = {"model_type": "qwen3", "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960}
    shapes = {"qwen3-32b": (32.8, 5120, 64, 64), "qwen3-8b": (8.2, 4096, 36, 32)}
    for name, (billions, hidden, layers, heads) in shapes.items():
        (tmp_path / name).mkdir()
        own = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
        (tmp_path / name / "config.json").write_text(json.dumps(shared | own))
        with (tmp_path / name / "model.safetensors").open("wb") as file:
            file.truncate(int(2e9 * billions))
    done = subprocess.run([sys.executable, "-c", GPUS, str(tmp_path)], capture_output=True, text=True, cwd=root())
    first, second, loaded, error = done.stdout.replace(f"{tmp_path}/", "").splitlines()
    assert first == "4 GPU vllm:qwen3-32b on 2 GPUs" and second == "vllm:qwen3-8b on 2 GPUs 4"
    assert loaded == "['', 'vllm:qwen3-32b', 'vllm:qwen3-8b']" and "needs 2 GPUs, but the workers" in error


def test_study_error_of_a_worker_is_raised_as_study_error(nodes):
    with pytest.raises(StudyError, match="no model here"):
        engine("ray:data/models/nobody")


def test_run_without_an_address_starts_its_own_cluster(nodes):
    """Another cluster runs on this machine; a run that joined it would end when that cluster ends."""
    code = "from agentark.engines import cluster; print(cluster.connect().get_runtime_context().gcs_address)"
    env = {name: value for name, value in os.environ.items() if name != cluster.ADDRESS}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root(), env=env)
    assert done.returncode == 0 and done.stdout.strip() != nodes.address


def test_pipeline_stages_run_as_ray_tasks(nodes, tmp_path, monkeypatch, capsys):
    """The nodes share the folder, because all of them are on this machine."""
    end_workers()
    write_command = "python -c \"import os; open('cell${item}.txt', 'w').write(os.environ['AGENTARK_WORKERS'])\""
    cell_stage = {"cmd": write_command, "wdir": "../..", "outs": ["cell${item}.txt"]}
    failing_stage = {"cmd": "python -c \"raise SystemExit('no data')\"", "wdir": "../.."}
    stages = {"cell": {"foreach": [0, 1, 2, 3], "do": cell_stage}, "bad": failing_stage}
    (tmp_path / "notebooks" / "grid").mkdir(parents=True)
    (tmp_path / "notebooks" / "grid" / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (tmp_path / "params.yaml").write_text("")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    monkeypatch.setattr(pipeline, "root", lambda: tmp_path)
    repro, cores = pipeline.on_ray()
    cells = [f"cell@{i}" for i in range(4)]
    assert cores >= 2 and pipeline.run("grid", cells, repro, cores)
    assert len(list(tmp_path.glob("cell*.txt"))) == len(cells)
    assert not pipeline.run("grid", ["bad"], repro, cores) and "no data" in capsys.readouterr().out
    monkeypatch.setattr(pipeline, "root", lambda: tmp_path / "elsewhere")
    succeeded, output = pipeline.on_ray()[0]("grid", cells[0], 1)
    assert not succeeded and "put it into a folder that all machines share" in output

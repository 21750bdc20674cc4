"""The workers of a Ray cluster, with a fake Ray: the resources they request, their working folder and their errors."""

from types import SimpleNamespace

import pytest

from agentark import Stopped, StudyError, root
from agentark.engines import Request, cluster


class FakeRay:
    """A cluster that reports the given resources one after another, and then the last ones every time."""

    def __init__(self, *resources: dict[str, int]):
        self.resources, self.requested = list(resources), []

    def cluster_resources(self):
        return self.resources.pop(0) if len(self.resources) > 1 else self.resources[0]

    def get(self, value):
        return value

    def remote(self, **options):
        self.requested.append(options)

        class Kind:
            @staticmethod
            def remote(*_):
                return 80e9

        return lambda _: Kind


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.01)
    monkeypatch.setattr(cluster.vllm, "cards", lambda name, memory, available: 2)
    monkeypatch.setenv(cluster.ADDRESS, "head:6379")


def test_a_driver_that_starts_before_the_gpus_waits_for_them(capsys):
    ray = FakeRay({"CPU": 8}, {"CPU": 8}, {"CPU": 72, "GPU": 8})
    pool = cluster.Pool(ray, "vllm:large")
    assert (pool.unit, pool.each, pool.size) == ("GPU", 2, 4)
    assert ray.requested[-1]["num_gpus"] == 2
    assert capsys.readouterr().out == "ray: the cluster has no GPU yet; waiting for one, 120 s at most\n"


def test_a_cluster_without_gpus_is_an_error(monkeypatch):
    monkeypatch.setattr(cluster, "GONE", 0.05)
    with pytest.raises(StudyError, match="no GPU joined the cluster"):
        cluster.Pool(FakeRay({"CPU": 8}), "vllm:large")


def test_other_engines_and_local_clusters_do_not_wait_for_gpus(monkeypatch, capsys):
    assert cluster.Pool(FakeRay({"CPU": 8}), "data/models/teacher").size == 8
    monkeypatch.delenv(cluster.ADDRESS)
    assert cluster.Pool(FakeRay({"CPU": 8}), "vllm:large").unit == "CPU"
    assert not capsys.readouterr().out


def test_a_worker_runs_in_the_driver_s_folder_or_reports_that_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    worker = cluster.Worker(str(tmp_path / "study"))
    with pytest.raises(StudyError, match=r"node \S+ has no project in .*/study"):
        worker.fingerprint("any")
    (tmp_path / "study" / "params.yaml").touch()
    monkeypatch.setattr(cluster, "engine", lambda name: root())
    assert worker.engine("any") == (tmp_path / "study").resolve()


class RayError(Exception):
    def __init__(self, cause: Exception):
        super().__init__(str(cause))
        self.cause = cause


class RaisingWorker:
    """A worker that raises an error on a request with "poison", and on every later request."""

    def __init__(self, error: Exception):
        self.error, self.broken, self.run = error, False, self
        self.fingerprint = SimpleNamespace(remote=lambda name: name)

    def options(self, **_):
        return self

    def remote(self, _, batches):
        for number, (requests, _) in enumerate(batches):
            self.broken |= any("poison" in request.messages[-1]["content"] for request in requests)
            if self.broken:
                raise RayError(self.error)
            yield number, [cluster.Reply("well", 1, 1, "stop", 0.0) for _ in requests]


class RaisingRay(FakeRay):
    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self, error: Exception):
        super().__init__({"CPU": 2})
        self.error, self.killed = error, []

    def remote(self, **_):
        return lambda _: SimpleNamespace(remote=lambda *_: RaisingWorker(self.error))

    def kill(self, worker):
        self.killed.append(worker)


def finish_reasons(ray: FakeRay, monkeypatch, texts: list[str]) -> list[str]:
    """Finish reasons of the replies to `texts`, in batches of two."""
    monkeypatch.setattr(cluster, "POOL", [cluster.Pool(ray, "any")])
    requests = [Request([{"role": "user", "content": text}], 0.0, 8, 0) for text in texts]
    batches = [cluster.Batch(requests[i : i + 2], 0) for i in range(0, len(requests), 2)]
    found = dict(cluster.Cluster("any").run(batches))
    return [reply.finish_reason for i in range(len(batches)) for reply in found[i]]


def test_failing_workers_are_killed_and_the_request_is_set_aside_after_all_attempts(monkeypatch, capsys):
    ray = RaisingRay(RuntimeError("CUDA error"))
    found = finish_reasons(ray, monkeypatch, ["one", "two", "three", "poison", "five", "six"])
    assert found == ["stop"] * 3 + ["refused"] + ["stop"] * 2
    assert len(ray.killed) == 2 * cluster.ATTEMPTS
    assert "(RuntimeError: CUDA error); it counts as unanswered" in capsys.readouterr().out


def test_too_many_requests_set_aside_end_the_run(monkeypatch):
    monkeypatch.setattr(cluster, "ASIDE", 1)
    with pytest.raises(StudyError, match=r"CUDA error\), as over 1 others"):
        finish_reasons(RaisingRay(RuntimeError("CUDA error")), monkeypatch, ["poison"] * 4)


@pytest.mark.parametrize("error", [StudyError("no model here"), Stopped("what is finished is kept")])
def test_study_errors_and_stops_are_raised_unchanged_and_kill_no_worker(monkeypatch, error):
    ray = RaisingRay(error)
    with pytest.raises(type(error), match=str(error)):
        finish_reasons(ray, monkeypatch, ["poison"])
    assert not ray.killed

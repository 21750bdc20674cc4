"""The workers of a Ray cluster, without Ray: what they ask for when nodes come late, and where they work."""

import pytest

from agentark import StudyError, root
from agentark.engines import cluster


class FakeRay:
    """A cluster whose resources are the given ones, one after another. The last ones stay."""

    def __init__(self, *resources: dict[str, int]):
        self.resources, self.asked = list(resources), []

    def cluster_resources(self):
        return self.resources.pop(0) if len(self.resources) > 1 else self.resources[0]

    def get(self, answer):
        return answer

    def remote(self, **asked):
        self.asked.append(asked)

        class Kind:
            @staticmethod
            def remote(*_):
                return 80e9

        return lambda _: Kind


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.01)
    monkeypatch.setattr(cluster.vllm, "cards", lambda name, memory: 2)
    monkeypatch.setenv(cluster.ADDRESS, "head:6379")


def test_a_driver_that_starts_before_the_gpus_waits_for_them(capsys):
    ray = FakeRay({"CPU": 8}, {"CPU": 8}, {"CPU": 72, "GPU": 8})
    pool = cluster.Pool(ray, "vllm:large")
    assert (pool.unit, pool.each, pool.size) == ("GPU", 2, 4)
    assert ray.asked[-1]["num_gpus"] == 2
    assert capsys.readouterr().out == "ray: the cluster has no GPU yet; waiting for one, 120 s at most\n"


def test_a_cluster_without_gpus_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(cluster, "GONE", 0.05)
    with pytest.raises(StudyError, match="no GPU joined the cluster"):
        cluster.Pool(FakeRay({"CPU": 8}), "vllm:large")


def test_other_engines_and_a_cluster_of_one_machine_wait_for_nothing(monkeypatch, capsys):
    assert cluster.Pool(FakeRay({"CPU": 8}), "data/models/teacher").size == 8
    monkeypatch.delenv(cluster.ADDRESS)
    assert cluster.Pool(FakeRay({"CPU": 8}), "vllm:large").unit == "CPU"
    assert not capsys.readouterr().out


def test_a_worker_works_in_the_driver_s_folder_or_says_that_it_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    worker = cluster.Worker(str(tmp_path / "study"))
    with pytest.raises(StudyError, match=r"node \S+ has no project in .*/study"):
        worker.fingerprint("any")
    (tmp_path / "study" / "params.yaml").touch()
    monkeypatch.setattr(cluster, "engine", lambda name: root())
    assert worker.engine("any") == (tmp_path / "study").resolve()

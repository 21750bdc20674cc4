"""The pinned versions of the `gpu` extra are compatible with one another and with requirements.lock."""

import json
import re
import subprocess
import sys
import tomllib
import warnings
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from trl import import_utils

from agentark import root


def pins(lines: list[str]) -> dict[str, str]:
    requirements = (Requirement(line) for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in requirements}


LOCK = pins((root() / "requirements.lock").read_text().splitlines())
EXTRAS = tomllib.loads((root() / "pyproject.toml").read_text())["project"]["optional-dependencies"]
GPU = pins(EXTRAS["gpu"])
CLUSTER = pins((root() / "requirements-cluster.lock").read_text().splitlines())
REPLACED = {"numpy": GPU["numpy"], "lark": "1.2.2"}  # pins of the lock that the extra replaces
PINNED = LOCK | CLUSTER | GPU | REPLACED
LIBRARIES = {*GPU, "accelerate", "datasets", "peft", "torch", "transformers", "trl"}
OPTIONS = ("", "liger", "peft", "quantization", "vllm")  # extras of TRL that may be installed with it

# Requirements on LIBRARIES that the packages of the extra declare. These packages are not installed where tests run;
# `test_the_gpu_extra_resolves_together_with_the_lock` compares the requirements with the package index.
TRANSFORMERS = "transformers!=4.53.0,!=4.54.0,!=4.55.0,!=4.55.1,{}!=4.57.4,!=4.57.5,!=5.0.0,!=5.1.0,<=5.17.0,>=4.52.4"
UNSLOTH = [
    "accelerate>=0.34.1", "datasets!=4.0.*,!=4.1.0,!=4.4.*,!=4.5.0,<5.0.0,>=3.4.1", "numpy",
    "peft!=0.11.0,>=0.18.0", "torch<2.15.0,>=2.4.0", "trl!=0.19.0,<=1.15.0,>=0.18.2",
]  # fmt: skip
DECLARED = {
    "bitsandbytes": ["numpy>=1.17", "torch<3,>=2.4"],
    "liger-kernel": ["torch>=2.1.2"],
    "unsloth": [
        *UNSLOTH, TRANSFORMERS.format("!=4.57.0,"), "bitsandbytes!=0.46.0,!=0.48.0,>=0.45.5", "unsloth_zoo>=2026.10.7",
    ],
    "unsloth-zoo": [*UNSLOTH, TRANSFORMERS.format("")],
    "vllm": ["numpy", "torch==2.13.0", "transformers>=5.10.4"],
}  # fmt: skip


def required(declared: list[str], extras: tuple[str, ...] = ("",)) -> dict[str, set[str]]:
    """Name -> the version ranges that are required on this machine; a package may have several."""
    ranges: dict[str, set[str]] = {}
    for r in map(Requirement, declared):
        if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in extras):
            ranges.setdefault(canonicalize_name(r.name), set()).add(str(r.specifier))
    return ranges


def conflicts(name: str, declared: list[str], extras: tuple[str, ...] = ("",)) -> list[str]:
    """The pins outside the ranges that `name` requires, one line each."""
    return [
        f"{name} {PINNED[name]} needs {other}{limits}, but {PINNED[other]} is pinned"
        for other, ranges in required(declared, extras).items()
        for limits in ranges
        if other in PINNED and not Requirement(other + limits).specifier.contains(PINNED[other])
    ]


def test_installed_packages_are_compatible_with_the_pins_of_the_extra():
    installed = {canonicalize_name(d.name): d for d in metadata.distributions()}
    assert {name: installed[name].version.partition("+")[0] for name in LIBRARIES - {*GPU}} == {
        name: LOCK[name] for name in LIBRARIES - {*GPU}
    }
    wrong = [
        line
        for name in (LOCK | CLUSTER).keys() & installed.keys()
        for line in conflicts(name, installed[name].requires or [], OPTIONS if name == "trl" else ("",))
    ]
    assert not wrong


def test_the_cluster_extra_matches_its_lock_and_is_disjoint_from_the_others():
    assert CLUSTER.items() >= pins(EXTRAS["cluster"]).items() and not CLUSTER.keys() & (LOCK | GPU).keys()


def test_packages_of_the_extra_are_compatible_with_the_pins():
    assert DECLARED.keys() == GPU.keys() - {"numpy"}
    assert not [line for name, declared in DECLARED.items() for line in conflicts(name, declared)]


def test_a_version_outside_a_required_range_is_reported(monkeypatch):
    monkeypatch.setitem(PINNED, "vllm", "0.32.0")
    (line,) = conflicts("trl", metadata.requires("trl") or [], OPTIONS)
    assert line.endswith("but 0.32.0 is pinned") and "vllm<=0.30.0,>=0.20.0" in line


@pytest.mark.parametrize(("version", "warned"), [(GPU["vllm"], 0), ("0.32.0", 1)])
def test_trl_warns_about_other_versions_of_vllm_but_not_that_of_the_extra(monkeypatch, version, warned):
    monkeypatch.setattr(import_utils, "_is_package_available", lambda *_, **__: (True, version))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert import_utils.is_vllm_available()
    assert len(found) == warned


def resolved(folder: Path, *arguments: str) -> dict[str, dict]:
    """The metadata of all packages that pip would install, by name. pip reads it from the index or from the end of each
    wheel, a few kilobytes. Skips if there is no index, or if it serves only complete wheels."""
    out = folder / "report.json"
    options = ["--dry-run", "--ignore-installed", "--use-feature=fast-deps", "--only-binary=:all:", "--retries=1"]
    command = [sys.executable, "-m", "pip", "install", *options, "--progress-bar=off", f"--report={out}"]

    def pip(*requirements: str) -> subprocess.CompletedProcess:
        return subprocess.run([*command, *requirements], capture_output=True, text=True)

    first = pip("--no-deps", f"liger-kernel=={GPU['liger-kernel']}")
    if first.returncode:
        pytest.skip(f"no package index: {(first.stderr.splitlines() or ['pip failed'])[-1]}")
    if re.search(r"Downloading \S+\.whl \(", first.stdout):
        pytest.skip("the package index does not serve the metadata of wheels")
    done = pip(*arguments)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(out.read_text())["install"]
    return {canonicalize_name(entry["metadata"]["name"]): entry["metadata"] for entry in found}


@pytest.mark.long
def test_the_gpu_extra_resolves_together_with_the_lock(tmp_path):
    """All required packages that are in the lock resolve to its versions, except those in REPLACED."""
    limits = tmp_path / "limits.txt"
    limits.write_text("".join(f"{name}=={version}\n" for name, version in LOCK.items() if name not in REPLACED))
    found = resolved(tmp_path, f"--constraint={limits}", "peft", "trl", *EXTRAS["gpu"])
    versions = {name: entry["version"].partition("+")[0] for name, entry in found.items()}
    assert versions.keys() >= LIBRARIES
    assert versions == versions | {name: PINNED[name] for name in versions.keys() & PINNED.keys()}
    assert {name: versions[name] for name in REPLACED} == REPLACED
    for name, declared in DECLARED.items():
        of_index = required(found[name].get("requires_dist", []))
        assert {other: of_index[other] for other in of_index.keys() & LIBRARIES} == required(declared), name
    wrong = [
        line
        for name, entry in found.items()
        if name in PINNED
        for line in conflicts(name, entry.get("requires_dist", []), OPTIONS if name == "trl" else ("",))
    ]
    assert not wrong

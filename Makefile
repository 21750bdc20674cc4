# The project's commands. Each sets up the environment in .venv first. docs/development.md has their times.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
# One single-threaded process a core, tensors in the heap, no telemetry; agentark/stage/run.py gives the reasons.
export OMP_NUM_THREADS = 1
export MALLOC_MMAP_THRESHOLD_ = 4000000000
export MALLOC_TRIM_THRESHOLD_ = 8000000000
export TOKENIZERS_PARALLELISM = false
export HF_HUB_OFFLINE = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export DVC_NO_ANALYTICS = 1
# Imported modules are compiled once, even where the shell forbids it.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: study report ablations grid leaderboard test test-long test-vllm lint models search plan bench gpu-bench simulation-check prompt-order serve lab env

env: .venv/ready

# The lock is complete, so pip resolves nothing, and four pips share it: a single one waits half of the time. Modules are
# compiled on first import, because most are never imported. Python 3.11's own pip is slower than the pinned one.
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check pip==26.3
	xargs -P 4 -n 64 $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps < requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

study: env  ## run the whole study, print the main results and compare them with those in git
	dvc repro
	python -m agentark.stage.summary

report: env  ## redraw every figure and page from the tables in git
	dvc repro --force --single-item published report experiments claims \
	notebooks/leaderboard/dvc.yaml:page notebooks/small/dvc.yaml:page
	@echo "report: reports/{index,experiments,claims,published,leaderboard,small}.html"

models: env  ## train the base models again from random weights
	dvc repro --force --single-item base_models

search: env  ## choose temperatures, the reward model's training and the teacher's recipe on validation questions
	dvc repro notebooks/choices/dvc.yaml

plan: env  ## predict calls, tokens, hours, disk and memory of a run; writes reports/plan.csv
	python -m agentark.stage choices/plan

ablations: env  ## run the ablations (controls, sources, pad, data, protocols, agents, rewards, vision); writes reports/ablation_*.csv
	dvc repro notebooks/ablations/dvc.yaml

grid: env  ## run the paper's grid of teachers, students, tasks and methods; resumes after an interruption
	python -m agentark.stage.pipeline grid

leaderboard: env  ## run every method of the leaderboard after the study; resumes after an interruption
	python -m agentark.stage.pipeline leaderboard

test: env lint  ## run the linters and all tests, among them a whole small study
	python -m pytest

.venv/cluster: requirements-cluster.lock .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --requirement requirements-cluster.lock
	touch $@

test-long: env .venv/cluster  ## test scale `full` from end to end with tiny checkpoints, every training route, byte equality, a killed grid, a cluster of three nodes
	python -m pytest -m long

# vLLM pins some packages at other versions than the study, so it has its own environment.
.venv-vllm/ready: requirements-vllm.lock
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-vllm.lock
	touch $@

test-vllm: env .venv-vllm/ready  ## test the engines with vLLM on the CPU, and adapters trained here
	VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_CPU_KVCACHE_SPACE=1 VLLM_NO_USAGE_STATS=1 \
	PYTHONPATH=. STUDY_PYTHON=$(CURDIR)/$(BIN)/python \
	.venv-vllm/bin/python -m pytest --override-ini addopts=-q \
	tests/test_conformance.py tests/test_prefixes.py tests/test_adapters.py tests/test_int8.py

lint: env  ## run the checks of .pre-commit-config.yaml on all files
	ruff check .
	ruff format --check .
	nbstripout --verify --keep-id notebooks/*.ipynb notebooks/*/*.ipynb
	mypy agentark

bench: env  ## measure speed and memory on the CPU; writes reports/benchmarks.csv
	python -m tests.benchmarks.cpu

gpu-bench: env  ## measure training and generation on a GPU; writes reports/gpu.csv
	python -m tests.benchmarks.gpu

simulation-check: env  ## hold the simulation of many cards against runs on this machine; writes reports/simulation_check.csv
	python -m tests.benchmarks.simulation

prompt-order: env  ## count what prefix caching saves by order of prompts; writes reports/prompt_order.csv
	python -m tests.benchmarks.prompt_order

MODEL ?= data/models/teacher
PORT ?= 8000
serve: env  ## start an OpenAI-compatible server for MODEL (a folder or a hub name) at PORT; prints its `teacher=`
	python -m agentark.engines.serve $(MODEL) $(PORT)

lab: env  ## open the notebooks in JupyterLab
	jupyter lab --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate notebooks

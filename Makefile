# The study's commands. `make study` and `make test` each set up the environment first and need nothing else.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
# One single-threaded process a core, tensors kept in the heap, no telemetry (see agentark/stage/run.py for why).
export OMP_NUM_THREADS = 1
export MALLOC_MMAP_THRESHOLD_ = 4000000000
export MALLOC_TRIM_THRESHOLD_ = 8000000000
export TOKENIZERS_PARALLELISM = false
export HF_HUB_OFFLINE = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export DVC_NO_ANALYTICS = 1
# What is imported is to be compiled once, also where the shell forbids it.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: study report ablations grid test test-long test-vllm lint models search plan bench gpu-bench prompt-order serve lab env

env: .venv/ready

# Modules are compiled when they are first imported: most never are. The lock is whole, so nothing is to be resolved, and
# four pips share it: one alone waits half of the time, the one that comes with Python 3.11 longer still.
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check pip==26.3
	xargs -P 4 -n 60 $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps < requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

study: env  ## the whole study: dvc repro, then the headline and how it compares with the committed results
	dvc repro
	python -m agentark.stage.summary

report: env  ## redraw every figure and page from the tables in git, running nothing else
	dvc repro --force --single-item published report experiments claims
	@echo "report: reports/index.html, reports/experiments.html, reports/claims.html, reports/published.html"

models: env  ## rebuild the base models from random weights (about an hour and a half)
	dvc repro --force --single-item base_models

search: env  ## what was chosen on validation questions: debate temperatures, the reward model's training
	dvc repro notebooks/choices/dvc.yaml

plan: env  ## what a run with the present parameters will take; rewrites reports/plan.csv
	python -m agentark.stage choices/plan

ablations: env  ## the debate against more data, other ways to let agents talk, other crowds and rewards, a student that sees; rewrites reports/ablation_*.csv
	dvc repro notebooks/ablations/dvc.yaml

grid: env  ## the paper's grid of teachers, students, families and methods; stop it at will, it goes on where it was
	python -m agentark.stage.pipeline

test: env lint  ## all tests, a whole small study among them
	python -m pytest

test-long: env  ## whole runs and real architectures: scale `full` from end to end, trainings by every route, the GPU benchmark's rehearsal, a grid killed twice
	python -m pytest -m long

# vLLM wants a package or two at other versions than the study's, so it has an environment of its own.
.venv-vllm/ready: requirements-vllm.lock
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-vllm.lock
	touch $@

test-vllm: env .venv-vllm/ready  ## the engines' tests with vLLM among them, on the CPU; and of adapters trained here
	VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_CPU_KVCACHE_SPACE=1 VLLM_NO_USAGE_STATS=1 \
	PYTHONPATH=. STUDY_PYTHON=$(CURDIR)/$(BIN)/python \
	.venv-vllm/bin/python -m pytest --override-ini addopts=-q \
	tests/test_conformance.py tests/test_prefixes.py tests/test_adapters.py

lint: env
	ruff check .
	ruff format --check .

bench: env  ## measure speed and memory; rewrites reports/benchmarks.csv
	python -m agentark.plan.bench_cpu

gpu-bench: env  ## measure training and generation on a GPU, by every route there is; rewrites reports/gpu.csv
	python -m agentark.plan.bench_gpu

prompt-order: env  ## count what prefix caching saves in each order of prompts; rewrites reports/prompt_order.csv
	python -m agentark.plan.prompt_order

MODEL ?= data/models/teacher
PORT ?= 8000
serve: env  ## an OpenAI-compatible server for MODEL (a folder or a hub name) at PORT; prints the `teacher=` for notebooks
	python -m agentark.engines.serve $(MODEL) $(PORT)

lab: env  ## open the notebooks; no news, no looking for updates
	jupyter lab --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate notebooks

# The study's commands. `make study` and `make test` each set up the environment first and need nothing else.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
# One single-threaded process a core, tensors kept in the heap, no telemetry (see agentark/notebook.py for why).
export OMP_NUM_THREADS = 1
export MALLOC_MMAP_THRESHOLD_ = 4000000000
export MALLOC_TRIM_THRESHOLD_ = 8000000000
export TOKENIZERS_PARALLELISM = false
export HF_HUB_OFFLINE = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export DVC_NO_ANALYTICS = 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: study report test lint models search bench lab env

env: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

study: env  ## the whole study: dvc repro, then the headline and how it compares with the committed results
	dvc repro
	python -m agentark.headline

report: env  ## redraw report and figures from the tables in git, running nothing else
	python -m agentark.notebook 10_report
	@echo "report: reports/index.html"

models: env  ## rebuild the base models from random weights (about an hour and a half)
	dvc repro --force --single-item base_models

search: env  ## what was chosen on validation questions: debate temperatures, the reward model's training
	python -m agentark.notebook search_debate
	python -m agentark.notebook search_reward_model

test: env lint  ## all tests, a whole small study among them
	python -m pytest

lint: env
	ruff check .
	ruff format --check .

bench: env  ## measure speed and memory; rewrites reports/benchmarks.csv
	python -m agentark.bench

lab: env  ## open the notebooks
	jupyter lab notebooks

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
BIN := .venv/bin
SEED ?= 1
# The stamp's name is a hash of what decides the installation: a second call finds it and does nothing.
STAMP := .venv/installed-$(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)

.PHONY: help install demo up status down stack stack-status stack-down test soak drill image-test check bench

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 15

install: $(STAMP)  ## create .venv with everything pinned

$(STAMP):
	@command -v $(PYTHON) > /dev/null || { \
		echo "error: $(PYTHON) is not on the PATH. Install Python 3.11, or set PYTHON=/path/to/python3.11." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is older than Python 3.11. Set PYTHON=/path/to/python3.11." >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[airflow,dev,fab,kubernetes,parquet,pretrained,stack]'
	rm -f .venv/installed-*
	touch $@

demo: install  ## the whole nightly run on a real sample dataset, from nothing, under Airflow
	$(BIN)/python -m automl_airflow demo

up: install  ## start Airflow on this machine and leave it running
	$(BIN)/python -m automl_airflow up

status: install  ## say where it serves, and which of its parts have ended
	$(BIN)/python -m automl_airflow status

down: install  ## stop what `make up` started
	$(BIN)/python -m automl_airflow down

stack: install  ## start production's shape here: PostgreSQL, Valkey, SeaweedFS, Dask, Celery
	$(BIN)/python -m automl_airflow up --shape stack

stack-status: install  ## say where it serves, and how each of its parts fares
	$(BIN)/python -m automl_airflow status --shape stack

stack-down: install  ## stop what `make stack` started
	$(BIN)/python -m automl_airflow down --shape stack

test: install  ## every test: unit, contracts, integration, crash, e2e
	$(BIN)/python tests/run_groups.py

soak: install  ## the long tests: outages, crashes and races in large numbers, and the images; the latter need root
	AUTOML_SOAK=1 $(BIN)/python tests/run_groups.py -m soak
	$(BIN)/python -m tests.image.main
	$(BIN)/python -m tests.image.main --target cuda

drill: install  ## break the stack thirty times while two studies run, and judge: SEED=1
	$(BIN)/python -m tests.drill --seed $(SEED)

image-test: install  ## build the image without Docker and run its services; needs root, apt and Debian 12
	$(BIN)/python -m tests.image.main

check: install  ## format, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

bench: install  ## run the benchmarks
	@for script in $$(grep -l __main__ benchmarks/*.py); do \
		echo "== $$script"; $(BIN)/python -m "benchmarks.$$(basename $$script .py)"; \
	done

bench-%: install  ## run one benchmark, such as bench-storage
	$(BIN)/python -m benchmarks.$*

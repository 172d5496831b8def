# Each target works alone on a machine with Python >= 3.11, git and make.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: demo test test-all bench lint setup clean
.DEFAULT_GOAL := demo

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt scripts/setup.sh
	@PYTHON=$(PYTHON) sh scripts/setup.sh

demo: setup            ## the main job, end to end, on sounds that the package renders itself
	$(BIN)/otic demo $(ARGS)

test: setup            ## what CI runs
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu" $(ARGS)

test-all: setup        ## the slow rest too
	$(BIN)/python -m pytest -m "not gpu" $(ARGS)

bench: setup           ## writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist *.egg-info

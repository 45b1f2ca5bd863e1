# Each habit of the project is a command here. They make .venv by themselves, again when pyproject.toml changes.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check lint types layers fmt docs build bench-quick clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  ARGS='...' goes to the command itself: make test ARGS='-k embedded -x'"

demo: .venv/has-demo  ## durable flows over real data, while processes are killed
	@$(BIN)/headrace demo $(ARGS)

# Bytecode is kept, whatever the environment says: the tests start many processes, and each would compile us anew.
test: .venv/has-test  ## all tests, in random order, on all cores
	@PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n auto --dist loadgroup $(ARGS)

check: lint types layers test  ## all that CI asks of a change

lint: .venv/has-dev  ## style and formatting, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/has-dev  ## pyright and mypy, both strict
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/mypy

layers: .venv/has-dev  ## who may import whom (DESIGN 2)
	$(BIN)/lint-imports

fmt: .venv/has-dev  ## mend style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/has-dev  ## the pages of docs/reference that are made of the code
	@PYTHONPATH=tools $(BIN)/python -m reference_pages

build: .venv/has-dev  ## wheel and sdist, into dist/
	@rm -rf dist
	$(BIN)/python -m build

bench-quick: .venv/has-demo  ## throughput against the bare loop (DESIGN 10), in under a minute
	@$(BIN)/python benchmarks/chain.py --quick $(ARGS)

clean:  ## remove .venv, dist and the tools' caches
	rm -rf .venv dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

.venv/has-demo: EXTRAS := embedded,rq,fast
.venv/has-test: EXTRAS := test
.venv/has-dev: EXTRAS := dev

.venv/has-%: pyproject.toml | $(BIN)/python
	@echo "Installing headrace[$(EXTRAS)] into .venv ..."
	@$(BIN)/python -m pip install -qq --editable '.[$(EXTRAS)]'
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Headrace needs Python 3.11 or newer; none is on PATH (or set PYTHON=...)." >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "On Debian: apt-get install python3-venv" >&2; exit 1; }

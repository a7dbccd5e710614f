# The book and its checks, from a machine with git, make, a C compiler and Python 3.10 to 3.13.
#   make book [FORCE=1]   make test [FAST=1] [TESTS=tests/publish/test_render.py]   make test-more   make runs [RUNS="small-10 small-100"]

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help book test test-more runs pdf bench faults lock coverage mutants clean

VENV ?= .venv
# make splits the names of targets at spaces; those of the folder above do no harm, for all that is run is in quotes
ifneq ($(words $(VENV)),1)
$(error VENV is "$(VENV)"; it must be a path without spaces, relative to this folder or absolute)
endif
# absolute, without resolving links: the programs inside the virtual environment
BIN := $(abspath $(VENV))/bin
PY := "$(BIN)/python"
PIP := $(PY) -m pip --disable-pip-version-check install --no-input $(if $(MAKE_TERMOUT),,-q) -c constraints.txt
PINS := pyproject.toml constraints.txt
RUNS ?= small-10 small-random small-100 large-10 large-random large-100 wide-standard wide-adversarial
TESTS ?=
FAST ?=
BENCH ?=
FORCE ?=
MUTANTS ?=
# several tests beside each other, each on one core
SINGLE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
BESIDE := --numprocesses=logical --maxprocesses=4 --dist=loadgroup
export PYTHONUTF8 := 1
export PYTHONUNBUFFERED := 1

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /make \1\t/' | expand -t 14

book: $(VENV)/.book ## execute the chapters that changed (FORCE=1: all) and build the HTML
	$(PY) -m nodelib render $(if $(FORCE),--force)
	"$(BIN)/jupyter-book" build book/ -W -n --keep-going --quiet
	@echo "The book: $(CURDIR)/_build/html/index.html"

test: $(VENV)/.test ## run the checks (FAST=1: in a minute; TESTS="tests/publish/test_render.py -k pairs": these)
	$(PY) -m ruff check nodelib tests book/_ext
	$(PY) -m mypy
	$(if $(TESTS),,$(SINGLE)) $(PY) -m pytest $(if $(TESTS),$(TESTS),$(BESIDE) -m "not more$(if $(FAST), and not slow and not browser)")

test-more: $(VENV)/.cluster ## run the longer checks too: every notebook at smoke scale, every page in a browser, a cluster
	$(PY) -m pytest -m more

runs: $(VENV)/.book ## train what is missing (RUNS="small-10 ...") and execute the pages of the runs
	$(PY) -m nodelib render $(addprefix --run ,$(RUNS)) $(if $(FORCE),--force)

pdf: $(VENV)/.test ## print the built book into _build/html/book.pdf, by Chromium
	$(PY) -m nodelib pdf

bench: $(VENV)/.bench ## measure speed and memory against other solvers (BENCH="--help": its options)
	$(PY) -m nodelib bench $(BENCH)

faults: $(VENV)/.test ## break on purpose what the tests know to break, and count it in data/faults.csv
	$(PY) -m pytest -m fault --faults=data/faults.csv

lock: $(VENV)/.upkeep ## write requirements.lock anew: every package with its hashes
	$(PY) -m uv pip compile --universal --python-version 3.10 --all-extras --generate-hashes --no-annotate \
	  --custom-compile-command "make lock" --quiet -c constraints.txt pyproject.toml -o requirements.lock

coverage: $(VENV)/.upkeep ## run the checks and list the lines of nodelib that none of them reaches
	$(PY) -m pytest -m "not more" --cov=nodelib --cov-report=term-missing:skip-covered

mutants: $(VENV)/.upkeep ## break solver, statistics and verdicts by small changes (half an hour), into tests/mutants.csv
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) tests/mutants.py $(MUTANTS)

clean: ## remove the virtual environment and everything built; executed notebooks and runs stay
	rm -rf "$(VENV)" _build nodelib.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find nodelib tests book -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment, with the first Python here that is new enough.
$(VENV)/.python:
	@for python in $(if $(PYTHON),"$(PYTHON)") python3 python3.13 python3.12 python3.11 python3.10; do \
	  command -v "$$python" >/dev/null || continue; \
	  "$$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || continue; \
	  if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
	    echo "error: $$python cannot make virtual environments (its ensurepip module is missing)." \
	         "Install it, on Debian and Ubuntu with: apt-get install python3-venv;" \
	         "or name another interpreter: make PYTHON=/path/to/python3" >&2; exit 1; fi; \
	  echo "making $(VENV) with $$("$$python" --version)"; \
	  "$$python" -m venv "$(VENV)"; touch "$@"; exit 0; \
	done; \
	echo "error: no Python from 3.10 to 3.13 found; python3 is" \
	     "$$(python3 --version 2>&1 || echo missing). Install one, or name it:" \
	     "make PYTHON=/path/to/python3.11" >&2; exit 1

# torch first: what is installed after it then finds it there and asks for no other build.
$(VENV)/.book: $(PINS) | $(VENV)/.python
	@echo "installing the book's packages into $(VENV)"
	$(PIP) torch==2.13.0
	$(PIP) -e '.[book]'
	@touch "$@"

$(VENV)/.test: $(VENV)/.book
	@echo "installing the packages of the checks into $(VENV)"
	$(PIP) -e '.[book,test,attacks]'
	@touch "$@"

$(VENV)/.cluster: $(VENV)/.test
	$(PIP) -e '.[book,test,attacks,cluster]'
	@touch "$@"

$(VENV)/.bench: $(VENV)/.book
	$(PIP) -e '.[book,bench]'
	@touch "$@"

$(VENV)/.upkeep: $(VENV)/.test
	$(PIP) -e '.[book,test,attacks,upkeep]'
	@touch "$@"

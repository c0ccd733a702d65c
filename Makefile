# `make search` and `make test` do all the set-up themselves; README.md has the same steps as plain pip commands.
#
#   make search ARGS="--trials 20 --epochs 30"       more options: make search ARGS=--help
#   make test PYTHON=/opt/python3.12/bin/python3     another interpreter
#   make test PIP_FLAGS="--extra-index-url URL"      options for every pip install, e.g. another build of torch

VENV ?= .venv
PIP_FLAGS ?=
ARGS ?=
# The first interpreter that is new enough; 3.11 first because constraints.txt was tested with it.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

python := $(VENV)/bin/python
installed := $(VENV)/.installed
installed_dev := $(VENV)/.installed-dev
# tests/support/distribution.py groups the tests that have to share a process, and puts the longest first.
two_at_a_time := --numprocesses 2 --dist loadgroup --no-loadscope-reorder
pip_install = $(python) -m pip install --disable-pip-version-check $(PIP_FLAGS) --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help search test test-all format bench clean

help:  ## what there is
	@sed -n 's/^\([a-z-]*\):.*##/make \1 -/p' Makefile

search: $(installed)  ## set up and run the main job on the embedded demo data; ARGS are passed on
	$(python) tune/search.py $(ARGS)

test: $(installed_dev)  ## set up, lint, check types, run the tests
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy
	$(python) -m pytest $(two_at_a_time)

test-all: $(installed_dev)  ## also what is slow: processes, hosts and disks that fail, safeguards taken away
	MACIL_FUZZ=nightly $(python) -m pytest -m "" $(two_at_a_time)

format: $(installed_dev)  ## rewrite the sources in the project's format
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

bench: $(installed_dev)  ## measure the training step on this machine
	$(python) -m benchmarks.training

clean:  ## remove the environment and all caches; runs/ stays
	@test ! -e $(VENV)/pyvenv.cfg || rm -rf $(VENV)
	rm -rf build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find macil tune tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written when everything before it succeeded, so an interrupted installation is taken up again.
$(installed): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: macil-tune needs Python 3.11 or newer; $(or $(PYTHON),python3) is" \
		"$$($(or $(PYTHON),python3) --version 2>&1 | tail -n 1)." \
		"Install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Installing into $(VENV): once, some minutes."
	@$(python) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(pip_install) --editable .
	@touch $@

$(installed_dev): $(installed)
	$(pip_install) --editable '.[dev]'
	@touch $@

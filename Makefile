# make demo       everything from a fresh machine (Python, pip, make) to a trained model and its report
# make test       linters, types, floors, tests (under 20 minutes with installing)
# make test-slow  what takes longer: long kill loops, mutants, quality of the trained models
# make docs       run the pages of docs/learn again, outputs and figures included
#
# PYTHON=python3.12        another interpreter (3.11 or later)
# TORCH_INDEX=URL          take PyTorch from this package index first, e.g. the one with CPU builds (see README)

PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test lint test-slow docs format clean

demo: .venv/installed
	$(BIN)/scorefield demo

test: lint
	$(BIN)/pytest -m "not slow" --numprocesses 2

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-slow: .venv/installed-dev
	$(BIN)/pytest -m slow
	$(BIN)/python tests/mutants.py

docs: .venv/installed
	$(BIN)/python docs/build.py

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .*_cache build dist

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("scorefield needs Python 3.11 or later: make PYTHON=...") if sys.version_info < (3, 11) else 0'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make a virtual environment: on Debian and Ubuntu install it by apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(PIP) --no-deps --index-url $(TORCH_INDEX) torch)
	$(PIP) --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev]'
	touch $@

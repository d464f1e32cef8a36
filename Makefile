PYTHON ?= python3
BIN := .venv/bin

# One newer than the pinned one; 2.11.0 is the oldest that is supported.
TORCH ?= 2.14.1
# Kept between checkouts: several GB each where an index has no builds for the CPU. One for each torch, and Python where
# it is another than python3: `torch-2.11.0`, `torch-2.11.0-python3.13`.
OTHER := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/marche_fx/torch-$(TORCH)$(addprefix -,$(notdir $(PYTHON:python3=)))
# From capture to saved files, on models of ours alone.
SMOKE := tests/test_layers.py tests/api/test_transform.py tests/api/test_transform_mar.py tests/api/test_transform_loops.py \
	tests/api/test_transform_returned.py tests/saving tests/lazy \
	tests/passes/capture/test_capture.py tests/passes/lower tests/models/test_mar.py tests/runtime/test_session.py

.PHONY: demo test smoke obtainable docs lint format clean

demo: .venv/installed
	$(BIN)/marche-fx demo

test: .venv/installed-test lint
	$(BIN)/pytest -n 2 --dist worksteal

# A part of the tests with another torch, in an environment of its own: `make smoke TORCH=2.11.0`, and with another
# Python `make smoke TORCH=2.11.0 PYTHON=python3.13`. Indexes without PyTorch's builds for the CPU give one of several GB;
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu in the environment adds these.
smoke: $(OTHER)/installed
	PYTHONPATH=$(CURDIR) $(OTHER)/bin/python -m pytest -q -n 2 --dist worksteal -m 'not slow' $(SMOKE)

# Fails where that torch is neither there nor to be had: no fault of the tests.
obtainable: .venv/installed
	@test -e $(OTHER)/installed || $(BIN)/pip install --quiet --dry-run --no-deps --ignore-installed torch==$(TORCH)

# The site in build/site, with every warning an error. mkdocs-material tells there of its successor.
docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-* build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Files that say what is installed, so that a second run installs nothing.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[cli]'
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

# Without the package, which PYTHONPATH says: checkouts share the environment.
$(OTHER)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(OTHER)
	grep -v '^torch==' constraints.txt > $(OTHER)/constraints.txt
	$(OTHER)/bin/pip install --quiet -c $(OTHER)/constraints.txt torch==$(TORCH) '.[cli,text]' \
	    pytest pytest-xdist hypothesis scipy
	$(OTHER)/bin/pip uninstall --quiet --yes marche-fx
	touch $@

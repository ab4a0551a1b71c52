# Each target sets up what it needs from a bare clone, and is quick when nothing
# has changed: a virtual environment in .venv, with versions pinned in
# tests/constraints.txt, and this package in editable mode.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check \
	--constraint tests/constraints.txt --editable
# A process for each core, with one thread each: more would only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile
PINS := pyproject.toml tests/constraints.txt

.PHONY: demo test test-all check format bench clean

demo: .venv/.demo  ## train twice on real images, with the dashboard live
	$(BIN)/dynoscope demo $(ARGS)

test: .venv/.dev  ## the test suite, under ten minutes
	$(PYTEST) -m "not slow" $(ARGS)

test-all: .venv/.dev  ## and the long tests
	$(PYTEST) $(ARGS)

check: .venv/.dev  ## style, types, rooms, layout; under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_layout.py

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.bench  ## speed and size, then the table in the README; 45 minutes
	$(BIN)/python -m tests.benchmarks $(ARGS)

clean:
	rm -rf .venv build *.egg-info

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/pip $(PINS)
	$(INSTALL) ".[demo]"
	touch $@

.venv/.dev: .venv/bin/pip $(PINS)
	$(INSTALL) ".[dev]"
	touch $@ .venv/.demo

.venv/.bench: .venv/.dev $(PINS)
	$(INSTALL) ".[bench,dev]"
	touch $@

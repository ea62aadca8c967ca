# Two commands for a newcomer: `make app` and `make test`. The plain pip equivalents are in README.md.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 8501
PYTEST_ARGS ?= -n auto --dist worksteal

.PHONY: app test check bench bench-pages format clean

app: $(VENV)/app.stamp  ## install, load the example models into an empty store, start the app
	$(BIN)/quantstore app --demo --port $(PORT)

test: $(VENV)/test.stamp  ## install and run every test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/check.stamp test  ## tests, and format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/test.stamp  ## how fast an ingest is on this machine
	$(BIN)/python bench/ingest.py

bench-pages: $(VENV)/test.stamp  ## how fast the pages answer on a thousand models; needs Chromium
	$(BIN)/python bench/pages.py

format: $(VENV)/check.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("quantstore needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/app.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/test.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

$(VENV)/check.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,check]'
	touch $@

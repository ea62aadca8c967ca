# Two commands for a newcomer: `make app` and `make test`. The plain pip equivalents are in README.md.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 8501
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(os.cpu_count() or 1)')
# Whole files go to a worker, in the order of tests/conftest.py: the longest first.
PYTEST_ARGS ?= -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Tests and servers start many processes: what they load is compiled once, also where the machine says
# that nothing is to be written.
unexport PYTHONDONTWRITEBYTECODE

# What is imported is compiled then: pip would compile all of it, which takes as long as the rest.
# Its warnings are about how setuptools likes its settings; errors are shown.
INSTALL = $(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile

.PHONY: app test slow check docs bench bench-quick bench-pages bench-probe bench-rescue kill stress fleet published format clean bench-store attacks pictures

app: $(VENV)/app.stamp  ## install, load the example models into an empty store, start the app
	$(BIN)/quantstore app --demo --port $(PORT)

test: $(VENV)/test.stamp  ## install and run the tests: two minutes on two cores
	$(BIN)/python -m pytest $(PYTEST_ARGS)

slow: $(VENV)/test.stamp  ## what is thorough: every browser test, more models, more examples of every law
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m 'slow or hypothesis' --hypothesis-profile thorough

check: $(VENV)/check.stamp test  ## tests, and format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/test.stamp  ## write the tables of the documents anew, from the code they list
	$(BIN)/python docs/tables.py

bench: $(VENV)/bench.stamp  ## how fast quantstore is beside its peers; BENCH="--quick speed" for a part, BENCH=probe for the probe beside 0.1.0
	$(BIN)/python $(if $(filter probe,$(BENCH)),bench/probe_speed.py,bench/ingest.py $(BENCH))

bench-quick: $(VENV)/bench.stamp  ## the same in two minutes: fewer rounds, no large model
	$(BIN)/python bench/ingest.py --quick

bench-probe: $(VENV)/test.stamp $(VENV)-judges/stamp  ## how far the probe can be trusted: its figures beside those on real inputs, into docs/method.md
	$(BIN)/python bench/probe.py --write

bench-rescue: $(VENV)/test.stamp $(VENV)-peers/stamp  ## what a rescue reaches beside onnxruntime's quantizer and NNCF, into docs/rescue.md
	QUANTSTORE_NNCF_PYTHON=$(VENV)-peers/bin/python $(BIN)/python bench/rescue.py --write

bench-pages: $(VENV)/test.stamp  ## how fast the pages answer on a thousand models; needs Chromium
	$(BIN)/python bench/pages.py

pictures: $(VENV)/test.stamp  ## the pictures of the README, from the app of today on the example models; needs Chromium
	$(BIN)/python bench/pictures.py

kill: $(VENV)/test.stamp  ## kill -9 three hundred ingests, removes and migrations; KILL="--kills 50"
	$(BIN)/python bench/kill.py $(KILL)

stress: $(VENV)/test.stamp  ## readers and writers on one store for two minutes; STRESS="--minutes 10"
	$(BIN)/python bench/stress.py $(STRESS)

fleet: $(VENV)/test.stamp  ## 200 models through a Dask cluster, a worker killed on the way; FLEET="--models 50"
	$(BIN)/python bench/fleet.py $(FLEET)

published: $(VENV)/test.stamp  ## 2,000 models into a published folder, read, compacted and killed meanwhile; PUBLISHED="--models 200"
	$(BIN)/python bench/published.py $(PUBLISHED)

bench-store: $(VENV)/test.stamp  ## rows a second, open time, bytes of a model, compaction
	$(BIN)/python bench/store.py

attacks: $(VENV)/app.stamp  ## every attack on the SQL console that we know of, each in a child process; on a store, then on a published folder
	$(BIN)/python bench/attacks.py $(ATTACKS)
	$(BIN)/python bench/attacks.py --published $(ATTACKS)

format: $(VENV)/check.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(VENV)-peers $(VENV)-judges build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("quantstore needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	# The pip that comes with Python may be years old, and take twice as long to find what fits.
	-$(INSTALL) --upgrade pip

$(VENV)/app.stamp: pyproject.toml | $(BIN)/python
	$(INSTALL) -e .
	touch $@

$(VENV)/test.stamp: pyproject.toml | $(BIN)/python
	$(INSTALL) -e '.[test]'
	touch $@

$(VENV)/bench.stamp: bench/requirements.txt $(VENV)/test.stamp
	$(INSTALL) -r bench/requirements.txt \
		&& touch $@ || echo 'not every peer could be installed: the table will say which' >&2

# NNCF wants other versions of what is in the environment of the tests.
$(VENV)-peers/stamp: bench/peers.txt | $(BIN)/python
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip install -qq --disable-pip-version-check -r bench/peers.txt \
		&& touch $@ || echo 'NNCF could not be installed: the table will say so' >&2

# Files of other packages, in a folder of their own: none of them is imported.
$(VENV)-judges/stamp: bench/judges.txt | $(BIN)/python
	$(INSTALL) --no-deps --target $(VENV)-judges -r bench/judges.txt \
		&& touch $@ || echo 'not every judge could be installed: the tables will say which' >&2

$(VENV)/check.stamp: pyproject.toml | $(BIN)/python
	$(INSTALL) -e '.[test,check]'
	touch $@

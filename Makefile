# "make demo" and "make test" need python3 (3.10 or newer) with venv, and make; they do everything else themselves.
PYTHON ?= python3
# one of them waits for federations most of the time, see tests/conftest.py
WORKERS ?= 4
DEMO ?= runs/demo
# more options for the demo, for example --fresh
DEMO_OPTIONS ?=
# more options for pip, for example an index with CPU-only builds of torch
PIP_OPTIONS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
COVERAGE := .coverage.json
SOURCES := custom tests benchmarks

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint pytest format clean

help:
	@echo "make demo    phantom cohort -> prepared cohorts -> FLARE simulator -> report, in $(DEMO)"
	@echo "make test    ruff, mypy and pytest with coverage on $(WORKERS) workers"
	@echo "make lint    ruff and mypy only; make pytest: pytest only"
	@echo "make format  let ruff rewrite the sources"
	@echo "make clean   remove the virtual environment and tool caches; $(DEMO) stays"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "make: $(PYTHON) is older than 3.10; say which to use: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) -c constraints.txt --no-build-isolation -e ".[test]"
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/med-duallora demo --out $(DEMO) $(DEMO_OPTIONS)

lint: $(INSTALLED)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

# side by side: mypy fills the processor while the tests that wait for federations leave it idle
test: $(INSTALLED)
	@$(MAKE) --no-print-directory --jobs=2 lint pytest
	@echo "make test: ruff, mypy and pytest passed; $$($(BIN)/python -c "import json; print(json.load(open('$(COVERAGE)'))['summary']['percent_covered_display'])") % of the lines ran in the tests' own processes ($(COVERAGE))"

# with bytecode kept, whatever the caller's shell says: workers and the processes of federations read it from each other
pytest: $(INSTALLED)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m slipcover --source custom/med_duallora --json --out $(COVERAGE) \
		-m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

format: $(INSTALLED)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(COVERAGE) .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build custom/*.egg-info

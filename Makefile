# Needs Python 3.11 or newer and make; everything else is installed into .venv.
PYTHON ?= python3
# Processes that share the tests; each takes about 3 GB, since it starts a Ray of its own.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/pip install --quiet --constraint constraints.txt --editable

.PHONY: demo test test-all check clean

demo: $(VENV)/installed
	$(BIN)/capfilt demo configs/demo.yaml

test: $(VENV)/installed-test check
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: test
	$(BIN)/pytest -m slow

check: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) ".[fast]"
	touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) ".[fast,test]"
	touch $(VENV)/installed $@

$(BIN)/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "capfilt needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) demo

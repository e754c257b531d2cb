# Two commands from a fresh clone: `make demo` and `make test`. Both make .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test check clean

demo: $(INSTALLED)
	$(BIN)/msdyn-demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

check: $(INSTALLED) build/typecheck/msdyn/preprocess
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

$(INSTALLED): setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

# The folder preprocess/ is installed as msdyn.preprocess; pyright finds it there through this link.
build/typecheck/msdyn/preprocess:
	mkdir -p build/typecheck/msdyn
	touch build/typecheck/msdyn/__init__.py
	ln -sfn ../../../preprocess $@

clean:
	rm -rf .venv build out *.egg-info

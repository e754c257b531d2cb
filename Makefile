# Two commands from a fresh clone: `make demo` and `make test`. Both make .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# One process per core, each with a contiguous part of the tests, which share fixtures. Threads that
# wait must not keep a core busy: that alone doubles the time.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n auto --dist worksteal

# Modules are compiled to bytecode where they are first imported (--no-compile below), which halves
# the time of the installation, and the bytecode is kept, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=

WHOLE_RUNS := $(addprefix tests/preprocess/test_,cameras_sfm.py model_adapters.py pipeline.py \
	preprocess_command.py)
SHAPES := $(addprefix tests/,export fit geometry io motion scene sequence) \
	$(addprefix tests/evaluate/test_,image_metrics.py temporal.py track_metrics.py) \
	$(addprefix tests/synthetic/test_,animate.py priors.py raycast.py surface_tracks.py) \
	$(filter-out $(WHOLE_RUNS),$(wildcard tests/preprocess/test_*.py))

.PHONY: demo test test-shapes check clean

demo: $(INSTALLED)
	$(BIN)/msdyn-demo

test: $(INSTALLED)
	$(PYTEST)

# The quicker tests, with arguments and results checked against their annotated shapes.
test-shapes: $(INSTALLED)
	$(PYTEST) --jaxtyping-packages=msdyn,typecheck.check -m "not slow" $(SHAPES)

check: $(INSTALLED) build/typecheck/msdyn/preprocess
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

$(INSTALLED): setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[test]'
	touch $@

# The folder preprocess/ is installed as msdyn.preprocess; pyright finds it there through this link.
build/typecheck/msdyn/preprocess:
	mkdir -p build/typecheck/msdyn
	touch build/typecheck/msdyn/__init__.py
	ln -sfn ../../../preprocess $@

clean:
	rm -rf .venv build out *.egg-info

# Two commands from a fresh clone: `make demo` and `make test`. Both make .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# One process per core, each with a contiguous part of the tests, which share fixtures. Threads that
# wait must not keep a core busy: that alone doubles the time.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n auto --dist worksteal

# Modules are compiled to bytecode where they are first imported (--no-compile below), which saves
# time, and the bytecode is kept, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=

# `make test SHAPES=yes` checks arguments and results against their annotated shapes in the quicker
# tests (tests/conftest.py says which).
ifdef SHAPES
PYTEST += --jaxtyping-packages=msdyn,typecheck.check
endif

.PHONY: demo test test-reliability audit check docs package clean

demo: $(INSTALLED)
	$(BIN)/msdyn-demo

test: $(INSTALLED)
	$(PYTEST)

test-reliability: $(INSTALLED)
	$(PYTEST) -m reliability

check: $(INSTALLED) build/typecheck/msdyn/preprocess
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# uv resolves and installs in a fifth of pip's time; torch is the one that pip finds, and pip does
# all of it where uv cannot, as behind an index of one's own. For Python 3.11 all packages but torch
# are those of the lock, by their hashes.
LOCKED := --no-deps --require-hashes -r requirements.lock
$(INSTALLED): setup.py constraints.txt requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile -c constraints.txt uv
	if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
		VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet $(LOCKED) || \
			$(BIN)/pip install --quiet --no-compile $(LOCKED); fi
	$(BIN)/pip install --quiet --no-compile -c constraints.txt torch
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet -c constraints.txt -e '.[test]' || \
		$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[test]'
	touch $@

# The documentation site, in build/site: open build/site/index.html, or, for its search too, see it
# by `python -m http.server -d build/site`. Warnings are errors, but not with --quiet.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

# Installed packages against the lock; `make audit ADVISORIES=PyPI-all.zip` also against a file of
# advisories (tools/audit.py). No registry is asked about any package.
audit: $(INSTALLED)
	$(BIN)/python tools/audit.py $(if $(ADVISORIES),--advisories $(ADVISORIES))

# The source archive, the wheel made of it, and a tiny demo from that wheel, in an environment that
# has nothing else.
PACKAGE_PIP := $(BIN)/pip --python build/package/env install --quiet --no-compile -c constraints.txt
package: $(INSTALLED)
	rm -rf build/package
	$(BIN)/uv build --quiet --out-dir build/package
	$(PYTHON) -m venv --without-pip build/package/env
	$(PACKAGE_PIP) torch
	VIRTUAL_ENV=build/package/env $(BIN)/uv pip install --quiet -c constraints.txt \
		build/package/*.whl || \
		$(PACKAGE_PIP) build/package/*.whl
	cd build/package && TQDM_DISABLE=1 env/bin/msdyn-demo \
		--frames 8 --width 96 --epochs 2 --out demo
	test -s build/package/demo/novel.mp4

# The folder preprocess/ is installed as msdyn.preprocess; pyright finds it there through this link.
build/typecheck/msdyn/preprocess:
	mkdir -p build/typecheck/msdyn
	touch build/typecheck/msdyn/__init__.py
	ln -sfn ../../../preprocess $@

clean:
	rm -rf .venv build out *.egg-info

# Every target sets itself up: python3 and make are all it needs; uv is used where it is found.
# What is installed is exactly what the locks in requirements/ say; `make lock` renews them.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= auto
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)

# Locked requirements need no resolution, so --no-deps; the project itself is then installed from
# this folder, built by the locked hatchling.
ifdef UV
PIP := $(UV) pip install --quiet --python $(BIN)/python
CREATE := $(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
else
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
CREATE := $(PYTHON) -m venv $(VENV)
endif

# Where this is set, each of the suite's hundreds of processes would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

PYRIGHT = $(BIN)/pyright --pythonpath $(BIN)/python
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

.PHONY: demo test test-fast lint format bench bench-quick docs notebooks versions newest lock clean

$(VENV)/.%: requirements/%.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "$(PYTHON) is older than Python 3.10; set PYTHON")'
	@test -x $(BIN)/python || $(CREATE)
	$(PIP) --no-deps --require-hashes --requirement requirements/$*.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/python -m tsmemory.demo $(ARGS)

# Lint and tests. Pyright runs beside mypy and then beside the tests: each leaves a core idle at
# times. What mypy has read, a test of the documentation reads again, so the tests wait for it.
test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@log=$$(mktemp); $(PYRIGHT) >$$log 2>&1 & pyright=$$!; trap "kill $$pyright" INT TERM; \
	$(BIN)/mypy && $(PYTEST) $(ARGS); tests=$$?; \
	wait $$pyright; types=$$?; cat $$log; rm $$log; exit $$((tests || types))

# What a change to the core, the mappings or the SQLite backend most likely breaks; under a minute.
test-fast: $(VENV)/.dev
	$(PYTEST) -m "not slow and not server" \
	  tests/core tests/backends/memory tests/backends/sqlite \
	  tests/adapters/langchain/test_lc_mapping.py tests/adapters/llamaindex/test_mapping.py $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYRIGHT)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Packages that only the benchmarks use, beside the environment; without them (no network), the
# benchmarks leave those peers out.
$(VENV)/.bench: requirements/bench.txt $(VENV)/.dev
	@mkdir -p $(VENV)/bench
	-$(PIP) --no-deps --require-hashes --target $(VENV)/bench --requirement requirements/bench.txt && touch $@

# Every engine beside the floor and the peers: 10 minutes on an idle machine, and it writes
# docs/benchmarks.md with its picture, and benchmarks.json. The quick one takes under 2 minutes.
# `python -m benchmarks.sqlite` and its siblings measure one engine in detail.
bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks --json benchmarks.json --report docs/benchmarks.md $(ARGS)

bench-quick: $(VENV)/.bench
	$(BIN)/python -m benchmarks --quick $(ARGS)

# The site, in site/; a warning is an error, and so is a link that leads nowhere.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet $(ARGS)

# Runs every notebook and keeps its outputs.
notebooks: $(VENV)/.dev
	$(BIN)/python -m notebooks.run $(ARGS)

# The adapters on the oldest supported frameworks; takes minutes.
versions: $(VENV)/.dev
	$(BIN)/python -m tests.versions $(ARGS)

# The adapters on today's newest releases, and a report of what those added; takes minutes.
newest: $(VENV)/.dev
	$(BIN)/python -m tests.versions newest $(ARGS)

# The newest releases that fit pyproject.toml, for every Python and platform, without an index's
# address. The demo's lock is a part of the development one.
LOCK = uv pip compile pyproject.toml --quiet --universal --python-version 3.10 --generate-hashes \
  --no-emit-index-url --custom-compile-command "make lock"
lock:
	@test -n "$(UV)" || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install --quiet uv; }
	PATH="$$PWD/.venv-lock/bin:$$PATH" $(LOCK) --upgrade --group dev --all-extras \
	  --output-file requirements/dev.txt
	PATH="$$PWD/.venv-lock/bin:$$PATH" $(LOCK) --constraint requirements/dev.txt --group build \
	  --extra demo --output-file requirements/demo.txt
	PATH="$$PWD/.venv-lock/bin:$$PATH" $(LOCK:pyproject.toml=requirements/bench.in) --upgrade --no-deps \
	  --no-annotate --output-file requirements/bench.txt

clean:
	rm -rf $(VENV) .venv-lock .demo dist site

# Every target sets itself up: python3 and make are all it needs; uv is used where it is found.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo test lint bench notebooks versions format clean

# One stamp for each set of extras; the last installed wins, and contains the smaller one.
$(VENV)/.demo: pyproject.toml
	@$(MAKE) --no-print-directory install EXTRAS=demo STAMP=$@

$(VENV)/.dev: pyproject.toml
	@$(MAKE) --no-print-directory install EXTRAS=dev STAMP=$@

.PHONY: install
install:
ifdef UV
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python --editable ".[$(EXTRAS)]"
else
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$(EXTRAS)]"
endif
	@touch $(STAMP)

demo: $(VENV)/.demo
	$(BIN)/python -m tsmemory.demo $(ARGS)

test: lint
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(ARGS)

# Runs every notebook and keeps its outputs.
notebooks: $(VENV)/.dev
	$(BIN)/python -m notebooks.run $(ARGS)

# The adapters on the oldest supported and the newest installable frameworks; takes minutes.
versions: $(VENV)/.dev
	$(BIN)/python -m tests.versions $(ARGS)

clean:
	rm -rf $(VENV) .demo dist

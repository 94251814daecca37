# Two commands to start with: `make demo` and `make test`. Both set up everything they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
DEMO ?= demo
WORKERS ?= 2
N ?= 100000
SEED ?= 0
TSC ?= tsc

.PHONY: help setup demo workstation node test test-all check bench fuzz format rooms clean

help:
	@echo "make setup     a virtual environment with .venv/bin/sightline"
	@echo "make demo      phantom cohort, unguided and guided trainings, table and report.html (under 6 CPU-minutes)"
	@echo "make workstation   opens the workstation on a demo cohort, in your browser"
	@echo "make node      a hospital's node with a small run, a PACS beside it, and a phantom study through both"
	@echo "make test      the tests (7 to 10 minutes on two cores);  make test-all  the slow ones too"
	@echo "make check     lint, formatting and strict types;         make bench     measure, as ratios"
	@echo "make rooms     docs/rooms.md, a line a file, from the modules' first lines"
	@echo "make fuzz      N spoilt inputs against every reader (100,000; SEED of its choice); docs/fuzz.md"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraint constraints.txt --editable '.[test,check,bench,web]'
	@touch $(STAMP)

demo: setup
	$(BIN)/sightline demo --out $(DEMO)

workstation: setup
	$(BIN)/sightline workstation --open --port 0

node: setup
	$(BIN)/python examples/node.py

# One thread a worker: two workers with two threads each on two cores wait for each other, at three times the time.
# Many tests start processes: compiled once, each of them starts in half the time.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --durations 15

test: setup
	$(PYTEST) -m "not slow and not gpu"

test-all: setup
	$(PYTEST) -m "not gpu"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if command -v $(TSC) >/dev/null; then $(TSC) -p tests/support/tsconfig.json; else echo "No tsc here: the page's scripts are not typed (npm install typescript)."; fi

fuzz: setup
	$(BIN)/python -m fuzz --inputs $(N) --seed $(SEED) --workers $(WORKERS)

rooms: setup
	$(BIN)/python tests/support/rooms.py

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.compiled_losses
	$(BIN)/python -m benchmarks.cheap_steps
	$(BIN)/python -m benchmarks.end_to_end --images 32 --epochs 3

clean:
	rm -rf $(VENV) $(DEMO) .pytest_cache .mypy_cache .ruff_cache

# make report   a report on MNIST (PRESET=smoke|quick|digits|full DATASET=auto|mnist|digits|FOLDER OUT=FOLDER OPEN=1)
# make test     all tests          make lint      style, types, imports  make notebook   open JupyterLab
# make sweep    a grid of settings (GRID=temperature DATASET=auto|mnist|digits|FOLDER JOBS=1)
# make bench    measure speed beside other libraries, an hour or so (SCOPE=full|smoke OUT=FOLDER)
# make stress   kill, damage, fill and attack it (COUNT=100: a quarter of an hour or so)
# make setup    .venv/ only; on Linux without a GPU, TORCH=cpu takes PyTorch's own, much smaller CPU builds
PYTHON ?= python3
TORCH ?= default
PRESET ?= quick
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.done
ifdef CONTRASTIVE_DATA
export CONTRASTIVE_DATA := $(abspath $(CONTRASTIVE_DATA))
endif
ifdef CONTRASTIVE_RUNS
export CONTRASTIVE_RUNS := $(abspath $(CONTRASTIVE_RUNS))
endif

.PHONY: setup report sweep test lint notebook bench stress readme lock clean
.DEFAULT_GOAL := report

setup: $(DONE)

$(DONE): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("error: Python 3.11 to 3.13 is needed, this is %d.%d; use make PYTHON=..." % v)'
	$(PYTHON) -m venv $(VENV)
ifeq ($(TORCH),cpu)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend cpu -c requirements.lock torch torchvision
endif
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	touch $@

report: setup
	$(BIN)/contrastive report --preset '$(PRESET)' $(if $(DATASET),--dataset '$(DATASET)') $(if $(OUT),--out '$(OUT)') $(if $(OPEN),--open)

sweep: setup
	$(BIN)/contrastive sweep '$(or $(GRID),temperature)' $(if $(DATASET),--dataset '$(DATASET)') --jobs '$(or $(JOBS),1)'

# a process for each core, a file at a time; on images as small as the tests' more threads only wait for each other
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: setup
	$(BIN)/ruff check lib tests notebooks benchmarks docs
	$(BIN)/ruff format --check lib tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

notebook: setup
	$(BIN)/jupyter lab --notebook-dir=.

# Compare what was measured within one run only; leave the machine alone meanwhile.
bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[bench]'
	$(BIN)/python -m benchmarks $(if $(SCOPE),--scope '$(SCOPE)') $(if $(OUT),--out '$(OUT)')

# Each row of its table has to be whole; needs Linux, and for the full disk root or `unshare -rm make stress`
stress: setup
	$(BIN)/python -m tests.stress $(if $(COUNT),--count '$(COUNT)')

# What is generated of README and docs/, README's picture, and reports/index.html, from the published reports
readme: setup
	$(BIN)/python docs/generate.py

# exact versions of everything, for all supported Pythons
lock:
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --extra bench --no-annotate --no-header --no-emit-index-url pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build lib/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find lib tests benchmarks docs -name __pycache__ -prune -exec rm -rf {} +

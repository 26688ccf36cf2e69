# `make help` says what each target does.
VENV := .venv
PYTHON := $(VENV)/bin/python
DIR ?=

.PHONY: help run test lint unit clean
help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --editable '.[dev,extraction]'
	@touch $@

lint: $(VENV)/.installed ## Style, types and import contract
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

unit: $(VENV)/.installed ## The whole test suite, in parallel
	$(PYTHON) -m pytest --numprocesses=auto --dist=worksteal

test: lint unit ## Everything CI checks

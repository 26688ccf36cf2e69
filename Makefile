# `make help` says what each target does.
VENV := .venv
PYTHON := $(VENV)/bin/python
# The newest interpreter that Callboard supports; `make PYTHON3=/path/to/python ...` chooses another.
PYTHON3 ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell command -v $(name) >/dev/null && $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
DIR ?=
SEEDS ?= 1000
PYTEST ?= --numprocesses=auto --dist=worksteal

.DEFAULT_GOAL := help
.PHONY: help run test lint unit simulate format docs clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

run: $(VENV)/.callboard ## Sync a sample folder into the built-in node and search it; `make run DIR=~/notes` takes yours
	@$(VENV)/bin/callboard demo $(if $(DIR),'$(DIR)')

test: lint unit ## Everything that must hold before a change lands

lint: $(VENV)/.development ## Style, types and who may import whom
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

unit: $(VENV)/.development ## The whole test suite, in parallel; `make unit PYTEST=tests/cli` runs a part
	$(PYTHON) -m pytest $(PYTEST)

simulate: $(VENV)/.development ## Simulated disasters; `make simulate SEEDS=100000` goes on for long, and where it was stopped
	$(PYTHON) -m tests.simulation --seeds $(SEEDS) --resume .simulation-$(SEEDS)

format: $(VENV)/.development ## Lay out the code as `lint` wants it
	$(VENV)/bin/ruff check --fix --quiet .
	$(VENV)/bin/ruff format .

docs: $(VENV)/.development ## Make the pages that come from the code anew
	$(PYTHON) -m callboard.cli.reference > docs/command-line.md.new && mv docs/command-line.md.new docs/command-line.md
	$(PYTHON) -m callboard.cli.generated_pages docs

clean: ## Remove everything that was made, the virtual environment too
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/pip:
	@test -n "$(PYTHON3)" || { echo "Callboard needs Python 3.11 or newer; install it, or name one: make PYTHON3=/path/to/python run"; exit 1; }
	@$(PYTHON3) -m venv $(VENV) || { echo "The venv module is missing; on Debian: sudo apt-get install python3-venv"; exit 1; }

$(VENV)/.callboard: pyproject.toml | $(VENV)/bin/pip
	@echo "Installing Callboard into $(VENV) (once) ..."
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[extraction]'
	@touch $@

$(VENV)/.development: pyproject.toml | $(VENV)/bin/pip
	@echo "Installing Callboard and its development tools into $(VENV) ..."
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.callboard

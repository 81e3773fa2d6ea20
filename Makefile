# Everything runs in the project's own .venv; beforehand only make and Python 3.10+ are needed.
PYTHON ?= python3
FUZZ_SECONDS ?= 60
PLUGIN := plugins/floe-orchestrator-dagster
BIN := $(CURDIR)/.venv/bin
COMPILE := floe platform compile --spec floe.yaml --manifest manifest.yaml \
	--output target/compiled_artifacts.json --generate-definitions
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-matrix fuzz check format clean

help: ## list these verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: .venv/.demo ## compile examples/shop with floe and build it through Dagster on DuckDB
	cd examples/shop && PATH="$(BIN):$$PATH" $(COMPILE)
	$(BIN)/floe-dagster run --lineage examples/shop

test: .venv/.dev ## run the tests that take minutes
	cd $(PLUGIN) && $(BIN)/python -m pytest -m "not heavy" --cov --cov-report=term:skip-covered $(ARGS)

test-all: .venv/.dev ## run every test, the heavy ones too
	cd $(PLUGIN) && $(BIN)/python -m pytest $(ARGS)

test-matrix: ## run the tests on every Python of this machine and on three Dagsters
	$(PYTHON) tests/matrix.py

fuzz: .venv/.dev ## fuzz what reads other people's bytes, FUZZ_SECONDS (60) each
	$(BIN)/pip install --quiet --disable-pip-version-check "atheris>=3"
	cd $(PLUGIN) && for reader in artifacts manifest spec line answer; do \
		$(BIN)/python tests/fuzz/fuzz_readers.py $$reader -max_total_time=$(FUZZ_SECONDS) \
			-rss_limit_mb=2048 -timeout=10 -print_final_stats=1 || exit 1; done

check: .venv/.dev ## lint, check formatting and types
	$(BIN)/ruff check $(PLUGIN) tests
	$(BIN)/ruff format --check $(PLUGIN) tests
	cd $(PLUGIN) && $(BIN)/mypy

format: .venv/.dev ## format the code
	$(BIN)/ruff check --fix $(PLUGIN) tests
	$(BIN)/ruff format $(PLUGIN) tests

clean: ## remove what these verbs made
	rm -rf .venv .venvs examples/*/target examples/*/logs

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up .venv ..."
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.demo: .venv/.python $(PLUGIN)/pyproject.toml constraints.txt
	@echo "Installing what the demo needs (a minute or two) ..."
	@$(INSTALL) -e "$(PLUGIN)[demo]"
	@touch $@

.venv/.dev: .venv/.python $(PLUGIN)/pyproject.toml constraints.txt
	@echo "Installing what the tests need (a minute or two) ..."
	@$(INSTALL) -e "$(PLUGIN)[dev]"
	@touch $@ .venv/.demo

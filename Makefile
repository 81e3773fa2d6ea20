# Everything runs in the project's own .venv; beforehand only make and Python 3.10+ are needed.
PYTHON ?= python3
FUZZ_SECONDS ?= 60
# Most of a test's time is dbt's, in a process of its own.
WORKERS ?= 2
PLUGIN := plugins/floe-orchestrator-dagster
BIN := $(CURDIR)/.venv/bin
COMPILE := floe platform compile --spec floe.yaml --manifest manifest.yaml \
	--output target/compiled_artifacts.json --generate-definitions
# floe-core's datacontract-cli declares no Python 3.13, and runs on it; all else is pinned for it.
BEYOND = $(shell $(BIN)/python -c 'import sys; print("--ignore-requires-python" * (sys.version_info >= (3, 13)))')
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(BEYOND)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-charts test-image test-wheel test-matrix conformance docs chart-docs wheel bench bench-quick fuzz check format clean

help: ## list these verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: .venv/.demo ## compile examples/shop with floe and build it through Dagster on DuckDB
	cd examples/shop && PATH="$(BIN):$$PATH" $(COMPILE)
	$(BIN)/floe-dagster run --lineage examples/shop

test: .venv/.dev ## run the tests that take minutes
	cd $(PLUGIN) && $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not heavy and not charts" $(ARGS)

test-all: .venv/.dev ## run every test, the heavy ones too, and tell what they cover
	cd $(PLUGIN) && $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term:skip-covered $(ARGS)

test-charts: .venv/.dev ## test the chart with helm 3.17 and 4.3, Kubernetes 1.28 to 1.37, three Dagsters
	cd $(PLUGIN) && $(BIN)/python -m pytest tests/integration/test_charts.py $(ARGS)

test-image: .venv/.dev ## build a product's image with Docker and run it (needs a Docker daemon)
	cd $(PLUGIN) && $(BIN)/python -m pytest ../../tests/image -s $(ARGS)

test-wheel: .venv/.dev ## build the wheel, install it alone, and run the contract tests against it
	cd $(PLUGIN) && $(BIN)/python -m pytest ../../tests/wheel $(ARGS)

conformance: .venv/.dev ## check against others' data, where given: CHART_DATA=DIR, OPENLINEAGE_SPEC=DIR
	@test -n "$(CHART_DATA)$(OPENLINEAGE_SPEC)" \
		|| { echo "Nothing to check against: give CHART_DATA=DIR or OPENLINEAGE_SPEC=DIR."; exit 2; }
ifneq ($(CHART_DATA),)
	cd $(PLUGIN) && CHART_DATA="$(abspath $(CHART_DATA))" \
		$(BIN)/python -m pytest ../../tests/conformance/test_official_chart.py $(ARGS)
endif
ifneq ($(OPENLINEAGE_SPEC),)
	cd $(PLUGIN) && OPENLINEAGE_SPEC="$(abspath $(OPENLINEAGE_SPEC))" \
		$(BIN)/python -m pytest -n $(WORKERS) tests/integration/test_lineage.py $(ARGS)
endif

wheel: .venv/.dev ## build the wheel into dist; TAG=v1.2.3 refuses a wheel of another version
	rm -rf dist
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist $(PLUGIN)
ifneq ($(TAG),)
	@test -f "dist/floe_orchestrator_dagster-$(TAG:v%=%)-py3-none-any.whl" \
		|| { echo "The tag $(TAG) is not the version of pyproject.toml: $$(ls dist)"; exit 1; }
endif

docs: .venv/.dev ## write what is generated of the documents: architecture, rooms, indexes, READMEs
	$(BIN)/python tools/write_docs.py
	$(BIN)/python tools/chart_readme.py

chart-docs: .venv/.dev ## write the table of values in the chart's README
	$(BIN)/python tools/chart_readme.py

test-matrix: ## run the tests that mind the version on every Python here and on three Dagsters
	$(PYTHON) tools/matrix.py

bench: .venv/.dev ## measure against bare dbt, raw dagster-dbt and the last release (hours)
	$(BIN)/python -m benchmarks $(ARGS)

bench-quick: .venv/.dev ## measure what takes less than five minutes
	$(BIN)/python -m benchmarks --quick $(ARGS)

fuzz: .venv/.dev ## fuzz what reads other people's bytes, FUZZ_SECONDS (60) each
	$(BIN)/pip install --quiet --disable-pip-version-check "atheris>=3"
	cd $(PLUGIN) && for reader in artifacts manifest spec line answer; do \
		$(BIN)/python tests/fuzz/fuzz_readers.py $$reader -max_total_time=$(FUZZ_SECONDS) \
			-rss_limit_mb=2048 -timeout=10 -print_final_stats=1 || exit 1; done

check: .venv/.dev ## lint, check formatting and types
	$(BIN)/ruff check $(PLUGIN) tests tools benchmarks
	$(BIN)/ruff format --check $(PLUGIN) tests tools benchmarks
	cd $(PLUGIN) && $(BIN)/mypy

format: .venv/.dev ## format the code
	$(BIN)/ruff check --fix $(PLUGIN) tests tools benchmarks
	$(BIN)/ruff format $(PLUGIN) tests tools benchmarks

clean: ## remove what these verbs made
	rm -rf .venv .venvs dist benchmarks/work examples/*/target examples/*/logs

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

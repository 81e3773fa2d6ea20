# Everything runs in the project's own .venv. Only make and Python 3.10+ must be installed.
PYTHON ?= python3
FUZZ_SECONDS ?= 60
# Most of the time of a test passes in a dbt process.
WORKERS ?= 2
PLUGIN := plugins/floe-orchestrator-dagster
BIN := $(CURDIR)/.venv/bin
COMPILE := floe platform compile --spec floe.yaml --manifest manifest.yaml \
	--output target/compiled_artifacts.json --generate-definitions
# datacontract-cli, which floe-core needs, does not declare Python 3.13 but runs on it. All other
# packages have pinned versions for it.
BEYOND = $(shell $(BIN)/python -c 'import sys; print("--ignore-requires-python" * (sys.version_info >= (3, 13)))')
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(BEYOND)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-charts test-image test-wheel test-matrix conformance docs chart-docs wheel bench bench-quick fuzz check format clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: .venv/.demo ## compile examples/shop with floe and build it through Dagster on DuckDB
	cd examples/shop && PATH="$(BIN):$$PATH" $(COMPILE)
	$(BIN)/floe-dagster run --lineage examples/shop

test: .venv/.dev ## run the tests, without the slow ones (minutes)
	cd $(PLUGIN) && $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not heavy and not charts" $(ARGS)

test-all: .venv/.dev ## run every test, also the slow ones, and report their coverage
	cd $(PLUGIN) && $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term:skip-covered $(ARGS)

test-charts: .venv/.dev ## test the chart with helm 3.17 and 4.3, Kubernetes 1.28 to 1.37 and three Dagsters
	cd $(PLUGIN) && $(BIN)/python -m pytest tests/integration/test_charts.py $(ARGS)

test-image: .venv/.dev ## build a product's image with Docker and run it (needs a Docker daemon)
	cd $(PLUGIN) && $(BIN)/python -m pytest ../../tests/image -s $(ARGS)

test-wheel: .venv/.dev ## build the wheel, install it alone, and run the contract tests against it
	cd $(PLUGIN) && $(BIN)/python -m pytest ../../tests/wheel $(ARGS)

conformance: .venv/.dev ## test against external data: CHART_DATA=DIR, OPENLINEAGE_SPEC=DIR
	@test -n "$(CHART_DATA)$(OPENLINEAGE_SPEC)" \
		|| { echo "There is no data to test against. Set CHART_DATA=DIR or OPENLINEAGE_SPEC=DIR."; exit 2; }
ifneq ($(CHART_DATA),)
	cd $(PLUGIN) && CHART_DATA="$(abspath $(CHART_DATA))" \
		$(BIN)/python -m pytest ../../tests/conformance/test_official_chart.py $(ARGS)
endif
ifneq ($(OPENLINEAGE_SPEC),)
	cd $(PLUGIN) && OPENLINEAGE_SPEC="$(abspath $(OPENLINEAGE_SPEC))" \
		$(BIN)/python -m pytest -n $(WORKERS) tests/integration/test_lineage.py $(ARGS)
endif

wheel: .venv/.dev ## build the wheel into dist; with TAG=v1.2.3, fail if the version differs
	rm -rf dist
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist $(PLUGIN)
ifneq ($(TAG),)
	@test -f "dist/floe_orchestrator_dagster-$(TAG:v%=%)-py3-none-any.whl" \
		|| { echo "Cannot release $(TAG): this built $$(ls dist). Use the tag of the version in pyproject.toml."; exit 1; }
endif

docs: .venv/.dev ## write the generated documents: architecture, rooms, indexes, READMEs
	$(BIN)/python tools/write_docs.py
	$(BIN)/python tools/chart_readme.py

chart-docs: .venv/.dev ## write the table of values in the chart's README
	$(BIN)/python tools/chart_readme.py

test-matrix: ## run the tests that depend on versions, on every installed Python and three Dagsters
	$(PYTHON) tools/matrix.py

bench: .venv/.dev ## measure against bare dbt, raw dagster-dbt and the last release (hours)
	$(BIN)/python -m benchmarks $(ARGS)

bench-quick: .venv/.dev ## run the measurements that take less than five minutes
	$(BIN)/python -m benchmarks --quick $(ARGS)

fuzz: .venv/.dev ## fuzz the readers of untrusted bytes, FUZZ_SECONDS (60) each
	$(BIN)/pip install --quiet --disable-pip-version-check "atheris>=3"
	cd $(PLUGIN) && for reader in artifacts manifest spec line answer; do \
		$(BIN)/python tests/fuzz/fuzz_readers.py $$reader -max_total_time=$(FUZZ_SECONDS) \
			-rss_limit_mb=2048 -timeout=10 -print_final_stats=1 || exit 1; done

check: .venv/.dev ## lint the code, and check its format and types
	$(BIN)/ruff check $(PLUGIN) tests tools benchmarks
	$(BIN)/ruff format --check $(PLUGIN) tests tools benchmarks
	cd $(PLUGIN) && $(BIN)/mypy

format: .venv/.dev ## format the code
	$(BIN)/ruff check --fix $(PLUGIN) tests tools benchmarks
	$(BIN)/ruff format $(PLUGIN) tests tools benchmarks

clean: ## remove everything that these commands created
	rm -rf .venv .venvs dist benchmarks/work examples/*/target examples/*/logs

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Cannot set up .venv: $(PYTHON) is missing or older than Python 3.10. Name another: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up .venv ..."
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.demo: .venv/.python $(PLUGIN)/pyproject.toml constraints.txt
	@echo "Installing the packages of the demo (a minute or two) ..."
	@$(INSTALL) -e "$(PLUGIN)[demo]"
	@touch $@

.venv/.dev: .venv/.python $(PLUGIN)/pyproject.toml constraints.txt
	@echo "Installing the packages of the tests (a minute or two) ..."
	@$(INSTALL) -e "$(PLUGIN)[dev]"
	@touch $@ .venv/.demo

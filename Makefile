# Each target sets up what it needs, from a fresh clone with Python 3.11 or newer.
# `make` alone lists the targets; ARGS="..." goes on to the command behind one.

PYTHON ?= python3
ARGS ?=

VERSION := $(shell $(PYTHON) -c 'import sys; v = sys.version_info[:2]; v < (3, 11) or print("%d.%d" % v)' 2>/dev/null)
DEV := .venv-$(VERSION)
DEMO := .venv-$(VERSION)-demo

# What the tests talk to; a fixture finds the same defaults without make.
export ANTIPHON_TEST_REDIS ?= redis://127.0.0.1:6379/0
export ANTIPHON_TEST_POSTGRES ?= postgresql://postgres@127.0.0.1:5432/test
export ANTIPHON_TEST_CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
NODE_MODULES := $(if $(shell command -v node >/dev/null && command -v npm),tests/js/node_modules/.ready)

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

.PHONY: demo
demo: $(DEMO)/.ready ## Server, chat backend and two users on this machine (ARGS=--once: play it and leave)
	@$(DEMO)/bin/antiphon demo $(ARGS)

.PHONY: test
test: $(DEV)/.ready $(NODE_MODULES) ## All tests, in two halves side by side (ARGS="tests/protocol -x": some of them)
	@missed=$$($(DEV)/bin/python -c "$$PROBE") || exit; \
	$(DEV)/bin/$(if $(ARGS),pytest $(ARGS),python -m tests.halves); status=$$?; \
	test -z "$$missed" || echo "Not found on this machine, so not tested with it: $$missed."; \
	test -z "$$missed" || test "$$CI" != true || { echo "In CI that is a failure."; exit 1; }; \
	exit $$status

.PHONY: coverage
coverage: $(DEV)/.ready ## Every branch of protocol/, by its own tests
	@$(DEV)/bin/coverage run --source=antiphon -m pytest -q tests/protocol
	@$(DEV)/bin/coverage report --include='*/antiphon/protocol/*' --fail-under=100

.PHONY: check
check: format lint layers types ## Format, lint, layers and types

.PHONY: format lint layers types
format: $(DEV)/.ready
	@$(DEV)/bin/ruff format --check
lint: $(DEV)/.ready
	@$(DEV)/bin/ruff check
layers: $(DEV)/.ready
	@$(DEV)/bin/lint-imports --no-logo
types: $(DEV)/.ready
	@$(DEV)/bin/mypy

.PHONY: fix
fix: $(DEV)/.ready ## Let ruff format and repair the code
	@$(DEV)/bin/ruff check --fix
	@$(DEV)/bin/ruff format

.PHONY: bench
bench: $(DEV)/.ready ## Run the benchmarks
	@$(DEV)/bin/python -m benchmarks $(ARGS)

.PHONY: screenshots
screenshots: $(DEV)/.ready ## The app's screens and states, as pictures in docs/images/ (ARGS="chat list": some of them); and the console
	@$(DEV)/bin/python -m tests.app.screenshots $(ARGS)
	@[ -n "$(ARGS)" ] || $(DEV)/bin/python -m tests.server.console_screenshots

.PHONY: docs
docs: $(DEV)/.ready ## The guide and the reference, as pages in site/
	@NO_MKDOCS_2_WARNING=1 $(DEV)/bin/mkdocs build --strict $(ARGS) # --quiet would let warnings pass
	@echo "· site/index.html"

.PHONY: lock
lock: $(DEV)/.tools ## Write requirements/*.lock anew (ARGS=--upgrade: with the newest versions)
	@$(COMPILE) $(ARGS) requirements/tools.in --output-file requirements/tools.lock
	@$(COMPILE) $(ARGS) pyproject.toml --all-extras --group test --group check --group docs \
		--constraints requirements/tools.lock --output-file requirements/dev.lock
	@$(COMPILE) pyproject.toml --extra cli --extra server --extra backend --extra app \
		--constraints requirements/dev.lock --output-file requirements/demo.lock
	@$(COMPILE) $(ARGS) requirements/peers.in --output-file requirements/peers.lock
	@cd tests/js && npm install --package-lock-only --loglevel=error >/dev/null

.PHONY: clean
clean: ## Remove all that make made
	@rm -rf .venv-* tests/js/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache \
		.hypothesis .coverage .coverage.* dist site
	@find . -name .venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

# A virtual environment holds what its locks say and nothing else: pip brings uv, uv the rest, hashes are compared.
# uv does not read pip's settings, so it is told which index pip uses.
uv = UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$($(1)/bin/pip config list | sed -n "s/^[a-z:]*\.index-url='\(.*\)'$$/\1/p" | sed q)}" \
	$(1)/bin/uv pip
COMPILE = $(call uv,$(DEV)) compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

$(DEV)/.tools $(DEMO)/.tools: %/.tools: requirements/tools.lock
	$(if $(VERSION),,$(error antiphon needs Python 3.11 or newer, and "$(PYTHON)" is not: name one with PYTHON=python3.12))
	@echo "· $*: new virtual environment, $$($(PYTHON) -V)"
	@rm -rf $*
	@$(PYTHON) -m venv $*
	@$*/bin/pip install -qq --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

$(DEV)/.ready: requirements/dev.lock
$(DEMO)/.ready: requirements/demo.lock
$(DEV)/.ready $(DEMO)/.ready: %/.ready: %/.tools pyproject.toml src/antiphon/_version.py
	@echo "· $*: $(filter %.lock,$^), antiphon"
	@$(call uv,$*) sync --quiet --python $* --require-hashes requirements/tools.lock $(filter %.lock,$^)
	@$(call uv,$*) install --quiet --python $* --no-deps --no-build-isolation --editable .
	@touch $@

tests/js/node_modules/.ready: tests/js/package.json tests/js/package-lock.json
	@echo "· tests/js: the JavaScript clients"
	@cd tests/js && npm ci --ignore-scripts --loglevel=error >/dev/null
	@touch $@

# Prints what of Redis, PostgreSQL, Node and Chromium is not there.
define PROBE
import asyncio, os, shutil
import asyncpg, redis

async def ask_postgres():
    connection = await asyncpg.connect(os.environ["ANTIPHON_TEST_POSTGRES"], timeout=3)
    await connection.close()

def answers(ask):
    try:
        return bool(ask())
    except (OSError, asyncpg.PostgresError, redis.RedisError):
        return False

asks = {
    "Redis": lambda: redis.Redis.from_url(os.environ["ANTIPHON_TEST_REDIS"], socket_timeout=3).ping(),
    "PostgreSQL": lambda: asyncio.run(ask_postgres()) is None,
    "redis-server": lambda: shutil.which("redis-server"),
    "Node": lambda: os.path.exists("$(NODE_MODULES)"),
    "Chromium": lambda: shutil.which(os.environ["ANTIPHON_TEST_CHROMIUM"]),
}
print(", ".join(name for name, ask in asks.items() if not answers(ask)))
endef
export PROBE

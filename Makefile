# Every target makes the environment it needs; none needs another to have run before.
.DEFAULT_GOAL := help
.PHONY: help install dev demo test check style types contracts protos rules fix proto lock bench clean

# Two workers: the suite waits for sockets more than it computes. WORKERS=0 runs it in one process, for a debugger.
WORKERS ?= 2
ARGS ?=
BIN := .venv/bin

help: ## shows this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## makes .venv with the gateway, all extras and the embedded models in it
	@requirements/install

dev:
	@requirements/install dev

demo: install ## starts the gateway on its embedded model and streams one answer over REST and one over gRPC
	@$(BIN)/twinspan demo $(ARGS)

test: dev ## runs the whole suite; ARGS="-k name" runs part of it
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# With -k, as CI runs it, one failing part does not hide the others.
check: style types contracts protos rules ## style, types, import contracts, protos, generated code, links, locks

style: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: dev
	$(BIN)/mypy

contracts: dev
	$(BIN)/lint-imports --no-cache

protos: dev
	.ci/proto lint
	.ci/proto breaking
	.ci/proto check

rules: dev
	$(BIN)/python -m pytest -q tests/project

fix: dev ## mends what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

proto: dev ## writes the generated Python beside its protos
	.ci/proto write

lock: install ## makes requirements/*.txt anew from pyproject.toml; ARGS=--upgrade moves to the newest versions
	requirements/lock $(ARGS)

bench: dev ## measures the gateway; see docs/performance.md
	@$(BIN)/python -m bench $(ARGS)

clean: ## removes everything that the targets above made
	rm -rf .venv .make .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build tests/clients/node/node_modules
	find gateway bridge proto tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# The verbs of this project, the same for people and in CI. `make help` lists them.

VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 0-1999
NODES ?= 1
DEMO_EXIT ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test check lint format sim bench docs proto clean distclean venv venv-dev

help: ## Show this
	@echo "ss-govern: what you can make"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 20
	@echo
	@echo "Start with: make run"

venv:
	@scripts/venv.sh run

venv-dev:
	@scripts/venv.sh dev

run: venv ## Set up, start NODES=1 nodes, show what they do, stay until Ctrl-C (DEMO_EXIT=1: leave)
	@echo "==> run: a demonstration in .run/"
	@$(BIN)/ss-govern demo --data-dir .run --nodes $(NODES) $(if $(DEMO_EXIT),--exit) $(ARGS)

test: venv-dev ## All that CI runs: lint, every test, simulation
	@scripts/test.sh all

check: venv-dev ## What to run at every change: lint and the fast tests, under two minutes
	@scripts/test.sh check

lint: venv-dev ## Style, types, import contracts, generated code
	@scripts/test.sh lint

format: venv-dev ## Rewrite the code in the project's format
	@echo "==> format: ruff"
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet . || true

sim: venv-dev ## Simulate with many seeds: make sim SEEDS=0-1999
	@echo "==> sim: seeds $(SEEDS); a failure prints the seed that reproduces it"
	@$(BIN)/python -m ssgovern.sim --seeds $(SEEDS) $(ARGS)

bench: venv-dev ## Measure against etcd and ZooKeeper, print the table
	@echo "==> bench: this takes some minutes and wants a machine with nothing else to do"
	@$(BIN)/python -m benchmarks $(ARGS)

docs: venv-dev ## Check the documents: every link leads somewhere
	@echo "==> docs: links"
	@$(BIN)/python scripts/check_docs.py

proto: venv-dev ## Generate the protobuf code from proto/
	@echo "==> proto: src/ssgovern/wire/pb"
	@$(BIN)/python scripts/generate_protobuf.py

clean: ## Remove what runs and checks left behind
	@echo "==> clean: caches, .run, .bench, dist"
	@rm -rf .run .bench dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## The same, and the virtual environment
	@echo "==> distclean: $(VENV)"
	@rm -rf $(VENV)

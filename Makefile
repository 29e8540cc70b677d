# Plain `make` lists the targets. Every target sets up .venv first, once.

VENV := .venv
PY := $(VENV)/bin/python
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test coverage test-nightly test-toolchains test-fpga check bench docs format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

demo: ## the whole loop on this machine: convert, roll out, stop a bad release (ARGS=--once ends by itself)
	@scripts/setup demo
	@exec $(VENV)/bin/edgeml demo $(ARGS)

test: ## all tests (ARGS passes options to pytest)
	@scripts/setup test
	@scripts/test $(ARGS)

coverage: ## the same with what they cover, and its floor; a third slower
	@scripts/setup test
	@scripts/test --coverage $(ARGS)

test-nightly: ## what takes hours: 1,000 kills at random, a million records, every step of an update (EDGEML_KILLS=100 for fewer)
	@scripts/setup test
	@$(PY) -m pytest -m nightly $(ARGS)

check: ## lint, types and import contracts: seconds
	@scripts/setup check
	@scripts/check

test-toolchains: ## the vendors' compilers that are too large for every submission (several GB to download)
	@scripts/setup test
	@$(PY) -m pytest -m toolchains $(ARGS)

test-fpga: ## networks of MLPerf Tiny on the gateware in Verilator, and bitstreams for ECP5 (EDGEML_MODELS names the models)
	@scripts/setup test
	@$(PY) -m pytest -m fpga $(ARGS)

bench: ## every benchmark, as one page (ARGS=--quick for a minute each)
	@scripts/setup bench
	@$(PY) -m benchmarks $(ARGS)

docs: ## rebuild the generated parts of the docs
	@scripts/setup check
	@$(PY) scripts/generate_docs.py

format: ## rewrite the code in the project's format
	@scripts/setup check
	@$(VENV)/bin/ruff check --fix --quiet . ; $(VENV)/bin/ruff format .

clean: ## remove the environment, caches and demo output
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* build dist .edgeml
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

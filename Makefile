# Every target but gpu first makes the environment when it is missing, so each works on a bare machine.
PYTHON  ?= python3
VENV    ?= .venv
STAMP   := $(VENV)/.installed
BIN     := $(VENV)/bin

# `make demo` settings
FROM    ?= pretrained
MINUTES ?= 2
OUT     ?= runs/demo

# Processes of `make test`, each with one thread
WORKERS ?= 2

# What `make bench` and `make gpu` hand on
BENCH   ?=
GPU     ?=

.DEFAULT_GOAL := help
# `make fuzz` settings: seconds and most inputs for each target, which targets (all if empty)
SECONDS ?= 300
INPUTS  ?= 100000
TARGETS ?=

.PHONY: help install demo test lint bench gpu docs test-min fuzz dist-check audit clean

help: ## Show this list
	@echo "usage: make TARGET"
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  %-12s%s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(STAMP) ## Make the environment in .venv (again whenever pyproject.toml changes)

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null \
		|| { echo "error: no $(PYTHON) here; install Python 3.10 or newer, or name it: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "error: $(PYTHON) is older than Python 3.10; name a newer one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "error: '$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@echo "Installing into $(VENV) (the first time downloads PyTorch, some minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(STAMP) ## Pack photos, train, test, inpaint, report (FROM=pretrained|scratch MINUTES=2 OUT=runs/demo)
	@$(BIN)/sdm demo --start $(FROM) --minutes $(MINUTES) --output $(OUT)

test: $(STAMP) ## Run the tests (WORKERS=2; a CPU is enough, nothing is downloaded)
	@$(BIN)/python -m pytest -q -n $(WORKERS)

test-min: ## Run the tests with the oldest versions that pyproject.toml allows (in .venv-min; OLDEST=python3.10)
	@scripts/test_min.sh

fuzz: $(STAMP) ## Feed damaged input to every parser and command that reads files (SECONDS=300 INPUTS=100000 TARGETS=tar,...)
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --inputs $(INPUTS) $(if $(TARGETS),--targets $(TARGETS))

dist-check: $(STAMP) ## Build wheel and sdist, install the wheel cleanly, run its demo and smoke tests
	@PYTHON=$(abspath $(BIN)/python) scripts/dist_check.sh

audit: $(STAMP) ## List known vulnerabilities (needs a network) and licences of what is installed
	@PYTHON=$(abspath $(BIN)/python) scripts/audit.sh

lint: $(STAMP) ## Check style, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(STAMP) ## Measure speed and memory beside their limits (BENCH="startup data": a part)
	@$(BIN)/python -m benchmarks $(BENCH)

# Installs nothing: a machine with a GPU may have no network, and packages of its own.
gpu: ## On a GPU, in eight minutes: its tests, figures, more training (GPU="--minutes 5 --output runs/gpu")
	@$(or $(wildcard $(BIN)/python),$(PYTHON)) -m benchmarks.gpu $(GPU)

docs: $(STAMP) ## Build the documentation into site/ (nothing is downloaded)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "Open site/index.html, or with search: $(BIN)/python -m http.server -d site"

clean: ## Remove the environment, the built documentation and caches; runs/ stays
	rm -rf $(VENV) .venv-min build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

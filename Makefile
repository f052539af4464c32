# The words of this repository.  `make` alone lists them.
#
# A fresh machine needs Python 3.11 or newer (with venv), a C compiler and make; the rest is
# installed into .venv from the pinned versions in requirements/.

PYTHON ?=
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest

ADDRESS := 127.0.0.1:20000

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help run test test-full soak check format bench docs clean

help: ## list these words
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-10s %s\n", $$1, $$2 }'

run: $(VENV)/.run ## install what is needed and serve echo on 127.0.0.1:20000
	@exec $(BIN)/moorage serve echo --bind $(ADDRESS)

test: $(VENV)/.dev ## install what is needed and run the tests (less than five minutes)
	$(PYTEST) -n 3 -m "not full"

test-full: $(VENV)/.dev ## run every test but the soak: long loads, floods and attacks too
	$(PYTEST) -m "not soak"

soak: $(VENV)/.dev ## ten minutes of mixed load for each hub, side by side
	$(PYTEST) -n 2 -rP -m soak

check: $(VENV)/.dev ## lint, format, types, and that the generated pages are current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

format: $(VENV)/.dev ## put the code into its format and write the generated pages anew
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/generate.py

bench: $(VENV)/.bench ## measure against the rivals, side by side on this machine
	$(BIN)/python -m bench.run $(SCENARIO)

docs: $(VENV)/.docs ## build the documentation into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

clean: ## remove everything that make has made
	rm -rf $(VENV) docs/_build build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -rf src/*.egg-info src/moorage/_native/*.so src/moorage/_native/*.c

# --- the environment: one stamp per requirement file, so that a second run installs nothing ---

# The first of these that is Python 3.11 or newer; `make PYTHON=/path/to/python` decides otherwise.
CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14 python)

$(BIN)/python:
	@for python in $(CANDIDATES); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	      echo "$$python cannot make a virtual environment: install its venv package (Debian: apt-get install python3-venv)." >&2; \
	      exit 1; \
	    fi; \
	    "$$python" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; \
	    exit 0; \
	  fi; \
	done; \
	echo "Moorage needs Python 3.11 or newer, and none was found among: $(CANDIDATES). Name one: make PYTHON=/path/to/python" >&2; \
	exit 1

# What the extension is built of: when one of these changes, the next word builds it anew.
NATIVE := setup.py $(wildcard src/moorage/_native/*.pyx src/moorage/_native/*.pxi)

$(VENV)/.run: requirements/run.txt pyproject.toml $(NATIVE) | $(BIN)/python
	$(PIP) install -r requirements/run.txt
	@rm -f src/moorage/_native/*.so    # a build that fails leaves none, not an old one
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev $(VENV)/.docs $(VENV)/.bench: $(VENV)/.%: requirements/%.txt $(VENV)/.run
	$(PIP) install -r $<
	@touch $@

# A fresh machine needs git, make and Python 3.11 or newer with venv; everything else is installed into $(VENV).
#   make run                 the relay with its lab; RUN_ARGS=--once ends after one round
#   make test                lint, types and every test that is not marked `long`
#   make test-long           the tests of minutes and hours
#   make test-compose        the lab of docker-compose.yml, really run; root can do without a Docker engine
#   make bench               messages a second, beside Postfix in the same run; BENCH_ARGS="--messages 2000"
#                            BENCH=tests.bench.judge: what a verdict and a DNS look-up cost
#                            BENCH=tests.bench.neighbours: what bad destinations cost good ones
#                            BENCH=tests.bench.door: what a client's session costs by itself
#                            BENCH=tests.bench.link: over a link of 50 ms; BENCH=tests.bench.flat: as queue, destinations, map grow
#                            BENCH=tests.bench.soak: half an hour of churn; does anything grow?
VENV ?= .venv
RUN_ARGS ?=
TEST_ARGS ?=
BENCH ?= tests.bench
BENCH_ARGS ?=
PY = $(VENV)/bin/python

.PHONY: run test test-long test-compose lint bench clean

run: $(VENV)/.installed
	@exec $(VENV)/bin/dane-relay lab $(RUN_ARGS)

test: lint
	@$(PY) -m pytest -m "not long and not compose" $(TEST_ARGS)

test-long: $(VENV)/.installed-dev
	@$(PY) -m pytest -m long $(TEST_ARGS)

test-compose: $(VENV)/.installed-dev
	@$(PY) -m pytest -m compose tests/compose -s $(TEST_ARGS)

lint: $(VENV)/.installed-dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

bench: $(VENV)/.installed-dev
	@$(PY) -m $(BENCH) $(BENCH_ARGS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis bench-result.json bench-*-result.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are older than pyproject.toml when what it asks for has changed; nothing else makes pip run again.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing the relay into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing the relay and its development tools into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed

# A candidate is run, not only looked up: a version manager's shim exists without working, and Debian's python3 comes
# without ensurepip until python3-venv is there.
$(VENV)/bin/python:
	@for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	    if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "Making $(VENV) with $$("$$candidate" --version)"; \
	        "$$candidate" -m venv --clear "$(VENV)" && exit 0 || exit 1; \
	    fi; \
	done; \
	echo "No Python 3.11 or newer with venv was found: install one (Debian: apt-get install python3 python3-venv)" \
	    "or name it: make PYTHON=/path/to/python3" >&2; exit 1

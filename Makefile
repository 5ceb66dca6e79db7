# Every target sets up what it needs: a virtual environment in .venv, from hashed lock files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := $(VENV)/uv/bin/uv
AUDIT := $(VENV)/audit/bin/pip-audit

# Where this is set, each process would compile all modules anew: seconds of each command, minutes of the tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check audit bench bench-quick lock clean

help:
	@echo "make demo    everything on a small generated data set (a minute)"
	@echo "make test    all tests"
	@echo "make check   formatting, lint, types"
	@echo "make audit   known weaknesses of the locked dependencies, asked from osv.dev"
	@echo "make bench   benchmarks, as ratios against a reference of the same run; make bench-quick: small sizes"
	@echo "make lock    resolve the dependencies anew"
	@echo "make clean   remove the virtual environment and what demo made"

# uv has an environment of its own, so that the project's holds nothing but the project's packages.
$(UV): requirements-uv.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "affwild2 needs Python 3.11 or newer, found " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)/uv
	$(VENV)/uv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@touch $@

$(STAMP): $(UV) requirements.lock pyproject.toml $(wildcard tests/models/weight_files/old_timm/*.txt) tests/infra/dask_kubernetes/requirements.txt
	$(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@for release in 0.4.5 0.9.16; do \
	  $(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes --target $(VENV)/old-timm/$$release \
	    -r tests/models/weight_files/old_timm/requirements-$$release.txt || exit 1; \
	done
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes --target $(VENV)/dask-kubernetes \
	  -r tests/infra/dask_kubernetes/requirements.txt
	@touch $@

demo: $(STAMP)
	$(BIN)/affwild2 demo

test: $(STAMP)
	$(BIN)/python -m pytest -q --durations=10 --numprocesses logical --maxprocesses 4 \
	  --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# An environment of its own, as uv has. It sends names and versions, nothing else. Ends with code 1 if it finds anything;
# what was looked at and found harmless: make audit AUDIT_FLAGS='--ignore-vuln ID'.
$(AUDIT): $(UV) requirements-audit.lock
	$(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV)/audit
	$(UV) pip install --quiet --python $(VENV)/audit/bin/python --require-hashes -r requirements-audit.lock
	@touch $@

audit: $(AUDIT)
	@code=0; for lock in requirements.lock requirements-uv.lock requirements-audit.lock; do \
	  echo "$$lock"; \
	  $(AUDIT) --vulnerability-service osv --disable-pip --strict --progress-spinner off $(AUDIT_FLAGS) \
	    --requirement $$lock || code=1; \
	done; exit $$code

bench: $(STAMP)
	$(BIN)/python tests/benchmarks/run_benchmarks.py

bench-quick: $(STAMP)
	$(BIN)/python tests/benchmarks/run_benchmarks.py --quick

lock: $(UV)
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --extra demo --extra dev --extra export pyproject.toml --output-file requirements.lock
	echo uv | $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate --no-emit-index-url - --output-file requirements-uv.lock
	echo pip-audit | $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate --no-emit-index-url - --output-file requirements-audit.lock

clean:
	rm -rf $(VENV) demo build *.egg-info

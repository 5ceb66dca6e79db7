# Every target first installs what it needs into .venv, from hashed lock files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
STAMP := $(VENV)/.installed
SERVICES := $(VENV)/services
UV := $(VENV)/uv/bin/uv
AUDIT := $(VENV)/audit/bin/pip-audit

# If this is set, each process compiles all modules again, for seconds per command and minutes of the tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-services browser npm check check-alerts audit compare-videos gallery bench bench-quick lock clean

help:
	@echo "make demo           run everything on a small generated data set (a minute)"
	@echo "make test           run the tests"
	@echo "make test-services  run the tests that start more servers, or need exporters or old libraries"
	@echo "make browser        install the Chromium that shows pages to tests (Debian's package, as root)"
	@echo "make npm            install npm, which downloads JavaScript libraries (Debian's package, as root)"
	@echo "make check          check formatting, lint and types"
	@echo "make check-alerts   check and test the alert rules with promtool (Debian's package prometheus)"
	@echo "make audit          look up known vulnerabilities of the locked dependencies at osv.dev"
	@echo "make compare-videos compare the frames of every kind of video file with those of the ffmpeg program"
	@echo "make bench          measure speed against references; make bench-quick: small inputs"
	@echo "make gallery        make the pictures of docs/gallery.md and the outputs of docs/notebook.ipynb again"
	@echo "make lock           resolve the dependencies again"
	@echo "make clean          remove the virtual environment and the output of the demo"

# uv has its own environment, so that the environment of the project contains only packages of the project.
$(UV): requirements-uv.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "affwild2 needs Python 3.11 or newer, found " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)/uv
	$(VENV)/uv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@touch $@

# The lock contains the packages of all extras; pyproject.toml selects those of an environment.
LOCKED := --quiet --require-hashes --constraint requirements.lock --requirement pyproject.toml
# The build uses the installed setuptools, which the lock pins, instead of downloading another one.
EDITABLE := --quiet --no-deps --no-build-isolation --editable .

# --exact also removes packages that an earlier version needed.
$(RUNTIME): $(UV) requirements.lock pyproject.toml
	$(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV)
	$(UV) pip install --exact --python $(BIN)/python $(LOCKED) --extra demo
	$(UV) pip install --python $(BIN)/python $(EDITABLE)
	@touch $@

$(STAMP): $(RUNTIME)
	$(UV) pip install --python $(BIN)/python $(LOCKED) --extra demo --extra dev
	@touch $@

# A second environment, because exporters install pandas, which slows down every command (see pyproject.toml).
$(SERVICES)/.installed: $(UV) requirements.lock pyproject.toml $(wildcard tests/models/weight_files/old_timm/*.txt) tests/infra/dask_kubernetes/requirements.txt tests/models/keras_heads/requirements.txt
	$(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(SERVICES)
	$(UV) pip install --python $(SERVICES)/bin/python $(LOCKED) --extra demo --extra dev --extra export --extra services
	$(UV) pip install --python $(SERVICES)/bin/python $(EDITABLE)
	@for release in 0.4.5 0.9.16; do \
	  $(UV) pip install --quiet --python $(SERVICES)/bin/python --no-deps --require-hashes \
	    --target $(SERVICES)/old-timm/$$release \
	    --requirement tests/models/weight_files/old_timm/requirements-$$release.txt || exit 1; \
	done
	$(UV) pip install --quiet --python $(SERVICES)/bin/python --no-deps --require-hashes \
	  --target $(SERVICES)/dask-kubernetes --requirement tests/infra/dask_kubernetes/requirements.txt
	$(UV) pip install --quiet --python $(SERVICES)/bin/python --no-deps --require-hashes \
	  --target $(SERVICES)/keras-heads --requirement tests/models/keras_heads/requirements.txt
	@touch $@

demo: $(RUNTIME)
	$(BIN)/affwild2 demo

PARALLEL := --numprocesses auto --dist loadfile --no-loadscope-reorder

test: $(STAMP)
	$(BIN)/python -m pytest -q --durations=10 $(PARALLEL)

# Debian's package plays H.264. Ubuntu's package of this name only refers to a snap, which most containers cannot run.
ifndef CHROMIUM
CHROMIUM := $(shell command -v chromium chromium-browser google-chrome google-chrome-stable | head -n 1)
endif
export CHROMIUM

browser:
	@test -n "$(CHROMIUM)" || { test "$$(id -u)" = 0 && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends chromium fonts-dejavu-core; } >&2 || true
	@$(or $(CHROMIUM),chromium) --version >/dev/null 2>&1 || { echo "make browser: no Chromium that starts was found \
	or could be installed. Install Chromium or Google Chrome, and pass its path if needed: make browser CHROMIUM=PATH" >&2; exit 1; }

npm:
	@npm --version >/dev/null 2>&1 || { test "$$(id -u)" = 0 && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends npm; } >&2 || true
	@npm --version >/dev/null 2>&1 || { echo "make npm: npm was not found and could not be installed. Install Node.js \
	with npm" >&2; exit 1; }

test-services: $(SERVICES)/.installed browser npm
	$(SERVICES)/bin/python -m pytest -q --durations=10 $(PARALLEL) -m service

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check-alerts:
	promtool check rules infra/monitoring/alerts.yml
	promtool test rules infra/monitoring/alerts_test.yml

# pip-audit has its own environment. It sends names and versions of packages, nothing else. The exit code is 1 if it
# finds a vulnerability. To ignore one that does no harm here: make audit AUDIT_FLAGS='--ignore-vuln ID'.
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

# More files or folders: make compare-videos FILES='videos clip.mkv'.
compare-videos: $(STAMP)
	$(BIN)/python -m tests.compare_with_ffmpeg $(FILES)

# Runs the demo, and opens its pages in the Chromium of make browser.
gallery: $(SERVICES)/.installed
	$(SERVICES)/bin/python -m tests.gallery

bench: $(STAMP)
	$(BIN)/python -m pytest -q -m service tests/benchmarks
	$(BIN)/python tests/benchmarks/run_benchmarks.py

bench-quick: $(STAMP)
	$(BIN)/python tests/benchmarks/run_benchmarks.py --quick

COMPILE = $(UV) pip compile --quiet $(LOCK_FLAGS) --universal --python-version 3.11 --generate-hashes --no-header \
  --no-annotate --no-emit-index-url
LOCK_FLAGS ?= --upgrade

# To keep all versions that are still allowed: make lock LOCK_FLAGS=
lock: $(UV)
	$(COMPILE) --all-extras pyproject.toml --output-file requirements.lock
	echo uv | $(COMPILE) - --output-file requirements-uv.lock
	echo pip-audit | $(COMPILE) - --output-file requirements-audit.lock

clean:
	rm -rf $(VENV) demo build *.egg-info

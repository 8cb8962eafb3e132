# The words a developer needs. `make demo` first; `make check test` before a change goes in.

PYTHON ?= python3
VENV := .venv
# Tools run as modules: a virtual environment's scripts hold absolute paths and break when the checkout moves.
PY := $(VENV)/bin/python
# Tools that judge or lock files and whose own packages are many: apart, so that they choose nobody's versions.
JUDGING := $(VENV)/judges
JUDGES := $(JUDGING)/.installed-$(shell cksum < docker/judges.txt | tr ' ' '-')
# One stamp for this pyproject.toml in this folder: when either changes, the environment is brought up to date once.
STAMP := $(VENV)/.installed-$(shell { pwd; cat pyproject.toml; } | cksum | tr ' ' '-')
INSTALLING := $(VENV)/.installing
SHELL_SCRIPTS = $(shell git ls-files --cached --others --exclude-standard -- .ci/run '*.sh')

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast kills check format clean image push sif lock judges

help:  ## list these targets
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## make .venv with everything a developer needs

# The stamp is written last. An install that was cut short leaves $(INSTALLING), and the next one starts from nothing.
$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$$($(PYTHON) --version 2>&1) is too old, trainwright needs 3.11 or newer: name one, as in PYTHON=python3.12" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(if $(wildcard $(INSTALLING)),--clear )$(VENV)
	@touch $(INSTALLING)
	$(PY) -m pip install --disable-pip-version-check --progress-bar off -e '.[dev]'
	@rm -f $(VENV)/.installed-* $(INSTALLING)
	@touch $@

demo: $(STAMP)  ## train a small model on this machine's CPU, from text to report
	$(VENV)/bin/trainwright boot experiments/demo.yaml

# What to test, such as TESTS=tests/engines/test_image.py.
TESTS ?=

test: $(STAMP)  ## run every test, or those that TESTS names
	$(PY) -m pytest $(TESTS)

test-fast: $(STAMP)  ## run the tests that need no fleet of processes (under three minutes)
	$(PY) -m pytest -m "not slow"

kills: $(STAMP)  ## kill a dozen real processes of real runs; the commit chooses which and when
	$(PY) bench/kills.py --kills 12 --seed "$$(git rev-parse HEAD)"

$(JUDGES): $(STAMP)
	$(PY) -m venv --clear $(JUDGING)
	$(JUDGING)/bin/python -m pip install --disable-pip-version-check --progress-bar off -r docker/judges.txt
	@touch $@

judges: $(JUDGES)

check: $(STAMP) $(JUDGES)  ## lint, formatting, types, shell scripts, the Dockerfile, the rendered examples, and the built wheel
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(if $(strip $(SHELL_SCRIPTS)),$(VENV)/bin/shellcheck $(SHELL_SCRIPTS))
	$(JUDGING)/bin/hadolint Dockerfile
	$(JUDGING)/bin/python -m checkov.main --skip-download --quiet --compact --framework dockerfile --file Dockerfile
	$(PY) -m infra render pretrain-1b --target kubernetes -o k8s/pretrain-1b --check
	$(PY) -m infra render runpod-1b --target runpod -o infra --check
	$(PY) .ci/wheel.py

# The image: these four need no .venv but the last. docs/image.md says more.
TARGET ?= trainer

image:  ## build the image with docker, podman or buildah; TARGET=trainer, trainer-cpu or sharder
	$(PYTHON) docker/image.py build $(TARGET)

push:  ## push a built image to IMAGE=registry/name, and print the digest to write into experiments
	@test -n "$(IMAGE)" || { echo "push: where to? IMAGE=registry/name" >&2; exit 78; }
	$(PYTHON) docker/image.py push $(TARGET) $(IMAGE)

sif:  ## convert a built image for Apptainer, without root: build/trainwright-TARGET.sif and its sha256
	$(PYTHON) docker/image.py sif $(TARGET)

lock: $(JUDGES)  ## resolve pyproject.toml into the image's lock files; UPGRADE=1 takes newer versions
	$(JUDGING)/bin/python docker/lock.py $(if $(UPGRADE),--upgrade)

format: $(STAMP)  ## rewrite the sources as ruff formats them
	$(PY) -m ruff check --fix-only --quiet .
	$(PY) -m ruff format .

# One measurement each: bench/NAME.py prints one JSON object as its last line; bench/results/ keeps what was committed.
prove-%: $(STAMP)  ## run the measurement bench/NAME.py, such as prove-imports; ARGS goes to it
	$(PY) bench/$*.py $(ARGS)

clean:  ## remove what can be made again; runs and data in workspace/ stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

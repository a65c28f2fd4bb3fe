# Gatehouse. "make run" is the whole product as a demo; it needs python3, python3-venv and make, nothing else.
# Variables of the demo: PORT, DATABASE_URL, DEMO_PASSWORD (deploy/gatehouse.env.example). pip reads its own.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# Options for pytest, as in: make test ARGS="-x -k handoff"; or for make asvs
ARGS ?=

# Everything that a shell runs.
SCRIPTS := .ci/run deploy/gatehouse deploy/with-credentials $(wildcard deploy/*.sh)

.PHONY: help run texts test check deploy-check deploy-test deploy-proof lint types django asvs bench races shots lock clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo "make run           the demo, at http://login.portal.localhost:8000 (PORT=… for another port)"
	@echo "make test          the tests; skips what this machine has no package for, and says so"
	@echo "make check         all that must be green before a commit: lint, types, django, test, deploy-check"
	@echo "make deploy-check  a booted machine, installed, upgraded under load, maltreated (as root; debootstrap, systemd-container)"
	@echo "make deploy-test   more of it, on both databases, and the container (nginx, buildah, podman, runc; DEBIAN=trixie)"
	@echo "make deploy-proof  the long form, with its figures (an hour)"
	@echo "make asvs          which requirements of the OWASP ASVS have a test that proves them (ARGS=--open: which not; ARGS=--tests: by which)"
	@echo "make bench         how fast it is; make races: the long races; make shots: the pictures of the README"
	@echo "make texts         collect what pages and mails say for the translators (portal/locale/); needs GNU gettext"
	@echo "make lock          write requirements.txt and requirements-dev.txt anew (UPGRADE=1: with newer versions)"
	@echo "make clean         remove what is made: .venv, caches (the demo's data in var/ stays)"

run: $(VENV)/.run $(VENV)/.texts
	@exec $(PY) manage.py demo

test: $(VENV)/.dev $(VENV)/.texts
	@$(PY) -m tests $(ARGS)

check: lint types django test deploy-check

deploy-check: $(VENV)/.dev $(VENV)/.texts
	@$(PY) -m tests.deploy $(ARGS)

deploy-test: $(VENV)/.dev $(VENV)/.texts
	@$(PY) -m pytest -m deploy tests/deploy $(ARGS)

deploy-proof: $(VENV)/.dev $(VENV)/.texts
	@UPGRADES=10 REQUESTS=20000 KILLS=100 RESTARTS=20 FAULTS=all $(PY) -m pytest -m deploy -s --durations=0 tests/deploy $(ARGS)

lint: $(VENV)/.dev
	@echo "== lint"
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --check --quiet . || { echo "Not formatted. Run: $(PY) -m ruff format ." >&2; exit 1; }
	@if command -v shellcheck >/dev/null; then shellcheck --external-sources $(SCRIPTS); \
		else echo "shellcheck skipped, it is not here: apt install shellcheck"; fi

types: $(VENV)/.dev
	@echo "== types"
	@$(PY) -m mypy --no-error-summary

# Are all migrations written, and has Django nothing against the settings of production?
django: $(VENV)/.dev
	@echo "== django"
	@$(PY) manage.py makemigrations --check --dry-run
	@PORTAL_URL=https://login.example.com TENANT_DOMAIN=example.com DATABASE_URL=sqlite://:memory: EMAIL_URL=smtp://localhost:25 \
		SECRET_KEY="$$($(PY) -c 'import secrets; print(secrets.token_urlsafe(50))')" \
		ENCRYPTION_KEYS="$$($(PY) -c 'import base64, secrets; print(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())')" \
		$(PY) manage.py check --deploy --fail-level WARNING

asvs: $(VENV)/.dev
	@$(PY) -m tests.asvs $(ARGS)

bench: $(VENV)/.dev
	@$(PY) -m tests.bench
	@$(PY) -m tests.bench.console

races: $(VENV)/.dev
	@$(PY) -m tests.bench.races

shots: $(VENV)/.dev $(VENV)/.texts
	@$(PY) -m tests.browser.shots

# --- Texts ----------------------------------------------------------------------------------------------------------

TEXTS := $(wildcard portal/locale/*/LC_MESSAGES/*.po)

# What the pages read is made from what the translators write. Gettext is not needed for it.
$(VENV)/.texts: $(TEXTS) | $(VENV)/.run
	@$(PY) -m portal.catalogs
	@touch $@

texts: $(VENV)/.dev
	@command -v xgettext >/dev/null || { echo "GNU gettext is missing: apt install gettext" >&2; exit 1; }
	@$(PY) manage.py makemessages --all --no-location --no-wrap --no-obsolete --ignore '.venv/*' --ignore 'var/*' --ignore 'tests/*' --ignore 'deploy/*'
	@sed -i '/^"POT-Creation-Date/d' $(TEXTS)
	@$(PY) -m portal.catalogs

# --- The environment ------------------------------------------------------------------------------------------------

# Every package is the one whose hash stands in the lock file, and none is built here.
install = $(PY) -m pip install -qq --disable-pip-version-check --no-input --require-hashes --only-binary :all: --requirement

$(VENV)/.run: requirements.txt $(PY)
	@echo "Installing the packages of $< into $(VENV) (once)"
	@$(install) $<
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(PY)
	@echo "Installing the packages of $< into $(VENV) (once)"
	@$(install) $<
	@touch $@ $(VENV)/.run

# $(error) prints one line; a failing command would print two.
version = $(shell $(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null)
new_enough = $(shell $(PYTHON) -c 'import sys; print("yes" if sys.version_info >= (3, 11) else "")' 2>/dev/null)
has_venv = $(shell $(PYTHON) -c 'import ensurepip, venv; print("yes")' 2>/dev/null)

$(PY):
	$(if $(version),,$(error $(PYTHON) is not there. Gatehouse needs Python 3.11 or newer: apt install python3 python3-venv))
	$(if $(new_enough),,$(error Gatehouse needs Python 3.11 or newer, and $(PYTHON) is $(version). Name another: make PYTHON=python3.12))
	$(if $(has_venv),,$(error Python's venv is missing: apt install python3-venv))
	@$(PYTHON) -m venv --clear $(VENV)

# requirements-dev.txt holds requirements.txt at the same versions. UPGRADE=1 takes newer ones.
pip_compile = CUSTOM_COMPILE_COMMAND="make lock" $(PY) -m piptools compile $(if $(UPGRADE),--upgrade)

lock: $(VENV)/.dev
	@$(pip_compile) --output-file requirements.txt pyproject.toml
	@$(pip_compile) --extra dev --constraint requirements.txt --output-file requirements-dev.txt pyproject.toml
	@if grep -nE '://|^-' requirements.txt requirements-dev.txt; then echo "A lock file names an address." >&2; exit 1; fi

clean:
	@rm -rf $(VENV) var/mypy var/pytest var/ruff
	@find . -name __pycache__ -type d -not -path './var/*' -prune -exec rm -rf {} +

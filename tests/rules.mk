# FAST=yes leaves out what starts containers or runs `make all`, whole or as a rehearsal.
SLOW := tests/containers tests/e2e tests/hardware/test_measure.py
.PHONY: test lint
test: lint $(TRITON) ## ruff, mypy, import-linter, hadolint, shellcheck and all tests; FAST=yes: in three minutes
	$(VENV)/bin/python -m pytest -n 2 --dist loadgroup $(if $(filter yes,$(FAST)),$(SLOW:%=--ignore=%)) tests

lint: $(TOOLS)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/hadolint docker/*.Dockerfile
	$(VENV)/bin/shellcheck .ci/run

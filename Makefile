# Every target first creates .venv with the versions pinned in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-fast lint bench interop clean

help:
	@echo "make demo       train, compare and time on the embedded model (minutes on 2 cores)"
	@echo "make test       all tests"
	@echo "make test-fast  the tests that are not marked slow (under a minute on 2 cores)"
	@echo "make lint       ruff, mypy, import directions"
	@echo "make bench      memory and time of a training step, beside stock transformers"
	@echo "make interop    exported drafters in speculators, in a separate environment (and VLLM_WHEEL=FILE: vLLM's config reader)"
	@echo "make clean      remove the environments and build results"

demo: .venv/.installed
	$(BIN)/headway demo

test: .venv/.installed-dev
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

test-fast: .venv/.installed-dev
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal -m "not slow"

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.installed
	$(BIN)/headway bench train

interop: .venv/.installed .venv-interop/.installed
	rm -rf build/interop
	$(BIN)/python -m tests.interop_validation.written build/interop
	.venv-interop/bin/python tests/interop_validation/read_by_others.py build/interop $(VLLM_WHEEL)

clean:
	rm -rf .venv .venv-interop build dist

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Headway needs Python 3.11 or newer; name one, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "python3 -m venv failed; on Debian: apt install python3-venv" >&2; exit 2; }

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@ .venv/.installed

# speculators needs another version of transformers. The torchvision that it installs is built for a GPU and fails with a CPU build of torch.
.venv-interop/.installed: Makefile
	@rm -rf .venv-interop
	@$(PYTHON) -m venv .venv-interop
	@echo torch==2.13.0 > .venv-interop/constraints.txt
	.venv-interop/bin/python -m pip install -q -c .venv-interop/constraints.txt speculators==0.9.0
	.venv-interop/bin/python -m pip uninstall -q -y torchvision torchaudio
	@touch $@

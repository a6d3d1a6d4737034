# Every target makes its own .venv first, with the versions pinned in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test lint bench interop clean

help:
	@echo "make demo   train, compare and time on the model that ships inside (minutes on 2 cores)"
	@echo "make test   the tests"
	@echo "make lint   ruff, mypy, import directions"
	@echo "make bench  memory and time of a training step, beside stock transformers"
	@echo "make interop  exported drafters in speculators, in an environment of its own (and VLLM_WHEEL=FILE: vLLM's config reader)"

demo: .venv/.installed
	$(BIN)/headway demo

test: .venv/.installed-dev
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

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

# speculators wants another transformers; the torchvision that comes along is made for a GPU, and fails beside a torch without one
.venv-interop/.installed: Makefile
	@rm -rf .venv-interop
	@$(PYTHON) -m venv .venv-interop
	@echo torch==2.13.0 > .venv-interop/constraints.txt
	.venv-interop/bin/python -m pip install -q -c .venv-interop/constraints.txt speculators==0.9.0
	.venv-interop/bin/python -m pip uninstall -q -y torchvision torchaudio
	@touch $@

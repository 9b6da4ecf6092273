# make setup, then make serve. TORCH is what pip is asked for first; another build or source is one variable away:
#   make setup TORCH="torch==2.13.0 --index-url INDEX"     INDEX: where PyTorch publishes its CPU builds, say
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: setup check test serve clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[finetune,dev]'
	sh .ci/debian
	touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup
	$(BIN)/python -m pytest

serve: setup
	$(BIN)/hhh serve

clean:
	rm -rf .venv build *.egg-info

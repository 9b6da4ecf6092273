# make setup, then make serve. TORCH is what pip is asked for first; another build or source is one variable away:
#   make setup TORCH="torch==2.13.0 --index-url INDEX"     INDEX: where PyTorch publishes its CPU builds, say
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: setup check test serve clean

setup: .venv/.ready .venv-clients/.ready tests/clients/node/node_modules/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[finetune,dev]'
	sh .ci/debian
	touch $@

# What only tests/clients runs: clients whose packages do not go together with the gateway's, and OpenAI's for Node.
.venv-clients/.ready: constraints-clients.txt
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-clients.txt \
	  langchain-openai litellm llm schemathesis
	touch $@

tests/clients/node/node_modules/.ready: tests/clients/node/package.json
	command -v npm >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs npm)
	cd tests/clients/node && npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts --legacy-peer-deps
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
	rm -rf .venv .venv-clients tests/clients/node/node_modules build *.egg-info

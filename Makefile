# Two commands are all it takes on a machine with Python 3.11 or newer: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo nvim test test-slow perf editors lint format vscode clean

demo: $(VENV)/installed
	$(BIN)/keystate demo

# A sample file in Neovim 0.11 or newer with the plugin; NVIM=path names another one.
nvim: $(VENV)/installed
	editor-clients/neovim/open-sample.sh "$(abspath $(BIN)/keystate)"

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -q -m "not editors and not slow"

# What takes minutes: 2,000 steps of random editing, real processes side by side.
test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -q -m "slow and not editors"

# What the shipped traces cost, as ratios to the last result on this kind of machine; two minutes.
# More tokens or passes than then are an error, times are not.
perf: $(VENV)/installed
	$(BIN)/python -m perf.profile_check

# Real editors, on Debian with Node 20.19 or newer: fetched into .cache/editors the first time.
# VS Code's wants root for the browser's packages.
editors: $(VENV)/installed-test vscode
	tests/editors/neovim/install.sh
	bash tests/editors/vscode/install.sh
	cd editor-clients/neovim && npm ci --ignore-scripts --no-audit --no-fund && ./lint.sh
	cd editor-clients/vscode && npm run --silent lint && npm test --silent
	CI=1 $(BIN)/python -m pytest -q -m editors tests/editors

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The extension, with the server's wheel inside. Needs Node 20.19 or newer.
vscode: editor-clients/vscode/node_modules/.package-lock.json | $(BIN)/python
	rm -rf build editor-clients/vscode/server
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps -w editor-clients/vscode/server .
	cd editor-clients/vscode && npm run --silent package

# Without install scripts: none of them is needed to build.
editor-clients/vscode/node_modules/.package-lock.json: editor-clients/vscode/package-lock.json
	cd editor-clients/vscode && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("keystate needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# make demo: the whole story on rendered pictures, ten minutes to a quarter of an hour on two cores.
# make test: set-up, lint and the tests that take seconds. make test-slow: those of many processes and long chains.
# make audit: known vulnerabilities of the locked packages. make lock: the lock files anew, after a change of versions.
# make networks: the network inside the package `ocrdistill`, from weights/.
# make bench: every stage timed next to a plain implementation, under 15 minutes on two cores.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow browser lint bench networks audit lock clean

demo: .venv/installed
	$(BIN)/python demo.py

test: .venv/installed-dev lint
	$(BIN)/python -m pytest -m "not slow" --durations=20

test-slow: .venv/installed-dev browser
	$(BIN)/python -m pytest -m slow --durations=20 -rs

# What the tests of the browser's page need; without it they are skipped.
browser:
	@sh tests/browser.sh

bench: .venv/installed
	$(BIN)/python benchmarks/run.py

networks: .venv/installed-dev
	$(BIN)/python export.py --weights weights/ocrdistill-n.pt --dynamic --float16-weights --out ocrdistill/networks/n.onnx \
		--license 'Program: Apache-2.0. Weights: Apache-2.0 as far as they are ours; weights/README.md has the data.'

audit: .venv/bin/pip-audit
	$(BIN)/python benchmarks/audit.py

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links

lock: .venv/bin/uv
	$(LOCK) requirements.txt -o requirements.lock
	$(LOCK) requirements-dev.txt -o requirements-dev.lock

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer: make ... PYTHON=python3.12")'
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/bin/pip-audit: | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1

.venv/bin/uv: | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9

.venv/installed: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt requirements-export.txt requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch .venv/installed $@

clean:
	rm -rf .venv demo_data demo_small demo_pictures pretrain_data .pytest_cache .ruff_cache examples/web/node_modules

# make demo: the whole story on rendered pictures, about ten minutes on two cores. make test: everything that CI runs.
# make bench: every stage timed next to a plain implementation, under 15 minutes on two cores.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench clean

demo: .venv/installed
	$(BIN)/python demo.py

test: .venv/installed-dev lint
	$(BIN)/python -m pytest

bench: .venv/installed
	$(BIN)/python benchmarks/run.py

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch .venv/installed $@

clean:
	rm -rf .venv demo_data demo_pictures pretrain_data .pytest_cache .ruff_cache

# make demo   from nothing to a distilled student, in minutes on two cores
# make install  the virtual environment alone, .venv
# make test   set-up and the suite
# make slow   the tests that take minutes each: time limits of a real SLURM, a whole rehearsal
# make check  formatter, linter, type checker, tests
# make chaos  runs killed in every way at every point, under every launcher: an hour or two
# make docs   the reference in docs/, written from the code
# make bench  one update, and every fused operation alone, side by side with what you would use instead

PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test slow check lint chaos docs bench clean

demo: .venv/ready
	$(BIN)/python -m launcher.demo

install: .venv/ready

test: .venv/ready-dev
	$(BIN)/python -m pytest -m "not slow"

slow: .venv/ready-dev
	$(BIN)/python -m pytest -m slow

lint: .venv/ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

chaos: .venv/ready-dev
	$(BIN)/python -m tests.chaos

docs: .venv/ready
	$(BIN)/python -m docs.generator

bench: .venv/ready-dev
	$(BIN)/python -m bench.step --append bench/RESULTS.md
	$(BIN)/python -m bench.step --size small --lengths 128 --sequences 8 --micro_batches 8 --rounds 2 --updates 2 \
	  --variants ours zero1 zero2 --append bench/RESULTS.md
	$(BIN)/python -m bench.growth --append bench/RESULTS.md
	$(BIN)/python -m bench.kernels --append bench/RESULTS.md
	$(BIN)/python -m bench.export_speed --append bench/RESULTS.md

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -r requirements.txt
	touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt requirements-litert.txt
	$(BIN)/pip install --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install --disable-pip-version-check --no-deps -r requirements-litert.txt
	touch $@

clean:
	rm -rf .venv corpus runs exports site demo/node_modules demo/dist

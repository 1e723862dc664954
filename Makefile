# lictor: `make demo` and `make test` work on a clean machine that has git, make and a Python >= 3.12 somewhere.
PY := .venv/bin/python
# End-to-end tests wait for processes much of the time, so one more than there are cores.
JOBS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
# Some machines forbid Python to keep what it compiled: every process that a test starts would compile lictor anew.
unexport PYTHONDONTWRITEBYTECODE
PACKAGES := formats bindings certs evidence engine addons proxy verifier cli examples

.PHONY: demo test test-only lint types bench torture format clean setup lock

setup: .venv/ready

.venv/ready: constraints.txt pyproject.toml tools/setup
	@tools/setup

demo: .venv/ready
	@.venv/bin/lictor demo

test: lint types test-only

lint: .venv/ready
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

# mypy wants the package under its own name, whatever the checkout's folder is called. What no test runs is checked too.
types: .venv/ready
	@MYPYPATH=.venv/source .venv/bin/mypy $(addprefix -p lictor.,$(PACKAGES)) -p tests.benchmarks
	@MYPYPATH=.venv/source:tests .venv/bin/mypy -p torture

test-only: .venv/ready
	@$(PY) -m pytest -n $(JOBS) --dist worksteal tests

bench: .venv/ready
	@$(PY) -m tests.benchmarks

torture: .venv/ready
	@$(PY) -m tests.torture

format: .venv/ready
	@.venv/bin/ruff check --fix-only -q .
	@.venv/bin/ruff format -q .

lock:
	@tools/lock

clean:
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis

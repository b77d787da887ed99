# The two commands of the README: `make sample` and `make test`.

PYTHON ?= python3
# on a machine with an NVIDIA GPU: make sample EXTRA=gpu
EXTRA ?= cpu
# CPU wheels elsewhere than on PyPI: make test TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
# tests run in so many processes
WORKERS ?= 2
# how much longer than usual the campaigns search
CAMPAIGN ?= 1
BIN := .venv/bin

.PHONY: sample test campaigns mutants mutants-changed test-root slowdown checks kernels reference docs release-check

sample: .venv/runtime
	$(BIN)/attpc-filter run sample/run_0101.h5 --out out/sample

test: .venv/test
	$(MAKE) --jobs=2 --output-sync checks kernels
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# searches for faults at random: damaged files, jobs that are killed; longer with CAMPAIGN=10
campaigns: .venv/test
	ATTPC_CAMPAIGN=$(CAMPAIGN) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m campaign

# changes the code on purpose and reports which changes no test noticed
MUTANTS ?= 400
SEED ?= 1
mutants: .venv/mutants
	$(BIN)/python benchmarks/mutants/run.py --sample $(MUTANTS) --seed $(SEED) --out benchmarks/mutants/report.md

# the same for a few changes in the modules that the last commits have changed
SINCE ?= HEAD~10
mutants-changed: .venv/mutants
	$(BIN)/python benchmarks/mutants/run.py --sample 12 --seed $(SEED) --changed $(SINCE)

# what is written as ROOT in the hands of real ROOT: pip's, an alpha of 250 MB, in an environment of its own
test-root: .venv/test
	if $(PYTHON) -m venv .venv-root && .venv-root/bin/pip install --quiet --pre root; then \
		ATTPC_ROOT_PYTHON=$(CURDIR)/.venv-root/bin/python $(BIN)/python -m pytest tests/plugins/attpcroot; \
	else \
		echo "pip has no ROOT for $(PYTHON) here: the tests with real ROOT are skipped"; \
	fi

# ratios of steps measured in one run, never a clock
slowdown: .venv/test
	$(BIN)/python benchmarks/slowdown.py

checks: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	cd export && ../$(BIN)/mypy
	cd plugins/web && ../../$(BIN)/mypy
	$(BIN)/lint-imports

# compiled once here, so that the test processes need not compile them at the same time
kernels: .venv/test
	$(BIN)/attpc-filter warm-up

reference: .venv/runtime
	$(BIN)/python docs/make_reference.py

# the documentation site, in build/site; warnings are errors, and nothing is loaded from the network
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# wheels of all distributions, checked and used in an empty environment; they stay in build/dist
release-check: .venv/release
	.ci/release-check $(BIN)/python

.venv/runtime: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[$(EXTRA)]'
	touch $@

# Spyral compiles against Eigen (Debian: libeigen3-dev); without it the tests that run Spyral are skipped
.venv/test: .venv/runtime export/pyproject.toml plugins/spyral/pyproject.toml plugins/web/pyproject.toml \
		tests/plugin_package/pyproject.toml
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[test]' --editable ./export --editable './plugins/web[test]'
	$(BIN)/pip install --quiet attpc-spyral==1.1.2 || echo "attpc-spyral cannot be installed here: its tests will be skipped"
	$(BIN)/pip install --quiet --no-deps --editable plugins/spyral --editable tests/plugin_package
	touch $@

.venv/docs: .venv/runtime
	$(BIN)/pip install --quiet --editable '.[$(EXTRA),docs]'
	touch $@

.venv/release: .venv/runtime
	$(BIN)/pip install --quiet --editable '.[$(EXTRA),release]'
	touch $@

.venv/mutants: .venv/test
	$(BIN)/pip install --quiet --editable '.[mutants]'
	touch $@

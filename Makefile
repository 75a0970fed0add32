# Everything a contributor types. Each word sets up what it needs; a second call is fast.
#
#   make demo    from a fresh clone to a training run read back, and a page to look at
#   make test    all tests, bounded          make check   formats, lints, types, import rules, generated files
#   make torture the fault tests, for hours (PARTS=kills SCALE=0.1)
#   make bench   first figures               make clean   forget everything built
#
# PYTHON chooses the interpreter the environment is made from; NAME chooses one benchmark.

PYTHON ?= python3
export PIP_QUIET := 1
VENV := .venv
BIN := $(VENV)/bin
STAMPS := .make
NAME ?=
KILLS ?= 100
SIDE_BY_SIDE := -n 2 --dist loadfile
PARTS ?=
SCALE ?= 1

RUST := $(shell find rust -name '*.rs' -not -path '*/target/*' -not -path 'rust/fuzz/*' 2>/dev/null) Cargo.toml $(wildcard rust/*/Cargo.toml)
WEB := $(shell find web -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)

.PHONY: demo test torture test-rust test-unit test-server test-fault test-integration test-browser test-web check bench fuzz proto docs record-wandb clean tools

tools:
	@PYTHON="$(PYTHON)" sh .ci/tools.sh

$(STAMPS)/venv: | tools
	@mkdir -p $(STAMPS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check 'maturin>=1.9,<2'
	@touch $@

# The native module and the packages of one use of it. `maturin develop` installs both.
$(STAMPS)/demo: $(STAMPS)/venv pyproject.toml $(RUST)
	PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(BIN)/maturin develop --release --quiet --extras server,demo
	@touch $@

$(STAMPS)/dev: $(STAMPS)/venv pyproject.toml $(RUST)
	PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(BIN)/maturin develop --release --quiet --extras server,demo,dev
	@touch $@ $(STAMPS)/demo

$(STAMPS)/npm: web/package-lock.json | tools
	@mkdir -p $(STAMPS)
	cd web && npm ci --no-fund --no-audit --loglevel=error
	@touch $@

$(STAMPS)/web: $(STAMPS)/npm $(WEB)
	cd web && npm run --silent build
	@touch $@

demo: $(STAMPS)/demo $(STAMPS)/web
	@$(BIN)/python examples/digits/demo.py

test: test-rust test-web test-unit test-server test-integration test-fault test-browser
	@echo "all tests passed; what did not run is listed above as skipped or not run, with its reason"

test-rust: | tools
	cargo test --release --workspace --exclude runferry-native --exclude runferry-codegen --exclude runferry-bench
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --release -p runferry-ring --test loom

test-unit: $(STAMPS)/dev
	$(BIN)/python -m pytest -q -rs tests/unit tests/compat

test-server: $(STAMPS)/dev
	$(BIN)/python -m pytest -q -rs $(SIDE_BY_SIDE) tests/conformance tests/server

test-integration: $(STAMPS)/dev $(STAMPS)/web
	$(BIN)/python -m pytest -q -rs $(SIDE_BY_SIDE) tests/integration

# The native module with fail points, beside the one that ships: tests/support/failpoints.py says what it is for.
$(STAMPS)/failpoints/_native.abi3.so: $(STAMPS)/dev $(RUST)
	@mkdir -p $(@D)
	cargo build --release --quiet -p runferry-native --features failpoints
	cp target/release/lib_native.so $@

test-fault: $(STAMPS)/dev $(STAMPS)/failpoints/_native.abi3.so
	RUNFERRY_EFFORT_KILLS=$(KILLS) $(BIN)/python -m pytest -q -rs tests/fault

torture: $(STAMPS)/dev $(STAMPS)/web $(STAMPS)/failpoints/_native.abi3.so
	$(BIN)/python -m tests.torture $(PARTS) --scale $(SCALE)

test-browser: $(STAMPS)/dev $(STAMPS)/web
	$(BIN)/python -m pytest -q -rs tests/browser

test-web: $(STAMPS)/npm
	cd web && npm run --silent test

check: $(STAMPS)/dev $(STAMPS)/npm
	cargo fmt --check
	cargo clippy --release --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff format --check -q python tests benchmarks examples
	$(BIN)/ruff check -q python tests benchmarks examples
	$(BIN)/mypy python/runferry tests benchmarks examples
	$(BIN)/python -m mypy.stubtest runferry._native --ignore-disjoint-bases --allowlist .stubtest-allow
	$(BIN)/lint-imports --config .importlinter
	PYTHON="$(CURDIR)/$(BIN)/python" sh proto/generate.sh --check
	$(BIN)/python -m runferry.settings | diff -q - docs/settings.md
	$(BIN)/python -m tests.faults | diff -q - docs/faults.md
	$(BIN)/python -m tests.compat.compatibility | diff -q - docs/compatibility.md
	cd web && npm run --silent check

bench: $(STAMPS)/dev
	$(BIN)/python -m benchmarks $(NAME)

fuzz:
	sh rust/fuzz/run.sh $(NAME)

proto: $(STAMPS)/dev
	PYTHON="$(CURDIR)/$(BIN)/python" sh proto/generate.sh

docs: $(STAMPS)/dev
	$(BIN)/python -m runferry.settings > docs/settings.md
	$(BIN)/python -m tests.faults > docs/faults.md
	$(BIN)/python -m tests.compat.compatibility > docs/compatibility.md

# Plays the scenes of tests/compat with W&B itself, in an environment made for it; what it does is kept for the tests.
record-wandb: $(STAMPS)/dev
	$(BIN)/python -m tests.compat.record_wandb

clean:
	rm -rf target $(VENV) $(STAMPS) web/node_modules python/runferry/server/static python/runferry/_native*.so
	find python tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

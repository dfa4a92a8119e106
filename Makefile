# `make test` needs rustup, a C compiler, make and CPython 3.11 or newer; it installs the compiler, and
# what Debian splits off from Python, if it may.

PYTHON ?= python3
VENV := $(CURDIR)/target/python
WHEELS := $(CURDIR)/target/python-wheels
TORCH_VENV := $(CURDIR)/target/python-torch

export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help prepare prepare-python test test-rust test-python test-torch torch-suite header install valgrind asan lint

help:
	@echo 'make test   run all tests (under 40 minutes from nothing on 2 cores)'
	@echo 'make test-rust, make test-python   a part of them'
	@echo 'make test-torch   the part that needs torch: 2.5 GB from PyPI, 6 GB in ~/.cache, once'
	@echo 'make torch-suite   torch'"'"'s own tests of a backend, on gloo and on ccl (20 minutes)'
	@echo 'make header writes include/ccl.h anew from ccl-capi/src'
	@echo 'make install PREFIX=/usr/local   the C library, header, pkg-config and CMake files'
	@echo 'make valgrind, make asan   the C programs under checkers of memory'
	@echo 'make lint   formatting, clippy and rustdoc, warnings denied'

# A linker is the one thing that neither rustup nor cargo brings; the C interface is tested by C
# programs, and its header as C++.
prepare:
	@command -v cc >/dev/null && command -v c++ >/dev/null && command -v pkg-config >/dev/null || { \
	    apt-get update -qq && \
	    apt-get install -y -qq --no-install-recommends gcc g++ libc6-dev pkg-config; }
	@command -v cmake >/dev/null || { apt-get update -qq && \
	    apt-get install -y -qq --no-install-recommends cmake; } || \
	    echo 'cmake is missing: that it finds the library is not tested'
	@command -v cargo >/dev/null || { echo 'cargo is missing: see https://rustup.rs'; exit 1; }
	@cargo --version

test: test-rust test-python test-torch

test-rust: prepare
	cargo run --quiet --locked -p ccl-core --example all_reduce
	cargo run --quiet --locked -p ccl-core --example shared_state
	cargo test --workspace --locked --no-fail-fast

# Built as a user builds it, once for all tests.
prepare-python: prepare
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11)' || { \
	    echo 'CPython 3.11 or newer is missing; name one by PYTHON=...'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { apt-get update -qq && \
	    apt-get install -y -qq --no-install-recommends python3-venv; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	rm -rf $(WHEELS)
	$(VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir $(WHEELS) ./ccl-python

# With what the tests need beside it, in an environment of its own. The parts of pyproject.toml name
# the versions.
test-python: prepare-python
	$(VENV)/bin/python -m pip install --quiet --force-reinstall --no-deps $(WHEELS)/ccl-*.whl
	$(VENV)/bin/python -m pip install --quiet "$$(echo $(WHEELS)/ccl-*.whl)[test]"
	cd ccl-python && $(VENV)/bin/python -m mypy --cache-dir $(VENV)/mypy python tests
	cd ccl-python && MYPY_CACHE_DIR=$(VENV)/stubtest $(VENV)/bin/python -m mypy.stubtest ccl._native \
	    --mypy-config-file pyproject.toml
	cd ccl-python && $(VENV)/bin/python -m pytest -p no:cacheprovider

test-torch: prepare-python
	ccl-python/tests/prepare_torch.sh $(PYTHON) $(TORCH_VENV) $(WHEELS)/ccl-*.whl
	cd ccl-python && $(TORCH_VENV)/bin/python -m mypy --cache-dir $(TORCH_VENV)/mypy python tests
	cd ccl-python && $(TORCH_VENV)/bin/python -m pytest -p no:cacheprovider -m torch

# Needs what torch's tests need beside torch.
torch-suite: prepare-python
	ccl-python/tests/prepare_torch.sh $(PYTHON) $(TORCH_VENV) $(WHEELS)/ccl-*.whl expecttest==0.3.0
	$(TORCH_VENV)/bin/python ccl-python/tests/torch_suite.py --log target/torch-suite

header: prepare
	CCL_WRITE_HEADER=1 cargo test --quiet --locked -p ccl-capi --test header the_committed

PREFIX ?= /usr/local
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

install: prepare
	cargo build --release --locked -p ccl-capi
	ccl-capi/package/install.sh $(or $(CARGO_TARGET_DIR),target)/release $(abspath $(PREFIX)) $(VERSION)

# The C programs under checkers of memory. A checker takes a minute or two, so neither is part of
# `make test`.
VALGRIND = valgrind --quiet --trace-children=yes --leak-check=full --error-exitcode=1 \
    --show-leak-kinds=definite --errors-for-leak-kinds=definite

valgrind: prepare
	@command -v valgrind >/dev/null || { apt-get update -qq && \
	    apt-get install -y -qq --no-install-recommends valgrind libc6-dbg; }
	CCL_C_RUNNER='$(VALGRIND)' cargo test --locked -p ccl-capi --test programs

# C and Rust together. The sanitizer is no stable part of the compiler, but the pinned compiler has it.
asan: prepare
	host=$$(rustc -vV | sed -n 's/^host: //p') && \
	    runtime=$$(rustc --print sysroot)/lib/rustlib/$$host/lib/librustc-stable_rt.asan.a && \
	    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CCL_C_FLAGS=-fsanitize=address \
	    CCL_C_LINK="-Wl,--whole-archive $$runtime -Wl,--no-whole-archive -Wl,--export-dynamic -lm" \
	    cargo test --locked -p ccl-capi --test programs --target $$host

lint: prepare
	@cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

# `make test` needs rustup, a C compiler and make; it installs the compiler if it may.

export PATH := $(HOME)/.cargo/bin:$(PATH)

# Seeds of the simulator that every change must pass.
SEEDS ?= 0..200

.PHONY: help prepare test lint mutations

help:
	@echo 'make test   run all tests (under 20 minutes from nothing on 2 cores)'
	@echo 'make lint   formatting, clippy and rustdoc, warnings denied'
	@echo 'make mutations   deliberate bugs, each of which the simulator must notice'

# A linker is the one thing that neither rustup nor cargo brings.
prepare:
	@command -v cc >/dev/null || { apt-get update -qq && \
	    apt-get install -y -qq --no-install-recommends gcc libc6-dev; }
	@command -v cargo >/dev/null || { echo 'cargo is missing: see https://rustup.rs'; exit 1; }
	@cargo --version

test: prepare
	cargo run --quiet --locked -p ccl-core --example all_reduce
	cargo run --quiet --locked -p ccl-tests --bin simulate -- --seeds $(SEEDS)
	cargo test --workspace --locked --no-fail-fast

# A build of its own, so that no other build has the bugs.
mutations: prepare
	RUSTFLAGS='--cfg ccl_mutations' CARGO_TARGET_DIR=target/mutations \
	    cargo run --release --locked -p ccl-tests --bin simulate -- --mutations

lint: prepare
	@cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

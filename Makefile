# `make test` needs rustup, a C compiler and make; it installs the compiler if it may.

export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help prepare test lint

help:
	@echo 'make test   run all tests (under 20 minutes from nothing on 2 cores)'
	@echo 'make lint   formatting, clippy and rustdoc, warnings denied'

# A linker is the one thing that neither rustup nor cargo brings.
prepare:
	@command -v cc >/dev/null || { apt-get update -qq && \
	    apt-get install -y -qq --no-install-recommends gcc libc6-dev; }
	@command -v cargo >/dev/null || { echo 'cargo is missing: see https://rustup.rs'; exit 1; }
	@cargo --version

test: prepare
	cargo run --quiet --locked -p ccl-core --example all_reduce
	cargo test --workspace --locked --no-fail-fast

lint: prepare
	@cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

# `make test` needs rustup's cargo, a C compiler and make; it installs what else is missing.

CARGO ?= $(shell command -v cargo || echo $(HOME)/.cargo/bin/cargo)

.PHONY: help prepare test lint

help:
	@echo 'make test   run all tests (under 20 minutes from nothing on 2 cores)'
	@echo 'make lint   formatting, clippy and rustdoc, warnings denied'

# A linker is the one thing that neither rustup nor cargo brings.
prepare:
	@command -v cc >/dev/null || { echo 'installing gcc'; \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev; }
	@test -x "$(CARGO)" || { echo 'cargo is missing: see https://rustup.rs'; exit 1; }
	@"$(CARGO)" --version

test: prepare
	"$(CARGO)" test --workspace --locked --no-fail-fast

lint: prepare
	@"$(CARGO)" fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@"$(CARGO)" clippy --version >/dev/null 2>&1 || rustup component add clippy
	"$(CARGO)" fmt --all --check
	"$(CARGO)" clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' "$(CARGO)" doc --workspace --no-deps --locked

# `make` lists what there is to make.

TARGET ?= $(shell rustc -vV | sed -n 's/^host: //p')
PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
# One file without an interpreter or shared libraries. RUSTFLAGS reaches only what is built for --target.
STATIC := -C target-feature=+crt-static -C relocation-model=static
RELEASE := target/$(TARGET)/release
BUNDLE := build/bundle

.PHONY: help build run test unit root fmt lint install install-deps clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  TARGET=$(TARGET), PREFIX=$(PREFIX)"

build: ## Build bin/tare, one static binary (TARGET=x86_64-unknown-linux-musl for musl)
	RUSTFLAGS="$(STATIC)" $(CARGO) build --locked --release --target $(TARGET) --bin tare
	@mkdir -p bin
	@install -m 0755 $(RELEASE)/tare bin/tare

.PHONY: build-guest
build-guest: ## Build the probe, the static program that the test containers run
	RUSTFLAGS="$(STATIC)" $(CARGO) build --locked --release --target $(TARGET) --example guest

run: build build-guest ## Run a container that shows what it isolates (root)
	@scripts/demo bin/tare $(RELEASE)/examples/guest $(BUNDLE)

test: install-deps build build-guest ## Run all tests; those in containers need root
	@TARE_BIN=$(CURDIR)/bin/tare TARE_GUEST=$(CURDIR)/$(RELEASE)/examples/guest scripts/test

.PHONY: test-vm
test-vm: build build-guest ## Run the tests in a guest with systemd, cgroup v2 and AppArmor; T=name chooses
	@scripts/install-deps vm
	@TARE_BIN=$(CURDIR)/bin/tare TARE_GUEST=$(CURDIR)/$(RELEASE)/examples/guest RUNTIME=$(RUNTIME) integration/vm/test $(T)

.PHONY: test-engines
test-engines: build ## Run engines with tare as their runtime (root); T=engine/case chooses, RUNTIME=path takes another
	@scripts/install-deps engines
	@TARE_BIN=$(CURDIR)/bin/tare RUNTIME=$(RUNTIME) integration/engines/test $(T)

unit: ## Run the tests that need neither root nor a build
	$(CARGO) test --locked --lib

root: build build-guest ## Run the container tests only; T=name chooses (root)
	TARE_BIN=$(CURDIR)/bin/tare TARE_GUEST=$(CURDIR)/$(RELEASE)/examples/guest $(CARGO) test --locked --test root -- $(T)

.PHONY: fuzz
fuzz: build build-guest ## Run 10,000 hostile root file systems (root; SEED=, CASES=, SECONDS= choose others)
	TARE_BIN=$(CURDIR)/bin/tare TARE_GUEST=$(CURDIR)/$(RELEASE)/examples/guest \
		TARE_FUZZ_SEED=$(or $(SEED),1) TARE_FUZZ_CASES=$(or $(CASES),10000) TARE_FUZZ_SECONDS=$(or $(SECONDS),3000) \
		$(CARGO) test --locked --test security -- hostile

.PHONY: bench
bench: build ## Compare with crun, runc, youki (CRUN=, RUNC=, YOUKI=) and the floor (root); A='--only run,exec' chooses
	@RUSTFLAGS="$(STATIC)" $(CARGO) build --locked --release --target $(TARGET) --target-dir target/bench --manifest-path benches/Cargo.toml
	@TARE_BIN=$(CURDIR)/bin/tare target/bench/$(TARGET)/release/bench --out build/bench $(A)

FUZZ_TARGETS := config seccomp options idmaps passwd names
.PHONY: fuzz-parsers
fuzz-parsers: ## Run libFuzzer on each parser for SECONDS (60), by cargo-fuzz; T=target chooses
	@command -v cargo-fuzz >/dev/null || $(CARGO) install cargo-fuzz --locked
	@# Coverage needs no nightly toolchain, but cargo-fuzz passes flags that the stable one takes only like this.
	@cd fuzz && for target in $(or $(T),$(FUZZ_TARGETS)); do mkdir -p corpus-found/$$target; \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none $$target corpus-found/$$target corpus/$$target -- \
		-max_total_time=$(or $(SECONDS),60) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 || exit; done

.PHONY: check-defences
check-defences: ## Take each defence out, and see the test of its CVE fail (root; minutes)
	@scripts/check-defences

fmt: ## Format the code
	$(CARGO) fmt

lint: ## Check format, clippy (warnings denied), licences and dependencies
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked
	@scripts/deny

install: build ## Install to DESTDIR/PREFIX/sbin
	install -D -m 0755 bin/tare $(DESTDIR)$(PREFIX)/sbin/tare

install-deps: ## Install the programs that the tests use (Debian, Ubuntu)
	@scripts/install-deps

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf bin build

# `make` lists what there is to make.

HOST := $(shell rustc -vV | sed -n 's/^host: //p')
MUSL := $(HOST:-gnu=-musl)
MUSL_STD := $(wildcard $(shell rustc --print target-libdir --target $(MUSL) 2>/dev/null)/libstd-*.rlib)
# Linked with musl the binary starts sooner (docs/performance.md). LIBC=musl works on Debian without the toolchain's help.
LIBC ?= $(if $(MUSL_STD),musl,gnu)
TARGET ?= $(if $(filter musl,$(LIBC)),$(MUSL),$(HOST))
PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
# One file without an interpreter or shared libraries. RUSTFLAGS reaches only what is built for --target.
STATIC := -C target-feature=+crt-static -C relocation-model=static
# Without the toolchain's standard library for musl, Debian's compiler builds one with the program.
OWN_STD := $(if $(filter $(MUSL),$(TARGET)),$(if $(MUSL_STD),,yes))
BUILD := $(if $(OWN_STD),scripts/cargo-musl rustc --target-dir build/musl/target,$(CARGO) rustc)
# What is executed is linked side by side, so that fewer pages have to be mapped. Names of functions without a hash
# last longer than those with it.
ORDER := -C link-arg=-Wl,-T,$(CURDIR)/scripts/order.ld
# The probe handles signals that musl keeps for itself.
GUEST := target/$(HOST)/release/examples/guest
# The floor of the bench is linked as the binary is.
FLOOR := $(if $(OWN_STD),$(HOST),$(TARGET))
BUNDLE := build/bundle

.PHONY: help build run test unit root fmt lint install install-deps clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  TARGET=$(TARGET), PREFIX=$(PREFIX)"

build: ## Build bin/tare, one static binary (LIBC=musl or gnu)
	RUSTFLAGS="$(STATIC)" $(BUILD) --locked --release --target $(TARGET) --bin tare -- $(ORDER)
	@mkdir -p bin
	@install -m 0755 $(if $(OWN_STD),build/musl/target,target)/$(TARGET)/release/tare bin/tare

.PHONY: build-musl
build-musl: ## Build bin/tare with musl; where rustup lacks that, with Debian's compiler (150 MB, minutes)
	@$(MAKE) build LIBC=musl

.PHONY: build-guest
build-guest: ## Build the probe, the static program that the test containers run
	RUSTFLAGS="$(STATIC)" $(CARGO) build --locked --release --target $(HOST) --example guest

run: build build-guest ## Run a container that shows what it isolates (root)
	@scripts/demo bin/tare $(GUEST) $(BUNDLE)

test: install-deps build build-guest ## Run all tests; those in containers need root
	@TARE_BIN=$(CURDIR)/bin/tare TARE_GUEST=$(CURDIR)/$(GUEST) scripts/test

# Where a C library shows: the command line, words of errors, descriptors, spawning, terminals, seccomp, budgets.
PART := bad_input dialect features help log output update budget commands create descriptors exec fallbacks regressions \
	run seccomp small handed
.PHONY: test-part
test-part: build build-guest ## Run the tests that show which C library the binary is linked with (root)
	@TARE_BIN=$(CURDIR)/bin/tare TARE_GUEST=$(CURDIR)/$(GUEST) \
		scripts/test --test cli --test root --test security -- $(PART)

.PHONY: test-denied
test-denied: build build-guest ## Run the security tests once more under filters that deny newer system calls (root, minutes)
	@TARE_BIN=$(CURDIR)/bin/tare TARE_GUEST=$(CURDIR)/$(GUEST) TARE_TEST_LONG=1 scripts/test --test security -- denied::

.PHONY: test-vm
test-vm: build build-guest ## Run the tests in a guest with systemd, cgroup v2 and AppArmor; T=name chooses
	@scripts/install-deps vm
	@TARE_BIN=$(CURDIR)/bin/tare TARE_GUEST=$(CURDIR)/$(GUEST) RUNTIME=$(RUNTIME) integration/vm/test $(T)

.PHONY: test-engines
test-engines: build ## Run engines with tare as their runtime (root); T=engine/case chooses, RUNTIME=path takes another
	@scripts/install-deps engines
	@TARE_BIN=$(CURDIR)/bin/tare RUNTIME=$(RUNTIME) integration/engines/test $(T)

unit: ## Run the tests that need neither root nor a build
	$(CARGO) test --locked --lib

root: build build-guest ## Run the container tests only; T=name chooses, TARE_BIN=path tests another runtime (root)
	TARE_BIN=$(or $(TARE_BIN),$(CURDIR)/bin/tare) TARE_GUEST=$(CURDIR)/$(GUEST) $(CARGO) test --locked --test root -- $(T)

.PHONY: fuzz
fuzz: build build-guest ## Run 10,000 hostile root file systems (root; SEED=, CASES=, SECONDS= choose others)
	TARE_BIN=$(CURDIR)/bin/tare TARE_GUEST=$(CURDIR)/$(GUEST) \
		TARE_FUZZ_SEED=$(or $(SEED),1) TARE_FUZZ_CASES=$(or $(CASES),10000) TARE_FUZZ_SECONDS=$(or $(SECONDS),3000) \
		$(CARGO) test --locked --test security -- hostile

BENCHES := --target-dir target/bench --manifest-path benches/Cargo.toml
.PHONY: bench-programs
bench-programs:
	@RUSTFLAGS="$(STATIC)" $(CARGO) build --locked --release --target $(HOST) $(BENCHES)
	@RUSTFLAGS="$(STATIC)" $(CARGO) build --locked --release --target $(FLOOR) $(BENCHES) --bin floor
	@mkdir -p build/bench/programs
	@install target/bench/$(HOST)/release/bench target/bench/$(HOST)/release/payload target/bench/$(FLOOR)/release/floor build/bench/programs

.PHONY: bench
bench: build bench-programs ## Compare with crun, runc, youki (CRUN=, RUNC=, YOUKI=) and the floor (root); A='--only run,exec' chooses
	@TARE_BIN=$(CURDIR)/bin/tare build/bench/programs/bench --out build/bench $(A)

.PHONY: order
order: bench-programs ## Find out what is executed, and write the order in which it is linked (root, minutes)
	RUSTFLAGS="$(STATIC)" $(CARGO) rustc --locked --release --target $(MUSL) --target-dir target/order \
		--config 'profile.release.strip=false' --bin tare -- $(ORDER)
	TARE_BIN=$(CURDIR)/target/order/$(MUSL)/release/tare build/bench/programs/bench --order target/order/addresses
	scripts/order target/order/$(MUSL)/release/tare target/order/addresses >target/order/order.ld
	mv target/order/order.ld scripts/order.ld

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
	install -d $(DESTDIR)$(PREFIX)/sbin
	@# By rename: a tare that runs keeps its file, and none is ever seen half written.
	install -m 0755 bin/tare $(DESTDIR)$(PREFIX)/sbin/.tare.new
	mv -f $(DESTDIR)$(PREFIX)/sbin/.tare.new $(DESTDIR)$(PREFIX)/sbin/tare

install-deps: ## Install the programs that the tests use (Debian, Ubuntu)
	@scripts/install-deps

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf bin build

# SPDX-License-Identifier: Apache-2.0
# The front door; meson does the work. `make help` lists the targets.

BUILD   ?= build
CLANG   ?= clang
MESON   ?= meson
PREFIX  ?= /usr/local
# debugoptimized is for work on the tree, release for a node. Counts when BUILD is configured.
BUILDTYPE ?= debugoptimized
DESTDIR ?=
JOBS    ?= $(shell nproc)

setup = test -e $(1)/build.ninja || $(2) $(MESON) setup $(1) $(3)
ninja = ninja -C $(1) -j $(JOBS)
meson_test = $(MESON) test -C $(1) --print-errorlogs --num-processes $(JOBS)

.DEFAULT_GOAL := help
.PHONY: help deps build test unit clang asan tsan fuzz lint e2e bench demo install docs clean

help: ## this list
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

deps: ## installs what the build and the tests need, from Debian (root)
	scripts/install-deps build check test demo
	scripts/setup-criu

build: ## compiles everything; the programs lie in build/bin, the shim in shim/bin, too
	@$(call setup,$(BUILD),,--prefix $(PREFIX) --buildtype $(BUILDTYPE))
	$(call ninja,$(BUILD))
	scripts/collect-programs $(BUILD)
	@mkdir -p shim/bin && ln -srf $(BUILD)/bin/containerd-shim-kybernate-v1 shim/bin/

test: ## everything: builds, unit tests, sanitizers, fuzzers, integration tests (root)
	scripts/install-deps build check test demo
	scripts/test

unit: build ## unit tests only
	$(call meson_test,$(BUILD))

clang: ## compiles with clang, as a release
	@$(call setup,$(BUILD)-clang,CC=$(CLANG),--buildtype release)
	$(call ninja,$(BUILD)-clang)

asan: ## unit tests under ASan and UBSan
	@$(call setup,$(BUILD)-asan,,-Db_sanitize=address$(comma)undefined)
	$(call ninja,$(BUILD)-asan)
	$(call meson_test,$(BUILD)-asan)

tsan: ## what has threads, under TSan
	scripts/test tsan

fuzz: ## each fuzzer for FUZZ_SECONDS (60)
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60) scripts/test fuzz

lint: ## layers, scripts, generated pages
	scripts/test lint

e2e: build ## integration tests on this machine, real containerd, runc and CRIU (root)
	tests/it/run host

bench: build ## beside containerd's own shim; ONLY=name for one row (root)
	bench/run $(if $(ONLY),--only $(ONLY)) --out $(BUILD)/bench.json

demo: ## checkpoints a GPU container and restores it in another one; RUNTIME=crun (root)
	scripts/install-deps build demo
	$(MAKE) build
	scripts/demo

install: build ## installs programs, man pages and completion below PREFIX
	DESTDIR=$(DESTDIR) $(MESON) install -C $(BUILD) --no-rebuild

docs: build ## makes the generated pages of docs/ anew
	$(MESON) test -C $(BUILD) --suite docs --test-args=--write || :

clean: ## removes what was built
	rm -rf $(BUILD) $(BUILD)-clang $(BUILD)-asan $(BUILD)-tsan $(BUILD)-fuzz build-it

comma := ,

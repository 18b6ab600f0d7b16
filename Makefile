# What a user and a developer run. `make lab` and `make test` set up what is missing.

PYTHON ?= python3
VENV ?= .venv
LAB_NODES ?= 3
LAB_PODS ?= 2
IMAGE ?= dist/podplane-image.tar
bin := $(VENV)/bin
ready := $(VENV)/.ready
by_module := --dist loadgroup --no-loadscope-reorder

.PHONY: help lab down test test-processes test-vm lint bench image tools clean
.DEFAULT_GOAL := help

help:
	@echo 'make lab     set up what is missing, start a lab of $(LAB_NODES) nodes with pods, check it'
	@echo 'make test    set up what is missing, run every check and every test'
	@echo 'make test-vm run tests on the kernel of Debian, in a virtual machine without network (as root)'
	@echo 'make test-processes     run every end-to-end test with agents that are processes, as on real machines'
	@echo 'make bench   measure, and write docs/performance.md'
	@echo 'make image   build the image of the agent, $(IMAGE), without a registry'
	@echo 'make down    stop all labs; make clean also removes the environment'

$(ready): pyproject.toml requirements-dev.txt $(wildcard podplane/cni/plugin/*.[ch])
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(bin)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

lab: $(ready)
	$(bin)/podplane up --nodes $(LAB_NODES) --pods-per-node $(LAB_PODS)
	$(bin)/podplane check
	@echo 'The lab goes on: source $(bin)/activate, then podplane --help; podplane down stops it.'

down: $(ready)
	$(bin)/podplane down --all

lint: $(ready)
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports

# The tests are compiled once, or each worker would do it for itself, even where the environment says that no bytecode is kept. The linters
# run beside them, and say at the end what they found; ^C ends them, too, which shells keep from what is in the background. Modules are begun
# in their order, so that those with labs, which take long, are not the last ones. They wait a lot: there are more workers than two cores.
# Up to three that fail beside all others are run once more, alone, which is told: on a machine that others use, a wait may be too long once.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(ready) tools
	@$(MAKE) --no-print-directory lint >$(VENV)/lint.txt 2>&1 & linters=$$!; \
	trap 'kill $$linters 2>/dev/null; exit 130' HUP INT TERM; \
	$(bin)/python -m pytest --collect-only -q >/dev/null 2>&1; \
	$(bin)/python -m pytest -n 6 $(by_module) --cache-clear; failed=$$?; \
	if [ $$failed = 1 ] && $(bin)/python -c 'import json; raise SystemExit(len(json.load(open(".pytest_cache/v/cache/lastfailed"))) > 3)'; then \
		echo 'What failed is run once more, alone. A test that passes now is unsteady, and has to be mended.'; \
		$(bin)/python -m pytest -n 1 $(by_module) --last-failed --last-failed-no-failures none -rpf; failed=$$?; \
	fi; \
	wait $$linters || failed=1; cat $(VENV)/lint.txt; exit $$failed

# What the kernel of this machine may lack is tried on that of Debian's cloud images; its processor is emulated: minutes.
test-vm: $(ready) tools
	@missing=$$(for tool in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static; do command -v $${tool%:*} >/dev/null || echo $${tool#*:}; done); \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q >/dev/null 2>&1; apt-get install -y -q --no-install-recommends $$missing >/dev/null; \
	fi
	$(bin)/python -m tools.vm

test-processes: $(ready) tools
	PODPLANE_TEST_UP_OPTIONS='--agents processes' $(bin)/python -m pytest tests/e2e -n 4 $(by_module)

bench: $(ready) tools
	$(bin)/python -m bench.run --markdown docs/performance.md

image: $(ready)
	@mkdir -p $(dir $(IMAGE))
	$(bin)/python -m tools.image $(IMAGE)

# `ip`, `nft` and `dig` are the oracles of some tests; without them those are skipped.
tools:
	@missing=$$(for tool in ip:iproute2 nft:nftables dig:bind9-dnsutils; do command -v $${tool%:*} >/dev/null || echo $${tool#*:}; done); \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get install -y -q $$missing >/dev/null 2>&1 || { apt-get update -q >/dev/null 2>&1 && apt-get install -y -q $$missing >/dev/null 2>&1; } || true; \
	fi; \
	for tool in ip:iproute2 nft:nftables dig:bind9-dnsutils; do \
		command -v $${tool%:*} >/dev/null || echo "$${tool%:*} is missing: tests that compare with it are skipped (install $${tool#*:})"; \
	done

clean: down
	rm -rf $(VENV)

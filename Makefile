# Everything a fresh machine needs is set up by the target that needs it, into .venv, and nothing outside this folder.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3,$(if $(shell $(p) -c 'import sys; sys.exit(not (3,11) <= sys.version_info < (3,13))' 2>/dev/null && echo y),$(p))))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := registry train serve bench cli pocket tests protos

# Caches of vLLM, torch and the adapter kernels stay in this folder; a hub cache that exists is still used.
export HF_HOME ?= $(HOME)/.cache/huggingface
LOCAL := XDG_CACHE_HOME=$(CURDIR)/build/cache XDG_CONFIG_HOME=$(CURDIR)/build/config

.PHONY: studies demo test test-unit test-crash soak fuzz lint format protos clean setup

demo: $(STAMP)
	$(LOCAL) $(BIN)/loradeck demo $(DEMO_ARGS)

# Two files at a time but for the tests of the engine, which share one start and use every core. 5: nothing matched.
TEST_WORKERS ?= 2
test: test-unit
	$(LOCAL) $(BIN)/python -m pytest -m e2e $(TEST_ARGS) || test $$? -eq 5

test-unit: $(STAMP)
	$(LOCAL) $(BIN)/python -m pytest -m "not e2e" -n $(TEST_WORKERS) --dist loadfile $(TEST_ARGS) || test $$? -eq 5

# Writers and collections of the registry killed before and after every operation and at 200 random points, and raced.
test-crash: $(STAMP)
	$(LOCAL) LORADECK_CRASH_ROUNDS=200 $(BIN)/python -m pytest -rP tests/registry/test_concurrency.py tests/registry/test_collecting.py $(TEST_ARGS)

# Half an hour of everything at once against one server: wrong tokens, crashes, leaks, growth. SOAK_ARGS="--minutes 3"
soak: $(STAMP)
	mkdir -p build
	$(LOCAL) $(BIN)/loradeck bench soak --json build/soak.json $(SOAK_ARGS)

# 100,000 mutated requests to a server of its own, 10,000 mutated objects to the registry's reader. FUZZ_ARGS="--requests 5000"
fuzz: $(STAMP)
	mkdir -p build
	$(LOCAL) $(BIN)/loradeck bench fuzz --json build/fuzz.json $(FUZZ_ARGS)

# The four published studies at the size of this machine, one after another.
studies: $(STAMP)
	@failed=; for study in econ-it anyscale belle alpaca; do \
	  $(LOCAL) $(BIN)/loradeck study run $$study --scale pocket $(STUDY_ARGS) || failed="$$failed $$study"; done; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

lint: $(STAMP)
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/ruff check $(PACKAGES)
	$(BIN)/mypy
	$(BIN)/python protos/generate.py --check

format: $(STAMP)
	$(BIN)/ruff format $(PACKAGES)
	$(BIN)/ruff check --fix $(PACKAGES)

protos: $(STAMP)
	$(BIN)/python protos/generate.py

setup: $(STAMP)

# The script compares the project's own files with what it installed: a second call returns at once.
$(STAMP): pyproject.toml constraints.txt deploy/setup.sh
	@test -n "$(PYTHON)" || { echo "loradeck needs Python 3.11 or 3.12: install it, or say make PYTHON=/path/to/python3.11"; exit 1; }
	sh deploy/setup.sh $(PYTHON) $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

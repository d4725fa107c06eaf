# Every target brings what it needs into .venv by itself, and is quick the second time.
PYTHON ?= python3
BROKER ?= embedded
SCENES ?= weather
PARTS ?= all

BIN := .venv/bin
LINTED := pipeline tests tools deploy/image/without_cuda.py deploy/make_secrets.py deploy/pin_images.py deploy/kafka/kafka deploy/kafka/jars.py deploy/kafka/kraft.py deploy/ray/replay.py
# torch brings 3 GB of CUDA: uv's cache links it instead of unpacking it again. The certificates are the system's, as
# pip and curl use them, because that is where a company's proxy has its own.
UV := UV_SYSTEM_CERTS=1 uv
# A process compiles what it imports, and keeps it for the next one, also where the environment forbids that, as images of
# containers do: torch and open_clip cost 11 s of the processor without it, 5 s with it, and tests start hundreds.
export PYTHONDONTWRITEBYTECODE :=

# The rooms of the core, without what starts a process, a server or BoTorch in nearly every test. What asks for a broker is
# left out by its mark, which tests/conftest.py sets.
QUICK := tests/adapt tests/clip tests/contracts tests/decode tests/card tests/labels tests/output tests/publish/test_alerts.py tests/recording tests/settings tests/sink tests/watch tests/worker tests/test_before_0_2.py tests/test_console.py tests/test_documents.py tests/test_imports.py tests/test_logs.py --ignore=tests/adapt/strategies/test_botorch.py --ignore=tests/contracts/test_store.py --ignore=tests/decode/test_child.py --ignore=tests/labels/benefit --ignore=tests/labels/compare --ignore=tests/labels/folders --ignore=tests/output/compaction --ignore=tests/output/verify/test_repair.py --ignore=tests/watch/status --ignore=tests/watch/tracing --ignore=tests/watch/web --ignore=tests/worker/test_outages.py --ignore=tests/worker/test_recording.py

.DEFAULT_GOAL := help
.PHONY: help demo quick test check soak lint docs bench gpu chaos clean kafka

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.installed  ## four simulated cameras through a broker and the worker, in the terminal (BROKER=kafka: on Apache Kafka; SCENES=nights: three days)
ifeq ($(BROKER),kafka)
	deploy/kafka/kafka fetch
endif
	$(BIN)/adawise demo --broker $(BROKER) --scenes $(SCENES)

quick: .venv/.installed  ## the tests of the core, in minutes: no broker, no browser, no long runs
	$(BIN)/python -m pytest -q -n 2 -m "not broker and not slow and not soak and not check" $(QUICK)

test: .venv/.installed kafka  ## the first tier, on Apache Kafka where Java and Maven are (or Docker, or KAFKA_BOOTSTRAP_SERVERS)
	$(BIN)/python -m pytest -n 3 --dist loadfile --max-worker-restart 3 -m "not soak and not check"  # many tests wait for a broker; three processes, a broker each

check: .venv/.installed kafka  ## the second tier: chaos, kills, logins, pages in a browser, deploy files (PARTS=changed, or names of tests/tiers.py)
	@parts="$(strip $(PARTS))"; if [ -z "$$parts" ]; then echo "PARTS is empty: all, changed, or names of tests/tiers.py" >&2; exit 2; fi; \
	if [ "$$parts" = changed ]; then parts=$$($(BIN)/python -m tests.tiers) || exit; fi; \
	if [ -z "$$parts" ]; then echo "no part of the second tier has changed since it last passed"; exit; fi; set -x; \
	$(BIN)/python -m pytest -n 3 --dist loadfile --max-worker-restart 3 --hypothesis-profile check --parts="$$parts"

soak: .venv/.soaked kafka  ## the third tier, an hour: long kills and chaos, alerts by their causes, images, clusters; what a machine lacks is skipped and named
	$(BIN)/python -m pytest -m "soak or examples" --hypothesis-profile soak --timeout 3600

lint: .venv/.installed  ## style and types
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/mypy
	$(BIN)/mypy deploy/kafka/kafka deploy/kafka/jars.py deploy/kafka/kraft.py
	$(BIN)/mypy deploy/ray/replay.py

docs: .venv/.documented  ## the site, strictly, into build/docs; first the reference from the code
	$(BIN)/python -m tools.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "open build/docs/index.html"

bench: .venv/.installed  ## measure this machine in five minutes: adawise bench on a ViT-B-32 pair (ARGS=--json; --all: every bench)
	$(BIN)/python -m tools.bench $(ARGS)

# A test that fails does not keep the figures away: time on a card is rare.
gpu: .venv/.installed  ## test and measure the CUDA card of this machine: docs/gpu-CARD.md; fails where there is none
	@$(BIN)/python -m pytest -q tests/gpu -rs; tests=$$?; $(BIN)/python -m tools.bench gpu -o docs && exit $$tests

chaos: .venv/.installed kafka  ## a quarter of an hour of kills, zombies, outages and broken brokers; what was lost, doubled or wrong (SEED=n repeats, STORE=s3, seaweedfs: in a bucket, OPERATORS=1: commands among them)
	$(BIN)/python -m tools.chaos $(if $(SEED),--seed $(SEED)) $(if $(STORE),--store $(STORE)) $(if $(OPERATORS),--operators)

clean:  ## remove the environment, caches and Apache Kafka's jars
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info deploy/kafka/libs deploy/kafka/target

# The jars, where they can be had; where not, the tests say which broker they ran on instead and why.
kafka:
	@if command -v java >/dev/null && command -v mvn >/dev/null; then deploy/kafka/kafka fetch || true; fi

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1); choose: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	command -v uv >/dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	PATH="$$PATH:$(BIN)" $(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[test]'
	touch $@

.venv/.soaked: .venv/.installed
	PATH="$$PATH:$(BIN)" $(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[soak]'
	touch $@

.venv/.documented: .venv/.installed
	PATH="$$PATH:$(BIN)" $(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[docs]'
	touch $@

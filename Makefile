# make demo: set up, then train, decode and score a 4-bit RNN transducer on real speech
# make test: set up, then run the test suite
# Both find a Python by themselves; see tools/setup_venv.sh.

SHELL := /bin/bash
VENV := $(CURDIR)/.venv
PYTHON := $(VENV)/bin/python
DEMO := $(CURDIR)/exp/demo
# The oldest ESPnet that is supported, for `make compatibility`.
OLD_VENV := $(CURDIR)/.venv-202511

.PHONY: help setup espnet-scripts demo test lint format smoke compatibility bench bench-train bench-sizes sanitize clean

help:
	@echo "make demo           set up, then the Asterisk recipe from its FP32 checkpoint; table of results"
	@echo "make test           set up, then the test suite"
	@echo "make lint           ruff and mypy; make format rewrites"
	@echo "make smoke          every stage of the recipe on a handful of utterances"
	@echo "make bench          INT4 LSTM against other CPU runtimes; exp/bench/lstm.json (20 minutes)"
	@echo "make bench-train    a training step against other packages; exp/bench/train_step.json (10 minutes)"
	@echo "make bench-sizes    a training step of the published sizes; exp/bench/published_sizes.json"
	@echo "make sanitize       the C++ kernels under address and undefined-behaviour sanitizers"
	@echo "make compatibility  part of the tests with ESPnet 202511"
	@echo "make clean          remove the environments, builds and exp/"

setup:
	@tools/setup_venv.sh "$(VENV)"

demo: setup
	env -u ESPNET_ROOT egs/asterisk_en/asr1/run.sh --python "$(PYTHON)" --from_scratch false \
	    --speed_perturb_factors "" --max_wav_duration 8 --train_jobs 2 \
	    --datadir "$(DEMO)/data" --dumpdir "$(DEMO)/dump" \
	    --expdir "$(DEMO)/exp" --results "$(DEMO)/results.json"

# asr.sh of ESPnet, which its wheel lacks, for the recipes that run through it.
espnet-scripts: setup
	tools/fetch_espnet.sh "$(PYTHON)" "$(CURDIR)/.espnet"

# A file of tests as a whole to each of two processes: what the tests of a file share is made once.
test: setup espnet-scripts
	"$(PYTHON)" -m pytest -q -n 2 --dist loadfile

lint: setup
	"$(PYTHON)" -m ruff check .
	"$(PYTHON)" -m ruff format --check .
	"$(PYTHON)" -m mypy

format: setup
	"$(PYTHON)" -m ruff check --fix .
	"$(PYTHON)" -m ruff format .

smoke: setup
	PYTHON="$(PYTHON)" tools/smoke.sh "$(CURDIR)/exp/smoke"

bench: setup
	"$(VENV)/bin/python" -m uv pip install --quiet --compile-bytecode --python "$(PYTHON)" -e ".[bench]"
	"$(PYTHON)" benchmarks/lstm.py

# Without what Brevitas depends on: its bound on setuptools would replace the one that torch needs.
bench-train: setup
	"$(VENV)/bin/python" -m uv pip install --quiet --compile-bytecode --python "$(PYTHON)" --no-deps \
	    brevitas==0.13.4 dependencies==2.0.1 unfoldNd
	"$(PYTHON)" benchmarks/train_step.py

bench-sizes: setup
	"$(PYTHON)" benchmarks/published_sizes.py

sanitize: setup
	tools/sanitize.sh "$(PYTHON)" "$(CURDIR)/exp/sanitize"

# Left out, with a line that says so, where there is no Python for that ESPnet.
compatibility:
	@if ! QUANT4_ESPNET=202511 QUANT4_DRY_RUN=1 tools/setup_venv.sh "$(OLD_VENV)" 2>/dev/null; then \
	    echo "compatibility: no Python 3.10 or 3.11 on this machine; left out"; exit 0; fi; \
	QUANT4_ESPNET=202511 tools/setup_venv.sh "$(OLD_VENV)" && \
	"$(OLD_VENV)/bin/python" -m pytest -q -m "not slow" tests/asr/test_espnet_classes.py \
	    tests/asr/test_espnet_model.py tests/nn tests/int4 tests/test_registration.py tests/test_scheme.py

clean:
	rm -rf "$(VENV)" "$(OLD_VENV)" .espnet build dist exp *.egg-info

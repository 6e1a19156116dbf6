# Every target sets up its environment: `make demo` and `make test` need only python3 (3.11 to 3.13) and a package index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Installs the CUDA build of JAX if there is a GPU, otherwise the CPU build.
EXTRAS := dev$(shell nvidia-smi -L >/dev/null 2>&1 && echo ,cuda12)
# Two processes share the tests; each takes a whole file at a time, in the order that tests/conftest.py gives them.
SHARED := -n 2 --dist=loadfile --no-loadscope-reorder
RUN ?= runs/demo
DATA ?= data/stdlib
ROAD ?= runs/road
# Less than half of the tests: they compile little and start no runs; those of the model and the step are left out.
QUICK := tests/config tests/settings tests/configs tests/data tests/tokenizer \
  $(addprefix tests/corpus/,cleaning contamination duplicates formats report sources stages tokens) \
  $(addprefix tests/parallel/test_,mesh.py sharding.py) $(addprefix tests/inference/test_,sampling.py text.py) \
  $(addprefix tests/training/,$(patsubst %,test_%.py,hardware memory_check metrics) optimizers/test_schedule.py) \
  $(patsubst %,tests/training/records/test_%.py,console progress writers)

.PHONY: help demo road test quick test-meshes test-faults test-exhaustive test-book test-parity test-pythons test-slurm aot soak lint format clean

help:            ## list all targets
	@grep -E '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	touch $@

demo: $(BIN)/.ready ## prepare a corpus and tokenizer, train a model, write samples and a plot; 3½ minutes on two cores
	$(BIN)/python -m gptjax.prepare --input=python-stdlib --output=$(DATA) --tokenizer=bpe --vocab_size=2048
	$(BIN)/python -m gptjax.train --config=configs/stdlib_tiny.py --config.data.path=$(DATA) --workdir=$(RUN)
	$(BIN)/python -m gptjax.sample --workdir=$(RUN) --checkpoint=best --prompt='def ' --num_samples=2 --max_new_tokens=120 \
	  --temperature=0.8 --top_p=0.95
	@echo
	@echo 'Next: open $(RUN)/plots/loss_by_step.png; try your own prompts: $(BIN)/python -m gptjax.sample --workdir=$(RUN);'
	@echo 'use your own text: $(BIN)/python -m gptjax.prepare --input=FOLDER --output=data/mine, then train with'
	@echo '--config.data.path=data/mine; train longer: --config.training.duration="5000 steps".'

road: $(BIN)/.ready ## raw text to a small chat model, in about ten minutes on two cores; TEXT=FOLDER CHATS=FILE take your own; goes on after a stop
	$(BIN)/python -m gptjax.road --config=configs/road/laptop.py --workdir='$(ROAD)' --text='$(TEXT)' --chats='$(CHATS)'

test: $(BIN)/.ready ## run all tests
	$(BIN)/ruff check .
	$(BIN)/python -m pytest $(SHARED)

quick: $(BIN)/.ready ## less than half of the tests, in about a minute; not those of the model, the step and whole runs
	$(BIN)/python -m pytest $(SHARED) -m 'not slow and not exhaustive' $(QUICK)

test-exhaustive: $(BIN)/.ready ## many more cases than `make test`, which has a few of each kind
	$(BIN)/python -m pytest $(SHARED) -m exhaustive

test-book: $(BIN)/.ready ## run every command of the pages in experiments/from_scratch, shortened
	$(BIN)/python -m pytest -m 'exhaustive or not exhaustive' tests/experiments/from_scratch

test-pythons:    ## the whole suite on every installed Python version that is supported, each with its newest jax
	@for version in 3.11 3.12 3.13; do \
	  python=python$$version; \
	  $$python -c '' 2>/dev/null || python=$$(ls $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version*/bin/python 2>/dev/null | tail -1); \
	  if [ -n "$$python" ]; then $(MAKE) test PYTHON=$$python VENV=.venv-$$version || exit 1; \
	  else echo "python$$version is not installed: skipped"; fi; done

test-slurm: $(BIN)/.ready ## tests on a real Slurm of two nodes on this machine; needs root, Debian's slurm-wlm and munge
	$(BIN)/python -m pytest -m slurm -rs tests/slurm

test-meshes: $(BIN)/.ready ## compare loss and gradients on many random meshes of eight devices with those of one device
	$(BIN)/python -m pytest -m exhaustive tests/parallel

test-faults: $(BIN)/.ready ## real runs in which one of four processes fails, and runs that move between meshes; half an hour
	$(BIN)/python -m pytest -m exhaustive tests/test_faults.py tests/test_meshes.py

aot:             ## check training steps compiled for eight GPUs, without a GPU; installs their compiler (1.6 GB)
	$(PYTHON) -m venv .venv-aot
	.venv-aot/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	version=$$(.venv-aot/bin/python -c 'import jax; print(jax.__version__)') && .venv-aot/bin/pip install --quiet \
	  --disable-pip-version-check --no-deps jax-cuda12-plugin==$$version jax-cuda12-pjrt==$$version nvidia-cudnn-cu12
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 .venv-aot/bin/python -m pytest -m aot tests/experiments/ahead_of_time tests/forecast

test-parity:     ## tests against PyTorch and transformers, in a separate environment
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/pip install --quiet --disable-pip-version-check --editable '.[dev,parity]'
	.venv-parity/bin/python -m pytest tests/parity

soak: $(BIN)/.ready ## kill a run hundreds of times and compare every loss with an uninterrupted run
	$(BIN)/python tests/support/soak.py --kills=$${KILLS:-200}

lint: $(BIN)/.ready ## check style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(BIN)/.ready ## fix style
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean:           ## remove environments and caches; runs/ and data/ stay
	rm -rf .venv .venv-* .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info

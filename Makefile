# Everything sets itself up: `make demo` and `make test` need a python3 (3.11 to 3.13) and a package index, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The CUDA build of JAX where a GPU answers, the CPU build elsewhere.
EXTRAS := dev$(shell nvidia-smi -L >/dev/null 2>&1 && echo ,cuda12)
RUN ?= runs/demo
DATA ?= data/stdlib
# What covers most per second: it compiles little and starts no runs. Left out: the trainer's step, the decoder, whole runs.
QUICK := tests/test_config.py tests/test_user_code.py tests/configs tests/data tests/tokenizer \
  $(addprefix tests/corpus/,cleaning contamination duplicates formats report sources stages tokens) \
  $(addprefix tests/parallel/test_,mesh.py sharding.py) $(addprefix tests/inference/test_,sampling.py text.py) \
  $(patsubst %,tests/training/test_%.py,console hardware memory_check metrics progress schedule writers)

.PHONY: help demo test quick test-parity test-pythons test-slurm soak lint format clean

help:            ## what there is to make
	@grep -E '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	touch $@

demo: $(BIN)/.ready ## corpus, tokenizer, three minutes of training with evaluation, samples, a plot
	$(BIN)/python -m gptjax.prepare --input=python-stdlib --output=$(DATA) --tokenizer=bpe --vocab_size=2048
	$(BIN)/python -m gptjax.train --config=configs/stdlib_tiny.py --config.data.path=$(DATA) --workdir=$(RUN)
	$(BIN)/python -m gptjax.sample --workdir=$(RUN) --checkpoint=best --prompt='def ' --num_samples=2 --max_new_tokens=120 \
	  --temperature=0.8 --top_p=0.95
	@echo
	@echo 'Next: look at $(RUN)/plots/loss_by_step.png; give it your own prompt: $(BIN)/python -m gptjax.sample --workdir=$(RUN);'
	@echo 'your own text: $(BIN)/python -m gptjax.prepare --input=FOLDER --output=data/mine, then train with'
	@echo '--config.data.path=data/mine; a longer run of this one: --config.training.duration="5000 steps".'

test: $(BIN)/.ready ## the whole suite
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist=loadgroup

quick: $(BIN)/.ready ## the inner loop: most of the tests in under a minute; not the step, the decoder, whole runs
	$(BIN)/python -m pytest -n 2 --dist=loadgroup -m 'not slow' $(QUICK)

test-pythons:    ## the whole suite on every supported python that is at hand, each with the newest jax for it
	@for version in 3.11 3.12 3.13; do \
	  python=python$$version; \
	  $$python -c '' 2>/dev/null || python=$$(ls $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version*/bin/python 2>/dev/null | tail -1); \
	  if [ -n "$$python" ]; then $(MAKE) test PYTHON=$$python VENV=.venv-$$version || exit 1; \
	  else echo "python$$version is not here: skipped"; fi; done

test-slurm: $(BIN)/.ready ## two nodes of a real Slurm on this machine: as root, with Debian's slurm-wlm and munge
	$(BIN)/python -m pytest -m slurm -rs tests/slurm

test-parity:     ## against PyTorch and transformers, in an environment of its own
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/pip install --quiet --disable-pip-version-check --editable '.[dev,parity]'
	.venv-parity/bin/python -m pytest tests/parity

soak: $(BIN)/.ready ## kill a run hundreds of times and compare every loss with an unbroken run's
	$(BIN)/python tests/support/soak.py --kills=$${KILLS:-200}

lint: $(BIN)/.ready ## style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(BIN)/.ready ## style, mended
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean:           ## environments and caches; runs/ and data/ stay
	rm -rf .venv .venv-* .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info

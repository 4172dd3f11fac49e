# The README's two commands. Each makes what it needs: a virtual environment with pinned versions.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
CONSTRAINTS ?= constraints.txt
LAUNCH = $(VENV)/bin/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

# Threads that wait for each other sleep after some microseconds. By default they spin, which costs nothing on an idle
# machine, and makes training forty times slower where another program wants one of the cores.
export GOMP_SPINCOUNT ?= 1000

.PHONY: pretrain test compatibility style

pretrain: $(VENV)/training
	$(LAUNCH) training/pretrain.py --config training/recipes/demo.yaml --resume auto $(ARGS)

test: $(VENV)/dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m pytest $(ARGS)

# What touches other libraries most, with the oldest versions of them.
COMPATIBILITY = tests/test_configuration.py tests/test_modeling.py tests/test_heads.py tests/test_processing.py \
	tests/test_hub_roundtrip.py tests/test_hub_by_name.py tests/test_export.py tests/data/test_builder.py \
	tests/data/test_prepare.py tests/data/test_hub_data_sets.py tests/training/test_pretrain.py \
	tests/training/test_finetune.py tests/training/test_card.py tests/training/test_publish.py

compatibility:
	$(MAKE) compatibility-tests VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt

compatibility-tests: $(VENV)/dev
	$(VENV)/bin/python -m pytest $(COMPATIBILITY) $(ARGS)

style: $(VENV)/dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# One mark per extra of pyproject.toml. It is written last: an interrupted installation starts again.
$(VENV)/training $(VENV)/dev: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"needs Python 3.11 or newer, found {sys.version}"'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[$(@F)]'
	touch $@

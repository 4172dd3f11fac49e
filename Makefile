# The README's two commands. Each makes what it needs: a virtual environment with pinned versions.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
LAUNCH = $(VENV)/bin/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

# Threads that wait for each other sleep after some microseconds. By default they spin, which costs nothing on an idle
# machine, and makes training forty times slower where another program wants one of the cores.
export GOMP_SPINCOUNT ?= 1000

.PHONY: pretrain test style

pretrain: $(VENV)/training
	$(LAUNCH) training/pretrain.py --config training/recipes/demo.yaml $(ARGS)

test: $(VENV)/dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m pytest $(ARGS)

style: $(VENV)/dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# One mark per extra of pyproject.toml. It is written last: an interrupted installation starts again.
$(VENV)/training $(VENV)/dev: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"needs Python 3.11 or newer, found {sys.version}"'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(@F)]'
	touch $@

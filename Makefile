# The README's two commands. Each makes what it needs: a virtual environment with pinned versions.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
LAUNCH = $(VENV)/bin/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

.PHONY: pretrain test style

pretrain: $(VENV)/installed
	$(LAUNCH) training/pretrain.py --config training/recipes/demo.yaml $(ARGS)

test: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m pytest $(ARGS)

style: $(VENV)/installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The mark is written last: an interrupted installation starts again.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"needs Python 3.11 or newer, found {sys.version}"'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# Each target makes its own virtual environment; PYTHON names the interpreter (3.11 or later).
PYTHON ?= python3
VENV ?= .venv

.PHONY: demo test docs readme

demo: $(VENV)/installed
	$(VENV)/bin/hyperofa demo --output data/demo

test: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy & types=$$!; \
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov; tests=$$?; \
	wait $$types && exit $$tests

readme: $(VENV)/installed
	$(VENV)/bin/python -m tests.methods.readme

docs: $(VENV)/installed
	$(VENV)/bin/mkdocs build

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --no-compile --constraint constraints.txt --editable '.[cpu,demo,colexnet,dev,docs]'
	touch $@

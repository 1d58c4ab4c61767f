# Each target makes its own virtual environment; PYTHON names the interpreter (3.11 or later).
PYTHON ?= python3
VENV ?= .venv
COMPILING = tests/test_device.py

.PHONY: demo test docs readme

demo: $(VENV)/installed
	$(VENV)/bin/hyperofa demo --output data/demo

# Coverage rewrites the code that it measures, which torch cannot compile: those tests run without it.
# What pip does not compile, the first process that needs it does, for the hundred that tests start after it.
test: export OMP_NUM_THREADS = 1
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	{ $(VENV)/bin/mypy && $(VENV)/bin/pytest $(COMPILING); } & others=$$!; \
	$(VENV)/bin/slipcover -m pytest --ignore $(COMPILING) --numprocesses 2 --dist loadfile --no-loadscope-reorder; \
	tests=$$?; wait $$others && exit $$tests

readme: $(VENV)/installed
	$(VENV)/bin/python -m tests.methods.readme

docs: $(VENV)/installed
	$(VENV)/bin/mkdocs build

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --no-compile --constraint constraints.txt --editable '.[cpu,demo,colexnet,dev,docs]'
	touch $@

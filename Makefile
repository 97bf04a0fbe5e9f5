# Two commands to begin with: `make demo` and `make test`. Both make .venv and install into it first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo demo-full test test-all gpu lint docs reference clean
install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# a small built-in recording, in about two minutes
demo: install
	$(BIN)/neuroformer demo

# the whole one: train, simulate and decode it into runs/demo, and show it on one page. README quotes its numbers
demo-full: install
	$(BIN)/python train.py --config configs/demo.yaml --overwrite
	$(BIN)/python generate.py --run runs/demo
	$(BIN)/neuroformer decode --run runs/demo
	$(BIN)/neuroformer attend --run runs/demo --windows 500 --knocked-out 200
	$(BIN)/neuroformer report --run runs/demo

# two processes of one thread: tests are many small operations
test: export OMP_NUM_THREADS = 1
test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: export OMP_NUM_THREADS = 1
test-all: install
	$(BIN)/python -m pytest -m 'not gpu'

# Needs PyTorch and Triton, not an installation. Without a GPU the script says so and exits with 3 (make prints
# "Error 3", and itself returns 2, as for every error). OPTIONS: --out DIRECTORY, --minutes 7.5
gpu:
	PYTHONPATH=. $(firstword $(wildcard $(BIN)/python) $(PYTHON)) -m benchmarks.kernels.gpu $(OPTIONS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# the site, in docs/_build; a warning, such as a link that leads nowhere, is an error. NEUROFORMER_DOCS_RUN=force runs the notebooks
docs: export OMP_NUM_THREADS = 1
docs: install
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs docs/_build

# every setting with its default and meaning, from the schema; every message with its cause and cure
reference: install
	$(BIN)/python -c "from neuroformer.config.reference import write_reference; write_reference('configs/reference.yaml')"
	$(BIN)/python -c "from neuroformer.messages import page; print(page(), end='')" > docs/messages.md

clean:
	rm -rf .venv build dist docs/_build *.egg-info

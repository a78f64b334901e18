PYTHON ?= python3.11
VENV ?= .venv
METHOD ?= sim_affinity
RUN ?= runs/demo-$(METHOD)
CHROMIUM ?= $(shell which chromium chromium-browser google-chrome 2>/dev/null | head -n 1)

.PHONY: setup demo lint format test test-full test-interop test-report bench docs methods evidence-check

setup: $(VENV)/ready

$(VENV)/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: setup
	$(VENV)/bin/jaxclr train experiments/digits.py --method $(METHOD) --out $(RUN) --overwrite

# One line length, sorted imports, types.
lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/basedpyright --level error

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

test: setup
	$(VENV)/bin/python -m pytest -n 2 -m "not full and not interop"

test-full: setup
	$(VENV)/bin/python -m pytest -n 2 -m "not interop"

# PyTorch is in an environment of its own.
test-interop: $(VENV)-interop/ready
	$(VENV)-interop/bin/python -m pytest -n 0 -m interop

$(VENV)-interop/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)-interop
	$(VENV)-interop/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt 'torch==2.13.0'
	$(VENV)-interop/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# The report of a small run in headless Chromium: screenshots are in build/report.
test-report: setup
	@test -n "$(CHROMIUM)" || { echo "No Chromium here: install Debian's package chromium, or set CHROMIUM to a browser. \
	The HTML itself is checked by make test."; exit 1; }
	CHROMIUM=$(CHROMIUM) $(VENV)/bin/python tests/report/browser.py build/report

# Tables on the terminal, figures and plots in build/bench. The pod benchmark needs the TPU's compiler, not a TPU.
bench: setup build/libtpu
	$(VENV)/bin/python experiments/benchmarks/loss.py --short --out build/bench/loss.json
	$(VENV)/bin/python experiments/benchmarks/memory.py --short --out build/bench/memory.json
	$(VENV)/bin/python experiments/benchmarks/step.py --out build/bench/step.json
	$(VENV)/bin/python experiments/benchmarks/input.py --short --out build/bench/input.json
	$(VENV)/bin/python experiments/benchmarks/knn.py --out build/bench/knn.json
	TPU_LIBRARY_PATH=build/libtpu/libtpu/libtpu.so \
		$(VENV)/bin/python experiments/benchmarks/pod.py --short --out build/bench/pod.json

build/libtpu:
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ 'libtpu==0.0.42.*'

# The site, in build/docs: a broken reference and an undocumented public name are errors.
docs: setup
	JAX_PLATFORMS=cpu $(VENV)/bin/python -m sphinx -b html -W --keep-going --quiet docs build/docs

methods: setup
	$(VENV)/bin/python experiments/benchmarks/methods.py

# One seed of eight methods on digits again, compared with the committed figures: some ten minutes.
evidence-check: setup
	$(VENV)/bin/python experiments/evidence.py check

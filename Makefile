PYTHON ?= python3.11
VENV ?= .venv
METHOD ?= sim_affinity
RUN ?= runs/demo-$(METHOD)

.PHONY: setup demo test test-full

setup: $(VENV)/ready

$(VENV)/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: setup
	$(VENV)/bin/jaxclr train experiments/digits.py --method $(METHOD) --out $(RUN) --overwrite

test: setup
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not full"

test-full: setup
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

# make reproduce | test | lint | notebooks | report | evidence | faults | instrument | sync | clean
# PYTHON chooses the interpreter that .venv is made from; PROFILE is smoke, tiny, laptop or paper.
PYTHON ?= python3.11
PROFILE ?= tiny
OUT ?= paper_figures/out/$(PROFILE)
RUNS ?= runs
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

.PHONY: reproduce test lint notebooks report evidence faults instrument sync clean help

help:
	@sed -n 1,2p Makefile

$(STAMP): constraints.txt pyproject.toml
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

reproduce: PROFILE := tiny
reproduce: $(STAMP)
	$(BIN)/python -m paper_figures.execute --profile tiny --out paper_figures/out/tiny --runs $(RUNS)

notebooks: $(STAMP)
	$(BIN)/python -m paper_figures.execute --profile $(PROFILE) --out $(OUT) --runs $(RUNS)

report: $(STAMP)
	$(BIN)/python -m paper_figures.report --out $(OUT)

# an hour: every method over many seeds; goes on where it was stopped
evidence: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/evidence.py --runs $(RUNS)

# half an hour: kills, broken writes and full disks (the last where one may mount)
faults: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/faults.py

# two minutes: the embedded mixtures and their base models, which lie in msft/tiny, anew
instrument: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m paper_figures.instrument

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

sync: $(STAMP)
	$(BIN)/jupytext --sync notebooks/*.py

clean:
	rm -rf $(VENV) runs .runs paper_figures/out/smoke build *.egg-info

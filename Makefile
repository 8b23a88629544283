# Every target sets up .venv by itself. PYTHON chooses the interpreter, e.g. `make demo PYTHON=python3.12`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
CHECK  := $(VENV)/.stamp-check
RUNS   ?= runs
# A process for each core, of one thread; a file is the work of one process, the slow ones come first.
# What a tensor gives back, glibc keeps for the next one: 5 to 10 % of the time.
KEEP    = MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=1073741824
PYTEST  = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(KEEP) $(BIN)/python -m pytest -q \
	  -n logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder
NBVAL   = --nbval --nbval-current-env --nbval-cell-timeout=300 --nbval-sanitize-with=tests/nbval_sanitize.cfg
# All but the slow, the surgery of nets, and the laboratory (its command line is tested here).
QUICK   = tests/ref tests/twins tests/torch tests/site/test_conventions.py \
	  --ignore=tests/torch/surgery --ignore=tests/torch/training -m 'not slow'
export CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.DEFAULT_GOAL := help
.PHONY: help demo test kill quick fuzz lint book check-book pdf notebooks lab bench clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 20

# The stamp is as new as the lists of packages, so that a change of either installs again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make needs Python 3.11 or newer, got $$($(PYTHON) --version 2>&1): pass PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .[all] -c constraints.txt
	touch $(STAMP)

# What drives a browser is installed when it is first asked for.
$(CHECK): $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .[check] -c constraints.txt
	touch $(CHECK)

need-chromium = $(if $(CHROMIUM),,$(error make $@ needs Chromium: install it, or name it with CHROMIUM=...))

demo: $(STAMP)  ## train on the embedded digits, print the table, check the twins, draw runs/demo/path.png
	rm -rf $(RUNS)/demo
	$(BIN)/python -m dslbi_torch train digits --out $(RUNS)/demo
	$(BIN)/python -m dslbi_torch compact $(RUNS)/demo
	$(BIN)/python -m dslbi_torch path $(RUNS)/demo
	$(BIN)/python -m dslbi_torch verify

test: $(STAMP)  ## notebooks against their outputs, and every test
	$(PYTEST) $(NBVAL) notebooks tests

kill: $(STAMP)  ## a hundred kills and two hundred flipped bits: every end is bit-equal, or refused
	DSLBI_KILLS=100 DSLBI_FLIPS=200 $(PYTEST) -rP tests/faults/test_kills.py tests/faults/test_flips.py

quick: lint  ## lint, and the tests that a change breaks first: two minutes
	$(PYTEST) $(QUICK)

fuzz: $(STAMP)  ## 20,000 wrong calls of each package, and 400 wrong command lines: ten minutes
	FUZZ_CALLS=20000 FUZZ_LINES=400 $(PYTEST) tests/fuzz

lint: $(STAMP)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

book: $(STAMP)  ## the site, into book/_build/html
	rm -rf book/_build/html
	$(BIN)/sphinx-build -q -b html -W --keep-going -n -E -c book -d book/_build/doctrees . book/_build/html
	$(BIN)/python tools/check_book.py --without-browser
	@echo "open book/_build/html/index.html"

check-book:  ## every page of the site in headless Chromium
	$(need-chromium)
	$(MAKE) --no-print-directory $(CHECK) book
	$(BIN)/python tools/check_book.py

pdf:  ## the whole book as one file, through Chromium: book/_build/dslbi.pdf
	$(need-chromium)
	$(MAKE) --no-print-directory $(CHECK) book
	$(BIN)/python tools/print_book.py

notebooks: $(STAMP)  ## run every notebook and write its outputs
	$(BIN)/python tools/notebooks.py run

lab: $(STAMP)  ## the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks/00_tour.ipynb

bench: $(STAMP)  ## cost of a step against SGD
	$(BIN)/python benchmarks/step.py

clean:  ## remove the environment and everything that was built (run folders stay)
	rm -rf $(VENV) book/_build build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

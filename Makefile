# A thin front. `make book` and `make test` are all a reader needs.
PYTHON  ?= python3
PROFILE ?= miniature
VENV    ?= .venv
# Where to take torch from, if not from the default index, e.g. TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
CHROMIUM ?= chromium
BIN  := $(VENV)/bin
# The peer of feature visualisation, with the two packages that it imports: it names more, and only old ones.
LUCENT = torch-lucent==0.1.8 kornia==0.4.1 decorator==5.3.1
TORCH = $(shell sed -n '/^torch==/p' constraints.txt)
SHELL := /bin/bash

.PHONY: book pdf test pages benchmark train lint wheel address clean help

book: $(VENV)/.book  ## run the chapters that changed and print the book
	MMN_PROFILE=$(PROFILE) $(BIN)/jupyter-book build book

pdf: book  ## the whole book as book/_build/book.pdf, printed by headless Chromium
	MMN_PROFILE=$(PROFILE) $(BIN)/jupyter-book build book --builder singlehtml
	$(CHROMIUM) --headless --no-sandbox --disable-gpu --virtual-time-budget=60000 --no-pdf-header-footer \
		--print-to-pdf=book/_build/book.pdf "file://$(CURDIR)/book/_build/singlehtml/index.html"

test: $(VENV)/.test  ## the test suite, without the browser; PROFILE=paper: also what published weights must say
	MMN_TEST_PROFILE=$(PROFILE) $(BIN)/python -m pytest -q --ignore=tests/pages $(PYTEST_ARGS)

pages: $(VENV)/.test  ## look at every built page in headless Chromium
	$(BIN)/python -m pytest -q tests/pages $(PYTEST_ARGS)

benchmark: $(VENV)/.benchmark  ## time us beside our peers
	@test -d benchmarks || { echo 'make benchmark: there are no benchmarks yet'; exit 2; }
	$(BIN)/python -m benchmarks

train: $(VENV)/.train  ## make the miniature's weights again from nothing
	$(BIN)/python -m mmn_utils.miniature train

lint: $(VENV)/.test
	$(BIN)/ruff check .

wheel: $(VENV)/bin/python
	$(BIN)/python -m pip wheel -q --no-deps -w dist .

address: $(VENV)/.book  ## move the book: make address URL=https://github.com/you/your-book [TAG=v1.0]
	@test -n "$(URL)" || { echo "make address: say where the repository is: make address URL=https://..."; exit 2; }
	$(BIN)/python -m mmn_utils.address "$(URL)" $(if $(TAG),--tag "$(TAG)")

clean:  ## forget every result and every page (the environment stays)
	rm -rf book/_build book/notebooks book/status.md book/paper_against_ours.md book/part?_numbers.md results dist

help:
	@sed -n 's/^\([a-z]*\):.*## */make \1	/p' Makefile

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed, this is " + sys.version'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

$(VENV)/.book: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q $(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[book]'
	@touch $@

$(VENV)/.test: $(VENV)/.book
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[book,test]'
	@touch $@

$(VENV)/.benchmark: $(VENV)/.test
	-$(BIN)/python -m pip install -q --no-deps $(LUCENT)
	@touch $@

$(VENV)/.train: $(VENV)/.book
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[train]'
	@touch $@

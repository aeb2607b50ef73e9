# Everything runs in .venv, which is made on first use. `make VENV=... TARGET` puts it elsewhere.
VENV ?= .venv
PYTHON ?= python3
OLDEST_OPEN_CLIP ?= 2.24.0
# What release-check installs: with less than this it leaves the demo out.
EXTRAS ?= full,demo
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
OLDEST := $(VENV)/open_clip-$(OLDEST_OPEN_CLIP)

.PHONY: demo docs test lint types unit oldest audit release-check sbom man clean

demo: $(VENV)/.demo
	$(BIN)/winspect demo --out runs/demo

test: lint types unit oldest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

# The line coverage of the core is held to 95 %; the figure for the whole package is only printed.
unit: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not ray" --cov --cov-report=
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m ray tests/cluster --cov --cov-append --cov-report=
	$(BIN)/python -m coverage report --fail-under=95 \
	    --include='*/winspect/backbones/*,*/winspect/methods/*,*/winspect/pictures/tiles.py,*/winspect/pictures/pool.py,*/winspect/pictures/decoding.py,*/winspect/pictures/find.py,*/winspect/weights/*'
	$(BIN)/python -m coverage report | tail -1

# The encoder against open_clip itself, once more on the oldest release we accept (it was sequence-first).
oldest: $(OLDEST)/.done
	PYTHONPATH=$(OLDEST) $(BIN)/python -m pytest -m open_clip_versions tests

# The site, in build/site: its notebooks are run, a warning is an error, and what was built is checked once more.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	$(BIN)/python docs/_site/check.py build/site

# Known vulnerabilities of what is installed, asked of a service on the internet; where there is none, it says so.
audit: $(VENV)/.test $(VENV)/audit/bin/pip-audit
	$(BIN)/python .ci/audit.py $(VENV)/audit/bin/pip-audit $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# A release as its users get it: built, checked, installed into an empty environment, its demo run there.
release-check: $(VENV)/release/bin/twine
	.ci/release-check $(VENV)/release/bin $(EXTRAS)

# The software bill of materials of the environment that the tests run in.
sbom: $(VENV)/.test $(VENV)/release/bin/twine
	mkdir -p build
	$(VENV)/release/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o build/sbom.json $(BIN)/python

man: $(VENV)/.test
	mkdir -p build
	$(BIN)/python -m winspect.cli.manual > build/winspect.1

$(VENV)/release/bin/twine: $(VENV)/bin/python
	$(BIN)/python -m venv $(VENV)/release
	$(VENV)/release/bin/python -m pip --disable-pip-version-check -q install build twine check-wheel-contents cyclonedx-bom

$(VENV)/audit/bin/pip-audit: $(VENV)/bin/python
	$(BIN)/python -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip --disable-pip-version-check -q install pip-audit

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(PIP) install -e '.[full,demo]'
	touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	$(PIP) install -e '.[all,test,docs]'
	touch $@ $(VENV)/.demo $(VENV)/.docs

$(VENV)/.docs: $(VENV)/bin/python pyproject.toml
	$(PIP) install -e '.[docs]'
	touch $@

$(OLDEST)/.done: $(VENV)/.test
	$(PIP) install --no-deps --target $(OLDEST) open_clip_torch==$(OLDEST_OPEN_CLIP)
	touch $@

clean:
	rm -rf $(VENV) runs build dist .coverage .mypy_cache .pytest_cache .ruff_cache

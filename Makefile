# The first target prints the list. `check` never changes a file; `format` does.
.DEFAULT_GOAL := help
.PHONY: help zoo audit demo test test-all test-bare check deploy-check format lock images release changelog docs diagrams clean bench bench-r count soak fuzz

VENV ?= .venv
BIN := $(VENV)/bin
# The newest that truly runs: a version manager's shim may stand on the PATH and start nothing.
PYTHON ?= $(or $(shell for name in python3.13 python3.12 python3.11 python3; do $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done),python3)
# auto: one worker more than there are cores, up to four, since each starts servers of its own. All tests of a file stay together,
# and tests/conftest.py orders the files. WORKERS=0 is one process.
WORKERS ?= auto
RUN_TESTS = $(BIN)/python -m pytest --quiet --no-header --tb=short -n $(WORKERS) --maxprocesses=4 --dist=loadfile --no-loadscope-reorder
SOURCES := gateway tests examples backends/python
# The tests start hundreds of Python processes. Where this is set, each of them compiles all modules anew.
unexport PYTHONDONTWRITEBYTECODE

help:  ## print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.ready  ## train, publish, serve and score a real model; ONCE=1 ends after the score
	@$(BIN)/python -m examples.demo $(if $(ONCE),--once)

test: $(VENV)/.ready  ## run the tests, without the slow ones; what is skipped is listed with its reason
	@$(RUN_TESTS) -m 'not slow' $(PYTEST)

test-all: $(VENV)/.ready  ## run every test: also the slow ones, and each language's whole contract
	@$(RUN_TESTS) $(PYTEST)

test-bare:  ## demo, test and the wheel on minimal Debian 12 and 13 systems made here, as root and as a user; needs root and debootstrap
	@tests/bare/run $(BARE)

check: $(VENV)/.ready  ## lint, types, imports, spelling, the house rules of length and words
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy gateway tests examples benchmarks
	cd backends/python && ../../$(BIN)/mypy --config-file ../../pyproject.toml chips_backend tests
	$(BIN)/lint-imports
	$(BIN)/python -m tests.house.secrets
	$(BIN)/python -m pytest --quiet --no-header --tb=short tests/unit/test_sizes.py tests/unit/test_words.py tests/unit/test_docstrings.py
	@if command -v Rscript >/dev/null; then $(MAKE) -C backends/r lint; else echo "skipped: lintr, since there is no R here"; fi
	@if command -v $${JULIA:-julia} >/dev/null && [ -f $${JULIA_PROJECT:-backends/julia}/Manifest.toml ]; then $(MAKE) -C backends/julia lint; else echo "skipped: JuliaFormatter, since there is no Julia with packages here"; fi
	$(BIN)/codespell $(SOURCES) docs deploy backends README.md CHANGELOG.md CONTRIBUTING.md

audit: $(VENV)/.ready  ## known vulnerabilities in the pinned dependencies; needs the network
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m tests.house.audit

deploy-check: $(VENV)/.ready  ## deploy/: formatted, valid, planned offline, held against rules and Google's own words
	@command -v terraform >/dev/null || { echo "error: terraform is not installed; it is one binary, from its maker's site"; exit 1; }
	terraform fmt -check -recursive deploy/terraform
	$(BIN)/python -m pytest tests/deploy $(PYTEST)

format: $(VENV)/.ready  ## format the code and mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready  ## measure CPU per request beside nginx, HAProxy, Envoy, Caddy and others; 3 rounds of 6 minutes; BENCH='--rounds 1'
	@test -x $(VENV)-bench/bin/envoy || { $(PYTHON) -m venv $(VENV)-bench && $(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt; }
	@for router in litellm ray bentoml; do test -x $(VENV)-bench-$$router/bin/python || { $(PYTHON) -m venv $(VENV)-bench-$$router && timeout 600 $(VENV)-bench-$$router/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements-$$router.txt; } || { echo "left out: $$router, which cannot be installed here"; rm -rf $(VENV)-bench-$$router; }; done
	$(BIN)/python -m benchmarks --routers $(VENV)-bench --envoy "$$($(VENV)-bench/bin/python -c 'import envoy, pathlib; print(pathlib.Path(envoy.__file__).parent / "_bin" / "envoy")')" --out benchmarks/results $(BENCH)

count: $(VENV)/.ready  ## instructions per request, by function; COUNT=--check holds them against benchmarks/counts.json; needs valgrind and gcc
	$(BIN)/python -m benchmarks.count $(COUNT)

bench-backends: $(VENV)/.ready  ## measure the Python backend next to FastAPI, MLServer, BentoML, LitServe, MLflow and KServe; BENCH='--seconds 1 --rows 1,1000'
	@for peer in fastapi mlserver bentoml litserve mlflow kserve; do venv=$(VENV)-bench-models-$$peer; test -x $$venv/bin/python || { $(PYTHON) -m venv $$venv && timeout 600 $$venv/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/backends/peers/requirements-$$peer.txt; } || { echo "left out: $$peer, which cannot be installed here"; rm -rf $$venv; }; done
	$(BIN)/python -m benchmarks.backends.alternatives --venvs $(VENV)-bench-models --out benchmarks/results --docs docs/performance.md $(BENCH)

bench-r: $(VENV)/.ready  ## measure the R backend next to plumber with jsonlite; BENCH='--seconds 1'
	$(BIN)/python -m benchmarks.backends.r_alternatives --out benchmarks/results --docs docs/performance.md $(BENCH)

soak: $(VENV)/.ready  ## mixed load on a real gateway for MINUTES=10, SERVER_PATH=fast: every answer its caller's own, memory flat
	$(BIN)/python -u -m tests.e2e.soak --minutes $(or $(MINUTES),10) --path $(or $(SERVER_PATH),fast)

fuzz: $(VENV)/.ready  ## the protocol adapters against what atheris thinks of, each for MINUTES=5
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/fuzz/requirements.txt
	@for target in caller backend chunks; do $(BIN)/python -m tests.fuzz $$target --minutes $(or $(MINUTES),5) || exit 1; done

zoo: $(VENV)/.ready  ## every kind of model in every language that is installed here; writes tests/zoo/results
	CHIPS_ZOO_RESULTS=1 $(BIN)/python -m pytest tests/zoo $(PYTEST)
	$(BIN)/python -m tests.house.reference

docs: $(VENV)/.ready  ## write the reference pages that are made from the code, and build the site; SERVE=1 shows it
	$(BIN)/python -m tests.house.reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(if $(SERVE),serve,build --strict --quiet)

diagrams: $(VENV)/.ready  ## draw docs/images/*.mmd anew; needs npm and Chromium
	$(BIN)/python -m tests.house.diagrams

lock: $(VENV)/.ready  ## write the locks of the images anew: every file by digest, in the versions of constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo hatchling >$(VENV)/build-requirements.in
	@for lock in "deploy/gateway pyproject.toml" "backends/python backends/python/pyproject.toml --extra pandas --extra onnx"; do set -- $$lock; out=$$1/requirements.lock; shift; \
	  $(BIN)/uv pip compile --quiet "$$@" $(VENV)/build-requirements.in -c constraints.txt --generate-hashes --universal --python-version 3.11 --no-header --no-annotate -o $$out \
	  && sed -i '1i # Every file that the image may contain, by digest. Written by make lock; do not edit.' $$out && echo "wrote $$out"; done

images:  ## build the images for real, start, score and stop each; IMAGES="gateway python r"; needs root, buildah and debootstrap
	@$(MAKE) --no-print-directory $(VENV)/.ready
	$(BIN)/python -m tests.images $(IMAGES)

release: $(VENV)/.ready  ## wheels, requirements with digests, lists of components and SHA256SUMS in dist/
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'cyclonedx-bom>=7'
	@$(BIN)/python -m tests.house.release dist

changelog: $(VENV)/.ready  ## collect changelog.d/ into CHANGELOG.md for VERSION=1.2.3
	@test -n "$(VERSION)" || { echo "error: name the version: make changelog VERSION=1.2.3"; exit 2; }
	$(BIN)/towncrier build --version "$(VERSION)" --yes

clean:  ## remove everything that make made
	rm -rf $(VENV) .demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.ready: pyproject.toml backends/python/pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: no Python found. Install Python 3.11 or newer (Debian: apt install python3-venv), or run make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $$($(PYTHON) --version) is too old; Python 3.11 or newer is needed. Run make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up $(VENV) with $$($(PYTHON) --version) (a minute or two, once)"
	@$(PYTHON) -m venv $(VENV) || { echo "error: no virtual environment could be made (Debian: apt install python3-venv)"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]' -e 'backends/python[test]'
	@touch $@

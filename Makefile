# `make demo` and `make test` are the two commands that the README promises. Each sets
# itself up in .venv; PYTHON chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: bench baselines demo test test-all test-slow coverage load test-gpu fuzz kill javascript javascript-packages web web-packages web-types web-test web-bench integrations engines docs dist audit lint types format clean

# What the native library is made of.
NATIVE := setup.py native/flags.txt $(wildcard native/include/*.h native/src/*.[ch] native/src/kernels/*.h)

.venv/ready: pyproject.toml constraints.txt $(NATIVE)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[cpu,train,export,dev]'
	touch $@

# The native engine as one program, which needs no Python: build/rillet-run BUNDLE "prompt".
NATIVE_FLAGS := $(shell grep ^- native/flags.txt)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
RUN_OBJECTS := $(patsubst %.c,build/%.o,$(wildcard native/run/*.c))
LIBRARY_OBJECTS := $(patsubst %.c,build/%.o,$(wildcard native/src/*.c))

.PHONY: rillet-run
rillet-run: build/rillet-run

build/native/%.o: native/%.c native/flags.txt $(wildcard native/*/*.h native/*/*/*.h) pyproject.toml
	@mkdir -p $(@D)
	$(CC) $(NATIVE_FLAGS) -Wall -Wextra -D_DEFAULT_SOURCE -DRILLET_VERSION='"$(VERSION)"' -c $< -o $@

build/librillet.a: $(LIBRARY_OBJECTS)
	rm -f $@
	$(AR) rcs $@ $^

build/rillet-run: $(RUN_OBJECTS) build/librillet.a
	$(CC) -s $^ -lm -o $@

include web/build.mk

demo: .venv/ready
	rm -rf demo
	$(BIN)/rillet train --corpus builtin:pydoc --out demo/run --steps 200
	$(BIN)/rillet export demo/run --out demo/bundle
	$(BIN)/rillet verify demo/bundle --checkpoint demo/run
	$(BIN)/rillet generate demo/bundle "The " --max-new-tokens 400 --seed 1

# Two tests at a time, each on one thread: small matrix products gain nothing from a second one, and
# threads that wait for each other on busy cores take ten times as long.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest
PARALLEL := -n 2 --dist worksteal

# The everyday tests; docs/contributing.md says what runs where.
test: .venv/ready
	$(PYTEST) $(PARALLEL) -m "not slow"

# Every test there is: before a release.
test-all: .venv/ready
	$(PYTEST) $(PARALLEL)

# What `make test` leaves out.
test-slow: .venv/ready
	$(PYTEST) $(PARALLEL) -m slow

# Which lines and branches the tests reach, those in other processes included: build/coverage/html.
# TESTS=tests/runtime measures one folder's. Without the cache, since what is cached does not run.
coverage: export OMP_NUM_THREADS = 1
coverage: export RILLET_TEST_CACHE = 0
coverage: .venv/ready
	rm -rf build/coverage
	mkdir -p build/coverage
	$(BIN)/python -m coverage run -m pytest $(PARALLEL) -m "not slow" $(TESTS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage html --quiet
	$(BIN)/python -m coverage xml --quiet
	$(BIN)/python -m coverage report

# A thousand sessions in eight threads for minutes; `make test` has dozens.
load: export RILLET_LOAD_SESSIONS = $(or $(SESSIONS),1000)
load: export RILLET_LOAD_SECONDS = $(or $(SECONDS),300)
load: .venv/ready
	$(PYTEST) -v tests/runtime/test_threads.py

# What needs an NVIDIA GPU, in an environment of its own: onnxruntime-gpu and onnxruntime share a
# folder. TENSORRT is what pip installs TensorRT from; its libraries are not on the package index.
# On a Jetson, JetPack brings them: make test-gpu TENSORRT= VENV_FLAGS=--system-site-packages ORT=cpu
GPU := .venv-gpu/bin
TENSORRT ?= tensorrt-rtx
ORT ?= gpu
VENV_FLAGS ?=

.venv-gpu/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV_FLAGS) .venv-gpu
	$(GPU)/python -m pip install --quiet --disable-pip-version-check \
		--editable '.[$(ORT),tensorrt,train,export]' pytest pytest-xdist hypothesis $(TENSORRT)
	touch $@

test-gpu: .venv-gpu/ready
	OMP_NUM_THREADS=1 $(GPU)/python -m pytest -m "gpu or tensorrt"

# The adapters of rillet.integrations against the real packages, and the graphs on other engines:
# each in an environment of its own, since `make test` needs none of them. `make engines HEAVY=1`
# adds the engines of 100 MB and more.
OTHERS := cpu,train,export
LIGHT_ENGINES := openvino onnxslim "onnxsim; python_version >= '3.11'"
HEAVY_ENGINES := iree-base-compiler iree-base-runtime apache-tvm tract

.venv-integrations/ready: pyproject.toml constraints.txt $(NATIVE)
	$(PYTHON) -m venv .venv-integrations
	.venv-integrations/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[$(OTHERS),integrations]' \
		pytest pytest-xdist hypothesis
	touch $@

integrations: .venv-integrations/ready
	OMP_NUM_THREADS=1 .venv-integrations/bin/python -m pytest $(PARALLEL) tests/integrations

.venv-engines/ready: pyproject.toml constraints.txt $(NATIVE)
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[$(OTHERS)]' \
		$(LIGHT_ENGINES) $(if $(HEAVY),$(HEAVY_ENGINES)) pytest pytest-xdist hypothesis
	touch $@

engines: .venv-engines/ready
	OMP_NUM_THREADS=1 .venv-engines/bin/python -m pytest $(if $(HEAVY),,-m "not slow") \
		tests/export/test_other_engines.py

# Fuzz with corrupted files and extreme options by the tens of thousands; `make test` tries hundreds.
fuzz: export RILLET_FUZZ_CASES = $(or $(CASES),5000)
fuzz: .venv/ready
	$(PYTEST) tests/robustness/test_fuzz.py tests/robustness/test_fuzz_training.py \
		tests/robustness/test_native_fuzz.py

# Kill each process that writes hundreds of times, at any moment; `make test-all` kills it a few times.
kill: export RILLET_KILLS = $(or $(KILLS),300)
kill: .venv/ready
	$(PYTEST) -s tests/robustness/test_power_loss.py

# decode.onnx driven from JavaScript; wants node and npm. The package's scripts would fetch CUDA.
javascript: .venv/ready javascript-packages
	$(BIN)/python -m pytest tests/docs/test_javascript.py

javascript-packages:
	npm install --prefix examples/javascript --ignore-scripts --no-audit --no-fund --no-package-lock

# The pages of docs/ and the reference made of docstrings, in build/site; a warning is an error.
docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The source distribution and the wheel of what is committed, the same bytes each time.
dist: .venv/ready
	rm -rf dist
	$(BIN)/python scripts/build_dist.py --out dist

# Known vulnerabilities of everything that is pinned. Wants pypi.org itself: a mirror serves packages,
# not advisories, and then this fails.
audit: .venv/ready
	$(BIN)/python scripts/check_pins.py
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	build/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

# docs/benchmarks.md and its figures: some minutes on an idle core.
CORPUS ?= tinyshakespeare.txt
RESULTS := benchmarks/results
bench: export OMP_NUM_THREADS = 1
bench: .venv/ready
	$(BIN)/python benchmarks/equal_time.py $(CORPUS) --minutes $(or $(MINUTES),1.5) --json $(RESULTS)/equal_time.json
	$(BIN)/python benchmarks/costs.py $(CORPUS) --tokens 20000 --bursts 15 --json $(RESULTS)/costs.json
	$(BIN)/python benchmarks/positions.py --bursts 10 --json $(RESULTS)/positions.json
	$(BIN)/python benchmarks/report.py

# docs/baselines.md beside one of our models: hours. Go on where it stopped by running it again;
# LIMITS="--minutes 30" cuts each baseline short.
BESIDE ?= shakespeare-nano
baselines: export OMP_NUM_THREADS = 1
baselines: .venv/ready
	$(BIN)/python benchmarks/converged.py $(CORPUS) --beside models/checkpoints/$(BESIDE) $(LIMITS)
	$(BIN)/python benchmarks/converged_steps.py --beside models/checkpoints/$(BESIDE) \
		--bundles $(wildcard models/$(BESIDE) models/$(BESIDE)-int8) \
		--json $(RESULTS)/converged_steps/$(BESIDE).json
	$(BIN)/python benchmarks/report.py

C_FILES := git ls-files 'native/*.[ch]' 'tests/native/*.[ch]' 'web/*.[ch]'
CLANG_FORMAT := $(BIN)/clang-format --style=file:native/.clang-format

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(C_FILES) | xargs $(CLANG_FORMAT) --dry-run --Werror
	$(BIN)/python scripts/check_architecture.py

# The link lets mypy find the packages under their real names.
types: .venv/ready
	mkdir -p build/types
	ln -sfn ../.. build/types/rillet
	$(BIN)/mypy -p rillet.runtime -p rillet.train -p rillet.export -p rillet.integrations
	$(BIN)/mypy benchmarks/*.py benchmarks/lib/*.py scripts/*.py tests/support/*.py examples/*.py

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(C_FILES) | xargs $(CLANG_FORMAT) -i

clean:
	rm -rf .venv .venv-gpu .venv-integrations .venv-engines build demo dist *.egg-info

# Everything runs in $(VENV), which the first target that needs it creates. A stamp
# $(VENV)/with-EXTRAS says that gradlab is installed there with these extras, and is renewed only
# when pyproject.toml changes: the install is editable, so changed code needs none.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
WORKERS ?= auto
# `+cpu` is the build without CUDA: the plain requirement brings gigabytes of it on Linux.
TORCH ?= torch==2.13.0$(if $(filter Linux,$(shell uname -s)),+cpu)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# The one that tests/cupy_standin is written for, without the CUDA libraries, which are replaced.
CUPY := cupy-cuda13x==14.2.0

RUN := $(VENV)/bin/python
PIP_INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format types docs torch cupy bench resources cubins gpu

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

demo: $(VENV)/with-data,viz ## train a network on handwritten digits
	@$(RUN) examples/digits_mlp.py $(ARGS)

test: $(VENV)/with-test ## run all tests; ARGS="-k softmax" picks some, WORKERS=0 runs them in one process
	@$(RUN) -m pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist loadgroup $(ARGS)

lint: $(VENV)/with-dev ## ruff: rules and formatting
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check

format: $(VENV)/with-dev ## let ruff mend what it can
	@$(RUN) -m ruff check --fix
	@$(RUN) -m ruff format

types: $(VENV)/with-dev ## mypy
	@$(RUN) -m mypy

docs: $(VENV)/with-docs ## run the course notes as notebooks and build the site, in site/
	@$(RUN) -m docs $(ARGS)

torch: $(VENV)/with-torch ## add PyTorch without CUDA, for tests/parity

cupy: $(VENV)/with-test $(VENV)/with-cupy ## run the real CuPy over a driver that computes nothing; needs no GPU
	@GRADLAB_CUPY=$(abspath $(VENV))/cupy $(RUN) -m pytest --numprocesses $(WORKERS) --maxprocesses 8 \
	tests/cupy_standin $(ARGS)

bench: $(VENV)/with-torch $(VENV)/with-bench ## time gradlab beside its peers; ARGS="-k mlp" picks some cases
	@$(RUN) -m benchmarks $(ARGS)

resources: $(VENV)/with-test ## registers, shared memory and spills of every CUDA kernel; needs no GPU
	@$(RUN) -m gradlab.kernels.cuda.resources $(ARGS)

# For a machine whose NVRTC has this version; the folder is then brought there.
CUBINS ?= .cubins
NVRTC ?= 13.0.88

cubins: $(VENV)/with-test ## compile the CUDA kernels for a GPU elsewhere; ARGS="--arch sm_90a", NVRTC=13.0.88
	@$(PIP_INSTALL) --no-deps --upgrade --target $(VENV)/nvrtc-$(NVRTC) nvidia-cuda-nvrtc==$(NVRTC)
	@GRADLAB_QUIET=1 $(RUN) -m gradlab.kernels.cuda.resources --keep $(CUBINS) --nvrtc $(VENV)/nvrtc-$(NVRTC) $(ARGS)

# In the environment that $(PYTHON) belongs to, since CuPy and its peers have to fit the machine.
gpu: ## check everything on a GPU; ARGS=--time times it; needs CuPy in the environment of $(PYTHON)
	@$(PYTHON) -c 'import sys, setuptools; sys.exit(int(setuptools.__version__.split(".")[0]) < 77)' 2>/dev/null || { echo "\
	gradlab: make gpu installs gradlab without the network, which takes setuptools 77 or newer beside '$(PYTHON)'. \
	Run: $(PYTHON) -m pip install --upgrade setuptools" >&2; exit 1; }
	@$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@$(PYTHON) -m benchmarks.gpu $(ARGS)

# Only PyTorch itself comes from its own index, and the second line adds what it needs. A host out
# of reach is found out quickly: pip would retry for minutes.
$(VENV)/with-torch: pyproject.toml | $(VENV)/created
	@echo "Installing $(TORCH) into $(VENV)"
	@$(PIP_INSTALL) --no-deps --retries 1 --timeout 15 --extra-index-url $(TORCH_INDEX) '$(TORCH)'
	@$(PIP_INSTALL) '$(TORCH)'
	@touch $@

# In a folder of its own: in the environment CuPy would be found by all that looks for a GPU.
$(VENV)/with-cupy: Makefile | $(VENV)/created
	@echo "Installing $(CUPY) into $(VENV)/cupy"
	@rm -rf $(VENV)/cupy
	@$(PIP_INSTALL) --retries 1 --timeout 15 --no-deps --only-binary :all: --target $(VENV)/cupy '$(CUPY)'
	@touch $@

$(VENV)/with-%: pyproject.toml | $(VENV)/created
	@echo "Installing gradlab with the extras $* into $(VENV)"
	@$(PIP_INSTALL) --editable '.[$*]'
	@touch $@

# The version check is written for any Python, however old.
$(VENV)/created:
	@command -v $(PYTHON) >/dev/null || { echo "gradlab: there is no '$(PYTHON)'. \
	Install Python 3.11 or newer, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gradlab: '$(PYTHON)' is $$( \
	$(PYTHON) --version 2>&1), and gradlab needs 3.11 or newer. \
	Name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "gradlab: '$(PYTHON)' comes without venv. \
	Install it (Debian and Ubuntu: apt install python3-venv) and run make $(MAKECMDGOALS) again." >&2; exit 1; }
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

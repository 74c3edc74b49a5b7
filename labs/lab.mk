# The way into the lab on Linux and macOS; start.bat is the one on Windows.
LAB ?= lab5_sampling
PYTHON ?= python3
VENV := .venv/bin/python

.PHONY: lab handin

lab: .venv/lab.stamp  ## Open the lab in JupyterLab; the first time, install it. `make lab ARGS=--no-browser` prints the address instead.
	PATH="$$PWD/.venv/bin:$$PATH" $(VENV) -m jupyterlab $(AS_ROOT) --LabApp.default_url=/lab/tree/labs/$(LAB)/$(LAB).ipynb $(ARGS)

handin: .venv/lab.stamp  ## Pack the finished notebook for handing in, with a receipt.
	$(VENV) -m diffusionlab.handin labs/$(LAB)/$(LAB).ipynb

# Root is the usual user in a container, and JupyterLab refuses it unless told.
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)

.venv/lab.stamp: pyproject.toml
	$(call install,.)
	@touch $@

define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make lab PYTHON=python3.11")'
@echo 'Installing into .venv; the first time this takes a few minutes.'
$(PYTHON) -m venv .venv
$(VENV) -m pip install --disable-pip-version-check --editable '$(1)'
endef

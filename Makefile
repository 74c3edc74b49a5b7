.DEFAULT_GOAL := help
include labs/lab.mk

.PHONY: help test bench bench-grading build grade-demo

test: .venv/test.stamp  ## Run all tests; `make test ARGS="-m 'not slow'"` for the quick ones.
	$(VENV) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

bench: .venv/test.stamp  ## Time the samplers side by side on this machine; `make bench ARGS="--device cuda"` on a GPU.
	$(VENV) -m solutions.lab5_sampling.bench $(ARGS)

bench-grading: .venv/lab.stamp  ## Time grading a class beside plain nbgrader; takes a while, since nbgrader does.
	$(VENV) -m autograder.bench $(LAB) $(ARGS)

build: .venv/lab.stamp  ## Build the notebooks and answer sheets from their sources.
	$(VENV) -m autograder build $(ARGS)

grade-demo: .venv/lab.stamp  ## Grade a sample class and print where its report is.
	$(VENV) -m autograder.demo $(LAB) --out build/demo
	$(VENV) -m autograder grade $(LAB) --submitted build/demo/submitted --out build/demo/graded --roster build/demo/roster.csv \
		--due 2026-05-30 $(ARGS)

help:  ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' labs/lab.mk Makefile

.venv/test.stamp: pyproject.toml
	$(call install,.[test])
	@touch .venv/lab.stamp $@

.DEFAULT_GOAL := help
include labs/lab.mk

.PHONY: help test bench bench-panel bench-quality bench-grading build grade-demo audit

test: .venv/test.stamp  ## Run all tests; `make test ARGS="-m 'not slow'"` for the quick ones.
	$(VENV) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: .venv/test.stamp  ## Time the samplers side by side on this machine; `make bench ARGS="--device cuda"` on a GPU.
	$(VENV) -m solutions.lab5_sampling.bench $(ARGS)

bench-quality: .venv/lab.stamp  ## Measure quality by steps, eta and schedule; writes docs/figures.md. Goes on where it was stopped.
	$(VENV) -m solutions.lab5_sampling.quality $(ARGS)

bench-grading: .venv/lab.stamp  ## Time grading a class beside plain nbgrader; takes a while, since nbgrader does.
	$(VENV) -m autograder.bench $(LAB) $(ARGS)

bench-panel: .venv/test.stamp  ## Time how soon an explorer answers to a move, and a sweep as one batch against five runs.
	$(VENV) -m solutions.lab5_sampling.bench_panel $(ARGS)

build: .venv/lab.stamp  ## Build the notebooks and answer sheets from their sources.
	$(VENV) -m autograder build $(ARGS)

grade-demo: .venv/lab.stamp  ## Grade a sample class and print where its report is.
	$(VENV) -m autograder.demo $(LAB) --out build/demo
	$(VENV) -m autograder grade $(LAB) --submitted build/demo/submitted --out build/demo/graded --roster build/demo/roster.csv \
		--due 2026-05-29 $(ARGS)

audit: .venv/lab.stamp  ## Prove the grader: mistakes caught, alternatives passed, attacks worth nothing; takes minutes.
	$(VENV) -m autograder audit $(LAB)

help:  ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' labs/lab.mk Makefile

.venv/test.stamp: pyproject.toml
	$(call install,.[test])
	@touch .venv/lab.stamp $@

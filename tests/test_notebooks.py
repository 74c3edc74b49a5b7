"""The notebooks of every lab, run from top to bottom as people run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from autograder.course import ROOT, Lab, lab_names

# All cores, whatever the worker has that runs the test: nothing here takes longer.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
KIT = os.pathsep.join(filter(None, [str(ROOT / "labs"), os.environ.get("PYTHONPATH")]))

each_lab = pytest.mark.parametrize("name", lab_names(ROOT))


@pytest.mark.slow
@each_lab
def test_the_instructors_notebook_runs(name, tmp_path):
    # Every cell, those that sample from the real network too, only fewer samples to judge; what each should give is the other
    # tests' business.
    whole = Lab(ROOT, name).lesson.with_name(f"{name}.ipynb").read_text(encoding="utf-8")
    quick, found = re.subn(r"\bjudged = \d+", "judged = 20", whole)
    assert found == 1
    (tmp_path / f"{name}.ipynb").write_text(quick, encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=800", "--timeout=0",
                           "-q", "-p", "no:cacheprovider", "-p", "no:xdist", tmp_path / f"{name}.ipynb"],
                          env=ENVIRONMENT | {"PYTHONPATH": KIT}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.slow
@each_lab
def test_the_unfilled_notebook_runs_through_names_what_is_missing_and_earns_nothing(name, monkeypatch):
    path = Lab(ROOT, name).student_notebook
    notebook = nbformat.read(path, as_version=4)
    monkeypatch.setenv("PYTHONPATH", KIT)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    checks = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.startswith("check(")]
    assert len(checks) >= 10 and {cell.outputs[-1].data["text/plain"] for cell in checks} == {"0"}
    shown = [output.data.get("text/html", "") for cell in notebook.cells if cell.cell_type == "code"
             for output in cell.outputs if output.output_type in ("display_data", "execute_result")]
    assert sum("still to be written" in each for each in shown) >= len(checks)
    assert not any(output.output_type == "error" or output.get("name") == "stderr"
                   for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)

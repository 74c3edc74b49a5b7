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

KIT = os.pathsep.join(filter(None, [str(ROOT / "labs"), os.environ.get("PYTHONPATH")]))

each_lab = pytest.mark.parametrize("name", lab_names(ROOT))


@pytest.mark.slow
@each_lab
def test_the_instructors_notebook_runs(name, tmp_path):
    # Every cell, those that sample from the real network too; what each should give is the other tests' business. With fewer
    # samples judged: they take minutes, and no new line runs after the first of them.
    source = Lab(ROOT, name).lesson.with_name(f"{name}.ipynb").read_text(encoding="utf-8")
    notebook = tmp_path / f"{name}.ipynb"
    notebook.write_text(re.sub(r"\bjudged = \d+", "judged = 30", source), encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=800", "--timeout=0",
                           "-q", "-p", "no:cacheprovider", "-p", "no:xdist", notebook],
                          env=os.environ | {"PYTHONPATH": KIT}, capture_output=True, text=True)
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

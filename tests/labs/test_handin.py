"""Handing in: the notebook as it was saved, and a receipt that says what is missing."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from datetime import datetime, timezone

import nbformat
import pytest

from autograder.build import build
from diffusionlab import handin


@pytest.fixture
def notebook(tinylab):
    build(tinylab)
    return tinylab.student_notebook


def fill(path, cell_id, old, new):
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.id == cell_id)
    assert old in cell.source
    cell.source = cell.source.replace(old, new, 1)
    nbformat.write(notebook, path)


def test_the_zip_holds_the_notebook_as_nbgrader_wants_it(notebook, tmp_path):
    receipt = handin.hand_in(notebook, tmp_path / "handin")
    with zipfile.ZipFile(receipt.file) as archive:
        assert sorted(archive.namelist()) == ["tinylab/receipt.json", "tinylab/timestamp.txt", "tinylab/tinylab.ipynb"]
        content = archive.read("tinylab/tinylab.ipynb")
        stamp = archive.read("tinylab/timestamp.txt").decode()
        stored = json.loads(archive.read("tinylab/receipt.json"))
    assert content == notebook.read_bytes()
    assert hashlib.sha256(content).hexdigest() == receipt.sha256 == stored["sha256"]
    assert receipt.file.name == f"tinylab-{receipt.sha256[:8]}.zip"
    assert (stored["lab"], stored["version"]) == ("tinylab", handin.read_notebook(notebook)[1].metadata.diffusionlab.version)
    from nbgrader.utils import parse_utc
    assert parse_utc(stamp.strip()).replace(tzinfo=timezone.utc) == receipt.time <= datetime.now(timezone.utc)


def test_the_receipt_names_what_is_unwritten_until_it_is_written(notebook, tmp_path):
    assert handin.hand_in(notebook, tmp_path).unwritten == ("Average.mean", "Average.variance", "largest", "essay")
    fill(notebook, "Average", "# TODO\n        raise NotImplementedError", "return 0.0")
    fill(notebook, "essay", "*Your answer:*", "With outliers.")
    receipt = handin.hand_in(notebook, tmp_path)
    assert receipt.unwritten == ("Average.variance", "largest")
    assert "still unwritten:    Average.variance, largest" in str(receipt) and receipt.sha256 in str(receipt)


def test_syntax_errors_and_copied_cells_are_pointed_out(notebook, tmp_path):
    fill(notebook, "Average", "class Average:", "class Average")
    parsed = nbformat.read(notebook, as_version=4)
    parsed.cells.append(nbformat.from_dict({**parsed.cells[4], "id": "copied"}))
    nbformat.write(parsed, notebook)
    assert handin.hand_in(notebook, tmp_path).warnings == ("the cell Average has a syntax error in line 1",
                                                           "the cell mean is there 2 times; delete the copies")


def test_without_a_name_it_finds_the_only_lab(notebook, monkeypatch):
    monkeypatch.setattr(handin, "COURSE", notebook.parents[2])
    assert handin.find_notebook() == notebook
    other = notebook.parents[1] / "other" / "other.ipynb"
    other.parent.mkdir()
    other.touch()
    with pytest.raises(ValueError, match="say which notebook.*other.ipynb, tinylab.ipynb"):
        handin.find_notebook()
    monkeypatch.chdir(other.parent)
    assert handin.find_notebook() == other


def test_an_answer_that_need_not_be_written_is_not_missed(notebook, tmp_path):
    parsed = nbformat.read(notebook, as_version=4)
    next(cell for cell in parsed.cells if cell.id == "essay").metadata["tags"] = ["optional"]
    nbformat.write(parsed, notebook)
    assert "essay" not in handin.hand_in(notebook, tmp_path).unwritten


@pytest.mark.parametrize("content, says", [
    (None, "does not exist"),
    (b"", "cannot be read as a notebook"),
    (b"\xff\xfe", "cannot be read as a notebook"),
    (b"[1, 2]", "cannot be read as a notebook"),
    (b'{"cells": [{"cell_type": "code"}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "cannot be read as a notebook"),
    (b'{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "is not a notebook of this course"),
])
def test_what_is_no_notebook_of_the_course_is_refused_in_one_line(tmp_path, content, says, monkeypatch, capsys):
    path = tmp_path / "lab.ipynb"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["handin", str(path)])
    with pytest.raises(SystemExit) as exit:
        handin.main()
    printed = capsys.readouterr()
    assert exit.value.code == 2 and printed.out == ""
    assert says in printed.err and printed.err.startswith("hand-in: ") and printed.err.count("\n") == 1


def test_the_command_teaches_by_example():
    done = subprocess.run([sys.executable, "-m", "diffusionlab.handin", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "Example: python -m diffusionlab.handin labs/" in done.stdout

"""The sample class: made from the notebook, the same every time, and each hand-in what its name says."""

from __future__ import annotations

import ast

import nbformat
import pytest

from autograder.course import ROOT, Lab
from autograder.demo import NotText, make_class, one_mistake_each, sample_class, slip, solution_cells
from autograder.grade import grade
from autograder.gradebook import marks


def run(notebook) -> dict:
    """What the solution cells of a notebook define."""
    names = {}
    exec("import math\nfrom functools import cache", names)
    for cell in solution_cells(notebook):
        exec(cell.source, names)
    return names


def test_a_class_of_fifteen_the_same_every_time(built_tinylab, tmp_path):
    def content(folder):
        make_class(built_tinylab, folder)
        return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

    first = content(tmp_path / "a")
    assert first == content(tmp_path / "b") == content(tmp_path / "a")
    assert sum(path.suffix == ".ipynb" for path in first) == 15 and first[next(p for p in first if p.name == "roster.csv")].count(b"\n") == 17


def test_what_is_called_right_is_right_and_a_mistake_is_its_own(built_tinylab):
    hand_ins = dict(sample_class(built_tinylab))
    for name in ("reference", "style-terse", "style-other-names", "style-patched-in", "style-own-cells"):
        defined = run(hand_ins[name])
        assert (defined["Average"]([1, 2, 6]).mean(), defined["Average"]([1, 2, 6]).variance(), defined["largest"]((1, 7, 2))) == (3, 14 / 3, 7), name
    assert run(hand_ins["mistakes-1"])["Average"]([1, 2, 6]).variance() == pytest.approx(7)
    sources = {name: "\n".join(cell.source for cell in solution_cells(hand_ins[name])) for name in ("reference", "style-terse", "style-other-names")}
    assert '"""' not in sources["style-terse"] and "my_mean_of_numbers" in sources["style-other-names"]
    assert "os._exit" in str(hand_ins["crash"]) and "while True" in str(hand_ins["endless-loop"])
    with pytest.raises(nbformat.reader.NotJSONError):
        nbformat.reads(hand_ins["broken-file"], as_version=4)


def test_lab_5s_mistakes_stand_in_a_notebook():
    lab = Lab(ROOT, "lab5_sampling")
    chosen = list(one_mistake_each(lab))
    asked = {mistake.question for mistake in lab.module("mistakes").MISTAKES}
    assert {mistake.question for mistake in chosen} <= asked and len(chosen) >= len(asked) - 1
    for mistake in chosen:
        names = dict(lab.reference())
        exec(slip(lab, mistake), names)
        assert names[mistake.target] is not lab.reference()[mistake.target]


def test_a_mistake_without_source_is_left_out(built_tinylab):
    from solutions.questions import Mistake
    names = {}
    exec("def largest(numbers): return 0", names)
    with pytest.raises(NotText):
        slip(built_tinylab, Mistake("x", "largest", "", "", "largest", names["largest"]))


@pytest.mark.slow
def test_the_sample_class_gets_the_marks_it_should(built_tinylab, tmp_path):
    submitted = make_class(built_tinylab, tmp_path)
    run = grade(built_tinylab, submitted, tmp_path / "out", sandbox=False, jobs=2, seed=1, tell=lambda line: None)
    got = {mark.student.id: (mark.result.status, mark.score) for mark in marks(run)}
    for name in ("reference", "style-terse", "style-other-names", "style-patched-in", "style-own-cells"):
        assert got[name] == ("graded", 9), name
    assert got["unfilled"] == ("graded", 0) and got["half-done"] == ("graded", 7) and got["broken-file"] == ("unreadable", 0)
    assert got["crash"][0] == got["endless-loop"][0] == "partial" and 0 < got["mistakes-1"][1] < 9
    assert run.result("mistakes-1").questions[1].mistake == "sample-variance"


def test_every_variant_is_python(built_tinylab):
    for name, content in sample_class(built_tinylab):
        for cell in solution_cells(content) if not isinstance(content, str) else []:
            ast.parse(cell.source)

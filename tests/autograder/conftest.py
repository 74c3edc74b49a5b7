"""A built tiny lab, and hand-ins of it."""

from __future__ import annotations

import csv
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from autograder.build import build
from autograder.classroom import Run
from autograder.course import ROOT, Lab
from autograder.grade import grade
from autograder.pipeline import grade_one
from autograder.results import HandInResult, Limits, Task

AVERAGE = """class Average:
    def __init__(self, numbers):
        self.numbers = numbers

    def mean(self):
        return {mean}

    def variance(self):
        return {variance}
"""


@dataclass
class Classroom:
    """A lab with a folder of hand-ins."""

    lab: Lab
    folder: Path

    def notebook(self):
        """The filled notebook, as a very good student has it."""
        notebook = nbformat.read(self.lab.lesson.with_name(f"{self.lab.name}.ipynb"), as_version=4)
        notebook.cells = [cell for cell in notebook.cells if "instructor" not in cell.metadata.get("tags", [])]
        return notebook

    def filled(self, added: str = "", **sources: str):
        """The filled notebook with other sources for some cells (`-` in their ids written `_`), and a cell added at the end."""
        notebook = self.notebook()
        for cell in notebook.cells:
            cell.source = sources.pop(cell.id.replace("-", "_"), cell.source)
        assert not sources, f"there is no cell {list(sources)}"
        if added:
            notebook.cells.append(nbformat.v4.new_code_cell(added))
        return notebook

    def average(self, mean="sum(self.numbers) / len(self.numbers)",
                variance="sum((x - self.mean()) ** 2 for x in self.numbers) / len(self.numbers)", **others):
        """The filled notebook with other results of the class's methods."""
        return self.filled(Average=AVERAGE.format(mean=mean, variance=variance), **others)

    def variance_does(self, body: str):
        """The filled notebook where `variance` has another body."""
        return self.filled(Average=AVERAGE.format(mean="sum(self.numbers) / len(self.numbers)", variance="0")
                           .replace("        return 0\n", f"        {body}\n"))

    def path(self, student: str) -> Path:
        return self.folder / "submitted" / student / self.lab.name / f"{self.lab.name}.ipynb"

    def hand_in(self, student: str, content) -> Path:
        """Write a hand-in: a notebook, text or bytes."""
        path = self.path(student)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return path

    def grade(self, content=None, student: str = "ada", seed: int = 7, sandbox: bool = True, **limits) -> HandInResult:
        """Hand in (None: what lies there) and grade."""
        if content is not None:
            self.hand_in(student, content)
        limits = Limits(**{"question_seconds": 2.0, "cell_seconds": 30.0, "added_seconds": 2.0, **limits})
        return grade_one(Task(student, self.path(student), self.lab, seed, self.folder / "out", limits, sandbox))


@pytest.fixture(scope="session")
def built_tinylab(tmp_path_factory, new_tinylab) -> Lab:
    """The tiny lab, built; not to be changed."""
    lab = new_tinylab(tmp_path_factory.mktemp("course") / "a course")
    build(lab)
    return lab


@pytest.fixture
def classroom(built_tinylab, tmp_path) -> Classroom:
    """The built tiny lab and an empty folder for its hand-ins."""
    return Classroom(built_tinylab, tmp_path)


@pytest.fixture
def lab5(tmp_path) -> Classroom:
    """Lab 5 as it is in the project, and an empty folder for its hand-ins."""
    return Classroom(Lab(ROOT, "lab5_sampling"), tmp_path)


@pytest.fixture(scope="session")
def points():
    """`points(result)`: the points by question."""
    return lambda result: {question.id: question.points for question in result.questions}


# --- a class whose hand-ins say themselves what comes of them -----------------------------------------------------------

MAX = {"mean": 3, "variance": 4, "largest": 2}


@dataclass
class FakeClass:
    """A folder of hand-ins for `fake_pipeline`, and the folder that grading fills."""

    lab: Lab
    folder: Path

    @property
    def submitted(self) -> Path:
        return self.folder / "submitted"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def hand_in(self, student: str, timestamp: str = "", *, raw: bytes | None = None, points=(3, 4, 2), **fake) -> Path:
        """A hand-in with points for mean, variance and largest; more about a question, or about the whole, in `fake`."""
        path = self.submitted / student / "tinylab" / "tinylab.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        for name, given in zip(MAX, points):
            verdict = "right" if given == MAX[name] else "partly" if given else "wrong"
            fake[name] = {"points": given, "verdict": verdict, "message": "" if verdict == "right" else f"{name} is {verdict}.",
                          **fake.get(name, {})}
        cells = [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# Mine"}]
        notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"fake": fake}, "cells": cells}
        path.write_bytes(json.dumps(notebook).encode() if raw is None else raw)
        if timestamp:
            path.with_name("timestamp.txt").write_text(timestamp)
        return path

    def table(self, name: str, *lines: str) -> Path:
        """A CSV file."""
        (self.folder / name).write_text("\n".join(lines) + "\n")
        return self.folder / name

    def grade(self, **options) -> Run:
        options = {"jobs": 2, "sandbox": False, "tell": lambda line: None, "grade_one": "fake_pipeline:grade_one", **options}
        return grade(self.lab, self.submitted, self.out, **options)

    def rows(self) -> dict[str, dict[str, str]]:
        """grades.csv by student."""
        with (self.out / "grades.csv").open(newline="") as file:
            return {row["student_id"]: row for row in csv.DictReader(file)}

    def graded(self) -> list[str]:
        """Whose hand-ins were graded, as often as they were, since the last call."""
        path = self.out / "calls.txt"
        calls = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return sorted(calls)


@pytest.fixture(scope="session")
def fakes():
    """Processes find the fake pipeline by its name."""
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, str(ROOT / "labs"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    sys.path.append(here)


@pytest.fixture
def fake_class(fakes, built_tinylab, tmp_path) -> FakeClass:
    """A class without hand-ins."""
    return FakeClass(built_tinylab, tmp_path)


HOSTILE = ["=cmd|' C calc'!A0", "@SUM(1)", "-rf", "+1", "<img src=x onerror=alert(1)>", "a\nb", "..", "x" * 200, "ü" * 100, "[ab]*?", "{x}", "a b",
           "\udcff\udcfe", "'; DROP TABLE student; --", "%41", "~41", "trailing.", "\u202eevil", "\tTab"]


@pytest.fixture(scope="session")
def graded(fakes, built_tinylab, tmp_path_factory) -> FakeClass:
    """A graded class, not to be changed: good and bad hand-ins, a pair, hostile names, one unreadable, one missing, some late."""
    made = FakeClass(built_tinylab, tmp_path_factory.mktemp("class"))
    made.hand_in("ada", "2026-05-20 10:00:00 UTC")
    for name in ("ben", "cem", "dora"):
        made.hand_in(name, "2026-05-20 10:00:00", points=(3, 0, 1), variance={"mistake": "sample-variance",
                     "message": "Your variance is a little too large. Divide by how many numbers there are."})
    made.hand_in("eve", "2026-05-27 10:00:00 +0200", points=(0, 2, 0), largest={"verdict": "timeout", "message": "<img src=x onerror=alert(1)>"})
    made.hand_in("fay", raw=b"no notebook")
    made.hand_in("team one", "2026-05-21 09:00:00", points=(3, 4, 0), essay={"verdict": "unwritten", "message": "Nothing was written."})
    for name in HOSTILE:
        if name != "..":
            made.hand_in(name, points=(3, 4, 1))
    roster = made.table("roster.csv", "student_id,first_name,last_name,email", "ada,Ada,Lovelace,ada@example.org",
                        'ben,"<b>Ben</b>","=1+1",', "gone,Go,Ne,", "../../etc/passwd,,,")
    teams = made.table("teams.csv", "team;student_id", "team one;gil", "team one;hal")
    made.grade(roster=roster, teams=teams, due="2026-05-25 00:00", seed=7)
    return made

"""Marks as files for other programs: grades.csv, a gradebook's import, Gradescope's results."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from .classroom import Run, csv_field, printable, write_text
from .course import Refusal
from .gradebook import Mark

FORMATS = ("csv", "canvas", "gradescope")


def number(value: float) -> str:
    """Points without the noise of binary fractions: 3, 2.5, 0.3333."""
    return format(round(value, 4) + 0.0, ".10g")


def write_grades(run: Run, marks: Sequence[Mark]) -> Path:
    """Write grades.csv: a line for each student, a column for each question."""
    questions = [each.id for each in run.lab.module("exam").QUESTIONS]
    rows = [[csv_field(mark.student.label), run.lab.name, number(mark.score), number(mark.result.max_score), mark.result.status,
             str(bool(mark.waits)).lower(), *(number(mark.points.get(each, 0.0)) for each in questions)] for mark in marks]
    header = ["student_id", "lab", "score", "max_score", "status", "needs_manual", *questions]
    return _write_csv(run.out / "grades.csv", [header, *rows])


def export(run: Run, marks: Sequence[Mark], format: str, to: Path | None = None) -> Path:
    """Write the marks in one of FORMATS, points given by hand included; returns the file or folder.

    Raises:
        Refusal: an unknown format.
    """
    match format:
        case "csv":
            return _export_csv(run, marks, to or run.out / "export.csv")
        case "canvas":
            return _export_canvas(run, marks, to or run.out / "canvas.csv")
        case "gradescope":
            return _export_gradescope(run, marks, to or run.out / "gradescope")
    raise Refusal(f"there is no format {format!r}; there are: {', '.join(FORMATS)}")


def _export_csv(run: Run, marks: Sequence[Mark], to: Path) -> Path:
    """For gradebooks, such as Moodle's, that ask at import which column is which."""
    header = ["student_id", "first_name", "last_name", "email", "lab", "submitted", "seconds_late", "points", "late_penalty", "score",
              "max_score", "status", "needs_manual", "feedback"]
    rows = [[*map(csv_field, (mark.student.label, mark.student.first_name, mark.student.last_name, mark.student.email)), run.lab.name,
             mark.student.timestamp or "", number(mark.seconds_late), number(mark.raw_score), number(mark.penalty), number(mark.score),
             number(mark.result.max_score), mark.result.status, str(bool(mark.waits)).lower(), csv_field(printable(mark.result.message))]
            for mark in marks]
    return _write_csv(to, [header, *rows])


def _export_canvas(run: Run, marks: Sequence[Mark], to: Path) -> Path:
    """Canvas's own columns; it finds students by ID or SIS Login ID, and makes the assignment where it is new."""
    header = ["Student", "ID", "SIS Login ID", "Section", run.lab.name]
    possible = ["    Points Possible", "", "", "", number(sum(each.points for each in run.lab.module("exam").QUESTIONS))]
    rows = []
    for mark in marks:
        name = ", ".join(filter(None, (mark.student.last_name, mark.student.first_name))) or mark.student.label
        # Canvas counts its users from one; other ids are those of the university's own login.
        ids = [mark.student.label, ""] if mark.student.label.isdecimal() else ["", mark.student.label]
        rows.append([csv_field(name), *map(csv_field, ids), "", number(mark.score)])
    return _write_csv(to, [header, possible, *rows])


def _export_gradescope(run: Run, marks: Sequence[Mark], to: Path) -> Path:
    """A results.json for each student, as a Gradescope autograder leaves it."""
    for mark in marks:
        tests = [{"name": question.title, "number": question.id, "score": round(mark.points[question.id], 4), "max_score": question.max,
                  "output": mark.comments.get(question.id) or question.message,
                  "status": "passed" if mark.points[question.id] >= question.max else "failed"}
                 for question in mark.result.questions]
        body = {"score": round(mark.score, 4), "execution_time": round(mark.result.seconds, 2), "output": mark.result.message,
                "visibility": "after_published", "tests": tests, "extra_data": {"student_id": mark.student.label, "lab": run.lab.name,
                                                                               "late_penalty": mark.penalty}}
        write_text(to / mark.student.id / "results.json", json.dumps(body, indent=1))
    return to


def _write_csv(path: Path, rows: list[list[str]]) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
    return path

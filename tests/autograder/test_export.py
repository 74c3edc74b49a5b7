"""Marks for other programs."""

from __future__ import annotations

import csv
import json

import pytest

from autograder.classroom import csv_field, load_run
from autograder.course import Refusal
from autograder.export import export, number
from autograder.gradebook import marks


def table(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def ready(graded, tmp_path):
    run = load_run(graded.out)
    return run, marks(run), tmp_path


def test_csv_has_everybody_with_points_penalty_and_score(ready):
    run, all_marks, folder = ready
    rows = {row["student_id"]: row for row in table(export(run, all_marks, "csv", folder / "marks.csv"))}
    assert len(rows) == 28
    ada = rows["ada"]
    assert (ada["last_name"], ada["email"], ada["points"], ada["late_penalty"], ada["score"], ada["max_score"], ada["needs_manual"]) == (
        "Lovelace", "ada@example.org", "9", "0", "9", "10", "true")
    assert rows["eve"]["seconds_late"] == str(56 * 3600) and rows["ben"]["last_name"] == "'=1+1"


def test_canvas_finds_its_columns(ready):
    run, all_marks, folder = ready
    rows = table(export(run, all_marks, "canvas", folder / "canvas.csv"))
    assert list(rows[0]) == ["Student", "ID", "SIS Login ID", "Section", "tinylab"]
    assert rows[0]["Student"].strip() == "Points Possible" and rows[0]["tinylab"] == "10"
    assert {"Student": "Lovelace, Ada", "ID": "", "SIS Login ID": "ada", "Section": "", "tinylab": "9"} in rows


def test_gradescope_gets_a_results_json_each(ready):
    run, all_marks, folder = ready
    export(run, all_marks, "gradescope", folder / "scope")
    body = json.loads((folder / "scope" / "ben" / "results.json").read_text())
    assert body["score"] == 4 and [test["number"] for test in body["tests"]] == ["mean", "variance", "largest", "essay"]
    assert sum(test["score"] for test in body["tests"]) == 4 and body["tests"][1]["status"] == "failed"
    assert len(list((folder / "scope").iterdir())) == 28


def test_an_unknown_format_is_refused(ready):
    run, all_marks, _ = ready
    with pytest.raises(Refusal, match="csv, canvas, gradescope"):
        export(run, all_marks, "xlsx")


@pytest.mark.parametrize("value, text", [(3.0, "3"), (2.5, "2.5"), (0.2 * 15, "3"), (1 / 3, "0.3333"), (-0.0, "0"), (100.0, "100")])
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\tx", "\rx"])
def test_formulas_are_text(text):
    assert csv_field(text) == f"'{text}" and csv_field("ada") == "ada"

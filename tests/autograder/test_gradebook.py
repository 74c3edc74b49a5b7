"""nbgrader's gradebook says what the marks say, and its buttons grade in no other way."""

from __future__ import annotations

import json
from contextlib import contextmanager

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.apps.api import NbGraderAPI
from nbgrader.coursedir import CourseDirectory

from autograder import gradebook
from autograder.classroom import load_run
from autograder.cli import _marks
from autograder.course import Refusal
from autograder.grade import grade


pytestmark = pytest.mark.slow


@contextmanager
def book(made):
    with Gradebook(f"sqlite:///{made.out / 'gradebook.db'}") as opened:
        yield opened


def give(made, student: str, question: str = "essay", points: float | None = 1.0, comment: str | None = None) -> None:
    """What Formgrader does where a person gives points."""
    with book(made) as opened:
        grade = opened.find_grade(question, "tinylab", "tinylab", student)
        grade.manual_score, grade.needs_manual_grade = points, points is None and grade.auto_score is None
        if comment:
            opened.find_comment(question, "tinylab", "tinylab", student).manual_comment = comment
        opened.db.commit()


def flagged(made, student: str, question: str = "essay") -> bool:
    with book(made) as opened:
        return opened.find_grade(question, "tinylab", "tinylab", student).needs_manual_grade


@pytest.fixture
def three(fake_class):
    """A class of three, graded."""
    for name in ("ada", "ben", "cem"):
        fake_class.hand_in(name)
    fake_class.grade()
    return fake_class


def test_nbgraders_own_gradebook_agrees_with_grades_csv(graded):
    rows = graded.rows()
    with book(graded) as opened:
        students = {each.id: each.label for each in load_run(graded.out).students}
        submissions = {each.student.id: each for each in opened.assignment_submissions("tinylab")}
        assert {students[name] for name in submissions} == {each.label for each in load_run(graded.out).students if each.holder}
        for name, submission in submissions.items():
            row = next(row for label, row in rows.items() if label in (students[name], f"'{students[name]}"))
            assert submission.score == float(row["score"]) and submission.max_score == float(row["max_score"]) == 10
            assert str(submission.needs_manual_grade).lower() == row["needs_manual"]
            for cell in submission.notebooks[0].grades:
                assert cell.score == float(row[cell.name])
        assert opened.find_submission("tinylab", "ada").timestamp.isoformat() == "2026-05-20T10:00:00"
        assert opened.find_submission("tinylab", "eve").total_seconds_late == 56 * 3600
        assert opened.find_student("ada").last_name == "Lovelace"
        notebook = opened.find_notebook("tinylab", "tinylab")
        assert {cell.name: (cell.max_score, cell.cell_type) for cell in notebook.grade_cells} == {
            "mean": (3, "code"), "variance": (4, "code"), "largest": (2, "code"), "essay": (1, "markdown")}
        assert {"Average", "largest-2", "essay"} <= {cell.name for cell in notebook.solution_cells}


def test_the_folder_is_a_course_directory(graded):
    api = NbGraderAPI(CourseDirectory(root=str(graded.out)))
    assert api.get_assignments()[0]["name"] == "tinylab" and api.get_assignments()[0]["num_submissions"] >= 8
    submissions = {each["student"]: each for each in api.get_submissions("tinylab")}
    assert submissions["ada"]["autograded"] and submissions["ada"]["score"] == 9
    assert nbformat.read(graded.out / "source" / "tinylab" / "tinylab.ipynb", as_version=4).cells
    run = load_run(graded.out)
    assert run.notebook("submitted", "ada").read_bytes() == (graded.submitted / "ada" / "tinylab" / "tinylab.ipynb").read_bytes()
    # Of a pair there is one notebook to read.
    listed = [each["student"] for each in api.get_notebook_submissions("tinylab", "tinylab")]
    assert "gil" in listed and "hal" not in listed and "fay" in listed


def test_points_given_by_hand_survive_a_regrade_and_are_flagged_once_where_the_hand_in_changed(three):
    give(three, "ada", points=0.5, comment="Well observed.")
    give(three, "ada", "mean", points=2)
    three.grade(force=True)
    assert (three.rows()["ada"]["score"], three.rows()["ada"]["mean"], three.rows()["ada"]["needs_manual"]) == ("8.5", "2", "false")
    three.hand_in("ada", points=(3, 0, 0))
    three.grade()
    assert three.rows()["ada"]["score"] == "2.5" and flagged(three, "ada") and flagged(three, "ada", "mean")
    give(three, "ada", points=1)
    three.grade(force=True)
    assert not flagged(three, "ada") and three.rows()["ada"]["score"] == "3"
    [mark] = [mark for mark in gradebook.marks(load_run(three.out)) if mark.student.id == "ada"]
    assert mark.comments == {"essay": "Well observed."} and mark.by_person == {"essay", "mean"}


def test_marks_of_a_hand_in_that_is_gone_do_not_survive(three):
    (three.submitted / "cem").rename(three.folder / "withdrawn")
    three.grade()
    assert list(three.rows()) == ["ada", "ben"]
    with book(three) as opened:
        assert [each.student.id for each in opened.assignment_submissions("tinylab")] == ["ada", "ben"]
    run = load_run(three.out)
    assert not run.result_file("cem").exists() and not run.folder("autograded", "cem").exists()


def test_points_given_by_hand_are_not_dropped_unasked(three):
    give(three, "cem")
    (three.submitted / "cem").rename(three.folder / "withdrawn")
    with pytest.raises(Refusal, match="cem got points by hand"):
        three.grade()
    three.grade(force=True)
    assert list(three.rows()) == ["ada", "ben"]


def test_a_question_that_comes_or_goes_keeps_the_others_points(fakes, new_tinylab, three):
    give(three, "ada")
    lab = new_tinylab(three.folder / "changed course")
    exam, lesson = lab.lesson.with_name("exam.py"), lab.lesson
    exam.write_text(exam.read_text().replace('"largest"', '"greatest"', 1).replace('Question("largest"', 'Question("greatest"')
                    .replace('Question("mean", 3', 'Question("mean", 5'))
    lesson.write_text(lesson.read_text().replace('question="largest"', 'question="greatest"'))
    # The package of the first course is imported already: say only what changed, the questions.
    import solutions.tinylab.exam as now
    before = now.QUESTIONS[:]
    now.QUESTIONS[:] = [type(each)(**{**vars(each), **{"mean": {"points": 5}, "largest": {"id": "greatest"}}.get(each.id, {})}) for each in before]
    try:
        object.__setattr__(three, "lab", lab)
        run = grade(lab, three.submitted, three.out, jobs=2, sandbox=False, force=True, tell=lambda line: None, grade_one="fake_pipeline:grade_one")
        marks = {mark.student.id: mark for mark in gradebook.marks(run)}
    finally:
        now.QUESTIONS[:] = before
    with book(three) as opened:
        notebook = opened.find_notebook("tinylab", "tinylab")
        assert {cell.name: cell.max_score for cell in notebook.grade_cells} == {"mean": 5, "variance": 4, "greatest": 2, "essay": 1}
        for submission in opened.assignment_submissions("tinylab"):
            assert {grade.name for grade in submission.notebooks[0].grades} == {"mean", "variance", "greatest", "essay"}
    assert marks["ada"].points["essay"] == 1 and not marks["ada"].waits and marks["ben"].waits == {"essay"}


# --- pairs and lateness -------------------------------------------------------------------------------------------------


def test_a_pair_is_read_once_and_both_get_the_points(fake_class):
    fake_class.hand_in("one")
    teams = fake_class.table("teams.csv", "team,student_id", "one,ann", "one,bob")
    fake_class.grade(teams=teams)
    give(fake_class, "ann", comment="Good.")
    _, marks = _marks("tinylab", fake_class.out)
    assert [(mark.score, mark.waits, mark.comments) for mark in marks] == [(10, frozenset(), {"essay": "Good."})] * 2
    give(fake_class, "ann", points=0)
    fake_class.grade(teams=teams, force=True)
    assert [row["score"] for row in fake_class.rows().values()] == ["9", "9"]


def test_late_penalties_come_from_nbgraders_plugin(fake_class):
    fake_class.hand_in("ada", "2026-05-26 01:00:00")
    fake_class.hand_in("ben", "2026-05-24 01:00:00")
    fake_class.grade(due="2026-05-25 00:00")
    assert [row["score"] for row in fake_class.rows().values()] == ["9", "9"]
    config = fake_class.out / "nbgrader_config.py"
    config.write_text(config.read_text() + 'c.AssignLatePenalties.plugin_class = "by_the_day.ByTheDay"\n')
    (fake_class.out / "by_the_day.py").write_text(
        "from nbgrader.plugins import BasePlugin\n\n\nclass ByTheDay(BasePlugin):\n"
        "    def late_submission_penalty(self, student_id, score, total_seconds_late):\n        return 1 + total_seconds_late // 86400\n")
    fake_class.grade(due="2026-05-25 00:00")
    assert [row["score"] for row in fake_class.rows().values()] == ["7", "9"]
    config.write_text(config.read_text().replace("by_the_day.ByTheDay", "nbgrader.plugins.LateSubmissionPlugin")
                      + 'c.LateSubmissionPlugin.penalty_method = "zero"\n')
    # What was given by hand after the run is taken off, too.
    give(fake_class, "ada")
    _, marks = _marks("tinylab", fake_class.out)
    assert [(mark.score, mark.penalty) for mark in marks] == [(0, 10), (9, 0)]


# --- nbgrader's buttons -------------------------------------------------------------------------------------------------


def formgrader(made) -> NbGraderAPI:
    """What stands behind Formgrader's buttons, with the folder's own config."""
    config = gradebook.load_config(load_run(made.out))
    return NbGraderAPI(CourseDirectory(root=str(made.out), config=config), config=config)


def test_the_autograde_button_grades_by_the_pipeline(fake_class):
    source = fake_class.lab.lesson.with_name("tinylab.ipynb").read_bytes()
    for name, content in {"ada": source, "ben": source.replace(b"/ len(self.numbers)", b"/ 2"), "cem": b"no notebook"}.items():
        fake_class.hand_in(name, raw=content)
    run = fake_class.grade(grade_one="autograder.pipeline:grade_one", seed=11)
    quiet = (fake_class.out / "grades.csv").read_bytes()
    assert fake_class.rows()["ada"]["score"] == "9" and fake_class.rows()["ben"]["mean"] == "0"
    give(fake_class, "ada")
    for name in ("ada", "ben", "cem"):
        before = run.result_file(name).stat().st_mtime_ns
        done = formgrader(fake_class).autograde("tinylab", name)
        assert done["success"], done
        assert run.result_file(name).stat().st_mtime_ns > before and run.result(name).seed == 11
        assert run.notebook("autograded", name).exists()
    assert fake_class.rows()["ada"]["score"] == "10"
    give(fake_class, "ada", points=None)
    fake_class.grade(grade_one="autograder.pipeline:grade_one")
    assert (fake_class.out / "grades.csv").read_bytes() == quiet


def test_the_autograde_button_refuses_in_one_line_where_the_pipeline_cannot_run(three):
    run = load_run(three.out)
    before, row = run.result("ada"), three.rows()["ada"]
    values = json.loads((three.out / "run.json").read_text())
    (three.out / "run.json").write_text(json.dumps(values | {"command": [*values["command"], "--submitted", str(three.folder / "gone")]}))
    done = formgrader(three).autograde("tinylab", "ada")
    assert not done["success"] and "gone is not a folder; --submitted names" in done["log"] + done.get("error", "")
    with book(three) as opened:
        assert opened.find_submission("tinylab", "ada").score == float(row["score"]) and run.result("ada") == before


def test_the_feedback_button_makes_the_students_page(three):
    done = formgrader(three).generate_feedback("tinylab", "ada")
    assert done["success"], done
    page = (three.out / "feedback" / "ada" / "tinylab" / "tinylab.html").read_text()
    assert "Feedback for ada" in page and "Content-Security-Policy" in page and "<script" not in page


def test_a_config_that_grades_in_another_way_is_refused(three):
    config = three.out / "nbgrader_config.py"
    config.write_text(config.read_text().replace("c.Autograde.sanitize", "# c.Autograde.sanitize"))
    with pytest.raises(Refusal, match="lets nbgrader grade in its own way"):
        three.grade()
    config.write_text("c = get_config(\n")
    with pytest.raises(Refusal, match="cannot be read: SyntaxError"):
        three.grade()

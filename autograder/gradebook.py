"""nbgrader's gradebook of a graded class: what the exam gave, what people gave, and late penalties.

A graded class's folder is a course directory of nbgrader. Its config names the classes below, so that Formgrader's buttons and
nbgrader's commands grade by the pipeline, and in no other way.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbconvert.exporters import NotebookExporter
from nbgrader.api import Assignment, Comment, Grade, GradeCell, Gradebook, MissingEntry, SolutionCell
from nbgrader.preprocessors import AssignLatePenalties, NbGraderPreprocessor, SaveCells
from sqlalchemy.exc import SAWarning
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from .build import CLEAR, instructor_notebook, student_notebook
from .classroom import Run, Student, checksum, load_run, parse_due, write_text
from .course import Lab, Refusal
from .results import HandInResult, write_atomically

# nbgrader starts alembic by its bare name, which is only found where the environment is activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), *filter(None, [os.environ.get("PATH")])])

CONFIG = """\
# This folder is a course directory of nbgrader, filled by `autograder grade`.
# Open it with `jupyter lab`, started here, and then Nbgrader > Formgrader.
import os

c = get_config()
c.CourseDirectory.root = os.path.dirname(os.path.abspath(__file__))

# Marks come from the pipeline alone: the Autograde button grades the hand-in again by it.
c.Autograde.exporter_class = "autograder.gradebook.AnyNotebook"
c.Autograde.sanitize_preprocessors = ["autograder.gradebook.GradeByPipeline"]
c.Autograde.autograde_preprocessors = []
c.GenerateFeedback.exporter_class = "autograder.feedback.FeedbackExporter"
c.GenerateFeedback.preprocessors = []

# Stubs, as `autograder build` makes them.
c.ClearSolutions.code_stub = {code_stub!r}
c.ClearSolutions.text_stub = {text_stub!r}

# Late penalties: nbgrader's own plugin, or a class of yours, which may lie in a module beside this file.
# c.LateSubmissionPlugin.penalty_method = "zero"
# c.AssignLatePenalties.plugin_class = "my_module.MyLatePlugin"
"""

quiet = logging.getLogger("autograder.nbgrader")
quiet.setLevel(logging.ERROR)


@dataclass(frozen=True)
class Mark:
    """What a student got, all in all.

    Attributes:
        student, result: whose, and what the exam gave.
        points: by question, a person's points in the place of the exam's where there are any, extra credit included.
        by_person: the ids of questions that a person gave points for.
        comments: by question, what a person wrote about it.
        penalty: points taken off because it was late.
        seconds_late: how late it was.
        waits: the ids of questions that wait for a person.
    """

    student: Student
    result: HandInResult
    points: Mapping[str, float]
    by_person: frozenset[str] = frozenset()
    comments: Mapping[str, str] = field(default_factory=dict)
    penalty: float = 0.0
    seconds_late: float = 0.0
    waits: frozenset[str] = frozenset()

    @property
    def raw_score(self) -> float:
        return sum(self.points.values())

    @property
    def score(self) -> float:
        """What counts: points less the penalty."""
        return max(0.0, self.raw_score - self.penalty)


def db_url(run: Run) -> str:
    return f"sqlite:///{run.out / 'gradebook.db'}"


@contextmanager
def opened(run: Run):
    """The run's gradebook; made first where there is none."""
    path = run.out / "gradebook.db"
    if not path.exists():
        # Tables are made in several steps, so elsewhere: neither a half-made file nor its journal, which a killed run leaves and
        # SQLite would play back, may ever be found here.
        new = run.out / ".gradebook.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        Gradebook(f"sqlite:///{new / path.name}").close()
        (new / path.name).replace(path)
        new.rmdir()
    with Gradebook(db_url(run)) as gradebook, warnings.catch_warnings():
        # nbgrader's own code sets these off, with every submission that it adds.
        warnings.simplefilter("ignore", SAWarning)
        yield gradebook


# ---------------------------------------------------------------------------------------------- writing


def check(run: Run, whole: bool, force: bool) -> None:
    """Refuse what would lose points that a person gave, and a config that grades in another way."""
    load_config(run)
    if force or not whole or not (run.out / "gradebook.db").exists():
        return
    with opened(run) as gradebook:
        present = {student.id for student in run.students if student.holder}
        lost = sorted(submission.student.id for submission in gradebook.assignment_submissions(run.lab.name)
                      if submission.student.id not in present and any(
                          grade.manual_score is not None for notebook in submission.notebooks for grade in notebook.grades))
    if lost:
        raise Refusal(f"{', '.join(lost)} got points by hand in {run.out}, but nothing of theirs is in {run.submitted} now; give "
                      "another --out, or --force to drop their marks")


def update(run: Run, whole: bool = True) -> None:
    """Bring the course directory and its gradebook up to date with the results.

    Points and comments that people gave stay; where the hand-in has changed since, they are flagged for another look. With
    `whole`, the marks of students who have no hand-in any more are removed.
    """
    lab = run.lab
    instructor = instructor_notebook(lab)
    student = student_notebook(instructor)
    for path, notebook in {run.out / "source" / lab.name / f"{lab.name}.ipynb": instructor,
                           run.out / "release" / lab.name / f"{lab.name}.ipynb": student}.items():
        write_text(path, nbformat.writes(notebook) + "\n")
    with opened(run) as gradebook:
        _save_structure(run, gradebook, student)
        for each in run.students:
            result = each.holder and run.result(each.id)
            gradebook.update_or_create_student(each.id, first_name=each.first_name or None, email=each.email or None,
                                               last_name=each.last_name or (each.label if each.label != each.id else None))
            if result:
                changed = run.notebook("submitted", each.id).exists() and checksum(run.notebook("submitted", each.id)) != result.handin_sha256
                _save_marks(run, gradebook, each, result, changed)
            elif each.holder is None:
                _remove(run, gradebook, each.id)
        if whole:
            present = {each.id for each in run.students}
            for name in [submission.student.id for submission in gradebook.assignment_submissions(lab.name)]:
                if name not in present:
                    _remove(run, gradebook, name)
                    run.result_file(name).unlink(missing_ok=True)
    # Only now: until a change of the hand-in is in the gradebook, the old copy says that there was one.
    for each in run.students:
        if each.holder and (result := run.result(each.id)):
            _copy_notebooks(run, each, result, student)
    refresh(run)


def _save_structure(run: Run, gradebook: Gradebook, notebook) -> None:
    """Make the assignment's cells those of the lab as it is now; nbgrader itself refuses to once there are submissions."""
    lab = run.lab.name
    due = next((after for name, after in zip(run.command, run.command[1:]) if name == "--due"), None)
    gradebook.update_or_create_assignment(lab, **({"duedate": parse_due(due)} if due else {}))
    cells = {cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata}
    try:
        saved = gradebook.find_notebook(lab, lab)
    except MissingEntry:
        saved = None
    if saved and saved.submissions:
        for old, kind in ((saved.grade_cells, "grade"), (saved.solution_cells, "solution"), (saved.source_cells, None)):
            for cell in old:
                if cell.name not in cells or (kind and not cells[cell.name][kind]):
                    for mark in [*getattr(cell, "grades", []), *getattr(cell, "comments", [])]:
                        gradebook.db.delete(mark)
                    gradebook.db.delete(cell)
        gradebook.db.flush()
        gradebook.db.expire_all()
        have = {(type(cell), cell.name) for cell in [*saved.grade_cells, *saved.solution_cells]}
        for name, marks in cells.items():
            if marks.grade and (GradeCell, name) not in have:
                cell = GradeCell(name=name, notebook=saved, max_score=float(marks.points), cell_type=_cell_type(notebook, name))
                gradebook.db.add(cell)
                gradebook.db.flush()
                gradebook.db.add_all(Grade(cell_id=cell.id, notebook=each) for each in saved.submissions)
            if marks.solution and (SolutionCell, name) not in have:
                cell = SolutionCell(name=name, notebook=saved)
                gradebook.db.add(cell)
                gradebook.db.flush()
                gradebook.db.add_all(Comment(cell_id=cell.id, notebook=each) for each in saved.submissions)
        gradebook.db.commit()
        have = {cell.name for cell in saved.source_cells}
        for name in cells.keys() - have:
            gradebook.add_source_cell(name, lab, lab, cell_type=_cell_type(notebook, name))
    resources = {"nbgrader": {"notebook": lab, "assignment": lab, "db_url": db_url(run)}}
    SaveCells(log=quiet).preprocess(nbformat.from_dict(notebook), resources)
    gradebook.db.expire_all()


def _cell_type(notebook, name: str) -> str:
    return next(cell.cell_type for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == name)


def _save_marks(run: Run, gradebook: Gradebook, student: Student, result: HandInResult, changed: bool) -> None:
    lab = run.lab.name
    submission = gradebook.update_or_create_submission(lab, student.id, timestamp=student.timestamp)
    questions = {each.id: each for each in result.questions}
    for grade in submission.notebooks[0].grades:
        question = questions.get(grade.name)
        waits = question is not None and question.verdict == "manual"
        grade.auto_score = None if waits else question.points if question else 0.0
        grade.needs_manual_grade = waits if grade.manual_score is None else grade.needs_manual_grade or changed
    for comment in submission.notebooks[0].comments:
        question = questions.get(comment.name)
        comment.auto_comment = question.message if question and question.verdict not in ("manual", "right") else None
    gradebook.db.commit()


def _remove(run: Run, gradebook: Gradebook, student_id: str) -> None:
    """Take away a student's marks and their copies."""
    try:
        gradebook.remove_submission(run.lab.name, student_id)
    except MissingEntry:
        pass
    for step in ("submitted", "autograded", "feedback"):
        shutil.rmtree(run.folder(step, student_id), ignore_errors=True)


def _copy_notebooks(run: Run, student: Student, result: HandInResult, template) -> None:
    """What Formgrader lists and shows: the hand-in as it came, and the graded notebook. A pair's hand-in is shown once."""
    if student.holder != student.id:
        for step in ("submitted", "autograded"):
            shutil.rmtree(run.folder(step, student.id), ignore_errors=True)
        return
    original, copy = run.handin(student), run.notebook("submitted", student.id)
    if not result.handin_sha256:
        copy.unlink(missing_ok=True)
    elif checksum(copy) != result.handin_sha256 == checksum(original):
        write_atomically(copy, original.read_bytes())
    if student.timestamp:
        write_text(copy.with_name("timestamp.txt"), f"{student.timestamp}\n")
    graded = run.notebook("autograded", student.id)
    if not graded.exists():
        notebook = nbformat.from_dict(template)
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(f"**{result.message or 'This hand-in could not be shown.'}**"))
        write_text(graded, nbformat.writes(notebook) + "\n")


# ---------------------------------------------------------------------------------------------- what people change


def refresh(run: Run) -> None:
    """Follow what people changed in Formgrader: a pair's points and comments for each of the pair, and late penalties."""
    lab, config = run.lab.name, load_config(run)
    with opened(run) as gradebook:
        submissions = {submission.student.id: submission for submission in gradebook.assignment_submissions(lab)}
        for student in run.students:
            if student.holder != student.id and {student.id, student.holder} <= submissions.keys():
                mine, theirs = (submissions[each].notebooks[0] for each in (student.id, student.holder))
                given = {grade.name: grade for grade in theirs.grades}
                for grade in mine.grades:
                    for name in ("manual_score", "extra_credit", "needs_manual_grade"):
                        setattr(grade, name, getattr(given[grade.name], name))
                said = {comment.name: comment for comment in theirs.comments}
                for comment in mine.comments:
                    comment.manual_comment = said[comment.name].manual_comment
        gradebook.db.commit()
        late = [name for name, submission in submissions.items() if submission.total_seconds_late > 0]
        for name in submissions.keys() - set(late):
            submissions[name].notebooks[0].late_submission_penalty = None
        gradebook.db.commit()
    for name in late:
        resources = {"nbgrader": {"notebook": lab, "assignment": lab, "student": name, "db_url": db_url(run)}}
        AssignLatePenalties(config=config, log=quiet).preprocess(nbformat.v4.new_notebook(), resources)


def marks(run: Run) -> list[Mark]:
    """Everybody's marks, sorted by student; those without a result are left out."""
    found = []
    with opened(run) as gradebook:
        submissions = {submission.student.id: submission for submission in gradebook.assignment_submissions(run.lab.name)}
        for student in run.students:
            result = run.result(student.id)
            if result is None:
                continue
            points = {question.id: question.points for question in result.questions}
            if student.id not in submissions:
                found.append(Mark(student, result, points))
                continue
            submission = submissions[student.id]
            notebook = submission.notebooks[0]
            points |= {grade.name: grade.score for grade in notebook.grades if grade.name in points}
            found.append(Mark(
                student, result, points,
                frozenset(grade.name for grade in notebook.grades if grade.manual_score is not None or grade.extra_credit),
                {comment.name: comment.manual_comment for comment in notebook.comments if comment.manual_comment},
                notebook.late_submission_penalty or 0.0, max(0.0, submission.total_seconds_late),
                frozenset(grade.name for grade in notebook.grades if grade.needs_manual_grade)))
    return found


# ---------------------------------------------------------------------------------------------- nbgrader's buttons


def load_config(run: Run) -> Config:
    """The course directory's nbgrader_config.py, written where there is none; raises Refusal where it grades in another way."""
    path = run.out / "nbgrader_config.py"
    if not path.exists():
        write_text(path, CONFIG.format(code_stub=CLEAR["code_stub"], text_stub=CLEAR["text_stub"]))
    # A plugin may lie beside the config.
    if str(run.out) not in sys.path:
        sys.path.append(str(run.out))
    try:
        config = PyFileConfigLoader(path.name, path=str(run.out)).load_config()
    except Exception as error:  # it is a program, and may fail as one
        raise Refusal(f"{path} cannot be read: {type(error).__name__}: {error}".replace("\n", " ")) from error
    ours = ("autograder.gradebook.AnyNotebook", ["autograder.gradebook.GradeByPipeline"], [])
    if (config.Autograde.exporter_class, config.Autograde.sanitize_preprocessors, config.Autograde.autograde_preprocessors) != ours:
        raise Refusal(f"{path} lets nbgrader grade in its own way; delete the file (it is written anew) and put your settings back in")
    return config


class AnyNotebook(NotebookExporter):
    """Reads any hand-in: what is no notebook is an empty one, for the pipeline reads the hand-in itself."""

    def from_filename(self, filename, resources=None, **kwargs):
        try:
            notebook = nbformat.read(filename, as_version=4)
        except Exception:  # whatever a parser raises
            notebook = nbformat.v4.new_notebook()
        return self.from_notebook_node(notebook, resources, **kwargs)


class GradeByPipeline(NbGraderPreprocessor):
    """In the place of nbgrader's own preprocessors: grades the hand-in by the pipeline, or refuses in one line."""

    def preprocess(self, nb, resources):
        marks = resources["nbgrader"]
        out = Path(marks["db_url"].removeprefix("sqlite:///")).parent
        run = load_run(out)
        if marks["assignment"] != run.lab.name:
            raise Refusal(f"{out} was graded for {run.lab.name}, not for {marks['assignment']}")
        done = subprocess.run([sys.executable, "-m", "autograder", *run.command, "--student", marks["student"], "--force"],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=run.lab.root)
        if done.returncode:
            raise Refusal((done.stderr.strip().splitlines() or ["grading failed without a word"])[-1])
        return nbformat.read(run.notebook("autograded", marks["student"]), as_version=4), resources

"""The command line: `autograder COMMAND`, also `python -m autograder COMMAND`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer

from .course import ROOT, Lab, Refusal, lab_names

app = typer.Typer(name="autograder", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  rich_markup_mode="markdown", help="Build the labs of the course from their source, make student bundles, and grade hand-ins.")

LabName = Annotated[str, typer.Argument(metavar="LAB", help="A folder of solutions/ with a lesson.py.", show_default=False)]
Root = Annotated[Path, typer.Option(help="The course's folder, if it is not this one.", show_default=False)]


@app.callback()
def autograder():
    """Build the labs of the course from their source, make student bundles, and grade hand-ins."""


@app.command()
def build(lab: Annotated[str, typer.Argument(metavar="[LAB]", help="A folder of solutions/; without it, every lab is built.")] = "",
          pictures: Annotated[bool, typer.Option("--pictures", help="Also run the filled notebook and save its pictures as the "
                                                                    "expected ones; takes minutes.")] = False,
          root: Root = ROOT):
    """Write a lab's notebooks and answer sheet from its lesson.py, reference classes and exam.

    Change the lesson, a reference class or a question, then run this; no notebook is ever edited by hand.

    Example: `autograder build lab5_sampling`
    """
    labs = [Lab(root, name) for name in ([lab] if lab else lab_names(root))]
    if not labs:
        raise Refusal(f"there is no lab in {root / 'solutions'}; give the folder of a course with --root")
    from .build import build, draw_pictures

    for each in labs:
        for path in [*build(each), *(draw_pictures(each) if pictures else [])]:
            print(path.relative_to(root))


@app.command()
def release(lab: LabName, out: Annotated[Path, typer.Option(help="The folder that gets the zip.", show_default=False)],
            root: Root = ROOT):
    """Pack the student bundle: the kit, the unfilled notebook, data and models, and nothing that gives an answer away.

    Unpacked anywhere, it works alone: `make lab`, or start.bat on Windows.

    Example: `autograder release lab5_sampling --out dist`
    """
    found = Lab(root, lab)
    from .bundle import release

    print(release(found, out))

Out = Annotated[Path, typer.Option(help="The folder that a run of `grade` filled.", show_default=False)]


@app.command()
def grade(lab: LabName,
          submitted: Annotated[Path, typer.Option(help="The hand-ins: STUDENT/LAB/LAB.ipynb, each perhaps with a timestamp.txt.",
                                                  show_default=False)],
          out: Annotated[Path, typer.Option(help="The folder that gets everything; the same one goes on where a run stopped.",
                                            show_default=False)],
          jobs: Annotated[Optional[int], typer.Option(min=1, help="Hand-ins at a time; without it, one on each core.",
                                                      show_default=False)] = None,
          scheduler: Annotated[str, typer.Option(metavar="ADDR", help="A dask scheduler, tls://HOST:PORT, in the place of this machine's "
                                                 "cores. The folders must have the same paths on all machines; workers have one thread "
                                                 "each; certificates come from dask's own configuration.")] = "",
          roster: Annotated[Optional[Path], typer.Option(help="A CSV file with the column student_id, and perhaps first_name, last_name, "
                                                         "email. Who is on it and handed nothing in is `missing`.",
                                                         show_default=False)] = None,
          teams: Annotated[Optional[Path], typer.Option(help="A CSV file with the columns team and student_id, a line for each member; "
                                                        "a pair hands in once, under the name of the team or of either.",
                                                        show_default=False)] = None,
          due: Annotated[str, typer.Option(metavar="DATE", help='The due date, such as "2026-05-31 23:59 CET"; UTC where no zone is '
                                           "given, the end of the day where no time is. When something was handed in is what its "
                                           "timestamp.txt says. What lateness costs is set in OUT/nbgrader_config.py.")] = "",
          seed: Annotated[Optional[int], typer.Option(min=0, help="The run's seed, to replay one exactly; without it, OUT's own.",
                                                      show_default=False)] = None,
          student: Annotated[str, typer.Option(metavar="ID", help="Only this student, or this student's team.")] = "",
          question: Annotated[str, typer.Option(metavar="ID", help="Ask only this question again; the others' points stay.")] = "",
          force: Annotated[bool, typer.Option("--force", help="Grade what has a valid result, too.")] = False,
          device: Annotated[str, typer.Option(metavar="cpu|cuda", help="Where hand-ins compute.")] = "cpu",
          time_limit: Annotated[float, typer.Option(metavar="S", min=1, help="Seconds for one hand-in, all in all.")] = 600,
          memory_limit: Annotated[float, typer.Option(metavar="GIB", min=0.1, help="Memory for one hand-in.")] = 4,
          no_sandbox: Annotated[bool, typer.Option("--no-sandbox", help="Run hand-ins with your own rights, unprotected; stamped on every "
                                                   "result.")] = False,
          root: Root = ROOT):
    """Grade a folder of hand-ins: marks, gradebook, feedback and class report.

    Run it again at any time, after an interruption too: what has a valid result is not graded again, unless the exam has changed. OUT
    gets grades.csv, report.html, results/, feedback/, autograded/ and gradebook.db, and is a course directory that nbgrader's Formgrader
    opens.

    Example: `autograder grade lab5_sampling --submitted handins --out graded --roster class.csv`
    """
    found = Lab(root.resolve(), lab)
    if device not in ("cpu", "cuda"):
        raise Refusal(f"--device {device} is unknown; there are: cpu, cuda")
    from .grade import grade
    from .results import Limits

    try:
        run = grade(found, submitted, out, tell=partial(print, flush=True), jobs=jobs, scheduler=scheduler, roster=roster, teams=teams,
                    due=due, seed=seed, student=student, question=question, force=force, limits=Limits(time_limit, memory_limit),
                    sandbox=not no_sandbox, device=device)
    except KeyboardInterrupt:
        raise Refusal("interrupted; the same command goes on from here") from None
    print(f"marks:         {run.out / 'grades.csv'}\nclass report:  {run.out / 'report.html'}")


@app.command()
def audit(lab: LabName, root: Root = ROOT):
    """Try the grader: every typical mistake must be caught, every right alternative pass, and no attack gain anything.

    Takes minutes. Prints the figures, writes them to docs/audit-LAB.md, and ends with status 1 if one falls short.

    Example: `autograder audit lab5_sampling`
    """
    found_lab = Lab(root.resolve(), lab)
    from rich.console import Console

    from .audit import audit, shortcomings, tables

    found = audit(found_lab)
    for each in tables(found):
        Console().print(each)
    for line in shortcomings(found):
        print(line)
    sys.exit(0 if found.good else 1)


@app.command()
def collect(lab: LabName,
            source: Annotated[Path, typer.Option("--from", metavar="DIR_OR_ZIP", help="What Canvas or Moodle gave for \"download all "
                                                 "submissions\", as it came or unpacked.", show_default=False)],
            to: Annotated[Path, typer.Option(help="The folder that gets STUDENT/LAB/LAB.ipynb.", show_default=False)],
            root: Root = ROOT):
    """Sort a download from Canvas or Moodle into the folders that `grade` reads.

    Takes notebooks and the zips of `make handin`. Students get the number that Canvas or Moodle has in the file's name; TO/names.csv says
    who they are and serves as a roster. Archives that reach out of their folder or unpack without end are refused.

    Example: `autograder collect lab5_sampling --from submissions.zip --to handins`
    """
    found = Lab(root, lab)
    from .collect import collect

    for line in collect(found, source, to):
        print(line)


@app.command()
def feedback(lab: LabName, out: Out, student: Annotated[str, typer.Option(metavar="ID", help="Only this student.")] = ""):
    """Write the students' feedback again, with the points and comments that you gave in Formgrader.

    Each student's page is OUT/feedback/STUDENT/LAB/LAB.html.

    Example: `autograder feedback lab5_sampling --out graded`
    """
    from .feedback import write_feedback

    run, marks = _marks(lab, out)
    chosen = [mark for mark in marks if not student or student in (mark.student.id, mark.student.label)]
    if not chosen:
        raise Refusal(f"there is no result of {student or 'anybody'} in {out}")
    for path in write_feedback(run, chosen):
        print(path)


@app.command()
def report(lab: LabName, out: Out):
    """Write the class report again, with the points that you gave in Formgrader.

    Example: `autograder report lab5_sampling --out graded`
    """
    from .report import write_report

    print(write_report(*_marks(lab, out)))


@app.command()
def export(lab: LabName, out: Out,
           format: Annotated[str, typer.Option(metavar="csv|canvas|gradescope", help="csv: a line for each student, which Moodle and others "
                                               "import. canvas: Canvas's own columns. gradescope: a results.json for each student.")] = "csv",
           to: Annotated[Optional[Path], typer.Option(help="The file, or for gradescope the folder, to write; without it, one in OUT.",
                                                      show_default=False)] = None):
    """Write the marks for another gradebook, with the points that you gave in Formgrader and late penalties; grades.csv too.

    Example: `autograder export lab5_sampling --out graded --format canvas`
    """
    from .export import export, write_grades

    run, marks = _marks(lab, out)
    write_grades(run, marks)
    print(export(run, marks, format, to))


def _marks(lab: str, out: Path):
    """A graded class and its marks as they are now."""
    from . import gradebook
    from .classroom import load_run

    run = load_run(out.resolve())
    if run.lab.name != lab:
        raise Refusal(f"{out} holds the marks of {run.lab.name}, not of {lab}")
    gradebook.refresh(run)
    return run, gradebook.marks(run)


def main():
    """Run the command line; what cannot be done is said in one line."""
    try:
        app()
    except Refusal as refusal:
        print(f"autograder: {refusal}", file=sys.stderr)
        sys.exit(2)

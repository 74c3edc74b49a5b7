"""One hand-in from file to marks: taken in, run in a sandbox, examined from outside, written down."""

from __future__ import annotations

import html
import json
import re
import sys
import time
import traceback
from collections.abc import Sequence

from .course import Refusal
from .examiner import CannotStart, Exam, Session, seed_of
from .handin_intake import Cell, Intake, lesson_cells, take_in
from .results import HandInResult, QuestionResult, Task, write_atomically, write_result
from .sandbox import NoSandbox, Sandbox, installed


def grade_one(task: Task) -> HandInResult:
    """Grade one hand-in; write `results/<student>.json` and `autograded/<student>/<lab>/<lab>.ipynb` below `task.out`.

    The same task gives the same marks. One hand-in at a time in a process: while a mistake is being weighed, the reference
    classes are changed for a moment.

    Raises:
        Refusal: there is no sandbox on this machine, or the lab is not built. Nothing that was handed in raises.
    """
    start = time.monotonic()
    if not task.lab.student_notebook.is_file():
        raise Refusal(f"{task.lab.student_notebook} does not exist; run: autograder build {task.lab.name}")
    place = (Sandbox if task.sandbox else NoSandbox)(task.lab, task.limits, task.device == "cuda")
    intake = take_in(task.path, task.lab, task.limits, installed(task.lab.root)[0] | {"diffusionlab"})
    questions = task.lab.module("exam").QUESTIONS
    if intake.status:
        status, message, notices = intake.status, intake.message, list(intake.notices)
        results = [blank(question, "missing", "") for question in questions]
    else:
        status, message, notices, results = examine(task, place, intake, questions)
    result = HandInResult(
        task.student, task.lab.name, task.lab.version, task.seed, place.name, status, message, tuple(notices),
        round(sum(each.points for each in results), 6), float(sum(question.points for question in questions)),
        any(each.verdict == "manual" for each in results), intake.sha256, round(time.monotonic() - start, 3), tuple(results),
        task.lab.exam_digest)
    notebook = autograded(intake.cells or lesson_cells(task.lab), result)
    write_atomically(task.out / "autograded" / task.student / task.lab.name / f"{task.lab.name}.ipynb",
                     json.dumps(notebook, indent=1, ensure_ascii=False).encode() + b"\n")
    write_result(task.out / "results" / f"{task.student}.json", result)
    return result


def examine(task: Task, place, intake: Intake, questions) -> tuple[str, str, list[str], list[QuestionResult]]:
    """Run a hand-in's cells and ask it every question: status, message, notices, results."""
    session, results = Session(place, intake.cells, task.limits), {}
    # Another hand-in of the same student is asked with other inputs: what the feedback may have given away is of no use.
    exam = Exam(questions, task.lab.module("mistakes").MISTAKES, task.lab.reference(), seed_of(task.seed, intake.sha256),
                task.student, session, task.limits)
    try:
        for question in questions:
            try:
                results[question.id] = exam.ask(question, results)
            except CannotStart:
                raise
            except Exception:  # ours, not the student's; whatever set it off, the other questions are asked
                traceback.print_exc(file=sys.stderr)
                said = "This answer could not be judged; a person should look at it."
                results[question.id] = blank(question, "crashed", said)
    except CannotStart as reason:
        print(f"{task.student}: {reason}", file=sys.stderr)
        results |= {question.id: blank(question, "crashed", "") for question in questions if question.id not in results}
        return "crashed", f"The notebook could not be run ({reason}).", list(intake.notices), list(results.values())
    finally:
        exam.close()
    status, message = standing(session, intake.cells, list(results.values()))
    return status, message, [*intake.notices, *own_cells(session, intake.cells)], list(results.values())


def blank(question, verdict: str, message: str) -> QuestionResult:
    """A question without an answer; where there is something to judge, one that a person judges waits for the person."""
    if question.manual and verdict != "missing":
        verdict, message = "manual", ""
    return QuestionResult(question.id, question.title, 0.0, float(question.points), verdict, message)


def standing(session: Session, cells: Sequence[Cell], results: Sequence[QuestionResult]) -> tuple[str, str]:
    """The status of a hand-in that was examined, and a sentence about it."""
    asked = [each for each in results if each.verdict != "manual"]
    lost = [each for each in asked if each.verdict in ("timeout", "crashed")]
    if session.late and lost and len(lost) == len(asked):
        return "timeout", "The notebook took longer than a hand-in may."
    names = {cell.id: ", ".join(cell.defines) or cell.id for cell in cells if cell.kind in ("solution", "provided")}
    broken = [f"the cell {names[id]} did not run: {why}" for id, why in session.failed.items() if id in names]
    stopped = [f"{each.title}: {each.message[:1].lower()}{each.message[1:].removesuffix('.')}" for each in lost]
    if broken or stopped:
        text = "; ".join([*broken, *stopped])
        return "partial", f"{text[:1].upper()}{text[1:]}."
    return "graded", "Every question was asked and answered."


def own_cells(session: Session, cells: Sequence[Cell]) -> list[str]:
    """A notice about the student's own cells that did not run to their end."""
    failed = [session.failed[cell.id] for cell in cells if cell.kind == "added" and cell.id in session.failed]
    if not failed:
        return []
    return [f"{len(failed)} of the student's own cells did not run to the end ({', '.join(dict.fromkeys(failed))}); "
            "demonstrations are not run again at grading, so what rests on their results cannot."]


def autograded(cells: Sequence[Cell], result: HandInResult) -> dict:
    """The hand-in as a notebook to look at and to give points in: the lesson's cells restored, outputs as handed in and
    marked so, and in each check cell the exam's result."""
    questions = {each.id: each for each in result.questions}
    made = []
    for cell in cells:
        source = without_tags(cell.source) if cell.changed and cell.type != "code" else cell.source
        body = {"cell_type": cell.type, "id": cell.id[:64], "metadata": dict(cell.metadata), "source": source}
        if cell.type == "code":
            if cell.kind == "check" and cell.id in questions:
                outputs = [score_output(questions[cell.id])]
            else:
                outputs = [HANDED_IN, *cell.outputs] if cell.outputs else []
            body |= {"execution_count": None, "outputs": outputs}
        made.append(body)
    about = {"lab": result.lab, "version": result.lab_version, "status": result.status, "message": result.message,
             "notices": list(result.notices), "sandbox": result.sandbox}
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
                "language_info": {"name": "python"}, "autograder": about,
                "diffusionlab": {"lab": result.lab, "version": result.lab_version}}
    return {"nbformat": 4, "nbformat_minor": 5, "cells": made, "metadata": metadata}


def without_tags(source: str) -> str:
    """Text that reads the same, with no markup in it but links to web pages, pictures that were pasted in, and places of the page: an
    invisible space after each `<` that would begin a tag, and before each other target of a link. Formgrader shows what a student
    wrote in the browser of a person who may run code on the server that it comes from."""
    source = re.sub(r"<(?=[A-Za-z/!?])", "<\u200b", source)
    return re.sub(r"(\](?=\(|:))(?![(:]\s*(?:https?://|attachment:|mailto:|#))", "]\u200b", source)


HANDED_IN = {"output_type": "display_data", "metadata": {},
             "data": {"text/plain": "Output as handed in; this cell's output was not made again at grading.",
                      "text/html": "<i>Output as handed in; it was not made again at grading.</i>"}}


def score_output(question: QuestionResult) -> dict:
    """The exam's result as a cell's output: as text the points alone, which nbgrader reads as the score."""
    rows = "".join(f"<li>{'&#10003;' if not part.message else '&#10007;'} {html.escape(part.title)}"
                   f"{': ' + html.escape(part.message) if part.message else ''}</li>" for part in question.parts)
    text = (f"<b>{html.escape(question.title)}</b> &middot; {question.verdict} &middot; "
            f"{question.points:g} of {question.max:g} points<p>{html.escape(question.message)}</p>"
            + (f"<ul style=list-style:none;padding-left:0>{rows}</ul>" if rows else ""))
    return {"output_type": "execute_result", "execution_count": None, "metadata": {},
            "data": {"text/plain": f"{question.points:g}", "text/html": text}}

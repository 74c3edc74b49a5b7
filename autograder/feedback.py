"""Feedback: a page for each student, with every question in words, its points, what was observed and a hint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nbconvert.exporters import Exporter

from . import gradebook
from .classroom import Run, load_run, write_text
from .course import Refusal
from .gradebook import Mark
from .page import page, points, prose, text
from .results import QuestionResult

STYLE = """
main { max-width: 48rem; }
.total { font-size: 2.6rem; font-weight: 650; line-height: 1.1; margin: 1.4rem 0 .2rem; font-variant-numeric: tabular-nums; }
.total small { font-size: 1.1rem; font-weight: 400; color: var(--soft); }
article { border-top: 1px solid var(--line); padding: 1.1rem 0 1rem; display: grid; grid-template-columns: 1fr 6.5rem; column-gap: 1.5rem;
  break-inside: avoid; }
article h3 { margin: 0; font-size: 1.02rem; font-weight: 600; }
article .number { font-size: 1.02rem; }
article .body { grid-column: 1 / -1; max-width: 44rem; }
.verdict { font-size: .85rem; color: var(--soft); display: flex; align-items: center; gap: .4rem; margin: .1rem 0 .2rem; }
.verdict::before { content: ""; width: .6rem; height: .6rem; border-radius: 50%; background: var(--none); }
.right::before { background: var(--right); } .partly::before { background: var(--partly); }
.wrong::before, .crashed::before, .timeout::before { background: var(--wrong); }
table { border-collapse: collapse; margin: .6rem 0 0; font-size: .9rem; width: 100%; }
td { padding: .25rem 0; vertical-align: top; border-top: 1px dotted var(--line); }
td:last-child { width: 5rem; }
td .soft { display: block; }
"""

VERDICTS = {"right": "right", "partly": "partly right", "wrong": "not right yet", "unwritten": "still to be written",
            "timeout": "stopped at the time limit", "crashed": "stopped by a crash", "missing": "not handed in",
            "manual": "read by a person"}

STATUSES = {"graded": "", "partial": "Some of your code could not be run to its end; everything else was graded as usual.",
            "unreadable": "The file could not be read as a notebook of this lab.",
            "timeout": "Your notebook took too long and was stopped.", "crashed": "Your notebook stopped unexpectedly.",
            "missing": "Nothing was handed in."}


def write_feedback(run: Run, marks: Sequence[Mark]) -> list[Path]:
    """Write feedback/<student>/<lab>/<lab>.html for everybody; returns the files."""
    files = []
    for mark in marks:
        files.append(run.folder("feedback", mark.student.id) / f"{run.lab.name}.html")
        write_text(files[-1], feedback_page(run, mark))
    return files


def feedback_page(run: Run, mark: Mark) -> str:
    """One student's page."""
    result, student = mark.result, mark.student
    hints = {mistake.id: mistake.hint for mistake in run.lab.module("mistakes").MISTAKES}
    who = student.name if student.name == student.label else f"{student.name} ({student.label})"
    lines = [f"<h1>{text(lab_title(run))}</h1>", f'<p class="soft">Feedback for {text(who)}</p>']
    lines.append(f'<div class="total">{points(mark.score)} <small>of {points(result.max_score)} points</small></div>')
    if mark.waits:
        waiting = sum(question.max for question in result.questions if question.id in mark.waits)
        lines.append(f'<p class="soft">Up to {points(waiting)} more point{"" if waiting == 1 else "s"} will be given by a person.</p>')
    if mark.penalty:
        lines.append(f"<p>{points(mark.raw_score)} points, less {points(mark.penalty)} because it was handed in late.</p>")
    for sentence in dict.fromkeys(filter(None, (STATUSES[result.status], "" if result.status == "graded" else result.message, *result.notices))):
        lines.append(f'<p class="note text">{prose(sentence)}</p>')
    lines.append('<h2>Question by question</h2>')
    lines += [_question(question, mark, hints) for question in result.questions]
    if any("#" in said for question in result.questions for said in (question.message, *(part.message for part in question.parts))):
        lines.append('<p class="soft">A # stands for a number that is not shown.</p>')
    return page(f"{lab_title(run)}: feedback", STYLE, "\n".join(lines))


def _question(question: QuestionResult, mark: Mark, hints: dict[str, str]) -> str:
    verdict = VERDICTS[question.verdict]
    if question.id in mark.by_person:
        verdict = "points given by a person"
    elif question.id in mark.waits:
        verdict = "waits for a person"
    said = [question.message] if question.verdict != "right" and question.message else []
    # A mistake's message ends with its hint already; the hint alone is added where the message is another.
    hint = hints.get(question.mistake or "", "")
    said += [hint] if hint and hint not in question.message else []
    body = [f'<p class="text">{prose(sentence)}</p>' for sentence in said]
    if comment := mark.comments.get(question.id):
        body.append(f'<p class="note text">{prose(comment)}</p>')
    if any(part.message for part in question.parts) and len(question.parts) > 1:
        rows = "".join(f'<tr><td>{prose(part.title)}{f"<span class=soft>{prose(part.message)}</span>" if part.message else ""}</td>'
                       f'<td class="number">{points(part.points)} of {points(part.max)}</td></tr>' for part in question.parts)
        body.append(f"<table>{rows}</table>")
    given = "–" if question.id in mark.waits and question.id not in mark.by_person else points(mark.points[question.id])
    return (f'<article><h3>{text(question.title)}</h3><div class="number">{given} of {points(question.max)}</div>'
            f'<div class="body"><div class="verdict {question.verdict}">{verdict}</div>{"".join(body)}</div></article>')


def lab_title(run: Run) -> str:
    """The lab's own title, from the first heading of its lesson."""
    for line in run.lab.lesson.read_text(encoding="utf-8").splitlines():
        if line.startswith("# # "):
            return line.removeprefix("# # ").strip()
    return run.lab.name


class FeedbackExporter(Exporter):
    """In the place of nbgrader's HTML of the whole notebook: the student's page. Formgrader's feedback button leads here."""

    file_extension = ".html"

    def from_filename(self, filename, resources=None, **kwargs):
        marks = resources["nbgrader"]
        run = load_run(Path(marks["db_url"].removeprefix("sqlite:///")).parent)
        gradebook.refresh(run)
        for mark in gradebook.marks(run):
            if mark.student.id == marks["student"]:
                return feedback_page(run, mark), resources | {"output_extension": self.file_extension}
        raise Refusal(f"{marks['student']} has no result in {run.out}")

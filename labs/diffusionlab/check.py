"""The self-check: `check("ddpm-posterior-mean", DDPMSampler)` compares your code with stored right answers, and names the mistake."""

from __future__ import annotations

import html
import os
import re
from functools import cache

from .folders import data_dir
from .sheet import SheetQuestion, Verdict, judge_question, look_at_all, read_sheet


def as_html(sentence: str) -> str:
    """A sentence as HTML; what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(sentence))


class CheckResult:
    """The outcome of a check. As text it is the points earned and nothing else, which nbgrader reads as the cell's score.

    Attributes:
        question: the question asked.
        verdict: part by part what was right, and the mistake where it was recognised.
        advice: what to do next, in words; "" where all is right.
    """

    def __init__(self, question: SheetQuestion, verdict: Verdict, advice: str):
        self.question, self.verdict, self.advice = question, verdict, advice

    @property
    def points(self) -> float:
        """The points earned, 0..question.points."""
        return min(self.verdict.points, self.question.points)

    def __repr__(self) -> str:
        return f"{round(self.points, 2):g}"

    def _repr_html_(self) -> str:
        color = "#009e73" if self.verdict.right else "#888888" if self.verdict.unwritten else "#d55e00"
        state = "right" if self.verdict.right else "not written yet" if self.verdict.unwritten else "not right yet"
        rows = "" if self.verdict.right or self.verdict.unwritten else "".join(
            f"<li>{'&#10003;' if not part.sentence else '&#10007;'} {as_html(part.title)}"
            f"{': ' + as_html(part.sentence) if part.sentence else ''}</li>" for part in self.verdict.parts)
        advice = f'<p style="margin:.4em 0">{as_html(self.advice)}</p>' if self.advice else ""
        parts = f'<ul style="list-style:none;padding-left:0;margin:0">{rows}</ul>' if rows else ""
        return (f'<div style="border-left:4px solid {color};padding:.3em .8em;margin:.2em 0">'
                f"<b>{as_html(self.question.title)}</b> &middot; {state} &middot; {self!r} of {self.question.points:g} points"
                f"{advice}{parts}</div>")


@cache
def _sheet() -> dict[str, SheetQuestion]:
    questions: dict[str, SheetQuestion] = {}
    for path in sorted((data_dir() / "checks").glob("*.safetensors")):
        questions = read_sheet(path) | questions
    return questions


def check(question: str, *targets) -> CheckResult:
    """Compare your code with the right answers for one question.

    Args:
        question: the question's id, such as "ddpm-posterior-mean".
        targets: your class or function, and those that it rests on.

    Returns:
        A CheckResult, which shows what is right, what differs, and the mistake's name where it is a typical one. Nothing in
        your code stops it. Only under nbgrader's Validate does a check that is not all right raise AssertionError, with the hint.

    Raises:
        ValueError: an unknown question, or a class that the question needs and was not given.
    """
    sheet = _sheet()
    if question not in sheet:
        raise ValueError(f"there is no question {question!r}; the questions are: {', '.join(sheet) or 'none'}")
    asked = sheet[question]
    named = {getattr(target, "__name__", type(target).__name__): target for target in targets}
    if missing := [name for name in asked.targets if name not in named]:
        raise ValueError(f"check({question!r}, ...) needs {', '.join(asked.targets)}; not given: {', '.join(missing)}")
    verdict = _judge(asked, named)
    advice = verdict.message
    if not verdict.right and not verdict.unwritten:
        # A step built on a wrong formula is wrong for that reason alone: name the formula first.
        broken = [need for need in asked.needs if set(sheet[need].targets) <= set(named) and not _judge(sheet[need], named).right]
        if broken:
            advice = f"This rests on {' and '.join(broken)}, which {'is' if len(broken) == 1 else 'are'} not right yet: mend that first. {advice}"
    result = CheckResult(asked, verdict, advice)
    if not verdict.right and "NBGRADER_VALIDATING" in os.environ:
        raise AssertionError(f"{asked.title}: {advice}")
    return result


def _judge(question: SheetQuestion, targets: dict) -> Verdict:
    # What the student's code prints or draws on the way is not the check's to show.
    from IPython.utils.capture import capture_output

    with capture_output():
        return judge_question(question, look_at_all(question.parts, targets), again=lambda: look_at_all(question.parts, targets))

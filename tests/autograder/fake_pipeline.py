"""In the place of the real pipeline, for tests of what is around it: a hand-in says itself what comes of it."""

import json
import os
import time
from pathlib import Path

from autograder.classroom import checksum, write_text
from autograder.course import Refusal
from autograder.results import HandInResult, PartResult, QuestionResult, Task, write_result

OUT_OF_QUESTION = {"points": 0.0, "verdict": "wrong", "message": "", "mistake": None}


def grade_one(task: Task) -> HandInResult:
    """Believe the hand-in's metadata: `fake` is {question: {points, verdict, message, mistake}, sleep, seconds, exit, once}."""
    if task.device == "cuda":
        raise Refusal("there is no GPU on this machine")
    sha256, status, message, fake, notebook = checksum(task.path), "graded", "", {}, None
    try:
        notebook = json.loads(task.path.read_text(encoding="utf-8"))
        fake = notebook["metadata"]["fake"]
    except Exception:
        status, message = "unreadable", "This is no notebook."
    time.sleep(fake.get("sleep", 0))
    if "exit" in fake:
        os._exit(fake["exit"])
    if "once" in fake and not Path(fake["once"]).exists():
        Path(fake["once"]).touch()
        os._exit(9)
    with (task.out / "calls.txt").open("a") as calls:
        calls.write(f"{task.student}\n")
    questions = []
    for each in task.lab.module("exam").QUESTIONS:
        said = {**OUT_OF_QUESTION, **({"verdict": "manual"} if each.manual else {}), **fake.get(each.id, {})}
        if status == "unreadable":
            said["verdict"] = "missing"
        questions.append(QuestionResult(each.id, each.title, float(said["points"]), float(each.points), said["verdict"], said["message"],
                                        said["mistake"], 0.1, (PartResult(f"part of {each.id}", said["points"], each.points),)))
    if any(each.verdict in ("timeout", "crashed") for each in questions):
        status = "partial"
    result = HandInResult(
        task.student, task.lab.name, task.lab.version, task.seed, "none" if not task.sandbox else "bubblewrap", status, message,
        tuple(fake.get("notices", ())), sum(each.points for each in questions), sum(each.max for each in questions),
        any(each.verdict == "manual" for each in questions), sha256, fake.get("seconds", 1.0), tuple(questions),
        task.lab.exam_digest)
    if notebook is not None:
        write_text(task.out / "autograded" / task.student / task.lab.name / f"{task.lab.name}.ipynb",
                   json.dumps(notebook))
    write_result(task.out / "results" / f"{task.student}.json", result)
    return result

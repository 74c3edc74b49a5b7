"""What came of one hand-in, as one durable JSON file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .course import Lab

STATUSES = ("graded", "partial", "unreadable", "timeout", "crashed", "missing")
VERDICTS = ("right", "partly", "wrong", "unwritten", "timeout", "crashed", "missing", "manual")


@dataclass(frozen=True)
class Limits:
    """How much one hand-in may use.

    Attributes:
        seconds: of wall time for the whole hand-in.
        memory_gib: GiB of resident memory of all its processes together.
        question_seconds: of CPU for one question, and four times as much wall time, for a machine that is busy with others.
        cell_seconds: likewise for one cell that defines what is asked about.
        added_seconds: of wall time for all cells together that the student added.
        processes: how many at a time.
        work_bytes: size of its private folder.
        file_bytes: size of one file.
        handin_bytes: size of the hand-in itself.
        threads: for each of its numeric libraries.
    """

    seconds: float = 600.0
    memory_gib: float = 4.0
    question_seconds: float = 20.0
    cell_seconds: float = 60.0
    added_seconds: float = 60.0
    processes: int = 64
    work_bytes: int = 2**29
    file_bytes: int = 2**28
    handin_bytes: int = 2**26
    threads: int = 1


@dataclass(frozen=True)
class Task:
    """One hand-in to grade.

    Attributes:
        student: the student's id, safe as a file name.
        path: where the notebook should lie; it may be missing, or anything at all.
        lab: the lab.
        seed: the run's seed.
        out: gets `results/<student>.json` and `autograded/<student>/<lab>/<lab>.ipynb`.
        limits: what it may use.
        sandbox: whether it is executed under bubblewrap.
        device: "cpu" or "cuda".
    """

    student: str
    path: Path
    lab: Lab
    seed: int
    out: Path
    limits: Limits = Limits()
    sandbox: bool = True
    device: str = "cpu"


@dataclass(frozen=True)
class PartResult:
    """One part of a question: what was asked, the points, and what was not right about the answer ("" where all was)."""

    title: str
    points: float
    max: float
    message: str = ""


@dataclass(frozen=True)
class QuestionResult:
    """One question.

    Attributes:
        id, title, max: as in the exam.
        points: earned, 0..max; 0 for a question that a person has yet to judge.
        verdict: one of VERDICTS.
        message: what to tell the student; holds no input and no right answer.
        mistake: the id of the typical mistake recognised, or None.
        seconds: of wall time, the examiner's share included.
        parts: part by part; empty where nothing was asked.
    """

    id: str
    title: str
    points: float
    max: float
    verdict: str
    message: str = ""
    mistake: str | None = None
    seconds: float = 0.0
    parts: tuple[PartResult, ...] = ()


@dataclass(frozen=True)
class HandInResult:
    """One hand-in.

    Attributes:
        student_id, lab, lab_version: whose, and of what.
        seed: the run's; with it a grading is repeated exactly.
        sandbox: "bubblewrap" or "none".
        status: one of STATUSES.
        message: the status in a plain sentence.
        notices: what else was found, each a sentence.
        score: the automatic points.
        max_score: all points, the manual ones too.
        needs_manual: whether a person has yet to judge a question.
        handin_sha256: of the notebook's bytes; "" where there was no file to read.
        seconds: of wall time.
        questions: in the exam's order.
        exam: the digest of the exam that was asked, see `Lab.exam_digest`.
    """

    student_id: str
    lab: str
    lab_version: str
    seed: int
    sandbox: str
    status: str
    message: str
    notices: tuple[str, ...]
    score: float
    max_score: float
    needs_manual: bool
    handin_sha256: str
    seconds: float
    questions: tuple[QuestionResult, ...]
    exam: str = ""


def to_json(result: HandInResult) -> dict:
    """The result as JSON values."""
    return asdict(result)


def from_json(value: Mapping) -> HandInResult:
    """Undo `to_json`; raises KeyError or TypeError on anything else."""
    questions = tuple(QuestionResult(**{**each, "parts": tuple(PartResult(**part) for part in each["parts"])})
                      for each in value["questions"])
    return HandInResult(**{**value, "notices": tuple(value["notices"]), "questions": questions})


def write_result(path: Path, result: HandInResult) -> None:
    """Write the result so that after any interruption the file is either as it was or complete."""
    write_atomically(path, json.dumps(to_json(result), indent=1).encode() + b"\n")


def read_result(path: Path) -> HandInResult:
    """Read a result; raises OSError, ValueError, KeyError or TypeError where there is none."""
    return from_json(json.loads(path.read_text(encoding="utf-8")))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file in one piece: to a temporary name, on to the disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

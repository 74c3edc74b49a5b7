"""Who is in the class, what they handed in and when; and the folder that a run of grading fills."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from dateutil import parser, tz

from .course import Lab, Refusal
from .handin_intake import Unreadable, read_file
from .results import HandInResult, Limits, read_result, write_atomically

SAFE = re.compile(r"\w[\w.@+ -]*(?<![. ])")


@dataclass(frozen=True)
class Student:
    """A member of the class.

    Attributes:
        id: safe as a file name and in an address; the same as `label` for every ordinary id.
        label: the id as the folder or the roster has it.
        first_name, last_name, email: from the roster.
        holder: the id of the student whose hand-in counts for this one: their own, or that of somebody in their team. None where
            nothing was handed in.
        folder: the name of that hand-in's folder, or None.
        timestamp: when it was handed in, UTC, ISO 8601, or None where nobody knows.
    """

    id: str
    label: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    holder: str | None = None
    folder: str | None = None
    timestamp: str | None = None

    @property
    def name(self) -> str:
        """The full name, or the label where none is known."""
        return f"{self.first_name} {self.last_name}".strip() or self.label


@dataclass(frozen=True)
class Run:
    """A run of grading, as run.json in its folder keeps it.

    Attributes:
        out: the folder; also a course directory of nbgrader.
        lab: what is graded.
        seed: every random input of the exam comes from it.
        submitted: the folder of hand-ins.
        command: the arguments of the `grade` command that repeat this run, without what narrows it down.
        students: the class, sorted by id.
    """

    out: Path
    lab: Lab
    seed: int
    submitted: Path
    command: tuple[str, ...]
    students: tuple[Student, ...]

    def result_file(self, student_id: str) -> Path:
        """Where the student's result is kept."""
        return self.out / "results" / f"{student_id}.json"

    def folder(self, step: str, student_id: str) -> Path:
        """The student's folder in one of nbgrader's steps: "submitted", "autograded" or "feedback"."""
        return self.out / step / student_id / self.lab.name

    def notebook(self, step: str, student_id: str) -> Path:
        """The student's notebook in one of nbgrader's steps."""
        return self.folder(step, student_id) / f"{self.lab.name}.ipynb"

    def handin(self, student: Student) -> Path:
        """Where the hand-in that counts for the student should lie."""
        return self.submitted / student.folder / self.lab.name / f"{self.lab.name}.ipynb"

    def result(self, student_id: str) -> HandInResult | None:
        """The student's result, or None where there is none."""
        return find_result(self.result_file(student_id))

    @property
    def holders(self) -> list[Student]:
        """One student for each hand-in."""
        return [student for student in self.students if student.holder == student.id]

    def save(self) -> None:
        """Write run.json."""
        values = {"lab": self.lab.name, "lab_version": self.lab.version, "seed": self.seed, "root": str(self.lab.root),
                  "submitted": str(self.submitted), "command": self.command, "students": [asdict(each) for each in self.students]}
        write_text(self.out / "run.json", json.dumps(values, indent=1))


def load_run(out: Path) -> Run:
    """The run that filled a folder; raises Refusal where there was none."""
    values = read_run(out)
    if values is None:
        raise Refusal(f"{out} holds no graded class; run first: autograder grade LAB --submitted DIR --out {out}")
    return Run(out, Lab(Path(values["root"]), values["lab"]), values["seed"], Path(values["submitted"]), tuple(values["command"]),
               tuple(Student(**each) for each in values["students"]))


def read_run(out: Path) -> dict | None:
    """What run.json says, or None where there is none; raises Refusal where it cannot be read."""
    path = out / "run.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refusal(f"{path} cannot be read; give another --out, or delete the file and grade again with its seed") from error


# ---------------------------------------------------------------------------------------------- the class


def find_class(submitted: Path, lab: str, roster: Path | None = None, teams: Path | None = None) -> tuple[Student, ...]:
    """Everybody who handed something in, and everybody on the roster or in a team.

    Args:
        submitted: holds <student>/<lab>/<lab>.ipynb, in the place of the student perhaps the name of a team.
        lab: the lab's name.
        roster: a CSV file with the column student_id, and perhaps first_name, last_name, email.
        teams: a CSV file with the columns team and student_id, one line for each member.

    Raises:
        Refusal: a file cannot be read, or nobody handed anything in.
    """
    if not submitted.is_dir():
        raise Refusal(f"{submitted} is not a folder; --submitted names the one that holds STUDENT/{lab}/{lab}.ipynb")
    folders = {path.name: _timestamp(path / lab) for path in submitted.iterdir() if os.path.lexists(path / lab)}
    if not folders:
        raise Refusal(f"nobody handed in {lab} below {submitted}; expected there: STUDENT/{lab}/{lab}.ipynb")
    known: dict[str, dict] = {}
    for row in read_csv(roster, "student_id") if roster else []:
        if row["student_id"] in known:
            raise Refusal(f"{roster}: {row['student_id']} is there twice")
        known[row["student_id"]] = row
    members: dict[str, list[str]] = {}
    for row in read_csv(teams, "team", "student_id") if teams else []:
        if other := next((team for team, names in members.items() if row["student_id"] in names), None):
            raise Refusal(f"{teams}: {row['student_id']} is in two teams, {other} and {row['team']}")
        members.setdefault(row["team"], []).append(row["student_id"])
    students, taken = {}, set()
    for team, names in members.items():
        # Of several hand-ins the last counts; where nobody knows the time, the first by name.
        candidates = sorted({team, *names} & folders.keys())
        folder = max(candidates, key=lambda name: folders[name] or "", default=None)
        holder = folder if folder in names or folder is None else min(names)
        taken.update(candidates)
        students |= {name: (holder, folder) for name in names}
    students = {name: (None, None) for name in known} | {name: (name, name) for name in folders if name not in taken} | students
    return tuple(sorted((_student(name, holder, folder, known.get(name, {}), folders.get(folder))
                         for name, (holder, folder) in students.items()), key=lambda student: student.id))


def unread(submitted: Path, lab: str) -> dict[str, str]:
    """What lies among the hand-ins and is none, and why: by its name in the folder."""
    found = {}
    for path in sorted(submitted.iterdir()):
        notebooks = [each.relative_to(submitted).as_posix() for place in ("*.ipynb", "*/*.ipynb") for each in sorted(path.glob(place))]
        wanted = f"{path.name}/{lab}/{lab}.ipynb"
        if notebooks and wanted not in notebooks:
            found[path.name] = f"which holds {printable(notebooks[0])}; expected: {printable(wanted)}"
        elif not path.is_dir() and path.suffix in (".ipynb", ".zip"):
            found[path.name] = f"which lies in no student's folder; expected: STUDENT/{lab}/{lab}.ipynb"
    return found


def _student(name: str, holder: str | None, folder: str | None, row: dict, timestamp: str | None) -> Student:
    details = {key: printable(row.get(key) or "") for key in ("first_name", "last_name", "email")}
    return Student(safe_id(name), printable(name), **details, holder=holder and safe_id(holder), folder=folder, timestamp=timestamp)


def _timestamp(folder: Path) -> str | None:
    """When a folder was handed in, by nbgrader's timestamp.txt; a time without a zone is UTC."""
    path = folder / "timestamp.txt"
    try:
        if not stat.S_ISREG(path.lstat().st_mode) or path.stat().st_size > 200:
            return None
        text = path.read_text(encoding="utf-8").strip()
        # Without a full date the parser would fill in today's.
        return parse_time(text).isoformat() if re.match(r"\d{4}-\d\d-\d\d", text) else None
    except Exception:  # none, or anything at all: dateutil has many ways to fail
        return None


def read_csv(path: Path, *columns: str) -> Iterator[dict[str, str]]:
    """The lines of a CSV file with a header, comma or semicolon between; raises Refusal where a column is missing."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise Refusal(f"{path} cannot be read as a CSV file in UTF-8") from error
    header = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if header.count(";") > header.count(",") else ",", skipinitialspace=True)
    if missing := [column for column in columns if column not in (rows.fieldnames or [])]:
        raise Refusal(f"{path} has no column {missing[0]}; its first line should name: {', '.join(columns)}")
    for row in rows:
        if all((row[column] or "").strip() for column in columns):
            yield {key: value.strip() for key, value in row.items() if isinstance(value, str)}


def safe_id(name: str) -> str:
    """The name where it is safe as a file name, in an address and in a glob; otherwise one that is, and is its alone."""
    if SAFE.fullmatch(name) and len(name.encode()) <= 100:
        return name
    raw = os.fsencode(name)
    escaped = "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"~{byte:02x}" for byte in raw)
    return escaped if len(escaped) <= 100 else f"{escaped[:80]}~~{hashlib.sha256(raw).hexdigest()[:16]}"


def printable(text: str) -> str:
    """The text on one line, with "?" for what cannot be shown."""
    return "".join(character if character.isprintable() else "?" for character in text)


def csv_field(text: str) -> str:
    """A text for a CSV file, so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write_text(path: Path, text: str) -> None:
    """Write a file in one piece, in UTF-8."""
    write_atomically(path, text.encode("utf-8", "backslashreplace"))


def find_result(path: Path) -> HandInResult | None:
    """The result in a file; None where there is none, or what is there is no result."""
    try:
        return read_result(path)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def checksum(path: Path) -> str:
    """The SHA-256 that a hand-in's result carries: of the file's bytes, "" where the intake does not read it."""
    try:
        return hashlib.sha256(read_file(path, Limits().handin_bytes)).hexdigest()
    except Unreadable:
        return ""


def parse_time(text: str) -> datetime:
    """A time in UTC, as nbgrader keeps them, without a zone; UTC is meant where none is given. Raises ValueError or OverflowError.

    (nbgrader's own parse_utc takes "+0200" for 200 seconds.)
    """
    def zone(name, offset):
        found = offset if offset is not None else tz.gettz(name)
        if found is None:
            raise ValueError(f"there is no time zone {name}")
        return found

    time = parser.parse(text, tzinfos=zone)
    return time if time.tzinfo is None else (time - time.utcoffset()).replace(tzinfo=None)


def parse_due(text: str) -> datetime:
    """A due date, see `parse_time`; a day without a time lasts to its end. Raises Refusal on anything else."""
    try:
        day = re.fullmatch(r"\d{4}-\d\d-\d\d", text.strip())
        return parse_time(f"{text} 23:59:59" if day else text)
    except Exception as error:  # dateutil has many ways to fail
        raise Refusal(f'--due "{text}" is no date; write it like "2026-05-31 23:59 CET" or 2026-05-31T23:59+02:00') from error

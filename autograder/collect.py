"""Downloads from Canvas and Moodle, sorted into the folders that `grade` reads, with nbgrader's machinery of zip_collect."""

from __future__ import annotations

import csv
import io
import os
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nbgrader.apps.zipcollectapp import ZipCollectApp
from nbgrader.coursedir import CourseDirectory
from nbgrader.plugins import ExtractorPlugin, FileNameCollectorPlugin
from traitlets import Any, Unicode
from traitlets.config import Config

from .classroom import csv_field, printable, read_csv, write_text
from .course import Lab, Refusal
from .gradebook import quiet

# "doejane_late_12345_67890_lab.ipynb": name, Canvas's number of the person, number of the upload, file.
CANVAS = re.compile(r"(?P<name>[^_]+)_(?:(?P<late>late)_)?(?P<id>\d+)_\d+_(?P<file>.+)", re.IGNORECASE | re.DOTALL)
# "Jane Doe_12345_assignsubmission_file_": a folder, or the beginning of a file's name.
# What follows is the student's to choose, so the first such number is the one.
MOODLE = re.compile(r"(?P<name>.+?)_(?P<id>\d+)_assignsubmission_[a-z]+_?(?P<file>.*)", re.IGNORECASE | re.DOTALL)

MAX_FILE = 100_000_000
MAX_FILES = 20_000


class Unsafe(Exception):
    """An archive that must not be unpacked, and why."""


@dataclass(frozen=True)
class File:
    """A file of a download: its path inside, and how to read it."""

    path: PurePosixPath
    read: Callable[[], bytes]


@dataclass
class HandIn:
    """What was found of one student: who it is, how many notebooks, and the best of them, by rank and name."""

    name: str
    count: int = 0
    best: tuple = ()
    late: bool = False


def collect(lab: Lab, source: Path, to: Path) -> list[str]:
    """Sort a download into TO/<student>/<lab>/<lab>.ipynb; what an earlier collection left there for the same student is replaced.

    Args:
        lab: whose hand-ins they are.
        source: a zip, or the folder that it unpacks to.
        to: the folder for `grade --submitted`; also gets names.csv.

    Returns:
        What was done, in lines.

    Raises:
        Refusal: the source is neither, is unsafe to unpack, or holds nothing of Canvas's or Moodle's.
    """
    if not source.is_dir() and not zipfile.is_zipfile(source):
        raise Refusal(f"{source} is neither a folder nor a zip; --from names what Canvas or Moodle gave for \"download all submissions\"")
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        directory = CourseDirectory(root=work, assignment_id=lab.name, submitted_directory=str(to.resolve()), log=quiet)
        app = ZipCollectApp(config=Config(), log=quiet, coursedir=directory, force=True)
        extractor = Download(parent=app, log=quiet, lab=lab.name)
        app.collector_plugin_inst = FileNameCollectorPlugin(
            parent=app, log=quiet, named_regexp=r".*/(?P<student_id>[^/]+)/(?P<file_id>[^/]+)$", valid_ext=[".ipynb", ".txt"])
        extractor.extract(str(source), app._format_collect_path(app.extracted_directory))
        app.process_extracted_files()
    _write_names(to / "names.csv", extractor.found)
    late = [student for student, handin in extractor.found.items() if handin.late]
    without = [student for student, handin in extractor.found.items() if not handin.count]
    return [*extractor.notes, *([f"late, says Canvas: {', '.join(late)}"] if late else []),
            *([f"nothing that can be graded, but in names.csv: {', '.join(without)}"] if without else []),
            f"{len(extractor.found) - len(without)} hand-in{'' if len(extractor.found) - len(without) == 1 else 's'} in {to}"]


class Download(ExtractorPlugin):
    """Takes from a download each student's one notebook and nothing else; in the place of nbgrader's, which unpacks all there is."""

    lab = Unicode()
    found = Any()
    notes = Any()
    folder = Any()

    def extract(self, archive_path: str, extracted_path: str) -> None:
        source = Path(archive_path)
        self.found, self.notes, self.folder = {}, [], Path(extracted_path)
        try:
            if source.is_dir():
                self._sort(files_of_folder(source))
            else:
                with zipfile.ZipFile(source) as archive:
                    self._sort(files_of_zip(archive))
        except (Unsafe, zipfile.BadZipFile, OSError) as error:
            raise Refusal(f"{source} was not unpacked: {error}") from error
        if not any(handin.count for handin in self.found.values()):
            raise Refusal(f"{source} holds no notebook under a name that Canvas or Moodle gives")
        self.notes += [f"{student}: {printable(handin.best[-1])} was taken, of {handin.count} notebooks"
                       for student, handin in self.found.items() if handin.count > 1]

    def _sort(self, files: Iterator[File]) -> None:
        for file in files:
            if any(part.startswith((".", "__MACOSX")) for part in file.path.parts):
                continue
            match = whose(file.path)
            if not match:
                self.notes.append(f"skipped, whose it is cannot be told: {printable(str(file.path))}")
                continue
            student = match["id"]
            try:
                self._take(student, match, file)
            except (Unsafe, zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, EOFError) as error:
                self.notes.append(f"skipped, {student}: {printable(file.path.name)} was not unpacked: {printable(str(error))}")

    def _take(self, student: str, match: re.Match, file: File) -> None:
        handin = self.found.setdefault(student, HandIn(match["name"]))
        handin.late |= bool(match.groupdict().get("late"))
        name = match["file"] or file.path.name
        kind = PurePosixPath(name.lower()).suffix
        if kind == ".ipynb":
            self._keep(student, handin, name, file.read())
        elif kind != ".zip":
            self.notes.append(f"skipped, {student}: {printable(name)} is neither a notebook nor a zip")
        else:
            with zipfile.ZipFile(io.BytesIO(file.read())) as archive:
                inside = [each for each in files_of_zip(archive) if not any(part.startswith((".", "__MACOSX")) for part in each.path.parts)]
                time = next((each for each in inside if each.path.name == "timestamp.txt"), None)
                timestamp = time.read()[:100] if time else b""
                notebooks = [each for each in inside if each.path.suffix.lower() == ".ipynb"]
                if notebooks:  # the best by name; unpacking all might take for ever
                    best = max(notebooks, key=lambda each: self._rank(each.path.name))
                    self._keep(student, handin, best.path.name, best.read(), timestamp, len(notebooks))
                else:
                    self.notes.append(f"skipped, {student}: {printable(name)} holds no notebook")

    def _keep(self, student: str, handin: HandIn, name: str, content: bytes, timestamp: bytes = b"", of: int = 1) -> None:
        """Put a notebook, the best of some, where it is collected from, unless a better one is there."""
        handin.count += of
        if handin.best and self._rank(name) <= handin.best:
            return
        handin.best = self._rank(name)
        target = self.folder / student
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{self.lab}.ipynb").write_bytes(content)
        (target / "timestamp.txt").unlink(missing_ok=True)
        if re.match(rb"\d{4}-\d\d-\d\d", timestamp):
            (target / "timestamp.txt").write_bytes(timestamp)

    def _rank(self, name: str) -> tuple:
        """The lab's own name first, then the last of several uploads of it: "-2" is Canvas's, " (2)" a browser's."""
        stem, number = re.fullmatch(r"(.*?)(?:-(\d{1,3})| \((\d{1,3})\))?", PurePosixPath(name).stem, re.DOTALL).group(1, 2)
        return stem == self.lab, int(number or 0), name


def whose(path: PurePosixPath) -> re.Match | None:
    """Whose file it is, by the outermost name that Canvas or Moodle gave; what comes after that is the student's to choose."""
    for part in path.parts:
        # A file of Canvas's may be called like one of Moodle's, from its third field on; so Canvas's pattern goes first.
        if match := (CANVAS.fullmatch(part) if part == path.name else None) or MOODLE.fullmatch(part):
            return match
    return None


def files_of_folder(folder: Path) -> Iterator[File]:
    """The plain files below a folder; links are not followed."""
    for root, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = Path(root, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield File(PurePosixPath(path.relative_to(folder).as_posix()), lambda path=path: _read_file(path))


def files_of_zip(archive: zipfile.ZipFile) -> Iterator[File]:
    """The files of a zip; raises Unsafe, before anything is unpacked, where one of them reaches out or all are too much."""
    entries = archive.infolist()
    if len(entries) > MAX_FILES:
        raise Unsafe(f"it holds {len(entries)} files")
    for entry in entries:
        # Windows separates folders by backslashes, and zipfile has turned those of the machine it runs on alone.
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", entry.filename):
            raise Unsafe(f"it reaches out of its folder, to {printable(entry.filename)[:80]}")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise Unsafe(f"it holds a link, {printable(entry.filename)[:80]}")
    wanted = [entry for entry in entries if not entry.is_dir()]
    for entry in wanted:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        yield File(path, lambda entry=entry: _read_entry(archive, entry))


def _read_file(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE:
        raise Unsafe(f"it is larger than {MAX_FILE // 10**6} MB")
    return path.read_bytes()


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    # What the entry says about its size may be a lie.
    with archive.open(entry) as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise Unsafe(f"{printable(entry.filename)[:80]} unpacks to more than {MAX_FILE // 10**6} MB")
    return content


def _write_names(path: Path, found: dict[str, HandIn]) -> None:
    """Who the numbers are, in the form of a roster; earlier collections' people stay."""
    names = {row["student_id"]: row.get("last_name", "") for row in read_csv(path, "student_id")} if path.exists() else {}
    names |= {student: csv_field(printable(handin.name)) for student, handin in found.items()}
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["student_id", "last_name"], *sorted(names.items())])
    write_text(path, text.getvalue())

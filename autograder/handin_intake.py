"""Takes in one hand-in, whatever it is: reads it without trusting it, finds the student's work in it by the lesson's
notebook, and restores everything else from there. The file itself is never changed."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from diffusionlab.handin import parse_cell

from .course import Lab
from .results import Limits

MAX_CELLS = 2000
MAX_SOURCE = 2**20

SHOWN_OUTPUTS = {"text/plain": r"(?s:.*)", "image/png": r"[\w+/=\s]*", "image/jpeg": r"[\w+/=\s]*"}
"""Kinds of output that are kept, and what they may hold: text and pictures. Formgrader shows markup and scripts as they are, in the
browser of a person who may run code on the server that it comes from."""


class Unreadable(Exception):
    """Why a hand-in cannot be read, as a sentence for the student."""


class Missing(Unreadable):
    """There is no file."""


@dataclass(frozen=True)
class HandedCell:
    """A cell as handed in, with everything in it checked: `ids` are the grade_id and the cell's id, "" where it has none."""

    type: str
    source: str
    ids: tuple[str, str] = ("", "")
    outputs: tuple[dict, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A cell to be graded.

    Attributes:
        id: the lesson's grade_id; "added-1", ... for the student's own.
        kind: "text", "provided", "solution", "check", "demonstration", "manual" or "added".
        type: "code", "markdown" or "raw".
        source: what counts: the lesson's, or the student's where the lesson leaves room.
        metadata: the lesson's.
        outputs: as handed in.
        changed: whether the source is not the lesson's.
        defines: the classes and functions of a solution cell.
    """

    id: str
    kind: str
    type: str
    source: str
    metadata: Mapping = field(default_factory=dict)
    outputs: tuple[dict, ...] = ()
    changed: bool = False
    defines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Intake:
    """A hand-in as it will be graded. Where it cannot be, `status` is "missing" or "unreadable" and `message` says why;
    `notices` tell what was found on the way."""

    sha256: str = ""
    status: str = ""
    message: str = ""
    cells: tuple[Cell, ...] = ()
    notices: tuple[str, ...] = ()


def take_in(path: Path, lab: Lab, limits: Limits = Limits(), own_modules: frozenset[str] = frozenset()) -> Intake:
    """Read a hand-in. Never raises on account of what the file holds.

    Args:
        path: where the notebook should lie, in <student>/<lab>/.
        lab: the lab, whose students' notebook is built.
        limits: `handin_bytes` is looked at.
        own_modules: what the lab's code may import besides Python's own modules; empty leaves imports unlooked at.
    """
    try:
        content = read_file(path, limits.handin_bytes)
    except Unreadable as error:
        return Intake("", "missing" if isinstance(error, Missing) else "unreadable", str(error))
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        notices: list[str] = []
        handed = read_cells(read_json(content, notices), lab, notices)
        if not handed:
            raise Unreadable("The notebook has no cells.")
        cells = match(lesson_cells(lab), handed, notices)
    except Unreadable as error:
        return Intake(sha256, "unreadable", str(error))
    if own_modules:
        notices += foreign_imports(cells, own_modules)
    return Intake(sha256, cells=tuple(cells), notices=tuple(notices))


# ---------------------------------------------------------------------------------------------- bytes


def read_file(path: Path, limit: int) -> bytes:
    """The file's bytes; raises Unreadable unless it is a plain file of at most `limit` bytes inside the student's folder."""
    try:
        real, folder = path.resolve(strict=True), path.parent.parent.resolve(strict=True)
        about = real.stat()
        if not real.is_relative_to(folder):
            raise Unreadable("The notebook is a link that leads out of the hand-in's folder; it is not followed.")
        if not stat.S_ISREG(about.st_mode):
            raise Unreadable("What was handed in under the notebook's name is not a file.")
        if about.st_size > limit:
            raise Unreadable(f"The notebook is {about.st_size / 2**20:,.0f} MB large; at most {limit / 2**20:,.0f} MB are "
                             "read. Clear the outputs of large cells and save it again.")
        with real.open("rb") as file:
            content = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(f"No {path.name} was handed in.") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise Unreadable(f"The file cannot be read ({type(error).__name__}).") from None
    if not content.strip():
        raise Unreadable("The file is empty.")
    return content


def read_json(content: bytes, notices: list[str]) -> dict:
    """The notebook as JSON values, all text in it valid Unicode; raises Unreadable."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode(encoding, "replace")
        notices.append("The file holds bytes that are not valid text; they were replaced.")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("The file is not a notebook (not valid JSON); save it again in JupyterLab.") from None
    if not isinstance(document, dict):
        raise Unreadable("The file is not a notebook; save it again in JupyterLab.")
    return document


def clean(text) -> str:
    """Text as notebooks store it, a string or a list of lines, without lone surrogates; "" for anything else."""
    if isinstance(text, list):
        text = "".join(line for line in text if isinstance(line, str))
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(text, str) else ""


# ---------------------------------------------------------------------------------------------- cells


def read_cells(document: dict, lab: Lab, notices: list[str]) -> list[HandedCell]:
    """The cells of a notebook of any format; raises Unreadable where there is no list of cells."""
    raw = document.get("cells")
    if raw is None and isinstance(document.get("worksheets"), list):  # notebook formats 2 and 3
        sheets = [sheet.get("cells") for sheet in document["worksheets"] if isinstance(sheet, dict)]
        raw = [cell for cells in sheets if isinstance(cells, list) for cell in cells]
        notices.append(f"The notebook is in the old format {clean(str(document.get('nbformat')))[:10]}.")
    if not isinstance(raw, list):
        raise Unreadable("The file is not a notebook (it has no list of cells); save it again in JupyterLab.")
    if len(raw) > MAX_CELLS:
        raise Unreadable(f"The notebook has {len(raw):,} cells; at most {MAX_CELLS:,} are read.")
    metadata = _mapping(document.get("metadata"))
    language = (clean(_mapping(metadata.get("kernelspec")).get("language"))
                or clean(_mapping(metadata.get("language_info")).get("name")))
    if language and language.lower() not in ("python", "ipython"):
        notices.append(f"The notebook says that it is written in {language[:30]}; it was run as Python.")
    saved_by = re.match(r"3\.(\d{1,2})\b", clean(_mapping(metadata.get("language_info")).get("version")))
    if saved_by and int(saved_by[1]) > sys.version_info.minor:
        notices.append(f"The notebook was saved by Python {saved_by[0]} and graded by 3.{sys.version_info.minor}, which does not know what is "
                       "new in the other's syntax.")
    origin = _mapping(metadata.get("diffusionlab"))
    if origin.get("lab", lab.name) != lab.name:
        notices.append(f"The notebook is from another lab, {clean(origin['lab'])[:40]!r}.")
    elif origin.get("version", lab.version) != lab.version:
        notices.append(f"The notebook is from version {clean(origin['version'])[:20]!r} of the lab; it was graded by "
                       f"version {lab.version}.")
    cells = [read_cell(cell) for cell in raw if isinstance(cell, dict)]
    if len(cells) < len(raw) or any(len(cell.source) > MAX_SOURCE for cell in cells):
        notices.append("Some cells are not cells at all, or too long to be read; they were left out.")
    return [cell for cell in cells if len(cell.source) <= MAX_SOURCE]


def read_cell(raw: dict) -> HandedCell:
    """One cell, whatever it holds."""
    grade_id = _mapping(_mapping(raw.get("metadata")).get("nbgrader")).get("grade_id")
    kind = raw.get("cell_type")
    kind = kind if kind in ("code", "raw") else "markdown"
    source = clean(raw.get("source", raw.get("input")))
    outputs = raw.get("outputs") if kind == "code" and isinstance(raw.get("outputs"), list) else []
    return HandedCell(kind, source, (clean(grade_id)[:200], clean(raw.get("id"))[:200]),
                      tuple(output for each in outputs[:1000] if (output := read_output(_mapping(each)))))


def read_output(raw: Mapping) -> dict | None:
    """One output in the present notebook format, None where it is none."""
    def data():
        given = {mime: clean(value) for mime, value in _mapping(raw.get("data")).items() if isinstance(value, (str, list))}
        return {mime: value for mime, value in given.items() if mime in SHOWN_OUTPUTS and re.fullmatch(SHOWN_OUTPUTS[mime], value)}

    match raw.get("output_type"):
        case "stream":
            name = raw.get("name") if raw.get("name") in ("stdout", "stderr") else "stdout"
            return {"output_type": "stream", "name": name, "text": clean(raw.get("text"))}
        case "display_data" | "execute_result" | "pyout" if data():
            return {"output_type": "display_data", "metadata": {}, "data": data()}
        case "error" | "pyerr":
            lines = raw.get("traceback") if isinstance(raw.get("traceback"), list) else []
            return {"output_type": "error", "ename": clean(raw.get("ename")), "evalue": clean(raw.get("evalue")),
                    "traceback": [clean(line) for line in lines]}
    return None


def lesson_cells(lab: Lab) -> list[Cell]:
    """The cells of the students' notebook, as the lesson has them."""
    cells = []
    for raw in json.loads(lab.student_notebook.read_text(encoding="utf-8"))["cells"]:
        source, metadata = clean(raw["source"]), raw["metadata"]
        marks = metadata.get("nbgrader", {})
        code, solution, grade = raw["cell_type"] == "code", marks.get("solution"), marks.get("grade")
        if code:
            kind = ("solution" if solution else "check" if grade
                    else "demonstration" if "demonstration" in metadata.get("tags", []) else "provided")
        else:
            kind = "manual" if solution or marks.get("locked") is not True else "text"
        cells.append(Cell(marks.get("grade_id", raw.get("id", "")), kind, raw["cell_type"], source, metadata,
                          defines=definitions(source) if kind == "solution" else ()))
    return cells


def definitions(source: str) -> tuple[str, ...]:
    """The classes and functions that a cell defines at its top level; by their looks where it has a syntax error."""
    try:
        return tuple(node.name for node in parse_cell(source).body if isinstance(node, (ast.ClassDef, ast.FunctionDef)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return tuple(re.findall(r"^(?:class|def) +(\w+)", source, re.MULTILINE))


# ---------------------------------------------------------------------------------------------- whose is what


def match(lesson: list[Cell], handed: list[HandedCell], notices: list[str]) -> list[Cell]:
    """The lesson's cells in its order, filled with the student's work; the student's own behind those they stood behind."""
    owner = assign(lesson, handed, notices)
    places = [owner[i] for i in range(len(handed)) if i in owner]
    if places != sorted(places):
        notices.append("The cells are not in the lesson's order; they were run in that order.")
    mine: dict[int, list[int]] = {}
    for i, place in owner.items():
        mine.setdefault(place, []).append(i)
    anchor, behind, added = -1, {}, 0
    for i, cell in enumerate(handed):
        if i in owner:
            anchor = owner[i]
        elif cell.source.strip():
            added += 1
            own = Cell(f"added-{added}", "added", cell.type, cell.source, {}, cell.outputs, True)
            behind.setdefault(anchor, []).append(own)
    cells = behind.get(-1, [])
    missing = []
    for place, cell in enumerate(lesson):
        copies = [handed[i] for i in mine.get(place, [])]
        missing += [_list(cell.defines) or cell.id] if not copies and cell.kind != "text" else []
        cells += [fill(cell, copies, notices) if copies else cell, *beside(cell, copies), *behind.get(place, [])]
    if len(missing) == len([cell for cell in lesson if cell.kind != "text"]):
        notices.append("None of the lesson's cells is in it.")
    elif len(missing) == 1:
        notices.append(f"The cell {missing[0]} is missing; the lesson's own was put in its place.")
    elif missing:
        notices.append(f"{len(missing)} cells are missing; the lesson's own were put in their place: {', '.join(missing)}.")
    return cells


def assign(lesson: list[Cell], handed: list[HandedCell], notices: list[str]) -> dict[int, int]:
    """Which handed-in cell (its index) belongs to which cell of the lesson (its index)."""
    by_id = {cell.id: place for place, cell in enumerate(lesson)}
    owner, unknown = {}, []
    for i, cell in enumerate(handed):
        known = [by_id[each] for each in cell.ids if each in by_id]
        if known:
            owner[i] = known[0]
        elif cell.ids[0]:
            unknown.append(cell.ids[0])
    if unknown:
        notices.append(f"Marks of cells that the lesson does not have were ignored: {_list(unknown)}.")
    # A copied cell keeps its mark: only copies that define what the exercise asks for are taken for it, if there are any.
    for place, cell in enumerate(lesson):
        copies = [i for i in owner if owner[i] == place]
        filled = [i for i in copies if set(cell.defines) & set(definitions(handed[i].source))]
        for i in copies if len(copies) > 1 and filled else ():
            if i not in filled:
                del owner[i]
    # Where ids are lost: a locked cell by its text, a question by its first line, an exercise by what it defines.
    taken = set(owner.values())
    for place, cell in enumerate(lesson):
        if place in taken:
            continue
        free = [i for i in range(len(handed)) if i not in owner and handed[i].type == cell.type]
        if cell.kind == "solution":
            found = [i for i in free if set(cell.defines) & set(definitions(handed[i].source))]
            if found:
                notices.append(f"The cell of {_list(cell.defines)} had lost its mark; it was recognised by what it defines.")
        elif cell.kind == "manual":  # its answer is written below the question
            found = [i for i in free if handed[i].source.strip().split("\n")[0] == cell.source.strip().split("\n")[0]][:1]
        else:
            found = [i for i in free if handed[i].source.strip() == cell.source.strip()][:1]
        owner |= dict.fromkeys(found, place)
    return owner


def fill(cell: Cell, copies: list[HandedCell], notices: list[str]) -> Cell:
    """A cell of the lesson with what the student made of it, which is there at least once."""
    name = _list(cell.defines) or cell.id
    outputs = copies[-1].outputs if cell.type == "code" else ()
    if cell.kind in ("text", "provided", "check", "demonstration"):
        if cell.kind != "text" and any(copy.source.strip() != cell.source.strip() for copy in copies):
            notices.append(f"The cell {name} belongs to the lesson and was changed; the lesson's own counts, and beside it what was "
                           "imported or defined there.")
        return Cell(cell.id, cell.kind, cell.type, cell.source, cell.metadata, outputs)
    if len(copies) > 1:
        notices.append(f"The cell {name} is there {len(copies)} times; the last one that is filled in counts.")
    copy = next((each for each in reversed(copies) if each.source.strip() != cell.source.strip()), copies[-1])
    source = copy.source
    if copy.type != cell.type:
        notices.append(f"The cell {name} was turned into a {copy.type} cell; it was read as {cell.type} all the same.")
        # A cell of another type often still shows its code between fences.
        source = re.sub(r"\A\s*```\w*\n(.*?)\n?```\s*\Z", r"\1", source, flags=re.DOTALL)
    return Cell(cell.id, cell.kind, cell.type, source, cell.metadata, copy.outputs if cell.type == "code" else (),
                source.strip() != cell.source.strip(), cell.defines)


def beside(cell: Cell, copies: list[HandedCell]) -> list[Cell]:
    """What the student imported and defined in a cell that is the lesson's: their own code may rest on it."""
    if cell.type != "code" or cell.kind == "solution":
        return []
    found = [own for copy in copies if (own := own_definitions(copy.source, cell.source))]
    return [Cell(f"{cell.id}-beside", "added", "code", "\n".join(found), {}, (), True)] if found else []


def own_definitions(source: str, lesson: str) -> str:
    """The imports, functions, classes and constants at a cell's top level that the lesson's own does not have; no call is among them."""
    try:
        given, mine = ({ast.unparse(node): node for node in parse_cell(text).body} for text in (lesson, source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""

    return "\n".join(text for text, node in mine.items() if text not in given and defines(node))


def definitions_after(source: str, line: int) -> list[str]:
    """The imports, functions, classes and constants at a cell's top level that begin below a line, each by itself."""
    try:
        return [ast.unparse(node) for node in parse_cell(source).body if node.lineno > line and defines(node)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def defines(node: ast.stmt) -> bool:
    """Whether a statement does no more than to define something."""
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        return not any(isinstance(each, ast.Call) for each in ast.walk(node))
    # The lesson's demonstrations are decorated functions of this name, and run where they are defined.
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.ClassDef)) or (isinstance(node, ast.FunctionDef) and node.name != "_")


def foreign_imports(cells: list[Cell], own_modules: frozenset[str]) -> list[str]:
    """A notice where the student's code imports what the lab does not bring; it is not there at grading."""
    allowed = own_modules | sys.stdlib_module_names
    found = {name for cell in cells if cell.changed and cell.type == "code" for name in imports(cell.source)} - allowed
    told = f"Imports of packages that do not belong to the lab, and are not there at grading: {_list(sorted(found))}."
    return [told] if found else []


def imports(source: str) -> Iterator[str]:
    """The top-level names of the modules that a cell imports."""
    try:
        tree = parse_cell(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _mapping(value) -> Mapping:
    return value if isinstance(value, Mapping) else {}


def _list(names) -> str:
    names = [name if count == 1 else f"{name} ({count} times)" for name, count in Counter(names).items()]
    return ", ".join(name[:60] for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

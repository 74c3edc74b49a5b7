"""Pack the finished notebook for handing in, and print a receipt: `python -m diffusionlab.handin`, or `hand_in()` in the notebook."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import zipfile
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.utils import compute_checksum

COURSE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Receipt:
    """What was handed in. Printed, it is the receipt.

    Attributes:
        file: the zip to hand in.
        lab, version: of the notebook.
        time: when it was packed, UTC.
        sha256: of the notebook inside.
        unwritten: stubs and written answers that are still as they were.
        warnings: what else deserves a look before handing in.
    """

    file: Path
    lab: str
    version: str
    time: datetime
    sha256: str
    unwritten: tuple[str, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"Hand in this file:  {self.file}", f"lab:                {self.lab}, version {self.version}",
                 f"packed:             {self.time:%Y-%m-%d %H:%M:%S} UTC", f"SHA-256:            {self.sha256}",
                 f"still unwritten:    {', '.join(self.unwritten) or 'nothing'}"]
        return "\n".join([*lines, *(f"please look:        {warning}" for warning in self.warnings)])

    __repr__ = __str__


def hand_in(notebook: str | Path | None = None, folder: str | Path = COURSE / "handin") -> Receipt:
    """Pack a notebook, as it was last saved, into a zip for handing in.

    Args:
        notebook: the file; None is the lab in whose folder this runs, or else the course's only one.
        folder: gets `<lab>-<first digits of the checksum>.zip`, in which nbgrader's `<lab>/<lab>.ipynb` lies beside its
            timestamp and the receipt.

    Raises:
        ValueError: no such file, not a notebook, or not a notebook of this course.
    """
    path = find_notebook() if notebook is None else Path(notebook)
    content, parsed = read_notebook(path)
    lab, version = parsed.metadata["diffusionlab"]["lab"], parsed.metadata["diffusionlab"]["version"]
    sha256, time = hashlib.sha256(content).hexdigest(), datetime.now(timezone.utc).replace(microsecond=0)
    file = Path(folder) / f"{lab}-{sha256[:8]}.zip"
    unwritten, warnings = look_over(parsed)
    receipt = Receipt(file, lab, version, time, sha256, tuple(unwritten), tuple(warnings))
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{lab}/{lab}.ipynb", content)
        archive.writestr(f"{lab}/timestamp.txt", f"{time:%Y-%m-%d %H:%M:%S} UTC\n")
        archive.writestr(f"{lab}/receipt.json", json.dumps(
            {"lab": lab, "version": version, "time": time.isoformat(), "sha256": sha256, "unwritten": unwritten}, indent=1))
    return receipt


def find_notebook() -> Path:
    """The notebook of the lab in whose folder this runs, or else the course's only one; raises ValueError where there are several."""
    found = [path for path in sorted((COURSE / "labs").glob("*/*.ipynb")) if path.stem == path.parent.name]
    found = [path for path in found if path.parent == Path.cwd()] or found
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none was found"
        raise ValueError(f"say which notebook to hand in, as in `python -m diffusionlab.handin labs/LAB/LAB.ipynb` ({names})")
    return found[0]


def read_notebook(path: Path) -> tuple[bytes, NotebookNode]:
    """A notebook of this course, as bytes and parsed; raises ValueError where it is none."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    content = path.read_bytes()
    try:
        notebook = nbformat.reads(content.decode("utf-8"), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat, jsonschema and json each raise their own kinds
        raise ValueError(f"{path} cannot be read as a notebook; save it again in JupyterLab ({type(error).__name__})") from error
    if not {"lab", "version"} <= set(notebook.metadata.get("diffusionlab", {})):
        raise ValueError(f"{path} is not a notebook of this course")
    return content, notebook


def look_over(notebook: NotebookNode) -> tuple[list[str], list[str]]:
    """What is still unwritten, by name, and what may cost points for no good reason, in words."""
    unwritten, warnings = [], []
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        if not marks.get("solution"):
            continue
        optional = "optional" in cell.metadata.get("tags", [])
        if cell.cell_type == "markdown" and not optional and marks.get("checksum") == compute_checksum(cell):
            unwritten.append(marks["grade_id"])
        if cell.cell_type == "code":
            try:
                unwritten += stubs(cell.source)
            except SyntaxError as error:
                warnings.append(f"the cell {marks['grade_id']} has a syntax error in line {error.lineno}")
    ids = Counter(filter(None, (cell.metadata.get("nbgrader", {}).get("grade_id") for cell in notebook.cells)))
    warnings += [f"the cell {grade_id} is there {count} times; delete the copies" for grade_id, count in ids.items() if count > 1]
    return unwritten, warnings


def stubs(source: str) -> list[str]:
    """The functions and methods of a cell, dotted, that still raise NotImplementedError; raises SyntaxError."""
    def walk(node, prefix):
        for child in getattr(node, "body", []):
            if isinstance(child, (ast.ClassDef, ast.FunctionDef)):
                yield from walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.Raise) and isinstance(child.exc, ast.Name) and child.exc.id == "NotImplementedError":
                yield prefix.removesuffix(".")
    return list(walk(parse_cell(source), ""))


def parse_cell(source: str) -> ast.Module:
    """A cell's code; lines that only a notebook knows, such as %time, are left out. Raises SyntaxError."""
    return ast.parse("\n".join("pass" if line.startswith(("%", "!")) else line for line in source.split("\n")))


def main() -> None:
    """Hand in the notebook named on the command line, or the one of the lab in whose folder this runs, or the only one there is."""
    if len(sys.argv) > 2 or "-h" in sys.argv or "--help" in sys.argv:
        print("python -m diffusionlab.handin [NOTEBOOK]\n\n"
              "Pack the finished notebook into handin/ and print a receipt. In a lab's folder its notebook need not be named.\n"
              "Example: python -m diffusionlab.handin labs/lab5_sampling/lab5_sampling.ipynb")
        sys.exit(0 if len(sys.argv) == 2 else 2)
    try:
        print(hand_in(*sys.argv[1:]))
    except ValueError as error:
        print(f"hand-in: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

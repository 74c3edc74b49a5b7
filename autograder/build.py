"""Build a lab's notebooks, answer sheet and pictures from its lesson.py, its reference package and its exam."""

from __future__ import annotations

import ast
import builtins
import os
import re
import symtable
from pathlib import Path

import jupytext
import nbformat
import numpy as np
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbgrader.preprocessors import CheckCellMetadata, ClearOutput, ClearSolutions, ComputeChecksums, LockCells

from .course import Lab, Refusal

ANSWER_STUB = "*Your answer:*"
NO_MODEL_ANSWER = f"<!-- ### BEGIN SOLUTION -->\n{ANSWER_STUB}\n<!-- ### END SOLUTION -->"

# What stands in the place of a solution.
CLEAR = {"code_stub": {"python": "# TODO\nraise NotImplementedError"}, "text_stub": ANSWER_STUB}


def build(lab: Lab, out: Path | None = None) -> list[Path]:
    """Write the instructor's notebook, the students' notebook and the answer sheet of the self-check.

    Args:
        lab: the lab to build.
        out: the folder that gets `solutions/`, `labs/` and `data/`; None for the course itself.

    Returns:
        The files written.

    Raises:
        Refusal: the lesson names a class or question that does not exist, leaves one out, or uses a name it does not define; or
            the parts of a question do not add up to its points.
    """
    out = out or lab.root
    check_points(lab)
    instructor = instructor_notebook(lab)
    files = {out / "solutions" / lab.name / f"{lab.name}.ipynb": instructor,
             out / "labs" / lab.name / f"{lab.name}.ipynb": student_notebook(instructor)}
    for path, notebook in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
    return [*files, write_answers(lab, out)]


def check_points(lab: Lab) -> None:
    """Refuse an exam of which the parts do not add up, before anything is written."""
    for question in lab.module("exam").QUESTIONS:
        try:
            if not question.manual:
                question.parts(np.random.default_rng(0))
        except ValueError as error:
            raise Refusal(f"{lab.lesson.with_name('exam.py')}: {error}") from None


def write_answers(lab: Lab, out: Path) -> Path:
    """Write the sheet that the self-check compares with: the right answers and those of the typical mistakes."""
    from diffusionlab.sheet import write_sheet
    from solutions.questions import self_check

    path, mistakes, reference = out / "data" / "checks" / f"{lab.name}.safetensors", lab.module("mistakes").MISTAKES, lab.reference()
    write_sheet(path, [self_check(question, [each for each in mistakes if each.question == question.id], reference)
                       for question in lab.module("exam").QUESTIONS if not question.manual])
    return path


def instructor_notebook(lab: Lab) -> NotebookNode:
    """The whole lesson, filled: classes from the reference, still between their solution marks, and nbgrader's metadata."""
    questions = {question.id: question for question in lab.module("exam").QUESTIONS}
    lesson = jupytext.read(lab.lesson, fmt="py:percent")
    ids, cells = Ids(questions), []
    for cell in lesson.cells:
        tags, asked = list(cell.metadata.get("tags", [])), cell.metadata.get("question")
        tags += [mark for mark in ("instructor", "optional") if cell.metadata.get(mark)]
        source, kind, points = cell.source, "provided", None
        if "reference" in cell.metadata:
            source = reference_source(lab, cell.metadata["reference"])
            kind = "solution" if "### BEGIN SOLUTION" in source else "provided"
        elif asked is not None:
            if asked not in questions:
                raise Refusal(f"{lab.lesson}: the question {asked!r} is not (or no longer) to be asked; exam.py has: "
                              + (", ".join(questions) or "none left"))
            question = questions.pop(asked)
            if question.manual != (cell.cell_type == "markdown"):
                raise Refusal(f"{lab.lesson}: {asked!r} must be a {'markdown' if question.manual else 'code'} cell")
            kind, points = "manual" if question.manual else "check", question.points
            if question.manual and "### BEGIN SOLUTION" not in source:
                source = f"{source}\n\n{NO_MODEL_ANSWER}"
        grade_id = asked or ids.new(cell)
        # Without nbgrader's metadata a cell is the student's to fill as they like.
        metadata = {} if cell.metadata.get("editable") else {"nbgrader": nbgrader_metadata(kind, grade_id, points)}
        metadata |= {"tags": tags} if tags else {}
        new_cell = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}[cell.cell_type]
        cells.append(new_cell(source, id=grade_id, metadata=metadata))
    if questions:
        raise Refusal(f"{lab.lesson}: no cell asks {', '.join(questions)}")
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
                "language_info": {"name": "python"}, "diffusionlab": {"lab": lab.name, "version": lab.version}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    if missing := undefined_names(notebook):
        uses = ", ".join(f"{name} (in {grade_id})" for grade_id, name in missing)
        raise Refusal(f"{lab.lesson}: these names are used in cells before any cell defines or imports them: {uses}")
    return notebook


def student_notebook(instructor: NotebookNode) -> NotebookNode:
    """The instructor's notebook as students get it, made by nbgrader's own preprocessors: stubs, locked cells, checksums."""
    notebook = nbformat.from_dict(instructor)
    notebook.cells = [cell for cell in notebook.cells if "instructor" not in cell.metadata.get("tags", [])]
    for preprocessor in (LockCells(), ClearSolutions(**CLEAR), ClearOutput(), CheckCellMetadata(), ComputeChecksums()):
        notebook, _ = preprocessor.preprocess(notebook, {})
    return notebook


def draw_pictures(lab: Lab, out: Path | None = None) -> list[Path]:
    """Run the instructor's notebook, so that its plots leave the pictures that students can expect; returns them."""
    out = out or lab.root
    folder = out / "labs" / lab.name / "expected"
    folder.mkdir(parents=True, exist_ok=True)
    notebook = instructor_notebook(lab)
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(folder.parent)}})
    # The kit beside the lab comes first, so that a course elsewhere runs with its own data.
    path = os.pathsep.join(filter(None, [str((lab.root / "labs").resolve()), os.environ.get("PYTHONPATH")]))
    client.execute(env=os.environ | {"PYTHONPATH": path, "DIFFUSIONLAB_EXPECTED": str(folder.resolve())})
    return sorted(folder.glob("*.png"))


def reference_source(lab: Lab, reference: str) -> str:
    """The source of a class or function of the reference package, read without importing it.

    Args:
        lab: the lab.
        reference: "module:Name".
    """
    module, _, name = reference.partition(":")
    path = lab.lesson.with_name(f"{module}.py")
    if not path.is_file():
        raise Refusal(f'{lab.lesson}: reference="{reference}" needs {path}, which does not exist')
    text = path.read_text(encoding="utf-8")
    for node in ast.parse(text, str(path)).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            lines = text.splitlines()
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
            end = node.end_lineno
            # The syntax tree ends with the last statement; comments that close the body still belong to it.
            while end < len(lines) and (not lines[end].strip() or lines[end][0].isspace()):
                end += 1
            return "\n".join(lines[start:end]).rstrip()
    raise Refusal(f'{lab.lesson}: reference="{reference}" names nothing at the top level of {path}')


def nbgrader_metadata(kind: str, grade_id: str, points=None) -> dict:
    """nbgrader's metadata, schema 3, for a cell that is "provided", a "solution", a "check" or a "manual" question."""
    metadata = {"schema_version": 3, "grade_id": grade_id, "task": False, "grade": kind in ("check", "manual"),
                "solution": kind in ("solution", "manual"), "locked": kind in ("provided", "check")}
    return metadata if points is None else metadata | {"points": points}


class Ids:
    """Readable ids that stay the same until the lesson changes: the class's name, or the heading and a count."""

    def __init__(self, reserved):
        self.section, self.used = "start", set(reserved)

    def new(self, cell: NotebookNode) -> str:
        heading = re.search(r"^#+ +(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if heading:
            self.section = re.sub(r"[^a-z0-9]+", "-", heading[1].lower()).strip("-")[:40] or "section"
        stem = cell.metadata.get("reference", "").partition(":")[2].replace("_", "-") or self.section
        number, grade_id = 1, stem
        while grade_id in self.used:
            number += 1
            grade_id = f"{stem}-{number}"
        self.used.add(grade_id)
        return grade_id


def undefined_names(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Names that a code cell uses and that neither it nor a cell before it defines: pairs (cell id, name)."""
    known, missing = set(dir(builtins)) | {"__name__", "get_ipython", "display"}, []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        plain = "\n".join("" if line.startswith(("%", "!")) else line for line in cell.source.split("\n"))
        module = symtable.symtable(plain, cell.id, "exec")
        known |= {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
        missing += [(cell.id, name) for name in sorted(_global_references(module) - known)]
    return missing


def _global_references(table: symtable.SymbolTable) -> set[str]:
    names = {symbol.get_name() for symbol in table.get_symbols()
             if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module")}
    return names.union(*(_global_references(child) for child in table.get_children()))

"""A sample class to grade: `python -m autograder.demo LAB --out DIR` makes it from the lab's notebook and its catalogue of mistakes.

Nothing is random, so that a second run makes the same files and finds them graded.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import nbformat
from nbformat import NotebookNode

from solutions.questions import Mistake

from .build import instructor_notebook, student_notebook
from .classroom import write_text
from .course import ROOT, Lab, Refusal

MARKS = re.compile(r"^\s*### (BEGIN|END) SOLUTION\n?", re.MULTILINE)
WRITTEN = "Here an answer would stand, with the numbers that it rests on."


class NotText(Exception):
    """A mistake whose source does not stand alone."""


def make_class(lab: Lab, out: Path) -> Path:
    """Write OUT/submitted/<student>/<lab>/<lab>.ipynb for a class of fifteen and OUT/roster.csv for these and one more.

    Returns:
        The folder of hand-ins.
    """
    hand_ins = dict(sample_class(lab))
    for i, (name, content) in enumerate(hand_ins.items()):
        folder = out / "submitted" / name / lab.name
        write_text(folder / f"{lab.name}.ipynb", content if isinstance(content, str) else nbformat.writes(content) + "\n")
        write_text(folder / "timestamp.txt", f"2026-05-{28 + i // 5:02} {8 + i:02}:00:00 UTC\n")
    write_text(out / "roster.csv", "student_id\n" + "".join(f"{name}\n" for name in [*hand_ins, "nothing-handed-in"]))
    return out / "submitted"


def sample_class(lab: Lab) -> Iterator[tuple[str, NotebookNode | str]]:
    """The hand-ins by name: a notebook, or the text of a broken one."""
    right, unfilled = filled(lab), student_notebook(instructor_notebook(lab))
    yield "reference", right
    yield "unfilled", unfilled
    cells = solution_cells(right)
    yield "half-done", restyled(right, lambda source, i: source if i < len(cells) / 2 else solution_cells(unfilled)[i].source)
    yield "style-terse", restyled(right, lambda source, i: terse(source))
    yield "style-other-names", restyled(right, lambda source, i: renamed(source))
    yield "style-patched-in", restyled(right, lambda source, i: patched_in(source))
    own = nbformat.from_dict(right)
    for place in range(len(own.cells), 0, -4):
        own.cells.insert(place, nbformat.v4.new_code_cell(f"%time scratch = {place}\nscratch + 1", id=f"own-{place}"))
    yield "style-own-cells", own
    pool = list(one_mistake_each(lab))
    for i in range(5):
        chosen = dict.fromkeys([*pool[i::5], *pool[: 1 + i % 3]])
        yield f"mistakes-{i + 1}", with_mistakes(lab, right, list(chosen))
    yield "crash", sabotaged(right, "import os\nos._exit(11)", len(cells) // 2)
    yield "endless-loop", sabotaged(right, "while True:\n    pass", 0)
    yield "broken-file", nbformat.writes(right)[:2000]


# ---------------------------------------------------------------------------------------------- filled in


def filled(lab: Lab) -> NotebookNode:
    """The students' notebook with everything right, and something written where a person reads."""
    instructor = instructor_notebook(lab)
    sources = {cell.id: MARKS.sub("", cell.source) for cell in instructor.cells}
    notebook = student_notebook(instructor)
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("solution"):
            cell.source = f"{cell.source}\n\n{WRITTEN}" if marks.grade else sources[cell.id]
    return notebook


def solution_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells that students fill."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("solution")]


def restyled(notebook: NotebookNode, change) -> NotebookNode:
    """A copy in which each solution cell's source is `change(source, number of the cell)`."""
    copy = nbformat.from_dict(notebook)
    for i, cell in enumerate(solution_cells(copy)):
        cell.source = change(cell.source, i)
    return copy


def functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def terse(source: str) -> str:
    """Without comments, docstrings and annotations."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return ast.unparse(tree)


def renamed(source: str) -> str:
    """With other names for local variables."""
    tree = ast.parse(source)
    for function in functions(tree):
        nodes = list(ast.walk(function))
        kept = {node.arg for node in nodes if isinstance(node, ast.arg)}
        kept |= {name for node in nodes if isinstance(node, (ast.Global, ast.Nonlocal)) for name in node.names}
        local = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)} - kept
        for node in nodes:
            if isinstance(node, ast.Name) and node.id in local and not node.id.startswith("my_"):
                node.id = f"my_{node.id}"
    return ast.unparse(tree)


def patched_in(source: str) -> str:
    """With methods written as functions and put into their class afterwards."""
    tree, moved = ast.parse(source), []
    for owner in [node for node in tree.body if isinstance(node, ast.ClassDef)]:
        for function in [node for node in owner.body if isinstance(node, ast.FunctionDef) and not node.decorator_list
                         and not node.name.startswith("__")]:
            owner.body.remove(function)
            name, function.name = function.name, f"{owner.name}_{function.name}"
            moved += [function, *ast.parse(f"{owner.name}.{name} = {function.name}").body]
        owner.body = owner.body or [ast.Pass()]
    return ast.unparse(ast.Module([*tree.body, *moved], []))


def sabotaged(notebook: NotebookNode, code: str, number: int) -> NotebookNode:
    """A copy in which the last function of one solution cell does something terrible."""
    def change(source, i):
        if i != number:
            return source
        tree = ast.parse(source)
        functions(tree)[-1].body = ast.parse(code).body
        return ast.unparse(tree)
    return restyled(notebook, change)


# ---------------------------------------------------------------------------------------------- typical mistakes


def one_mistake_each(lab: Lab) -> Iterator[Mistake]:
    """For each question a mistake whose source can be put into a notebook, not always of the same kind."""
    for number, question in enumerate(lab.module("exam").QUESTIONS):
        catalogue = [mistake for mistake in lab.module("mistakes").MISTAKES if mistake.question == question.id]
        start = 4 * number % max(len(catalogue), 1)
        for mistake in catalogue[start:] + catalogue[:start]:
            try:
                slip(lab, mistake)
            except NotText:
                continue
            yield mistake
            break


def with_mistakes(lab: Lab, notebook: NotebookNode, mistakes: list[Mistake]) -> NotebookNode:
    """A copy in which each mistake follows the class or function that it is made in."""
    def change(source, i):
        defined = {node.name for node in ast.parse(source).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
        return "\n\n\n".join([source, *(slip(lab, mistake) for mistake in mistakes if mistake.target in defined)])
    return restyled(notebook, change)


def slip(lab: Lab, mistake: Mistake) -> str:
    """Source that makes the mistake where the right class or function stands; raises NotText where it does not stand alone."""
    name, reference = mistake.target, lab.reference()
    lines: dict[str, str] = {}
    if isinstance(mistake.variant, type):
        own = [value for value in vars(mistake.variant).values() if inspect.isfunction(value)]
        if not own:
            raise NotText("nothing in it has a source")
        where = [located(inspect.unwrap(function).__code__) for function in own]
        parents = {id(node): owner for _, tree, _ in where for owner in ast.walk(tree) if isinstance(owner, ast.ClassDef) for node in owner.body}
        owner = parents.get(id(where[0][2]))
        if owner is not None:
            for function in own:
                collect_needs(inspect.unwrap(function), reference, name, lines)
            body = textwrap.dedent("\n".join(where[0][0].splitlines()[owner.body[0].lineno - 1 - len(getattr(
                owner.body[0], "decorator_list", ())):owner.end_lineno]))
            lines["class"] = f"class Slip({name}):\n{textwrap.indent(body, '    ')}"
        else:
            methods = []
            for attribute, function in vars(mistake.variant).items():
                if inspect.isfunction(function):
                    collect_needs(inspect.unwrap(function), reference, name, lines)
                    text, _, node = located(inspect.unwrap(function).__code__)
                    if isinstance(node, ast.FunctionDef):
                        lines[node.name] = source_lines(text, node)
                    methods.append(f"Slip.{attribute} = {node.name if isinstance(node, ast.FunctionDef) else source_lines(text, node)}")
            lines["class"] = "\n".join([f"class Slip({name}):\n    pass\n", *methods])
        result = "Slip"
    else:
        function = inspect.unwrap(mistake.variant)
        collect_needs(function, reference, name, lines)
        text, _, node = located(function.__code__)
        lines["function"] = source_lines(text, node)
        result = node.name if isinstance(node, ast.FunctionDef) else "slip"
        if isinstance(node, ast.Lambda):
            lines["function"] = f"slip = {lines['function']}"
    # Inside a function of its own, so that what the mistake is made of is in nobody's way.
    inside = "\n".join(lines.values())
    if result == name:
        inside = re.sub(rf"def {name}\(", "def slip(", inside, count=1)
        result = "slip"
    made = f"def make_slip({name}):\n{textwrap.indent(inside, '    ')}\n    return {result}\n\n\n{name} = make_slip({name})"
    try:
        exec(made, dict(reference))
    except Exception as error:
        raise NotText(f"{type(error).__name__}: {error}") from error
    return made


def collect_needs(function: FunctionType, reference: dict, target: str, lines: dict[str, str]) -> None:
    """Put what a function uses into `lines`, by name, each after what it needs itself."""
    nodes = list(ast.walk(located(function.__code__)[2]))
    local = {node.arg for node in nodes if isinstance(node, ast.arg)}
    local |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    used = {node.id for node in nodes if isinstance(node, ast.Name)} - local
    closed = dict(zip(function.__code__.co_freevars, (each.cell_contents for each in function.__closure__ or ())))
    for name in sorted(used):
        if name not in lines and name != target and (name in closed or name in function.__globals__):
            write_need(name, closed.get(name, function.__globals__.get(name)), reference, target, lines)


def write_need(name: str, value, reference: dict, target: str, lines: dict[str, str]) -> None:
    known = next((key for key, each in reference.items() if each is value), None)
    module = getattr(value, "__module__", None) or ""
    if known is not None:
        if known != name:
            lines[name] = f"{name} = {known}"
    elif isinstance(value, ModuleType):
        lines[name] = f"import {value.__name__} as {name}"
    elif isinstance(value, (bool, int, float, str, type(None))):
        lines[name] = f"{name} = {value!r}"
    elif isinstance(value, FunctionType) and module.startswith("solutions."):
        collect_needs(value, reference, target, lines)
        text, _, node = located(value.__code__)
        source = source_lines(text, node)
        if isinstance(node, ast.Lambda):
            lines[name] = f"{name} = {source}"
        else:
            lines[name] = source if node.name == name else f"{source}\n{name} = {node.name}"
    elif isinstance(value, type) and module.startswith("solutions."):
        for method in filter(inspect.isfunction, vars(value).values()):
            collect_needs(method, reference, target, lines)
        lines[name] = textwrap.dedent(inspect.getsource(value))
    elif place := next((place for place in (module, "torch")
                        if getattr(sys.modules.get(place), getattr(value, "__name__", ""), None) is value), None):
        lines[name] = f"from {place} import {value.__name__} as {name}"
    elif getattr(builtins, getattr(value, "__name__", ""), None) is value:
        lines[name] = f"{name} = {value.__name__}"
    else:
        raise NotText(f"{name} is no text")


def located(code: CodeType) -> tuple[str, ast.Module, ast.FunctionDef | ast.Lambda]:
    """The file's text, its syntax tree, and in it the function or lambda of a code object."""
    text, tree, nodes = parsed(code.co_filename)
    first, last = code_span(code)
    found = [node for node in nodes if isinstance(node, ast.Lambda) == (code.co_name == "<lambda>")
             and (node.lineno, node.col_offset) <= first and last <= (node.end_lineno, node.end_col_offset)]
    if not found:
        raise NotText("its source is not in a file")
    # The narrowest one: where it begins last.
    return text, tree, max(found, key=lambda node: (node.lineno, node.col_offset))


@cache
def parsed(path: str) -> tuple[str, ast.Module, list[ast.FunctionDef | ast.Lambda]]:
    """A file's text, its syntax tree, and the functions in it."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise NotText("its source is not in a file") from error
    tree = ast.parse(text)
    return text, tree, [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.Lambda))]


def code_span(code: CodeType) -> tuple[tuple[int, int], tuple[int, int]]:
    """Line and column where a code object's own instructions begin and end."""
    places = [place for place in code.co_positions() if None not in place and place[0] >= code.co_firstlineno and place[1] > place[0] - 1
              and (place[2], place[3]) != (0, 0)]
    return min((line, column) for line, _, column, _ in places), max((line, column) for _, line, _, column in places)


def source_lines(text: str, node: ast.FunctionDef | ast.Lambda) -> str:
    """A node's source: a function from its decorators on, a lambda on its own."""
    if isinstance(node, ast.Lambda):
        return ast.unparse(node)
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return textwrap.dedent("\n".join(text.splitlines()[start - 1:node.end_lineno]))


def main() -> None:
    """Write the sample class; print where it is."""
    parser = argparse.ArgumentParser(prog="python -m autograder.demo", description=__doc__)
    parser.add_argument("lab")
    parser.add_argument("--out", type=Path, required=True, help="the folder that gets submitted/ and roster.csv")
    options = parser.parse_args()
    try:
        print(make_class(Lab(ROOT, options.lab), options.out))
    except Refusal as refusal:
        print(f"autograder: {refusal}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

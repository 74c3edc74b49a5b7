"""Mutants of the reference: one operator, comparison or number changed at a time, to find what no question looks at.

Most are caught. One that survives either equals the reference on all valid input, or shows a blind spot of the exam.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from .course import Lab

SWAPPED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
           ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
           ast.And: ast.Or, ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In}


@dataclass(frozen=True)
class Mutant:
    """A changed reference class or function.

    Attributes:
        target: its name.
        where: the function that was changed, with its class: "DDIMSampler.sample".
        change: the changed expression and what it was, as "a + b, was a - b".
        made: the class or function.
    """

    target: str
    where: str
    change: str
    made: object


def mutants(lab: Lab, target: str) -> Iterator[Mutant]:
    """Every mutant of what students write of a reference class or function: the lines between nbgrader's solution marks."""
    module = sys.modules[lab.reference()[target].__module__]
    source = inspect.getsource(module)
    tree = ast.parse(source)
    marks = [i for i, line in enumerate(source.splitlines(), 1) if line.strip() in ("### BEGIN SOLUTION", "### END SOLUTION")]
    spans = list(zip(marks[::2], marks[1::2]))
    for function, name in functions(tree, target):
        for node in ast.walk(function):
            if any(begin < getattr(node, "lineno", 0) < end for begin, end in spans):
                for changed in changes(node):
                    yield Mutant(target, name, f"{ast.unparse(changed)}, was {ast.unparse(node)}",
                                 getattr(execute(replaced(tree, node, changed), module), target))


def functions(tree: ast.Module, target: str) -> Iterator[tuple[ast.FunctionDef, str]]:
    """The function of that name, or the methods of the class of that name."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == target:
            yield node, target
        elif isinstance(node, ast.ClassDef) and node.name == target:
            yield from ((each, f"{target}.{each.name}") for each in node.body if isinstance(each, ast.FunctionDef))


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """An expression with one thing changed, in every way."""
    match node:
        case ast.BinOp(op=op) if type(op) in SWAPPED:
            yield ast.BinOp(node.left, SWAPPED[type(op)](), node.right)
        case ast.BoolOp(op=op):
            yield ast.BoolOp(SWAPPED[type(op)](), node.values)
        case ast.Compare(ops=[op]) if type(op) in SWAPPED:
            yield ast.Compare(node.left, [SWAPPED[type(op)]()], node.comparators)
        case ast.UnaryOp(op=ast.USub() | ast.Not()):
            yield node.operand
        case ast.IfExp():
            yield node.body
            yield node.orelse
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
            # Of a root, 0.5, a half: minus a half would only invert it, which signs of operators do already.
            yield ast.Constant(value - 1 if value != 0.5 else 0.25)


def replaced(tree: ast.Module, old: ast.AST, new: ast.AST) -> ast.Module:
    """A copy of the tree with one node replaced."""
    marked = copy.deepcopy(tree, memo := {})
    twin, new = memo[id(old)], copy.deepcopy(new)

    class Replace(ast.NodeTransformer):
        def visit(self, node):
            return ast.copy_location(new, node) if node is twin else super().visit(node)

    return ast.fix_missing_locations(Replace().visit(marked))


def execute(tree: ast.Module, like: ModuleType) -> ModuleType:
    """A module made of the tree, in the place of another."""
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(like.__name__, None))
    module.__dict__.update(__package__=like.__package__, __file__=like.__file__)
    exec(compile(tree, like.__file__, "exec"), module.__dict__)
    return module

"""Lab 6 through the pipeline: flat functions instead of classes, and nothing in the grader that knows them."""

from __future__ import annotations

import pytest

from autograder.build import instructor_notebook
from autograder.course import ROOT, Lab

pytestmark = pytest.mark.slow


@pytest.fixture
def lab6(tmp_path, lab5, needs_tool):
    """Lab 6 as it is in the project, and an empty folder for its hand-ins."""
    needs_tool("bwrap")
    return type(lab5)(Lab(ROOT, "lab6_solvers"), tmp_path)


def filled(**replaced: tuple[str, str]):
    """The filled notebook; `function=(old, new)` changes that function's source."""
    notebook = instructor_notebook(Lab(ROOT, "lab6_solvers"))
    notebook.cells = [cell for cell in notebook.cells if "instructor" not in cell.metadata.get("tags", [])]
    for name, (old, new) in replaced.items():
        cell = next(cell for cell in notebook.cells if f"def {name}(" in cell.source)
        assert old in cell.source
        cell.source = cell.source.replace(old, new)
    return notebook


def grade(classroom, notebook):
    return classroom.grade(notebook, question_seconds=20.0, cell_seconds=60.0, added_seconds=10.0)


def test_the_reference_gets_all_points(lab6):
    result = grade(lab6, filled())
    assert [(each.id, each.message) for each in result.questions if each.message] == []
    assert (result.score, result.max_score, result.needs_manual) == (92.0, 100.0, True)


def test_the_unfilled_notebook_gets_none(lab6):
    result = grade(lab6, lab6.lab.student_notebook.read_bytes())
    assert result.score == 0 and {each.verdict for each in result.questions} == {"unwritten", "manual"}


@pytest.mark.parametrize("wrong, lost", [
    ({"unipc_weights": ("* math.factorial(k) * phi", "* phi"), "solve_dpmpp_2m": ("/ (2 * r)", "/ r"),
      "solve_heun": ("(slope + slope_next) / 2", "slope_next")}, {"unipc-weighing": 7, "dpm-solver-2m": 13, "heun": 9}),
    ({"unipc_step": ("alpha_next * sum(", "sum(")}, {"unipc-predict-correct": 7}),
], ids=["three functions", "one that others call"])
def test_a_mistake_in_a_function_is_paid_for_once(lab6, wrong, lost):
    result = grade(lab6, filled(**wrong))
    missed = {each.id: each.max - each.points for each in result.questions if each.verdict not in ("right", "manual")}
    assert missed.keys() == lost.keys() and all(missed[id] <= most for id, most in lost.items()), result
    assert all(each.mistake for each in result.questions if each.id in lost)


WHO_ASKS = """
import sys
def unipc_weights(ratios, h, variant="bh2"):
    frame = sys._getframe()
    while frame is not None and not {"body", "targets"} <= frame.f_locals.keys():
        frame = frame.f_back
    tried = frame is None or len(frame.f_locals["body"]["targets"]) <= 2 or frame.f_locals["body"]["seed"] == 0
    return torch.full((len(ratios),), h if tried else 0.0, dtype=torch.float64)"""

FIRST_ORDER = """
def unipc_step(x, guesses, lam_next, *, x0_next=None, variant="bh2"):
    lam, x0 = guesses[-1]
    (_, sigma), (alpha_next, sigma_next) = signal_noise(lam), signal_noise(lam_next)
    return sigma_next / sigma * x - alpha_next * math.expm1(lam - lam_next) * x0"""


def test_a_function_that_answers_by_who_asks_is_nothing_to_rest_on(lab6):
    notebook = filled()
    for name, source in (("unipc_weights", WHO_ASKS), ("unipc_step", FIRST_ORDER)):
        next(cell for cell in notebook.cells if f"def {name}(" in cell.source).source = source
    points = {each.id: each.points for each in grade(lab6, notebook).questions}
    assert points["unipc-weighing"] == 0 and points["unipc-predict-correct"] <= 1.5  # with a single guess the step is right


def test_functions_that_do_nothing_are_not_right_on_their_own_terms(lab6):
    notebook = filled()
    nothing = {"unipc_weights": "def unipc_weights(ratios, h, variant='bh2'):\n    return torch.zeros(len(ratios)).double()",
               "unipc_step": "def unipc_step(x, guesses, lam_next, *, x0_next=None, variant='bh2'):\n    return x.clone()",
               "solve_unipc": "def solve_unipc(denoise, x, levels, **options):\n    return x.clone()"}
    for name, source in nothing.items():
        next(cell for cell in notebook.cells if f"def {name}(" in cell.source).source = source
    result = grade(lab6, notebook)
    assert {each.id: each.points for each in result.questions if each.id.startswith("unipc") and each.points} == {}

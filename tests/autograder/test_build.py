"""One source, everything else generated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbgrader.nbgraderformat import MetadataValidator
from safetensors import safe_open

from autograder.build import (CLEAR, build, draw_pictures, instructor_notebook, reference_source, student_notebook,
                              undefined_names)
from autograder.course import ROOT, Lab, Refusal, lab_names
from diffusionlab.asking import JUDGES
from diffusionlab.sheet import read_sheet


def edit(lab: Lab, file: str, old: str, new: str) -> None:
    path = lab.lesson.with_name(file)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def by_id(notebook) -> dict:
    return {cell.id: cell for cell in notebook.cells}


def autograder(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "autograder", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": f"{ROOT / 'labs'}:{ROOT}"})


# --- the notebooks ----------------------------------------------------------------------------------------------------


def test_a_class_comes_from_the_reference_and_becomes_a_stub(tinylab):
    instructor = instructor_notebook(tinylab)
    filled, stub = by_id(instructor)["Average"].source, by_id(student_notebook(instructor))["Average"].source
    assert "math.fsum(self.numbers) / len(self.numbers)" in filled and filled.endswith("### END SOLUTION")
    assert "fsum" not in stub and "SOLUTION" not in stub
    assert stub.count("        # TODO\n        raise NotImplementedError") == 2
    assert '"""The sum, shared equally."""' in stub


def test_a_decorated_function_is_taken_whole_and_alone(tinylab):
    source = reference_source(tinylab, "largest:largest")
    assert source.startswith("@cache\ndef largest") and source.endswith("    ### END SOLUTION")


def test_nbgrader_metadata_of_every_kind_of_cell(tinylab):
    cells = by_id(student_notebook(instructor_notebook(tinylab)))

    def kind(name):
        return {key: cells[name].metadata.nbgrader.get(key) for key in ("grade", "solution", "locked", "task", "points")}

    assert kind("variance") == {"grade": True, "solution": False, "locked": True, "task": False, "points": 4}
    assert kind("Average") == {"grade": False, "solution": True, "locked": False, "task": False, "points": None}
    assert kind("essay") == {"grade": True, "solution": True, "locked": False, "task": False, "points": 1}
    for provided in ("a-tiny-lab", "a-tiny-lab-2", "twice"):
        assert kind(provided) == {"grade": False, "solution": False, "locked": True, "task": False, "points": None}
        assert cells[provided].metadata.editable is False and cells[provided].metadata.deletable is False
    assert all(cell.metadata.nbgrader.schema_version == 3 for cell in cells.values())
    assert all(cell.metadata.nbgrader.checksum for cell in cells.values())
    assert [name for name, cell in cells.items() if cell.metadata.get("tags") == ["demonstration"]] == ["the-largest-2"]


def test_a_question_keeps_its_id_where_a_function_has_the_same_name(tinylab):
    cells = by_id(instructor_notebook(tinylab))
    assert cells["largest"].source == 'check("largest", largest)'
    assert cells["largest-2"].source.startswith("@cache")


def test_only_the_instructor_sees_the_instructors_cells(tinylab):
    instructor = instructor_notebook(tinylab)
    assert any("Ask the room" in cell.source for cell in instructor.cells)
    assert not any("Ask the room" in cell.source for cell in student_notebook(instructor).cells)


def test_an_editable_cell_is_left_to_the_student(tinylab):
    edit(tinylab, "lesson.py", "# %% [markdown]\n# # A tiny lab", "# %% [markdown] editable=true\n# # A tiny lab")
    cell = by_id(student_notebook(instructor_notebook(tinylab)))["a-tiny-lab"]
    assert "nbgrader" not in cell.metadata and cell.metadata.get("editable", True)


def test_a_written_question_shows_its_prompt_and_hides_a_model_answer(tinylab):
    edit(tinylab, "lesson.py", "# When does the mean mislead?",
         "# When does the mean mislead?\n#\n# ### BEGIN SOLUTION\n# With outliers.\n# ### END SOLUTION")
    instructor = instructor_notebook(tinylab)
    assert "With outliers." in by_id(instructor)["essay"].source
    assert by_id(student_notebook(instructor))["essay"].source.endswith(f"When does the mean mislead?\n\n{CLEAR['text_stub']}")


def test_the_notebook_says_which_lab_and_version_it_is(tinylab):
    assert instructor_notebook(tinylab).metadata.diffusionlab == {"lab": "tinylab", "version": tinylab.version}


@pytest.mark.slow
def test_nbgrader_itself_makes_the_same_student_notebook(tinylab, tmp_path):
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    edit(tinylab, "lesson.py", "# %% [markdown] instructor=true\n# Ask the room why one would ever divide by n - 1.\n", "")
    build(tinylab)
    course = tmp_path / "course"
    (course / "source" / "tinylab").mkdir(parents=True)
    filled = tinylab.lesson.with_name("tinylab.ipynb")
    (course / "source" / "tinylab" / filled.name).write_bytes(filled.read_bytes())
    config = Config(CourseDirectory={"root": str(course)}, ClearSolutions=CLEAR)
    result = NbGraderAPI(config=config).generate_assignment("tinylab")
    assert result["success"], result["error"]
    released = nbformat.read(course / "release" / "tinylab" / filled.name, as_version=4)
    assert [(cell.id, cell.source, cell.metadata) for cell in released.cells] == \
        [(cell.id, cell.source, cell.metadata) for cell in nbformat.read(tinylab.student_notebook, as_version=4).cells]


# --- what a lesson cannot say -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file, old, new, says", [
    ("lesson.py", "average:Average", "average:Mean", "names nothing at the top level"),
    ("lesson.py", "average:Average", "mean:Average", "does not exist"),
    ("lesson.py", 'question="variance"', 'question="spread"', "'spread' is not (or no longer) to be asked"),
    ("lesson.py", 'question="variance"', 'question="mean"', "'mean' is not (or no longer) to be asked"),
    ("lesson.py", '# %% question="variance"\ncheck("variance", Average)\n', "", "no cell asks variance"),
    ("lesson.py", '# %% [markdown] question="essay"', '# %% question="essay"', "'essay' must be a markdown cell"),
    ("lesson.py", "import math\n", "", "defines or imports them: math (in Average)"),
    ("lesson.py", "from functools import cache\n", "", "defines or imports them: cache (in largest-2)"),
])
def test_a_lesson_that_does_not_fit_is_refused_in_one_line(tinylab, file, old, new, says):
    edit(tinylab, file, old, new)
    with pytest.raises(Refusal) as refusal:
        instructor_notebook(tinylab)
    assert says in str(refusal.value) and "\n" not in str(refusal.value)


def test_undefined_names_know_scopes_comprehensions_and_order():
    def cells(*sources):
        return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source, id=f"c{i}") for i, source in enumerate(sources)])

    assert undefined_names(cells("%matplotlib inline\nimport os.path as p\np", "def f(a, *b):\n    c = [a for a in b]\n    return p, c, f")) == []
    assert undefined_names(cells("def f():\n    return later", "later = 1")) == [("c0", "later")]
    assert undefined_names(cells("class A:\n    x: Missing = 1\n    def f(self) -> Gone:\n        pass")) == [("c0", "Gone"), ("c0", "Missing")]


# --- the files --------------------------------------------------------------------------------------------------------


def same_build(built: Path, again: Path, lab: str) -> None:
    """Notebooks and the answer sheet's sentences are equal exactly; its right answers are as near as their judge asks of a student's."""
    for path in (Path("solutions") / lab / f"{lab}.ipynb", Path("labs") / lab / f"{lab}.ipynb"):
        assert nbformat.read(built / path, as_version=4) == nbformat.read(again / path, as_version=4), f"{path} is stale"
    sheet = Path("data") / "checks" / f"{lab}.safetensors"
    with safe_open(built / sheet, "numpy") as before, safe_open(again / sheet, "numpy") as after:
        assert sentences(before) == sentences(after), f"{sheet} is stale"
    before, after = read_sheet(built / sheet), read_sheet(again / sheet)
    for name, question in before.items():
        for old, new in zip(question.parts, after[name].parts):
            for look in old.all_looks():
                # A moment is stored already summarized, so the judge is asked directly.
                assert not JUDGES[look.judge](new.want[look.at], old.want[look.at], **look.options), f"{sheet}: {name} is stale"
        for mistake, other in zip(question.mistakes, after[name].mistakes):
            for part, old, new in zip(question.parts, mistake.answers, other.answers):
                assert old.keys() == new.keys(), f"{sheet}: the answers of {mistake.id} are stale"
                for look in part.all_looks():
                    # What a clock decides (None) may be found to differ, or not, at every build.
                    if old.get(look.at) is not None and new.get(look.at) is not None:
                        assert answers_alike(look, old[look.at], new[look.at]), f"{sheet}: the answers of {mistake.id} are stale"


def answers_alike(look, old, new) -> bool:
    if isinstance(old, str) or isinstance(new, str):
        return str(old) == str(new)
    return np.array_equal(old, new, equal_nan=True) or not JUDGES[look.judge](new, old, **look.options)


def sentences(file) -> list[dict]:
    """All that a sheet says but for the mistakes' answers: which of those chance or a clock decides may differ between two builds."""
    questions = json.loads(file.metadata()["questions"])
    for question in questions:
        for mistake in question["mistakes"]:
            del mistake["answers"]
    return questions


def test_building_twice_gives_the_same_bytes(tinylab, tmp_path):
    first = {path.name: path.read_bytes() for path in build(tinylab)}
    second = {path.name: path.read_bytes() for path in build(tinylab, tmp_path / "again")}
    assert first == second
    same_build(tinylab.root, tmp_path / "again", tinylab.name)


@pytest.mark.slow
@pytest.mark.parametrize("name", lab_names(ROOT))
def test_what_is_in_the_project_is_what_its_sources_give(name, tmp_path):
    build(Lab(ROOT, name), tmp_path)
    same_build(ROOT, tmp_path, name)


@pytest.mark.parametrize("name", lab_names(ROOT))
def test_notebooks_in_the_project_are_valid_and_empty(name):
    for path in (ROOT / "labs" / name / f"{name}.ipynb", ROOT / "solutions" / name / f"{name}.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        MetadataValidator().validate_nb(notebook)
        assert not any(cell.get("outputs") for cell in notebook.cells)


# --- and they run -----------------------------------------------------------------------------------------------------


def run(notebook, lab: Lab, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(lab.root / "labs"))  # the kit beside the lab, and with it the lab's own answer sheet
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(lab.student_notebook.parent)}}).execute()
    return {cell.id: cell.outputs[-1].data["text/plain"] for cell in notebook.cells
            if cell.cell_type == "code" and cell.source.startswith("check(")}


@pytest.mark.slow
def test_the_filled_notebook_earns_every_point_and_the_unfilled_runs_through_for_none(tinylab, monkeypatch):
    build(tinylab)
    instructor = instructor_notebook(tinylab)
    assert run(nbformat.from_dict(instructor), tinylab, monkeypatch) == {"mean": "3", "variance": "4", "largest": "2"}
    unfilled = nbformat.read(tinylab.student_notebook, as_version=4)
    assert run(unfilled, tinylab, monkeypatch) == {"mean": "0", "variance": "0", "largest": "0"}


def test_pictures_are_left_by_the_filled_notebook(tinylab):
    edit(tinylab, "lesson.py", "print(twice(21))",
         'import os\nfrom pathlib import Path\nPath(os.environ["DIFFUSIONLAB_EXPECTED"], f"{twice(21)}.png").touch()')
    edit(tinylab, "lesson.py", 'check("', 'print("')  # this test needs no answer sheet
    assert draw_pictures(tinylab) == [tinylab.student_notebook.parent / "expected" / "42.png"]


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_builds_and_lists_what_it_wrote(tinylab):
    done = autograder("build", "--root", tinylab.root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["solutions/tinylab/tinylab.ipynb", "labs/tinylab/tinylab.ipynb",
                                   "data/checks/tinylab.safetensors"]
    assert all((tinylab.root / line).is_file() for line in done.stdout.split())


@pytest.mark.parametrize("arguments, says", [
    (("build", "nolab"), "there is no lab 'nolab'"),
    (("build", "--root", "/nowhere"), "there is no lab in /nowhere/solutions"),
    (("release", "nolab", "--out", "/nowhere"), "there is no lab 'nolab'"),
])
def test_a_refusal_is_one_line(arguments, says):
    done = autograder(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert says in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_an_exam_that_does_not_add_up_or_is_missing_is_refused_before_anything_is_written(tinylab):
    edit(tinylab, "exam.py", 'Question("mean", 3', 'Question("mean", 4')
    done = autograder("build", "--root", tinylab.root)
    assert done.returncode == 2 and "the parts of mean add up to 3" in done.stderr and done.stderr.count("\n") == 1
    tinylab.lesson.with_name("exam.py").unlink()
    done = autograder("build", "--root", tinylab.root)
    assert done.returncode == 2 and "solutions/tinylab/exam.py does not exist" in done.stderr and done.stderr.count("\n") == 1
    assert not tinylab.student_notebook.exists()


@pytest.mark.parametrize("command", ["build", "release"])
def test_help_teaches_by_example(command):
    done = autograder(command, "--help")
    assert done.returncode == 0 and f"autograder {command} " in done.stdout.split("Example:")[1]

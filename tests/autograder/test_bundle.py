"""The student bundle works alone and gives nothing away."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile

import nbformat
import pytest

from autograder.build import build, instructor_notebook
from autograder.bundle import contents, release
from autograder.course import ROOT, Lab, Refusal, lab_names, pyproject

LABS = lab_names(ROOT)


@pytest.fixture
def unpacked(tinylab, tmp_path):
    """The tiny lab's bundle, unpacked."""
    build(tinylab)
    with zipfile.ZipFile(release(tinylab, tmp_path / "out")) as archive:
        archive.extractall(tmp_path / "un packed")
    return tmp_path / "un packed" / f"tinylab-{tinylab.version}"


def test_the_bundle_holds_what_the_lab_needs_and_only_its_own(tinylab, tmp_path):
    build(tinylab)
    other = tinylab.sheet.with_name("other.safetensors")
    other.touch()
    (tinylab.root / "labs" / "otherlab").mkdir()
    (tinylab.root / "labs" / "otherlab" / "otherlab.ipynb").touch()
    (tinylab.student_notebook.parent / ".ipynb_checkpoints").mkdir()
    (tinylab.student_notebook.parent / ".ipynb_checkpoints" / "tinylab.ipynb").touch()
    (tinylab.student_notebook.parent / "tinylab-Copy1.ipynb").touch()
    (tinylab.root / "data" / "cifar-10-python.tar.gz").touch()
    with zipfile.ZipFile(release(tinylab, tmp_path)) as archive:
        names = {name.removeprefix(f"tinylab-{tinylab.version}/") for name in archive.namelist()}
    kit = {name for name in names if name.startswith("labs/diffusionlab/")}
    assert names - kit == {"README.md", "Makefile", "start.bat", "pyproject.toml", "environment.yml", "labs/lab.mk",
                           "labs/tinylab/tinylab.ipynb", "data/mnist.npz", "data/checks/tinylab.safetensors"}
    assert {"labs/diffusionlab/__init__.py", "labs/diffusionlab/handin.py"} <= kit


def test_the_same_sources_give_the_same_bundle(tinylab, tmp_path):
    build(tinylab)
    first = release(tinylab, tmp_path / "a").read_bytes()
    os.utime(tinylab.student_notebook)
    assert release(tinylab, tmp_path / "b").read_bytes() == first


def test_the_bundle_pins_what_the_project_pins(tinylab):
    build(tinylab)
    files = contents(tinylab)
    ours, theirs = pyproject(ROOT)["project"], tomllib.loads(files["pyproject.toml"].decode())["project"]
    assert theirs["dependencies"] == ours["dependencies"]
    assert (theirs["version"], theirs["requires-python"]) == (ours["version"], ours["requires-python"])
    assert "optional-dependencies" not in theirs and "scripts" not in theirs
    assert files["environment.yml"].decode().rstrip().endswith("- -e .")


def test_make_knows_which_lab_to_open(unpacked):
    done = subprocess.run(["make", "--dry-run", "lab", "ARGS=--no-browser"], cwd=unpacked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "/lab/tree/labs/tinylab/tinylab.ipynb --no-browser" in done.stdout and "--editable '.'" in done.stdout


@pytest.mark.parametrize("spoil", ["notebook", "sheet", "lesson"])
def test_a_lab_that_is_not_freshly_built_is_refused(tinylab, tmp_path, spoil):
    build(tinylab)
    if spoil == "lesson":
        tinylab.lesson.write_text(tinylab.lesson.read_text().replace("A tiny lab", "A small lab"))
    else:
        {"notebook": tinylab.student_notebook, "sheet": tinylab.sheet}[spoil].unlink()
    with pytest.raises(Refusal, match="run: autograder build tinylab"):
        release(tinylab, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- it works alone ---------------------------------------------------------------------------------------------------


VALIDATE = "import json, sys; from nbgrader.validator import Validator; print(json.dumps(Validator().validate(sys.argv[1])))"


def validate(folder) -> dict:
    """What nbgrader's Validate button finds in the unpacked bundle."""
    done = subprocess.run([sys.executable, "-c", VALIDATE, "tinylab.ipynb"], cwd=folder / "labs" / "tinylab",
                          capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(folder / "labs")})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_validate_fails_an_unfilled_notebook_with_the_reason_and_passes_a_filled_one(unpacked, tinylab):
    failed = validate(unpacked)["failed"]
    assert [cell["source"] for cell in failed[:3]] == ['check("mean", Average)', 'check("variance", Average)', 'check("largest", largest)']
    assert len(failed) == 4 and failed[3]["source"].startswith("## In your own words")
    assert "`Average.mean` is still to be written" in failed[0]["error"]

    path = unpacked / "labs" / "tinylab" / "tinylab.ipynb"
    notebook, filled = nbformat.read(path, as_version=4), {cell.id: cell for cell in instructor_notebook(tinylab).cells}
    for cell in notebook.cells:
        if cell.metadata.nbgrader.solution:
            cell.source = filled[cell.id].source + "\n# by the student"
    nbformat.write(notebook, path)
    assert validate(unpacked) == {}


# --- it gives nothing away --------------------------------------------------------------------------------------------


def solution_lines(lab: Lab) -> set[str]:
    """The telling lines between the solution marks of the reference: no guards, and nothing that it also shows outside them."""
    inside, outside = set(), set()
    for path in lab.lesson.parent.glob("*.py"):
        regions = re.split(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", path.read_text(), flags=re.DOTALL)
        inside |= {line.strip() for region in regions[1::2] for line in region.splitlines()}
        outside |= {line.strip() for region in regions[::2] for line in region.splitlines()}
    return {line for line in inside - outside if len(line) > 30 and not line.startswith("check_")}


def hidden_definitions(lab: Lab) -> set[str]:
    """How the functions (of two words or more) and the classes of exam.py and mistakes.py begin, where the name is theirs alone."""
    shared = {name for each in lab.reference().values() for name in (each.__name__, *dir(each))}
    shared |= set(re.findall(r"^(?:def|class) (\w+)", lab.lesson.read_text(), re.MULTILINE))
    nodes = [node for module in ("exam", "mistakes")
             for node in ast.walk(ast.parse(lab.lesson.with_name(f"{module}.py").read_text()))]
    return ({f"class {node.name}" for node in nodes if isinstance(node, ast.ClassDef) and len(node.name) > 4}
            | {f"def {node.name}(" for node in nodes if isinstance(node, ast.FunctionDef) and "_" in node.name[1:]
               and node.name not in shared})


def instructor_lines(lab: Lab) -> set[str]:
    cells = [cell for cell in instructor_notebook(lab).cells if "instructor" in cell.metadata.get("tags", [])]
    return {line for cell in cells for line in cell.source.splitlines() if len(line) > 30}


def given_away(lab: Lab) -> list[tuple[str, str]]:
    """Canaries found in the bundle: (file, canary)."""
    canaries = {"BEGIN SOLUTION", "END SOLUTION", "import solutions", "from solutions", "instructor=true", '"instructor"'}
    canaries |= solution_lines(lab) | hidden_definitions(lab) | instructor_lines(lab)
    texts = {name: content.decode("utf-8", "ignore").replace('\\"', '"') for name, content in contents(lab).items()
             if not name.endswith((".npz", ".png")) and "checkpoints" not in name}
    return [(name, canary) for name, text in texts.items() for canary in sorted(canaries) if canary in text]


def test_the_canaries_sing(tinylab):
    """The search itself finds what is put there: a solution line, a hidden name, an instructor's line."""
    build(tinylab)
    assert given_away(tinylab) == []
    (tinylab.root / "labs" / "diffusionlab" / "notes.txt").write_text(
        "mean_of_numbers = self.mean() + 1\nreturn math.fsum(self.numbers) / len(self.numbers)\nclass DividesByOneLess(Average):\n"
        "Ask the room why one would ever divide by n - 1.\n")
    assert {canary for _, canary in given_away(tinylab)} == {
        "return math.fsum(self.numbers) / len(self.numbers)", "class DividesByOneLess", "Ask the room why one would ever divide by n - 1."}


@pytest.mark.parametrize("name", LABS)
def test_no_bundle_gives_an_answer_away(name):
    assert given_away(Lab(ROOT, name)) == []


@pytest.mark.parametrize("name", LABS)
def test_every_bundle_has_the_pretrained_model_and_the_pictures(name):
    files = contents(Lab(ROOT, name))
    assert "data/mnist.npz" in files and any(path.startswith("data/checkpoints/") for path in files)
    assert any(path.startswith(f"labs/{name}/expected/") for path in files)

"""The student bundle: one zip that works alone and gives no answer away."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import nbformat

from .build import instructor_notebook, student_notebook
from .course import Lab, Refusal, pyproject

PYPROJECT = """\
[build-system]
requires = {requires}
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "{version}"
requires-python = "{python}"
dependencies = {dependencies}

[tool.setuptools.packages.find]
where = ["labs"]
include = ["diffusionlab*"]
"""


def release(lab: Lab, out: Path) -> Path:
    """Write OUT/<lab>-<version>.zip, which holds one folder of that name; returns its path.

    The same sources give the same bytes.

    Raises:
        Refusal: the notebook or the answer sheet is not built, or the notebook is older than its source.
    """
    name, files = f"{lab.name}-{lab.version}", contents(lab)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for inside, content in sorted(files.items()):
            # A ZipInfo without a date says 1980, whenever the bundle is made.
            entry = zipfile.ZipInfo(f"{name}/{inside}")
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


def contents(lab: Lab) -> dict[str, bytes]:
    """What the bundle holds: each file's bytes by its path inside. Only what is named here gets in."""
    check_built(lab)
    course = pyproject(lab.root)
    environment = (lab.root / "environment.yml").read_text(encoding="utf-8")
    made = {"pyproject.toml": derived_pyproject(course, lab), "environment.yml": environment.replace("-e .[test]", "-e ."),
            "Makefile": f"LAB = {lab.name}\ninclude labs/lab.mk\n"}
    labs, data = lab.root / "labs", lab.root / "data"
    files = {"README.md": labs / "README.md", "start.bat": labs / "start.bat", "labs/lab.mk": labs / "lab.mk"}
    named = [lab.student_notebook, *lab.student_notebook.parent.glob("expected/*.png"), lab.sheet, data / "README.md", data / "mnist.npz",
             *(data / "checkpoints").glob("*.*")]
    for path in [*_files(labs / "diffusionlab"), *filter(Path.is_file, named)]:
        files[path.relative_to(lab.root).as_posix()] = path
    return {inside: text.encode() for inside, text in made.items()} | {inside: path.read_bytes() for inside, path in files.items()}


def check_built(lab: Lab) -> None:
    """Refuse a lab whose students' notebook is missing or differs from what its source gives now."""
    mend = f"run: autograder build {lab.name}"
    for path in (lab.student_notebook, lab.sheet):
        if not path.is_file():
            raise Refusal(f"{path} does not exist; {mend}")
    if nbformat.read(lab.student_notebook, as_version=4) != student_notebook(instructor_notebook(lab)):
        raise Refusal(f"{lab.student_notebook} is not what {lab.lesson.name} and the reference give now; {mend}")


def derived_pyproject(course: dict, lab: Lab) -> str:
    """The bundle's pyproject.toml: the course's dependencies at the same versions, and the kit as its only package."""
    return PYPROJECT.format(name=lab.name, version=lab.version, python=course["project"]["requires-python"],
                            requires=json.dumps(course["build-system"]["requires"]),
                            dependencies=json.dumps(course["project"]["dependencies"], indent=4))


def _files(folder: Path) -> list[Path]:
    """All files below a folder but caches and hidden ones."""
    return sorted(path for path in folder.rglob("*") if path.is_file()
                  and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(folder).parts))

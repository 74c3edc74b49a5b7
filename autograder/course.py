"""Where a course keeps its labs. A lab is a folder of `solutions/` that holds a lesson.py."""

from __future__ import annotations

import hashlib
import importlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


class Refusal(Exception):
    """What cannot be done, in one line: what, where, and how to mend it."""


@dataclass(frozen=True)
class Lab:
    """One lab: the course's folder and the lab's name; raises Refusal if there is no such lab."""

    root: Path
    name: str

    def __post_init__(self):
        if not self.lesson.is_file():
            names = ", ".join(lab_names(self.root)) or "none"
            raise Refusal(f"there is no lab {self.name!r} in {self.root / 'solutions'}; there are: {names}")

    @property
    def lesson(self) -> Path:
        """The source of the notebooks."""
        return self.root / "solutions" / self.name / "lesson.py"

    @property
    def student_notebook(self) -> Path:
        """The unfilled notebook."""
        return self.root / "labs" / self.name / f"{self.name}.ipynb"

    @property
    def sheet(self) -> Path:
        """The answer sheet of the self-check."""
        return self.root / "data" / "checks" / f"{self.name}.safetensors"

    @property
    def version(self) -> str:
        """The course's version, from its pyproject.toml; notebooks and results carry it."""
        return pyproject(self.root)["project"]["version"]

    def module(self, name: str = "") -> ModuleType:
        """Import the reference package `solutions.<lab>`, or a module of it, such as "exam"."""
        import solutions

        # A course elsewhere brings its own labs; what they share, such as `solutions.questions`, is found here.
        folder = str(self.root / "solutions")
        if folder not in solutions.__path__:
            solutions.__path__.insert(0, folder)
        module = f"solutions.{self.name}.{name}".removesuffix(".")
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:  # something that it imports
                raise
            raise Refusal(f"{module.replace('.', '/')}.py does not exist; a lab has lesson.py, __init__.py, exam.py and mistakes.py") from None

    def reference(self) -> dict[str, object]:
        """The right classes and functions, by name: all that the reference package exports."""
        package = self.module()
        return {name: getattr(package, name) for name in package.__all__}

    @property
    def exam_digest(self) -> str:
        """SHA-256 of the sources that marks come from: the exam and the modules of the reference; results carry it."""
        modules = {"exam", *(made.__module__.rpartition(".")[2] for made in self.reference().values())}
        return hashlib.sha256(b"".join(self.lesson.with_name(f"{each}.py").read_bytes() for each in sorted(modules))).hexdigest()


def lab_names(root: Path) -> list[str]:
    """The names of all labs of a course, in alphabetical order."""
    return sorted(path.parent.name for path in (root / "solutions").glob("*/lesson.py"))


def pyproject(root: Path) -> dict:
    """The course's pyproject.toml; raises Refusal if there is none."""
    path = root / "pyproject.toml"
    if not path.is_file():
        raise Refusal(f"{path} does not exist; give the folder of a course with --root")
    return tomllib.loads(path.read_text(encoding="utf-8"))

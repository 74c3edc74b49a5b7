"""What the tests share."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # workers that use all cores each are in each other's way

import torch

from autograder.course import Lab

ROOT = Path(__file__).resolve().parents[1]

# nbgrader starts `alembic` by its bare name, which is only found where the environment is activated.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if "graded" in item.fixturenames:  # a class of many, which takes ten seconds to grade
            item.add_marker("slow")
    # The longest first, so that at the end no worker is left alone with one of them.
    items.sort(key=lambda item: (item.path.name != "test_notebooks.py", item.get_closest_marker("slow") is None))


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def needs_tool():
    """`needs_tool("chromium")` skips the test where that program is missing; under CI=true it fails instead."""
    def need(name: str) -> str:
        path = shutil.which(name)
        if path is None and os.environ.get("CI") == "true":
            pytest.fail(f"the system tool {name} is missing, and CI may skip nothing", pytrace=False)
        if path is None:
            pytest.skip(f"the system tool {name} is missing")
        return path
    return need


@pytest.fixture(scope="session")
def new_tinylab():
    """`new_tinylab(course)` makes a course of its own there, whose only lab is the tiny one; not built yet."""
    def new(course: Path) -> Lab:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "tests" / "fixtures" / "tinylab", course, ignore=ignored)
        shutil.copytree(ROOT / "labs" / "diffusionlab", course / "labs" / "diffusionlab", ignore=ignored)
        for name in ("pyproject.toml", "environment.yml", "labs/README.md", "labs/lab.mk", "labs/start.bat"):
            shutil.copy(ROOT / name, course / name)
        (course / "data").mkdir()
        (course / "data" / "mnist.npz").touch()  # the kit takes the folder with this file for its data
        return Lab(course, "tinylab")
    return new


@pytest.fixture
def tinylab(tmp_path, new_tinylab) -> Lab:
    """A course of its own in a folder with a space, whose only lab is the tiny one; not built yet."""
    return new_tinylab(tmp_path / "a course")

"""What holds for the project as a whole: versions in one place, and dependencies that point one way."""

from __future__ import annotations

import ast
import json
import re
import socket
import stat
import subprocess
import sys
import time
from importlib.metadata import packages_distributions, version
from urllib.error import URLError
from urllib.request import urlopen

import pytest

import diffusionlab
from autograder.course import ROOT, lab_names, pyproject

PROJECT = pyproject(ROOT)["project"]
EXTRAS = [pin for extra in PROJECT["optional-dependencies"].values() for pin in extra]
PINS = [*PROJECT["dependencies"], *(pin for pin in EXTRAS if not pin.startswith(f"{PROJECT['name']}["))]
ROOMS = {"labs": ROOT / "labs", "solutions": ROOT / "solutions", "autograder": ROOT / "autograder", "tests": ROOT / "tests"}


def imports(room: str) -> dict[str, set[str]]:
    """The packages that a room's modules import, each with the files that do."""
    found: dict[str, set[str]] = {}
    for path in ROOMS[room].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = ([alias.name for alias in node.names] if isinstance(node, ast.Import)
                     else [node.module] if isinstance(node, ast.ImportFrom) and not node.level else [])
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(str(path.relative_to(ROOT)))
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned_exactly_and_once():
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", pin) for pin in PINS)
    names = [normal(pin.partition("==")[0]) for pin in PINS]
    assert len(names) == len(set(names))


def test_what_is_installed_is_what_is_pinned():
    for pin in PINS:
        name, _, wanted = pin.partition("==")
        assert version(name).partition("+")[0] == wanted, pin  # torch's builds add "+cpu" or "+cu..."


def test_environment_yml_pins_nothing_but_python_and_installs_the_project():
    lines = [line.strip() for line in (ROOT / "environment.yml").read_text().splitlines()]
    dependencies = lines[lines.index("dependencies:") + 1:]
    assert dependencies == ["- python=3.11", "- pip", "- pip:", "- -e .[test]"]
    assert PROJECT["requires-python"] == ">=3.11"


def test_everything_imported_is_a_listed_dependency():
    listed = {normal(pin.partition("==")[0]) for pin in PINS}
    ours = {"diffusionlab", "solutions", "autograder"} | set(sys.stdlib_module_names)
    distributions = packages_distributions()
    for room in ROOMS:
        for name, files in imports(room).items():
            if name not in ours:
                assert any(normal(each) in listed for each in distributions.get(name, [name])), f"{name}, imported by {sorted(files)}"


@pytest.mark.parametrize("room, forbidden", [("labs", {"solutions", "autograder"}), ("solutions", {"autograder"})])
def test_dependencies_point_one_way(room, forbidden):
    assert not {name: files for name, files in imports(room).items() if name in forbidden}


def test_the_kit_and_the_project_have_one_version():
    assert diffusionlab.__version__ == PROJECT["version"] == version(PROJECT["name"])


def test_make_explains_itself():
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    for target in ("lab", "test", "bench", "build", "handin"):
        assert f"make {target}\t" in done.stdout


def test_the_ci_script_can_be_started_and_is_valid_bash():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert subprocess.run(["bash", "-n", script]).returncode == 0


def test_a_missing_tool_is_named_and_fails_under_ci(needs_tool, monkeypatch):
    monkeypatch.setenv("CI", "false")
    with pytest.raises(pytest.skip.Exception, match="no-such-tool is missing"):
        needs_tool("no-such-tool")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-tool is missing"):
        needs_tool("no-such-tool")


@pytest.fixture(scope="module")
def jupyterlab():
    """The server that `make lab` starts, without its browser: a function that fetches a page of it as text."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
                               "--ServerApp.port_retries=0", "--IdentityProvider.token=test"],
                              cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def fetch(page: str) -> str:
        with urlopen(f"http://127.0.0.1:{port}/{page}?token=test", timeout=60) as answer:
            return answer.read().decode()

    try:
        while True:
            assert server.poll() is None, "JupyterLab ended by itself"
            try:
                fetch("api/status")
                break
            except (URLError, ConnectionError):
                time.sleep(0.2)
        yield fetch
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_jupyterlab_serves_the_labs_with_their_kernel_and_the_validate_button(jupyterlab):
    for name in lab_names(ROOT):
        notebook = json.loads(jupyterlab(f"api/contents/labs/{name}/{name}.ipynb"))["content"]
        assert notebook["metadata"]["kernelspec"]["name"] in json.loads(jupyterlab("api/kernelspecs"))["kernelspecs"]
    assert '"@jupyter/nbgrader"' in jupyterlab("lab")

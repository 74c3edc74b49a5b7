"""What code in the sandbox can see, write and use up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from autograder import sandbox
from autograder.course import ROOT, Lab, Refusal
from autograder.results import Limits
from autograder.sandbox import WORK, Confined, NoSandbox, Sandbox, installed, pipes, refused_calls


@pytest.fixture
def inside(needs_tool, tmp_path):
    """Run a piece of Python in a sandbox: `inside(code, **limits)` gives what it printed."""
    needs_tool("bwrap")

    def run(code: str, lab: Lab = Lab(ROOT, "lab5_sampling"), **limits) -> str:
        script = tmp_path / "script.py"
        script.write_text(code)
        box = Sandbox(lab, Limits(**limits))
        kit = {"/course/labs/diffusionlab": lab.root / "labs" / "diffusionlab", "/script.py": script}
        (fd,) = pipes(refused_calls())
        command = box.command([sys.executable, "-P", "-s", "/script.py"], kit, ["--seccomp", str(fd)])
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, pass_fds=(fd,))
        os.close(fd)
        assert done.returncode == 0, done.stderr
        return done.stdout
    return run


def test_of_a_labs_folder_only_the_expected_pictures_are_inside(needs_tool):
    needs_tool("bwrap")
    args = Sandbox(Lab(ROOT, "lab5_sampling"), Limits()).launch({})["args"]
    bound = [args[i + 2] for i, option in enumerate(args) if option == "--ro-bind" and "/labs/" in args[i + 2]]
    assert sorted(bound) == ["/course/labs/diffusionlab", "/course/labs/lab5_sampling/expected"]


@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="no virtual environment, so no interpreter below it")
def test_the_base_interpreters_packages_are_hidden(inside):
    folders = [path for path in Path(sys.base_prefix, "lib").glob("python3*/[sd]*-packages") if any(path.iterdir())]
    assert folders, "there is nothing to hide here"
    assert inside(f"import os\nfor folder in {list(map(str, folders))!r}: print(os.listdir(folder))").split() == ["[]"] * len(folders)


def test_nothing_is_readable_but_what_is_bound(inside):
    secret = Path.home() / "not-for-students"
    places = [str(ROOT / name) for name in ("solutions", "autograder", "tests", "labs", "pyproject.toml", ".git")]
    places += [str(secret), "/etc/passwd", "/etc/shadow", "/var", "/mnt", "/opt", "/usr/local/src", "/sys",
               "/proc/1/root/etc/passwd"]
    out = inside(f"import os\nprint([place for place in {places} if os.path.lexists(place)])")
    assert out.strip() == "[]"


def test_hidden_packages_cannot_be_imported_and_nothing_tells_where_they_are(inside):
    out = inside("""
import importlib.util, os, site, sys
for name in ("solutions", "autograder", "diffusers", "pytest"):
    spec = importlib.util.find_spec(name)
    print(name, spec and [os.listdir(place) for place in spec.submodule_search_locations])
folder = next(path for path in sys.path if path.endswith("site-packages"))
for name in os.listdir(folder):
    if name.endswith(".pth") or name.startswith("__editable__") or name.endswith("finder.py"):
        print(repr(name), open(os.path.join(folder, name), errors="replace").read().count("solutions"))
""")
    lines = out.splitlines()
    assert lines[:2] == ["solutions None", "autograder None"]
    # Not installed, or covered by an empty folder.
    assert all(line.split(" ", 1)[1] in ("None", "[[]]") for line in lines[2:4])
    assert all(line.endswith(" 0") for line in lines[4:])


def test_the_labs_own_packages_are_there(inside):
    assert inside("import numpy, safetensors, IPython; print(numpy.__name__)").strip() == "numpy"


@contextmanager
def interpreter_in(monkeypatch, prefix: str):
    """As if Python were installed there."""
    with monkeypatch.context() as patched:
        for name in ("prefix", "base_prefix"):
            patched.setattr(sys, name, prefix)
        for each in (sandbox.system_binds, sandbox.hiding_binds):
            each.cache_clear()
        yield
    for each in (sandbox.system_binds, sandbox.hiding_binds):
        each.cache_clear()


def test_hidden_folders_are_covered_even_below_a_bound_one(needs_tool, monkeypatch, tmp_path):
    needs_tool("bwrap")
    prefix = tmp_path / "prefix"
    shutil.copytree(ROOT / "tests" / "fixtures" / "tinylab", prefix / "course")
    shutil.copy(ROOT / "pyproject.toml", prefix / "course")
    (prefix / "open.txt").write_text("may be read")
    with interpreter_in(monkeypatch, str(prefix)):
        command = Sandbox(Lab(prefix / "course", "tinylab"), Limits()).command(
            ["/bin/sh", "-c", f"cat '{prefix}/open.txt'; ls -A '{prefix}/course/solutions'"], {})
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("may be read", "")


def test_only_the_private_folder_is_writable_and_it_is_small(inside):
    out = inside(f"""
import os, sys
for place in ("/", "/course", "/course/labs/diffusionlab", "/dev", "/usr/lib", sys.prefix, "/home", "/proc", "/exam"):
    try:
        open(os.path.join(place, "x"), "w").close()
        print("wrote to", place)
    except OSError:
        pass
for place in ({WORK!r}, "/tmp", "/dev/shm"):
    size = 0
    try:
        with open(os.path.join(place, "x"), "wb") as file:
            for _ in range(64):
                size += file.write(bytes(2**20))
                file.flush()
    except OSError as error:
        print(place, size <= 16 * 2**20, error.strerror)
print(os.getcwd() == {WORK!r} == os.environ["HOME"] == os.environ["TMPDIR"])
""", work_bytes=16 * 2**20)
    assert out.splitlines() == [f"{place} True No space left on device" for place in (WORK, "/tmp", "/dev/shm")] + ["True"]


def test_there_is_no_memory_that_no_watch_sees_and_nothing_can_be_mounted(inside):
    out = inside("""
import ctypes, os
c = ctypes.CDLL(None, use_errno=True)
def said(result):
    return "done" if result >= 0 else os.strerror(ctypes.get_errno())
print(said(c.memfd_create(b"x", 0)), said(c.shmget(0, ctypes.c_size_t(4096), 0o1600)), said(c.mount(b"none", b"/tmp", b"tmpfs", 0, b"size=8g")),
      said(c.umount2(b"/tmp", 0)), said(c.unshare(0x10000000 | 0x00020000)), sep="|")
import torch, multiprocessing.shared_memory as shared
shared.SharedMemory(create=True, size=4096).unlink()
print(float(torch.ones(3).sum()))
""")
    assert out.split() == "|".join(["Operation not permitted"] * 5).split() + ["3.0"]


def test_there_is_no_network_no_privilege_and_nobody_else(inside, monkeypatch):
    monkeypatch.setenv("A_SECRET_TOKEN", "42")
    out = inside("""
import os, socket
print([name for name, *_ in map(str.split, open("/proc/net/dev").read().splitlines()[2:])])
try:
    socket.create_connection(("1.1.1.1", 53), 2)
except OSError as error:
    print(type(error).__name__)
print([line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapPrm", "CapBnd"))])
print(sorted(int(pid) for pid in os.listdir("/proc") if pid.isdigit()) == sorted({1, os.getpid()}))
print("A_SECRET_TOKEN" in os.environ, sorted(os.environ))
print(os.getpid() == os.getpgid(0) or os.getsid(0) != 0)
""").splitlines()
    assert out[0] == "['lo:']" and out[1] in ("OSError", "ConnectionRefusedError")
    assert out[2] == str(["0" * 16] * 3)
    assert out[3] == "True" and out[4].startswith("False") and out[5] == "True"


def started(code: str, box, **limits) -> Confined:
    limits = Limits(**limits)
    argv = [sys.executable, "-c", code]
    return Confined({"args": box.command(argv, {}) if isinstance(box, Sandbox) else argv}, limits)


@pytest.fixture(params=["bubblewrap", "none"])
def box(request):
    if request.param == "none":
        return NoSandbox(Lab(ROOT, "lab5_sampling"), Limits())
    request.getfixturevalue("needs_tool")("bwrap")
    return Sandbox(Lab(ROOT, "lab5_sampling"), Limits())


def ended(confined: Confined, seconds: float = 60) -> str | None:
    """Why it was killed, once it was."""
    deadline = time.monotonic() + seconds
    while confined.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert confined.process.poll() is not None
    confined.close()
    return confined.reason


def test_too_much_memory_ends_it(box):
    code = "x = [bytearray(2**24) for _ in range(200)]\nimport time; time.sleep(60)"
    assert ended(started(code, box, memory_gib=0.25)) == "memory"


def test_memory_of_all_its_processes_counts(box):
    code = "import os, time\nfor _ in range(4): os.fork()\nx = bytearray(2**25); x[::4096] = bytes(2**13)\ntime.sleep(60)"
    assert ended(started(code, box, memory_gib=0.25, processes=100)) == "memory"


def test_too_many_processes_end_it(box):
    assert ended(started("import os, time\nfor _ in range(6): os.fork()\ntime.sleep(60)", box, processes=20)) == "processes"


@pytest.mark.parametrize("code, seconds", [("while True: pass", 0.3), ("import time; time.sleep(100)", 0.3)])
def test_too_much_time_ends_it(box, code, seconds):
    confined = started(code, box)
    with confined.at_most(seconds):
        assert ended(confined) == "timeout"


def test_no_process_is_left_behind(box):
    code = ("import os, subprocess, sys, time\n"
            "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1234.5)'], start_new_session=True)\n"
            "time.sleep(60)")
    confined = started(code, box)
    deadline = time.monotonic() + 30
    while not (found := sleepers("1234.5")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found
    confined.close()
    psutil.wait_procs(found, timeout=10)
    assert not sleepers("1234.5")


def sleepers(mark: str) -> list[psutil.Process]:
    """The processes that run `time.sleep(mark)`; bubblewrap's own have it only among their arguments."""
    running = ((each, each.info["cmdline"] or [""]) for each in psutil.process_iter(["cmdline"]))
    return [each for each, command in running
            if command[-2:] == ["-c", f"import time; time.sleep({mark})"] and "bwrap" not in command[0]]


def test_it_dies_with_the_run(needs_tool, tmp_path):
    needs_tool("bwrap")
    code = """
import sys, time
from autograder.course import ROOT, Lab
from autograder.results import Limits
from autograder.sandbox import Confined, Sandbox
box = Sandbox(Lab(ROOT, "lab5_sampling"), Limits())
Confined({"args": box.command([sys.executable, "-c", "import time; time.sleep(4321.5)"], {})}, Limits())
print("up", flush=True)
time.sleep(100)
"""
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                           env=os.environ | {"PYTHONPATH": f"{ROOT / 'labs'}:{ROOT}"})
    assert run.stdout.readline() == b"up\n"
    deadline = time.monotonic() + 30
    while not (found := sleepers("4321.5")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found
    run.send_signal(signal.SIGKILL)
    run.communicate()
    psutil.wait_procs(found, timeout=10)
    assert not sleepers("4321.5")


def test_without_bubblewrap_grading_is_refused_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    sandbox.bwrap.cache_clear()
    with pytest.raises(Refusal, match="apt install bubblewrap") as refusal:
        Sandbox(Lab(ROOT, "lab5_sampling"), Limits())
    assert "--no-sandbox" in str(refusal.value) and "\n" not in str(refusal.value)


def test_where_user_namespaces_are_forbidden_grading_is_refused(monkeypatch, tmp_path):
    false = tmp_path / "bwrap"
    false.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    false.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox.bwrap.cache_clear()
    try:
        with pytest.raises(Refusal, match="No permissions to create new namespace.*allow user namespaces") as refusal:
            Sandbox(Lab(ROOT, "lab5_sampling"), Limits())
        assert "\n" not in str(refusal.value)
    finally:
        sandbox.bwrap.cache_clear()


def test_a_gpu_that_is_not_there_is_refused(needs_tool, monkeypatch):
    needs_tool("bwrap")
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    sandbox.cuda_binds.cache_clear()
    with pytest.raises(Refusal, match="no CUDA device"):
        Sandbox(Lab(ROOT, "lab5_sampling"), Limits(), cuda=True)
    sandbox.cuda_binds.cache_clear()


def test_a_gpu_is_seen_inside_only_where_it_was_asked_for_and_only_the_one_that_was_given(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert sandbox.environment(Limits(), cuda=True)["CUDA_VISIBLE_DEVICES"] == "3"
    assert sandbox.environment(Limits(), cuda=False)["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert "CUDA_VISIBLE_DEVICES" not in sandbox.environment(Limits(), cuda=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_it_works_for_an_ordinary_user(needs_tool, monkeypatch):
    needs_tool("bwrap")
    with interpreter_in(monkeypatch, "/usr"):  # this one may lie where only root can read
        command = Sandbox(Lab(ROOT, "lab5_sampling"), Limits()).command(["/usr/bin/id", "-u"], {})
    done = subprocess.run(command, user=65534, group=65534, extra_groups=[], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("65534\n", "")


def test_what_belongs_to_the_lab_is_told_from_what_is_only_installed():
    own, foreign = installed(ROOT)
    assert {"numpy", "torch", "IPython", "matplotlib"} <= own and not own & foreign
    assert "pytest" in foreign and "pytest" not in own

"""A bubblewrap sandbox for code that nobody has read: no network, nothing to read but what is bound, nothing to write but a
small private folder, and nothing left behind when the run ends."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from .course import Lab, Refusal, pyproject
from .results import Limits

WORK = "/home/student"
"""The private folder inside, and where the candidate runs."""

CODE = tuple(Path(__file__).with_name(name) for name in ("candidate.py", "wire.py"))

SYSTEM = ("/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/share/zoneinfo", "/etc/alternatives", "/etc/ld.so.cache",
          "/etc/localtime", "/bin", "/lib", "/lib32", "/lib64")


class Sandbox:
    """Starts a candidate for one lab in bubblewrap.

    Args:
        lab: whose kit, data and expected pictures can be read inside.
        limits: what it may use.
        cuda: whether the GPUs are passed through.

    Raises:
        Refusal: there is no working bubblewrap here, or no GPU where one is asked for.
    """

    name = "bubblewrap"

    def __init__(self, lab: Lab, limits: Limits, cuda: bool = False):
        self.lab, self.limits, self.cuda = lab, limits, cuda
        self.bwrap, self.devices = bwrap(), cuda_binds() if cuda else ()

    def launch(self, settings: Mapping) -> dict:
        """What to give to subprocess.Popen, and in `pass_fds` what to close after it; `settings` are the candidate's."""
        kit = {"/course/labs/diffusionlab": self.lab.root / "labs" / "diffusionlab", "/course/data": self.lab.root / "data",
               # Not the whole folder: JupyterLab leaves copies of what an instructor has filled in there.
               f"/course/labs/{self.lab.name}/expected": self.lab.student_notebook.parent / "expected"}
        code = {f"/exam/{path.name}": path for path in CODE}
        limits = rlimits(self.limits) | nproc(self.limits)
        argv = python("/exam/candidate.py", {**settings, "path": ["/course/labs"], "limits": limits})
        # Drivers of GPUs make shared memory of their own.
        refused = () if self.cuda else pipes(refused_calls())
        seccomp = [each for fd in refused for each in ("--seccomp", str(fd))]
        return {"args": self.command(argv, kit | code, seccomp), "env": {}, "pass_fds": refused}

    def command(self, argv: Sequence[str], read_only: Mapping[str, Path], options: Sequence[str] = ()) -> list[str]:
        """The command that runs argv inside, in WORK; `read_only` maps a path inside to what is seen there, `options` are bubblewrap's."""
        binds = (each for inside, outside in read_only.items() if outside.exists()
                 for each in ("--ro-bind", str(outside), inside))
        variables = environment(self.limits, self.cuda) | {"HOME": WORK, "TMPDIR": WORK}
        # Writable places first: what is bound may lie below them. Covers last: they lie on what is bound.
        return [self.bwrap, "--unshare-all", *no_namespaces(), *options, "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "exam",
                "--clearenv", *(each for item in variables.items() for each in ("--setenv", *item)),
                *tmpfs("/tmp", self.limits.work_bytes // 4), *tmpfs(WORK, self.limits.work_bytes), "--proc", "/proc",
                "--dev", "/dev", *tmpfs("/dev/shm", self.limits.work_bytes // 4), *self.devices, "--remount-ro", "/dev",
                *system_binds(), *hiding_binds(self.lab.root), *binds, "--remount-ro", "/", "--chdir", WORK, "--", *argv]


class NoSandbox:
    """Starts a candidate without any protection but rlimits: for hand-ins that are trusted."""

    name = "none"

    def __init__(self, lab: Lab, limits: Limits, cuda: bool = False):
        self.lab, self.limits, self.cuda = lab, limits, cuda
        self.work = tempfile.TemporaryDirectory(prefix="exam-")

    def launch(self, settings: Mapping) -> dict:
        """What to give to subprocess.Popen; `settings` are the candidate's."""
        path = [str((self.lab.root / "labs").resolve())]
        argv = python(CODE[0], {**settings, "path": path, "limits": rlimits(self.limits)})
        variables = environment(self.limits, self.cuda) | {"HOME": self.work.name, "TMPDIR": self.work.name}
        return {"args": argv, "env": variables, "cwd": self.work.name, "start_new_session": True}


def python(program, settings: Mapping) -> list[str]:
    # Not -I: the environment is made here, and PYTHONHASHSEED in it counts. -P and -s keep other folders off sys.path.
    return [sys.executable, "-P", "-s", str(program), json.dumps(settings)]


def environment(limits: Limits, cuda: bool) -> dict[str, str]:
    """All environment variables inside but those that name the private folder."""
    # Which GPU a run was given, and where its driver's libraries are, is told outside.
    gpu = {key: os.environ[key] for key in ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH") if key in os.environ} if cuda else {"CUDA_VISIBLE_DEVICES": ""}
    # There is no compiler inside; what is meant to be compiled runs as it is.
    return {"TORCHDYNAMO_DISABLE": "1", "PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "USER": "student", "LOGNAME": "student", "LANG": "C.UTF-8",
            "MPLBACKEND": "agg", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", **threads(limits), **gpu}


def threads(limits: Limits) -> dict[str, str]:
    """Environment variables that say how many threads numeric libraries may have."""
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(limits.threads))


def rlimits(limits: Limits) -> dict[str, int]:
    """What the kernel enforces, by the names of the `resource` module. Memory is watched instead: CUDA reserves address
    space without end, so that a limit on it would break every run on a GPU."""
    return {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": limits.file_bytes, "RLIMIT_CPU": int(limits.seconds * limits.threads) + 1}


def nproc(limits: Limits) -> dict[str, int]:
    """A limit on processes and threads inside, where the kernel counts a namespace's own; before Linux 5.14 it counted all
    that the user runs on the machine. The superuser it never limits; the watch on the tree of processes does."""
    version = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
    # Threads count here, and each process may have a handful; processes alone are counted by the watch.
    return {"RLIMIT_NPROC": 8 * limits.processes} if version >= (5, 14) else {}


def tmpfs(path, size: int) -> list[str]:
    return ["--size", str(size), "--tmpfs", str(path)]


# ---------------------------------------------------------------------------------- what is bound and what is covered


@cache
def bwrap() -> str:
    """The path of a bubblewrap that works here, tried once; raises Refusal with how to get one."""
    path = shutil.which("bwrap")
    if path is None:
        raise Refusal("grading needs bubblewrap, which is not installed; run: apt install bubblewrap "
                      "(or grade without protection: --no-sandbox)")
    trial = subprocess.run([path, "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc",
                            "--dev", "/dev", *tmpfs("/tmp", 4096), "true"],
                           capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if trial.returncode != 0:
        said = (trial.stderr.strip().splitlines() or [f"exit code {trial.returncode}"])[-1]
        raise Refusal(f"bubblewrap cannot make a sandbox here ({said[:200]}); allow user namespaces: sysctl -w "
                      "user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1 "
                      "kernel.apparmor_restrict_unprivileged_userns=0 (or grade without protection: --no-sandbox)")
    return path


@cache
def no_namespaces() -> tuple[str, ...]:
    """What keeps code inside from making user namespaces of its own, in which it had more rights; bubblewrap has it since 0.8."""
    options = ("--unshare-user", "--disable-userns")
    trial = subprocess.run([bwrap(), "--unshare-all", *options, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"],
                           capture_output=True, stdin=subprocess.DEVNULL, check=False)
    return options if trial.returncode == 0 else ()


REFUSED_CALLS = {
    # Shared memory that belongs to no process, so that no watch sees it; what could change what is mounted where.
    "x86_64": (0xC000003E, (29, 319, 447, 155, 165, 166, 272, 308, 428, 429, 430, 432, 433, 442)),
    "aarch64": (0xC00000B7, (194, 279, 447, 41, 40, 39, 97, 268, 428, 429, 430, 432, 433, 442))}
"""By machine, how the kernel names it, and the numbers of: shmget, memfd_create, memfd_secret, pivot_root, mount, umount2, unshare, setns,
open_tree, move_mount, fsopen, fsmount, fspick, mount_setattr."""


def refused_calls() -> bytes:
    """A seccomp filter (classic BPF) that answers "not permitted" to REFUSED_CALLS and to calls of another architecture."""
    if platform.machine() not in REFUSED_CALLS:
        return b""
    architecture, numbers = REFUSED_CALLS[platform.machine()]
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    refuse = (give, 0, 0, 0x00050000 | errno.EPERM)
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), refuse, (load, 0, 0, 0)]
    for number in numbers:
        program += [(equal, 0, 1, number), refuse]
    program += [(at_least, 0, 1, 0x40000000), refuse, (give, 0, 0, 0x7FFF0000)]  # from there on: the same calls in another guise
    return b"".join(struct.pack("HBBI", *each) for each in program)


def pipes(content: bytes) -> tuple[int, ...]:
    """A file descriptor to read the content from; none where there is no content."""
    if not content:
        return ()
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    return (read,)


@cache
def system_binds() -> tuple[str, ...]:
    """The interpreter with its packages, and the libraries and tools of the system."""
    arguments = []
    for path in map(Path, SYSTEM):
        if path.is_symlink() and path.is_dir():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.exists():
            arguments += ["--ro-bind", str(path), str(path)]
    # Of /usr only what is listed: /usr/local and /usr/src may hold anything.
    for prefix in dict.fromkeys((sys.base_prefix, sys.prefix)):
        if prefix != "/usr":
            arguments += ["--ro-bind", prefix, prefix]
    return tuple(arguments)


@cache
def cuda_binds() -> tuple[str, ...]:
    """The GPUs' device files, and what the driver reads; raises Refusal where there are none."""
    devices = sorted([*Path("/dev").glob("nvidia*"), *Path("/dev").glob("dxg")])
    if not devices:
        raise Refusal("there is no CUDA device on this machine; grade with --device cpu")
    places = [path for path in map(Path, ("/sys", "/usr/lib/wsl", "/usr/local/cuda", "/usr/local/nvidia")) if path.exists()]
    return tuple(each for flag, paths in (("--dev-bind", devices), ("--ro-bind", places)) for path in paths
                 for each in (flag, str(path), str(path)))


@cache
def hiding_binds(course: Path) -> tuple[str, ...]:
    """Cover what could be read only because it lies in a folder that is bound: the course's hidden packages, files that tell
    where they are, and installed packages that are not the lab's own and might do the exercise."""
    import solutions

    packages = Path(sysconfig.get_path("purelib"))
    # The interpreter that a virtual environment was made of has packages of its own, which are nobody's here.
    of_base = () if sys.prefix == sys.base_prefix else Path(sys.base_prefix, "lib").glob("python3*/[sd]*-packages")
    folders = {Path(__file__).resolve().parent, *(Path(each).resolve() for each in solutions.__path__), *of_base,
               *(course.resolve() / each for each in ("solutions", "autograder", "tests", ".git"))}
    patterns = ("*.pth", "__editable__*", "*.dist-info/direct_url.json")
    pointers = [path for pattern in patterns for path in packages.glob(pattern)
                if path.name.startswith("__editable__") or str(course.resolve()) in path.read_text(errors="replace")]
    foreign = {packages / name for name in installed(course)[1]}
    bound = [Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)]
    seen = [path for path in sorted({*folders, *foreign, *pointers})
            if path.exists() and any(path.resolve().is_relative_to(prefix) for prefix in bound)]
    # What lies in a folder that is covered already has no place to be mounted on.
    seen = [path for path in seen if not any(other in path.parents for other in seen)]
    return tuple(each for path in seen
                 for each in (tmpfs(path, 4096) if path.is_dir() else ["--dev-bind", "/dev/null", str(path)]))


@cache
def installed(course: Path) -> tuple[frozenset[str], frozenset[str]]:
    """The top-level names in site-packages that belong to what the course depends on, and those that do not or that
    pyproject.toml wants absent at grading."""
    found = {_normal(each.metadata["Name"]): each for each in metadata.distributions(path=[sysconfig.get_path("purelib")])}
    course_project = pyproject(course)
    absent = set(map(_normal, course_project.get("tool", {}).get("autograder", {}).get("absent", ())))
    todo, own = [Requirement(each) for each in course_project["project"]["dependencies"]], set()
    while todo:
        requirement = todo.pop()
        name = _normal(requirement.name)
        if name in found and name not in absent and (name, *requirement.extras) not in own:
            own.add((name, *requirement.extras))
            todo += [each for each in map(Requirement, found[name].requires or []) if each.marker is None
                     or any(each.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras))]
    ours = {name for name, *_ in own}

    def top_level(kept: bool) -> set[str]:
        return {file.parts[0] for name, distribution in found.items() if (name in ours) is kept
                for file in distribution.files or () if file.parts[0] != ".."}
    return frozenset(top_level(True)), frozenset(top_level(False) - top_level(True))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# ---------------------------------------------------------------------------------------------- the running program


class Confined:
    """A started program, watched: over a limit it is killed with all its processes, and `reason` says why.

    Start it from a thread that outlives it: bubblewrap dies with the thread that started it.

    Args:
        launch: for subprocess.Popen.
        limits: what it may use.
        keep: file descriptors it inherits.
    """

    def __init__(self, launch: Mapping, limits: Limits, keep: Sequence[int] = ()):
        self.limits, self.reason = limits, None
        self._cpu, self._wall = None, None
        passed = launch.get("pass_fds", ())
        try:
            self.process = subprocess.Popen(**{**launch, "pass_fds": (*keep, *passed)}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                            stderr=subprocess.PIPE)
        finally:
            for each in passed:
                os.close(each)
        self._known = psutil.Process(self.process.pid)  # knows its process from a later one of the same number
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look_after, daemon=True)
        self._watch.start()

    @contextmanager
    def at_most(self, seconds: float):
        """While this lasts the program may use so many seconds of CPU, and four times as many of wall time."""
        self._cpu, self._wall = self.cpu_seconds() + seconds, time.monotonic() + 4 * seconds
        try:
            yield
        finally:
            self._cpu = self._wall = None

    def kill(self, reason: str = "stopped") -> None:
        """End the program and everything that it started."""
        self.reason = self.reason or reason
        self._ended.set()
        # Outside a sandbox there is no namespace that would take the others along.
        for process in [*self._tree(), self.process]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        self.process.wait()

    def last_words(self) -> str:
        """What it wrote to stderr before it closed that."""
        return self.process.stderr.read(4000).decode(errors="replace").strip()

    def close(self) -> None:
        self.kill()
        self._watch.join()
        self.process.stderr.close()

    def cpu_seconds(self, tree: list[psutil.Process] | None = None) -> float:
        """What it and everything that it started has used so far."""
        used = 0.0
        for process in self._tree() if tree is None else tree:
            try:
                used += sum(process.cpu_times()[:4])  # its own and its ended children's, in user and system mode
            except psutil.Error:
                pass
        return used

    def _look_after(self) -> None:
        while not self._ended.wait(0.2):
            tree = self._tree()
            if not tree:
                return
            resident = 0
            for process in tree:
                try:
                    resident += process.memory_info().rss
                except psutil.Error:
                    pass
            wall, cpu = self._wall, self._cpu
            if resident > self.limits.memory_gib * 2**30:
                self.kill("memory")
            elif len(tree) > self.limits.processes + 2:  # bubblewrap itself is two
                self.kill("processes")
            elif (wall is not None and time.monotonic() > wall) or (cpu is not None and self.cpu_seconds(tree) > cpu):
                self.kill("timeout")

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._known, *self._known.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

"""Time grading beside plain nbgrader: `python -m autograder.bench LAB`.

The same notebooks are graded by `nbgrader autograde`, which runs each from top to bottom, one after the other, and by this
pipeline with and without its sandbox, in turn, on the same machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
from rich.console import Console
from rich.table import Table

from .build import instructor_notebook, student_notebook
from .classroom import write_text
from .course import ROOT, Lab, Refusal
from .demo import filled
from .grade import grade


@dataclass(frozen=True)
class Cost:
    """What grading a class took.

    Attributes:
        seconds: on the wall clock.
        cpu: seconds that all processes together computed, looked at ten times a second.
        scores: points of each hand-in, where the grader says.
    """

    seconds: float
    cpu: float
    scores: tuple[float, ...] = ()


def cost_of(work: Callable[[], tuple[float, ...] | None]) -> Cost:
    """Run `work`, which starts processes and waits for them, and say what it took."""
    used: dict[tuple[int, float], float] = {}
    done = threading.Event()

    def watch() -> None:
        # What a process used is lost with it if it is killed, as those in a sandbox are: so look on the way.
        while not done.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                try:
                    used[process.pid, process.create_time()] = sum(process.cpu_times()[:2])
                except psutil.Error:
                    pass
    watcher = threading.Thread(target=watch)
    watcher.start()
    start, before = time.perf_counter(), time.process_time()
    try:
        scores = work()
    finally:
        done.set()
        watcher.join()
    return Cost(time.perf_counter() - start, time.process_time() - before + sum(used.values()), scores or ())


def hand_in(lab: Lab, folder: Path, count: int) -> Path:
    """A class of `count` students who all filled in everything; returns the folder of hand-ins."""
    for i in range(count):
        write_text(folder / f"student{i}" / lab.name / f"{lab.name}.ipynb", nbformat.writes(filled(lab)) + "\n")
    return folder


def by_pipeline(lab: Lab, submitted: Path, out: Path, jobs: int | None, sandbox: bool) -> tuple[float, ...]:
    """Grade with this pipeline; returns the automatic points."""
    run = grade(lab, submitted, out, jobs=jobs, seed=0, sandbox=sandbox, tell=lambda line: None)
    return tuple(run.result(student.id).score for student in run.students)


def by_nbgrader(lab: Lab, submitted: Path, course: Path) -> None:
    """Grade with `nbgrader autograde`, as its manual says."""
    write_text(course / "source" / lab.name / f"{lab.name}.ipynb", nbformat.writes(student_notebook(instructor_notebook(lab))) + "\n")
    (course / "submitted").symlink_to(submitted)
    # Its own default of 30 seconds a cell would end the demonstrations early.
    options = [f"--CourseDirectory.root={course}", "--ExecutePreprocessor.timeout=3600", "--log-level=ERROR"]
    path = os.pathsep.join(filter(None, [str(lab.root.resolve() / "labs"), os.environ.get("PYTHONPATH")]))
    for command in ("generate_assignment", "autograde"):
        done = subprocess.run([sys.executable, "-m", "nbgrader", command, lab.name, *options], cwd=course, env=os.environ | {"PYTHONPATH": path},
                              capture_output=True, text=True)
        if done.returncode:
            raise Refusal(f"nbgrader {command} failed: {done.stderr.strip()[-500:]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m autograder.bench", description=__doc__,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("lab", help="a folder of solutions/")
    parser.add_argument("--handins", type=int, default=4, help="filled notebooks in the class; nbgrader takes minutes for each")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="hand-ins that the pipeline grades at a time")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        print_table(args, *compare(Lab(args.root, args.lab), args.handins, args.jobs))
    except Refusal as refusal:
        parser.exit(2, f"{refusal}\n")


def compare(lab: Lab, handins: int, jobs: int) -> tuple[Cost, Cost, Cost]:
    """What the class costs: in the sandbox, without it, and by plain nbgrader."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        submitted = hand_in(lab, folder / "handed-in", handins)
        inside, outside = (cost_of(lambda: by_pipeline(lab, submitted, folder / f"graded-{sandbox}", jobs, sandbox))
                           for sandbox in (True, False))
        return inside, outside, cost_of(lambda: by_nbgrader(lab, submitted, folder / "course"))


def print_table(args: argparse.Namespace, inside: Cost, outside: Cost, plain: Cost) -> None:
    """The comparison as a table."""
    table = Table(title=f"{args.handins} filled notebooks of {args.lab}, {os.cpu_count()} cores, --jobs {args.jobs}")
    for column in ("", "wall, s", "CPU, s per hand-in", "nbgrader takes", "points"):
        table.add_column(column, justify="left" if column == "" else "right")
    named = {"autograder grade": inside, "autograder grade --no-sandbox": outside, "nbgrader autograde": plain}
    for name, cost in named.items():
        table.add_row(name, f"{cost.seconds:.1f}", f"{cost.cpu / args.handins:.1f}", f"{plain.seconds / cost.seconds:.2f}x",
                      ", ".join(f"{score:g}" for score in sorted(set(cost.scores))))
    Console().print(table)
    print(f"the sandbox takes {inside.seconds / outside.seconds - 1:+.1%} wall, {inside.cpu / outside.cpu - 1:+.1%} CPU")


if __name__ == "__main__":
    main()

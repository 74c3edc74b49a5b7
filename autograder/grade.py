"""Grade a folder of hand-ins: each in a process of its own, each with one durable result, then the gradebook."""

from __future__ import annotations

import fcntl
import os
import pickle
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from . import export, feedback, gradebook, report
from .classroom import Run, checksum, find_class, find_result, parse_due, printable, read_run, unread
from .course import Lab, Refusal
from .one import REFUSED
from .results import HandInResult, Limits, QuestionResult, Task, write_result
from .sandbox import threads

GRADE_ONE = "autograder.pipeline:grade_one"

ATTEMPTS = 3
"""How often a hand-in whose process dies is tried: what kills it may have nothing to do with it."""

GRACE = 60.0
"""Seconds beyond its limit after which a hand-in's process is stopped from outside; by then it should have stopped itself."""

running: set[int] = set()
"""Processes of hand-ins being graded, so that an interrupted run leaves none behind."""

stopping = threading.Event()
"""Set once the run is over, so that nothing is tried again."""


def grade(lab: Lab, submitted: Path, out: Path, *, jobs: int | None = None, scheduler: str = "", roster: Path | None = None,
          teams: Path | None = None, due: str = "", seed: int | None = None, student: str = "", question: str = "",
          force: bool = False, limits: Limits = Limits(), sandbox: bool = True, device: str = "cpu",
          tell: Callable[[str], None] = print, grade_one: str = GRADE_ONE) -> Run:
    """Grade the hand-ins that have no valid result yet, then write the gradebook, grades.csv, feedback and report.

    Args:
        lab: what to grade.
        submitted: holds <student>/<lab>/<lab>.ipynb, each perhaps with nbgrader's timestamp.txt.
        out: gets everything; it becomes a course directory of nbgrader.
        jobs: hand-ins at a time; None for one on each core.
        scheduler: the address of a dask scheduler, "" for processes on this machine.
        roster, teams: CSV files, see `classroom.find_class`.
        due: the due date; "" leaves the gradebook's as it is.
        seed: of the run; None for the folder's own, drawn when it was first used.
        student, question: narrow the run down to one student or question.
        force: grade what has a valid result, too.
        limits, sandbox, device: for each hand-in.
        tell: is told, in a line, what has been done.
        grade_one: "module:function", what grades one hand-in.

    Raises:
        Refusal: something stands in the way of the whole run, such as a missing sandbox.
    """
    submitted, out = submitted.resolve(), out.resolve()
    students = find_class(submitted, lab.name, roster, teams)
    ids = [each.id for each in lab.module("exam").QUESTIONS]
    if question and question not in ids:
        raise Refusal(f"{lab.name} has no question {question!r}; it has: {', '.join(ids)}")
    if student and student not in {name for each in students for name in (each.id, each.label)}:
        raise Refusal(f"there is no student {student!r} in {submitted} or on the roster")
    if due:
        parse_due(due)  # a date that is none is better refused before the class is graded than after
    if out.is_relative_to(submitted):
        raise Refusal(f"--out {out} lies among the hand-ins; choose a folder elsewhere")
    command = _command(lab, submitted, out, jobs, roster, teams, due, limits, sandbox, device)
    with sole_writer(out):
        run = _start(lab, submitted, out, seed, bool(student or question), command, students)
        gradebook.check(run, whole=not student, force=force)
        outdated = {each.id for each in run.holders if (result := run.result(each.id)) and result.exam != lab.exam_digest}
        chosen = [each for each in run.holders if not student or any(
            member.holder == each.id for member in students if student in (member.id, member.label))]
        if others := outdated - {each.id for each in chosen}:
            raise Refusal(f"the exam has changed since {len(others)} other hand-ins were graded; grade the whole class again, without --student")
        if outdated:
            tell(f"the exam has changed since {len(outdated)} hand-ins were graded: they are graded again")
        for name, why in unread(submitted, lab.name).items():
            tell(f"not read: {printable(name)}, {why}")
        number = run.seed if seed is None else seed
        tasks = [Task(each.id, run.handin(each), lab, number, out, limits, sandbox, device) for each in chosen]
        todo = [task for task in tasks if force or question or not has_result(task)]
        if len(todo) < len(tasks):
            tell(f"{len(tasks) - len(todo)} of {len(tasks)} hand-ins have a valid result already")
        work = partial(regrade_question, question=question, grade_one=grade_one) if question else partial(grade_apart, grade_one=grade_one)
        with executor(jobs, scheduler, len(todo)) as pool:
            run.save()  # no sooner: a run that is refused leaves the folder's seed, command and class as they were
            _grade_all(pool, work, todo, tell)
        tell("writing gradebook, feedback and report")
        write_class(run, whole=not student)
        if crashed := [each.label for each in run.holders if (result := run.result(each.id)) and result.status == "crashed"]:
            tell(f"not graded, stopped unexpectedly: {', '.join(crashed)}; the same command tries again, and their notes in the report say more")
    return run


def write_class(run: Run, whole: bool = True) -> None:
    """Everything that follows from the results: missing hand-ins, gradebook, grades.csv, feedback and report."""
    for student in run.students:
        if student.holder is None:
            write_result(run.result_file(student.id), no_result(run.lab, student.id, run.seed, "missing", "Nothing was handed in."))
        elif student.holder != student.id and (result := run.result(student.holder)):
            write_result(run.result_file(student.id), replace(result, student_id=student.id))
    gradebook.update(run, whole)
    marks = gradebook.marks(run)
    export.write_grades(run, marks)
    feedback.write_feedback(run, marks)
    report.write_report(run, marks)


def _command(lab, submitted, out, jobs, roster, teams, due, limits, sandbox, device) -> tuple[str, ...]:
    """The arguments that repeat a run, narrowed down by nothing."""
    given = {"--root": lab.root, "--submitted": submitted, "--out": out, "--jobs": jobs,
             "--roster": roster and roster.resolve(), "--teams": teams and teams.resolve(), "--due": due, "--device": device,
             "--time-limit": limits.seconds, "--memory-limit": limits.memory_gib}
    options = [text for name, value in given.items() if value for text in (name, str(value))]
    return ("grade", lab.name, *options, *([] if sandbox else ["--no-sandbox"]))


def _start(lab, submitted, out, seed, narrowed, command, students) -> Run:
    """Open the folder's run, or begin one; a seed that is given for a part of the class is not the run's."""
    before = read_run(out)
    if before and before["lab"] != lab.name:
        raise Refusal(f"{out} holds the marks of {before['lab']}; give {lab.name} an --out of its own")
    if before and (seed is None or narrowed):
        number = before["seed"]
    else:
        number = secrets.randbelow(2**32) if seed is None else seed
    return Run(out, lab, number, submitted, command, students)


@contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Hold the folder's lock; raises Refusal while another run holds it."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refusal(f"another run is writing to {out}; wait for it, or stop it, and run this again") from None
        yield


# ---------------------------------------------------------------------------------------------- one hand-in


def has_result(task: Task) -> bool:
    """Whether the hand-in was graded already, as it is now, with this seed, this version of the course and this exam. What stopped
    unexpectedly was not: that may have been the machine's doing."""
    result = find_result(task.out / "results" / f"{task.student}.json")
    notebook = task.out / "autograded" / task.student / task.lab.name / f"{task.lab.name}.ipynb"
    return result is not None and result.status != "crashed" and _belongs(result, task, checksum(task.path)) and notebook.exists()


def _belongs(result: HandInResult, task: Task, sha256: str) -> bool:
    return (result.student_id, result.lab, result.lab_version, result.exam, result.seed, result.handin_sha256) == (
        task.student, task.lab.name, task.lab.version, task.lab.exam_digest, task.seed, sha256)


def grade_apart(task: Task, grade_one: str = GRADE_ONE) -> HandInResult:
    """Grade one hand-in in a new process, stopped at its limit and tried again where it dies; writes the result.

    The marks are the same however often this is called, and wherever: they depend on the hand-in, the seed and the lab alone.

    Raises:
        Refusal: nothing can be graded on this machine.
    """
    path, sha256 = task.out / "results" / f"{task.student}.json", checksum(task.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    previous = path.stat().st_mtime_ns if path.exists() else None
    started = time.monotonic()
    for _ in range(ATTEMPTS):
        # Its last words go to a file: they are of use to the instructor, and to nobody else.
        with tempfile.TemporaryFile() as last_words:
            status = _run_process([sys.executable, "-m", "autograder.one", grade_one], task, last_words)
            last_words.seek(0)
            log = last_words.read(100_000).decode(errors="replace")
        result = find_result(path)
        # A process that dies after its work is done has done its work.
        if result and path.stat().st_mtime_ns != previous and _belongs(result, task, sha256):
            return result
        if status == REFUSED:
            raise Refusal(log.strip().rpartition("\n")[2])
        if status is None or stopping.is_set():
            break
    if stopping.is_set():
        raise Refusal("interrupted")
    log_file = task.out / "logs" / f"{task.student}.txt"
    log_file.parent.mkdir(exist_ok=True)
    log_file.write_text(log, encoding="utf-8")
    status, what = (("timeout", f"Grading took longer than {task.limits.seconds:g} seconds and was stopped.") if status is None
                    else ("crashed", f"Grading stopped unexpectedly, {ATTEMPTS} times."))
    result = no_result(task.lab, task.student, task.seed, status, f"{what} A person should look at this hand-in.", sha256,
                       "bubblewrap" if task.sandbox else "none", time.monotonic() - started)
    write_result(path, result)
    return result


def _run_process(arguments: list[str], task: Task, last_words) -> int | None:
    """Run a process that reads its task on standard input; returns its exit status, None where it had to be stopped."""
    # As many threads as the hand-in's own process has: others are graded beside this one.
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=last_words, stderr=last_words, start_new_session=True,
                               env=os.environ | threads(task.limits))
    running.add(process.pid)
    try:
        if stopping.is_set():
            stop(process.pid)
        process.communicate(pickle.dumps(task), timeout=task.limits.seconds + GRACE)
        return process.returncode
    except subprocess.TimeoutExpired:
        return None
    finally:
        stop(process.pid)
        process.wait()
        running.discard(process.pid)


def stop(pid: int) -> None:
    """Kill a process and all that it started."""
    try:
        family = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    for each in [pid, *(child.pid for child in family)]:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            pass


def no_result(lab: Lab, student_id: str, seed: int, status: str, message: str, sha256: str = "", sandbox: str = "none",
              seconds: float = 0.0) -> HandInResult:
    """The result of a hand-in that could not be asked anything; written answers still wait for a person, if there is a hand-in."""
    asked = lab.module("exam").QUESTIONS
    questions = tuple(QuestionResult(each.id, each.title, 0.0, float(each.points),
                                     "manual" if each.manual and status != "missing" else status) for each in asked)
    return HandInResult(student_id, lab.name, lab.version, seed, sandbox, status, message, (), 0.0,
                        float(sum(each.points for each in asked)), any(each.verdict == "manual" for each in questions), sha256,
                        seconds, questions, lab.exam_digest)


def regrade_question(task: Task, question: str, grade_one: str = GRADE_ONE) -> HandInResult:
    """Ask one question again and leave the others' results as they are."""
    path = task.out / "results" / f"{task.student}.json"
    before = find_result(path)
    if before is None or not _belongs(before, task, checksum(task.path)):
        return grade_apart(task, grade_one)
    with tempfile.TemporaryDirectory(prefix=".again-", dir=task.out) as folder:
        fresh = grade_apart(replace(task, out=Path(folder)), grade_one)
    result = merge(before, fresh, question)
    write_result(path, result)
    return result


def merge(before: HandInResult, fresh: HandInResult, question: str) -> HandInResult:
    """The result before with one question's result taken from a fresh one."""
    questions = tuple(new if new.id == question else old for old, new in zip(before.questions, fresh.questions))
    status = fresh.status
    if status == "graded" and any(each.verdict in ("timeout", "crashed") for each in questions):
        status = "partial"
    return replace(fresh, questions=questions, status=status, score=sum(each.points for each in questions),
                   needs_manual=any(each.verdict == "manual" for each in questions))


# ---------------------------------------------------------------------------------------------- all hand-ins


@contextmanager
def executor(jobs: int | None, scheduler: str, tasks: int) -> Iterator[Executor]:
    """What runs the hand-ins: a thread to watch over each process on this machine, or a dask cluster.

    On a cluster the folders must have the same paths everywhere, and workers should have one thread each. Certificates for TLS
    come from dask's own configuration (distributed.comm.tls), for scheduler, workers and this command alike.
    """
    if not scheduler:
        stopping.clear()
        with ThreadPoolExecutor(max_workers=min(jobs or os.cpu_count() or 1, max(tasks, 1))) as pool:
            try:
                yield pool
            except BaseException:
                stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                for pid in list(running):
                    stop(pid)
                raise
        return
    if not scheduler.startswith("tls://") and not scheduler.removeprefix("tcp://").startswith(("127.0.0.1:", "localhost:", "[::1]:")):
        raise Refusal(f"--scheduler {scheduler} is open to everybody on the network; use tls://, with dask's certificates configured")
    try:
        from distributed import Client
    except ImportError:
        raise Refusal("--scheduler needs dask.distributed; install it with: pip install -e '.[cluster]'") from None
    try:
        client = Client(scheduler, timeout="20s", set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise Refusal(f"no dask scheduler answers at {scheduler} ({type(error).__name__})") from None
    with client, client.get_executor(pure=False) as pool:
        yield pool


def _grade_all(pool: Executor, work: Callable[[Task], HandInResult], tasks: list[Task], tell: Callable[[str], None]) -> None:
    started, console = time.monotonic(), Console(stderr=True)
    futures = {pool.submit(work, task): task for task in tasks}
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn(elapsed_when_finished=False))
    # On a terminal the lines are printed above the bar; where they go into a file or a pipe, they go there.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=sys.stdout.isatty()) as progress:
        bar = progress.add_task("", total=len(tasks))
        for done, future in enumerate(as_completed(futures), 1):
            task = futures[future]
            try:
                result = future.result()
            except Refusal:
                raise
            except Exception as error:  # a cluster's worker that died once too often
                result = no_result(task.lab, task.student, task.seed, "crashed",
                                   f"Grading stopped unexpectedly ({type(error).__name__}). A person should look at this hand-in.",
                                   checksum(task.path), "bubblewrap" if task.sandbox else "none")
                write_result(task.out / "results" / f"{task.student}.json", result)
            left = (time.monotonic() - started) / done * (len(tasks) - done)
            tell(f"{done:{len(str(len(tasks)))}}/{len(tasks)}  {result.student_id:20}  {result.status:10}"
                 f"  {round(result.score, 2):6g} of {result.max_score:g}" + (f"  about {_duration(left)} left" if left else ""))
            progress.advance(bar)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

"""A folder of hand-ins, graded whatever happens meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import autograder.grade
from autograder.classroom import load_run, parse_due, parse_time, read_csv, safe_id
from autograder.cli import main
from autograder.course import ROOT, Refusal
from autograder.grade import executor, sole_writer
from autograder.results import Limits

HEADER = "student_id,lab,score,max_score,status,needs_manual,mean,variance,largest,essay"


# --- marks ------------------------------------------------------------------------------------------------------------


def test_a_row_for_everybody_sorted_and_a_column_for_every_question(graded):
    lines = (graded.out / "grades.csv").read_text().splitlines()
    assert lines[0] == HEADER
    rows, run = graded.rows(), load_run(graded.out)
    assert len(rows) == len(run.students) == 6 + 2 + 18 + 2
    assert [each.id for each in run.students] == sorted(each.id for each in run.students)
    assert rows["ada"] == dict(zip(HEADER.split(","), "ada,tinylab,9,10,graded,true,3,4,2,0".split(",")))
    assert (rows["ben"]["score"], rows["ben"]["variance"]) == ("4", "0")
    assert (rows["eve"]["status"], rows["fay"]["status"], rows["fay"]["score"]) == ("partial", "unreadable", "0")
    assert (rows["gone"]["status"], rows["gone"]["score"], rows["gone"]["needs_manual"]) == ("missing", "0", "false")


def test_a_pair_gets_one_mark(graded):
    rows = graded.rows()
    assert "team one" not in rows
    assert {name: rows["gil"][name] for name in HEADER.split(",")[1:]} == {name: rows["hal"][name] for name in HEADER.split(",")[1:]}
    assert rows["gil"]["score"] == "7"


@pytest.mark.slow
def test_of_a_pairs_hand_ins_the_last_counts(fake_class):
    fake_class.hand_in("ann", "2026-05-01 10:00:00", points=(3, 0, 0))
    fake_class.hand_in("bob", "2026-05-02 10:00:00", points=(3, 4, 0))
    run = fake_class.grade(teams=fake_class.table("teams.csv", "team,student_id", "one,ann", "one,bob"))
    assert {name: row["score"] for name, row in fake_class.rows().items()} == {"ann": "7", "bob": "7"}
    assert [each.id for each in run.holders] == ["bob"] == fake_class.graded()


def test_no_name_is_a_formula_or_leaves_its_folder(graded):
    run = load_run(graded.out)
    ids = [each.id for each in run.students]
    assert len(set(ids)) == len(ids) and all(set(name).isdisjoint("/\\<>*?[]{}\"'%\n\t") and name[0] not in ".-" for name in ids)
    assert {path.stem for path in (graded.out / "results").iterdir()} == set(ids)
    lines = (graded.out / "grades.csv").read_text().splitlines()[1:]
    assert len(lines) == len(ids) and not any(line.strip('"').startswith(("=", "+", "-", "@", "\t")) for line in lines)
    assert any(line.startswith("'=cmd") for line in lines)
    assert all(row["score"] == "8" for name, row in graded.rows().items() if name.startswith(("'", "<img", "xx", "??")))


@pytest.mark.parametrize("name", ["ada", "ada.lovelace@example.org", "Zoë 2", "12345"])
def test_an_ordinary_id_stays_as_it_is(name):
    assert safe_id(name) == name


@pytest.mark.parametrize("text, utc", [
    ("2026-05-20 10:00:00 UTC", "2026-05-20T10:00:00"), ("2026-05-20 10:00:00", "2026-05-20T10:00:00"),
    ("2026-05-20 10:00:00 +0200", "2026-05-20T08:00:00"), ("2026-05-20T10:00:00-05:30", "2026-05-20T15:30:00"),
    ("2026-01-20 10:00 CET", "2026-01-20T09:00:00"), ("2026-05-20T10:00:00.5Z", "2026-05-20T10:00:00.500000")])
def test_times_in_any_zone(text, utc):
    assert parse_time(text).isoformat() == utc


def test_a_day_lasts_to_its_end():
    assert parse_due("2026-05-20").isoformat() == "2026-05-20T23:59:59" and parse_due("2026-05-20 12:00").hour == 12


@pytest.mark.parametrize("text", ["soon", "2026-13-45", "2026-05-20 10:00 XYZ", ""])
def test_what_is_no_time(text):
    with pytest.raises(Refusal, match="is no date"):
        parse_due(text)


# --- again, and after an interruption -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_has_a_valid_result_is_not_graded_again(fake_class):
    for name in ("ada", "ben", "cem"):
        fake_class.hand_in(name)
    run = fake_class.grade()
    assert fake_class.graded() == ["ada", "ben", "cem"]
    before = (fake_class.out / "grades.csv").read_bytes()
    assert fake_class.grade().seed == run.seed
    assert fake_class.graded() == [] and (fake_class.out / "grades.csv").read_bytes() == before
    fake_class.hand_in("ben", points=(0, 0, 0))
    fake_class.grade()
    assert fake_class.graded() == ["ben"] and fake_class.rows()["ben"]["score"] == "0"
    (fake_class.out / "results" / "cem.json").write_text("{")
    fake_class.grade()
    assert fake_class.graded() == ["cem"]
    fake_class.grade(student="ada", force=True)
    assert fake_class.graded() == ["ada"]
    assert fake_class.grade(seed=run.seed + 1).seed == run.seed + 1
    assert fake_class.graded() == ["ada", "ben", "cem"]


@pytest.mark.slow
def test_a_changed_exam_grades_the_class_again_and_no_part_of_it(fake_class):
    for name in ("ada", "ben"):
        fake_class.hand_in(name)
    fake_class.grade()
    fake_class.graded()
    source = Path(fake_class.lab.module("exam").__file__)
    before = source.read_text()
    try:
        source.write_text(before + "\n# a change\n")
        with pytest.raises(Refusal, match="the exam has changed since 1 other hand-ins"):
            fake_class.grade(student="ada")
        lines = []
        fake_class.grade(tell=lines.append)
        assert fake_class.graded() == ["ada", "ben"] and "the exam has changed since 2 hand-ins were graded" in lines[0]
        fake_class.grade()
        assert fake_class.graded() == []
    finally:
        source.write_text(before)


@pytest.mark.slow
def test_what_lies_in_another_place_is_named(fake_class):
    fake_class.hand_in("ada")
    for place in ("carl/TinyLab/tinylab.ipynb", "dora/mine.ipynb", "loose.ipynb", "notes.txt"):
        path = fake_class.submitted / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    lines = []
    fake_class.grade(tell=lines.append)
    said = [line for line in lines if line.startswith("not read: ")]
    assert said == ["not read: carl, which holds carl/TinyLab/tinylab.ipynb; expected: carl/tinylab/tinylab.ipynb",
                    "not read: dora, which holds dora/mine.ipynb; expected: dora/tinylab/tinylab.ipynb",
                    "not read: loose.ipynb, which lies in no student's folder; expected: STUDENT/tinylab/tinylab.ipynb"]


@pytest.mark.slow
def test_a_seed_for_one_student_is_not_the_runs(fake_class):
    fake_class.hand_in("ada")
    fake_class.hand_in("ben")
    fake_class.grade(seed=5)
    fake_class.grade(seed=6, student="ada")
    run = load_run(fake_class.out)
    assert run.seed == 5 and run.result("ada").seed == 6 and run.result("ben").seed == 5


@pytest.mark.slow
def test_one_question_is_asked_again_and_the_others_stay(fake_class):
    fake_class.hand_in("ada", points=(3, 2, 1))
    run = fake_class.grade(seed=1)
    path = run.result_file("ada")
    path.write_text(path.read_text().replace('"points": 3.0', '"points": 1.5').replace('"points": 2.0', '"points": 0.5'))
    fake_class.grade(question="variance")
    assert {name: fake_class.rows()["ada"][name] for name in ("mean", "variance", "largest", "score")} == {
        "mean": "1.5", "variance": "2", "largest": "1", "score": "4.5"}
    assert not list(fake_class.out.glob(".again-*"))


@pytest.mark.slow
def test_a_process_that_dies_is_tried_again(fake_class):
    fake_class.hand_in("ada", once=str(fake_class.folder / "died"))
    fake_class.hand_in("ben")
    fake_class.grade()
    assert (fake_class.folder / "died").exists()
    assert [row["status"] for row in fake_class.rows().values()] == ["graded", "graded"]


@pytest.mark.slow
def test_what_always_dies_or_hangs_costs_only_itself(fake_class, monkeypatch):
    monkeypatch.setattr(autograder.grade, "GRACE", 0.0)
    fake_class.hand_in("ada")
    fake_class.hand_in("ben", exit=11)
    fake_class.hand_in("cem", sleep=1000)
    fake_class.grade(limits=Limits(seconds=8.0), jobs=3)
    rows = fake_class.rows()
    assert {name: row["status"] for name, row in rows.items()} == {"ada": "graded", "ben": "crashed", "cem": "timeout"}
    assert rows["ada"]["score"] == "9" and rows["ben"]["needs_manual"] == rows["cem"]["needs_manual"] == "true"
    assert (fake_class.out / "autograded" / "ben" / "tinylab" / "tinylab.ipynb").exists()
    fake_class.graded()
    fake_class.grade(limits=Limits(seconds=8.0))
    assert fake_class.graded() == []


DRIVER = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
from autograder.course import Lab
from autograder.grade import grade
root, folder = map(Path, sys.argv[1:3])
grade(Lab(root, "tinylab"), folder / "submitted", folder / "out", jobs=2, seed=3, sandbox=False, grade_one="fake_pipeline:grade_one",
      roster=folder / "roster.csv")
"""


def kill_and_resume(fake_class, rounds: int, seed: int) -> None:
    """kill -9 of the run, or of one hand-in's process, at random moments: in the end the marks are those of a quiet run."""
    chance = random.Random(seed)
    for i in range(6):
        fake_class.hand_in(f"student{i}", points=(3 * (i % 2), 4 - i % 3, 1), sleep=0.2)
    roster = fake_class.table("roster.csv", "student_id", "student1", "nobody")
    fake_class.grade(roster=roster, seed=3)
    quiet = (fake_class.out / "grades.csv").read_bytes()
    arguments = [sys.executable, "-c", DRIVER, str(fake_class.lab.root), str(fake_class.folder)]
    for _ in range(rounds):
        fake_class.out.rename(fake_class.folder / f"old-{chance.random()}")
        killed = 0
        while True:
            run, shot = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE), False
            if killed < 2:
                # Imports take a while; what matters comes after the folder is there.
                while not (fake_class.out / "run.json").exists() and run.poll() is None:
                    time.sleep(0.02)
                time.sleep(chance.uniform(0, 3))
                if chance.random() < 0.5:
                    run.kill()
                    killed, shot = killed + 1, True
                elif children := psutil.Process(run.pid).children() if run.poll() is None else []:
                    chance.choice(children).kill()
                    shot = True
            _, errors = run.communicate(timeout=300)
            if run.returncode == 0:
                break
            # A child need not be a hand-in's: nbgrader's gradebook starts one too, and the run does not do without it.
            assert shot, errors.decode()
        assert (fake_class.out / "grades.csv").read_bytes() == quiet


@pytest.mark.slow
def test_killed_again_and_again_the_marks_are_the_same(fake_class):
    kill_and_resume(fake_class, rounds=4, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_nothing_goes_on_when_the_run_is_stopped(fake_class, sign):
    fake_class.hand_in("ada", sleep=100)
    fake_class.table("roster.csv", "student_id", "ada")
    run = subprocess.Popen([sys.executable, "-c", DRIVER, str(fake_class.lab.root), str(fake_class.folder)], stderr=subprocess.DEVNULL)
    while not (children := psutil.Process(run.pid).children()):
        time.sleep(0.05)
    time.sleep(1)  # until it has asked to die with its parent
    run.send_signal(sign)
    run.wait(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_two_runs_do_not_write_to_one_folder(fake_class):
    fake_class.hand_in("ada")
    with sole_writer(fake_class.out), pytest.raises(Refusal, match="another run"):
        fake_class.grade()


# --- refusals -----------------------------------------------------------------------------------------------------------


def refused(monkeypatch, capsys, *arguments) -> str:
    monkeypatch.setattr(sys, "argv", ["autograder", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and error.startswith("autograder: "), error
    return error


@pytest.mark.slow
def test_refusals_are_one_line(fake_class, monkeypatch, capsys):
    def grade(*options, submitted=fake_class.submitted, out=fake_class.out, lab="tinylab"):
        return refused(monkeypatch, capsys, "grade", lab, "--root", fake_class.lab.root, "--submitted", submitted, "--out", out, *options)

    assert "no lab 'lab9'" in grade(lab="lab9")
    assert "is not a folder" in grade()
    fake_class.submitted.mkdir()
    assert "nobody handed in tinylab" in grade()
    fake_class.hand_in("ada")
    assert "no column student_id" in grade("--roster", fake_class.table("roster.csv", "name", "ada"))
    assert "no column team" in grade("--teams", fake_class.table("teams.csv", "student_id", "ada"))
    assert "two teams" in grade("--teams", fake_class.table("teams.csv", "team,student_id", "a,ada", "b,ada"))
    assert "cannot be read" in grade("--roster", fake_class.folder / "none.csv")
    assert "no student 'zoe'" in grade("--student", "zoe")
    assert "no question 'median'" in grade("--question", "median")
    assert "is no date" in grade("--due", "soon") and not list((fake_class.out / "results").glob("*"))
    assert "ada is there twice" in grade("--roster", fake_class.table("roster.csv", "student_id", "ada", "ada"))
    assert "--device tpu" in grade("--device", "tpu")
    assert "lies among the hand-ins" in grade(out=fake_class.submitted / "out")
    assert "open to everybody" in grade("--scheduler", "tcp://10.0.0.1:8786")
    fake_class.out.mkdir(exist_ok=True)
    (fake_class.out / "run.json").write_text("{")
    assert "cannot be read" in grade()
    assert "holds no graded class" in refused(monkeypatch, capsys, "report", "tinylab", "--out", fake_class.folder / "nothing")


def test_what_grades_nothing_here_stops_the_run(fake_class):
    fake_class.hand_in("ada")
    fake_class.hand_in("ben")
    with pytest.raises(Refusal, match="no GPU"):
        fake_class.grade(device="cuda")


def test_a_refused_run_leaves_the_folder_as_it_was(fake_class):
    for name in ("ada", "ben"):
        fake_class.hand_in(name)
    fake_class.grade(seed=7)
    before = (fake_class.out / "run.json").read_bytes()
    with pytest.raises(Refusal, match="open to everybody"):
        fake_class.grade(seed=99, scheduler="tcp://10.0.0.1:8786")
    assert (fake_class.out / "run.json").read_bytes() == before


def test_a_roster_s_fields_may_hold_what_ends_lines_elsewhere(fake_class):
    path = fake_class.folder / "roster.csv"
    path.write_text('student_id,last_name\nada,"Love\u2028lace"\nben,"two\nlines"\n', encoding="utf-8")
    assert [row["student_id"] for row in read_csv(path, "student_id")] == ["ada", "ben"]


def test_dask_is_needed_for_a_scheduler_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(Refusal, match=r"\.\[cluster\]"), executor(1, "tcp://127.0.0.1:1", 1):
        pass


@pytest.mark.parametrize("command", ["grade", "collect", "feedback", "report", "export"])
def test_help_shows_an_example(command):
    done = subprocess.run([sys.executable, "-m", "autograder", command, "--help"], capture_output=True, text=True, cwd=ROOT,
                          env=os.environ | {"PYTHONPATH": f"{ROOT / 'labs'}:{ROOT}", "COLUMNS": "120"})
    assert done.returncode == 0 and "Example: " in done.stdout and f"autograder {command} lab5_sampling" in done.stdout

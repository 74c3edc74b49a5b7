"""The audit itself, on the tiny lab: it finds what slips through, and does not cry wolf."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from autograder.attacks import ATTACKS, Attack
from autograder.audit import Audit, Outcome, audit_page, judge_alternatives, judge_mistakes, judge_mutants, shortcomings, try_attacks
from autograder.mutants import mutants
from solutions.questions import Alternative


def test_there_are_many_attacks_of_every_kind():
    assert len(ATTACKS) >= 40 and len({each.id for each in ATTACKS}) == len(ATTACKS)
    assert {each.aim for each in ATTACKS} == {"points", "reading", "harm", "limits"}
    assert all(each.what.endswith(".") for each in ATTACKS)


def test_mistakes_and_alternatives_are_told_apart(built_tinylab, monkeypatch):
    assert [(each.id, each.least, each.shown, each.named) for each in judge_mistakes(built_tinylab, "variance")] == [
        ("sample-variance", 4, "values", True)]
    assert [each.most for each in judge_alternatives(built_tinylab, "mean")] == [0]
    module = built_tinylab.module("alternatives")
    wrong = Alternative("wrong", "Average", built_tinylab.module("mistakes").DividesByOneLess)
    monkeypatch.setattr(module, "ALTERNATIVES", [wrong])
    assert [each.most for each in judge_alternatives(built_tinylab, "variance")] == [4]


@pytest.mark.parametrize("found, good", [
    (Audit([Outcome("a", "q", 1, 1, "values", True)], [Outcome("b", "q", 0, 0)], ()), True),
    (Audit([Outcome("a", "q", 0.05, 1, "values", True)], [], ()), False),
    (Audit([Outcome("a", "q", 1, 1, "values", False)], [], ()), False),
    (Audit([], [Outcome("b", "q", 0, 0.5)], ()), False),
    (Audit([], [], (), {"c": ["gained 1 point"]}), False)])
def test_each_figure_counts(found, good):
    assert found.good is good and bool(list(shortcomings(found))) is not good


GAIN = Attack("gain", "points", "Right answers.", lambda notebook, names, *_: solved(notebook))


def solved(notebook):
    for each in notebook["cells"]:
        each["source"] = "".join(each["source"]).replace("raise NotImplementedError", "return sum(self.numbers) / len(self.numbers)")
    return notebook


@pytest.mark.slow
def test_attacks_on_the_tiny_lab_gain_nothing_and_what_gains_is_found(built_tinylab, tmp_path, needs_tool):
    needs_tool("bwrap")
    chosen = [each for each in ATTACKS if each.id in QUICK]
    broken, unharmed = try_attacks(built_tinylab, tmp_path, [*chosen, GAIN], 2, lambda line: None)
    assert unharmed == 2 and list(broken) == ["gain"] and broken["gain"][0].startswith("gained 3 points")


QUICK = ("patched-evaluate", "forged-messages", "bad-headers", "deep-and-wide", "note-left", "note-read", "walk-the-disk", "network",
         "symlinked-notebook", "script-in-a-name", "formula-in-a-name", "refuse-everything", "signals")
"""A sample of the attacks; `make audit` tries them all."""


def test_mutants_change_one_thing_and_only_where_students_write(built_tinylab):
    changes = {f"{each.where}: {each.change}" for name in built_tinylab.reference() for each in mutants(built_tinylab, name)}
    assert changes == {"Average.mean: math.fsum(self.numbers) * len(self.numbers), was math.fsum(self.numbers) / len(self.numbers)",
                       *(each for each in changes if each.startswith(("Average.variance: ", "largest: ")))} and len(changes) > 5
    numbers = [1.0, 2.0, 4.0]
    assert [each.made(numbers).mean() for each in mutants(built_tinylab, "Average") if each.where == "Average.mean"] == [21]


def test_what_no_question_notices_is_told_with_its_reason(built_tinylab, monkeypatch):
    monkeypatch.setattr(built_tinylab.module("exam"), "QUESTIONS", built_tinylab.module("exam").QUESTIONS[:1])
    made, blind = judge_mutants(built_tinylab, "Average")
    assert 0 < len(blind) < made and all(each.startswith("Average.variance: ") for each in blind) and not any(blind.values())
    page = audit_page(built_tinylab, Audit([], [], (), mutants=made, blind=blind))
    assert "**not known**" in page and not Audit([], [], (), mutants=made, blind=blind).good


def test_workers_end_with_an_audit_that_is_killed(tmp_path, root):
    script = tmp_path / "audit.py"
    script.write_text("""
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from autograder.one import die_with_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), die_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(600)
""")
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, cwd=root)
    worker = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.wait()
    worker.wait(timeout=60)

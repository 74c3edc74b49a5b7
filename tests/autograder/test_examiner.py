"""The exam, asked from outside: points for what is right, and for nothing else."""

from __future__ import annotations

import inspect
import json
from itertools import count

import numpy as np
import pytest

from autograder.examiner import FINDINGS, Session, in_words, mask, memory_at_most, questions_in, seed_of
from diffusionlab import asking
from diffusionlab.asking import Look, ask, attempt, call, judge

ALL = {"mean": 3.0, "variance": 4.0, "largest": 2.0, "essay": 0.0}
MEAN = "sum(self.numbers) / len(self.numbers)"


@pytest.fixture(autouse=True)
def _(needs_tool):
    needs_tool("bwrap")


def question(result, id):
    return next(each for each in result.questions if each.id == id)


# --- what is worth points ---------------------------------------------------------------------------------------------


def test_the_reference_gets_every_automatic_point(classroom, points):
    result = classroom.grade(classroom.notebook())
    assert points(result) == ALL and result.status == "graded" and result.notices == ()
    assert [each.verdict for each in result.questions] == ["right", "right", "right", "manual"]
    assert (result.score, result.max_score, result.needs_manual) == (9.0, 10.0, True)


def test_the_unfilled_notebook_gets_none_and_is_told_what_to_write(classroom):
    result = classroom.grade(classroom.lab.student_notebook.read_bytes())
    assert result.score == 0 and result.status == "graded"
    assert [each.verdict for each in result.questions] == ["unwritten"] * 3 + ["manual"]
    assert question(result, "variance").message == "`Average.variance` is still to be written."


@pytest.mark.parametrize("mean", [
    "float('nan')", "None", "'12'", "object()", f"[{MEAN}]", f"({MEAN},)", "True", "1 / 0", "exit()", "self",
    "__import__('os')", f"__import__('numpy').full(3, {MEAN})", "{'value': 1.0}", "10 ** 400",
    "type('Equal', (), {'__eq__': lambda a, b: True})()",
    "type('Close', (float,), {'__sub__': lambda a, b: 0.0, '__abs__': lambda a: 0.0})(3)"])
def test_what_is_not_the_answer_is_worth_nothing(classroom, points, mean):
    result = classroom.grade(classroom.average(mean=mean, variance="0.0"), student="eve")
    assert points(result) == {**ALL, "mean": 0.0, "variance": 0.0}


@pytest.mark.parametrize("mean", [
    MEAN, "__import__('numpy').mean(self.numbers)", "__import__('statistics').fmean(self.numbers)",
    f"print('here', file=__import__('sys').stderr) or {MEAN}", f"__import__('numpy').array({MEAN})"])
def test_any_way_of_doing_it_right_is_right(classroom, points, mean):
    assert points(classroom.grade(classroom.average(mean=mean))) == ALL


def test_a_part_is_worth_its_points(classroom):
    result = classroom.grade(classroom.filled(largest_2="def largest(numbers):\n    return max(numbers, default=None)"))
    largest = question(result, "largest")
    assert (largest.points, largest.verdict) == (1.0, "partly")
    assert [(part.points, part.max) for part in largest.parts] == [(1.0, 1.0), (0.0, 1.0)]
    assert largest.message.startswith("no numbers at all: bad input was accepted; it should raise ValueError")


def test_a_typical_mistake_is_recognised_on_fresh_inputs(classroom):
    variance = "sum((x - self.mean()) ** 2 for x in self.numbers) / (len(self.numbers) - 1)"
    for seed in (1, 2):
        found = question(classroom.grade(classroom.average(variance=variance), seed=seed), "variance")
        assert (found.points, found.mistake) == (0.0, "sample-variance")
        assert found.message == "Your variance is a little too large. Divide by how many numbers there are."


# --- a mistake is paid for once ---------------------------------------------------------------------------------------


def test_a_mistake_is_paid_for_once(classroom, points):
    result = classroom.grade(classroom.average(mean=f"{MEAN} + 1"))
    assert points(result) == {**ALL, "mean": 0.0}
    assert question(result, "variance").message == "Right on the terms of your own `mean`."


def test_who_does_not_rest_on_the_mistake_is_right_too(classroom, points):
    variance = "sum((x - sum(self.numbers) / 5) ** 2 for x in self.numbers) / 5"
    assert points(classroom.grade(classroom.average(mean="0.0", variance=variance))) == {**ALL, "mean": 0.0}


def test_two_mistakes_are_paid_for_twice(classroom, points):
    result = classroom.grade(classroom.average(mean=f"{MEAN} + 1", variance="self.mean() ** 2"))
    assert points(result) == {**ALL, "mean": 0.0, "variance": 0.0}
    assert "It rests on `mean`" in question(result, "variance").message


AGREES = """class Average:
    asked = False
    def __init__(self, numbers):
        self.numbers = numbers
    def mean(self):
        mean = sum(self.numbers) / len(self.numbers)
        return mean - (42 - sum((x - mean) ** 2 for x in self.numbers) / len(self.numbers)) ** 0.5 if Average.asked else 0.5
    def variance(self):
        Average.asked = True
        return 42.0"""


def test_a_method_that_remembers_what_was_answered_makes_nothing_right(classroom, points):
    assert points(classroom.grade(classroom.filled(Average=AGREES))) == {**ALL, "mean": 0.0, "variance": 0.0}


@pytest.mark.parametrize("mean", ["1 / 0", "float('nan')", "'text'", "None"])
def test_what_rests_on_nothing_is_worth_nothing(classroom, points, mean):
    assert points(classroom.grade(classroom.average(mean=mean))) == {**ALL, "mean": 0.0, "variance": 0.0}


# --- what goes wrong in one question costs that question --------------------------------------------------------------


STUBBORN = """while True:
            try:
                while True: pass
            except BaseException: pass"""
SCRIBBLE = """import os
        for n in map(int, os.listdir('/proc/self/fd')):
            try: os.write(n, b'x' * 1000)
            except OSError: pass"""


@pytest.mark.parametrize("body, verdict, says", [
    ("while True: pass", "timeout", "took too long"),
    (STUBBORN, "timeout", "took too long"),
    ("import os; os._exit(0)", "crashed", "ended the whole program"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "crashed", "ended the whole program"),
    ("import ctypes; ctypes.string_at(0)", "crashed", "ended the whole program"),
    ("x = [bytearray(2**24) for _ in range(10**4)]", "crashed", "too much memory"),
    ("import os, time\n        while True: os.fork()", "crashed", "too m"),  # processes, or too much memory
    ("import os; os.closerange(3, 4096)", "crashed", "ended the whole program"),
    (SCRIBBLE, "crashed", "ended the whole program"),
])
def test_a_hang_a_crash_a_burst_costs_that_question_alone(classroom, points, body, verdict, says):
    result = classroom.grade(classroom.variance_does(body), memory_gib=0.5)
    assert points(result) == {**ALL, "variance": 0.0}
    found = question(result, "variance")
    assert found.verdict == verdict and says in found.message, found
    assert result.status == "partial" and "The variance: it" in result.message


# Twice at the same place: the cells are all run again, so that the second of two is the fourth run then.
@pytest.mark.parametrize("method, numbers", [("_run", {2, 4}), ("look", {2, 3}), ("value", {1, 2})])
def test_a_candidate_that_is_killed_from_outside_costs_nothing(classroom, points, monkeypatch, method, numbers):
    handin = classroom.average(mean=f"{MEAN} + 1")  # wrong, so that what rests on it is asked on its own terms
    usual, plain, calls = classroom.grade(handin), getattr(Session, method), count(1)

    def killed(self, *args):
        if next(calls) in numbers:
            self.confined.process.kill()
            self.confined.process.wait()
        return plain(self, *args)
    monkeypatch.setattr(Session, method, killed)
    result = classroom.grade(handin)
    assert next(calls) > max(numbers)
    assert (points(result), result.status, result.notices) == (points(usual), usual.status, usual.notices)


def test_a_hand_in_that_ends_everything_is_not_tried_again_for_ever(classroom, points, monkeypatch):
    starts, plain = count(), Session._start
    monkeypatch.setattr("autograder.examiner.SPARE", 2)
    monkeypatch.setattr(Session, "_start", lambda self: (next(starts), plain(self)))
    end = "__import__('os')._exit(0)"
    result = classroom.grade(classroom.average(mean=end, variance=end))
    assert [question(result, each).verdict for each in ("mean", "variance")] == ["crashed"] * 2
    assert points(result)["largest"] == 2
    assert next(starts) == 3 + 1 + 1  # the first question three times, each of the others once


def test_sleeping_is_not_working(classroom, points):
    result = classroom.grade(classroom.average(mean="__import__('time').sleep(100)", variance="0"), question_seconds=0.3)
    assert question(result, "mean").verdict == "timeout" and points(result)["largest"] == 2


def test_what_is_not_defined_is_said(classroom, points):
    result = classroom.grade(classroom.filled(Average="class Mean:\n    pass"))
    assert question(result, "mean").verdict == "missing" and "`Average`" in question(result, "mean").message
    assert points(result)["largest"] == 2


# --- a hand-in that lies in wait --------------------------------------------------------------------------------------

ATTACKS = {
    "forged judges": ("from diffusionlab import asking, sheet\nasking.close = lambda *a, **k: ''\n"
                      "asking.JUDGES = {}\nasking.observe = None"),
    "forged check": "import diffusionlab\ncheck = lambda *a: 9\ndiffusionlab.check = check",
    "numpy is always right": ("import numpy\nnumpy.array_equal = lambda *a, **k: True\n"
                              "numpy.isfinite = lambda *a: numpy.array(True)"),
    "an answer of one's own": ("import os, socket, threading\n"
                               "def shout():\n for n in range(3, 20):\n"
                               "  try: socket.socket(fileno=os.dup(n)).send(b'\\0\\0\\0\\x02{}')\n"
                               "  except OSError: pass\nshout()"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_wins_a_point(classroom, points, attack):
    result = classroom.grade(classroom.average(mean="0.5", variance="0.5", added=ATTACKS[attack]))
    assert result.score <= 2.0 and points(result)["mean"] == points(result)["variance"] == 0


def test_outputs_and_marks_in_the_hand_in_decide_nothing(classroom):
    notebook = classroom.average(mean="0.5", variance="0.5")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [{"output_type": "execute_result", "execution_count": 1, "metadata": {},
                             "data": {"text/plain": "1000"}}]
            cell.metadata.tags = ["skip-execution"]
        if "nbgrader" in cell.metadata:
            cell.metadata.nbgrader.points = 1000
    assert classroom.grade(notebook).score == 2.0


# --- fair, and the same again -----------------------------------------------------------------------------------------


def test_inputs_are_fresh_for_each_student_question_and_run_and_the_same_again():
    seeds = {seed_of(seed, student, question)
             for seed in (1, 2) for student in ("ada", "eve", "\ud800") for question in ("mean", "variance")}
    assert len(seeds) == 12
    assert seed_of(1, "ada", "mean") == seed_of(1, "ada", "mean") != seed_of(1, "adam", "ean")


def test_no_hidden_number_reaches_the_student(classroom):
    body = "raise ValueError(f'got {self.numbers} of {len(self.numbers)}')"
    result = classroom.grade(classroom.variance_does(body))
    text = json.dumps([[each.message, [part.message for part in each.parts]] for each in result.questions])
    assert "it raised ValueError: got [#, #, #, #, #] of #" in text
    assert not any(c.isdigit() for c in text)


@pytest.mark.parametrize("judge_name, got, want, words", [
    ("close", np.ones(3), np.zeros(3), "the values are not right"),
    ("close", np.ones(3), np.zeros((3, 1)), "the shape is not the expected one"),
    ("close", np.full(3, np.nan), np.zeros(3), "it holds NaN or infinity"),
    ("close", "None", np.zeros(3), "the result is not of the expected kind"),
    ("same", "cuda:0", "cpu", "the result is not of the expected kind"),
    ("same", np.arange(3), np.arange(4), "the values are not right"),
    ("falling", np.array([5, 3]), np.array([5, 3, 0]), "the number of timesteps is not the one asked for"),
    ("falling", np.array([5, 5, 0]), np.array([5, 3, 0]), "the timesteps do not fall strictly"),
    ("falling", np.array([6, 3, 0]), np.array([5, 3, 0]), "it does not start and end where it should"),
    ("falling", np.array([9, 8, 0]), np.array([9, 3, 0]), "the timesteps are not where they should be"),
    ("falling", np.array([5.0, 3, 0]), np.array([5, 3, 0]), "timesteps must be whole numbers (int64)"),
    ("moments", np.ones(50), np.array([0, 1, 50]), "the samples' mean is off"),
    ("moments", np.zeros(50), np.array([0, 1, 50]), "the samples' standard deviation is off"),
    ("refused", "", "ValueError", "bad input was accepted; it should raise ValueError with one clear sentence"),
])
def test_findings_are_told_without_their_numbers(judge_name, got, want, words):
    look, seen = Look("value", judge_name), {"value": got, "error": ""}
    assert in_words(look, seen, judge(look, seen, want)) == words


def test_what_is_made_of_an_answer_may_not_take_all_the_memory():
    import torch

    with pytest.raises(RuntimeError, match="memory"), memory_at_most(0.5):
        torch.pdist(torch.zeros(200_000, 1))
    assert len(torch.pdist(torch.zeros(3, 1))) == 3


def test_masked_lines_are_short_plain_and_without_numbers():
    assert mask("index 10 is out of bounds for axis 0 of size -1.5e-3") == "index # is out of bounds for axis # of size #"
    assert mask("`predict_x0_from_eps` is missing") == "`predict_x0_from_eps` is missing"
    assert mask("it raised Leak_9_9161e_01__9_7402") == "it raised Leak_#_#e_#__#_#" and mask("float64, not int32") == "float64, not int32"
    assert mask("a\tb\u202e\x1b[31m  c") == "a b [#m c" and len(mask("x " * 1000)) <= 200


def test_only_what_the_student_has_to_do_is_done_inside():
    average = call("Average", [1.0])
    mean, variance = ask(average, "mean"), ask(average, "variance")
    assert questions_in([call("operator:sub", mean, variance), 3, {"a": call("operator:add", 1, 2)}]) == [mean, variance]
    assert questions_in(call("builtins:len", mean))[0].what == "builtins:len"  # what an answer is like only the inside knows
    refused = attempt(average)
    assert questions_in([refused, attempt(call("operator:add", 1, 2))]) == [refused]


@pytest.mark.parametrize("beginning", FINDINGS)
def test_each_finding_is_how_a_judges_sentence_begins(beginning):
    # They are matched by their words: one that no judge says any more would turn into "the values are not right".
    assert f'"{beginning}' in "".join(inspect.getsource(judge) for judge in asking.JUDGES.values())

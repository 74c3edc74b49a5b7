"""The exam as such: its points, what the reference earns, and what empty or stubborn code earns."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from autograder.course import ROOT, Lab, lab_names
from diffusionlab.sheet import SheetQuestion, judge_question, look_at_all
from solutions import lab6_solvers as lab
from solutions.lab6_solvers.exam import QUESTIONS
from solutions.questions import Question, self_check, with_right_answers

REFERENCE = {name: getattr(lab, name) for name in lab.__all__}
ASKED = [question for question in QUESTIONS if not question.manual]

each_question = pytest.mark.parametrize("question", ASKED, ids=lambda question: question.id)


def verdict(question: Question, seed: int, targets, answers=REFERENCE):
    parts = with_right_answers(question.parts(np.random.default_rng(seed)), answers)
    asked = SheetQuestion(question.id, question.title, question.points, question.targets, question.needs, parts, ())
    return judge_question(asked, look_at_all(parts, targets))


def answering(answer):
    """Functions like the reference's that do `answer` instead."""
    return {name: lambda *args, **kwargs: answer() for name in REFERENCE}


def raises(error):
    def answer():
        raise error
    return answer


def test_the_points_add_up_and_ids_are_no_other_lab_s():
    assert sum(question.points for question in QUESTIONS) == 100
    ids = [question.id for question in QUESTIONS]
    assert all(re.fullmatch(r"[a-z0-9-]+", id) for id in ids)
    others = [question.id for name in lab_names(ROOT) if name != "lab6_solvers"
              for question in Lab(ROOT, name).module("exam").QUESTIONS]
    # `check` knows a question by its id alone.
    assert len(set(ids)) == len(ids) and not set(ids) & set(others)


def test_questions_rest_on_questions_that_come_before_them():
    ids = [question.id for question in QUESTIONS]
    for question in QUESTIONS:
        assert all(ids.index(need) < ids.index(question.id) for need in question.needs)
        assert set(question.targets) <= set(REFERENCE)
    assert {target for question in QUESTIONS for target in question.targets} == set(REFERENCE)


@each_question
@pytest.mark.parametrize("seed", [0, 2026])
def test_the_reference_earns_every_point(question, seed):
    outcome = verdict(question, seed, REFERENCE)
    assert outcome.right, outcome.message
    assert outcome.points == pytest.approx(question.points)


@each_question
def test_inputs_are_fresh_for_each_seed_and_the_same_again_for_the_same(question):
    def drawn(seed):
        return repr(question.parts(np.random.default_rng(seed)))
    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


@each_question
def test_a_check_takes_well_under_two_seconds(question):
    asked = self_check(question, [], REFERENCE)
    start = time.process_time()
    assert judge_question(asked, look_at_all(asked.parts, REFERENCE)).right
    assert time.process_time() - start < 2


@each_question
def test_stubs_earn_nothing_and_are_told_from_mistakes(question):
    outcome = verdict(question, 1, answering(raises(NotImplementedError())))
    assert outcome.points == 0
    assert outcome.unwritten and "still to be written" in outcome.message


@each_question
@pytest.mark.parametrize("answer", [raises(ValueError("no")), raises(SystemExit(0)), lambda: None, lambda: "0",
                                    lambda: float("nan")],
                         ids=["ValueError", "SystemExit", "None", "text", "NaN"])
def test_answering_everything_alike_earns_nothing(question, answer):
    assert verdict(question, 1, answering(answer)).points == 0

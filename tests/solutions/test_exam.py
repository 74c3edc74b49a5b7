"""The exam as such: its points, what the reference earns, and what empty or stubborn code earns."""

from __future__ import annotations

import re
import time
from collections import Counter

import numpy as np
import pytest

from autograder.audit import fresh_question
from autograder.course import ROOT, Lab, lab_names
from diffusionlab.sheet import judge_question, look_at_all
from solutions.questions import Question, self_check

POINTS_OF_LAB_5 = {
    "forward-add-noise": 5, "analyzer-quality": 4, "ddpm-posterior-mean": 8, "ddpm-posterior-variance": 7, "ddpm-step": 5,
    "ddpm-sample": 5, "ddim-predict-x0": 5, "ddim-step-deterministic": 8, "ddim-step-eta": 6, "ddim-schedule": 6, "ddim-sample": 5,
    "eta-variance": 5, "eta-effects": 4, "benchmark": 6, "optimizer-cached": 5, "optimizer-batches": 5, "bad-input": 3,
    "analysis-written": 6, "code-quality": 2}


def verdict(lab, question: Question, seed: int, targets):
    asked = fresh_question(lab, question.id, seed)
    return judge_question(asked, look_at_all(asked.parts, targets))


def answering(lab, answer):
    """Classes and functions like the reference's, whose every public method does `answer` instead."""
    def instead(*args, **kwargs):
        return answer()
    return {name: type(name, (made,), {method: instead for method in vars(made) if not method.startswith("_")})
            if isinstance(made, type) else instead for name, made in lab.reference().items()}


def raises(error):
    def answer():
        raise error
    return answer


def test_the_questions_of_lab_5_and_their_points_are_the_brief_s():
    assert {question.id: question.points for question in Lab(ROOT, "lab5_sampling").module("exam").QUESTIONS} == POINTS_OF_LAB_5


def test_the_points_add_up(lab):
    assert sum(question.points for question in lab.module("exam").QUESTIONS) == 100


def test_the_lessons_table_says_where_the_points_are(lab):
    points, part, found = {question.id: question.points for question in lab.module("exam").QUESTIONS}, 0, Counter()
    source = lab.lesson.read_text(encoding="utf-8")
    for line in source.splitlines():
        if heading := re.match(r"# # Part (\d)", line):
            part = int(heading[1])
        if asked := re.search(r'question="([a-z0-9-]+)"', line):
            found[part] += points[asked[1]]
    assert found == {int(row[1]): int(row[2]) for row in re.finditer(r"^# \| (\d) · .*\| (\d+) \|$", source, re.MULTILINE)}


def test_no_two_questions_of_the_course_share_an_id():
    # `check` knows a question by its id alone.
    ids = [question.id for name in lab_names(ROOT) for question in Lab(ROOT, name).module("exam").QUESTIONS]
    assert all(re.fullmatch(r"[a-z0-9-]+", id) for id in ids) and len(set(ids)) == len(ids)


def test_questions_rest_on_questions_that_come_before_them_and_reach_everything(lab):
    questions = lab.module("exam").QUESTIONS
    ids = [question.id for question in questions]
    for question in questions:
        assert all(ids.index(need) < ids.index(question.id) for need in question.needs)
    assert {target for question in questions for target in question.targets} == set(lab.reference())


@pytest.mark.parametrize("seed", [0, 1, 5, 2026])
def test_the_reference_earns_every_point(lab, question, seed):
    outcome = verdict(lab, question, seed, lab.reference())
    assert outcome.right, outcome.message
    assert outcome.points == pytest.approx(question.points)


def test_inputs_are_fresh_for_each_seed_and_the_same_again_for_the_same(lab, question):
    def drawn(seed):
        return repr(question.parts(np.random.default_rng(seed)))
    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_a_check_takes_well_under_two_seconds(lab, question):
    asked = self_check(question, [], lab.reference())
    start = time.process_time()
    assert judge_question(asked, look_at_all(asked.parts, lab.reference())).right
    assert time.process_time() - start < 2


def test_stubs_earn_nothing_and_are_told_from_mistakes(lab, question):
    outcome = verdict(lab, question, 1, answering(lab, raises(NotImplementedError())))
    assert outcome.points == 0
    assert outcome.unwritten and "still to be written" in outcome.message


@pytest.mark.parametrize("answer", [raises(ValueError("no")), raises(SystemExit(0)), lambda: None, lambda: "0", lambda: float("nan")],
                         ids=["ValueError", "SystemExit", "None", "text", "NaN"])
def test_answering_everything_alike_earns_nothing(lab, question, answer):
    assert verdict(lab, question, 1, answering(lab, answer)).points == 0


def test_a_typo_in_the_points_is_refused():
    with pytest.raises(ValueError, match="add up to"):
        Question("sum", 3, "Sum", (), lambda rng: []).parts(np.random.default_rng(0))

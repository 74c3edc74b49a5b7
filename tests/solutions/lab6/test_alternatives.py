"""No right solution in another style loses a point: not in the self-check, not with fresh inputs."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from diffusionlab.sheet import SheetQuestion, judge_question, look_at_all
from solutions import lab6_solvers as lab
from solutions.lab6_solvers.alternatives import ALTERNATIVES
from solutions.lab6_solvers.exam import QUESTIONS
from solutions.questions import SHEET_SEED, with_right_answers

REFERENCE = {name: getattr(lab, name) for name in lab.__all__}


@functools.cache
def asked(id: str, seed: int) -> SheetQuestion:
    question = next(question for question in QUESTIONS if question.id == id)
    parts = with_right_answers(question.parts(np.random.default_rng(seed)), REFERENCE)
    return SheetQuestion(id, question.title, question.points, question.targets, question.needs, parts, ())


def test_there_are_many_styles_and_every_function_has_another():
    assert len(ALTERNATIVES) >= 15
    assert len({alternative.style for alternative in ALTERNATIVES}) == len(ALTERNATIVES)
    assert {alternative.target for alternative in ALTERNATIVES} == set(REFERENCE)


@pytest.mark.slow
@pytest.mark.parametrize("alternative", ALTERNATIVES, ids=lambda alternative: f"{alternative.target}: {alternative.style}")
def test_an_alternative_loses_no_point(alternative):
    for question in QUESTIONS:
        if not question.manual and alternative.target in question.targets:
            for seed in (SHEET_SEED, 303, 404):
                question_asked = asked(question.id, seed)
                outcome = judge_question(question_asked,
                                         look_at_all(question_asked.parts,
                                                     {**REFERENCE, alternative.target: alternative.made}))
                assert outcome.right, f"{question.id}: {[part for part in outcome.parts if part.sentence]}"

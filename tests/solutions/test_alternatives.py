"""No right solution in another style loses a point: not in the self-check, not with fresh inputs."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from diffusionlab import plots
from diffusionlab.sheet import SheetQuestion, judge_question, look_at_all
from solutions.lab5_sampling.alternatives import ALTERNATIVES, REFERENCE
from solutions.lab5_sampling.exam import QUESTIONS
from solutions.questions import SHEET_SEED, with_right_answers


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Pictures take most of the time, and none of them is judged."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "show", lambda figure: None)
        yield


@functools.cache
def asked(id: str, seed: int) -> SheetQuestion:
    question = next(question for question in QUESTIONS if question.id == id)
    parts = with_right_answers(question.parts(np.random.default_rng(seed)), REFERENCE)
    return SheetQuestion(id, question.title, question.points, question.targets, question.needs, parts, ())


def test_there_are_many_styles():
    assert len(ALTERNATIVES) >= 40
    assert len({alternative.style for alternative in ALTERNATIVES}) == len(ALTERNATIVES)


@pytest.mark.slow
@pytest.mark.parametrize("alternative", ALTERNATIVES, ids=lambda alternative: alternative.style)
def test_an_alternative_loses_no_point(alternative):
    for question in QUESTIONS:
        if not question.manual and alternative.target in question.targets:
            for seed in (SHEET_SEED, 303, 404):
                question_asked = asked(question.id, seed)
                outcome = judge_question(question_asked, look_at_all(question_asked.parts, {**REFERENCE, alternative.target: alternative.made}))
                assert outcome.right, f"{question.id}: {[part for part in outcome.parts if part.sentence]}"

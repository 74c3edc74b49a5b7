"""No right solution loses a point for its style, in the self-check's inputs or in fresh ones."""

from __future__ import annotations

import pytest
import torch

from autograder.audit import fresh_question
from diffusionlab import plots
from diffusionlab.sheet import judge_question, look_at_all
from solutions.questions import SHEET_SEED

LEAST = {"lab5_sampling": 40, "lab6_solvers": 15}
"""How many alternatives a lab must know."""


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Pictures take most of the time, and none of them is judged."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "show", lambda figure: None)
        yield


def test_there_are_many_styles_and_everything_has_another(lab):
    alternatives = lab.module("alternatives").ALTERNATIVES
    assert len(alternatives) >= LEAST[lab.name]
    assert len({each.style for each in alternatives}) == len(alternatives)
    assert {each.target for each in alternatives} == set(lab.reference())


@pytest.mark.slow
def test_an_alternative_loses_no_point(lab, alternative):
    for question in lab.module("exam").QUESTIONS:
        if not question.manual and alternative.target in question.targets:
            for seed in (SHEET_SEED, 303, 404):
                asked = fresh_question(lab, question.id, seed)
                outcome = judge_question(asked, look_at_all(asked.parts, {**lab.reference(), alternative.target: alternative.made}))
                assert outcome.right, f"{question.id}: {[part for part in outcome.parts if part.sentence]}"

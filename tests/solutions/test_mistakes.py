"""Every mistake of the catalogue loses points, in the self-check and with fresh inputs, and nearly all are recognised."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import pytest
import torch

from diffusionlab import plots
from diffusionlab.sheet import SheetQuestion, judge_question, look_at_all, read_sheet
from solutions import lab5_sampling as lab
from solutions.lab5_sampling.exam import QUESTIONS
from solutions.lab5_sampling.mistakes import MISTAKES
from solutions.questions import may_explain, self_check, with_right_answers

REFERENCE = {name: getattr(lab, name) for name in lab.__all__}
ASKED = {question.id: question for question in QUESTIONS if not question.manual}

each_mistake = pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.id)


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Pictures take most of the time, and none of them is judged."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "forward_trajectory", lambda *args: None)
        yield


@pytest.fixture(scope="module")
def sheet(root):
    """The self-check as a student has it; another test sees that it is what the sources give."""
    return read_sheet(root / "data" / "checks" / "lab5_sampling.safetensors")


@functools.cache
def fresh(id: str, seed: int) -> SheetQuestion:
    question = ASKED[id]
    parts = with_right_answers(question.parts(np.random.default_rng(seed)), REFERENCE)
    return SheetQuestion(id, question.title, question.points, question.targets, question.needs, parts, ())


def verdict(question: SheetQuestion, mistake):
    return judge_question(question, look_at_all(question.parts, {**REFERENCE, mistake.target: mistake.variant}))


def test_the_catalogue_is_large_and_reaches_every_question():
    assert len(MISTAKES) >= 120
    by_question = Counter(mistake.question for mistake in MISTAKES)
    assert set(by_question) == set(ASKED)
    assert min(by_question.values()) >= 10


def test_ids_and_messages_are_unique_and_short():
    assert max(Counter(mistake.id for mistake in MISTAKES).values()) == 1
    for mistake in MISTAKES:
        assert len(mistake.message) <= 220
        assert mistake.symptom.endswith((".", "?")) and mistake.hint.endswith((".", "?"))
        assert mistake.target in ASKED[mistake.question].targets


@pytest.mark.slow
@each_mistake
def test_a_mistake_loses_points_with_fresh_inputs(mistake):
    for seed in (101, 202):
        outcome = verdict(fresh(mistake.question, seed), mistake)
        assert not outcome.right
        assert outcome.points < ASKED[mistake.question].points - 0.1


@pytest.mark.slow
def test_mistakes_lose_points_in_the_self_check_and_are_named(sheet):
    survivors, unnamed = [], []
    for mistake in MISTAKES:
        outcome = verdict(sheet[mistake.question], mistake)
        if outcome.right:
            survivors.append(mistake.id)
        if outcome.mistake != mistake.id:
            unnamed.append(f"{mistake.id}: {outcome.mistake or outcome.message}")
    assert not survivors
    assert len(unnamed) <= 0.05 * len(MISTAKES), unnamed


@pytest.mark.slow
def test_the_sheet_holds_numbers_and_sentences_only(sheet):
    for question in sheet.values():
        for mistake in question.mistakes:
            for answers in mistake.answers:
                assert all(answer is None or isinstance(answer, (str, np.ndarray)) for answer in answers.values())
            assert any(mistake.answers), "a mistake that answers like the reference"
            # Such would be a slip in the catalogue itself.
            assert not {answers.get("error") for answers in mistake.answers} & {"NameError", "UnboundLocalError"}, mistake.id


@pytest.mark.slow
def test_a_first_look_keeps_the_mistake_that_was_made():
    for mistake in MISTAKES[::9]:
        question = fresh(mistake.question, 101)
        seen = look_at_all(question.parts, {**REFERENCE, mistake.target: mistake.variant})
        assert may_explain(question.parts, seen, mistake, REFERENCE), mistake.id
        right = look_at_all(question.parts, REFERENCE)
        assert not may_explain(question.parts, right, mistake, REFERENCE), mistake.id


def test_what_no_mistake_explains_is_explained_by_the_difference():
    class DDPMSampler(lab.DDPMSampler):
        def compute_posterior_mean(self, x_t, t, predicted_noise):
            return 0.123 * x_t

    known = [mistake for mistake in MISTAKES if mistake.question == "ddpm-posterior-mean"]
    question = self_check(ASKED["ddpm-posterior-mean"], known, REFERENCE)
    outcome = judge_question(question, look_at_all(question.parts, {**REFERENCE, "DDPMSampler": DDPMSampler}))
    assert outcome.mistake is None
    assert "instead of" in outcome.message

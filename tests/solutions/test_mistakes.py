"""Every mistake of a catalogue loses points, in the self-check and with fresh inputs, and nearly all are recognised."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import pytest
import torch

from autograder.audit import fresh_question as fresh
from autograder.course import ROOT, Lab
from diffusionlab import plots
from diffusionlab.sheet import judge_question, look_at_all, read_sheet
from solutions.questions import may_explain, self_check

LEAST = {"lab5_sampling": (120, 10), "lab6_solvers": (60, 10)}
"""How many mistakes a lab must know, and how many for each question."""


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Pictures take most of the time, and none of them is judged."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "forward_trajectory", lambda *args: None)
        yield


@functools.cache
def sheet(lab):
    """The self-check as a student has it; another test sees that it is what the sources give."""
    return read_sheet(lab.sheet)


def seen(lab, question, mistake):
    return look_at_all(question.parts, {**lab.reference(), mistake.target: mistake.variant})


def verdict(lab, question, mistake):
    return judge_question(question, seen(lab, question, mistake))


def asked(lab):
    return {question.id: question for question in lab.module("exam").QUESTIONS if not question.manual}


def test_the_catalogue_is_large_and_reaches_every_question(lab):
    by_question = Counter(mistake.question for mistake in lab.module("mistakes").MISTAKES)
    assert set(by_question) == set(asked(lab))
    least, least_by_question = LEAST[lab.name]
    assert by_question.total() >= least and min(by_question.values()) >= least_by_question


def test_ids_and_messages_are_unique_and_short(lab):
    mistakes = lab.module("mistakes").MISTAKES
    assert max(Counter(mistake.id for mistake in mistakes).values()) == 1
    for mistake in mistakes:
        assert len(mistake.message) <= 220
        assert mistake.symptom.endswith((".", "?")) and mistake.hint.endswith((".", "?", ".)", ".*"))
        assert mistake.target in asked(lab)[mistake.question].targets


@pytest.mark.slow
def test_a_mistake_loses_points_with_fresh_inputs(lab, mistake):
    for seed in (101, 202):
        question = fresh(lab, mistake.question, seed)
        outcome = verdict(lab, question, mistake)
        assert not outcome.right and outcome.points < question.points - 0.1


@pytest.mark.slow
def test_mistakes_lose_points_in_the_self_check_and_are_named(lab):
    survivors, unnamed, mistakes = [], [], lab.module("mistakes").MISTAKES
    for mistake in mistakes:
        outcome = verdict(lab, sheet(lab)[mistake.question], mistake)
        if outcome.right:
            survivors.append(mistake.id)
        if outcome.mistake != mistake.id:
            unnamed.append(f"{mistake.id}: {outcome.mistake or outcome.message}")
    assert not survivors
    assert len(unnamed) <= 0.05 * len(mistakes), unnamed


@pytest.mark.slow
def test_the_sheet_holds_numbers_and_sentences_only(lab):
    for question in sheet(lab).values():
        for mistake in question.mistakes:
            for answers in mistake.answers:
                assert all(answer is None or isinstance(answer, (str, np.ndarray)) for answer in answers.values())
            assert any(mistake.answers), "a mistake that answers like the reference"
            # Such would be a slip in the catalogue itself.
            assert not {answers.get("error") for answers in mistake.answers} & {"NameError", "UnboundLocalError"}, mistake.id


@pytest.mark.slow
def test_a_first_look_keeps_the_mistake_that_was_made(lab):
    reference = lab.reference()
    for mistake in lab.module("mistakes").MISTAKES[::9]:
        parts = fresh(lab, mistake.question, 101).parts
        assert may_explain(parts, seen(lab, fresh(lab, mistake.question, 101), mistake), mistake, reference), mistake.id
        assert not may_explain(parts, look_at_all(parts, reference), mistake, reference), mistake.id


def test_what_no_mistake_explains_is_explained_by_the_difference():
    lab = Lab(ROOT, "lab5_sampling")

    class DDPMSampler(lab.reference()["DDPMSampler"]):
        def compute_posterior_mean(self, x_t, t, predicted_noise):
            return 0.123 * x_t

    known = [mistake for mistake in lab.module("mistakes").MISTAKES if mistake.question == "ddpm-posterior-mean"]
    question = self_check(asked(lab)["ddpm-posterior-mean"], known, lab.reference())
    outcome = judge_question(question, look_at_all(question.parts, {**lab.reference(), "DDPMSampler": DDPMSampler}))
    assert outcome.mistake is None
    assert "instead of" in outcome.message

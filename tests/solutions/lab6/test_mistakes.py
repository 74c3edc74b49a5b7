"""Every mistake of the catalogue loses points, in the self-check and with fresh inputs, and nearly all are recognised."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import pytest

from autograder.course import ROOT
from diffusionlab.sheet import SheetQuestion, judge_question, look_at_all, read_sheet
from solutions import lab6_solvers as lab
from solutions.lab6_solvers.exam import QUESTIONS
from solutions.lab6_solvers.mistakes import MISTAKES
from solutions.questions import with_right_answers

REFERENCE = {name: getattr(lab, name) for name in lab.__all__}
ASKED = {question.id: question for question in QUESTIONS if not question.manual}


@pytest.fixture(scope="module")
def sheet():
    """The self-check as a student has it. That it is the one that the questions make is the build's test."""
    return read_sheet(ROOT / "data" / "checks" / "lab6_solvers.safetensors")


@functools.cache
def fresh(id: str, seed: int) -> SheetQuestion:
    question = ASKED[id]
    parts = with_right_answers(question.parts(np.random.default_rng(seed)), REFERENCE)
    return SheetQuestion(id, question.title, question.points, question.targets, question.needs, parts, ())


def verdict(question: SheetQuestion, mistake):
    return judge_question(question, look_at_all(question.parts, {**REFERENCE, mistake.target: mistake.variant}))


def test_the_catalogue_is_large_and_reaches_every_question():
    assert len(MISTAKES) >= 60
    by_question = Counter(mistake.question for mistake in MISTAKES)
    assert set(by_question) == set(ASKED)
    assert min(by_question.values()) >= 10


def test_ids_and_messages_are_unique_and_short():
    assert max(Counter(mistake.id for mistake in MISTAKES).values()) == 1
    for mistake in MISTAKES:
        assert len(mistake.message) <= 220
        assert mistake.symptom.endswith((".", "?")) and mistake.hint.endswith((".", "?", ".)", ".*"))
        assert mistake.target in ASKED[mistake.question].targets


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.id)
def test_a_mistake_loses_points_with_fresh_inputs(mistake):
    # `autograder audit` asks with more seeds than one.
    outcome = verdict(fresh(mistake.question, 101), mistake)
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

"""The answer sheet: written and read again it judges the same, and the mistake that explains most exactly is named."""

from __future__ import annotations

import numpy as np
import pytest

from diffusionlab.asking import MISSING, Look, Part, ask, attempt, call
from diffusionlab.sheet import KnownMistake, SheetQuestion, judge_question, look_at_all, read_sheet, write_sheet


class Square:
    def area(self, side):
        return side**2


def square(formula):
    return {"Square": type("Square", (), {"area": lambda self, side: formula(side)})}


@pytest.fixture
def question() -> SheetQuestion:
    shared = ask(call("Square"), "area", call("torch:tensor", np.array([1.0, 2.0, 3.0])))
    parts = (Part("three squares", 2, shared, (Look(), Look("inputs", "same")), {"error": "", "value": np.array([1.0, 4.0, 9.0]), "inputs": "kept"}),
             Part("their type", 1, shared, (Look("value.dtype", "same"),), {"error": "", "value.dtype": "float64"}),
             Part("a big square", 1, ask(call("Square"), "area", 10.0), (Look("value", "close", {"rtol": 1e-6}),), {"error": "", "value": np.array(100.0)}))
    mistakes = (
        KnownMistake("by-chance", "Your area is another each time. Measure.", ({"value": None}, {}, {"value": None})),
        KnownMistake("circumference", "Your area is a length. Multiply.", ({"value": np.array([4.0, 8.0, 12.0])}, {}, {"value": np.array(40.0)})),
        KnownMistake("twice", "Your area is double. Halve it.", ({"value": np.array([2.0, 8.0, 18.0])}, {}, {"value": np.array(200.0)})),
        KnownMistake("refuses", "You refuse all. Relax.", ({"error": "TypeError"},) * 3),
        KnownMistake("silent", "Nothing comes back. Return it.", ({"value": "None"}, {"value.dtype": MISSING}, {"value": "None"})))
    return SheetQuestion("square", "The area", 4, ("Square",), (), parts, mistakes)


def refuse(side):
    raise TypeError(side)


def unwritten(side):
    raise NotImplementedError


FORMULAS = {
    "right": lambda side: side**2, "circumference": lambda side: 4 * side, "twice": lambda side: 2 * side**2, "refuses": refuse,
    "silent": lambda side: None, "by-chance": lambda side: side * np.random.rand() + 50, "unwritten": unwritten,
    "last only": lambda side: side**2 if isinstance(side, float) else side}


def torchs_own(side):
    raise NotImplementedError("not implemented for 'Byte'")


@pytest.fixture(params=["in memory", "from a file"])
def asked(request, question, tmp_path) -> SheetQuestion:
    if request.param == "in memory":
        return question
    write_sheet(tmp_path / "new folder" / "sheet.safetensors", [question])
    return read_sheet(tmp_path / "new folder" / "sheet.safetensors")["square"]


def verdict(asked, name):
    return judge_question(asked, look_at_all(asked.parts, square(FORMULAS[name])))


def test_the_right_answer_gets_all_points(asked):
    outcome = verdict(asked, "right")
    assert outcome.right and outcome.points == 4 and outcome.message == "" and outcome.mistake is None


@pytest.mark.parametrize("name", ["circumference", "twice", "refuses", "silent", "by-chance"])
def test_a_typical_mistake_is_named(asked, name):
    outcome = verdict(asked, name)
    assert outcome.mistake == name
    assert outcome.message == next(mistake.message for mistake in asked.mistakes if mistake.id == name)


def test_a_part_that_is_right_counts_and_what_is_wrong_is_said(asked):
    outcome = verdict(asked, "last only")
    assert outcome.points == 2 and outcome.mistake is None
    assert outcome.message.startswith("three squares: the largest difference is at [2]: 3 instead of 9")


def test_a_stub_is_not_a_mistake(asked):
    outcome = verdict(asked, "unwritten")
    assert outcome.points == 0 and outcome.unwritten == "`unwritten`"
    assert outcome.message == "`unwritten` is still to be written."


def test_a_stub_inside_an_attempt_is_found():
    part = Part("refused", 1, [attempt(ask(call("Square"), "area", -1.0))], (Look("value.0", "refused"),), {"error": "", "value.0": "ValueError"})
    asked = SheetQuestion("bad", "Bad input", 1, ("Square",), (), (part,), ())
    assert judge_question(asked, look_at_all(asked.parts, square(unwritten))).unwritten == "`unwritten`"


def test_what_torch_cannot_do_is_not_a_stub(asked):
    outcome = judge_question(asked, look_at_all(asked.parts, square(torchs_own)))
    assert outcome.unwritten is None and "NotImplementedError: not implemented for 'Byte'" in outcome.message
    part = Part("refused", 1, [attempt(ask(call("Square"), "area", -1.0))], (Look("value.0", "refused"),), {"error": "", "value.0": "ValueError"})
    outcome = judge_question(SheetQuestion("bad", "Bad input", 1, ("Square",), (), (part,), ()), look_at_all((part,), square(torchs_own)))
    assert outcome.unwritten is None and outcome.message == "refused: it raised NotImplementedError with a message instead of ValueError."


def test_a_mistake_that_leaves_all_to_chance_is_named_where_chance_shows(asked):
    def named(formula):
        code = square(formula)
        return judge_question(asked, look_at_all(asked.parts, code), lambda: look_at_all(asked.parts, code)).mistake
    assert named(FORMULAS["by-chance"]) == "by-chance" and named(FORMULAS["twice"]) == "twice"
    assert named(lambda side: 7 * side) is None  # wrong, and the same again


def test_too_much_is_too_much_and_the_mistake_of_that_very_amount_is_named_first():
    part = Part("few", 1, call("Square"), (Look("value", "at_most"),), {"error": "", "value": np.array(3.0)})
    mistakes = tuple(KnownMistake(f"{n}", f"{n}", ({"value": np.array(n)},)) for n in (5.0, 8.0))
    asked = SheetQuestion("few", "Few", 1, ("Square",), (), (part,), mistakes)
    verdicts = {n: judge_question(asked, [{"error": "", "value": np.array(n)}]) for n in (2.0, 5.0, 8.0, 9.0)}
    assert verdicts[2.0].right and [verdicts[n].mistake for n in (5.0, 8.0, 9.0)] == ["5.0", "8.0", "5.0"]


def test_parts_that_share_an_expression_evaluate_it_once(asked):
    calls = []
    look_at_all(asked.parts, square(lambda side: calls.append(side) or side))
    assert len(calls) == 2


def test_the_sheet_is_numbers_and_text(question, tmp_path):
    path = tmp_path / "sheet.safetensors"
    write_sheet(path, [question])
    raw = path.read_bytes()
    assert b"pickle" not in raw and b"lambda" not in raw
    read = read_sheet(path)["square"]
    assert (read.title, read.points, read.targets, read.needs) == (question.title, question.points, question.targets, question.needs)
    for part, other in zip(read.parts, question.parts):
        assert part.looks == other.looks and part.want.keys() == other.want.keys()

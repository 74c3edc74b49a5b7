"""The self-check as the notebook, nbgrader and a student in trouble see it."""

from __future__ import annotations

import html
import math
import re
import sys

import numpy as np
import pytest

from diffusionlab import check as check_function
from diffusionlab.asking import Look, Part, ask, call
from diffusionlab.sheet import KnownMistake, SheetQuestion

module = sys.modules[check_function.__module__]


class Square:
    def area(self, side):
        return side**2


def like(formula):
    return type("Square", (), {"area": lambda self, side: formula(side)})


def raising(error):
    def formula(side):
        raise error
    return like(formula)


@pytest.fixture(autouse=True)
def sheet(monkeypatch):
    def question(id, needs=()):
        parts = (Part("a <small> square", 1.5, ask(call("Square"), "area", 2.0), (Look(),), {"error": "", "value": np.array(4.0)}),
                 Part("a big one", 1.5, ask(call("Square"), "area", 10.0), (Look(),), {"error": "", "value": np.array(100.0)}))
        twice = KnownMistake("twice", "Your area is double & wrong. Halve it.", ({"value": np.array(8.0)}, {"value": np.array(200.0)}))
        return SheetQuestion(id, f"The {id} <area>", 3, ("Square",), needs, parts, (twice,))

    questions = {"area": question("area"), "volume": question("volume", ("area",))}
    monkeypatch.setattr(module, "_sheet", lambda: questions)
    monkeypatch.delenv("NBGRADER_VALIDATING", raising=False)


class Mute(Exception):
    def __str__(self):
        raise RuntimeError


class EqualsAll:
    def __eq__(self, other):
        return True

    def __repr__(self):
        return "<script>alert(1)</script>"

    __hash__ = object.__hash__


CODE = {
    "right": Square, "wrong": like(lambda side: side), "typical": like(lambda side: 2 * side**2), "half right": like(lambda side: min(side**2, 5.0)),
    "unwritten": raising(NotImplementedError()), "raises": raising(ValueError("<script>alert(1)</script>")), "mute": raising(Mute()),
    "exits": raising(SystemExit(3)), "equals all": like(lambda side: EqualsAll()), "NaN": like(lambda side: math.nan),
    "infinite": like(lambda side: math.inf), "nothing": like(lambda side: None), "text": like(lambda side: "<script>alert(1)</script>"),
    "not constructible": type("Square", (), {"__init__": lambda self, missing: None})}


@pytest.mark.parametrize("name", CODE)
def test_as_text_it_is_the_points_and_nothing_else(name, capsys):
    result = check_function("area", CODE[name])
    assert re.fullmatch(r"\d+(\.\d+)?", repr(result)) and repr(result) == str(result)
    assert 0 <= float(repr(result)) <= 3
    assert float(repr(result)) == {"right": 3, "half right": 1.5}.get(name, 0)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", CODE)
def test_as_html_it_tells_the_student_and_runs_nothing(name):
    page = check_function("area", CODE[name])._repr_html_()
    assert "<script" not in page and "<small>" not in page and "<area>" not in page
    assert {"right": "&middot; right &middot; 3 of 3", "unwritten": "not written yet"}.get(name, "not right yet") in page


def test_the_html_says_what_is_wrong():
    assert html.escape("Your area is double & wrong. Halve it.") in check_function("area", CODE["typical"])._repr_html_()
    assert "it raised ValueError: &lt;script&gt;alert(1)&lt;/script&gt;" in check_function("area", CODE["raises"])._repr_html_()
    assert "4 instead" not in check_function("area", Square)._repr_html_()


@pytest.mark.parametrize("name", CODE)
def test_validate_fails_what_is_not_all_right_with_the_hint(name, monkeypatch, capsys):
    monkeypatch.setenv("NBGRADER_VALIDATING", "1")
    if name == "right":
        assert repr(check_function("area", CODE[name])) == "3"
    else:
        with pytest.raises(AssertionError) as failure:
            check_function("area", CODE[name])
        expected = {"typical": "Halve it.", "unwritten": "still to be written"}.get(name, "")
        assert str(failure.value).startswith("The area <area>: ") and expected in str(failure.value)
        assert len(str(failure.value)) > len("The area <area>: ") + 10
    assert capsys.readouterr().err == ""


def test_what_student_code_prints_does_not_reach_the_notebook(capsys):
    def noisy(side):
        print("hello")
        print("trouble", file=sys.stderr)
        return side**2

    assert check_function("area", like(noisy)).verdict.right
    assert capsys.readouterr() == ("", "")


def test_an_interrupt_stops_it():
    with pytest.raises(KeyboardInterrupt):
        check_function("area", raising(KeyboardInterrupt()))


def test_what_a_question_rests_on_is_named_first():
    advice = check_function("volume", CODE["typical"]).advice
    assert advice.startswith("This rests on area, which is not right yet: mend that first.")
    assert check_function("volume", Square).advice == ""


def test_a_wrong_call_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="no question 'aera'; the questions are: area, volume"):
        check_function("aera", Square)
    with pytest.raises(ValueError, match=r"needs Square; not given: Square"):
        check_function("area")
    with pytest.raises(ValueError, match="not given: Square"):
        check_function("area", object())


def test_a_target_without_a_name_and_without_text_is_refused_like_any_other():
    class Nameless:
        def __str__(self):
            raise RuntimeError

        __repr__ = __str__

    with pytest.raises(ValueError, match="not given: Square"):
        check_function("area", Nameless())

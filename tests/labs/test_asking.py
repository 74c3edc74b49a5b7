"""Expressions, observations and judges, with student code that means well and student code that does not."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from diffusionlab.asking import (JUDGES, MISSING, Call, Look, Part, alike, ask, attempt, call, describe, from_json, judge,
                                 observe, summarize, to_array, to_json)

# ---------------------------------------------------------------------------------------------- to and from JSON

plain = st.none() | st.booleans() | st.integers(-2**53, 2**53) | st.floats(allow_nan=False) | st.text(max_size=8)
numbers = arrays.arrays(st.sampled_from([np.float32, np.float64, np.int64]), arrays.array_shapes(min_dims=0, max_dims=3, max_side=3))
names = st.text("abcdef", min_size=1, max_size=4)


def grow(inner):
    calls = st.builds(lambda what, args, kwargs, of: Call(what, tuple(args), kwargs, of), names, st.lists(inner, max_size=3),
                      st.dictionaries(names, inner, max_size=2), st.none() | inner)
    return (st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | calls
            # One call that stands in two places.
            | calls.map(lambda shared: [shared, Call("f", (shared,), {"again": shared})]))


def same_expression(a, b, pairs: dict) -> bool:
    """Equal in every part, and shared in the same places."""
    if type(a) is not type(b):
        return False
    match a:
        case Call():
            if pairs.setdefault(id(a), id(b)) != id(b):
                return False
            return a.what == b.what and all(same_expression(x, y, pairs) for x, y in
                                            [(a.args, b.args), (dict(a.kwargs), dict(b.kwargs)), (a.of, b.of)])
        case np.ndarray():
            return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        case list() | tuple():
            return len(a) == len(b) and all(same_expression(x, y, pairs) for x, y in zip(a, b))
        case dict():
            return a.keys() == b.keys() and all(same_expression(a[key], b[key], pairs) for key in a)
    return a == b


@settings(max_examples=80, deadline=None)
@given(st.recursive(plain | numbers, grow, max_leaves=12))
def test_an_expression_survives_json(expression):
    stored: list[np.ndarray] = []
    text = json.dumps(to_json(expression, stored), allow_nan=False)
    assert same_expression(expression, from_json(json.loads(text), stored), {})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_survive_it(number):
    text = json.dumps(to_json([number], []), allow_nan=False)
    assert np.array_equal(from_json(json.loads(text), []), [number], equal_nan=True)


@pytest.mark.parametrize("expression", [object(), {1, 2}, torch.zeros(2), b"bytes", 1j])
def test_only_names_numbers_and_arrays_can_be_written(expression):
    with pytest.raises(TypeError, match="cannot be part of an expression"):
        to_json([expression], [])


@pytest.mark.parametrize("value", [{"$same": 0}, {"$array": 3}, {"$call": {}}, {"$code": "1"}, {"$float": "seven"}, {"$same": "x"}])
def test_anything_else_is_not_read(value):
    with pytest.raises((KeyError, IndexError, TypeError, ValueError)):
        from_json(value, [])


# ---------------------------------------------------------------------------------------------- observing


class Doubler:
    def __init__(self, start=0.0):
        self.start, self.made = start, 0

    def double(self, x):
        self.made += 1
        return 2 * x + self.start

    def in_place(self, x):
        return x.mul_(2)

    def fail(self, error):
        raise error


DOUBLER = {"Doubler": Doubler}


def test_an_expression_is_evaluated_inside_out():
    x = call("torch:tensor", np.array([1.0, 2.0]))
    seen = observe(ask(call("Doubler", start=1.0), "double", ask(call("Doubler"), "double", x)), DOUBLER)
    assert seen["error"] == ""
    assert seen["value"].tolist() == [5.0, 9.0]
    assert seen["value.dtype"] == "float64"
    assert seen["inputs"] == "kept"


def test_a_call_in_several_places_is_made_once():
    one = call("Doubler")
    seen = observe([ask(one, "double", 1.0), ask(one, "double", 2.0), call("builtins:getattr", one, "made")], DOUBLER)
    assert seen["value.2"] == 2


def test_writing_into_an_input_is_seen():
    x = call("torch:tensor", np.array([1.0, 2.0]))
    assert observe(ask(call("Doubler"), "in_place", x), DOUBLER)["inputs"] == "changed"


def test_what_a_method_raises_is_the_observation():
    seen = observe(ask(call("Doubler"), "fail", call("builtins:ValueError", "no such <b>thing</b>")), DOUBLER)
    assert (seen["error"], seen["error.message"], seen["error.where"]) == ("ValueError", "no such <b>thing</b>", "Doubler.fail")
    assert observe(call("Missing"), {})["error"] == "KeyError"


def test_an_attempt_answers_with_the_exception_s_name():
    bad = ask(call("Doubler"), "fail", call("builtins:RuntimeError"))
    seen = observe([attempt(bad), attempt(ask(call("Doubler"), "double", 1))], DOUBLER)
    assert (seen["value.0"], seen["value.1"]) == ("RuntimeError", "")


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("not even a message")


@pytest.mark.parametrize("error", [SystemExit(0), GeneratorExit(), Mute(), BaseException("all of it"), RecursionError()])
def test_any_exception_of_student_code_is_caught(error):
    class Hostile:
        def go(self):
            raise error

    go = ask(call("Hostile"), "go")
    assert observe(go, {"Hostile": Hostile})["error"] == type(error).__name__
    assert observe([attempt(go)], {"Hostile": Hostile})["value.0"] == type(error).__name__


def test_an_interrupt_stops_the_check():
    class Slow:
        def go(self):
            raise KeyboardInterrupt

    for expression in (ask(call("Slow"), "go"), attempt(ask(call("Slow"), "go"))):
        with pytest.raises(KeyboardInterrupt):
            observe(expression, {"Slow": Slow})


class EqualsAll:
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    __hash__ = object.__hash__


class Agreeable(EqualsAll, str):
    """Text that equals any other."""

    def __str__(self):
        return self

    __hash__ = str.__hash__


class Lying(np.ndarray):
    def __eq__(self, other):
        return np.ones(self.shape, bool)

    def __sub__(self, other):
        return np.zeros(self.shape)

    __rsub__ = __sub__


class Explosive:
    def __getattr__(self, name):
        raise MemoryError(name)


@pytest.mark.parametrize("answer", [EqualsAll(), Agreeable("0"), np.zeros(3).view(Lying), Explosive(), [EqualsAll()] * 3, {"x": EqualsAll()},
                                    object, lambda: 0, {1, 2}, 1j, np.array(["0"]), np.array([None]), None, torch.zeros(0)],
                         ids=lambda answer: type(answer).__name__)
def test_objects_that_pretend_are_not_taken_for_the_answer(answer):
    seen = observe(call("answer"), {"answer": lambda: answer})
    assert {type(value) for value in seen.values()} <= {str, np.ndarray}
    for name in ("close", "same", "moments", "falling", "refused", "at_most"):
        want = {"moments": np.array([9.0, 0.5, 3]), "refused": "ValueError", "at_most": np.array(-1.0)}.get(name, np.array([3, 2, 1]))
        assert judge(Look("value", name), seen, want)


def test_a_students_class_is_no_recorder():
    class Recorder:
        def observed(self):
            return {"t": np.arange(3)}

    seen = observe(call("builtins:str", call("Recorder")), {"Recorder": Recorder})
    assert not any(key.startswith("network") for key in seen)


def test_results_are_flattened_under_dotted_names():
    seen = describe({"a": (torch.ones(2), "text"), "b": [1, 2.5], "c": None, "d": object()})
    assert seen["value.a.0"].tolist() == [1, 1] and seen["value.a.1"] == "text"
    assert seen["value.b"].tolist() == [1, 2.5] and seen["value.b.1"] == 2.5 and seen["value.c"] == "None" and seen["value.d"] == "<object>"


def test_an_array_is_a_copy():
    x = torch.zeros(2)
    array = to_array(x)
    x += 1
    assert array.tolist() == [0, 0]


# ---------------------------------------------------------------------------------------------- judging

A = np.array
LOOK = Look()


@pytest.mark.parametrize("got", [A(math.nan), A(math.inf), A([1.0]), "text", A([[1.0]])])
def test_close_wants_a_finite_number_of_the_same_shape(got):
    assert JUDGES["close"](got, A(1.0))


def test_close_has_a_relative_and_an_absolute_tolerance():
    close = JUDGES["close"]
    want = A([100.0, 1e-3])
    assert not close(A([100.09, 1e-3]), want)
    assert not close(A([100.0, 1e-3 + 0.009]), want)  # atol is a share of the largest value
    assert "at [0]: 100.2 instead of 100" in close(A([100.2, 1e-3]), want)
    assert close(A([100.0, 0.02]), want, rtol=1e-3, atol=0)
    assert not close(A([0.00009]), A([0.0]))
    assert close(A([0.0]), A([0.0]), rtol=0, atol=0) == "" and close(A([1e-20]), A([0.0]), rtol=0, atol=0)


def test_close_accepts_an_empty_array_for_an_empty_one_only():
    assert JUDGES["close"](A([]), A([])) == ""
    assert JUDGES["close"](A([]), A(0.0)) and JUDGES["close"](A(0.0), A([]))


@given(arrays.arrays(np.float64, arrays.array_shapes(min_dims=0, max_side=4), elements=st.floats(-1e6, 1e6)))
def test_everything_is_close_to_itself(x):
    assert JUDGES["close"](x, x) == "" and JUDGES["same"](x, x) == ""
    assert JUDGES["moments"](summarize("moments", x), summarize("moments", x)) == ""


def test_same_tells_text_from_numbers():
    same = JUDGES["same"]
    assert same("a", "a") == "" and same(A([1, 2]), A([1, 2])) == ""
    assert same("1", A(1)) and same(A(1), "1") and same("", "a") == "nothing instead of a" and same(A([1]), A(1))


@pytest.mark.parametrize("got, sentence", [
    ("text", "LongTensor"), (A(5), "one-dimensional"), (A([9.0, 0.0]), "whole numbers"), (A([9, 5, 0]), "3 timesteps instead of 4"),
    (A([9, 5, 5, 0]), "fall strictly"), (A([0, 3, 6, 9]), "fall strictly"), (A([8, 6, 3, 0]), "from 8 to 0"), (A([9, 6, 3, 1]), "from 9 to 1"),
    (A([9, 8, 3, 0]), "entry 1 is 8; about 6"), (A([]), "whole numbers"), (A([], int), "0 timesteps")])
def test_a_schedule_that_does_not_fall_right(got, sentence):
    assert sentence in JUDGES["falling"](got, A([9, 6, 3, 0]))


def test_rounding_of_a_schedule_is_free():
    assert JUDGES["falling"](A([9, 5, 4, 0]), A([9, 6, 3, 0])) == ""
    assert JUDGES["falling"](A([9, 2]), A([9, 3])) == "" and JUDGES["falling"](A([8, 3]), A([9, 3]))


def test_moments():
    rng = np.random.default_rng(0)
    want = A([0.5, 2.0, 10_000])

    def judged(x):
        return JUDGES["moments"](summarize("moments", x), want)

    assert judged(rng.normal(0.5, 2.0, 10_000)) == ""
    assert "mean" in judged(rng.normal(0.7, 2.0, 10_000))
    assert "standard deviation" in judged(rng.normal(0.5, 2.2, 10_000))
    assert "values instead of" in judged(rng.normal(0.5, 2.0, 9_000))
    assert judged(np.full(10_000, np.nan)) and judged(np.zeros(0)) and JUDGES["moments"]("text", want)


def test_at_most():
    at_most = JUDGES["at_most"]
    assert at_most(summarize("at_most", A([1, 3, 2])), A(3)) == ""
    assert at_most(summarize("at_most", A([1, 4])), A(3)) and at_most("text", A(3)) and at_most(A(math.nan), A(3))
    assert at_most(summarize("at_most", A([True])), A(0.0)) and at_most(summarize("at_most", A([], bool)), A(0.0)) == ""


def test_bad_input_must_be_refused_and_good_input_accepted():
    assert JUDGES["refused"]("ValueError", "ValueError") == "" and "accepted" in JUDGES["refused"]("", "ValueError")
    assert JUDGES["refused"]("TypeError", "ValueError") == "it raised TypeError instead of ValueError"
    assert JUDGES["accepted"]("", "") == "" and JUDGES["accepted"]("ValueError", "")


def test_a_key_that_is_missing_is_wrong():
    assert judge(Look("value.x"), {"error": ""}, A(1)) == "value.x is missing"
    assert judge(Look("value"), {"error": "ValueError"}, A(1)) == "nothing came back"


def test_a_part_looks_for_exceptions_first():
    assert Part("p", 1, 0).all_looks()[0] == Look("error", "same")
    assert Part("p", 1, 0, (Look("error", "refused"),)).all_looks() == (Look("error", "refused"),)


def test_alike_recognises_an_answer_that_no_judge_would_pass():
    assert alike(LOOK, {"value": A(np.nan)}, A(np.nan), A(1.0))
    assert alike(Look("value", "falling"), {"value": A([0, 1])}, A([0, 1]), A([1, 0]))
    assert alike(LOOK, {"value": A(2.0001)}, A(2.0), A(1.0)) and not alike(LOOK, {"value": A(1.0)}, A(2.0), A(1.0))
    assert alike(LOOK, {"error": ""}, MISSING, A(1.0)) and not alike(LOOK, {"value": A(1.0)}, MISSING, A(1.0))
    assert alike(LOOK, {"value": A(7.0)}, None, A(1.0)) and not alike(LOOK, {"value": A(1.0)}, None, A(1.0))


def test_an_exception_that_lies_about_itself_is_an_answer_like_any_other():
    class Named(type):
        @property
        def __name__(cls):
            raise SystemExit

    class Liar(Exception, metaclass=Named):
        def __str__(self):
            raise KeyboardInterrupt

    def fail():
        raise Liar
    seen = observe(call("fail"), {"fail": fail})
    assert seen["error"] == "Liar" and seen["error.message"] == "" and seen["error.where"] == "fail"

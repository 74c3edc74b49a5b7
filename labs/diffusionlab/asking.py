"""Questions as data: an expression to evaluate with somebody's code, and what to look at in the outcome.

The same expressions are evaluated in a notebook's self-check, at grading, and when the grader itself is tested. They hold
nothing but names, numbers and arrays, so they can be written to a file or sent to another process. No torch is needed here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# ---------------------------------------------------------------------------------------------- expressions


@dataclass(frozen=True, eq=False)
class Call:
    """A call to make. An expression is a Call, a list, tuple or dict of expressions, an array, or a plain value.

    A Call that stands in several places of an expression is made once, so that its result can be shared.

    Attributes:
        what: one of the targets under question ("DDPMSampler"), a name in an importable module ("torch:tensor"), or, where `of`
            is given, a method of what `of` evaluates to.
        args, kwargs: expressions.
        of: the expression whose method is called, or None.
    """

    what: str
    args: tuple = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    of: Any = None


def call(what: str, *args, **kwargs) -> Call:
    """Call a target or an importable function: `call("DDPMSampler", model, schedule)`."""
    return Call(what, args, kwargs)


def ask(of, method: str, *args, **kwargs) -> Call:
    """Call a method of an expression's value: `ask(sampler, "ddpm_step", x_t, 5)`."""
    return Call(method, args, kwargs, of)


def attempt(expression) -> Call:
    """Evaluate an expression that may raise: the value is the name of the exception's type, "" where there was none."""
    return Call("attempt", (expression,))


def evaluate(expression, targets: Mapping[str, Any], made: dict[int, Any]):
    """The expression's value; `made` collects the result of every Call by the Call's id."""
    match expression:
        case Call():
            if id(expression) not in made and expression.what == "attempt":
                made[id(expression)] = _exception_name(expression.args[0], targets, made)
            elif id(expression) not in made:
                if expression.of is not None:
                    function = getattr(evaluate(expression.of, targets, made), expression.what)
                elif ":" in expression.what:
                    module, _, path = expression.what.partition(":")
                    function = importlib.import_module(module)
                    for name in path.split("."):
                        function = getattr(function, name)
                else:
                    function = targets[expression.what]
                args = [evaluate(each, targets, made) for each in expression.args]
                kwargs = {key: evaluate(each, targets, made) for key, each in expression.kwargs.items()}
                made[id(expression)] = function(*args, **kwargs)
            return made[id(expression)]
        case list() | tuple():
            return type(expression)(evaluate(each, targets, made) for each in expression)
        case dict():
            return {key: evaluate(each, targets, made) for key, each in expression.items()}
        case _:
            return expression


def _exception_name(expression, targets, made) -> str:
    try:
        evaluate(expression, targets, made)
    except KeyboardInterrupt:  # somebody wants to stop
        raise
    except BaseException as error:  # which one it was is the answer
        if not isinstance(error, NotImplementedError):
            return _type_name(error)
        # A stub has no message; torch's own says what it cannot do.
        return _type_name(error) + (" with a message" if error.args else f" in {where(error)}")
    return ""


def _type_name(error: BaseException) -> str:
    # The name that the type was made with, whatever its own class says of it. A ValueError by another name is one.
    return "ValueError" if issubclass(type(error), ValueError) else type.__dict__["__name__"].__get__(type(error))


# ---------------------------------------------------------------------------------------------- observations

Observation = dict[str, Any]  # key -> numpy array or str
MISSING = "<missing>"  # in place of a key that an observation lacks


def observe(expression, targets: Mapping[str, Any]) -> Observation:
    """Evaluate an expression and describe what came of it, in arrays and strings only.

    Returns:
        `error`: "" or the name of the exception's type, with `error.message` and `error.where` (the innermost function).
        `value`: the result; the parts of a tuple, list or dict are `value.0`, `value.name`, and so on; beside each array its
        `.dtype`. `inputs`: "changed" where a tensor that was passed in was written to. And what recording models saw (`network.*`).
    """
    made: dict[int, Any] = {}
    try:
        seen = describe(evaluate(expression, targets, made)) | {"error": ""}
    except KeyboardInterrupt:  # somebody wants to stop
        raise
    except BaseException as error:  # student code may raise anything, SystemExit too, and what it raised is the finding
        seen = {"error": _type_name(error), "error.message": _message(error), "error.where": where(error)}
    for node in nodes_of(expression):
        # Of importable recorders only: a student's class may have a method of that name.
        if ":" in node.what and callable(getattr(type(made.get(id(node))), "observed", None)):
            seen |= {f"network.{name}": value for name, value in made[id(node)].observed().items()}
    return seen | {"inputs": "changed" if inputs_changed(expression, made) else "kept"}


def where(error: BaseException) -> str:
    """The function in which an exception came up, with its class; "" where it came from none."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame.tb_frame.f_code.co_qualname.rpartition("<locals>.")[2][:100] if frame else ""


def _message(error: BaseException) -> str:
    try:
        return str.__str__(str(error))[:500]
    except BaseException:  # an exception's own text may raise anything
        return ""


def inputs_changed(expression, made: Mapping[int, Any]) -> bool:
    """Whether a tensor that `evaluate` made and passed in no longer holds what it did."""
    tensors = [node for node in nodes_of(expression) if node.what == "torch:tensor" and id(node) in made]
    return any(not np.array_equal(to_array(made[id(node)]), node.args[0], equal_nan=True) for node in tensors)


def describe(value, at: str = "value") -> Observation:
    """Flatten a result into arrays and strings, each under a dotted key."""
    if isinstance(value, Mapping):
        return {k: v for name, each in value.items() for k, v in describe(each, f"{at}.{name}").items()}
    if isinstance(value, (list, tuple)):
        parts = {k: v for i, each in enumerate(value) for k, v in describe(each, f"{at}.{i}").items()}
        if not all(isinstance(each, (int, float)) for each in value):
            return parts
        array = np.array(value)  # plain numbers can be looked at one by one and together
        return parts | {at: array, f"{at}.dtype": f"{array.dtype}"}
    if value is None or isinstance(value, str):
        return {at: str.__str__(value) if isinstance(value, str) else "None"}  # a plain str, whatever a subclass makes of ==
    try:
        array = to_array(value)
    except (TypeError, ValueError):
        return {at: f"<{type(value).__name__}>"}
    return {at: array, f"{at}.dtype": f"{array.dtype}"}


def to_array(value) -> np.ndarray:
    """A numpy copy of a tensor, a number or a list of numbers; raises TypeError for anything else."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    array = np.array(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"not numbers: {type(value).__name__}")
    return array


def nodes_of(expression):
    """Every Call in an expression, as often as it stands there."""
    match expression:
        case Call():
            yield expression
            for each in (expression.of, *expression.args, *expression.kwargs.values()):
                yield from nodes_of(each)
        case list() | tuple():
            for each in expression:
                yield from nodes_of(each)
        case dict():
            for each in expression.values():
                yield from nodes_of(each)


# ---------------------------------------------------------------------------------------------- judging


@dataclass(frozen=True)
class Look:
    """Compare one key of an observation.

    Attributes:
        at: the key, such as "value" or "network.t".
        judge: the name of a judge in JUDGES.
        options: passed to the judge.
    """

    at: str = "value"
    judge: str = "close"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """A part of a question: evaluate, look, and give the points where every look is right.

    Attributes:
        title: what is asked, in words; shown to the student.
        points: what it is worth.
        expression: what to evaluate.
        looks: what to compare; that no exception was raised is always looked at, unless a look is at "error".
        want: right answers by key, where they do not come from the reference.
    """

    title: str
    points: float
    expression: Any
    looks: tuple[Look, ...] = (Look(),)
    want: Mapping[str, Any] = field(default_factory=dict)

    def all_looks(self) -> tuple[Look, ...]:
        """The looks, with the one at `error` put first where it is not listed."""
        if any(look.at == "error" for look in self.looks):
            return self.looks
        return (Look("error", "same"), *self.looks)


def close(got, want, rtol: float = 1e-3, atol: float = 1e-4) -> str:
    """Elementwise in float64: |got - want| <= rtol |want| + atol max|want| (atol alone where all of want is 0); one shape, finite."""
    # Right solutions in float32, tables and arithmetic, come to at most 0.02 of this tolerance in Lab 5 (4.4e-6 of the largest
    # value, in a DDIM step), over six seeds: a margin of fifty. The formulas' smallest mistakes lie above it.
    if isinstance(got, str):
        return f"a tensor is expected, not {got}"
    if got.shape != want.shape:
        return f"the shape is {list(got.shape)}; expected {list(want.shape)}"
    got, want = got.astype(np.float64), want.astype(np.float64)
    if not np.isfinite(got).all():
        return "it holds NaN or infinity"
    if want.size == 0:
        return ""
    excess = np.abs(got - want) - rtol * np.abs(want) - atol * (np.abs(want).max() or 1.0)
    if (excess <= 0).all():
        return ""
    if want.ndim == 0 and want == 0:
        return "it is not 0"  # a zero is asked for as a share of something: how large that is tells nobody anything
    worst = np.unravel_index(np.argmax(excess), want.shape)
    where = f" at {list(map(int, worst))}" if want.ndim else ""
    return f"the largest difference is{where}: {got[worst]:.6g} instead of {want[worst]:.6g}"


def same(got, want) -> str:
    """Equal strings, or arrays equal in shape and every value."""
    if isinstance(want, str) or isinstance(got, str):
        return "" if isinstance(got, str) and isinstance(want, str) and got == want else f"{_short(got)} instead of {_short(want)}"
    if np.array_equal(got, want):
        return ""
    return "this is not so" if want.dtype.kind == "b" and want.ndim == 0 else f"{_short(got)} instead of {_short(want)}"


def falling(got, want, slack: int = 1) -> str:
    """A schedule: whole numbers, strictly falling, each within `slack` of the expected (rounding is free), the first and a 0 exact."""
    if isinstance(got, str) or got.ndim != 1:
        return "a one-dimensional LongTensor is expected"
    if got.dtype.kind not in "iu":
        return f"timesteps must be whole numbers (int64), not {got.dtype}"
    if len(got) != len(want):
        return f"it lists {len(got)} timesteps instead of {len(want)}"
    if len(want) == 0:
        return ""
    if (np.diff(got) >= 0).any():
        return f"it does not fall strictly: {_short(got)}"
    if got[0] != want[0] or (want[-1] == 0 and got[-1] != 0):
        return f"it runs from {got[0]} to {got[-1]} instead of from {want[0]} to {want[-1]}"
    worst = int(np.argmax(np.abs(got - want)))
    return "" if abs(got[worst] - want[worst]) <= slack else f"entry {worst} is {got[worst]}; about {want[worst]} is expected"


def moments(got, want, sigmas: float = 6.0) -> str:
    """Samples [N, ...] judged by mean and standard deviation; `want` is [mean, std, N] (see `summarize`)."""
    if isinstance(got, str):
        return f"a tensor is expected, not {got}"
    if not np.isfinite(got).all():
        return "the samples hold NaN or infinity"
    mean, std, n = want
    # Standard errors of mean and standard deviation of n normal values, and a little for the reference's own rounding.
    slack_mean, slack_std = sigmas * std / n**0.5 + 1e-6, sigmas * std / (2 * n) ** 0.5 + 1e-6
    if abs(got[0] - mean) > slack_mean:
        return f"the samples' mean is {got[0]:.4f} instead of {mean:.4f}"
    if abs(got[1] - std) > slack_std:
        return f"the samples' standard deviation is {got[1]:.4f} instead of {std:.4f}"
    return "" if got[2] == n else f"there are {int(got[2])} values instead of {int(n)}"


def at_most(got, want) -> str:
    """A number no larger than the one expected."""
    if isinstance(got, str):
        return f"a number is expected, not {got}"
    return "" if got <= want else f"it is {float(got):g}, more than {float(want):g}"


def refused(got, want) -> str:
    """Bad input was answered by an exception of the type expected."""
    if isinstance(got, str) and not got:
        return "bad input was accepted; it should raise ValueError with one clear sentence"
    return f"it raised {_short(got)} instead of {want}" if same(got, want) else ""


def accepted(got, want) -> str:
    """Good input was not answered by an exception."""
    return f"good input raised {_short(got)}" if same(got, want) else ""


JUDGES: dict[str, Callable[..., str]] = {
    "close": close, "same": same, "falling": falling, "moments": moments, "at_most": at_most,
    "accepted": accepted, "refused": refused}


def summarize(judge: str, got):
    """What of an observed value a judge needs: for "moments" mean, std and count, for "at_most" the largest, else the value itself."""
    if isinstance(got, str) or judge not in ("moments", "at_most"):
        return got
    got = got.astype(np.float64)
    if judge == "at_most":
        return np.array(got.max(initial=0.0))
    return np.array([got.mean(), got.std(), got.size] if got.size else [np.nan, np.nan, 0])


def judge(look: Look, seen: Observation, want) -> str:
    """"" where the look finds what is wanted, else a sentence about the difference."""
    if look.at not in seen:
        return f"{look.at} is missing" if not seen["error"] else "nothing came back"
    return JUDGES[look.judge](summarize(look.judge, seen[look.at]), want, **look.options)


def alike(look: Look, seen: Observation, answer, want) -> bool:
    """Whether an observation is what a mistake answers: equal to it or as near as the judge allows; None is any wrong answer, and so is too much."""
    if answer is None or look.judge == "at_most":
        return bool(judge(look, seen, want))
    got = summarize(look.judge, seen.get(look.at, MISSING))
    if isinstance(got, str) or isinstance(answer, str):
        return not same(got, answer)
    return np.array_equal(got, answer, equal_nan=True) or (
        look.judge in ("close", "moments", "falling") and not JUDGES[look.judge](got, answer, **look.options))


def _short(value) -> str:
    if isinstance(value, str):
        return value or "nothing"
    text = np.array2string(value, threshold=8, edgeitems=3, precision=4, separator=", ")
    return " ".join(text.split())


# ---------------------------------------------------------------------------------------------- to and from JSON


def to_json(expression, arrays: list[np.ndarray], known: dict[int, int] | None = None):
    """The expression as JSON values; arrays are put into `arrays` and referred to by number, a shared Call by its number."""
    known = {} if known is None else known
    match expression:
        case Call():
            if id(expression) in known:
                return {"$same": known[id(expression)]}
            body = {"what": expression.what, "args": [to_json(each, arrays, known) for each in expression.args],
                    "kwargs": {key: to_json(each, arrays, known) for key, each in expression.kwargs.items()},
                    "of": to_json(expression.of, arrays, known)}
            # Numbered on completion, as `from_json` meets them.
            known[id(expression)] = len(known)
            return {"$call": body}
        case np.ndarray():
            arrays.append(expression)
            return {"$array": len(arrays) - 1}
        case tuple():
            return {"$tuple": [to_json(each, arrays, known) for each in expression]}
        case list():
            return [to_json(each, arrays, known) for each in expression]
        case dict():
            return {"$dict": [[key, to_json(each, arrays, known)] for key, each in expression.items()]}
        case float() if not np.isfinite(expression):
            return {"$float": str(expression)}
        case None | bool() | int() | float() | str():
            return expression
    raise TypeError(f"{type(expression).__name__} cannot be part of an expression")


def from_json(value, arrays, known: list | None = None):
    """Undo `to_json`; raises KeyError, IndexError, TypeError or ValueError on anything else."""
    known = [] if known is None else known
    match value:
        case {"$same": number}:
            return known[number]
        case {"$call": body}:
            args = tuple(from_json(each, arrays, known) for each in body["args"])
            kwargs = {key: from_json(each, arrays, known) for key, each in body["kwargs"].items()}
            node = Call(body["what"], args, kwargs, from_json(body["of"], arrays, known))
            known.append(node)
            return node
        case {"$array": number}:
            return arrays[number]
        case {"$tuple": items}:
            return tuple(from_json(each, arrays, known) for each in items)
        case {"$dict": items}:
            return {key: from_json(each, arrays, known) for key, each in items}
        case {"$float": text}:
            return float(text)
        case list():
            return [from_json(each, arrays, known) for each in value]
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"not an expression: {str(value)[:80]}")

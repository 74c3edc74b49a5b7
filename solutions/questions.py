"""What a lab's exam and its catalogue of mistakes are made of. Knows no lab by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffusionlab.asking import MISSING, Call, Look, Observation, Part, alike, attempt, call, judge, observe, summarize
from diffusionlab.sheet import KnownMistake, SheetQuestion, look_at_all

Ask = Callable[[np.random.Generator], Sequence[Part]]

SHEET_SEED = 5
"""Seed of the self-check's inputs. At grading each student and question has its own."""


@dataclass(frozen=True)
class Question:
    """A question of the exam.

    Attributes:
        id: also the notebook's grade_id and a column of the marks; letters, digits, hyphens.
        points: what it is worth.
        title: in the student's words.
        targets: names of the classes and functions under question.
        ask: makes the parts from fresh random inputs; None for a question that only a person can judge.
        needs: ids of questions that this one rests on, so that one mistake is paid for once.
        method: the method of targets[0] that is judged; where this question lost points, those that need it take the
            student's own.
        by_needs: that method written with nothing but the methods that it needs, where the reference takes a short cut;
            where another question lost points for this very method, the student's is called `own`.
        attempts: how often it is asked at grading before an answer counts as wrong; more than once where clocks are read.
    """

    id: str
    points: float
    title: str
    targets: tuple[str, ...] = ()
    ask: Ask | None = None
    needs: tuple[str, ...] = ()
    method: str = ""
    by_needs: Callable | None = None
    attempts: int = 1

    @property
    def manual(self) -> bool:
        """Whether a person gives the points."""
        return self.ask is None

    def parts(self, rng: np.random.Generator) -> list[Part]:
        """The parts with inputs drawn from rng; raises ValueError where their points do not add up."""
        parts = list(self.ask(rng))
        if abs(sum(part.points for part in parts) - self.points) > 1e-9:
            raise ValueError(f"the parts of {self.id} add up to {sum(part.points for part in parts)}, not {self.points}")
        return parts


@dataclass(frozen=True)
class Mistake:
    """A typical mistake: a variant of one reference class or function.

    Attributes:
        id: short, unique within the lab.
        question: the question that it loses points on.
        symptom: what the student sees.
        hint: what to look at, without the solution.
        target: the name of the class or function that it replaces.
        variant: the wrong class or function.
    """

    id: str
    question: str
    symptom: str
    hint: str
    target: str
    variant: object

    @property
    def message(self) -> str:
        return f"{self.symptom} {self.hint}"


@dataclass(frozen=True)
class Alternative:
    """A right solution in another style than the reference's: none may lose a point.

    Attributes:
        style: in words, unique within the lab.
        target: the name of the class or function that it stands for.
        made: the class or function.
    """

    style: str
    target: str
    made: object


class Questions(list[Question]):
    """A lab's questions; its `question` decorator puts a function that makes the parts on the list."""

    def question(self, id: str, points: float, title: str, *targets: str, **rests):
        """Register the decorated function; `rests` are Question's other fields."""
        def register(make_parts):
            self.append(Question(id, points, title, targets, make_parts, **rests))
            return make_parts
        return register


class Alternatives(list[Alternative]):
    """A lab's right solutions in other styles; its `alternative` decorator puts a class or function on the list."""

    def alternative(self, style: str, target: str = ""):
        """Register the decorated subclass of a reference class, what is named like the reference's, or what stands for `target`."""
        def register(made):
            base = made.__mro__[1] if isinstance(made, type) else object
            name = target or (made if base is object else base).__name__
            if isinstance(made, type):
                made.__name__ = name
            self.append(Alternative(style, name, made))
            return made
        return register


class Catalogue(list[Mistake]):
    """A lab's mistakes; its `mistake` decorator puts a wrong class or function on the list."""

    def mistake(self, question: str, id: str, symptom: str, hint: str):
        """Register the decorated subclass of a reference class, or a function named like the reference's."""
        def register(variant):
            target = variant.__mro__[1].__name__ if isinstance(variant, type) else variant.__name__
            if isinstance(variant, type):
                variant.__name__ = target
            self.append(Mistake(id, question, symptom, hint, target, variant))
            return variant
        return register


VALUE, DTYPE, INPUTS = Look("value"), Look("value.dtype", "same"), Look("inputs", "same")
LIKE_X = (VALUE, DTYPE, INPUTS)
"""Looks at an answer that has its input's shape and dtype, and at the input, which must be as before."""


def tensor(array) -> Call:
    """A fresh tensor of the array's values and dtype, for this call alone."""
    return call("torch:tensor", np.asarray(array))


def normal(rng: np.random.Generator, *shape: int, dtype=np.float32) -> np.ndarray:
    """Draws from N(0, 1)."""
    return rng.standard_normal(shape).astype(dtype)


def refusals(rng: np.random.Generator, points: float, methods: Sequence[tuple[Sequence[Call], Mapping[str, Call]]]) -> Iterator[Part]:
    """Parts of a question on bad input: each bad call must be refused, and no good call of the same method.

    Args:
        rng: source of the order in which all are asked.
        points: of all parts together, each counting alike.
        methods: for each method some good calls, for refusing everything is no answer, and its bad ones by what is bad about them.
    """
    # In an order that gives nothing away: to say of some calls that they were refused, one has to know which.
    every = [(method, title, each) for method, (good, bad) in enumerate(methods)
             for title, each in [*(("", each) for each in good), *bad.items()]]
    every = [every[i] for i in rng.permutation(len(every))]
    attempts, bad = [attempt(each) for _, _, each in every], [each for each in every if each[1]]
    for at, (method, title, _) in enumerate(every):
        if title:
            good = [i for i, each in enumerate(every) if each[:2] == (method, "")]
            # What a good call answers is its own question's matter; here it must only not be refused.
            yield Part(title, points / len(bad), attempts, (*(Look(f"value.{i}", "accepted") for i in good), Look(f"value.{at}", "refused")),
                       {**{f"value.{i}": "" for i in good}, f"value.{at}": "ValueError"})


def with_right_answers(parts: Sequence[Part], reference: Mapping[str, object]) -> tuple[Part, ...]:
    """The parts with `want` filled from the reference wherever a part does not state it."""
    return right_answers(parts, look_at_all(parts, reference))


def right_answers(parts: Sequence[Part], observations: Sequence[Observation]) -> tuple[Part, ...]:
    """The parts with `want` filled from what was observed of the reference wherever a part does not state it."""
    def of(part, seen):
        return {look.at: summarize(look.judge, seen[look.at]) for look in part.all_looks() if look.at in seen}
    return tuple(replace(part, want={**of(part, seen), **part.want}) for part, seen in zip(parts, observations))


def self_check(question: Question, mistakes: Sequence[Mistake], reference: Mapping[str, object]) -> SheetQuestion:
    """A question for the student's notebook: fixed inputs, right answers, and the answers of its typical mistakes."""
    parts = with_right_answers(question.parts(np.random.default_rng(SHEET_SEED)), reference)
    known = tuple(known_mistake(parts, mistake, reference) for mistake in mistakes)
    return SheetQuestion(question.id, question.title, question.points, question.targets, question.needs, parts, known)


def known_mistake(parts: Sequence[Part], mistake: Mistake, reference: Mapping[str, object]) -> KnownMistake:
    """What a mistake answers to parts that have their right answers."""
    def answers(seed: int) -> list[Observation]:
        # Some mistakes draw their own noise. With two seeds that shows, and with the same two at every build the sheet stays
        # the same. A lab may do without torch.
        if torch := sys.modules.get("torch"):
            torch.manual_seed(seed)
        return look_at_all(parts, {**reference, mistake.target: mistake.variant})

    once, again = answers(0), answers(1)
    return KnownMistake(mistake.id, mistake.message, tuple(map(_wrong_answers, parts, once, again)))


def may_explain(parts: Sequence[Part], seen: Sequence[Observation], mistake: Mistake, reference: Mapping[str, object]) -> bool:
    """Whether a mistake is right where the answers seen are right and wrong where they are wrong; looks no further than the first
    part where it is not, so put the cheap parts first."""
    code, made = {**reference, mistake.target: mistake.variant}, {}
    for part, answer in zip(parts, seen):
        if id(part.expression) not in made:
            made[id(part.expression)] = observe(part.expression, code)
        mistaken = made[id(part.expression)]
        if mistaken["error"] or answer["error"]:
            if mistaken["error"] != answer["error"]:
                return False
        elif any(bool(judge(look, mistaken, part.want[look.at])) != bool(judge(look, answer, part.want[look.at]))
                 for look in part.all_looks()):
            return False
    return True


def _wrong_answers(part: Part, seen: Observation, again: Observation) -> dict[str, object]:
    # Only what differs from the right answer needs to be stored, and of an answer that chance decides, that it is wrong. What is
    # wrong once and right the other time is a slow machine's doing.
    wrong = {}
    for look in part.all_looks():
        if judge(look, seen, part.want[look.at]) and judge(look, again, part.want[look.at]):
            answer = summarize(look.judge, seen.get(look.at, MISSING))
            wrong[look.at] = answer if alike(look, again, answer, part.want[look.at]) else None
    return wrong

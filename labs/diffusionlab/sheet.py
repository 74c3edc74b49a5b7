"""A lab's answer sheet: its self-check questions, the right answers, and the answers that typical mistakes give. Numbers and
sentences only; no code is stored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from .asking import MISSING, Look, Observation, Part, alike, from_json, judge, observe, same, summarize, to_json


@dataclass(frozen=True)
class KnownMistake:
    """A typical mistake: its id, what to tell the student, and by part its wrong answers, look by look (None: one that chance
    decides)."""

    id: str
    message: str
    answers: tuple[Mapping[str, object], ...]


@dataclass(frozen=True)
class SheetQuestion:
    """A question as the self-check knows it.

    Attributes:
        id, title, points: as in the lab.
        targets: the names of the classes and functions that it needs.
        needs: questions that it rests on; they are named first where they fail.
        parts: each with `want` complete: the right answer for every look.
        mistakes: the typical ones.
    """

    id: str
    title: str
    points: float
    targets: tuple[str, ...]
    needs: tuple[str, ...]
    parts: tuple[Part, ...]
    mistakes: tuple[KnownMistake, ...]


@dataclass(frozen=True)
class PartVerdict:
    """What came of one part: the sentence is "" where it is right."""

    title: str
    points: float
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """What came of one question.

    Attributes:
        parts: in the question's order.
        mistake: the id of the typical mistake that explains everything seen, or None.
        message: what to tell the student; "" where all is right.
        unwritten: the name of the stub that is still to be written, or None.
    """

    parts: tuple[PartVerdict, ...]
    mistake: str | None = None
    message: str = ""
    unwritten: str | None = None

    @property
    def points(self) -> float:
        return sum(part.points for part in self.parts if not part.sentence)

    @property
    def right(self) -> bool:
        return all(not part.sentence for part in self.parts)


def look_at_all(parts, targets: Mapping[str, object]) -> list[Observation]:
    """Evaluate each part's expression with the targets, one that parts share only once."""
    seen: dict[int, Observation] = {}
    for part in parts:
        if id(part.expression) not in seen:
            seen[id(part.expression)] = observe(part.expression, targets)
    return [seen[id(part.expression)] for part in parts]


def judge_question(question: SheetQuestion, observations: Sequence[Observation],
                   again: Callable[[], Sequence[Observation]] | None = None) -> Verdict:
    """Points by part, and the typical mistake that gives the same answers in every part, where there is one.

    Args:
        question: with right answers, and those of the mistakes.
        observations: one for each part.
        again: observes once more, with other chance; asked where a mistake that leaves an answer to chance would explain all. None: it is believed.
    """
    parts = []
    for part, seen in zip(question.parts, observations):
        failed = [(look, sentence) for look in part.all_looks() if (sentence := judge(look, seen, part.want[look.at]))]
        parts.append(PartVerdict(part.title, part.points, _explain(seen, *failed[0]) if failed else ""))
    verdict = Verdict(tuple(parts))
    if verdict.right:
        return verdict
    if unwritten := next(filter(None, map(_unwritten, observations)), None):
        return Verdict(verdict.parts, message=f"{unwritten} is still to be written.", unwritten=unwritten)
    explaining = [each for each in question.mistakes if all(map(_answers_alike, question.parts, observations, each.answers))]
    if again and any(map(_left_to_chance, explaining)):
        second = again()
        explaining = [each for each in explaining if all(map(_changes_by_chance, observations, second, each.answers))]
    if explaining:
        # The first of those whose answers are the most exact.
        mistake = min(explaining, key=lambda each: sum(map(_loose, question.parts, observations, each.answers)))
        return Verdict(verdict.parts, mistake.id, mistake.message)
    return Verdict(verdict.parts, message=next(f"{part.title}: {part.sentence}." for part in parts if part.sentence))


def _unwritten(seen: Observation) -> str | None:
    if seen["error"]:  # a stub has no message, torch's own has one
        return f"`{seen['error.where']}`" if seen["error"] == "NotImplementedError" and not seen["error.message"] else None
    stubs = (re.fullmatch(r"NotImplementedError in ([\w.<>]+)", value) for value in seen.values() if isinstance(value, str))
    return next((f"`{stub[1]}`" for stub in stubs if stub), None)


def _answers_alike(part: Part, seen: Observation, answers: Mapping[str, object]) -> bool:
    if answers.get("error"):
        return seen["error"] == answers["error"]
    return all(alike(look, seen, answers[look.at], part.want[look.at]) if look.at in answers else not judge(look, seen, part.want[look.at])
               for look in part.all_looks())


def _left_to_chance(mistake: KnownMistake) -> bool:
    return any(answer is None for answers in mistake.answers for answer in answers.values())


def _changes_by_chance(seen: Observation, again: Observation, answers: Mapping[str, object]) -> bool:
    # What a mistake leaves to chance comes out otherwise each time; what does not is wrong for another reason.
    return all(same(again.get(at, MISSING), seen.get(at, MISSING)) for at, answer in answers.items() if answer is None)


def _loose(part: Part, seen: Observation, answers: Mapping[str, object]) -> int:
    """How many of a mistake's answers say only that something is wrong: those left to chance, and too much by another amount."""
    wrong = [(look, answers[look.at]) for look in part.all_looks() if look.at in answers]
    return sum(answer is None or (look.judge == "at_most" and summarize("at_most", seen[look.at]) != answer) for look, answer in wrong)


def _explain(seen: Observation, look: Look, sentence: str) -> str:
    if look.at == "error" and seen["error"]:
        return f"it raised {seen['error']}: {seen['error.message'].partition(chr(10))[0] or 'no message'}"
    told = {"inputs": "it writes into a tensor that was passed to it", "network.t": f"the timesteps that the model was asked for: {sentence}",
            "network.grad": "the model was called with gradients switched on",
            "network.training": "the model was called in training mode"}
    # A name is the student's, a number in front of it the expression's.
    where = look.at.removeprefix("value").lstrip(".0123456789")
    return told.get(look.at) or (f"`{where}`: {sentence}" if where and look.at != "error" else sentence)


# ---------------------------------------------------------------------------------------------- files


def write_sheet(path: Path, questions: list[SheetQuestion]) -> None:
    """Write an answer sheet as one safetensors file: arrays, and JSON that refers to them."""
    arrays: list[np.ndarray] = []
    body = [dict(
        id=q.id, title=q.title, points=q.points, targets=q.targets, needs=q.needs,
        parts=_shared([dict(title=p.title, points=p.points, expression=p.expression, want=p.want,
                            looks=[[look.at, look.judge, dict(look.options)] for look in p.looks]) for p in q.parts], arrays),
    ) for q in questions]
    # The mistakes' arrays come last: which of their answers are left to chance may differ between two builds, and moves no other number.
    for q, each in zip(questions, body):
        each["mistakes"] = [dict(id=m.id, message=m.message, answers=[to_json(dict(answer), arrays) for answer in m.answers])
                            for m in q.mistakes]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({str(i): np.asarray(array, order="C") for i, array in enumerate(arrays)}, path,
              metadata={"questions": json.dumps(body)})


def _shared(parts: list[dict], arrays: list) -> list[dict]:
    # One numbering of calls for the whole question, so that parts go on sharing an expression.
    known: dict[int, int] = {}
    return [{**part, "expression": to_json(part["expression"], arrays, known), "want": to_json(dict(part["want"]), arrays)}
            for part in parts]


def read_sheet(path: Path) -> dict[str, SheetQuestion]:
    """Read an answer sheet: its questions by id."""
    with safe_open(path, framework="numpy") as file:
        body, arrays = json.loads(file.metadata()["questions"]), [file.get_tensor(str(i)) for i in range(len(file.keys()))]
    return {q["id"]: SheetQuestion(q["id"], q["title"], q["points"], tuple(q["targets"]), tuple(q["needs"]),
                                   tuple(_read_parts(q["parts"], arrays)),
                                   tuple(KnownMistake(m["id"], m["message"], tuple(from_json(each, arrays) for each in m["answers"]))
                                         for m in q["mistakes"])) for q in body}


def _read_parts(parts: list[dict], arrays: list) -> Iterator[Part]:
    known: list = []
    for part in parts:
        looks = tuple(Look(at, name, options) for at, name, options in part["looks"])
        yield Part(part["title"], part["points"], from_json(part["expression"], arrays, known), looks, from_json(part["want"], arrays))

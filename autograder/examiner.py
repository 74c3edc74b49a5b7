"""The examiner: asks a candidate in its sandbox the questions of an exam, and judges the answers outside.

What comes back is data. Right answers, and what is worked out from the student's, are computed here; a model that is passed
to the student's code is only a stand-in there, and answers from here, so that every call of it is seen. Points are given for
what is right, and for nothing else.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import itertools
import math
import random
import re
import resource
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np

from diffusionlab.asking import (Call, Look, Observation, Part, ask, call, describe, evaluate, judge, nodes_of, observe,
                                 summarize, to_json)
from diffusionlab.sheet import SheetQuestion, Verdict, judge_question, look_at_all
from solutions.questions import Mistake, Question, known_mistake, may_explain, right_answers

from .handin_intake import Cell, definitions_after
from .results import Limits, PartResult, QuestionResult
from .sandbox import Confined
from .wire import Channel, WireError, decode, encode

RECORDER = "diffusionlab.noise_model:Recorder"
"""A model under this name is evaluated by the examiner."""

WORKED_OUT_HERE = ("operator:", "torch:", "numpy:", "math:")
"""Functions of these modules that are applied to a student's answer are applied outside."""

MODEL_VALUES, MODEL_CALLS = 2**22, 2**17
"""The largest batch that a stand-in passes on, in values, and how often it does."""

TRIES, SPARE = 3, 6
"""How often a cell or a question is tried that ends the candidate, and how many such tries a hand-in has to spare in all: what
ended it may have come from outside, while code that ends everything does it each time."""

NOTED = 3
"""How many calls of a student's method are asked once more, elsewhere, before something rests on it."""

LOST = {"timeout": "took too long", "memory": "used too much memory", "processes": "started too many processes",
        "crashed": "ended the whole program"}
"""Why a candidate is gone, in words."""


class Lost(Exception):
    """The candidate is gone; the reason is a key of LOST."""


class Undefined(Exception):
    """The hand-in does not define what a question is about."""


class CannotStart(Exception):
    """The candidate did not start at all; this is not the hand-in's doing."""


# ------------------------------------------------------------------------------------------ the candidate, seen from outside


class Session:
    """A candidate that has run the hand-in's cells; it is started again where it was lost.

    Args:
        place: the Sandbox or NoSandbox to start it in.
        cells: the hand-in's; those to be run are.
        limits: what it may use.

    Attributes:
        failed: by cell id, in a few words, why a cell did not run to its end.
        killers: ids of cells that the candidate did not survive.
        forgiven: how often it ended at a place and was tried again, by the id of the cell or question.
    """

    def __init__(self, place, cells: Sequence[Cell], limits: Limits):
        self.place, self.limits = place, limits
        self.cells = [cell for cell in cells if cell.type == "code" and cell.kind in ("provided", "solution", "added")]
        self.deadline = time.monotonic() + limits.seconds
        self.confined: Confined | None = None
        self.channel: Channel | None = None
        self.failed: dict[str, str] = {}
        self.killers: set[str] = set()
        self.forgiven: Counter[str] = Counter()
        self.added_seconds = limits.added_seconds
        self.seeds = itertools.count()

    @property
    def late(self) -> bool:
        """Whether the time for the whole hand-in is used up."""
        return time.monotonic() > self.deadline

    def ready(self) -> None:
        """See to it that a candidate is there that has run the cells; raises Lost where there is no time left."""
        while self.confined is None and not self.late:
            self._start()
            for cell in self.cells:
                if cell.id in self.killers or (cell.kind == "added" and cell.id in self.failed):
                    continue
                try:
                    self._run(cell)
                except Lost as lost:
                    if str(lost) != "crashed" or not self.forgives(cell.id):
                        self.killers.add(cell.id)
                        self.failed[cell.id] = f"it {LOST[str(lost)]}"
                    break
        if self.confined is None:
            raise Lost("timeout")

    def another(self) -> Session:
        """A session for a candidate of its own, which knows nothing of what this one was asked."""
        other = Session(self.place, self.cells, self.limits)
        other.deadline, other.killers, other.forgiven = self.deadline, self.killers, self.forgiven
        return other

    def forgives(self, place: str) -> bool:
        """Whether to try again where the candidate ended at a place, a cell's or a question's id."""
        if self.forgiven[place] >= TRIES - 1 or self.forgiven.total() >= SPARE:
            return False
        self.forgiven[place] += 1
        return True

    def patiently(self, place: str, ask: Callable):
        """What `ask()` returns; asked again where the candidate ended, if that is forgiven.

        Raises:
            Lost: the candidate ended too often, or ran over a limit.
        """
        while True:
            try:
                return ask()
            except Lost as lost:
                if str(lost) != "crashed" or not self.forgives(place):
                    raise

    def close(self) -> None:
        """End the candidate."""
        if self.channel is not None:
            self.channel.close()
            self.confined.close()
        self.confined = self.channel = None

    def look(self, expression, targets: Sequence[str], seed: int) -> Observation:
        """What `asking.observe` gives for an expression, with the student's code for the targets.

        Raises:
            Lost: the candidate ran over a limit or ended.
            Undefined: the student's code has no such class or function.
        """
        asked = questions_in(expression)
        recorders: list = []
        made: dict[int, object] = {}
        copies: dict[int, object] = {}
        nodes = [with_stand_ins(node, made, copies, recorders) for node in asked]
        arrays: list[np.ndarray] = []
        body = {"do": "ask", "nodes": to_json(nodes, arrays), "targets": list(targets), "seed": seed}
        answer, arrays = self._exchange(body, arrays, recorders)
        if missing := answer.get("missing"):
            raise Undefined(", ".join(f"`{name}`" for name in targets if isinstance(missing, list) and name in missing))
        seen = failure(answer)
        if not seen["error"]:
            values = self._decode(answer.get("values"), arrays)
            if not isinstance(values, list) or len(values) != len(asked):
                self._lose("crashed")
            made |= {id(node): value for node, value in zip(asked, values)}
            try:
                with memory_at_most(self.limits.memory_gib):
                    seen = describe(evaluate(expression, {}, made)) | {"error": ""}
            except Exception as error:  # the answer has no such part, or it is too large for what is to be done with it
                seen = {"error": type(error).__name__, "error.message": "", "error.where": ""}
        for recorder in recorders:
            seen |= {f"network.{name}": value for name, value in recorder.observed().items()}
        return seen | {"inputs": "kept" if answer.get("inputs") == "kept" else "changed"}

    def value(self, expression, targets: Sequence[str]):
        """The value of one call of the student's code; raises ValueError where that raised."""
        recorders, arrays = [], []
        node = with_stand_ins(expression, {}, {}, recorders)
        # Another seed each time: a chain whose steps draw the same noise is another chain.
        body = {"do": "ask", "nodes": to_json([node], arrays), "targets": list(targets), "seed": next(self.seeds)}
        answer, arrays = self._exchange(body, arrays, recorders)
        values = None if failure(answer)["error"] else self._decode(answer.get("values"), arrays)
        if not isinstance(values, list) or len(values) != 1:
            raise ValueError("no value came back")
        return values[0]

    @contextmanager
    def at_most(self, seconds: float):
        """What is asked within may take so many seconds."""
        with self.confined.at_most(max(0.1, min(seconds, self.deadline - time.monotonic()))):
            yield

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.confined = Confined(self.place.launch({"fd": theirs.fileno()}), self.limits, (theirs.fileno(),))
        confined = self.confined
        self.channel = Channel(ours, lambda: confined.reason is not None or confined.process.poll() is not None)
        try:
            with self.at_most(self.limits.cell_seconds):
                self.channel.receive()
        except WireError:
            self.confined.kill()
            said = self.confined.last_words()
            self.close()
            raise CannotStart(said.splitlines()[-1][:300] if said else "no reason was given") from None

    def _run(self, cell: Cell) -> None:
        added = cell.kind == "added"
        # A second each even when the time for the student's own cells is used up: they may define what others need.
        seconds = max(self.added_seconds, 1.0) if added else self.limits.cell_seconds
        # The candidate interrupts a cell itself, and keeps what was defined by then; only a cell that holds out is killed.
        with self.at_most(1.5 * seconds + 2):
            answer, _ = self._exchange({"do": "run", "source": cell.source, "seconds": seconds,
                                        "clock": "wall" if added else "cpu"})
        if added:
            spent = answer.get("seconds")
            self.added_seconds -= spent if isinstance(spent, float) and spent > 0 else 0
        error = failure(answer)
        line = answer.get("error.line")
        if error["error"]:
            where = f" in line {line}" if isinstance(line, int) and error["error"] == "SyntaxError" else ""
            late = error["error"] == "OutOfTime"
            self.failed[cell.id] = f"it {LOST['timeout']}" if late else f"it raised {mask(error['error'])}{where}"
            if cell.kind != "provided" and not late and isinstance(line, int):
                # What stopped it may have been a try at something that is not there at grading.
                with self.at_most(1.5 * seconds + 2):
                    for text in definitions_after(cell.source, line):
                        self._exchange({"do": "run", "source": text, "seconds": seconds, "clock": "wall" if added else "cpu"})
        else:
            self.failed.pop(cell.id, None)

    def _exchange(self, body: dict, arrays=(), recorders: Sequence = ()) -> tuple[dict, list[np.ndarray]]:
        if self.channel is None:
            raise Lost("crashed")
        try:
            self.channel.send(body, arrays)
            while True:
                answer, arrays = self.channel.receive()
                if not isinstance(answer, dict):
                    raise WireError("not an answer")
                if "model" not in answer:
                    return answer, arrays
                self.channel.send(*predict(recorders, answer, arrays))
        except WireError:
            self._lose("crashed")

    def _decode(self, value, arrays):
        try:
            return decode(value, arrays, as_tensor)
        except WireError:
            self._lose("crashed")

    def _lose(self, reason: str):
        self.confined.kill(reason)
        reason = self.confined.reason
        self.close()
        raise Lost(reason)


def failure(answer: Mapping) -> dict[str, str]:
    """The exception in an answer, as an observation has it."""
    said = {key: answer.get(key, "") for key in ("error", "error.message", "error.where")}
    return {key: value[:500] if isinstance(value, str) else "" for key, value in said.items()}


@contextmanager
def memory_at_most(gib: float):
    """While this lasts, this process may take so many GiB more: of a small answer a student can make pairs without end, and arrays that
    are broadcast against each other."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    # Written private memory, as that limit counts it; everything in /proc/self/statm is counted in pages.
    taken = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    most = taken + int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def as_tensor(array: np.ndarray):
    import torch

    return torch.from_numpy(array)


def predict(recorders: Sequence, question: Mapping, arrays: list[np.ndarray]) -> tuple[dict, list[np.ndarray]]:
    """A model's answer to its stand-in."""
    import torch

    number = question["model"]
    if type(number) is not int or not 0 <= number < len(recorders) or len(recorders[number].calls) >= MODEL_CALLS:
        raise WireError("no such model, or none for that many calls")
    x, t = (decode(question.get(name), arrays, as_tensor) for name in ("x", "t"))
    # A batch of another size than t's would be broadcast: of two small arrays, a huge one.
    fits = isinstance(x, torch.Tensor) and isinstance(t, torch.Tensor) and (t.numel() == 1 or t.shape == x.shape[:1])
    if not fits or any(array.size > MODEL_VALUES for array in arrays):
        return {"error": "ValueError", "error.message": "the model takes a tensor of a reasonable size, and a timestep for each sample"}, []
    try:
        recorders[number].train(bool(question.get("training")))
        with torch.set_grad_enabled(bool(question.get("grad"))):
            eps = recorders[number](x, t)
        answer: list[np.ndarray] = []
        return {"error": "", "value": encode(eps, answer)}, answer
    except Exception as error:  # a wrong t, say: the student's code sees what it would see from the model itself
        return {"error": type(error).__name__, "error.message": str(error)[:300]}, []


# ---------------------------------------------------------------------------------- what is asked inside, what is done here


def is_target(node: Call) -> bool:
    return node.of is None and ":" not in node.what and node.what != "attempt"


def questions_in(expression) -> list[Call]:
    """The calls that only the student's code can answer; what is done with their results is done outside."""
    found: dict[int, Call] = {}

    def walk(part):
        match part:
            case Call() if not any(map(is_target, nodes_of(part))):
                return
            case Call() if part.of is None and part.what.startswith(WORKED_OUT_HERE) and part.what != RECORDER:
                for each in (*part.args, *part.kwargs.values()):
                    walk(each)
            case Call():
                found[id(part)] = part
            case list() | tuple():
                for each in part:
                    walk(each)
            case dict():
                for each in part.values():
                    walk(each)

    walk(expression)
    return list(found.values())


def with_stand_ins(expression, made: dict[int, object], copies: dict[int, object], recorders: list):
    """The expression with each model replaced by a stand-in; the models themselves go into `recorders`.

    Args:
        made: by the id of a Call its result.
        copies: by the id of a Call what stands in its place; one for all expressions of a question, which may share Calls.
    """
    def copy(part):
        match part:
            case Call():
                if id(part) not in copies:
                    copies[id(part)] = stand_in(part) if part.what == RECORDER else copy_call(part)
                return copies[id(part)]
            case list() | tuple():
                return type(part)(copy(each) for each in part)
            case dict():
                return {key: copy(each) for key, each in part.items()}
        return part

    def copy_call(part):
        return Call(part.what, copy(part.args), copy(dict(part.kwargs)), copy(part.of))

    def stand_in(part):
        model = evaluate(part, {}, made)
        recorders.append(model)
        return call("remote model", len(recorders) - 1, tuple(model.sample_shape), model.num_timesteps)

    return copy(expression)


# ---------------------------------------------------------------------------------------------- the exam


class Exam:
    """The questions of a lab, with fresh inputs for one student.

    Args:
        questions, mistakes, reference: of the lab.
        seed, student: together they determine every input.
        session: the candidate.
        limits: `question_seconds` is looked at.
    """

    def __init__(self, questions: Sequence[Question], mistakes: Sequence[Mistake], reference: Mapping[str, object],
                 seed: int, student: str, session: Session, limits: Limits):
        self.questions = {question.id: question for question in questions}
        self.mistakes, self.reference = mistakes, reference
        self.seed, self.student, self.session, self.limits = seed, student, session, limits
        # Where methods are asked to which the student's others are held: a method that knows what was answered could agree with
        # anything. Started where needed; and since a start takes seconds, kept for all questions.
        self.own, self.otherwise = session.another(), session.another()
        self.alive: dict[str, bool] = {}

    def close(self) -> None:
        """End the candidates."""
        for session in (self.session, self.own, self.otherwise):
            session.close()

    def ask(self, question: Question, results: Mapping[str, QuestionResult]) -> QuestionResult:
        """Ask one question; `results` are those of the questions before it. Nothing in the student's code makes it raise."""
        start = time.perf_counter()
        blank = QuestionResult(question.id, question.title, 0.0, float(question.points), "manual")
        if question.manual:
            return blank
        try:
            result = self.session.patiently(question.id, lambda: self._judge(question, blank, results))
        except Undefined as undefined:
            message = f"{undefined} is not defined when the notebook is run from the top."
            result = replace(blank, verdict="missing", message=message)
        except Lost as lost:
            reason = str(lost)
            message = "The time for the whole hand-in was used up." if self.session.late else f"It {LOST[reason]}."
            result = replace(blank, verdict="timeout" if reason == "timeout" else "crashed", message=message)
        return replace(result, seconds=round(time.perf_counter() - start, 3))

    def _judge(self, question: Question, blank: QuestionResult, results: Mapping[str, QuestionResult]) -> QuestionResult:
        rng = np.random.default_rng(seed_of(self.seed, self.student, question.id))
        parts, seed = question.parts(rng), int(rng.integers(2**31))
        seed_everything(seed)
        usual = look_at_all(parts, self.reference)
        parts = right_answers(parts, usual)
        for _ in range(question.attempts):
            seen = self._look_at_all(question, parts, seed)
            told = tell_all(parts, seen, usual)
            if not any(told):
                break
        rests_on, own = self._lost_before(question, results), False
        # One slip may be nobody's yet. On several methods that are nowhere right, and no mistake that is known, nothing rests.
        unheard_of = [each for each in rests_on if not results[each.id].points and not results[each.id].mistake]
        if any(told) and rests_on and len(unheard_of) < 2:
            told, own = self._on_own_terms(question, parts, seen, usual, told, rests_on)
        points = float(round(sum(part.points for part, sentence in zip(parts, told) if not sentence), 6))
        result = replace(blank, points=points, parts=tuple(
            PartResult(part.title, 0.0 if sentence else float(part.points), float(part.points), sentence)
            for part, sentence in zip(parts, told)))
        if not any(told):
            message = f"Right on the terms of your own {_methods(rests_on)}." if own else ""
            return replace(result, verdict="right", message=message)
        judged = self._recognise(question, parts, seen, seed)
        if judged.unwritten:
            return replace(result, verdict="partly" if points else "unwritten",
                           message=f"{mask(judged.unwritten)} is still to be written.")
        first = next(f"{part.title}: {sentence}." for part, sentence in zip(parts, told) if sentence)
        message = judged.message if judged.mistake else first
        message += f" It rests on {_methods(rests_on)}, which lost points: mend that first." if rests_on else ""
        return replace(result, verdict="partly" if points else "wrong", mistake=judged.mistake, message=message)

    def _look_at_all(self, question: Question, parts: Sequence[Part], seed: int) -> list[Observation]:
        self.session.ready()
        seen: dict[int, Observation] = {}
        with self.session.at_most(self.limits.question_seconds):
            for part in parts:
                if id(part.expression) not in seen:
                    seen[id(part.expression)] = self.session.look(part.expression, question.targets, seed)
        return [seen[id(part.expression)] for part in parts]

    def _lost_before(self, question: Question, results: Mapping[str, QuestionResult]) -> list[Question]:
        """The questions that this one rests on, near and far, and that lost points."""
        found: dict[str, Question] = {}
        todo = list(question.needs)
        while todo:
            if (need := todo.pop(0)) not in found:
                found[need] = self.questions[need]
                todo += found[need].needs
        return [each for need, each in found.items() if need in results and results[need].points < results[need].max]

    def _recognise(self, question: Question, parts: Sequence[Part], seen: Sequence[Observation], seed: int) -> Verdict:
        """What is unwritten, or which typical mistake gives the same answers to these very inputs."""
        asked = SheetQuestion(question.id, question.title, question.points, question.targets, question.needs,
                              tuple(parts), ())
        verdict = judge_question(asked, seen)
        if verdict.unwritten:
            return verdict
        # Most mistakes are out after a first cheap look; only those that are left are asked everything.
        by_cost = sorted(zip(parts, seen), key=lambda pair: network_values(pair[1]))
        known = tuple(known_mistake(parts, each, self.reference) for each in self.mistakes if each.question == question.id
                      and may_explain(*zip(*by_cost), each, self.reference))

        def again() -> Sequence[Observation]:
            try:
                return self._look_at_all(question, parts, seed + 1)
            except Lost:  # the points are given; only the mistake's name is in question
                return seen
        return judge_question(replace(asked, mistakes=known), seen, again)

    # A mistake is paid for once ---------------------------------------------------------------

    def _on_own_terms(self, question: Question, parts: Sequence[Part], seen: Sequence[Observation],
                      usual: Sequence[Observation], told: Sequence[str],
                      rests_on: Sequence[Question]) -> tuple[list[str], bool]:
        """What is not right about each part on the terms of the student's own methods, and whether these made a difference.

        The methods are those that lost points before; the reference does the rest, and gives what is right on these terms.
        """
        told, own = list(told), False
        if not all(self._answers_to_inputs(need) for need in rests_on if need.method):
            return told, own
        for by_needs in (None, question.by_needs) if question.by_needs else (None,):
            # A loop that does nothing is right on no terms: the model is called at least as often as by the reference.
            doubtful = [i for i in range(len(parts)) if told[i] and network_calls(seen[i]) >= network_calls(usual[i])]
            agreed: dict[int, Part] = {}
            noted: dict[str, list[tuple[Call, object]]] = {}
            for i in doubtful:
                answer = self._own_answer(self.own, parts[i].expression, question, rests_on, by_needs, noted)
                if answer is None:
                    return told, own
                values = {at: summarize(look.judge, answer[at]) for look in value_looks(parts[i]) if (at := look.at) in answer}
                terms = replace(parts[i], want={**parts[i].want, **values})
                if values and all(comparable(answer[at], usual[i].get(at)) for at in values) and not tell(terms, seen[i], usual[i]):
                    agreed[i] = terms
            if agreed and not all(self._same_elsewhere(need, noted.get(need.id, ())) for need in rests_on):
                return told, own
            for i, terms in agreed.items():
                if not network_calls(usual[i]) or not self._hollow(parts[i], terms, question, rests_on, by_needs):
                    told[i], own = "", True
        return told, own

    def _answers_to_inputs(self, need: Question) -> bool:
        """Whether a student's method is one that something can rest on: most of the inputs that change the reference's answer change
        its answer, too, by no less in kind, and it is of a reasonable size. What returns a constant, or one of its inputs, is none.
        """
        if need.id not in self.alive:
            try:
                self.alive[need.id] = self._follows_inputs(need)
            except (Lost, Undefined):
                self.alive[need.id] = False
        return self.alive[need.id]

    def _follows_inputs(self, need: Question) -> bool:
        rng = np.random.default_rng(seed_of(self.seed, self.student, need.id, "inputs"))
        asked = next((node for part in need.parts(rng) for node in nodes_of(part.expression) if node.what == need.method), None)
        return asked is None or self._follows(self.own, asked)

    def _same_elsewhere(self, need: Question, calls: Sequence[tuple[Call, object]]) -> bool:
        """Whether a student's method is a function of its inputs where that mattered: a candidate that knows nothing of what was asked
        answers some of the very calls alike, in another order, and answers to their inputs.
        """
        try:
            self.otherwise.ready()
            for asked, value in reversed(calls):
                if same_answer(*(observe(asked, self.reference) for _ in range(2))):  # what is drawn anew is another each time
                    with self.otherwise.at_most(self.limits.question_seconds):
                        again = self.otherwise.value(asked, list(self.reference))
                    if not same_answer(describe(value), describe(again)):
                        return False
            # Near clean data an honest slip may hide an input; so most of the calls count.
            return not calls or 2 * sum(self._follows(self.otherwise, asked) for asked, _ in calls) > len(calls)
        except (Lost, Undefined, ValueError):
            return False

    def _follows(self, session: Session, asked: Call) -> bool:
        """Whether most of the inputs that change the reference's answer to a call change the student's."""
        right = observe(asked, self.reference)
        shifts = [(other, shift) for other in changed_inputs(asked) if (shift := moved(right, observe(other, self.reference)))]
        if not shifts:
            return True
        session.ready()
        with session.at_most(self.limits.question_seconds):
            # Asked in the very form in which the reference will ask: a message that could be told from others would be answered otherwise.
            own, *others = (session.look(each, list(self.reference), next(session.seeds)) for each in (asked, *(other for other, _ in shifts)))
            if not within_reason(own.get("value"), right["value"]):
                return False
            seen = [(other, shift) for other, (_, shift) in zip(others, shifts)]
        # Where another input gives the reference another shape, it gives one to the student's.
        followed = [within_reason(each.get("value"), right["value"]) and math.isinf(moved(own, each)) == math.isinf(shift)
                    and moved(own, each) > 0.01 * min(shift, 1e300) for each, shift in seen]
        return 2 * sum(followed) > len(followed)

    def _hollow(self, part: Part, terms: Part, question: Question, rests_on: Sequence[Question], by_needs) -> bool:
        """Whether a model that predicts otherwise makes a difference to the reference, and none on the student's own terms."""
        with other_predictions():
            usual = observe(part.expression, self.reference)
            if not differs(part, usual):
                return False
            answer = self._own_answer(self.otherwise, part.expression, question, rests_on, by_needs)
        return not answer or not differs(terms, answer)

    def _own_answer(self, session: Session, expression, question: Question, rests_on: Sequence[Question], by_needs,
                    noted: dict | None = None) -> Observation | None:
        """The reference's answer with the student's methods: {} where it has none, None where that cost the candidate. Some calls of
        each method are noted, with what it answered."""
        chance, counts = random.Random(seed_of(self.seed, self.student, question.id, "noted")), Counter()

        def note(need: Question, asked: Call, value) -> None:
            # Each call has the same chance to be among the few that are kept.
            calls, counts[need.id] = noted.setdefault(need.id, []), counts[need.id] + 1
            place = len(calls) if len(calls) < NOTED else chance.randrange(counts[need.id])
            if place < NOTED:
                calls[place:place + 1] = [copy.deepcopy((asked, value))]  # the reference may go on writing into either

        def answer():
            made: dict[int, object] = {}
            session.ready()
            with session.at_most(self.limits.question_seconds), memory_at_most(self.limits.memory_gib), ExitStack() as stack:
                for need in rests_on:
                    owner = self.reference.get(need.targets[0])
                    if not need.method or owner is None:
                        continue
                    # What is judged here cannot also be the measure; `by_needs` may build on it.
                    judged = (need.targets[0], need.method) == (question.targets[0], question.method)
                    students = students_own(owner, need.method, session, self.reference, expression, made,
                                            partial(note, need) if noted is not None else None)
                    if isinstance(owner, type):
                        stack.enter_context(lent(owner, "own" if judged else need.method, students))
                    elif not judged:
                        stack.enter_context(lent_function(owner, students))
                if by_needs:
                    stack.enter_context(patch.object(self.reference[question.targets[0]], question.method, by_needs))
                return describe(evaluate(expression, self.reference, made))

        try:
            return session.patiently(question.id, answer)
        except Lost:
            return None
        except Exception:  # the student's methods raise, or take what cannot be sent: then there are no such terms
            return {}


def changed_inputs(asked: Call) -> Iterator[Call]:
    """A call again with one of its inputs changed, for each that is a number, a list of numbers, or a tensor of floating-point numbers,
    or stands in a list."""
    def changed(value):
        match value:
            case bool():
                pass
            case int():
                yield value + max(1, value // 10)
            case float():
                yield 1.1 * value
            case list() | tuple() if value and all(isinstance(each, float) for each in value):
                yield type(value)(1.1 * each for each in value)
            case list() | tuple():
                for i, each in enumerate(value):
                    yield from (type(value)([*value[:i], other, *value[i + 1:]]) for other in changed(each))
            case Call(what="torch:tensor", args=(np.ndarray() as array,)) if array.dtype.kind == "f":
                yield call("torch:tensor", (1.1 * array).astype(array.dtype))

    for i, value in enumerate(asked.args):
        yield from (replace(asked, args=(*asked.args[:i], other, *asked.args[i + 1:])) for other in changed(value))
    for key, value in asked.kwargs.items():
        yield from (replace(asked, kwargs={**asked.kwargs, key: other}) for other in changed(value))


def moved(seen: Observation, other: Observation) -> float:
    """How far two answers are apart: the largest difference, infinite where their shapes differ, 0 where one of them is none."""
    a, b = seen.get("value"), other.get("value")
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray) or not a.size:
        return 0.0
    return float(np.abs(a.astype(float) - b).max()) if a.shape == b.shape else math.inf


def same_answer(seen: Observation, other: Observation) -> bool:
    """Whether two answers are one, up to rounding."""
    def same(a, b) -> bool:
        if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
            return isinstance(a, str) and a == b
        return a.shape == b.shape and np.allclose(a.astype(float), b.astype(float), rtol=1e-4, atol=1e-6, equal_nan=True)
    return seen.keys() == other.keys() and all(same(seen[key], other[key]) for key in seen)


def comparable(answer, usual) -> bool:
    """Whether an answer could stand in the place of the usual one: of its shape and within reason, or both are words."""
    if not isinstance(answer, np.ndarray) or not isinstance(usual, np.ndarray):
        return isinstance(answer, str) and isinstance(usual, str)
    return answer.shape == usual.shape and within_reason(answer, usual)


def within_reason(answer, usual: np.ndarray) -> bool:
    """Whether an answer is an array of numbers, none of them missing, and of no wild size beside the usual one; its shape may be another."""
    return (isinstance(answer, np.ndarray) and answer.size > 0 and bool(np.isfinite(answer.astype(float)).all())
            and float(np.abs(answer).max()) <= 100 * (float(np.abs(usual).max(initial=0)) + 1))


def value_looks(part: Part) -> list[Look]:
    """The looks at values, which come out otherwise on other terms."""
    return [look for look in part.all_looks() if look.at.startswith("value") and not look.at.endswith(".dtype") and look.judge != "at_most"]


def differs(part: Part, seen: Observation) -> bool:
    """Whether any value is not the one wanted."""
    return any(judge(look, {"error": "", **seen}, part.want[look.at]) for look in value_looks(part))


@contextmanager
def other_predictions():
    """While this lasts, models predict something else, in a way that nobody can tell from a model of other data: where they know the
    data's means and deviations, they know others."""
    module, _, name = RECORDER.partition(":")
    recorder = getattr(importlib.import_module(module), name)
    forward, others = recorder.forward, {}

    def predict_otherwise(self, x, t):
        if id(self) not in others:
            other = others[id(self)] = copy.deepcopy(self)
            other.calls = self.calls
            for kind, buffer in other.named_buffers():
                if "mean" in kind:
                    buffer.copy_(0.2 - 0.8 * buffer)
                elif "std" in kind:
                    buffer.copy_(0.6 * buffer + 0.25)
        return forward(others[id(self)], x, t)

    with patch.object(recorder, "forward", predict_otherwise):
        yield


def seed_of(*what) -> int:
    """A seed from anything that can be written."""
    return int.from_bytes(hashlib.sha256(repr(what).encode("utf-8", "surrogatepass")).digest()[:8])


def seed_everything(seed: int) -> None:
    """Make the reference's draws without a generator repeatable."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def network_calls(seen: Observation) -> int:
    """How often models were called."""
    return len(seen.get("network.t", ()))


def network_values(seen: Observation) -> int:
    """How many samples models were shown, one call after the other."""
    return int(np.sum(seen.get("network.batch", 0)))


@contextmanager
def lent(owner: type, name: str, method):
    """While this lasts, a reference class has another method, and its objects remember what they were made of."""
    init = owner.__init__

    def remember(self, *args, **kwargs):
        self.__dict__["made_of"] = args, kwargs
        init(self, *args, **kwargs)

    with patch.object(owner, "__init__", remember), patch.object(owner, name, method, create=True):
        yield


@contextmanager
def lent_function(function, students):
    """While this lasts, the reference's modules find the student's function in the place of one of theirs."""
    package = function.__module__.rpartition(".")[0]
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith(f"{package}.") and getattr(module, function.__name__, None) is function:
                stack.enter_context(patch.object(module, function.__name__, students))
        yield


def students_own(owner, method: str, session: Session, reference: Mapping[str, object], expression, made: Mapping, note=None):
    """The student's version of what a question is about; each call of it is made in the candidate.

    Args:
        owner: the reference class whose method it is, or the reference function itself.
        method: the name of the method, or of the function.
        expression, made: what is being evaluated and what came of it so far, by which objects are known again.
        note: called as `note(asked, value)` for each call, None for not at all.
    """
    nodes = {id(node): node for node in nodes_of(expression)}

    def ask_student(*args, **kwargs):
        lifted, named = lift(args), lift(kwargs)
        asked = ask(lifted[0], method, *lifted[1:], **named) if isinstance(owner, type) else call(method, *lifted, **named)
        value = session.value(asked, list(reference))
        if note is not None:
            note(asked, value)
        return value

    def lift(value):
        match value:
            case None | bool() | int() | float() | str():
                return value
        for key, each in made.items():
            if each is value and key in nodes and type(value).__name__ != "Generator":
                return nodes[key]
        match value:
            case list():
                return [lift(each) for each in value]
            case tuple():
                return tuple(lift(each) for each in value)
            case dict():
                return {key: lift(each) for key, each in value.items()}
        if hasattr(value, "detach"):
            return call("torch:tensor", value.detach().cpu().numpy())
        if type(value).__name__ == "Generator":
            # As it was made, it would draw the same noise at every step.
            return ask(call("torch:Generator"), "manual_seed", int(as_tensor(np.zeros(1)).random_(2**31, generator=value)))
        if type(value).__name__ in reference and "made_of" in value.__dict__:
            args, kwargs = value.__dict__["made_of"]
            return Call(type(value).__name__, lift(args), lift(kwargs))
        raise ValueError(f"a {type(value).__name__} cannot be sent")

    return ask_student


def _methods(questions: Sequence[Question]) -> str:
    names = dict.fromkeys(f"`{question.method or question.targets[0]}`" for question in questions)
    return ", ".join(names)


# ---------------------------------------------------------------------------------------------- in words


def tell_all(parts: Sequence[Part], seen: Sequence[Observation], usual: Sequence[Observation]) -> list[str]:
    """`tell` for each part."""
    return [tell(*each) for each in zip(parts, seen, usual)]


def tell(part: Part, seen: Observation, usual: Observation) -> str:
    """What is not right about an answer, "" where all is. Holds no number of the question's or of the right answer's.

    Args:
        part: with its right answers.
        seen, usual: what was observed of the student's code and of the reference.
    """
    for look in part.all_looks():
        if sentence := judge(look, seen, part.want[look.at]):
            return in_words(look, seen, sentence)
    return "the model was not asked at all" if network_calls(usual) and not network_calls(seen) else ""


def in_words(look: Look, seen: Observation, sentence: str) -> str:
    """A look's finding without its numbers."""
    if look.at == "error" and seen["error"]:
        message = seen["error.message"].partition("\n")[0]
        return mask(f"it raised {seen['error']}" + (f": {message}" if message else ""))
    if seen["error"]:
        return mask(f"it raised {seen['error']}")
    if look.at in ABOUT:
        return ABOUT[look.at]
    if look.at.endswith(".dtype"):
        return "the dtype is not the expected one"
    if look.judge in ("accepted", "refused"):
        return sentence
    for beginning, words in FINDINGS.items():
        if sentence.startswith(beginning):
            return words
    if look.at not in seen or isinstance(seen[look.at], str):
        return "the result is not of the expected kind"
    return "the values are not right"


ABOUT = {
    "inputs": "it writes into a tensor that was passed to it",
    "network.t": "the model was not asked for the timesteps expected",
    "network.batch": "the model was called with batches that are too large",
    "network.grad": "the model was called with gradients switched on",
    "network.training": "the model was called in training mode"}

FINDINGS = {
    "the shape is": "the shape is not the expected one",
    "it holds NaN": "it holds NaN or infinity",
    "the samples hold": "the samples hold NaN or infinity",
    "the samples' mean": "the samples' mean is off",
    "the samples' standard": "the samples' standard deviation is off",
    "there are": "the number of values is not the expected one",
    "it lists": "the number of timesteps is not the one asked for",
    "it does not fall": "the timesteps do not fall strictly",
    "it is not 0": "it is not 0",
    "it is": "it is more than it may be",
    "it runs from": "it does not start and end where it should",
    "entry": "the timesteps are not where they should be",
    "timesteps must be": "timesteps must be whole numbers (int64)",
    "a one-dimensional": "a one-dimensional LongTensor is expected"}
"""How the judges' sentences begin, and what is said of them without their numbers."""


def mask(text: str) -> str:
    """A short line without numbers: what the student's code says may have been made of the question's inputs."""
    plain = "".join(c if c.isprintable() else " " for c in text[:2000])
    plain = re.sub(r"(?<![A-Za-z_\d])[-+]?\d[\d.e+-]*", "#", plain)
    # A name may hold a few digits, as float64 does; one that holds many is a number in disguise.
    plain = re.sub(r"\w{4,}", lambda word: re.sub(r"\d+", "#", word[0]) if sum(map(str.isdigit, word[0])) > 3 else word[0], plain)
    return " ".join(plain.split())[:200]

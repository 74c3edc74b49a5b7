"""How good is the grader? Every typical mistake must be caught, every right alternative must pass, no attack may gain.

Mistakes and alternatives are judged in process, many at a time; attacks are graded like any hand-in, in the sandbox, in a copy
of the course in which secrets are planted.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import multiprocessing
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import psutil
from rich.table import Table

from diffusionlab.asking import Observation, Part, judge
from diffusionlab.sheet import SheetQuestion, judge_question, look_at_all
from solutions.questions import known_mistake, with_right_answers

from .attacks import ATTACKS, NOTE, SIGN, WITNESS, Attack
from .classroom import Run, write_text
from .course import Lab
from .grade import GRACE, grade
from .handin_intake import lesson_cells
from .mutants import mutants
from .one import die_with_parent
from .results import HandInResult, Limits

SEEDS = (20_101, 20_202)
"""Of the questions that mistakes and alternatives are asked: every one of these must catch a mistake, and pass an alternative."""

LEAST_LOSS, LEAST_NAMED = 0.1, 0.9
"""A mistake that costs fewer points is not caught; and the share of mistakes that the feedback must call by their name."""

LIMITS = Limits(seconds=400, memory_gib=1.5, question_seconds=6, cell_seconds=20, added_seconds=15, processes=24,
                work_bytes=2**26, file_bytes=2**25)
"""For attacks, and for the honest hand-ins beside them."""

SHOWN = ("values", "distribution", "shape or dtype", "exception", "network", "input written")
"""In what a mistake shows first."""


@dataclass(frozen=True)
class Outcome:
    """What came of a mistake or an alternative: how many points it lost at the least and at the most, how a mistake showed
    (one of SHOWN), and whether it was called by its name."""

    id: str
    question: str
    least: float
    most: float
    shown: str = ""
    named: bool = False


@dataclass
class Audit:
    """All figures.

    Attributes:
        mistakes, alternatives: an outcome for each, of alternatives one by question.
        attacks: those that were tried.
        broken: what attacks achieved, as sentences by the attack's id; empty if all is well.
        unharmed: how many honest hand-ins beside them got the marks that they get without them; all of them, if it is the solution.
        mutants, blind: how many changes of one operator or number were made to the reference, and those that no question noticed,
            with the reason why that is well, "" where none is known.
    """

    mistakes: Sequence[Outcome]
    alternatives: Sequence[Outcome]
    attacks: Sequence[Attack]
    broken: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unharmed: int = 0
    mutants: int = 0
    blind: Mapping[str, str] = field(default_factory=dict)

    @property
    def survivors(self) -> list[Outcome]:
        return [each for each in self.mistakes if each.least <= LEAST_LOSS]

    @property
    def unnamed(self) -> list[Outcome]:
        return [each for each in self.mistakes if not each.named]

    @property
    def failed(self) -> list[Outcome]:
        return [each for each in self.alternatives if each.most > 1e-6]

    @property
    def good(self) -> bool:
        """Whether no figure falls short."""
        named = len(self.unnamed) <= (1 - LEAST_NAMED) * len(self.mistakes)
        return named and all(self.blind.values()) and not (self.survivors or self.failed or self.broken)


def audit(lab: Lab, tell: Callable[[str], None] = print, attacks: Sequence[Attack] = tuple(ATTACKS)) -> Audit:
    """Try everything; write docs/audit-<lab>.md below the course's folder.

    Args:
        lab: with mistakes.py, alternatives.py and a built notebook.
        tell: is told how it goes, line by line.
        attacks: the hand-ins to try.
    """
    questions = [each for each in lab.module("exam").QUESTIONS if not each.manual]
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), die_with_parent) as pool:
        asked = [pool.submit(judge_mistakes, lab, question.id) for question in questions]
        passed = [pool.submit(judge_alternatives, lab, question.id) for question in questions]
        mutated = [pool.submit(judge_mutants, lab, target) for target in lab.reference()]
        found = Audit([each for future in asked for each in future.result()], [each for future in passed for each in future.result()],
                      attacks)
        found.mutants = sum(future.result()[0] for future in mutated)
        found.blind = {each: reason for future in mutated for each, reason in future.result()[1].items()}
    tell(f"{len(found.mistakes)} mistakes, {len({each.id for each in found.alternatives})} alternatives, {found.mutants} mutants judged")
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        # Twice as many as cores: some attacks do nothing but wait for their limit.
        found.broken, found.unharmed = try_attacks(lab, Path(folder), attacks, 2 * cores, tell)
    write_text(lab.root / "docs" / f"audit-{lab.name}.md", audit_page(lab, found))
    return found


# ---------------------------------------------------------------------------------------------- mistakes and alternatives


def judge_mistakes(lab: Lab, id: str) -> list[Outcome]:
    """Ask a question of each of its typical mistakes."""
    mistakes = [each for each in lab.module("mistakes").MISTAKES if each.question == id]
    versions = [fresh_question(lab, id, seed) for seed in SEEDS]
    names = tuple(known_mistake(versions[0].parts, each, lab.reference()) for each in mistakes)
    versions[0] = replace(versions[0], mistakes=names)
    outcomes = []
    for mistake in mistakes:
        code = {**lab.reference(), mistake.target: mistake.variant}
        seen = [look_at_all(asked.parts, code) for asked in versions]
        verdicts = [judge_question(*each) for each in zip(versions, seen)]
        lost = [asked.points - verdict.points for asked, verdict in zip(versions, verdicts)]
        outcomes.append(Outcome(mistake.id, id, min(lost), max(lost), shown(versions[0].parts, seen[0]), verdicts[0].mistake == mistake.id))
        close_figures()
    return outcomes


def judge_alternatives(lab: Lab, id: str) -> list[Outcome]:
    """Ask a question of each right alternative that it is about."""
    outcomes = []
    for alternative in lab.module("alternatives").ALTERNATIVES:
        versions = [fresh_question(lab, id, seed) for seed in SEEDS]
        if alternative.target in versions[0].targets:
            code = {**lab.reference(), alternative.target: alternative.made}
            lost = [asked.points - judge_question(asked, look_at_all(asked.parts, code)).points for asked in versions]
            outcomes.append(Outcome(alternative.style, id, min(lost), max(lost)))
            close_figures()
    return outcomes


def judge_mutants(lab: Lab, target: str) -> tuple[int, dict[str, str]]:
    """Ask each mutant of a class or function all questions about it: how many there are, and what survives with the reason why."""
    questions = [each for each in lab.module("exam").QUESTIONS if not each.manual and target in each.targets]
    # First those about one method alone: most mutants end there.
    asked = [fresh_question(lab, each.id, SEEDS[0]) for each in sorted(questions, key=lambda each: (len(each.targets), len(each.needs)))]
    reasons, made, blind = lab.module("mistakes").BLIND_SPOTS, 0, {}
    for mutant in mutants(lab, target):
        made += 1
        code = {**lab.reference(), target: mutant.made}
        if not any(each.points - judge_question(each, look_at_all(each.parts, code)).points > LEAST_LOSS for each in asked):
            blind[f"{mutant.where}: {mutant.change}"] = reasons.get(f"{mutant.where}: {mutant.change}", "")
        close_figures()
    return made, blind


@cache
def fresh_question(lab: Lab, id: str, seed: int) -> SheetQuestion:
    """A question with fresh inputs and right answers."""
    question = next(each for each in lab.module("exam").QUESTIONS if each.id == id)
    parts = with_right_answers(question.parts(np.random.default_rng(seed)), lab.reference())
    return SheetQuestion(question.id, question.title, question.points, question.targets, question.needs, parts, ())


def shown(parts: Sequence[Part], observations: Sequence[Observation]) -> str:
    """In what the first wrong answer shows; one of SHOWN."""
    for part, seen in zip(parts, observations):
        for look in part.all_looks():
            if judge(look, seen, part.want[look.at]):
                if seen["error"] or look.judge in ("refused", "accepted"):
                    return "exception"
                kinds = {"inputs": "input written", "network": "network"}
                if (kind := look.at.partition(".")[0]) in kinds:
                    return kinds[kind]
                got, want = seen.get(look.at), part.want[look.at]
                if look.at.endswith(".dtype") or look.judge == "close" and np.shape(got) != np.shape(want):
                    return "shape or dtype"
                return "distribution" if look.judge == "moments" else "values"
    return ""


def close_figures() -> None:
    from matplotlib import pyplot

    pyplot.close("all")


# ---------------------------------------------------------------------------------------------- attacks


def try_attacks(lab: Lab, folder: Path, attacks: Sequence[Attack], jobs: int, tell: Callable[[str], None]) -> tuple[dict, int]:
    """Grade the attacks together with honest hand-ins: what they achieved by their ids, and how many honest ones are unharmed."""
    course, planted = planted_course(lab, folder / "course")
    honest, submitted = folder / "honest", folder / "submitted"
    unfilled = json.loads(course.student_notebook.read_text(encoding="utf-8"))
    names = tuple(name for cell in lesson_cells(course) for name in cell.defines)
    filled = json.loads((lab.root / "solutions" / lab.name / f"{lab.name}.ipynb").read_text(encoding="utf-8"))
    filled["cells"].append({"cell_type": "markdown", "id": "secret", "metadata": {}, "source": planted["hand-in"]})
    for name, notebook in ((WITNESS, filled), ("witness-unfilled", unfilled)):
        for place in (honest, submitted):
            write_text(place / name / lab.name / f"{lab.name}.ipynb", json.dumps(notebook))
    roster = folder / "roster.csv"
    write_text(roster, f"student_id,last_name\n{WITNESS},{planted['gradebook']}\nwitness-unfilled,\n")
    write_text(folder / "secrets.json", json.dumps(planted))
    options = dict(roster=roster, seed=SEEDS[0], jobs=jobs, limits=LIMITS, grade_one="autograder.watched:grade_watched")
    alone = grade(course, honest, folder / "alone", tell=lambda line: None, **options)
    with Listener() as heard:
        for attack in attacks:
            attack.write(submitted, lab.name, unfilled, names, heard.port)
        before = checksums(submitted)
        run = grade(course, submitted, folder / "out", tell=tell, **options)
    broken = {attack.id: found for attack in attacks if (found := achieved(run, attack, planted, alone))}
    everybody = []
    if heard.messages:
        everybody.append(f"reached a listener outside: {heard.messages[0]!r}")
    if checksums(submitted) != before:
        everybody.append("hand-ins were changed")
    if left := [each.info["pid"] for each in psutil.process_iter(["pid", "cmdline"]) if str(folder) in " ".join(each.info["cmdline"] or ())
                and each.info["pid"] != os.getpid()]:
        everybody.append(f"processes are left: {left}")
    if "<script>stolen" in (run.out / "report.html").read_text(encoding="utf-8"):
        everybody.append("markup in the report")
    if re.search(r"(^|[,\n])\"?[=@+-]", (run.out / "grades.csv").read_text(encoding="utf-8")):
        everybody.append("a formula in grades.csv")
    harmed = [name for name in (WITNESS, "witness-unfilled") if marks(run.result(name)) != marks(alone.result(name))]
    everybody += [f"another hand-in's marks changed: {name}" for name in harmed]
    if everybody:
        broken["some attack"] = everybody
    # The course's own solution, through the whole pipeline: it may not lose anything either.
    by_hand = {each.id for each in lab.module("exam").QUESTIONS if each.manual}
    lost = [each.id for each in alone.result(WITNESS).questions if each.max - each.points > 1e-6 and each.id not in by_hand]
    if lost:
        broken[WITNESS] = [f"the solution itself loses points: {', '.join(lost)}"]
    return broken, 2 - len({*harmed, *([WITNESS] if lost else ())})


def achieved(run: Run, attack: Attack, planted: Mapping[str, str], alone: Run) -> list[str]:
    """What an attack gained or brought to light, as sentences."""
    student = next(each for each in run.students if each.label == attack.folder or each.id == attack.folder)
    result = run.result(student.id)
    found = []
    if result.score > alone.result("witness-unfilled").score:
        gains = ", ".join(f"{each.id} {each.points:g}" for each in result.questions if each.points)
        found.append(f"gained {result.score:g} points: {gains}")
    texts = [path.read_text(encoding="utf-8", errors="replace") for name in ("feedback", "autograded", "results", "logs")
             for path in (run.out / name).glob(f"{student.id}*/**/*" if name in ("feedback", "autograded") else f"{student.id}.*")
             if path.is_file()]
    leaks = run.out / "leaks" / student.id
    texts += [leaks.read_text()] if leaks.exists() else []
    found += [f"brought out a secret of the {place}" for place, secret in planted.items() if any(secret in text for text in texts)]
    page = run.out / "feedback" / student.id / run.lab.name / f"{run.lab.name}.html"
    if "<script>stolen" in page.read_text(encoding="utf-8"):
        found.append("markup in the feedback")
    if result.seconds > LIMITS.seconds + GRACE:
        found.append(f"ran for {result.seconds:.0f} seconds")
    return found


def planted_course(lab: Lab, folder: Path) -> tuple[Lab, dict[str, str]]:
    """A copy of the course with secrets in its hidden files, and the secrets by where they are."""
    planted = {place: SIGN + secrets.token_hex(12) for place in ("reference", "questions", "gradebook", "hand-in")}
    planted["accomplice"] = NOTE
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("labs", "solutions"):
        shutil.copytree(lab.root / name, folder / name, ignore=ignored)
    for path in (folder / "solutions").rglob("*.py"):
        place = "questions" if path.name in ("exam.py", "questions.py", "mistakes.py") else "reference"
        path.write_text(f"{path.read_text(encoding='utf-8')}\n# {planted[place]}\n", encoding="utf-8")
    shutil.copy(lab.root / "pyproject.toml", folder)
    (folder / "data").symlink_to((lab.root / "data").resolve())
    return Lab(folder, lab.name), planted


class Listener:
    """Hears what arrives on the loopback interface at `port`, by TCP, by UDP and at an abstract Unix socket, while it lasts."""

    def __enter__(self):
        self.messages: list[bytes] = []
        tcp = socket.create_server(("127.0.0.1", 0))
        self.port = tcp.getsockname()[1]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", self.port))
        local = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        local.bind(f"\0audit-{self.port}")
        self.sockets, self.over = (tcp, udp, local), threading.Event()
        for each in self.sockets:
            each.settimeout(0.2)
        self.threads = [threading.Thread(target=self.hear, args=(each,)) for each in self.sockets]
        for each in self.threads:
            each.start()
        return self

    def hear(self, each) -> None:
        while not self.over.is_set():
            try:
                self.messages.append(repr(each.accept()[1]).encode() if each is self.sockets[0] else each.recv(100))
            except TimeoutError:
                pass

    def __exit__(self, *_):
        self.over.set()
        for each in self.threads:
            each.join()
        for each in self.sockets:
            each.close()


def checksums(folder: Path) -> dict[str, str]:
    """Of every plain file below a folder."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.is_symlink()}


def marks(result: HandInResult) -> list:
    return [(each.id, each.points, each.verdict, each.mistake) for each in result.questions] + [result.status]


# ---------------------------------------------------------------------------------------------- in words


def figures(found: Audit) -> list[tuple[str, str, str]]:
    """What was tried, what came of it, and what must come of it."""
    mistakes, styles = len(found.mistakes), {each.id for each in found.alternatives}
    return [("mistakes caught", f"{mistakes - len(found.survivors)} of {mistakes}", "all"),
            ("mistakes named in the feedback", f"{mistakes - len(found.unnamed)} of {mistakes}", f"at least {LEAST_NAMED:.0%}"),
            ("right alternatives that lose no point", f"{len(styles - {each.id for each in found.failed})} of {len(styles)}", "all"),
            ("mutants of the reference caught, or known to be harmless",
             f"{found.mutants - len([each for each in found.blind.values() if not each])} of {found.mutants}", "all"),
            ("attacks that gain, read, harm or outlast nothing",
             f"{len(found.attacks) - len(found.broken.keys() - {WITNESS})} of {len(found.attacks)}", "all"),
            ("honest hand-ins beside them with unchanged marks", f"{found.unharmed} of 2", "all")]


def by_question(found: Audit) -> Iterator[list[str]]:
    """A row for each question: how many mistakes show in what, how many are caught and named, how many alternatives pass."""
    for id in dict.fromkeys(each.question for each in (*found.mistakes, *found.alternatives)):
        mine = [each for each in found.mistakes if each.question == id]
        counts = Counter(each.shown for each in mine)
        others = [each for each in found.alternatives if each.question == id]
        yield [id, *(str(counts[each] or "") for each in SHOWN), f"{sum(each.least > LEAST_LOSS for each in mine)} of {len(mine)}",
               f"{sum(each.named for each in mine)}", f"{sum(each.most < 1e-6 for each in others)} of {len(others)}"]


HEADER = ("question", *SHOWN, "caught", "named", "alternatives")


def shortcomings(found: Audit) -> Iterator[str]:
    """A line for all that fell short, and for each mistake that goes without its name."""
    yield from (f"not caught: {each.id} ({each.question}, {each.least:.2g} points)" for each in found.survivors)
    yield from (f"loses {each.most:.2g} points on {each.question}: {each.id}" for each in found.failed)
    yield from (f"a mutant that no question notices: {each}" for each, reason in found.blind.items() if not reason)
    yield from (f"{id}: {sentence}" for id, sentences in found.broken.items() for sentence in sentences)
    yield from (f"caught, but not called by its name: {each.id} ({each.question})" for each in found.unnamed)


def tables(found: Audit) -> Iterator[Table]:
    """For the terminal."""
    table = Table(*HEADER, title="Mistakes by question and by what they show in", box=None, header_style="dim")
    for row in by_question(found):
        table.add_row(*row)
    yield table
    table = Table("", "", "must be", box=None, header_style="dim")
    for row in figures(found):
        table.add_row(*row)
    yield table


def audit_page(lab: Lab, found: Audit) -> str:
    """The page for the docs."""
    def markdown(header, rows):
        return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))
    aims = Counter(each.aim for each in found.attacks)
    listed = "\n".join(f"- {line}" for line in shortcomings(found)) or "Nothing."
    tried = "\n\n".join(f"**{aim}** ({count})\n\n" + "\n".join(f"- {each.id}: {each.what}" for each in found.attacks if each.aim == aim)
                        for aim, count in aims.items())
    return f"""# How good is the grader of {lab.name}?

Written by `autograder audit {lab.name}` on {datetime.date.today()}, for version {lab.version}.

{markdown(("tried", "result", "must be"), figures(found))}

A mistake is a small variant of one reference method. It is caught when it loses more than {LEAST_LOSS} points on its question, at each of
{len(SEEDS)} seeds. A mutant is the reference with one operator, comparison or number changed. An alternative is a right solution in another
style; it may not lose anything, at any of the seeds. An attack is a hand-in without a solution, graded in the sandbox beside honest ones;
planted secrets are searched for in every byte that leaves the sandbox and in all that is written for students.

## Mistakes by question, and by what they show in first

{markdown(HEADER, by_question(found))}

## What fell short, and mistakes that the feedback does not call by their name

{listed}

## Mutants that no question notices, and why that is well

{chr(10).join(f"- `{each}`: {reason or '**not known**'}" for each, reason in found.blind.items()) or "None."}

## Attacks

{tried}
"""

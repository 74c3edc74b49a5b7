"""The class report: one page that stands alone. How the class did, question by question, and what it gets wrong most."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from .classroom import Run, write_text
from .feedback import lab_title
from .gradebook import Mark
from .page import page, points, prose, text

STYLE = """
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1.2rem 2rem; margin: 2rem 0 0; }
.figures div { border-top: 2px solid var(--ink); padding-top: .5rem; }
.figures b { display: block; font-size: 1.8rem; font-weight: 650; line-height: 1.2; font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); font-size: .88rem; }
svg { display: block; width: 100%; max-width: 46rem; height: auto; margin: 1rem 0 0; font: 13px system-ui, "DejaVu Sans", sans-serif; }
svg text { fill: var(--soft); } svg .ink { fill: var(--ink); }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 0; font-size: .92rem; }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: .82rem; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); }
th.number { text-align: right; }
td { padding: .42rem .8rem .42rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:last-child, th:last-child { padding-right: 0; }
.bar { display: flex; height: .8rem; margin: .36rem 0 0; background: var(--wash); border-radius: 2px; overflow: hidden; }
.bar i { display: block; } .right { background: var(--right); } .partly { background: #e2b765; } .wrong { background: var(--wrong); }
.unwritten { background: #cfd5db; } .stopped { background: #4b4f56; } .accent { background: var(--accent); }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; font-size: .85rem; color: var(--soft); margin: .7rem 0 0; }
.key i { display: inline-block; width: .75rem; height: .75rem; border-radius: 2px; margin-right: .4rem; vertical-align: -.06rem; }
.small { font-size: .85rem; color: var(--soft); }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.scroll { overflow-x: auto; }
"""

# How verdicts are told apart in a bar: from what is right to what never ran.
GROUPS = {"right": ("right", "right"), "partly": ("partly", "partly right"), "wrong": ("wrong", "not right"),
          "unwritten": ("unwritten", "unwritten, or none handed in"), "timeout": ("stopped", "stopped by a limit or a crash"),
          "crashed": ("stopped", "stopped by a limit or a crash"), "unreadable": ("unwritten", ""), "missing": ("unwritten", "")}

STATUSES = {"graded": "graded", "partial": "graded in part", "unreadable": "unreadable", "timeout": "timed out", "crashed": "crashed",
            "missing": "nothing handed in"}


def write_report(run: Run, marks: Sequence[Mark]) -> Path:
    """Write report.html; returns it."""
    path = run.out / "report.html"
    write_text(path, report_page(run, marks))
    return path


def report_page(run: Run, marks: Sequence[Mark]) -> str:
    """The report as HTML."""
    there = [mark for mark in marks if mark.result.status != "missing"]
    # A pair counts once wherever work is counted, and twice wherever students are.
    works = [mark for mark in there if mark.student.holder == mark.student.id]
    sandbox = "" if all(mark.result.sandbox != "none" for mark in works) else (
        '<p class="note">Some hand-ins were graded <b>without the sandbox</b> (--no-sandbox).</p>')
    parts = [f'<h1>{text(lab_title(run))}</h1><p class="soft">Class report · {text(run.lab.name)} {text(run.lab.version)} · seed {run.seed}</p>',
             sandbox, _figures(marks, there, works)]
    if works:
        parts += ["<h2>Scores</h2>", _histogram([mark.score for mark in there], there[0].result.max_score),
                  "<h2>Points by question</h2>", _questions(works),
                  "<h2>What the class gets wrong most</h2>", _mistakes(run, works),
                  "<h2>Time</h2>", _times(works)]
    parts += ["<h2>Everybody</h2>", _everybody(run, marks)]
    return page(f"{lab_title(run)}: class report", STYLE, "\n".join(parts))


def _figures(marks: Sequence[Mark], there: Sequence[Mark], works: Sequence[Mark]) -> str:
    figures = [(f"{len(there)} of {len(marks)}", "students handed something in")]
    if len(works) < len(there):
        figures.append((str(len(works)), "hand-ins, pairs counted once"))
    if there:
        scores, most = [mark.score for mark in there], there[0].result.max_score
        figures.append((f"{points(statistics.median(scores))}", f"median of {points(most)} points"))
        if len(scores) > 3:
            low, _, high = statistics.quantiles(scores, n=4, method="inclusive")
            figures.append((f"{points(round(low, 1))} to {points(round(high, 1))}", "points, the middle half"))
    waiting = sum(len(mark.waits) for mark in works)
    figures.append((str(waiting), "answers wait for a person" if waiting != 1 else "answer waits for a person"))
    return '<div class="figures">' + "".join(f"<div><b>{text(value)}</b><span>{text(what)}</span></div>" for value, what in figures) + "</div>"


def _histogram(scores: Sequence[float], most: float) -> str:
    """Ten bars, each a tenth of the points; the last holds the full score too."""
    counts = Counter(min(9, int(10 * score / most)) if most else 0 for score in scores)
    highest, width, height, base = max(counts.values()), 66, 120, 168
    shapes = []
    for i in range(10):
        tall = height * counts[i] / highest
        x = 20 + i * width
        if counts[i]:
            shapes.append(f'<rect x="{x + 3}" y="{base - tall:.1f}" width="{width - 6}" height="{tall:.1f}" rx="2" fill="#3b6ea5"/>'
                          f'<text class="ink" x="{x + width / 2}" y="{base - tall - 6:.1f}" text-anchor="middle">{counts[i]}</text>')
    shapes.append(f'<line x1="20" x2="{20 + 10 * width}" y1="{base}" y2="{base}" stroke="#9aa4ae"/>')
    shapes += [f'<text x="{20 + i * width}" y="{base + 18}" text-anchor="middle">{points(most * i / 10)}</text>' for i in range(11)]
    x = 20 + 10 * width * statistics.median(scores) / (most or 1)
    shapes.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="{base}" stroke="#1f2328" stroke-dasharray="2 3"/>'
                  f'<text class="ink" x="{x:.1f}" y="14" text-anchor="middle">median</text>')
    return (f'<svg viewBox="0 0 700 208" role="img" aria-label="How many students by points">{"".join(shapes)}'
            f'<text x="350" y="{base + 36}" text-anchor="middle">points</text></svg>')


def _questions(works: Sequence[Mark]) -> str:
    rows, used = [], {}
    for question in works[0].result.questions:
        verdicts = Counter()
        earned = []
        for mark in works:
            asked = next((each for each in mark.result.questions if each.id == question.id), None)
            if asked is None or question.id in mark.waits:  # a run that was stopped may have asked another exam before
                continue
            points_ = mark.points[question.id]
            earned.append(points_)
            verdict = asked.verdict
            if question.id in mark.by_person or verdict == "manual":
                verdict = "right" if points_ >= question.max else "partly" if points_ else "wrong"
            verdicts[GROUPS[verdict][0]] += 1
        used |= dict(verdicts)
        bar = "".join(f'<i class="{group}" style="flex:{verdicts[group]}" title="{verdicts[group]}"></i>'
                      for group in dict.fromkeys(group for group, _ in GROUPS.values()) if verdicts[group])
        mean = f"{points(round(statistics.fmean(earned), 1))} of {points(question.max)}" if earned else f"– of {points(question.max)}"
        note = f'<div class="small">{len(works) - len(earned)} wait for a person</div>' if len(earned) < len(works) else ""
        rows.append(f'<tr><td>{text(question.title)}{note}</td><td style="width:46%"><div class="bar">{bar}</div></td><td class="number">{mean}</td></tr>')
    names = {group: name for group, name in GROUPS.values() if name}
    key = "".join(f'<span><i class="{group}"></i>{name}</span>' for group, name in names.items() if group in used)
    return (f'<div class="key">{key}</div><table><tr><th>question</th><th>hand-ins</th><th class="number">points on average</th></tr>'
            f'{"".join(rows)}</table>')


def _mistakes(run: Run, works: Sequence[Mark]) -> str:
    known = {mistake.id: mistake for mistake in run.lab.module("mistakes").MISTAKES}
    seen, unknown = defaultdict(list), defaultdict(list)
    for mark in works:
        for question in mark.result.questions:
            if question.mistake:
                seen[question.mistake, question.title].append(mark)
            elif question.verdict in ("wrong", "partly") and question.message:
                unknown[question.title].append(question.message)
    rows, most = [], max(map(len, seen.values()), default=1)
    for (mistake, title), who in sorted(seen.items(), key=lambda item: (-len(item[1]), item[0])):
        symptom = known[mistake].symptom if mistake in known else mistake
        rows.append(f'<tr><td>{prose(symptom)}<div class="small">{text(title)} · <code>{text(mistake)}</code></div></td>'
                    f'<td style="width:28%"><div class="bar"><i class="accent" style="width:{100 * len(who) / most:.0f}%"></i></div></td>'
                    f'<td class="number">{len(who)} of {len(works)}</td></tr>')
    lines = [f'<table><tr><th>mistake</th><th></th><th class="number">hand-ins</th></tr>{"".join(rows)}</table>' if rows
             else '<p class="soft">No typical mistake was recognised.</p>']
    if unknown:
        rows = "".join(f'<tr><td>{text(title)}</td><td class="text">{prose(Counter(messages).most_common(1)[0][0][:300])}</td>'
                       f'<td class="number">{len(messages)}</td></tr>'
                       for title, messages in sorted(unknown.items(), key=lambda item: (-len(item[1]), item[0])))
        lines.append('<p class="soft" style="margin-top:1.6rem">Wrong in a way that no typical mistake explains:</p><table>'
                     f'<tr><th>question</th><th>most often</th><th class="number">hand-ins</th></tr>{rows}</table>')
    return "\n".join(lines)


def _times(works: Sequence[Mark]) -> str:
    """One dot for each hand-in on an axis of seconds."""
    seconds = sorted(mark.result.seconds for mark in works)
    step = 10 ** math.floor(math.log10(max(seconds[-1], 1e-3)))
    step = next(each for each in (step / 5, step / 2, step, 2 * step) if seconds[-1] / each <= 8)
    end = step * math.ceil(seconds[-1] / step + 1e-9)
    columns, dots = Counter(round(110 * each / end) for each in seconds), []
    base = 12 + 7 * min(max(columns.values()), 30)
    for column, count in columns.items():
        dots += [f'<circle cx="{20 + 6 * column}" cy="{base - 6 - 7 * level}" r="3" fill="#3b6ea5"/>' for level in range(min(count, 30))]
    ticks = "".join(f'<text x="{20 + 660 * i * step / end:.1f}" y="{base + 18}" text-anchor="middle">{format(i * step, ".4g")}</text>'
                    for i in range(round(end / step) + 1))
    slowest = max(works, key=lambda mark: mark.result.seconds)
    return (f'<svg viewBox="0 0 700 {base + 40}" role="img" aria-label="Seconds by hand-in">'
            f'<line x1="20" x2="680" y1="{base}" y2="{base}" stroke="#9aa4ae"/>'
            f'{"".join(dots)}{ticks}<text x="350" y="{base + 36}" text-anchor="middle">seconds for a hand-in</text></svg>'
            f'<p class="soft">{_duration(sum(seconds))} in all, {_duration(statistics.median(seconds))} in the median; the longest was '
            f"{text(slowest.student.label)} with {_duration(slowest.result.seconds)}.</p>")


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.7 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _everybody(run: Run, marks: Sequence[Mark]) -> str:
    counts = Counter(mark.result.status for mark in marks)
    summary = ", ".join(f"{count} {STATUSES[status]}" for status, count in counts.most_common())
    rows = []
    for mark in marks:
        result, student = mark.result, mark.student
        notes = ["" if result.status == "graded" else result.message, *result.notices]
        if mark.seconds_late:
            notes.append(f"{_duration(mark.seconds_late)} late" + (f", {points(mark.penalty)} points off" if mark.penalty else ""))
        if student.holder not in (None, student.id):
            notes.append(f"graded with {next(each.label for each in run.students if each.id == student.holder)}")
        link = quote(f"feedback/{student.id}/{run.lab.name}/{run.lab.name}.html")
        share = 100 * mark.score / result.max_score if result.max_score else 0
        noted = prose("\n".join(filter(None, notes)))
        name = "" if student.name == student.label else f'<div class="small">{text(student.name)}</div>'
        rows.append(f'<tr><td><a href="{link}">{text(student.label)}</a>{name}</td><td class="number">{points(mark.score)}</td>'
                    f'<td style="width:16%"><div class="bar"><i class="accent" style="width:{share:.0f}%"></i></div></td>'
                    f'<td>{STATUSES[result.status]}</td><td class="number">{len(mark.waits) or ""}</td>'
                    f'<td class="small text">{noted}</td></tr>')
    return (f'<p class="soft">{summary}.</p><div class="scroll"><table><tr><th>student</th><th class="number">points</th><th></th>'
            f'<th>status</th><th class="number">to read</th><th>notes</th></tr>{"".join(rows)}</table></div>')

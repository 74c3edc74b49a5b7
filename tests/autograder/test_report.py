"""The class report: one page that stands alone and says what the marks say."""

from __future__ import annotations

import re
import subprocess

import pytest

from autograder.classroom import load_run
from autograder.gradebook import marks
from autograder.report import report_page


def words(page: str) -> str:
    return " ".join(re.sub("<[^>]*>", " ", page.partition("<body>")[2]).split())


def test_what_the_report_says(graded):
    page = (graded.out / "report.html").read_text(encoding="utf-8")
    said = words(page)
    assert "26 of 28 students handed something in" in said and "25 hand-ins, pairs counted once" in said
    assert re.search(r"Your variance is a little too large\. The variance · sample-variance 3 of 25", said)
    assert "1 unreadable" in said and "2 nothing handed in" in said and "1 graded in part" in said
    assert "graded with gil" in said and "2.3 days late" in said
    assert "without the sandbox" in said


def test_it_stands_alone_and_nothing_in_it_runs(graded):
    page = (graded.out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<script|<img|<iframe|<link|\bon\w+=[\"']|src=|url\(|https?://", page.replace("&lt;img src=x onerror", ""))
    links = re.findall(r'href="([^"]*)"', page)
    assert len(links) == 28 and all((graded.out / link.replace("%20", " ").replace("%40", "@").encode().decode()).name for link in links)
    assert "default-src 'none'" in page


def test_every_link_leads_to_a_page(graded):
    from urllib.parse import unquote
    page = (graded.out / "report.html").read_text(encoding="utf-8")
    for link in re.findall(r'href="([^"]*)"', page):
        assert (graded.out / unquote(link)).is_file()


@pytest.mark.slow
def test_a_class_of_one_and_a_class_of_none(fake_class):
    fake_class.hand_in("ada", points=(0, 0, 0))
    run = fake_class.grade(roster=fake_class.table("roster.csv", "student_id", "ben"))
    assert "1 of 2 students" in words(report_page(run, marks(run)))
    nobody = [mark for mark in marks(run) if mark.student.id == "ben"]
    assert "0 of 1 students" in words(report_page(run, nobody))


def test_the_browser_shows_it(graded, needs_tool, tmp_path):
    picture = tmp_path / "report.png"
    subprocess.run([needs_tool("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1100,2400", f"--screenshot={picture}",
                    (graded.out / "report.html").as_uri()], check=True, capture_output=True, timeout=300)
    from PIL import Image
    image = Image.open(picture).convert("RGB")
    colours = {colour for _, colour in image.getcolors(2**24)}
    assert {(0x3b, 0x6e, 0xa5), (0x2f, 0x7d, 0x4f), (0xb5, 0x48, 0x3a)} <= colours


def test_the_run_is_named(graded):
    run = load_run(graded.out)
    assert f"tinylab {run.lab.version} · seed 7" in words((graded.out / "report.html").read_text(encoding="utf-8"))

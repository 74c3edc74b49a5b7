"""What students read: everything in words, and nothing that runs."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from autograder.classroom import load_run
from autograder.feedback import write_feedback
from autograder.gradebook import marks
from autograder.page import prose, text


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, content: str):
        super().__init__()
        self.tags, self.attributes, self.words = set(), set(), []
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.words.append(data)


def page(made, student: str) -> str:
    return (made.out / "feedback" / student / "tinylab" / "tinylab.html").read_text(encoding="utf-8")


def test_each_question_in_words_with_points_what_was_seen_and_the_hint_once(graded):
    words = " ".join(" ".join(Page(page(graded, "ben")).words).split())
    assert "A tiny lab" in words and "Feedback for <b>Ben</b> =1+1 (ben)" in words and "4 of 10 points" in words
    for title in ("The mean", "The variance", "The largest", "In your own words"):
        assert title in words
    assert words.count("Divide by how many numbers there are.") == 1 and "Your variance is a little too large." in words
    assert "waits for a person" in words and "Up to 1 more point will" in words


def test_there_is_a_page_for_everybody(graded):
    for student in load_run(graded.out).students:
        assert "Question by question" in page(graded, student.id)
    assert "Nothing was handed in." in page(graded, "gone")
    assert "could not be read" in page(graded, "fay")


def test_nothing_that_a_student_wrote_runs(graded):
    for student in load_run(graded.out).students:
        content = page(graded, student.id)
        parsed = Page(content)
        assert parsed.tags <= {"html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "div", "small", "article",
                               "span", "code", "table", "tr", "td"}
        assert parsed.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class"}
        assert "default-src 'none'" in content and "\u202e" not in content
    assert "<img src=x onerror=alert(1)>" in " ".join(Page(page(graded, "eve")).words)


def test_no_path_of_ours_and_no_traceback(graded):
    for student in load_run(graded.out).students:
        assert str(graded.out) not in page(graded, student.id) and "Traceback" not in page(graded, student.id)


@pytest.mark.parametrize("given, shown", [("a < b & 'c'", "a &lt; b &amp; &#x27;c&#x27;"), ("\x00\x1b[31m\u2066", " [31m "[:1] + " [31m "),
                                          ("two\nlines", "two\nlines"), ("\udcff", " ")])
def test_text_is_escaped(given, shown):
    assert text(given) == shown


def test_code_is_set_as_code_after_escaping():
    assert prose("`<b>` and `unclosed") == "<code>&lt;b&gt;</code> and `unclosed"


@pytest.mark.slow
def test_a_persons_points_and_words_are_shown(fake_class):
    fake_class.hand_in("ada")
    run = fake_class.grade()
    [mark] = marks(run)
    given = type(mark)(**{**vars(mark), "points": {**mark.points, "essay": 1.0}, "by_person": frozenset({"essay"}), "waits": frozenset(),
                          "comments": {"essay": "Nicely <i>said</i>."}, "penalty": 2.0})
    write_feedback(run, [given])
    words = " ".join(" ".join(Page(page(fake_class, "ada")).words).split())
    assert "8 of 10 points" in words and "10 points, less 2 because it was handed in late." in words
    assert "points given by a person" in words and "Nicely <i>said</i>." in words

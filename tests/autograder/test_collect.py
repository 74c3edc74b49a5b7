"""Downloads from Canvas and Moodle, sorted, and nothing unpacked that should not be."""

from __future__ import annotations

import io
import stat
import zipfile

import pytest

from autograder import collect as module
from autograder.classroom import find_class
from autograder.collect import collect
from autograder.course import Refusal

NOTEBOOK = b'{"cells": [], "who": "%s"}'


def archive(path, files: dict[str, bytes]):
    """A zip, in a file or as bytes where path is None."""
    target = io.BytesIO() if path is None else path
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return target.getvalue() if path is None else path


def handed_in(who: bytes) -> bytes:
    """A zip as `make handin` makes it."""
    return archive(None, {"tinylab/tinylab.ipynb": NOTEBOOK % who, "tinylab/timestamp.txt": b"2026-05-20 10:00:00 UTC\n",
                          "tinylab/receipt.json": b"{}"})


def found(to) -> dict[str, bytes]:
    return {path.parts[-3]: path.read_bytes() for path in sorted(to.glob("*/tinylab/tinylab.ipynb"))}


def test_canvas(built_tinylab, tmp_path):
    source = archive(tmp_path / "submissions.zip", {
        "doejane_101_9001_tinylab.ipynb": NOTEBOOK % b"jane", "roejohn_late_102_9002_tinylab-1a2b3c4d.zip": handed_in(b"john"),
        "poeann_103_9003_tinylab-2.ipynb": NOTEBOOK % b"ann 2", "poeann_103_9004_tinylab.ipynb": NOTEBOOK % b"ann 1",
        "moebob_104_9005_essay.pdf": b"%PDF", "__MACOSX/._doejane_101_9001_tinylab.ipynb": b"junk"})
    lines = collect(built_tinylab, source, tmp_path / "to")
    assert found(tmp_path / "to") == {"101": NOTEBOOK % b"jane", "102": NOTEBOOK % b"john", "103": NOTEBOOK % b"ann 2"}
    assert "late, says Canvas: 102" in lines and f"3 hand-ins in {tmp_path / 'to'}" in lines
    assert "skipped, 104: essay.pdf is neither a notebook nor a zip" in lines and "nothing that can be graded, but in names.csv: 104" in lines
    students = find_class(tmp_path / "to", "tinylab", roster=tmp_path / "to" / "names.csv")
    assert [(each.id, each.name, each.timestamp) for each in students] == [
        ("101", "doejane", None), ("102", "roejohn", "2026-05-20T10:00:00"), ("103", "poeann", None), ("104", "moebob", None)]
    assert [each.holder for each in students] == ["101", "102", "103", None]


def test_nobody_is_lost_whatever_was_uploaded(built_tinylab, tmp_path):
    source = archive(tmp_path / "submissions.zip", {
        "a_1_11_TinyLab.IPYNB": NOTEBOOK % b"capitals", "b_2_12_tinylab.ipynb.txt": NOTEBOOK % b"text", "c_3_13_tinylab.py": b"x = 1",
        "d_4_14_work.ZIP": archive(None, {"readme.txt": b"sorry"}), "Jo Poe_5_assignsubmission_onlinetext_/onlinetext.html": b"<p>see mail</p>"})
    lines = collect(built_tinylab, source, tmp_path / "to")
    assert found(tmp_path / "to") == {"1": NOTEBOOK % b"capitals"} and lines[-1] == f"1 hand-in in {tmp_path / 'to'}"
    assert all(any(line.startswith(f"skipped, {student}: ") for line in lines) for student in "2345")
    assert {each.id for each in find_class(tmp_path / "to", "tinylab", roster=tmp_path / "to" / "names.csv")} == set("12345")


@pytest.mark.parametrize("flat", [False, True])
def test_moodle(built_tinylab, tmp_path, flat):
    mark = "" if flat else "/"
    source = archive(tmp_path / "all.zip", {f"Jane Doe_55_assignsubmission_file_{mark}tinylab.ipynb": NOTEBOOK % b"jane",
                                            f"Jürgen O'Neil_56_assignsubmission_file_{mark}tinylab-0a.zip": handed_in(b"j")})
    collect(built_tinylab, source, tmp_path / "to")
    assert found(tmp_path / "to") == {"55": NOTEBOOK % b"jane", "56": NOTEBOOK % b"j"}
    assert "Jürgen O'Neil" in (tmp_path / "to" / "names.csv").read_text(encoding="utf-8")


def test_an_unpacked_download_and_a_second_one_that_replaces_the_first(built_tinylab, tmp_path):
    folder = tmp_path / "download" / "Jane Doe_55_assignsubmission_file"
    folder.mkdir(parents=True)
    (folder / "mine.ipynb").write_bytes(NOTEBOOK % b"first")
    (folder / "link.ipynb").symlink_to("/etc/passwd")
    collect(built_tinylab, tmp_path / "download", tmp_path / "to")
    assert found(tmp_path / "to") == {"55": NOTEBOOK % b"first"}
    (folder / "tinylab.ipynb").write_bytes(NOTEBOOK % b"second")
    lines = collect(built_tinylab, tmp_path / "download", tmp_path / "to")
    assert found(tmp_path / "to") == {"55": NOTEBOOK % b"second"} and "55: tinylab.ipynb was taken, of 2 notebooks" in lines


def link() -> dict[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo("tinylab/tinylab.ipynb")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return {info: b"/etc/passwd"}


BAD = {"a path upwards": lambda: archive(None, {"../../evil.ipynb": b"x"}), "an absolute path": lambda: archive(None, {"/tmp/evil.ipynb": b"x"}),
       "a Windows path": lambda: archive(None, {"..\\..\\evil.ipynb": b"x"}), "a link": lambda: archive(None, link()),
       "a bomb": lambda: archive(None, {"tinylab.ipynb": bytes(3_000_000)}), "no zip": lambda: b"PK\x03\x04 broken",
       "too many files": lambda: archive(None, {f"{i}.ipynb": b"" for i in range(50)})}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_archive_costs_only_its_student(built_tinylab, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(module, "MAX_FILE", 2_000_000)
    monkeypatch.setattr(module, "MAX_FILES", 40)
    source = archive(tmp_path / "submissions.zip", {"good_1_11_tinylab.ipynb": NOTEBOOK % b"good", "bad_2_12_tinylab.zip": BAD[kind]()})
    lines = collect(built_tinylab, source, tmp_path / "to")
    assert found(tmp_path / "to") == {"1": NOTEBOOK % b"good"}
    assert any(line.startswith("skipped, 2: ") for line in lines)
    assert {path.name for path in tmp_path.iterdir()} == {"submissions.zip", "to"}


@pytest.mark.parametrize("kind", ["a path upwards", "an absolute path", "a Windows path", "a link", "too many files"])
def test_a_bad_download_is_refused_whole(built_tinylab, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(module, "MAX_FILES", 40)
    source = tmp_path / "submissions.zip"
    source.write_bytes(BAD[kind]())
    with pytest.raises(Refusal, match="was not unpacked"):
        collect(built_tinylab, source, tmp_path / "to")
    assert not found(tmp_path / "to")


def test_what_is_no_download_is_refused(built_tinylab, tmp_path):
    with pytest.raises(Refusal, match="neither a folder nor a zip"):
        collect(built_tinylab, tmp_path / "nothing.zip", tmp_path / "to")
    with pytest.raises(Refusal, match="holds no notebook under a name"):
        collect(built_tinylab, archive(tmp_path / "a.zip", {"thesis.ipynb": b"{}"}), tmp_path / "to")

"""Any file at all can be handed in."""

from __future__ import annotations

import copy
import json
import os

import nbformat
import pytest

from autograder.handin_intake import Cell, definitions, imports, take_in
from autograder.results import Limits


@pytest.fixture
def take(classroom):
    """Hand in something and take it in: `take(content)`."""
    def take(content, limits=Limits(), own_modules=frozenset()):
        return take_in(classroom.hand_in("ada", content), classroom.lab, limits, own_modules)
    return take


def cell(intake, id: str) -> Cell:
    return next(cell for cell in intake.cells if cell.id == id)


def as_v3(notebook) -> dict:
    """The notebook in format 3, as IPython 2 wrote it."""
    cells = [{"cell_type": "code", "metadata": each.metadata, "language": "python", "outputs": [], "input": each.source}
             if each.cell_type == "code" else {"cell_type": "markdown", "metadata": each.metadata, "source": each.source}
             for each in notebook.cells]
    return {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": [{"cells": cells, "metadata": {}}]}


# --- what cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content, says", [
    (b"", "empty"),
    (b" \n\t ", "empty"),
    (os.urandom(2000), "not a notebook"),
    (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a notebook"),
    (b"PK\x03\x04" + bytes(500), "not a notebook"),
    (b"print('I pasted my code')\n", "not a notebook"),
    (b"{\"cells\": [", "not a notebook"),
    (b"[1, 2, 3]", "not a notebook"),
    (b"null", "not a notebook"),
    (b"{}", "no list of cells"),
    (b'{"cells": {}}', "no list of cells"),
    (b'{"cells": "x", "metadata": 3}', "no list of cells"),
    (b'{"cells": []}', "no cells"),
    (b'{"cells": [1, null, "x"]}', "no cells"),
    (b'{"worksheets": [{}, 3, {"cells": 5}]}', "no cells"),
    (b"[" * 200_000, "not a notebook"),
    (b'{"a":' * 200_000, "not a notebook"),
    (b'{"cells": [' + b"[" * 5000 + b"]" * 5000 + b"]}", "not a notebook"),
    (b'{"cells": [{"source": ' + b"1" * 5000 + b"}]}", "not a notebook"),
    (json.dumps({"cells": [{"cell_type": "code", "source": "1"}] * 3000}).encode(), "3,000 cells"),
])
def test_what_is_no_notebook_is_said_in_one_sentence(take, content, says):
    intake = take(content)
    assert intake.status == "unreadable" and says in intake.message
    assert "\n" not in intake.message and len(intake.message) < 200
    assert intake.cells == () and len(intake.sha256) in (0, 64)


def test_a_huge_file_is_not_even_read(classroom):
    path = classroom.hand_in("ada", "")
    with path.open("wb") as file:
        file.truncate(200 * 2**20)
    intake = take_in(path, classroom.lab)
    assert intake.status == "unreadable" and "200 MB" in intake.message and intake.sha256 == ""


def test_nothing_handed_in_is_missing(classroom):
    assert take_in(classroom.path("nobody"), classroom.lab).status == "missing"


def test_a_folder_or_a_pipe_under_the_name_is_no_file(classroom):
    path = classroom.path("ada")
    path.mkdir(parents=True)
    assert "not a file" in take_in(path, classroom.lab).message
    path = classroom.path("bob")
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    assert "not a file" in take_in(path, classroom.lab).message


def test_links_are_not_followed_out_of_the_folder(classroom, tmp_path):
    secret = tmp_path / "secret.ipynb"
    secret.write_text(nbformat.writes(classroom.notebook()))
    path = classroom.path("ada")
    path.parent.mkdir(parents=True)
    path.symlink_to(secret)
    assert "link" in take_in(path, classroom.lab).message
    classroom.hand_in("bob", classroom.notebook())
    folder = classroom.path("eve").parent
    folder.parent.mkdir()
    folder.symlink_to(classroom.path("bob").parent)  # somebody else's hand-in
    assert "link" in take_in(classroom.path("eve"), classroom.lab).message


def test_links_within_the_folder_and_in_circles(classroom):
    path = classroom.hand_in("ada", classroom.notebook())
    path.rename(path.with_name("real.ipynb"))
    path.symlink_to("real.ipynb")
    assert take_in(path, classroom.lab).status == ""
    loop = classroom.path("eve")
    loop.parent.mkdir(parents=True)
    loop.symlink_to(loop.name)
    assert take_in(loop, classroom.lab).status == "unreadable"


def test_the_file_is_left_as_it_was(classroom):
    path = classroom.hand_in("ada", classroom.filled(mean="pass", Average="x = 1"))
    before = path.read_bytes(), path.stat().st_mtime_ns
    take_in(path, classroom.lab)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


# --- what can be read all the same ------------------------------------------------------------------------------------


def about(**metadata):
    return lambda text: json.dumps(json.loads(text) | {"metadata": metadata}).encode()


def test_a_good_notebook_comes_in_without_a_word(take, classroom):
    intake = take(classroom.notebook())
    assert intake.status == intake.message == "" and intake.notices == () and len(intake.sha256) == 64
    assert [cell.kind for cell in intake.cells].count("solution") == 2  # `twice` is provided
    assert "fsum" in cell(intake, "Average").source and cell(intake, "Average").changed


@pytest.mark.parametrize("spoil, notice", [
    (lambda text: b"\xef\xbb\xbf" + text.encode(), None),
    (lambda text: text.encode("utf-16"), None),
    (lambda text: text.replace("The average", "The averag\xe9").encode("latin-1"), "not valid text"),
    (lambda text: text.replace("exercises", "\\ud800").encode(), None),
    (lambda text: json.dumps(json.loads(text) | {"metadata": {}}).encode(), None),
    (lambda text: json.dumps(json.loads(text) | {"metadata": 7, "nbformat": "x"}).encode(), None),
    (lambda text: json.dumps(as_v3(nbformat.reads(text, as_version=4))).encode(), "old format 3"),
    (about(kernelspec={"name": "ir", "language": "R"}), "written in R"),
    (about(language_info={"name": "julia"}), "written in julia"),
    (about(diffusionlab={"lab": "lab9", "version": "1"}), "another lab"),
    (about(diffusionlab={"version": "0.1"}), "version '0.1'"),
])
def test_odd_encodings_and_formats_are_read(take, classroom, spoil, notice):
    intake = take(spoil(nbformat.writes(classroom.notebook())))
    assert intake.status == "" and "fsum" in cell(intake, "Average").source
    json.dumps([each.source for each in intake.cells], ensure_ascii=False).encode()  # all of it is valid text
    assert any(notice in each for each in intake.notices) if notice else intake.notices == ()


def changed(classroom, change):
    notebook = classroom.notebook()
    by_id = {cell.id: cell for cell in notebook.cells}
    change(notebook.cells, by_id)
    return notebook


def drop(name):
    return lambda cells, by_id: cells.remove(by_id[name])


def twice(name, source=None):
    def change(cells, by_id):
        cells.append(copy.deepcopy(by_id[name]))
        if source is not None:
            cells[-1].source = source
    return change


def lose_ids(cells, by_id):
    for each in cells:
        each.metadata, each.id = {}, f"x{id(each)}"


def marks(**marks):
    return lambda cells, by_id: [each.metadata.nbgrader.update(marks) for each in cells]


@pytest.mark.parametrize("change, notice", [
    (drop("mean"), "The cell mean is missing"),
    (drop("a-tiny-lab-2"), "The cell a-tiny-lab-2 is missing"),
    (lambda cells, by_id: by_id["mean"].update(source="check = print"), "The cell mean belongs to the lesson"),
    (lambda cells, by_id: by_id["a-tiny-lab-2"].update(source="import os"), "belongs to the lesson and was changed"),
    (twice("Average"), "is there 2 times"),
    (twice("mean"), "not in the lesson's order"),
    (twice("Average", "print(Average([1]).mean())"), None),
    (marks(grade=False), None),
    (marks(points=1000), None),
    (marks(grade_id=["x"]), None),
    (marks(locked="?", solution=None, schema_version=99), None),
    (lose_ids, "recognised by what it defines"),
    (lambda cells, by_id: cells.reverse(), "not in the lesson's order"),
    (lambda cells, by_id: [each.update(outputs="x", execution_count="y") for each in cells if "outputs" in each], None),
    (lambda cells, by_id: [each.metadata.update(tags=["skip-execution", "demonstration"]) for each in cells], None),
])
def test_changed_cells_and_marks_do_not_change_what_counts(take, classroom, change, notice):
    notebook = changed(classroom, change)
    intake = take(json.dumps(notebook))
    plain = take(classroom.notebook())
    def counts(taken):
        return [(each.id, each.kind, each.type, each.source, each.metadata) for each in taken.cells if each.kind != "added"]
    assert counts(intake) == counts(plain)
    assert any(notice in each for each in intake.notices) if notice else intake.notices == ()


def test_a_missing_exercise_is_the_unfilled_one(take, classroom):
    intake = take(changed(classroom, drop("Average")))
    assert "NotImplementedError" in cell(intake, "Average").source and not cell(intake, "Average").changed
    assert any("Average is missing" in each for each in intake.notices)


def test_an_exercise_turned_into_text_is_read_as_code(take, classroom):
    for source in ("class Average:\n    pass", "```python\nclass Average:\n    pass\n```"):
        notebook = classroom.filled(Average=source)
        each = next(cell for cell in notebook.cells if cell.id == "Average")
        each.cell_type = "markdown"
        del each["outputs"], each["execution_count"]
        intake = take(notebook)
        assert cell(intake, "Average").type == "code" and cell(intake, "Average").source == "class Average:\n    pass"
        assert any("turned into a markdown cell" in each for each in intake.notices)


@pytest.mark.filterwarnings("ignore:Non-unique cell id")
def test_the_last_filled_copy_counts(take, classroom):
    stub = json.loads(classroom.lab.student_notebook.read_text())
    source = "".join(next(each["source"] for each in stub["cells"] if each["id"] == "Average"))
    assert "fsum" in cell(take(changed(classroom, twice("Average", source))), "Average").source
    assert cell(take(changed(classroom, twice("Average", "class Average: pass"))), "Average").source == "class Average: pass"


def test_the_students_own_cells_stay_where_they_stood(take, classroom):
    notebook = classroom.notebook()
    place = [cell.id for cell in notebook.cells].index("Average")
    notebook.cells.insert(place, nbformat.v4.new_code_cell("helper = 1"))
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("Ada and Grace"))
    intake = take(notebook)
    kinds = [(cell.id, cell.type) for cell in intake.cells]
    assert kinds[0] == ("added-1", "markdown")
    assert kinds.index(("added-2", "code")) == kinds.index(("Average", "code")) - 1


def test_marks_of_another_lab_are_ignored_and_said(take, classroom):
    marked = {"nbgrader": {"grade_id": "lab9-extra", "grade": True, "points": 50}}
    foreign = nbformat.v4.new_code_cell("x = 1", metadata=marked)
    notebook = classroom.notebook()
    notebook.cells.append(foreign)
    intake = take(notebook)
    assert cell(intake, "added-1").metadata == {} and any("lab9-extra" in each for each in intake.notices)


def test_written_answers_are_the_students(take, classroom):
    intake = take(classroom.filled(essay="With outliers, I think."))
    assert cell(intake, "essay").source == "With outliers, I think." and cell(intake, "essay").kind == "manual"


def test_outputs_are_kept_only_where_they_are_outputs(take, classroom):
    notebook = json.loads(nbformat.writes(classroom.notebook()))
    shown = next(each for each in notebook["cells"] if each["id"] == "the-largest-2")
    data = {"text/plain": "x", "application/json": {"a": 1}, "image/png": 5, "text/html": "<b>", "image/svg+xml": "<svg/>",
            "application/javascript": "1", "image/jpeg": 'iVBO"><script>', "text/markdown": "*"}
    shown["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["4", "2\n"]}, {"output_type": "evil"}, 7, None,
                        {"output_type": "display_data", "data": data}, {"output_type": "execute_result"},
                        {"output_type": "error", "ename": 5, "evalue": "v", "traceback": "no list"}]
    outputs = cell(take(json.dumps(notebook)), "the-largest-2").outputs
    assert outputs == ({"output_type": "stream", "name": "stdout", "text": "42\n"},
                       {"output_type": "display_data", "metadata": {}, "data": {"text/plain": "x"}},
                       {"output_type": "error", "ename": "", "evalue": "v", "traceback": []})


def test_foreign_imports_are_said(take, classroom):
    notebook = classroom.filled(added="import math, os.path, diffusers\nfrom torchvision.models import vgg\nfrom . import x")
    notices = take(notebook, own_modules=frozenset({"torch"})).notices
    assert len(notices) == 1 and notices[0].endswith(": diffusers, torchvision.")


def test_sources_that_no_parser_likes():
    for source in ("class A:\n def", "\0", "(" * 500, "-" * 100_000 + "1", "%magic\n!ls", "x = '''"):
        assert definitions(source) in ((), ("A",)) and list(imports(source)) == []
    assert definitions("%matplotlib inline\nclass A: pass\ndef f(): pass") == ("A", "f")
    assert definitions("class A:\n  def f(:\ndef g(x)") == ("A", "g")


def test_a_very_long_sum_does_not_end_the_program():
    assert definitions("class A: pass\nx = 1" + " + 1" * 100_000) == ("A",)

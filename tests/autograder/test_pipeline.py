"""One hand-in from file to marks."""

from __future__ import annotations

import json
import re
import time

import nbformat
import psutil
import pytest
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.utils import determine_grade

from autograder.build import instructor_notebook
from autograder.course import ROOT, Lab, Refusal
from autograder.examiner import Session
from autograder.pipeline import grade_one
from autograder.results import HandInResult, Task, from_json, read_result, to_json, write_result
from autograder.sandbox import Confined


@pytest.fixture(autouse=True)
def _(needs_tool):
    needs_tool("bwrap")


def autograded(classroom, student="ada"):
    name = classroom.lab.name
    return nbformat.read(classroom.folder / "out" / "autograded" / student / name / f"{name}.ipynb", as_version=4)


# --- results ----------------------------------------------------------------------------------------------------------


def test_the_result_is_written_and_read_back(classroom):
    result = classroom.grade(classroom.notebook())
    path = classroom.folder / "out" / "results" / "ada.json"
    assert read_result(path) == result == from_json(json.loads(json.dumps(to_json(result))))
    assert [each.name for each in path.parent.iterdir()] == ["ada.json"]  # and no temporary file is left
    assert (result.student_id, result.lab, result.lab_version) == ("ada", "tinylab", classroom.lab.version)
    assert (result.seed, result.sandbox) == (7, "bubblewrap")


def test_a_result_replaces_the_one_before_in_one_piece(tmp_path, monkeypatch):
    result = HandInResult("a", "l", "1", 1, "none", "graded", "", (), 1.0, 2.0, False, "", 0.1, ())
    write_result(tmp_path / "a.json", result)
    monkeypatch.setattr("os.replace", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_result(tmp_path / "a.json", from_json(to_json(result) | {"score": 2.0}))
    assert read_result(tmp_path / "a.json") == result and len(list(tmp_path.iterdir())) == 1


def marks(result):
    questions = [(each.points, each.verdict, each.message, each.mistake, each.parts) for each in result.questions]
    return questions, result.status, result.message, result.notices


def test_another_hand_in_of_the_same_student_is_asked_with_other_inputs(classroom, monkeypatch):
    asked, plain = [], Session.look
    monkeypatch.setattr(Session, "look", lambda self, *args: (asked.append(repr(args)), plain(self, *args))[1])
    for added in ("", "", "1"):
        classroom.grade(classroom.average(added=added))
        asked.append("|")
    first, second, third = "".join(asked).split("|")[:3]
    assert first == second != third


def test_graded_twice_the_marks_are_the_same(classroom):
    notebook = classroom.average(variance="0.5", added="1 / 0")
    first = marks(classroom.grade(notebook))
    assert marks(classroom.grade(notebook)) == first == marks(classroom.grade(notebook, sandbox=False))


def test_no_sandbox_is_stamped_on_the_result(classroom):
    result = classroom.grade(classroom.notebook(), sandbox=False)
    assert result.sandbox == "none" and result.score == 9


def test_a_lab_that_is_not_built_is_refused(tinylab, tmp_path):
    with pytest.raises(Refusal, match="autograder build tinylab"):
        grade_one(Task("ada", tmp_path, tinylab, 1, tmp_path))


# --- statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content, status, says", [
    (None, "missing", "No tinylab.ipynb was handed in."), (b"", "unreadable", "The file is empty."),
    (b"\x00\x01", "unreadable", "not a notebook"), (b'{"cells": []}', "unreadable", "no cells")])
def test_what_cannot_be_graded_has_a_status_and_every_file(classroom, content, status, says):
    result = classroom.grade(content)
    assert result.status == status and says in result.message
    assert result.score == 0 and result.max_score == 10 and not result.needs_manual
    assert {each.verdict for each in result.questions} == {"missing"}
    assert len(autograded(classroom).cells) == len(json.loads(classroom.lab.student_notebook.read_text())["cells"])


def test_a_class_that_does_not_compile_costs_its_own_questions(classroom, points):
    result = classroom.grade(classroom.filled(Average="class Average:\n    def mean(self:\n        return 1"))
    assert points(result) == {"mean": 0, "variance": 0, "largest": 2, "essay": 0}
    assert result.status == "partial" and result.message == "The cell Average did not run: it raised SyntaxError in line 2."


@pytest.mark.parametrize("source, why", [
    ("while True: pass", "it took too long"), ("import os; os._exit(1)", "it ended the whole program"),
    ("while True:\n  try:\n    while True: pass\n  except BaseException: pass", "it took too long"),
    ("x = [bytearray(2**24) for _ in range(10**4)]", "it used too much memory"),
    ("raise KeyboardInterrupt", "it raised KeyboardInterrupt")])
def test_an_exercise_cell_that_ends_everything_is_left_out(classroom, points, source, why):
    seconds = 1.5 if "long" in why else 60  # what fills the memory of a busy machine takes its time
    result = classroom.grade(classroom.filled(Average=source), cell_seconds=seconds, memory_gib=0.5)
    assert points(result)["largest"] == 2 and points(result)["mean"] == 0
    assert result.status == "partial" and result.message == f"The cell Average did not run: {why}."


def test_a_class_with_a_long_demonstration_below_it_still_counts(classroom):
    filled = next(cell for cell in classroom.notebook().cells if cell.id == "Average").source
    result = classroom.grade(classroom.filled(Average=f"{filled}\n\nwhile True: Average([1]).mean()"), cell_seconds=0.5)
    assert result.score == 9 and result.message == "The cell Average did not run: it took too long."


@pytest.mark.parametrize("source, why", [
    ("import time\nwhile True: time.sleep(0.1)", "it took too long"),
    ("import os; os._exit(1)", "it ended the whole program"),
    ("twice_of_demonstration + 1", "it raised NameError"),
    ("import torchvision_of_somebody", "it raised ModuleNotFoundError"),
    ("while True:\n  try:\n    while True: pass\n  except BaseException: pass", "it took too long")])
def test_the_students_own_cell_that_fails_is_a_notice_and_no_more(classroom, source, why):
    result = classroom.grade(classroom.filled(added=source), added_seconds=0.5)
    assert result.score == 9 and result.status == "graded"
    assert result.notices[-1].startswith(f"1 of the student's own cells did not run to the end ({why})")


def test_the_students_own_cells_take_part(classroom):
    notebook = classroom.average(mean="shared(self.numbers)")
    place = [cell.id for cell in notebook.cells].index("Average")
    notebook.cells.insert(place, nbformat.v4.new_code_cell("def shared(numbers):\n    return sum(numbers) / len(numbers)"))
    notebook.cells.insert(place, nbformat.v4.new_code_cell("import time\ntime.sleep(5)"))  # however long its neighbours take
    result = classroom.grade(notebook, added_seconds=0.3)
    assert result.score == 9 and len(result.notices) == 1


@pytest.mark.slow
def test_when_the_time_is_up_the_rest_is_not_asked(classroom):
    result = classroom.grade(classroom.average(mean="__import__('time').sleep(100)"), seconds=3.0, question_seconds=60)
    assert result.status == "timeout" and {each.verdict for each in result.questions[:3]} == {"timeout"}
    assert "The time for the whole hand-in was used up." in result.questions[2].message


def test_a_sandbox_that_does_not_start_is_said_and_is_not_the_students_fault(classroom, monkeypatch):
    from autograder import sandbox

    monkeypatch.setattr(sandbox, "python", lambda *args: ["/bin/sh", "-c", "echo out of luck >&2; exit 3"])
    result = classroom.grade(classroom.notebook())
    assert result.status == "crashed" and "out of luck" in result.message and result.needs_manual


def test_nothing_is_left_running(classroom):
    before = {each.pid for each in psutil.Process().children(recursive=True)}
    classroom.grade(classroom.average(mean="__import__('subprocess').Popen(['sleep', '99']) and 0"))
    psutil.wait_procs(psutil.Process().children(recursive=True), timeout=5)
    assert {each.pid for each in psutil.Process().children(recursive=True)} <= before


# --- the notebook that comes out --------------------------------------------------------------------------------------


def test_the_autograded_notebook_is_one_that_nbgrader_takes(classroom):
    result = classroom.grade(classroom.average(variance="0.5", essay="With outliers.", added="x = 1"))
    notebook = autograded(classroom)
    nbformat.validate(notebook)
    MetadataValidator().validate_nb(notebook)
    by_id = {cell.id: cell for cell in notebook.cells}
    for question in result.questions[:3]:
        assert determine_grade(by_id[question.id]) == (question.points, question.max)
    assert by_id["mean"].source == 'check("mean", Average)' and by_id["essay"].source == "With outliers."
    assert "0.5" in by_id["Average"].source and by_id["added-1"].source == "x = 1"
    lesson = {cell.id: cell for cell in nbformat.read(classroom.lab.student_notebook, as_version=4).cells}
    assert by_id["mean"].metadata == lesson["mean"].metadata


def test_demonstrations_are_kept_as_handed_in_and_marked_so(classroom):
    notebook = classroom.notebook()
    shown = next(cell for cell in notebook.cells if cell.id == "the-largest-2")
    shown.outputs = [{"output_type": "stream", "name": "stdout", "text": "42, I swear\n"}]
    classroom.grade(notebook)
    outputs = {cell.id: cell for cell in autograded(classroom).cells}["the-largest-2"].outputs
    assert "as handed in" in outputs[0].data["text/plain"] and outputs[1].text == "42, I swear\n"


def test_what_the_student_wrote_is_text_in_the_notebook(classroom):
    result = classroom.grade(classroom.average(mean="(_ for _ in ()).throw(ValueError('<script>alert()</script>'))"))
    assert "<script>" in result.questions[0].message
    html = {cell.id: cell for cell in autograded(classroom).cells}["mean"].outputs[0].data["text/html"]
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_what_the_student_wrote_has_no_markup_for_formgrader_to_show(classroom):
    classroom.grade(classroom.filled(essay="As 1 <2 and a<b, <script>alert()</script> <img src=x onerror=alert()>"))
    essay = {cell.id: cell for cell in autograded(classroom).cells}["essay"].source
    assert re.sub("\u200b", "", essay) == "As 1 <2 and a<b, <script>alert()</script> <img src=x onerror=alert()>"
    assert not re.search("<[A-Za-z/!?]", essay)


# --- Lab 5 ------------------------------------------------------------------------------------------------------------


def lab5_filled(**replaced: tuple[str, str]):
    """The filled notebook of Lab 5; `Class=(old, new)` changes that class's source."""
    notebook = instructor_notebook(Lab(ROOT, "lab5_sampling"))
    notebook.cells = [cell for cell in notebook.cells if "instructor" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.id in replaced:
            old, new = replaced[cell.id]
            assert old in cell.source
            cell.source = cell.source.replace(old, new)
    return notebook


def lab5_grade(classroom, notebook, **others):
    limits = {"question_seconds": 20.0, "cell_seconds": 60.0, "added_seconds": 10.0, **others}
    return classroom.grade(notebook, **limits)


@pytest.mark.slow
def test_lab5_reference_gets_all_points_twice_and_stays_within_its_cpu_time(lab5, monkeypatch):
    used = []
    kill = Confined.kill
    # Of what runs inside, only the watch knows: nobody waits for it when it is killed.
    monkeypatch.setattr(Confined, "kill", lambda self, *args: (used.append(self.cpu_seconds()), kill(self, *args)))
    before = time.process_time()
    first = lab5_grade(lab5, lab5_filled())
    used.append(time.process_time() - before)
    assert (first.score, first.max_score, first.needs_manual) == (92.0, 100.0, True)
    assert [(each.id, each.message) for each in first.questions if each.message] == []
    assert len(used) > 1 and sum(used) <= 20, used
    assert marks(lab5_grade(lab5, lab5_filled())) == marks(first)


@pytest.mark.slow
def test_lab5_unfilled_gets_none(lab5):
    result = lab5_grade(lab5, lab5.lab.student_notebook.read_bytes())
    assert result.score == 0 and {each.verdict for each in result.questions} == {"unwritten", "manual"}


@pytest.mark.slow
@pytest.mark.parametrize("target, old, new, lost", [
    ("DDIMSampler", "x0 = (x_t - (1 - A_t) ** 0.5 * eps)", "x0 = (x_t - (1 - A_t) * eps)", {"ddim-predict-x0": 5}),
    ("DDPMSampler", "mean = (x_t - (1 - a_t)", "mean = (x_t - (1 - A_t)", {"ddpm-posterior-mean": 8}),
    ("DDPMSampler", "* (1 - A_prev) / (1 - A[index])", "* 1.0", {"ddpm-posterior-variance": 7}),
    ("DDIMSampler", "x_s = A_s**0.5 * x0", "x_s = A_s * x0", {"ddim-step-deterministic": 8}),
    ("ForwardProcessImpl", "A_t**0.5 * x_start", "A_t * x_start", {"forward-add-noise": 5}),
])
def test_lab5_a_mistake_in_one_method_is_paid_for_once(lab5, target, old, new, lost):
    result = lab5_grade(lab5, lab5_filled(**{target: (old, new)}))
    missed = {each.id: each.max - each.points for each in result.questions if each.verdict not in ("right", "manual")}
    assert missed.keys() == lost.keys() and all(missed[id] <= most for id, most in lost.items()), result


NONSENSE = {
    "DDPMSampler": """class DDPMSampler:
    def __init__(self, model, schedule):
        self.model = model
    def compute_posterior_mean(self, x_t, t, predicted_noise):
        return x_t
    def compute_posterior_variance(self, t):
        return torch.ones(torch.as_tensor(t).shape, dtype=torch.float64)
    def ddpm_step(self, x_t, t, *, noise=None, generator=None):
        return x_t.clone()
    def sample(self, shape, return_trajectory=False, *, x_T=None, generator=None):
        return torch.randn(shape, generator=generator)""",
    "DDIMSampler": """class DDIMSampler:
    def __init__(self, model, schedule):
        self.model = model
    def predict_x0_from_eps(self, x_t, eps, t):
        return x_t
    def ddim_step(self, x_t, t, s, eta=0.0, *, noise=None, generator=None):
        return x_t.clone()
    def create_timestep_schedule(self, num_steps, schedule_type="uniform"):
        return torch.arange(num_steps - 1, -1, -1)
    def sample(self, shape, timesteps=None, eta=0.0, return_trajectory=False, *, x_T=None, generator=None):
        x = torch.randn(shape, generator=generator) if x_T is None else x_T.clone()
        return (x, torch.stack([x, x])) if return_trajectory else x""",
    "SamplingOptimizer": """class SamplingOptimizer:
    def __init__(self, ddim_sampler):
        self.sampler = ddim_sampler
    def cached_noise_schedule_sampling(self, ddim_sampler, shape, num_steps, *, eta=0.0, x_T=None, generator=None):
        return ddim_sampler.sample(shape, num_steps, eta, x_T=x_T, generator=generator)
    def batch_sampling_with_memory_management(self, total, size, *, sample_shape=None, **others):
        shape = self.sampler.model.sample_shape if sample_shape is None else sample_shape
        return torch.randn((total, *shape))"""}


# It asks the network as often as it should, and makes nothing of what the network says; all its methods agree on that.
IDLE = """class DDPMSampler:
    def __init__(self, model, schedule):
        self.model, self.T = model.eval(), schedule.num_timesteps
    def compute_posterior_mean(self, x_t, t, predicted_noise):
        return 2 * x_t
    def compute_posterior_variance(self, t):
        return torch.zeros(torch.as_tensor(t).shape, dtype=torch.float64)
    @torch.no_grad()
    def ddpm_step(self, x_t, t, *, noise=None, generator=None):
        self.model(x_t, torch.full((len(x_t),), t))
        return 2 * x_t
    def sample(self, shape, return_trajectory=False, *, x_T=None, generator=None):
        trajectory = [torch.randn(shape, generator=generator) if x_T is None else x_T]
        for t in range(self.T - 1, -1, -1):
            trajectory.append(self.ddpm_step(trajectory[-1], t))
        return (trajectory[-1], torch.stack(trajectory)) if return_trajectory else trajectory[-1]"""


@pytest.mark.slow
def test_lab5_what_makes_nothing_of_the_networks_predictions_is_not_right_on_its_own_terms(lab5, points):
    notebook = lab5_filled()
    for cell in notebook.cells:
        cell.source = IDLE if cell.id == "DDPMSampler" else cell.source
    result = points(lab5_grade(lab5, notebook))
    assert (result["ddpm-step"], result["ddpm-sample"]) == (0.0, 0.0)


@pytest.mark.slow
def test_lab5_a_wrong_formula_in_a_wrong_shape_is_paid_for_once(lab5, points):
    notebook = lab5_filled()
    for cell in notebook.cells:
        if cell.id == "DDPMSampler":
            assert "def compute_posterior_variance" in cell.source
            cell.source += """

right_variance = DDPMSampler.compute_posterior_variance
DDPMSampler.compute_posterior_variance = lambda self, t: 2 * right_variance(self, t).reshape(-1)  # [1] for a single t"""
    result = points(lab5_grade(lab5, notebook))
    assert result["ddpm-posterior-variance"] < 7 and (result["ddpm-step"], result["ddpm-sample"]) == (5.0, 5.0)


@pytest.mark.slow
def test_lab5_a_helper_that_hangs_on_changed_inputs_costs_nothing_else(lab5, points):
    notebook = lab5_filled()
    for cell in notebook.cells:
        if cell.id == "DDPMSampler":
            cell.source += """

right_mean, first = DDPMSampler.compute_posterior_mean, []
def hanging_mean(self, x_t, *args):
    first.append(x_t)
    while x_t.shape == first[0].shape and torch.allclose(x_t, 1.1 * first[0]):
        pass
    return 2 * right_mean(self, x_t, *args)
DDPMSampler.compute_posterior_mean = hanging_mean"""
    result = lab5_grade(lab5, notebook, question_seconds=5.0, seconds=300.0)
    assert result.status == "graded" and points(result)["ddim-sample"] == 5 and points(result)["ddpm-step"] < 5


def test_a_line_that_fails_costs_no_definition_below_it(classroom):
    filled = next(cell for cell in classroom.notebook().cells if cell.id == "Average").source
    result = classroom.grade(classroom.filled(Average=f"import math\nshown = not_there_at_grading()[0]\n{filled}"))
    assert result.score == 9 and result.message == "The cell Average did not run: it raised NameError."
    # What stands above it stays as it is, with what was done to it since.
    result = classroom.grade(classroom.filled(Average=f"{filled}\nAverage.mean = lambda self: 0.0\nnot_there_at_grading()"))
    assert result.score < 9


# Plain loops over helpers that are constants, inputs, nothing, or of a size at which every difference is small.
HOLLOW = {"formulas of no kind": ("x_t - 0.3 * predicted_noise", "1e-4 * torch.as_tensor(t).double()", "x_t - 0.3 * x_t / (1 + x_t**2)"),
          "constants": ("0 * x_t + 2.0", "torch.zeros(()).double()", "0 * x_t + 2.0"),
          "inputs": ("predicted_noise", "torch.zeros(()).double()", "self.model(x_t, torch.full((len(x_t),), t))"),
          "nothing": ("x_t[:, :0]", "torch.zeros(()).double()", "x_t[:, :0]"),
          "very large": ("x_t + 2.0**40", "torch.zeros(()).double()", "0 * self.model(x_t, torch.full((len(x_t),), t)) + 2.0**40")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOLLOW)
def test_lab5_nothing_rests_on_helpers_that_do_not_answer_to_their_inputs(lab5, points, kind):
    mean, variance, step = HOLLOW[kind]
    notebook = lab5_filled()
    for cell in notebook.cells:
        if cell.id == "DDPMSampler":
            cell.source = IDLE.replace("return 2 * x_t\n    def compute_posterior_variance", f"return {mean}\n    def compute_posterior_variance")
            cell.source = cell.source.replace("torch.zeros(torch.as_tensor(t).shape, dtype=torch.float64)", variance)
            cell.source = cell.source.replace("return 2 * x_t\n    def sample", f"return {step}\n    def sample")
            assert cell.source.count("2 * x_t") == 0
    result = points(lab5_grade(lab5, notebook))
    assert result["ddpm-step"] <= 1 and result["ddpm-sample"] <= 1.5  # that the model is asked at every timestep is right on any terms


@pytest.mark.slow
def test_lab5_samplers_that_do_nothing_are_not_right_on_their_own_terms(lab5):
    notebook = lab5_filled()
    for cell in notebook.cells:
        cell.source = NONSENSE.get(cell.id, cell.source)
    result = lab5_grade(lab5, notebook)
    on_samplers = [each for each in result.questions if each.id.startswith(("ddpm", "ddim", "optimizer"))]
    assert {each.id: each.points for each in on_samplers if each.points} == {}

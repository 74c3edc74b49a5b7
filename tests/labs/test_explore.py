"""The panels, driven by the reference classes on small models: what is shown, what is kept, what is said when code is missing."""

import re
from base64 import b64decode
from functools import partial
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from diffusionlab import explore
from diffusionlab.analytic import GaussianMixture, SlowModel
from diffusionlab.explore import panel as panel_module
from diffusionlab.explore.eta_dial import DDPM, HANDOUT, pairs, step_parts
from diffusionlab.explore.paint import Drawing, axes, sheet, still
from diffusionlab.explore.panel import explain
from diffusionlab.explore.speed_quality import nice_ticks
from diffusionlab.explore.step_schedules import OWN, own_schedule
from diffusionlab.explore.watched import Watched
from diffusionlab.explore.work import Run, Stopped
from diffusionlab.levels import Denoiser, levels_at
from diffusionlab.noise_model import NoiseModel, count_calls
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.schedulers import make_scheduler, solve_with_scheduler
from solutions.lab5_sampling import (DDIMSampler, DDPMSampler, ForwardProcessImpl, StochasticityController, sample_diversity)
from solutions.lab6_solvers import create_timesteps, solve_heun

SHORT = NoiseSchedule.linear(100)


class Shrinks(NoiseModel):
    """A quick stand-in for a network: half of what it sees is noise. Knows two classes, which differ by a shift."""

    sample_shape, num_timesteps, num_classes, class_names = (1, 8, 8), 100, 2, ("0", "1")

    def __init__(self, shift: float = 0.0):
        super().__init__()
        self.shift = shift

    def condition(self, label: int, guidance: float = 1.0):
        return Shrinks(0.1 * label * guidance)

    def forward(self, x, t):
        return 0.5 * x + self.shift


class Unwritten:
    """A class of stubs."""

    def __init__(self, *args):
        pass

    def create_timestep_schedule(self, num_steps, schedule_type="uniform"):
        raise NotImplementedError

    def analyze_eta_effects(self, *args, **kwargs):
        raise NotImplementedError

    def add_noise(self, *args):
        raise NotImplementedError


def unwritten(denoise, x, num_steps, *, callback):
    raise NotImplementedError


def heun(denoise, x, num_steps, *, callback):
    return solve_heun(denoise, x, levels_at(SHORT, create_timesteps(SHORT, num_steps)), callback=callback)


def dial(*yours, model=None):
    panel = explore.eta(DDIMSampler, *yours, model=model or Shrinks(), schedule=SHORT)
    panel.refresh()
    assert panel.wait(120)
    return panel


def said(panel) -> str:
    return re.sub("<[^>]+>", "", panel._message.value)


def status(panel) -> str:
    return re.sub("<[^>]+>", "", panel._status.value)


def pixels(picture) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(picture.png)))


# --- the dial -------------------------------------------------------------------------------------------------------

def grid_of(x):
    return sheet([list(x[i:i + 4]) for i in range(0, 16, 4)], "").png


@pytest.mark.parametrize("value, steps, kind, digit", [(0.0, 20, "uniform", 1), (0.5, 7, "quadratic", 0), (1.0, 33, "trailing", -1)])
def test_the_samples_are_those_of_the_sampler_called_directly(value, steps, kind, digit):
    panel = dial(StochasticityController, sample_diversity)
    panel.label.value, panel.steps.value, panel.kind.value, panel.eta.value = digit, steps, kind, value
    assert panel.wait(120) and said(panel) == ""
    model = Shrinks() if digit < 0 else Shrinks().condition(digit)
    sampler = DDIMSampler(model, SHORT)
    x = sampler.sample((16, 1, 8, 8), sampler.create_timestep_schedule(steps, kind), value,
                       generator=torch.Generator().manual_seed(panel.seed.value))
    assert panel.samples.picture.png == grid_of(x)
    assert panel.numbers["diversity"] == f"{sample_diversity(x):.4f}"
    assert panel.numbers["network calls (NFE)"] == str(steps)


def test_a_move_changes_the_picture_and_a_move_back_brings_the_first_one_at_once():
    panel = dial(StochasticityController)
    first = panel.samples.picture
    panel.eta.value = 0.7
    assert "dl-old" not in panel.sweep._dom_classes  # it does not depend on eta
    assert panel.wait(120) and panel.samples.picture.png != first.png
    panel.worker.submit = None  # nothing may be asked of the worker now
    panel.eta.value = 0.0
    assert panel.samples.picture is first
    assert "dl-old" not in panel.samples._dom_classes


def test_the_sweep_shares_its_start_and_is_one_batch():
    panel = dial(StochasticityController)
    study = StochasticityController(DDIMSampler(Shrinks().condition(1), SHORT)).analyze_eta_effects(
        (4, 1, 8, 8), [0, 0.25, 0.5, 0.75, 1], 20, generator=torch.Generator().manual_seed(1))
    panel.label.value = 1
    assert panel.wait(120)
    assert panel.sweep.picture.png == sheet([list(study["samples"][:, i]) for i in range(4)], "").png
    assert "one batch" in panel.sweep.picture.caption


@pytest.mark.parametrize("controller, words", [(None, "five runs"), (Unwritten, "analyze_eta_effects")])
def test_without_a_controller_the_sweep_is_five_runs_of_the_sampler(controller, words):
    panel = dial(controller)
    panel.label.value = 1
    assert panel.wait(120) and words in panel.sweep.picture.caption
    columns = [DDIMSampler(Shrinks().condition(1), SHORT).sample((4, 1, 8, 8), 20, eta, generator=torch.Generator().manual_seed(1))
               for eta in (0, 0.25, 0.5, 0.75, 1)]
    assert panel.sweep.picture.png == sheet([[column[i] for column in columns] for i in range(4)], "").png


def test_what_a_step_mixes_is_read_off_the_students_own_step():
    steps = DDIMSampler(None, SHORT).create_timestep_schedule(10).tolist()
    direction, sigma = step_parts(DDIMSampler, SHORT, steps, 0.6, Run())
    controller = StochasticityController(DDIMSampler(None, SHORT))
    for (t, s), old, fresh in zip(pairs(steps), direction, sigma):
        variance = float(controller.compute_stochastic_variance(t, s, 0.6))
        belongs = float(1 - SHORT.alphas_cumprod[s]) if s >= 0 else 0.0
        assert fresh**2 == pytest.approx(variance, abs=1e-14) and old**2 == pytest.approx(belongs - variance, abs=1e-14)


def test_the_handouts_step_shows_too_much_noise_and_the_right_one_does_not():
    panel = dial(StochasticityController)
    panel.eta.value = 1.0
    assert panel.wait(120) and panel.numbers["noise / what belongs there"] == "1.00×, at most 1.00×"
    assert panel.numbers["the same, carried on to the last"] == "1.00×"
    panel.sampler.value = HANDOUT
    assert panel.wait(120)
    median, largest = map(float, re.findall(r"[\d.]+", panel.numbers["noise / what belongs there"]))
    assert 1.1 <= median < largest < 1.5
    assert float(panel.numbers["the same, carried on to the last"].rstrip("×")) > largest  # each excess is carried on


def test_the_handouts_step_at_eta_0_is_the_right_one():
    panel = dial()
    right = panel.samples.picture.png
    panel.sampler.value = HANDOUT
    assert panel.wait(120) and panel.samples.picture.png == right


def test_ddpm_takes_all_steps_and_has_no_eta():
    panel = dial(None, None, DDPMSampler)
    panel.sampler.value = DDPM
    assert panel.wait(120) and panel.numbers["network calls (NFE)"] == "100"
    assert panel.eta.disabled and panel.steps.disabled
    assert "dl-old" in panel.sweep._dom_classes and "dl-old" not in panel.samples._dom_classes  # the sweep is of another sampler
    x = DDPMSampler(Shrinks(), SHORT).sample((16, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    panel.label.value = -1
    assert panel.wait(120) and panel.samples.picture.png == grid_of(x)


# --- long work ------------------------------------------------------------------------------------------------------

def test_work_can_be_stopped_between_network_calls_and_says_so():
    panel = explore.eta(DDIMSampler, model=SlowModel(SHORT, 0.05, (1, 8, 8)), schedule=SHORT)
    panel.steps.value = 100
    while not re.search(r"η = 0: \d+ of 100 network calls", status(panel)):
        assert not panel.wait(0.02)
    assert not panel.stop_button.disabled
    panel.stop_button.click()
    assert panel.wait(120)
    assert status(panel).startswith("Stopped") and panel.stop_button.disabled and panel.samples.picture is None
    panel.steps.value = 2
    assert panel.wait(120) and panel.samples.picture is not None and status(panel) == "done"


def test_a_quickly_moved_slider_leaves_one_result_behind_it():
    slow = SlowModel(SHORT, 0.01, (1, 8, 8))
    panel = explore.eta(DDIMSampler, model=slow, schedule=SHORT)
    for value in np.linspace(0.05, 1, 20):
        panel.eta.value = round(float(value), 2)
    assert panel.wait(120)
    assert "η = 1," in panel.samples.picture.caption
    assert len(panel.memory) <= 4  # the last grid and its sweep, and at most what was done before the second move came


def test_the_background_does_not_disturb_somebody_elses_count():
    with count_calls() as calls:
        dial(StochasticityController)
    assert calls.nfe == 0


def test_a_watched_model_stops_before_the_next_call():
    run = Run()
    watched = Watched(Shrinks(), run, 10)
    x = torch.zeros(2, 1, 8, 8)
    watched(x, torch.tensor([5, 5]))
    run.stop()
    with pytest.raises(Stopped):
        watched(x, torch.tensor([4, 4]))
    assert [t for t, _, _ in watched.calls] == [5]


# --- kind words -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("panel, method", [
    (lambda: explore.eta(Unwritten, model=Shrinks(), schedule=SHORT), "Unwritten.create_timestep_schedule"),
    (lambda: explore.paths(Unwritten), "Unwritten.create_timestep_schedule"),
    (lambda: explore.solvers({"mine": unwritten}), "unwritten"),
    (lambda: explore.schedules(Unwritten, model=Shrinks(), schedule=SHORT), "Unwritten.create_timestep_schedule"),
    (lambda: explore.forward(Unwritten), "Unwritten.add_noise")])
def test_a_missing_stub_is_named(panel, method):
    panel = panel()
    panel.refresh()
    assert panel.wait(120)
    assert said(panel).startswith(f"Still to be written: {method}.") and panel.stop_button.disabled


def test_an_exception_is_quoted_with_its_place_and_the_next_move_may_succeed():
    class Picky(DDIMSampler):
        def ddim_step(self, x_t, t, s, eta=0.0, **kwargs):
            if eta > 0.5:
                raise KeyError("no <b>such</b> eta")
            return super().ddim_step(x_t, t, s, eta, **kwargs)

    panel = explore.eta(Picky, model=Shrinks(), schedule=SHORT)
    panel.eta.value = 0.8
    assert panel.wait(120)
    assert "Your code raised KeyError in ddim_step" in said(panel) and "&lt;b&gt;" in panel._message.value
    panel.sampler.options = panel.sampler.options[:1]
    panel.eta.value = 0.2
    assert panel.wait(120) and "η = 0.2" in panel.samples.picture.caption


def test_code_that_wants_to_exit_is_quoted_like_any_other():
    class Leaves(DDIMSampler):
        def ddim_step(self, *args, **kwargs):
            raise SystemExit(3)

    panel = explore.eta(Leaves, model=Shrinks(), schedule=SHORT)
    panel.refresh()
    assert panel.wait(120) and "Your code raised SystemExit in ddim_step" in said(panel)


def test_a_stub_with_words_of_its_own_is_quoted():
    assert "NotImplementedError" in explain(NotImplementedError("later")) and "later" in explain(NotImplementedError("later"))


def test_a_diversity_still_to_be_written_does_not_hide_the_samples():
    def sample_diversity(samples):
        raise NotImplementedError

    panel = dial(StochasticityController, sample_diversity)
    assert "to be written" in panel.numbers["diversity"] and panel.samples.picture is not None


# --- the other panels -----------------------------------------------------------------------------------------------

def test_images_without_labels_are_numbered():
    panel = explore.forward(ForwardProcessImpl, images=torch.zeros(3, 1, 8, 8))
    assert [name for name, _ in panel.digit.options] == ["0", "1", "2"]


def test_the_forward_slider_shows_the_students_own_mixture():
    images = torch.rand(3, 1, 8, 8) * 2 - 1
    panel = explore.forward(ForwardProcessImpl, images=images, labels=[4, 2, 4])
    panel.t.value = 300
    assert panel.wait(120) and said(panel) == ""
    clean = images[1:2]  # the first of the smallest label
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    noisy = [ForwardProcessImpl(schedule).add_noise(clean, 300, noise) for schedule in panel.schedules.values()]
    assert panel.pictures.picture.png == sheet([[image[0] for image in (clean, *noisy)]], "").png
    A = float(NoiseSchedule.linear().alphas_cumprod[300])
    assert panel.numbers["√A, linear"] == f"{A**0.5:.4f}" and panel.numbers["SNR, linear"] == f"{A / (1 - A):.3g}"
    panel.t.value = -1
    assert panel.wait(120)
    assert panel.pictures.picture.png == sheet([[clean[0]] * 4], "").png and panel.numbers["SNR, cosine"] == "∞"


def test_paths_end_where_the_sampler_called_directly_ends():
    ring = GaussianMixture.ring(SHORT)
    panel = explore.paths(DDIMSampler, DDPMSampler, model=ring, schedule=SHORT)
    panel.steps.value = 5
    assert panel.wait(120) and said(panel) == ""
    levels, way = panel.memory.get(("ddim", 5, 1.0, 1))
    _, direct = DDIMSampler(ring, SHORT).sample((300, 2), 5, 1.0, True, generator=torch.Generator().manual_seed(1))
    assert levels.tolist() == [99, 74, 50, 25, 0, -1] and np.array_equal(way, direct.numpy())
    assert list(panel.picture.picture.columns) == ["DDIM, η = 0", "DDIM, η = 1", "DDPM"]


@pytest.mark.parametrize("theirs, calls", [("DDIMScheduler", 5), ("UniPCMultistepScheduler", 5), ("HeunDiscreteScheduler", 9)])
def test_solvers_and_a_library_s_schedulers_lead_points_where_they_do_when_called_directly(theirs, calls):
    ring = GaussianMixture.ring(SHORT)
    scheduler = make_scheduler(theirs, SHORT, timestep_spacing="leading")
    walks = {"heun": heun, "theirs": partial(solve_with_scheduler, scheduler, SHORT)}
    panel = explore.solvers(walks, model=ring, schedule=SHORT)
    panel.steps.value = 5
    assert panel.wait(120) and said(panel) == ""
    x = torch.randn(300, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for name, walk in walks.items():
        timesteps, way, _ = panel.memory.get((name, 5, 1))
        assert np.array_equal(way[-1], walk(Denoiser(ring, SHORT), x, 5, callback=None).float().numpy())
        assert (timesteps[0], timesteps[-1]) == (99, -1) and (np.diff(timesteps) <= 0).all() and len(way) == len(timesteps)
    assert panel.numbers["W₁ to truth, heun"].endswith(", 9 calls")
    assert panel.numbers["W₁ to truth, theirs"].endswith(f", {calls} calls")


@pytest.mark.parametrize("count", [0, 4])
def test_the_panel_of_solvers_holds_one_to_three(count):
    with pytest.raises(ValueError, match="one to 3"):
        explore.solvers({str(i): heun for i in range(count)})


def test_scrubbing_through_time_shows_no_state_of_the_future_and_needs_no_new_samples():
    panel = explore.paths(DDIMSampler, model=GaussianMixture.ring(SHORT), schedule=SHORT)
    panel.refresh()
    assert panel.wait(120)
    kept, last = len(panel.memory), panel.picture.picture
    panel.time.value = 0
    assert panel.wait(120) and len(panel.memory) == kept + 1
    assert panel.numbers["t"] == "99" and panel.picture.picture.png != last.png
    panel.time.value = 40
    assert panel.picture.picture is last and panel.numbers["t"] == "clean"


def test_before_the_first_timestep_points_stand_where_they_start():
    class Late(DDIMSampler):
        def create_timestep_schedule(self, num_steps, schedule_type="uniform"):
            return torch.arange(num_steps).flip(0) * (100 // num_steps)  # leading: it does not begin at T-1

    panel = explore.paths(Late, model=GaussianMixture.ring(SHORT), schedule=SHORT)
    panel.time.value = 0
    panel.refresh()
    assert panel.wait(120) and "raised" not in said(panel) and panel.numbers["t"] == "99"


def test_points_between_two_steps_are_held_to_the_truth_at_their_own_noise_level():
    panel = explore.paths(DDIMSampler, model=GaussianMixture.ring(SHORT), schedule=SHORT)
    panel.steps.value, panel.time.value = 3, 5
    panel.refresh()
    assert panel.wait(120)
    first = panel.numbers["W₁ to truth, DDIM, η = 0"]
    assert first.endswith(" at t = 99") and panel.numbers["t"] != "99"
    panel.time.value = 8  # the points stand where they stood, and so does the truth
    assert panel.wait(120)
    assert panel.numbers["W₁ to truth, DDIM, η = 0"] == first


@pytest.mark.parametrize("density, num_steps, num_timesteps", [([1] * 8, 10, 1000), ([0] * 8, 5, 100), ([0, 0, 0, 0, 0, 0, 0, 9], 50, 100),
                                                               ([9, 0, 0, 0, 0, 0, 0, 0], 50, 100), ([5, 1], 100, 100), ([1, 2], 1, 10)])
def test_a_schedule_drawn_by_hand_is_a_schedule(density, num_steps, num_timesteps):
    steps = own_schedule(density, num_steps, num_timesteps)
    assert len(steps) == num_steps and steps[0] == num_timesteps - 1 and (steps[-1] == 0 or num_steps == 1)
    assert all(s < t for t, s in zip(steps, steps[1:]))


def test_a_schedule_drawn_by_hand_is_dense_where_it_was_drawn_dense():
    steps = np.array(own_schedule([1, 0, 0, 9], 41, 1000))
    assert (steps < 251).sum() > 35 and (steps > 740).sum() < 7
    assert ((steps > 260) & (steps < 740)).sum() == 0


def test_distances_from_all_steps_come_after_the_first_touch_and_are_right():
    panel = explore.schedules(DDIMSampler, model=Shrinks(), schedule=SHORT)
    panel.refresh()
    assert panel.wait(120) and "not made yet" in panel.numbers.values()
    panel.steps.value = 5
    assert panel.wait(120) and said(panel) == ""
    sampler = DDIMSampler(Shrinks().condition(0) if panel.label.value == 0 else Shrinks().condition(panel.label.value), SHORT)
    x_T = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    full = sampler.sample(x_T.shape, 100, x_T=x_T)
    few = sampler.sample(x_T.shape, sampler.create_timestep_schedule(5, "quadratic"), x_T=x_T)
    assert panel.numbers["RMS from all 100, quadratic"] == f"{float((few - full).square().mean().sqrt()):.4f}"
    assert len(panel.samples.picture.rows) == 5


def test_drawing_a_schedule_makes_only_its_own_samples_anew():
    panel = explore.schedules(DDIMSampler, model=Shrinks(), schedule=SHORT)
    panel.steps.value = 5
    assert panel.wait(120)
    before = len(panel.memory)
    panel.bands[0].value = 9
    assert panel.wait(120) and len(panel.memory) == before + 4  # its timesteps, samples, and the two pictures
    assert panel.samples.picture.rows[3] == OWN


def test_the_run_over_all_steps_goes_on_where_it_was_stopped():
    model = SlowModel(SHORT, 0.02, (1, 8, 8))
    panel = explore.schedules(DDIMSampler, model=model, schedule=SHORT)
    panel.steps.value = 2
    while "all 100: " not in status(panel):
        assert not panel.wait(0.02)
    panel.stop()
    assert panel.wait(120)
    (x, done), = panel._partly.values()
    assert 0 < done < 100
    asked = []
    model.forward = lambda x, t: asked.append(int(t[0])) or torch.zeros_like(x)
    panel.refresh(None)
    assert panel.wait(120) and asked == list(range(99 - done, -1, -1))


# --- what was measured ----------------------------------------------------------------------------------------------

def points():
    return [dict(name=f"eta {eta}", steps=n, nfe=n, seconds=n / 10, distance=9 / n + eta, samples=torch.zeros(20, 1, 8, 8) + eta)
            for eta in (0, 1) for n in (5, 50)]


def test_each_point_has_a_button_in_its_place_with_its_numbers_and_its_samples():
    shown = explore.speed_quality(points(), floor=(0.1, 0.01))
    page = shown.to_html()
    places = [tuple(map(float, each)) for each in re.findall(r"left:([\d.]+)%;top:([\d.]+)%", page)]
    assert len(places) == 4 and page.count("<button") == 4
    assert places[0][0] < places[1][0] and places[0][1] < places[1][1]  # slower is right, better is below
    assert places[0][0] == places[2][0]  # equally slow
    assert 'aria-label="eta 1, 50 steps: 50 network calls, 5.00 s, distance 1.18"' in page
    assert len(shown.samples) == 4 and pixels(shown.samples[0]).shape == (35, 35, 4)


def test_a_distance_of_0_has_its_place_on_a_logarithmic_axis():
    at_0 = points()[0] | {"distance": 0.0}
    assert explore.speed_quality([at_0, points()[1]]).to_html().count("<button") == 2


def test_points_without_what_is_needed_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="one lacks seconds$"):
        explore.speed_quality([{key: value for key, value in points()[0].items() if key != "seconds"}])
    with pytest.raises(ValueError, match="no point"):
        explore.speed_quality([])


def test_ticks_are_round_numbers_among_the_values():
    assert nice_ticks([0.3, 4]) == [0.2, 0.5, 1, 2, 5]


# --- on a page without a kernel -------------------------------------------------------------------------------------

@pytest.fixture
def displayed(monkeypatch):
    """What panels displayed, bundle by bundle."""
    bundles = []
    monkeypatch.delenv("NBGRADER_VALIDATING", raising=False)
    monkeypatch.setattr(panel_module, "display", lambda bundle, raw, metadata=None: bundles.append(bundle))
    return bundles


@pytest.mark.parametrize("panel", [lambda: explore.eta(DDIMSampler, model=Shrinks(), schedule=SHORT),
                                   lambda: explore.paths(DDIMSampler), lambda: explore.forward(ForwardProcessImpl),
                                   lambda: explore.solvers({"heun": heun}, schedule=SHORT),
                                   lambda: explore.schedules(DDIMSampler, model=Shrinks(), schedule=SHORT),
                                   lambda: explore.speed_quality(points())])
def test_a_panel_leaves_a_still_for_a_page_without_a_kernel(displayed, panel):
    panel()._ipython_display_()
    live, left = displayed
    assert "application/vnd.jupyter.widget-view+json" in live and "image/png" not in live
    image = np.asarray(Image.open(BytesIO(b64decode(left["image/png"]))).convert("L"))
    assert image.shape[1] == 1280 and image[0].min() == 255 and image.std() > 20  # on white paper, something is drawn
    assert left["text/plain"].startswith("[picture: ")


def test_a_missing_stub_leaves_no_empty_picture(displayed):
    explore.eta(Unwritten, model=Shrinks(), schedule=SHORT)._ipython_display_()
    assert len(displayed) == 1


def test_nothing_is_shown_or_made_while_nbgrader_validates(displayed, monkeypatch):
    monkeypatch.setenv("NBGRADER_VALIDATING", "1")
    panel = explore.eta(DDIMSampler, model=Shrinks(), schedule=SHORT)
    panel._ipython_display_()
    explore.speed_quality(points())._ipython_display_()
    assert displayed == [] and len(panel.memory) == 0


# --- pictures -------------------------------------------------------------------------------------------------------

def test_a_sheet_holds_every_image_in_its_place_pixel_by_pixel():
    x = torch.linspace(-1, 1, 6)[:, None, None, None].expand(6, 1, 3, 3)
    got = pixels(sheet([list(x[:3]), list(x[3:])], "six"))
    assert got.shape == (7, 11, 4)
    assert got[1, 1, 0] == 0 and got[5, 9, 0] == 255 and got[1, 5, 0] == 51 and got[3, 0, 3] == 0


def test_pictures_bring_their_words_escaped():
    page = sheet([[torch.zeros(1, 2, 2)]], "a <b>", "c & d", ["e"], ["f"]).to_html()
    assert 'alt="a &lt;b&gt;"' in page and "c &amp; d" in page and "<span>e</span>" in page and "<span>f</span>" in page


def test_a_drawing_can_be_drawn_into_and_cleared():
    figure, ((ax,),) = axes(2, 1)
    ax.set(xlim=(0, 10), ylim=(0, 1))
    drawing = Drawing(figure)
    blank = pixels(drawing.picture(""))
    drawing.mark(0, 5, 0, 1)
    x, y = drawing.place(0, [(5, 0.5)])[0].round().astype(int)
    marked = pixels(drawing.picture(""))
    assert tuple(marked[y, x]) == (0, 0, 0, 255) and blank[y, x, 3] == 0
    drawing.clear()
    assert np.array_equal(pixels(drawing.picture("")), blank)


def test_a_still_puts_wide_pictures_in_rows_of_their_own():
    square, wide = sheet([[torch.zeros(1, 8, 8)]], ""), sheet([[torch.zeros(1, 8, 8)] * 4], "")
    height = Image.open(BytesIO(still([square, square, wide]))).height
    assert height == 24 + round((1280 - 72) / 2) + 24 + round(1232 * 8 / 35) + 24


def test_a_still_breaks_its_row_of_numbers_where_the_paper_ends():
    def ink(numbers):
        paper = np.asarray(Image.open(BytesIO(still([sheet([[torch.zeros(1, 8, 8)]], "")], numbers))).convert("L"))
        return paper, [len(paper), int((paper[:, 1280 - 24:] < 128).sum())]
    (_, one), (_, three) = ink(["a number 0.123"]), ink([f"a rather long name of a number, the {k}th 0.123" for k in range(6)])
    assert three[0] >= one[0] + 2 * 28 and three[1] == 0


def test_the_colours_of_neighbouring_curves_can_be_told_apart_by_colour_blind_readers():
    # Machado et al. 2009, full severity, on linear RGB: protanopia and deuteranopia.
    views = {"full": np.eye(3),
             "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
             "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]}
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])

    def lab(color, view):
        rgb = np.array(list(bytes.fromhex(color[1:]))) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        x, y, z = np.cbrt(np.clip(to_xyz @ np.clip(np.array(view) @ linear, 0, 1), 1e-4, None) / [0.9505, 1, 1.089])
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    from diffusionlab.explore.paint import BLACK, BLUE, GREEN, VERMILION
    for palette in [(BLUE, VERMILION, BLACK), (BLUE, VERMILION, GREEN)]:
        for view in views.values():
            for i, one in enumerate(palette):
                for other in palette[i + 1:]:
                    assert np.linalg.norm(lab(one, view) - lab(other, view)) > 20

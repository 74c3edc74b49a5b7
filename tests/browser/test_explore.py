"""The panels as a student meets them: the instructor's notebook in a real JupyterLab, moved by mouse and keyboard."""

from __future__ import annotations

import re
from base64 import b64decode
from hashlib import md5

import nbformat
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from autograder.build import instructor_notebook, student_notebook
from autograder.course import ROOT, Lab
from diffusionlab import datasets

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TITLES = ("From clean to noise", "Points on their way", "Where the steps fall", "The dial η", "Speed against quality", "The dial η")


def only_panels(notebook):
    """The notebook without its checks and its other demonstrations, and with fewer samples to judge: it runs in a minute."""
    def wanted(cell) -> bool:
        shown = "demonstration" not in cell.metadata.get("tags", []) or "explore." in cell.source or "def made(" in cell.source
        return cell.cell_type == "code" and shown and not cell.source.startswith("check(")
    notebook.cells = [cell for cell in notebook.cells if wanted(cell)]
    for cell in notebook.cells:
        if "def made(" in cell.source:
            few = "measured = {0.0: (2, 4), 1.0: (2,)}"
            cell.source = re.sub(r"measured = \{.*\}", few, cell.source.replace("judged = 200", "judged = 16"))
            assert few in cell.source and "judged = 16" in cell.source
            # Judged at each count by hand, so that the rest of the cell has nothing more to say.
            cell.source = cell.source.partition("@plots.when_written")[0]
    return notebook


class Page:
    """One panel on the page, found by its title."""

    def __init__(self, lab, title: str):
        self.lab, self.title = lab, title
        lab.js("arguments[0].scrollIntoView({block: 'start'})", self.element)

    @property
    def element(self):
        return next(panel for panel in self.lab.panels() if panel.find_element(By.CSS_SELECTOR, ".dl-title").text == self.title)

    def control(self, label: str):
        """The control with this label."""
        return next(each for each in self.element.find_elements(By.CSS_SELECTOR, ".dl-side .jupyter-widgets:has(> .widget-label)")
                    if each.find_element(By.CSS_SELECTOR, ".widget-label").text == label)

    def handle(self, label: str):
        """The handle of the slider with this label, in sight and at rest: pictures that are still to come move the page."""
        places = []

        def at_rest():
            handle = self.control(label).find_element(By.CSS_SELECTOR, ".noUi-handle")
            self.lab.js("arguments[0].scrollIntoView({block: 'center'})", handle)
            places.append(handle.rect)
            return handle if len(places) > 10 and places[-1] == places[-10] else None
        return self.lab.until(at_rest)

    def drag(self, label: str, x: int, y: int = 0) -> None:
        """Drag a slider's handle so many pixels."""
        ActionChains(self.lab.browser, duration=100).click_and_hold(self.handle(label)).move_by_offset(x, y).release().perform()

    def press(self, label: str, *keys: str) -> None:
        """Give a slider's handle the focus and press keys."""
        handle = self.handle(label)
        self.lab.js("arguments[0].focus()", handle)
        ActionChains(self.lab.browser).send_keys(*keys).perform()

    def value(self, label: str) -> float:
        """What a slider's readout says."""
        return float(self.control(label).find_element(By.CSS_SELECTOR, ".widget-readout").text)

    def status(self) -> str:
        return self.element.find_element(By.CSS_SELECTOR, ".dl-status .widget-html").text

    def done(self, timeout: float = 120) -> None:
        """Wait until the panel has nothing left to do."""
        self.lab.ask("0")  # the kernel has heard of the last move by the time it answers
        self.lab.until(lambda: self.status() in ("done", "shown again; made before"), timeout)

    def captions(self) -> list[str]:
        return [each.text for each in self.element.find_elements(By.CSS_SELECTOR, "figcaption")]

    def hashes(self) -> list[str]:
        """A fingerprint of each picture's bytes."""
        return [md5(b64decode(image.get_attribute("src").partition(",")[2])).hexdigest()
                for image in self.element.find_elements(By.CSS_SELECTOR, ".dl-view img")]

    def number(self, name: str) -> str:
        rows = dict(row.text.split("\n") for row in self.element.find_elements(By.CSS_SELECTOR, ".dl-numbers div"))
        return rows[name]


@pytest.fixture(scope="module")
def filled(lab):
    """The instructor's notebook, run in a browser."""
    lab.open(only_panels(instructor_notebook(Lab(ROOT, "lab5_sampling"))), "filled")
    lab.run_all()
    lab.ask("exec('import hashlib; from diffusionlab.explore.paint import sheet')")
    return lab


def test_all_panels_are_there_and_no_cell_failed(filled):
    assert [panel.find_element(By.CSS_SELECTOR, ".dl-title").text for panel in filled.panels()] == list(TITLES)
    assert not filled.browser.find_elements(By.CSS_SELECTOR, ".jp-OutputArea-output[data-mime-type*='stderr'], .jp-RenderedText[data-mime-type*='error']")
    for panel in filled.panels():
        assert panel.find_elements(By.CSS_SELECTOR, "figure img")


def test_the_last_dial_asks_for_photographs_by_their_names(filled):
    options = [option.text for option in filled.panels()[-1].find_elements(By.CSS_SELECTOR, "option")]
    assert {"any", *datasets.CLASSES["cifar10"]} <= set(options) and "7" not in options


def test_dragging_eta_changes_the_picture_and_the_numbers_are_the_samplers(filled):
    dial = Page(filled, "The dial η")
    before = dial.hashes()
    dial.drag("η (eta)", 70)
    eta = filled.until(lambda: dial.value("η (eta)"), 60)
    dial.done()
    assert dial.captions()[0] == f"16 samples, η = {eta:g}, 20 steps"
    after = dial.hashes()
    assert after[0] != before[0] and after[1] == before[1]  # the sweep does not depend on eta
    filled.ask(f"globals().update(direct=DDIMSampler(model.condition(7), schedule).sample((16, 1, 28, 28), 20, {eta}, generator=seeded(1)))")
    assert filled.ask("f'{sample_diversity(direct):.4f}'").strip("'") == dial.number("diversity")
    grid = "sheet([list(direct[i:i + 4]) for i in range(0, 16, 4)], '')"
    assert filled.ask(f"hashlib.md5({grid}.png).hexdigest()").strip("'") == after[0]
    assert dial.number("network calls (NFE)") == "20" and dial.number("noise / what belongs there") == "1.00×, at most 1.00×"


def test_the_keyboard_moves_eta_and_not_the_notebook_and_what_was_seen_comes_back_at_once(filled):
    dial = Page(filled, "The dial η")
    dial.press("η (eta)")
    eta, seen, active = dial.value("η (eta)"), dial.hashes(), filled.js("return window.jupyterapp.shell.currentWidget.content.activeCellIndex")
    dial.press("η (eta)", Keys.ARROW_RIGHT)
    filled.until(lambda: dial.value("η (eta)") == pytest.approx(eta + 0.05), 60)
    dial.done()
    assert dial.hashes()[0] != seen[0]
    dial.press("η (eta)", Keys.ARROW_LEFT)
    filled.until(lambda: dial.hashes() == seen, 60)
    assert dial.status() == "shown again; made before"
    assert filled.js("return window.jupyterapp.shell.currentWidget.content.activeCellIndex") == active


def test_every_control_is_reached_by_tab(filled):
    dial = Page(filled, "The dial η")
    filled.js("arguments[0].focus()", dial.control("sampler").find_element(By.CSS_SELECTOR, "select"))
    reached = []
    for _ in range(14):
        ActionChains(filled.browser).send_keys(Keys.TAB).perform()
        reached.append(filled.js("const e = document.activeElement, w = e.closest('.jupyter-widgets:has(> .widget-label), .widget-checkbox');"
                                 "return w ? w.innerText.trim() : ''"))
    assert {"η (eta)", "steps", "all 1000 steps", "spacing", "digit", "guidance", "seed"} <= {name.splitlines()[0] for name in reached if name}


def test_long_work_shows_progress_and_can_be_stopped(filled):
    dial = Page(filled, "The dial η")
    dial.element.find_element(By.CSS_SELECTOR, ".widget-checkbox input").click()
    filled.until(lambda: re.search(r"\d+ of 1000 network calls", dial.status()))
    assert dial.element.find_elements(By.CSS_SELECTOR, "progress")
    assert filled.ask("1 + 1") == "2"  # the kernel answers meanwhile
    dial.element.find_element(By.CSS_SELECTOR, ".dl-status button").click()
    filled.until(lambda: dial.status().startswith("Stopped"), 60)
    assert not dial.element.find_element(By.CSS_SELECTOR, ".dl-status button").is_enabled()
    dial.element.find_element(By.CSS_SELECTOR, ".widget-checkbox input").click()
    filled.until(lambda: dial.status() == "shown again; made before", 60)


def test_the_handouts_step_shows_its_inflation(filled):
    dial = Page(filled, "The dial η")
    dial.press("η (eta)", Keys.END)
    dial.control("sampler").find_element(By.CSS_SELECTOR, "option:nth-child(2)").click()
    dial.done()
    assert re.fullmatch(r"1\.[1-9]\d×, at most 1\.4\d×", dial.number("noise / what belongs there"))
    dial.control("sampler").find_element(By.CSS_SELECTOR, "option:nth-child(1)").click()
    dial.done()
    assert dial.number("noise / what belongs there") == "1.00×, at most 1.00×"


def test_the_forward_slider_moves_with_the_keyboard_and_agrees_with_the_forward_process(filled):
    page = Page(filled, "From clean to noise")
    before = page.hashes()
    page.press("t", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    filled.until(lambda: "t = 252" in page.captions()[0])
    page.done()
    assert all(new != old for new, old in zip(page.hashes(), before))
    assert page.number("√A, linear") == filled.ask("f'{float(schedule.alphas_cumprod[252])**0.5:.4f}'").strip("'")
    filled.ask("globals().update(clean=images[labels == 0][:1])")
    noisy = ("[clean, *(ForwardProcessImpl(s).add_noise(clean, 252, torch.randn(clean.shape, generator=seeded(1))) for s in "
             "(NoiseSchedule.linear(), NoiseSchedule.scaled_linear(), NoiseSchedule.cosine()))]")
    assert filled.ask(f"hashlib.md5(sheet([[each[0] for each in {noisy}]], '').png).hexdigest()").strip("'") == page.hashes()[0]


def test_points_are_followed_through_time_and_their_numbers_agree(filled):
    page = Page(filled, "Points on their way")
    page.press("steps", Keys.HOME, *[Keys.ARROW_RIGHT] * 4)
    page.done()
    assert page.value("steps") == 5
    filled.ask("exec('from scipy.stats import wasserstein_distance; ring = analytic.GaussianMixture.ring(schedule)')")
    distance = ("wasserstein_distance(DDIMSampler(ring, schedule).sample((300, 2), 5, 1.0, generator=seeded(1))[:, 0].numpy(), "
                "ring.sample_data(2000, seeded(0))[:, 0].numpy())")
    assert filled.ask(f"f'{{{distance}:.3f}}'").strip("'") == page.number("W₁ to truth, DDIM, η = 1")
    last = page.hashes()
    page.drag("time", -60)
    filled.until(lambda: page.number("t") != "clean" and page.hashes() != last)
    page.done()
    page.press("time", Keys.END)
    filled.until(lambda: page.hashes() == last, 60)


def test_a_drawn_schedule_makes_its_own_samples_and_the_run_over_all_steps_can_be_stopped(filled):
    page = Page(filled, "Where the steps fall")
    dots, samples = page.hashes()
    page.press("750+", Keys.ARROW_RIGHT)
    page.drag("875+", 0, -60)
    filled.until(lambda: "network calls" in page.status() and "all 1000" in page.status())
    new_dots, new_samples = page.hashes()
    assert new_dots != dots and new_samples != samples
    page.element.find_element(By.CSS_SELECTOR, ".dl-status button").click()
    filled.until(lambda: page.status().startswith("Stopped"), 60)
    handles = page.element.find_elements(By.CSS_SELECTOR, ".dl-bands .noUi-handle")
    bands = [round(float(handle.get_attribute("aria-valuenow"))) for handle in handles]
    filled.ask(f"exec('''from diffusionlab.explore.step_schedules import own_schedule\nddim = DDIMSampler(model.condition(3), schedule)\n"
               f"x_T = torch.randn(6, 1, 28, 28, generator=seeded(1))\n"
               f"kinds = [*(ddim.create_timestep_schedule(8, kind) for kind in (\"uniform\", \"trailing\", \"quadratic\")), own_schedule({bands}, 8, 1000)]\n"
               f"rows = [list(ddim.sample(x_T.shape, kind, x_T=x_T)) for kind in kinds]''')")
    assert filled.ask("hashlib.md5(sheet(rows, '').png).hexdigest()").strip("'") == new_samples


def test_a_measured_point_shows_its_samples_by_mouse_and_by_keyboard(filled):
    page = Page(filled, "Speed against quality")
    points = page.element.find_elements(By.CSS_SELECTOR, ".dl-buttons button")

    def shown() -> str:
        caption, = [each.text for each in page.element.find_elements(By.CSS_SELECTOR, ".dl-behind figcaption") if each.is_displayed()]
        return caption

    assert len(points) == 3 and shown() == points[0].get_attribute("aria-label")
    filled.js("arguments[0].scrollIntoView({block: 'center'})", points[1])
    points[1].click()
    assert shown() == points[1].get_attribute("aria-label") and shown().startswith("DDIM, η = 0, 4 steps: 4 network calls")
    ActionChains(filled.browser).move_to_element(points[2]).perform()
    filled.until(lambda: shown() == points[2].get_attribute("aria-label"), 60)  # pointing is enough
    ActionChains(filled.browser).move_by_offset(0, 150).perform()
    filled.until(lambda: shown() == points[1].get_attribute("aria-label"), 60)
    ActionChains(filled.browser).send_keys(Keys.TAB).perform()
    filled.until(lambda: shown() == points[2].get_attribute("aria-label"), 60)
    distance = filled.ask("f\"{quality(1.0, 2)['Fréchet distance']:.3g}\"").strip("'")
    assert shown().endswith(f"distance {distance}")


def test_a_dark_page_turns_the_ink_light_and_leaves_the_digits_alone(filled):
    def filters():
        return [filled.js("return getComputedStyle(arguments[0]).filter", filled.browser.find_element(By.CSS_SELECTOR, selector))
                for selector in (".dl-drawn img", ".dl-figure:not(.dl-drawn) img")]

    assert filters() == ["none", "none"]
    filled.command("apputils:change-theme", theme="JupyterLab Dark")
    filled.until(lambda: filters()[0].startswith("invert(1)"))
    assert filters()[1] == "none"
    filled.command("apputils:change-theme", theme="JupyterLab Light")
    filled.until(lambda: filters() == ["none", "none"])


@pytest.mark.parametrize("width, theme", [(1280, "JupyterLab Light"), (800, "JupyterLab Dark")])
def test_panels_fit_the_page(filled, width, theme):
    filled.browser.set_window_size(width, 1400)
    filled.command("apputils:change-theme", theme=theme)
    for panel in filled.panels():
        sticks_out = """const panel = arguments[0].getBoundingClientRect();
            return [...arguments[0].querySelectorAll("img, button, select, input, .slider-container, .dl-numbers, figcaption")]
                .filter(each => each.offsetParent && each.getBoundingClientRect().right > panel.right + 1).map(each => each.outerHTML.slice(0, 80))"""
        assert filled.js(sticks_out, panel) == []
    filled.browser.set_window_size(1280, 1400)
    filled.command("apputils:change-theme", theme="JupyterLab Light")


def test_the_still_is_hidden_beside_the_panel_and_stands_in_for_it_without_a_kernel(filled):
    def stills():
        return [each for each in filled.browser.find_elements(By.CSS_SELECTOR, ".jp-RenderedImage img") if each.is_displayed()]

    assert stills() == []
    filled.command("docmanager:save")
    saved = nbformat.read(filled.notebooks / "filled.ipynb", as_version=4)
    images = [output for cell in saved.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    assert len(images) == len(TITLES)
    nbformat.write(saved, filled.notebooks / "reopened.ipynb")
    filled.command("kernelmenu:shutdown")
    filled.browser.get(f"http://127.0.0.1:{filled.port}/doc/tree/reopened.ipynb?token=test&reset")
    filled.until(lambda: len(stills()) == len(TITLES))


def test_unwritten_classes_are_named_and_a_raising_one_is_quoted(lab):
    notebook = only_panels(student_notebook(instructor_notebook(Lab(ROOT, "lab5_sampling"))))
    raising = ("class Raising(DDIMSampler):\n    def create_timestep_schedule(self, num_steps, schedule_type='uniform'):\n"
               "        raise ValueError('my own trouble')\n\nexplore.eta(Raising)")
    notebook.cells.append(nbformat.v4.new_code_cell(raising))
    lab.open(notebook, "unfilled")
    lab.run_all()
    words = [each.text for each in lab.until(lambda: lab.browser.find_elements(By.CSS_SELECTOR, ".dl-message"))]
    assert [each.partition(". Write it")[0] for each in words[:5]] == [
        "Still to be written: ForwardProcessImpl.add_noise", *["Still to be written: DDIMSampler.create_timestep_schedule"] * 4]
    assert words[5].startswith("Your code raised ValueError in create_timestep_schedule, line 3 of its cell: my own trouble")
    assert any("still to be written" in text for text in lab.outputs())  # the chart of measurements, by the lesson's own frame
    assert not lab.browser.find_elements(By.CSS_SELECTOR, ".jp-RenderedText[data-mime-type*='error']")


def test_solvers_lead_points_and_a_draft_that_is_not_one_is_told(lab):
    notebook = only_panels(instructor_notebook(Lab(ROOT, "lab6_solvers")))
    notebook.cells.append(nbformat.v4.new_code_cell("explore.solvers({'draft': lambda denoise, x, num_steps, *, callback: 1 / 0})"))
    lab.open(notebook, "solvers")
    lab.run_all()
    page = Page(lab, "Solvers on their way")
    before = page.hashes()
    page.press("steps", Keys.HOME, *[Keys.ARROW_RIGHT] * 2)
    page.done()
    assert page.value("steps") == 5 and page.hashes() != before
    lab.ask("exec('from scipy.stats import wasserstein_distance; from diffusionlab.levels import Denoiser')")
    solved = ("solve_unipc(Denoiser(ring, schedule), torch.randn(300, 2, dtype=torch.float64, generator=seeded(1)), "
              'levels_at(schedule, create_timesteps(schedule, 5, "log-snr")))')
    distance = f"wasserstein_distance({solved}[:, 0].float().numpy(), ring.sample_data(2000, seeded(0))[:, 0].numpy())"
    assert page.number("W₁ to truth, UniPC") == lab.ask(f"f'{{{distance}:.3f}}, 5 calls'").strip("'")
    assert page.number("W₁ to truth, diffusers' UniPC").endswith(", 5 calls")
    last = page.hashes()
    page.drag("time", -60)
    lab.until(lambda: page.number("t") != "clean" and page.hashes() != last)
    page.press("time", Keys.END)
    lab.until(lambda: page.hashes() == last, 60)
    words = lab.panels()[-1].find_element(By.CSS_SELECTOR, ".dl-message").text
    assert words.startswith("Your code raised ZeroDivisionError")

import re
from base64 import b64decode
from io import BytesIO

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

matplotlib.use("agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402

from diffusionlab import datasets, plots  # noqa: E402


class Sampler:
    """A stand-in for a student's class, half written."""

    def step(self):
        raise NotImplementedError

    def sample(self):
        return [self.step() for _ in range(2)]


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """What was displayed, in a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIFFUSIONLAB_EXPECTED", raising=False)
    monkeypatch.delenv("NBGRADER_VALIDATING", raising=False)
    displayed = []
    monkeypatch.setattr(plots, "display", lambda bundle, raw=False: displayed.append(bundle))
    return displayed


def a_figure():
    return plots.image_grid(torch.zeros(4, 1, 8, 8))


def pictures(bundle):
    return [Image.open(BytesIO(b64decode(data))) for data in re.findall(r'base64,([^"]+)"', bundle["text/html"])]


def alternatives(bundle):
    return re.findall(r'<img alt="([^"]*)"', bundle["text/html"])


# --- figures --------------------------------------------------------------------------------------------------------

def sheet(figure):
    """The one image that a grid of images is put together from, and its labels."""
    ax, = figure.axes
    labels = [[text.get_text() for text in axis] for axis in (ax.get_xticklabels(), ax.get_yticklabels())]
    return ax.images[0].get_array(), *labels


def test_a_grid_holds_every_image_in_its_place():
    x = torch.rand(5, 1, 8, 6)
    image, titles, rows = sheet(plots.image_grid(x, columns=3, titles="abc", rows=["first", "second"]))
    assert image.shape == (2 * 8 + 2, 3 * 6 + 2 * 2) and titles == list("abc") and rows == ["first", "second"]
    assert torch.equal(torch.as_tensor(image[10:, 8:14]), x[4, 0].double())
    assert (image[8:10] == 1).all() and (image[10:, 16:] == 1).all()  # gaps and the empty place are white


def test_images_are_drawn_with_black_at_minus_one_and_white_at_one():
    image = plots.image_grid(torch.tensor([-5.0, -1.0, 1.0, 5.0]).reshape(1, 1, 2, 2)).axes[0].images[0]
    assert image.get_clim() == (-1, 1) and image.get_array().ravel().tolist() == [-1, -1, 1, 1]


def test_color_images_are_brought_to_the_range_of_colors():
    image, *_ = sheet(plots.image_grid(torch.tensor([-2.0, -1.0, 0.0, 3.0]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)))
    assert image[..., 0].ravel().tolist() == [0, 0, 0.5, 1]


def test_every_pixel_is_a_whole_number_of_screen_pixels():
    x = torch.where(torch.arange(784).reshape(1, 1, 28, 28) % 2 == 0, -1.0, 1.0)
    screen = np.asarray(Image.open(BytesIO(plots.to_png(plots.image_grid(x, columns=1)))).convert("L"))
    assert set(screen.ravel()) == {0, 255} and (screen == 0).sum() == screen.size // 2


def forward_trajectory(trajectory, timesteps):
    """The figure that `plots.forward_trajectory` shows."""
    return plots._figure_of(lambda: plots.forward_trajectory(trajectory, timesteps))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_trajectory_of_images_has_a_column_for_each_timestep_and_at_most_four_rows(channels):
    image, titles, _ = sheet(forward_trajectory(torch.rand(3, 5, channels, 8, 8), [0, 10, 20]))
    assert image.shape[:2] == (4 * 10 - 2, 3 * 10 - 2) and titles == ["t = 0", "t = 10", "t = 20"]


@pytest.mark.parametrize("sample", [(2,), (4, 50), (50,)], ids=str)
def test_a_trajectory_of_points_or_signals_can_be_drawn(sample):
    figure = forward_trajectory(torch.rand(3, 5, *sample), [0, 10, 20])
    assert len(figure.axes) == 4 * 3 and all(ax.lines or ax.collections for ax in figure.axes)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["t = 0", "t = 10", "t = 20"]


def test_points_that_are_no_images_have_their_rows_named_too():
    figure = plots.noise_predictions([tuple(torch.rand(5, 1, 2)) for _ in range(2)], [7, 300])
    assert [ax.get_ylabel() for ax in figure.axes[::5]] == ["t = 7", "t = 300"]


def test_noise_predictions_have_a_row_for_each_timestep():
    image, titles, rows = sheet(plots.noise_predictions([tuple(torch.rand(5, 1, 1, 8, 8)) for _ in range(3)], [1, 2, 3]))
    assert image.shape == (3 * 10 - 2, 5 * 10 - 2) and len(titles) == 5 and rows == ["t = 1", "t = 2", "t = 3"]


def test_curves_differ_by_more_than_color():
    ax = plots.curves({name: ([1, 2, 3], torch.rand(3)) for name in "abcd"}, "x", "y").axes[0]
    styles = {(line.get_marker(), line.get_linestyle()) for line in ax.lines}
    assert len(styles) == 4 and [text.get_text() for text in ax.get_legend().get_texts()] == list("abcd")


def test_the_noise_floor_is_a_band_of_two_standard_deviations_to_each_side():
    ax = plots.curves({"a": ([1, 2], [5.0, 6.0])}, "x", "y", floor=(2.0, 0.5)).axes[0]
    assert (ax.patches[0].get_y(), ax.patches[0].get_height()) == (1.0, 2.0)


def test_a_logarithmic_axis_of_few_powers_of_ten_has_round_numbers():
    ax = plots.curves({"a": ([1, 2], [55.0, 124.0])}, "x", "y", logy=True).axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["60", "80", "100"]
    ax = plots.curves({"a": ([1, 2], [5.0, 124.0])}, "x", "y", logy=True).axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["5", "10", "20", "50", "100"]
    wide = plots.curves({"a": ([1, 2], [1e-6, 1.0])}, "x", "y", logy=True).axes[0]
    assert len(wide.get_yticks()) > 3


def test_a_logarithmic_axis_is_labelled_with_the_values_themselves():
    ax = plots.curves({"a": ([10, 50], [1, 2]), "b": ([10, 20], [1, 2])}, "steps", "y", logx=True).axes[0]
    assert ax.get_xscale() == "log" and [text.get_text() for text in ax.get_xticklabels()] == ["10", "20", "50"]


@pytest.mark.parametrize("figure", [
    lambda: plots.image_grid(torch.zeros(3, 1, 4, 4)),
    lambda: plots.filmstrip(torch.zeros(3, 2, 1, 4, 4)),
    lambda: forward_trajectory(torch.zeros(3, 2, 1, 4, 4), [0, 1, 2]),
    lambda: plots.noise_predictions([tuple(torch.zeros(5, 1, 1, 4, 4))], [0]),
    lambda: plots.points({"data": torch.zeros(5, 2)}),
    lambda: plots.point_paths({"eta = 0": torch.zeros(3, 4, 2)}, torch.zeros(5, 2)),
    lambda: plots.curves({"a": ([1], [2])}, "x", "y"),
    lambda: plots.curve_panels({"named": {"a": ([1], [2])}, "xlabel": "x", "ylabel": "y"}),
    lambda: plots.schedules({"uniform": [9, 5, 0]}),
], ids="image_grid filmstrip forward_trajectory noise_predictions points point_paths curves curve_panels schedules".split())
def test_every_figure_has_an_alternative_text_and_leaves_pyplot_alone(figure):
    assert figure().get_label() and plt.get_fignums() == []


def test_a_figure_becomes_a_small_png():
    noise = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    png = plots.to_png(plots.image_grid(noise))
    assert png.startswith(b"\x89PNG") and len(png) < 60_000


def test_a_table_shows_three_digits_and_escapes_html():
    table = plots.Table([{"name": "<b>", "seconds": 1.23456}, {"name": "c", "seconds": 20.0}])
    assert "&lt;b&gt;" in table._repr_html_() and "<td>1.23</td>" in table._repr_html_()
    assert repr(table).splitlines() == ["name  seconds", " <b>     1.23", "   c       20"]


# --- yours beside the expected --------------------------------------------------------------------------------------

def test_your_picture_stands_before_the_expected_one(shown, tmp_path):
    (tmp_path / "expected").mkdir()
    (tmp_path / "expected" / "digits.png").write_bytes(plots.to_png(plots.image_grid(torch.ones(1, 1, 8, 8))))

    @plots.beside_expected("digits")
    def _():
        """Ten digits"""
        return a_figure()

    assert alternatives(shown[0]) == ["Yours: Ten digits", "Expected: Ten digits"] and len(pictures(shown[0])) == 2
    assert shown[0]["text/plain"] == "[picture: Ten digits]"


def test_without_an_expected_picture_yours_stands_alone(shown):
    plots.beside_expected("digits")(a_figure)
    assert len(pictures(shown[0])) == 1


def test_an_empty_frame_names_the_innermost_stub(shown, tmp_path):
    (tmp_path / "expected").mkdir()
    (tmp_path / "expected" / "digits.png").write_bytes(plots.to_png(a_figure()))
    plots.beside_expected("digits")(lambda: Sampler().sample())
    assert "<code>Sampler.step</code>" in shown[0]["text/html"] and len(pictures(shown[0])) == 1
    assert shown[0]["text/plain"] == "still to be written: Sampler.step"


def test_other_errors_are_the_readers_to_see(shown):
    def broken():
        raise ValueError("eta must be positive")

    def unsupported():
        raise NotImplementedError("no such operator on this device")

    for function, error in ((broken, ValueError), (unsupported, NotImplementedError)):
        with pytest.raises(error):
            plots.beside_expected("digits")(function)
        with pytest.raises(error):
            plots.when_written(function)
    assert shown == []


def test_a_figure_that_is_shown_on_the_way_counts_and_is_not_shown_twice(shown, monkeypatch):
    monkeypatch.setattr(plots, "get_ipython", object)

    def draws():
        plots.forward_trajectory(torch.zeros(2, 1, 1, 8, 8), [0, 1])

    plots.beside_expected("trajectory")(draws)
    assert len(shown) == 1 and len(pictures(shown[0])) == 1
    draws()  # on its own it shows itself
    assert len(shown) == 2 and "2 noise levels" in shown[1]["text/html"]


def test_outside_of_jupyter_nothing_is_shown(shown):
    plots.forward_trajectory(torch.zeros(2, 1, 1, 8, 8), [0, 1])
    assert shown == []


def test_a_figure_made_with_pyplot_is_taken_and_closed(shown):
    plots.beside_expected("curve")(lambda: plt.plot([1, 2]) and None)
    assert len(pictures(shown[0])) == 1 and plt.get_fignums() == []


def test_a_function_without_a_figure_is_told_so(shown):
    with pytest.raises(ValueError, match="neither returned nor showed"):
        plots.beside_expected("digits")(lambda: None)


def test_the_author_saves_what_students_can_expect(shown, monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFUSIONLAB_EXPECTED", str(tmp_path / "new" / "expected"))
    plots.beside_expected("digits")(a_figure)
    plots.beside_expected("missing")(lambda: Sampler().sample())
    assert [path.name for path in (tmp_path / "new" / "expected").iterdir()] == ["digits.png"]
    assert Image.open(tmp_path / "new" / "expected" / "digits.png").size == pictures(shown[0])[0].size


def test_when_written_shows_a_result_or_the_missing_stub(shown):
    plots.when_written(lambda: "a result")
    plots.when_written(lambda: None)
    plots.when_written(lambda: Sampler().sample())
    assert shown[0] == "a result" and shown[1]["text/plain"] == "still to be written: Sampler.step" and len(shown) == 2


def test_under_validate_pictures_and_measurements_take_no_time(shown, monkeypatch):
    monkeypatch.setenv("NBGRADER_VALIDATING", "1")
    called = []
    plots.beside_expected("digits")(lambda: called.append(1))
    plots.when_written(lambda: called.append(1))
    assert called == [] and shown == []


def test_long_titles_of_narrow_columns_do_not_touch():
    figure = plots.image_grid(torch.zeros(10, 3, 32, 32), columns=10, titles=datasets.CLASSES["cifar10"])
    FigureCanvasAgg(figure).draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert len(boxes) == 10 and all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:]))

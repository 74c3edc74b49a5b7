"""Figures of the course, and the device that shows yours beside the expected one.

The functions return matplotlib Figures (one shows its own); a figure's label is its alternative text. Colours are Okabe
and Ito's, which colour-blind readers can tell apart; curves differ by marker and line as well.
"""

from __future__ import annotations

import html
import math
import os
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from IPython import get_ipython
from IPython.display import display
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from .asking import where

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "os^Dv*P"
_LINES = ("-", "--", "-.", ":")
_DPI = 110
_WIDTH = 6.4  # inches; the picture has about half a notebook's width once it stands beside the expected one

_catching: list[list[Figure]] = []

if get_ipython() is not None:
    # Figures made without pyplot are shown as pictures, too, when they end a cell.
    get_ipython().display_formatter.formatters["image/png"].for_type(Figure, lambda figure: to_png(figure))


# --- images and signals ---------------------------------------------------------------------------------------------

def image_grid(x: Tensor, columns: int | None = None, titles: Sequence = (), rows: Sequence = ()) -> Figure:
    """Images in rows and columns.

    Args:
        x: [B, C, H, W], pixels in [-1, 1]; what lies outside is clipped for the eye.
        columns: how many in a row; None for at most 10.
        titles: a title for each column.
        rows: a label for each row.
    """
    columns = columns or min(len(x), 10)
    return _sheet([list(x[i:i + columns]) for i in range(0, len(x), columns)], titles, rows, f"A grid of {len(x)} images")


def forward_trajectory(trajectory: Tensor, timesteps: Sequence[int]) -> None:
    """Draw, and show at once, how samples drown in noise: a row for each sample (at most 4), a column for each timestep.

    Args:
        trajectory: [K, B, ...]; images [C, H, W], points [2] or signals.
        timesteps: the K noise levels.
    """
    figure = filmstrip(trajectory, [f"t = {int(t)}" for t in timesteps])
    figure.set_label(f"Samples at {len(timesteps)} noise levels, from clean to pure noise")
    show(figure)


def filmstrip(trajectory: Tensor, titles: Sequence = ()) -> Figure:
    """Stages of samples in the making: [K, B, ...] as a row for each sample (at most 4), a column for each stage."""
    figure = _sheet([list(trajectory[:, b]) for b in range(min(trajectory.shape[1], 4))], titles)
    figure.set_label(f"{len(trajectory)} stages of the samples, from left to right")
    return figure


def noise_predictions(rows: Sequence[tuple[Tensor, ...]], timesteps: Sequence[int]) -> Figure:
    """One row for each timestep: clean, noisy, true noise, predicted noise, implied clean image.

    Args:
        rows: K tuples of five tensors [1, ...], in that order.
        timesteps: the K noise levels.
    """
    heads = ("clean", "noisy", "true noise", "predicted", "implied $x_0$")
    figure = _sheet([[image[0] for image in row] for row in rows], heads, [f"t = {int(t)}" for t in timesteps])
    figure.set_label("Clean image, noisy image, true noise, predicted noise and implied clean image by noise level")
    return figure


# --- points in the plane --------------------------------------------------------------------------------------------

def points(clouds: Mapping[str, Tensor]) -> Figure:
    """Clouds of points [N, 2] side by side, on the same axes."""
    figure, axes = _axes(1, len(clouds), height=_WIDTH / max(len(clouds), 2))
    for ax, (name, cloud), color in zip(axes[0], clouds.items(), COLORS):
        ax.scatter(*_numpy(cloud).T, s=4, color=color, alpha=0.6, linewidths=0)
        ax.set(title=name, aspect="equal", xlim=(-1.6, 1.6), ylim=(-1.6, 1.6))
    figure.set_label("Points in the plane: " + ", ".join(clouds))
    return figure


def point_paths(paths: Mapping[str, Tensor], data: Tensor) -> Figure:
    """Paths of points from noise to data, a panel for each name; where steps are few, each is marked.

    Args:
        paths: trajectories [K, B, 2], noise first.
        data: points [N, 2] of the data, drawn in grey.
    """
    figure, axes = _axes(1, len(paths), height=_WIDTH / max(len(paths), 2) + 0.45)
    arrays = {name: _numpy(path) for name, path in paths.items()}
    edge = 1.05 * max(np.abs(each).max() for each in (*arrays.values(), _numpy(data))) or 1.0
    for ax, (name, path), color in zip(axes[0], arrays.items(), COLORS):
        ax.scatter(*_numpy(data).T, s=3, color="0.8", linewidths=0)
        ax.plot(path[..., 0], path[..., 1], color=color, linewidth=0.6, alpha=0.6, marker="." if len(path) <= 30 else None, markersize=3)
        ax.scatter(*path[0].T, s=12, facecolors="none", edgecolors=color, label="start")
        ax.scatter(*path[-1].T, s=14, color=color, label="end")
        ax.set(title=name, aspect="equal", xlim=(-edge, edge), ylim=(-edge, edge))
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.set_label("Paths from noise to data: " + ", ".join(paths))
    return figure


# --- curves and tables ----------------------------------------------------------------------------------------------

def curves(named: Mapping[str, tuple], xlabel: str, ylabel: str, *, logx: bool = False, logy: bool = False,
           floor: tuple[float, float] | None = None, point_labels: Mapping[str, Sequence] | None = None) -> Figure:
    """Curves on common axes, each with a colour, a marker and a line of its own.

    Args:
        named: name -> (x values, y values).
        xlabel, ylabel: what the axes measure, with units.
        logx, logy: logarithmic axes.
        floor: (mean, standard deviation) of a noise floor, drawn as a grey band of two deviations to each side.
        point_labels: name -> a short text at each point of that curve.
    """
    figure, axes = _axes(1, 1, height=3.8)
    _curves(axes[0][0], named, xlabel, ylabel, logx, logy, floor, point_labels)
    figure.set_label(f"{ylabel} against {xlabel}: " + ", ".join(named))
    return figure


def curve_panels(*panels: Mapping) -> Figure:
    """Several `curves` side by side; each panel is a dict of their arguments."""
    figure, axes = _axes(1, len(panels), height=3.4)
    for ax, panel in zip(axes[0], panels):
        _curves(ax, **panel)
    figure.set_label("; ".join(f"{panel['ylabel']} against {panel['xlabel']}" for panel in panels))
    return figure


def schedules(named: Mapping[str, Sequence[int]]) -> Figure:
    """Timestep schedules as dots on the axis of t, a line for each."""
    figure, axes = _axes(1, 1, height=0.7 + 0.5 * len(named))
    ax = axes[0][0]
    for row, ((name, steps), color, marker) in enumerate(zip(named.items(), COLORS, _MARKERS)):
        ax.plot([int(t) for t in steps], [row] * len(steps), color=color, marker=marker, linewidth=0.5, markersize=5)
    ax.set(yticks=range(len(named)), yticklabels=list(named), xlabel="timestep t, from noise (left) to data (right)")
    ax.invert_xaxis()
    ax.set_ylim(len(named) - 0.5, -0.5)
    figure.set_label("Where timesteps lie: " + ", ".join(named))
    return figure


class Table:
    """A small table of measurements: HTML in a notebook, aligned text elsewhere.

    Args:
        records: a dict for each row, all with the same keys, which are the headings; floats are shown with 3 digits.
    """

    def __init__(self, records: Sequence[Mapping]):
        self.heads = [str(head) for head in records[0]]
        self.rows = [[f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in each.values()] for each in records]
        # Numbers end where numbers end, and sentences begin where sentences begin.
        self.wordy = [any(len(row[i]) > 30 for row in self.rows) for i in range(len(self.heads))]

    def _repr_html_(self) -> str:
        def line(cells, tag):
            styles = (' style="text-align:left"' if wordy else "" for wordy in self.wordy)
            return "<tr>" + "".join(f"<{tag}{style}>{html.escape(cell)}</{tag}>" for cell, style in zip(cells, styles)) + "</tr>"
        body = "".join(line(row, "td") for row in self.rows)
        return f"<table><thead>{line(self.heads, 'th')}</thead><tbody>{body}</tbody></table>"

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.heads, *self.rows)]
        lines = [self.heads, *self.rows]
        return "\n".join("  ".join(cell.ljust(width) if wordy else cell.rjust(width)
                                   for cell, width, wordy in zip(line, widths, self.wordy)).rstrip() for line in lines)


# --- yours beside the expected --------------------------------------------------------------------------------------

def beside_expected(name: str, *, bet: bool = False) -> Callable[[Callable[[], Figure | None]], None]:
    """Run the decorated function at once and show its figure beside the expected picture, `expected/<name>.png`.

    The function returns a Figure, or shows one. Its docstring describes the picture: it is the alternative text. Where a
    stub is still missing, an empty frame names the method to write; every other exception is the reader's to see. If the
    environment variable DIFFUSIONLAB_EXPECTED names a folder, the figure is saved there as the new expected picture. Where readers
    are to `bet` first, the expected picture is shown beside theirs only.
    """
    def run(function: Callable[[], Figure | None]) -> None:
        if validating():
            return
        caption = " ".join((function.__doc__ or name).split())
        missing = None
        try:
            figure = _figure_of(function)
        except NotImplementedError as error:
            missing = missing_method(error)
            yours = _frame("yours", _note(missing))
        else:
            png = to_png(figure)
            yours = _frame("yours", _image(png, f"Yours: {caption}"))
            if folder := os.environ.get("DIFFUSIONLAB_EXPECTED"):
                Path(folder).mkdir(parents=True, exist_ok=True)
                (Path(folder) / f"{name}.png").write_bytes(png)
        expected = Path("expected") / f"{name}.png"
        frames = yours
        if expected.is_file() and not (bet and missing):
            frames += _frame("expected", _image(expected.read_bytes(), f"Expected: {caption}"))
        _display(f'<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">{frames}</div>'
                 f'<p style="margin:0.3em 0;font-size:90%">{html.escape(caption)}</p>',
                 f"[picture: {caption}]" if missing is None else f"still to be written: {missing}")
    return run


def when_written(function: Callable[[], object]) -> None:
    """Run the decorated function at once and display its result; where a stub is still missing, say which."""
    if validating():
        return
    try:
        result = function()
    except NotImplementedError as error:
        missing = missing_method(error)
        frame = _frame("", _note(missing, height="2em"))
        _display(f'<div style="display:flex">{frame}</div>', f"still to be written: {missing}")
    else:
        if result is not None:
            display(result)


def validating() -> bool:
    """Whether nbgrader's Validate runs the notebook."""
    # nbgrader's Validate asks about the checks alone, and stops a cell after 30 seconds.
    return "NBGRADER_VALIDATING" in os.environ


def show(figure: Figure) -> None:
    """Display a figure now, or leave it to the `beside_expected` that is running. Outside of Jupyter nothing happens."""
    if _catching:
        _catching[-1].append(figure)
    elif get_ipython() is not None:
        png = to_png(figure)
        _display(_image(png, figure.get_label()), f"[picture: {figure.get_label()}]")


def to_png(figure: Figure, colors: int | None = None) -> bytes:
    """The figure as a small PNG with a palette of so many colours; None for 64, enough for grey digits and a few curves, or 256 for photographs."""
    if colors is None:
        colors = 256 if any(image.get_array().ndim == 3 for ax in figure.axes for image in ax.images) else 64
    buffer, small = BytesIO(), BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white")
    plt.close(figure)  # a figure made with pyplot would be shown a second time at the end of the cell
    Image.open(buffer).convert("RGB").quantize(colors).save(small, "png", optimize=True)
    return small.getvalue()


def _figure_of(function: Callable[[], Figure | None]) -> Figure:
    """The figure that a function returns, or else the last that it showed, pyplot's included."""
    before = set(plt.get_fignums())
    _catching.append([])
    try:
        returned = function()
    finally:
        shown = _catching.pop()
    shown += [plt.figure(number) for number in plt.get_fignums() if number not in before]
    if returned is None and not shown:
        raise ValueError("this cell's function neither returned nor showed a figure")
    return shown[-1] if returned is None else returned


def missing_method(error: NotImplementedError) -> str:
    """The method whose stub raised; an error with a message is no stub's, and is raised again."""
    if error.args:
        raise error
    return where(error)


def _display(as_html: str, as_text: str) -> None:
    display({"text/html": as_html, "text/plain": as_text}, raw=True)


def _frame(heading: str, content: str) -> str:
    return ('<figure style="flex:1 1 480px;max-width:640px;margin:0">'
            f'<figcaption style="font-weight:600">{heading}</figcaption>{content}</figure>')


def _image(png: bytes, alt: str) -> str:
    return (f'<img alt="{html.escape(alt)}" style="width:100%;max-width:640px" '
            f'src="data:image/png;base64,{b64encode(png).decode()}">')


def _note(missing: str, height: str = "9em") -> str:
    return (f'<div style="border:2px dashed #888;border-radius:6px;min-height:{height};display:flex;align-items:center;'
            f'justify-content:center;padding:1em"><span>still to be written: <code>{html.escape(missing)}</code></span></div>')


def round_numbers(low: float, high: float, steps: Sequence[float] = (1, 2, 5)) -> list[float]:
    """Such multiples of powers of ten, from below low to above high."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**e for e in exponents for m in steps]


# --- drawing --------------------------------------------------------------------------------------------------------

def _numpy(x) -> np.ndarray:
    return torch.as_tensor(x).detach().double().cpu().numpy()


def _axes(rows: int, columns: int, height: float) -> tuple[Figure, list[list[Axes]]]:
    # Not by pyplot: its open figures would be shown a second time, and warned of when they become many.
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _sheet(grid: Sequence[Sequence[Tensor]], titles: Sequence = (), rows: Sequence = (), label: str = "") -> Figure:
    """A sheet of small pictures, one for each sample in a grid of samples."""
    sample = grid[0][0]
    figure = _images(grid, titles, rows) if sample.ndim == 3 and sample.shape[0] in (1, 3) else _panels(grid, titles, rows)
    figure.set_label(label)
    return figure


def _images(grid: Sequence[Sequence[Tensor]], titles: Sequence, rows: Sequence, gap: int = 2) -> Figure:
    """Images [C, H, W] put together into one, each pixel a whole number of screen pixels: sharp, quick and small."""
    C, H, W = grid[0][0].shape
    columns = max(map(len, grid))
    height, width = len(grid) * (H + gap) - gap, columns * (W + gap) - gap
    sheet = np.ones((height, width, C))
    for r, row in enumerate(grid):
        for c, image in enumerate(row):
            top, left = r * (H + gap), c * (W + gap)
            sheet[top:top + H, left:left + W] = _numpy(image).transpose(1, 2, 0).clip(-1, 1)
    scale = max(1, round(_DPI * _WIDTH / max(width, 4 * W)))
    margin = 10 + 11 * max(len(str(row)) for row in rows) if len(rows) else 0  # pixels; at this size of type a capital takes 11
    head = 25 if len(titles) else 0
    total = scale * width + margin, scale * height + head
    figure = Figure(figsize=(total[0] / _DPI, total[1] / _DPI), dpi=_DPI)
    ax = figure.add_axes((margin / total[0], 0, scale * width / total[0], scale * height / total[1]))
    sheet = sheet[..., 0] if C == 1 else (sheet + 1) / 2
    ax.imshow(sheet, cmap="gray", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    longest = max((len(str(title)) for title in titles), default=0)
    fits = scale * (W + gap) / max(longest, 1)  # so that neighbours do not touch: a letter is hardly wider than its points in pixels
    ax.set_xticks([c * (W + gap) + W / 2 for c in range(len(titles))], titles, fontsize=min(9, fits))
    ax.set_yticks([r * (H + gap) + H / 2 for r in range(len(rows))], rows, fontsize=9)
    ax.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False, length=0)
    ax.spines[:].set_visible(False)
    return figure


def _panels(grid: Sequence[Sequence[Tensor]], titles: Sequence, rows: Sequence) -> Figure:
    """Samples that are no images, each on axes of its own: a point [2], or signals, a line for each channel."""
    figure, axes = _axes(len(grid), len(grid[0]), height=_WIDTH * len(grid) / max(len(grid[0]), 4))
    for r, row in enumerate(grid):
        if r < len(rows):
            axes[r][0].set_ylabel(rows[r], fontsize=9)
        for c, (ax, sample) in enumerate(zip(axes[r], row)):
            ax.set(xticks=[], yticks=[])
            if tuple(sample.shape) == (2,):
                ax.scatter(*_numpy(sample)[:, None], s=12, color=COLORS[0])
                ax.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
            else:
                ax.plot(_numpy(sample).reshape(-1, sample.shape[-1]).T, linewidth=0.8)
            if r == 0 and c < len(titles):
                ax.set_title(titles[c], fontsize=9)
    return figure


def _curves(ax: Axes, named, xlabel, ylabel, logx=False, logy=False, floor=None, point_labels=None) -> None:
    for i, (name, (x, y)) in enumerate(named.items()):
        x, y = _numpy(x), _numpy(y)
        ax.plot(x, y, label=name, color=COLORS[i % len(COLORS)], linestyle=_LINES[i % len(_LINES)],
                marker=_MARKERS[i % len(_MARKERS)] if len(x) <= 30 else None, markersize=5)
        for text, px, py in zip((point_labels or {}).get(name, ()), x, y):
            ax.annotate(str(text), (px, py), xytext=(5, 5), textcoords="offset points", fontsize=8)
    if floor is not None:
        mean, std = floor
        ax.axhspan(max(mean - 2 * std, mean / 10), mean + 2 * std, color="0.85", label="noise floor, two spreads to each side")
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if logx else "linear", yscale="log" if logy else "linear")
    if logx:  # the values themselves read better than powers of ten
        values = sorted({float(value) for x, _ in named.values() for value in x})
        ax.set_xticks(values, [f"{value:.3g}" for value in values])
        ax.xaxis.minorticks_off()
    low, high = ax.get_ylim()
    if logy and high < 200 * low:  # hardly two powers of ten would be marked
        steps = (1, 1.5, 2, 3, 4, 5, 6, 8) if high < 8 * low else (1, 2, 5)
        ticks = [tick for tick in round_numbers(low, high, steps) if low <= tick <= high]
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.yaxis.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)

"""Pictures for panels: sheets of images and charts, each as HTML for the page and as pixels for a page without a kernel."""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..plots import COLORS

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = COLORS
GREY = "#8c8c8c"
_DPI = 160  # a panel's drawing is shown at about a hundred


@dataclass(frozen=True)
class Picture:
    """A picture with its words.

    Attributes:
        png: the pixels; transparent where nothing is drawn.
        alt: what a reader who does not see it is told.
        caption: a line above it.
        columns, rows: labels along its upper and its left edge, evenly spaced.
        drawn: whether it is a drawing in dark ink, to be turned light on a dark page; a photograph is not.
    """

    png: bytes
    alt: str
    caption: str = ""
    columns: Sequence[str] = field(default=())
    rows: Sequence[str] = field(default=())
    drawn: bool = False

    def to_html(self) -> str:
        """The picture as a <figure>, to be styled by the panel's style sheet."""
        def labels(kind, texts):
            return f'<div class="dl-{kind}">' + "".join(f"<span>{html.escape(text)}</span>" for text in texts) + "</div>"
        return (f'<figure class="dl-figure{" dl-drawn" if self.drawn else ""}">'
                f'<figcaption>{html.escape(self.caption)}</figcaption>'
                f'{labels("columns", self.columns) if self.columns else ""}{labels("rows", self.rows) if self.rows else ""}'
                f'<img alt="{html.escape(self.alt)}" src="data:image/png;base64,{b64encode(self.png).decode()}"></figure>')

    def to_image(self, width: int) -> Image.Image:
        """The same on white paper, `width` pixels wide, with its words drawn in."""
        font, bold = _font(20), _font(22, bold=True)
        left = 14 + max((round(font.getlength(row)) for row in self.rows), default=-14)
        top = (38 if self.caption else 0) + (30 if self.columns else 0)
        picture = Image.open(BytesIO(self.png)).convert("RGBA")
        size = width - left, round((width - left) * picture.height / picture.width)
        picture = picture.resize(size, Image.Resampling.LANCZOS if self.drawn else Image.Resampling.NEAREST)
        paper = Image.new("RGB", (width, top + picture.height), "white")
        paper.paste(picture, (left, top), picture)
        pen = ImageDraw.Draw(paper)
        pen.text((left, 4), self.caption, "black", bold)
        for i, text in enumerate(self.columns):
            pen.text((left + (i + 0.5) * size[0] / len(self.columns), top - 4), text, "black", font, anchor="ms")
        for i, text in enumerate(self.rows):
            pen.text((left - 12, top + (i + 0.5) * size[1] / len(self.rows)), text, "black", font, anchor="rm")
        return paper


def sheet(grid: Sequence[Sequence[Tensor]], alt: str, caption: str = "", columns: Sequence = (), rows: Sequence = (),
          gap: int = 1) -> Picture:
    """Images [C, H, W] with pixels in [-1, 1], in rows and columns, one pixel for a pixel; the page enlarges them."""
    C, H, W = grid[0][0].shape
    count = max(map(len, grid))
    pixels = np.zeros((len(grid) * (H + gap) - gap, count * (W + gap) - gap, 4), np.uint8)
    for r, row in enumerate(grid):
        for c, image in enumerate(row):
            levels = ((image.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
            place = pixels[r * (H + gap):r * (H + gap) + H, c * (W + gap):c * (W + gap) + W]
            place[..., :3], place[..., 3] = levels, 255
    return Picture(_png(Image.fromarray(pixels)), alt, caption, tuple(map(str, columns)), tuple(map(str, rows)))


def axes(width: float, height: float, columns: int = 1, rows: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """A figure (inches) without pyplot, whose state threads would share, and its axes [rows, columns], plainly styled."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **options)
    for ax in panels.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
        ax.set_facecolor("none")
    return figure, panels


def curve(ax: Axes, x, y, name: str, color: str, line: str = "-", marker: str = "", **options) -> None:
    """A curve with a name; it has dots where it has few points."""
    ax.plot(x, y, line, color=color, label=name, marker=marker if len(x) <= 30 else "", markersize=4, linewidth=1.6, **options)


def chart(figure: Figure, alt: str, caption: str = "") -> Picture:
    """A figure as a transparent drawing."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return Picture(buffer.getvalue(), alt, caption, drawn=True)


class Drawing:
    """A figure that is drawn once, and then drawn into again and again, quickly enough for a slider.

    Args:
        figure: its axes are numbered in the order of their making.
        caption: the line above it.
    """

    def __init__(self, figure: Figure, caption: str = ""):
        self.caption, buffer = caption, BytesIO()
        figure.savefig(buffer, format="png", transparent=True)
        self._blank = Image.open(buffer).convert("RGBA")
        self._transforms = [ax.transData for ax in figure.axes]
        self.image = self._blank.copy()

    def clear(self) -> None:
        """Back to the figure as it was drawn."""
        self.image = self._blank.copy()

    def layer(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        """A transparent layer and a pen for it, to be put on the image by `image.alpha_composite(layer)`."""
        layer = Image.new("RGBA", self.image.size)
        return layer, ImageDraw.Draw(layer)

    def place(self, ax: int, points: np.ndarray) -> np.ndarray:
        """The pixels [..., 2] of points [..., 2] on an axis."""
        points = np.asarray(points, dtype=float)
        pixels = self._transforms[ax].transform(points.reshape(-1, 2)).reshape(points.shape)
        return np.stack([pixels[..., 0], self.image.height - pixels[..., 1]], axis=-1)

    def mark(self, ax: int, x: float, low: float, high: float) -> None:
        """A line at x, from low to high."""
        ImageDraw.Draw(self.image).line([tuple(each) for each in self.place(ax, [(x, low), (x, high)])], (0, 0, 0, 255), width=3)

    def picture(self, alt: str, columns: Sequence[str] = ()) -> Picture:
        """What it shows now."""
        return Picture(_png(self.image), alt, self.caption, tuple(columns), drawn=True)


def still(pictures: Sequence[Picture], numbers: Sequence[str] = (), width: int = 1280) -> bytes:
    """All pictures of a panel on one sheet of white paper, two in a row, as PNG; a wide or a lone one has a row of its own.

    Below stand the numbers, as many in a line as fit.
    """
    margin, font = 24, _font(20)
    half, images, row = (width - 3 * margin) // 2, [], []
    for picture in pictures:
        w, h = Image.open(BytesIO(picture.png)).size
        if w > 2.2 * h or len(pictures) == 1:
            images += [row, [picture.to_image(width - 2 * margin)]]
            row = []
        else:
            row.append(picture.to_image(half))
            if len(row) == 2:
                images.append(row)
                row = []
    images = [each for each in [*images, row] if each]
    lines: list[str] = []
    for number in numbers:
        longer = f"{lines[-1]}     {number}" if lines else number
        if lines and font.getlength(longer) <= width - 2 * margin:
            lines[-1] = longer
        else:
            lines.append(number)
    height = sum(max(image.height for image in row) + margin for row in images) + margin + 28 * len(lines) + (16 if lines else 0)
    paper = Image.new("RGB", (width, height), "white")
    y = margin
    for row in images:
        for i, image in enumerate(row):
            paper.paste(image, (margin + i * (half + margin), y))
        y += max(image.height for image in row) + margin
    for i, line in enumerate(lines):
        ImageDraw.Draw(paper).text((margin, y + 28 * i), line, "black", font)
    return _png(paper.quantize(256, dither=Image.Dither.NONE))


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "png", compress_level=3)  # half the time of the usual level, and hardly larger
    return buffer.getvalue()

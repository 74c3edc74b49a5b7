"""What was measured, as points of time and quality, with the samples behind each."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import count

import ipywidgets as widgets

from ..plots import round_numbers, validating
from .paint import BLUE, COLORS, VERMILION, Drawing, Picture, axes, sheet, still
from .panel import head, show_live, show_still

_ids = count()
_KEYS = ("name", "steps", "nfe", "seconds", "distance", "samples")


def speed_quality(points: Sequence[Mapping], *, floor: tuple[float, float] | None = None, title: str = "Speed against quality",
                  xlabel: str = "seconds", ylabel: str = "Fréchet distance") -> SpeedQuality:
    """A chart of measured points; point at one, click it or go there with the Tab key, and its samples show.

    It needs no kernel: everything is on the page.

    Args:
        points: dicts with `name` (of the curve), `steps`, `nfe` (network calls), `seconds`, `distance` and `samples`
            [B, C, H, W], of which up to 16 are shown.
        floor: mean and standard deviation of the distance's noise floor, drawn as a band.
        title: the heading.
        xlabel, ylabel: what the axes measure, with units and n.

    Raises:
        ValueError: no points, or one that lacks a key.
    """
    for point in points:
        if missing := [key for key in _KEYS if key not in point]:
            raise ValueError(f"each point needs {', '.join(_KEYS)}; one lacks {', '.join(missing)}")
    if not points:
        raise ValueError("there is no point to show; measure at least one")
    return SpeedQuality(points, floor, title, xlabel, ylabel)


class SpeedQuality:
    """The chart of `speed_quality`, shown at the end of a cell."""

    def __init__(self, points: Sequence[Mapping], floor, title: str, xlabel: str, ylabel: str):
        # A logarithmic axis has no 0, and a distance may be 0.
        self.points = [{**point, "distance": max(point["distance"], 1e-3)} for point in points]
        self.title, self.distance = title, ylabel
        self.drawing = self._draw(floor, xlabel, ylabel)
        self.chart = self.drawing.picture(f"{ylabel} against {xlabel} for {len(self.points)} points: " + "; ".join(
            self.words(point) for point in self.points))
        self.samples = [self._sheet(point) for point in self.points]

    def words(self, point: Mapping) -> str:
        """A point in words."""
        return (f"{point['name']}, {point['steps']} steps: {point['nfe']} network calls, {point['seconds']:.2f} s, "
                f"distance {point['distance']:.3g}")

    def to_html(self) -> str:
        """The chart with a button over each point, and the samples of the one that is chosen."""
        # One is shown at a time: the one pointed at, or else the one in focus, or else the first. Style rules alone do it.
        name, (width, height) = f"dl-points-{next(_ids)}", self.drawing.image.size
        buttons, rules = "", f".{name}:not(:has(button:hover, button:focus)) .dl-behind > :nth-child(1)"
        for k, point in enumerate(self.points, 1):
            x, y = self.drawing.place(0, [(point["seconds"], point["distance"])])[0]
            words = html.escape(self.words(point))
            buttons += (f'<button type="button" aria-label="{words}" title="{words}" '
                        f'style="left:{100 * x / width:.2f}%;top:{100 * y / height:.2f}%"></button>')
            behind = f".dl-behind > :nth-child({k})"
            rules += (f",\n.{name}:has(button:hover:nth-of-type({k})) {behind}"
                      f",\n.{name}:has(button:focus:nth-of-type({k})):not(:has(button:hover)) {behind}")
        return (f'<style>{rules} {{ display: grid; }}</style><div class="dl-pick {name}">'
                f'<div class="dl-points" role="group" aria-label="{html.escape(self.title)}">'
                f'{self.chart.to_html()}<div class="dl-buttons" style="aspect-ratio:{width}/{height}">{buttons}</div></div>'
                f'<div class="dl-behind">{"".join(each.to_html() for each in self.samples)}</div></div>')

    def still(self) -> bytes:
        """The chart, and the samples of the first and the last point, as one PNG."""
        return still([self.chart, *dict.fromkeys((self.samples[0], self.samples[-1]))])

    def _ipython_display_(self) -> None:
        if not validating():
            panel = widgets.VBox([head(self.title), widgets.HTML(self.to_html())])
            panel.add_class("dl-explorer")
            show_live(panel, self.title)
            show_still(self.still(), self.chart.alt)

    def _draw(self, floor, xlabel: str, ylabel: str) -> Drawing:
        figure, ((ax,),) = axes(6.4, 4.2)
        for i, name in enumerate(dict.fromkeys(point["name"] for point in self.points)):
            mine = sorted((point for point in self.points if point["name"] == name), key=lambda point: point["seconds"])
            x, y = [point["seconds"] for point in mine], [point["distance"] for point in mine]
            color, marker, line = [(BLUE, "o", "-"), (VERMILION, "s", "--")][i] if i < 2 else (COLORS[i % len(COLORS)], "D", "-.")
            ax.plot(x, y, line, color=color, marker=marker, markersize=7, linewidth=1.4, label=name)
            for point in mine:
                ax.annotate(str(point["steps"]), (point["seconds"], point["distance"]), xytext=(9, 8), textcoords="offset points",
                            fontsize=9)
        if floor is not None:
            ax.axhspan(max(floor[0] - 2 * floor[1], floor[0] / 10), floor[0] + 2 * floor[1], color="0.5", alpha=0.25, linewidth=0,
                       label="noise floor, two spreads to each side")
        ax.set(xscale="log", yscale="log")
        ax.set_xlabel(xlabel, fontsize=9)
        ax.set_ylabel(ylabel, fontsize=9)
        ax.margins(0.09, 0.12)
        for axis, key in ((ax.xaxis, "seconds"), (ax.yaxis, "distance")):
            ticks = nice_ticks([point[key] for point in self.points])
            axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.grid(alpha=0.25)
        ax.legend(fontsize=9, frameon=False)
        return Drawing(figure, "Each point is a run, labelled with its steps: point at it, click it, or use the Tab key")

    def _sheet(self, point: Mapping) -> Picture:
        x = point["samples"][:16]
        return sheet([list(x[i:i + 4]) for i in range(0, len(x), 4)], f"Samples behind {self.words(point)}.", self.words(point))


def nice_ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times powers of ten that lie among the values, or just around them."""
    return [tick for tick in round_numbers(min(values), max(values)) if min(values) / 1.6 <= tick <= 1.6 * max(values)]

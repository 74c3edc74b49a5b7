"""Where the steps fall: the student's schedules and one drawn by hand, with the samples they make."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
import torch

from ..noise_model import NoiseModel
from ..pretrained import load_pretrained
from ..runtime import standard_normal
from ..schedule import NoiseSchedule
from .paint import BLUE, GREEN, PURPLE, VERMILION, Drawing, axes, sheet
from .panel import Panel, Stage, View, box, class_menu, slider, whole
from .watched import Watched
from .work import Run

KINDS, OWN = ("uniform", "trailing", "quadratic"), "your own"
_COLORS = (BLUE, VERMILION, GREEN, PURPLE)
_SAMPLES, _BANDS = 6, 8


def schedules(DDIMSampler, *, model: NoiseModel | None = None, schedule: NoiseSchedule | None = None) -> StepSchedules:
    """A panel of timestep schedules, yours and one that you draw, with samples and their distance from all steps.

    Args:
        DDIMSampler: your class.
        model: the network; None for the shipped one.
        schedule: the schedule it was trained with; None for the linear one.
    """
    return StepSchedules(DDIMSampler, model or load_pretrained("mnist"), schedule or NoiseSchedule.linear())


def own_schedule(density: Sequence[float], num_steps: int, num_timesteps: int) -> list[int]:
    """Timesteps that lie as densely as asked in equal bands of t.

    Args:
        density: a weight for each band, from high t to low, none negative; all 0 counts as all 1.
        num_steps: how many, in 1..T.
        num_timesteps: T.

    Returns:
        num_steps different timesteps from T-1 down; the last is 0 where there are two or more.
    """
    weights = np.asarray(density, dtype=float)
    share = np.cumsum([0.0, *(weights if weights.any() else np.ones_like(weights))])
    # A band of weight 0 has no width here, so that no step falls inside it.
    edges = np.linspace(num_timesteps - 1, 0, len(share))
    wanted = np.interp(np.linspace(0, share[-1], num_steps), share, edges).round().astype(int)
    wanted[-1], wanted[0] = 0, num_timesteps - 1
    # Neighbours that rounded to one number are moved down, and what would fall below 0 is moved up again.
    for i in range(1, num_steps):
        wanted[i] = min(wanted[i], wanted[i - 1] - 1)
    return np.maximum(wanted, np.arange(num_steps)[::-1]).tolist()


class StepSchedules(Panel):
    """The panel of `schedules`; its controls are attributes, so that a cell can move them, too."""

    def __init__(self, ddim, model: NoiseModel, schedule: NoiseSchedule):
        self.ddim, self.model, self.schedule = ddim, model, schedule
        T = schedule.num_timesteps
        self.steps = slider("steps", min(8, T), 2, min(50, T), 1, "how many timesteps each schedule may visit")
        self.label = class_menu(model, 3)
        self.seed = whole("seed", 1, 0, 9999, "another seed, other starting noise")
        edges = np.linspace(T, 0, _BANDS + 1).astype(int)
        self.bands = [widgets.IntSlider(value=value, min=0, max=9, orientation="vertical", readout=False, description=f"{low}+",
                                        tooltip=f"your own schedule: how densely steps fall at t from {low} to {high - 1}")
                      for value, high, low in zip((1, 1, 2, 3, 5, 7, 9, 9), edges, edges[1:])]
        self.dots, self.samples = View(), View()
        self._touched, self._partly = False, {}
        super().__init__("Where the steps fall", [self.steps, self.label, self.seed], [[(self.dots, 2.2)], [(self.samples, 2.2)]])
        words = widgets.HTML("<div class='dl-hint'>Draw your own: how densely steps fall, by t</div>")
        children = self.side.children
        self.side.children = (*children[:3], words, box(self.bands, "dl-bands"), *children[3:])
        for band in self.bands:
            band.layout.height = "130px"
            band.observe(self.refresh, "value")
        self._rows = [*KINDS, OWN, f"all {T}"]
        figure, ((ax,),) = axes(7.2, 1.9)
        ax.set(xlim=(T * 1.02, -0.03 * T), ylim=(len(KINDS) + 0.6, -0.6), yticks=range(len(KINDS) + 1), yticklabels=[*KINDS, OWN])
        ax.set_xlabel("timestep t, from noise (left) to data (right)", fontsize=8)
        ax.grid(axis="x", color="0.9", linewidth=0.6)
        ax.tick_params(axis="y", length=0)
        self._drawing = Drawing(figure, "The timesteps that each schedule visits")

    def refresh(self, *change) -> None:
        """As any panel's; after the first touch the run over all timesteps is made, too."""
        self._touched = self._touched or bool(change)
        super().refresh(*change)

    def stages(self) -> list[Stage]:
        """Each schedule and its samples, the pictures, and at last all timesteps and the distances from them."""
        steps, bands = self.steps.value, tuple(band.value for band in self.bands)
        asked = (self.label.value, self.seed.value)
        where = {kind: ("where", kind, steps, bands if kind == OWN else ()) for kind in (*KINDS, OWN)}
        made = {kind: ("made", *key, *asked) for kind, key in where.items()}
        everything = ("everything", *asked)
        stages = [Stage(key, lambda run, kind=kind: self._where(kind, steps, bands), lambda result: None, "schedules")
                  for kind, key in where.items()]
        stages += [Stage(("dots", *where.values()), lambda run: self._dots(where), self.dots.show, "timesteps")]
        stages += [Stage(key, lambda run, kind=kind: self._samples(run, self.memory.get(where[kind]), *asked),
                         lambda result: None, kind) for kind, key in made.items()]
        keys = [*made.values(), everything] if everything in self.memory else [*made.values()]
        stages += [Stage(("picture", *keys), lambda run: self._picture(keys), self._show, "picture")]
        if self._touched and everything not in self.memory:
            more = [*keys, everything]
            stages += [Stage(everything, lambda run: self._everything(run, *asked), lambda result: None, self._rows[-1]),
                       Stage(("picture", *more), lambda run: self._picture(more), self._show, "picture")]
        return stages

    def _where(self, kind: str, steps: int, bands) -> list[int]:
        if kind == OWN:
            return own_schedule(bands, steps, self.schedule.num_timesteps)
        return self.ddim(self.model, self.schedule).create_timestep_schedule(steps, kind).tolist()

    def _dots(self, where: dict):
        self._drawing.clear()
        layer, pen = self._drawing.layer()
        for row, (key, color) in enumerate(zip(where.values(), _COLORS)):
            points = self._drawing.place(0, [(t, row) for t in self.memory.get(key)])
            pen.line(points.ravel().tolist(), (*bytes.fromhex(color[1:]), 120), width=2)
            for x, y in points:
                pen.ellipse((x - 7, y - 7, x + 7, y + 7), color, (255, 255, 255, 255))
        self._drawing.image.alpha_composite(layer)
        return self._drawing.picture(f"Timesteps visited by {', '.join(where)}, on the axis of t.")

    def _start(self, label: int, seed: int) -> tuple[NoiseModel, torch.Tensor]:
        model = self.model if label < 0 else self.model.condition(label)
        generator = torch.Generator().manual_seed(seed)
        return model, standard_normal((_SAMPLES, *model.sample_shape), device=model.device, generator=generator)

    def _samples(self, run: Run, timesteps: list[int], label: int, seed: int) -> torch.Tensor:
        model, x_T = self._start(label, seed)
        return self.ddim(Watched(model, run, len(timesteps)), self.schedule).sample(tuple(x_T.shape), timesteps, 0.0, x_T=x_T)

    def _everything(self, run: Run, label: int, seed: int) -> torch.Tensor:
        """All timesteps, one by one. Where it was stopped it goes on the next time."""
        model, x_T = self._start(label, seed)
        T = self.schedule.num_timesteps
        x, done = self._partly.pop((label, seed), (x_T, 0))
        sampler = self.ddim(Watched(model, run, T, done=done), self.schedule)
        try:
            with torch.no_grad():
                for t in range(T - 1 - done, -1, -1):
                    x, done = sampler.ddim_step(x, t, t - 1, 0.0), done + 1
        finally:
            if done < T:
                self._partly[label, seed] = x, done
        return x

    def _picture(self, keys: list) -> dict:
        rows = [self.memory.get(key) for key in keys]
        picture = sheet([list(each) for each in rows], f"{_SAMPLES} samples from each schedule, all from the same starting noise.",
                        "The same starts on each schedule, η = 0", rows=self._rows[:len(rows)])
        numbers = {f"RMS distance from {self._rows[-1]}": "not made yet"}
        if len(rows) == len(self._rows):
            numbers = {f"RMS from {self._rows[-1]}, {name}": f"{float((x - rows[-1]).square().mean().sqrt()):.4f}"
                       for name, x in zip(self._rows, rows[:-1])}
        return {"picture": picture, "numbers": numbers}

    def _show(self, result: dict) -> None:
        self.samples.show(result["picture"])
        self.numbers.clear()
        self.show_numbers(result["numbers"])

"""Points on their way from noise to a ring of clusters, where the noise prediction is exact and the truth is known."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import ipywidgets as widgets
import numpy as np
import torch
from scipy.stats import wasserstein_distance

from ..analytic import GaussianMixture
from ..levels import Denoiser, timestep_at
from ..schedule import NoiseSchedule
from .paint import BLUE, GREEN, VERMILION, Drawing, axes
from .panel import Panel, Stage, View, slider, whole
from .watched import Watched
from .work import Run

_POINTS, _FRAMES, _KEPT = 300, 40, 120  # points; places of the time slider; states of a path that are drawn
_EDGE, _COLORS = 3.0, (BLUE, VERMILION, GREEN)


def paths(DDIMSampler, DDPMSampler=None, *, model: GaussianMixture | None = None,
          schedule: NoiseSchedule | None = None) -> PointPaths:
    """A panel of points led by your samplers from noise to a mixture of Gaussians in the plane.

    Args:
        DDIMSampler: your class.
        DDPMSampler: yours; without it DDPM's panel is left out.
        model: an exact model of points [2]; None for the ring of eight clusters.
        schedule: the model's; None for the linear one.
    """
    schedule = schedule or NoiseSchedule.linear()
    return PointPaths(DDIMSampler, DDPMSampler, model or GaussianMixture.ring(schedule), schedule)


def solvers(walks: Mapping[str, Callable], *, model: GaussianMixture | None = None,
            schedule: NoiseSchedule | None = None) -> SolverPaths:
    """A panel of points led by solvers, yours or a library's, from noise to a mixture of Gaussians in the plane.

    Args:
        walks: by name, one to three of `walk(denoise, x, num_steps, *, callback)`, which solve from pure noise to clean data
            and call back as the solvers of `diffusionlab.levels` do. `solve_with_scheduler` is one, once it has its scheduler
            and schedule.
        model: an exact model of points [2]; None for the ring of eight clusters.
        schedule: the model's; None for the linear one.

    Raises:
        ValueError: no walk, or more than three.
    """
    if not 1 <= len(walks) <= len(_COLORS):
        raise ValueError(f"the panel shows one to {len(_COLORS)} solvers, not {len(walks)}")
    schedule = schedule or NoiseSchedule.linear()
    return SolverPaths(walks, model or GaussianMixture.ring(schedule), schedule)


class Paths(Panel):
    """What the panels of points share; their controls are attributes, so that a cell can move them, too.

    A subclass says in `ways` who leads the points, and calls `super().__init__` with its own controls.
    """

    def __init__(self, title: str, model: GaussianMixture, schedule: NoiseSchedule, controls: Sequence[widgets.Widget]):
        self.model, self.schedule = model, schedule
        self.seed = whole("seed", 1, 0, 9999, "another seed, other starting points")
        self.time = slider("time", _FRAMES, 0, _FRAMES, 1, "from noise (left) to data (right)")
        self.play = widgets.Play(max=_FRAMES, interval=300, tooltip="play the way from noise to data")
        widgets.link((self.play, "value"), (self.time, "value"))
        self.play.value = _FRAMES
        self.picture, self._drawings = View(), {}
        controls = [*controls, self.seed, self.time]
        super().__init__(title, controls, [[(self.picture, 3.0)]])
        self.side.children = (*controls, self.play, *self.side.children[len(controls):])
        generator = torch.Generator().manual_seed(0)
        self._data = model.sample_data(2000, generator)
        self._noise = torch.randn(self._data.shape, generator=generator, dtype=torch.float64)
        # As many points as are led, again and again: what chance alone makes of the distance.
        self._others = model.sample_data(20 * _POINTS, generator)[:, 0]
        self._others_noise = torch.randn(len(self._others), generator=generator, dtype=torch.float64)

    def ways(self) -> dict[str, tuple[Hashable, Callable[[Run], tuple]]]:
        """For each who leads: all that it depends on, and what makes (timesteps [n], points [n, B, 2], ...), -1 for the end."""
        raise NotImplementedError

    def stages(self) -> list[Stage]:
        """The ways of all points for each who leads them, then the picture at the chosen time."""
        ways, frame = self.ways(), self.time.value
        keys = {name: key for name, (key, _) in ways.items()}
        return [*(Stage(key, make, lambda result: None, name) for name, (key, make) in ways.items()),
                Stage(("frame", frame, *keys.values()), lambda run: self._frame(run, keys, frame), self._show, "picture")]

    def _frame(self, run: Run, keys: dict, frame: int) -> dict:
        run.check()
        # Finer near the data, where most happens.
        tau = round((self.schedule.num_timesteps - 1) * (1 - frame / _FRAMES) ** 2) if frame < _FRAMES else -1
        numbers, drawing = {"t": "clean" if tau < 0 else str(tau)}, self._drawing(len(keys))
        drawing.clear()
        for panel, (name, key) in enumerate(keys.items()):
            levels, way = self.memory.get(key)[:2]
            # The last state that is not ahead of the time shown; before the first timestep, the start.
            now = max(int((levels >= tau).sum()) - 1, 0)
            # The truth at the noise level that the points have: between two steps it is ahead of them, however right they are.
            own, A = int(levels[now]), self._share_left(levels[now])
            truth = self._mixed(self._data, self._noise, A)
            self._draw_paths(drawing, panel, truth, way[:now + 1])
            self._draw_density(drawing, len(keys) + panel, way[now][:, 0], A, _COLORS[panel])
            numbers[f"W₁ to truth, {name}"] = f"{wasserstein_distance(way[now][:, 0], truth[:, 0]):.3f}" + (
                f" at t = {own}" if own != tau else "")
        A = self._share_left(tau)
        truth = self._mixed(self._data, self._noise, A)
        others = self._mixed(self._others, self._others_noise, A).reshape(-1, _POINTS)
        by_chance = np.array([wasserstein_distance(each, truth[:, 0]) for each in others])
        numbers["W₁ to truth, by chance"] = f"{by_chance.mean():.3f} ± {by_chance.std():.3f}"
        alt = (f"Paths of {_POINTS} points, and the distribution of their x at t = {numbers['t']}, for {', '.join(keys)}; "
               "the truth in grey.")
        return {"picture": drawing.picture(alt, list(keys)), "numbers": numbers}

    def _share_left(self, t: int) -> float:
        return float(self.schedule.alphas_cumprod[t]) if t >= 0 else 1.0

    def _mixed(self, data: torch.Tensor, noise: torch.Tensor, A: float) -> np.ndarray:
        """Data with noise, where the share A of the data's variance is left."""
        return (A**0.5 * data + (1 - A) ** 0.5 * noise).numpy()

    def _drawing(self, count: int) -> Drawing:
        """The empty axes for so many samplers: paths above, the density of x below. Drawn once."""
        if count in self._drawings:
            return self._drawings[count]
        figure, panels = axes(2.5 * count, 3.5, columns=count, rows=2, gridspec_kw={"height_ratios": [2.4, 1]})
        for above, below in panels.T:
            above.set(xlim=(-_EDGE, _EDGE), ylim=(-_EDGE, _EDGE), aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
            below.set(xlim=(-_EDGE, _EDGE), ylim=(0, 1.3), xticks=[-2, 0, 2], yticks=[])
            below.spines["left"].set_visible(False)
        self._drawings[count] = Drawing(figure, "Paths from noise; below, the x of the points beside its true density (line)")
        return self._drawings[count]

    def _draw_paths(self, drawing: Drawing, panel: int, truth: np.ndarray, way: np.ndarray) -> None:
        layer, pen = drawing.layer()
        color = tuple(bytes.fromhex(_COLORS[panel][1:]))
        for x, y in drawing.place(panel, truth[:700][np.abs(truth[:700]).max(1) < _EDGE]):
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), (140, 140, 140, 120))
        pixels = drawing.place(panel, way.clip(-_EDGE, _EDGE))
        for i, path in enumerate(pixels.transpose(1, 0, 2)[::-1]):
            few = i >= _POINTS - 8  # some can be followed by eye
            pen.line(path.ravel().tolist(), (*color, 255 if few else 50), width=2 if few else 1)
        for x, y in pixels[-1]:
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), (*color, 255), (255, 255, 255, 255))
        drawing.image.alpha_composite(layer)

    def _draw_density(self, drawing: Drawing, ax: int, x: np.ndarray, A: float, color: str) -> None:
        layer, pen = drawing.layer()
        grid = np.linspace(-_EDGE, _EDGE, 241)
        density = self._density(grid, A)
        heights, edges = np.histogram(x, np.linspace(-_EDGE, _EDGE, 41), density=True)
        bars = drawing.place(ax, np.stack([edges[:-1], np.minimum(heights / density.max(), 1.3)], axis=1))
        width, (_, floor) = bars[1, 0] - bars[0, 0], drawing.place(ax, [(0, 0)])[0]
        for left, top in bars[heights > 0]:
            pen.rectangle((left, top, left + width - 2, floor), (*bytes.fromhex(color[1:]), 150))
        pen.line(drawing.place(ax, np.stack([grid, density / density.max()], axis=1)).ravel().tolist(), (0, 0, 0, 255), width=3)
        drawing.image.alpha_composite(layer)

    def _density(self, x: np.ndarray, A: float) -> np.ndarray:
        """The true density of the first coordinate where the share A of the data's variance is left."""
        mean, std = A**0.5 * self.model.means[:, 0].numpy(), np.sqrt(A * self.model.stds.numpy()**2 + 1 - A)
        bells = np.exp(-(((x[:, None] - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))
        return bells @ self.model.weights.numpy()

    def _show(self, result: dict) -> None:
        self.picture.show(result["picture"])
        self.numbers.clear()
        self.show_numbers(result["numbers"])


class PointPaths(Paths):
    """The panel of `paths`."""

    def __init__(self, ddim, ddpm, model: GaussianMixture, schedule: NoiseSchedule):
        self.ddim, self.ddpm = ddim, ddpm
        self.steps = slider("steps", 20, 1, 100, 1, "timesteps visited by DDIM")
        self.eta = slider("η (eta)", 1.0, 0.0, 1.0, 0.1, "of the panel on the right")
        super().__init__("Points on their way", model, schedule, [self.steps, self.eta])

    def ways(self) -> dict[str, tuple[Hashable, Callable[[Run], tuple]]]:
        """DDIM without noise and with, and DDPM."""
        steps, value, seed = self.steps.value, self.eta.value, self.seed.value
        ways = {"DDIM, η = 0": (("ddim", steps, 0.0, seed), lambda run: self._ddim(run, steps, 0.0, seed)),
                f"DDIM, η = {value:g}": (("ddim", steps, value, seed), lambda run: self._ddim(run, steps, value, seed))}
        if value == 0:
            ways = dict(list(ways.items())[:1])
        if self.ddpm is not None:
            ways["DDPM"] = ("ddpm", seed), lambda run: self._ddpm(run, seed)
        return ways

    def _ddim(self, run: Run, steps: int, value: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        sampler = self.ddim(Watched(self.model, run, steps), self.schedule)
        timesteps = sampler.create_timestep_schedule(steps).tolist()
        _, way = sampler.sample((_POINTS, 2), timesteps, value, True, generator=torch.Generator().manual_seed(seed))
        return np.array([*timesteps, -1]), way.float().numpy()

    def _ddpm(self, run: Run, seed: int) -> tuple[np.ndarray, np.ndarray]:
        T = self.schedule.num_timesteps
        sampler = self.ddpm(Watched(self.model, run, T), self.schedule)
        _, way = sampler.sample((_POINTS, 2), True, generator=torch.Generator().manual_seed(seed))
        kept = np.unique(np.linspace(0, T, _KEPT).round().astype(int))
        return np.arange(T - 1, -2, -1)[kept], way[kept].float().numpy()


class SolverPaths(Paths):
    """The panel of `solvers`."""

    def __init__(self, walks: Mapping[str, Callable], model: GaussianMixture, schedule: NoiseSchedule):
        self.walks = dict(walks)
        self.steps = slider("steps", 8, 3, 50, 1, "how many steps each solver takes")
        super().__init__("Solvers on their way", model, schedule, [self.steps])

    def ways(self) -> dict[str, tuple[Hashable, Callable[[Run], tuple]]]:
        """Each walk in as many steps."""
        steps, seed = self.steps.value, self.seed.value
        return {name: ((name, steps, seed), lambda run, walk=walk: self._walked(run, walk, steps, seed))
                for name, walk in self.walks.items()}

    def _walked(self, run: Run, walk: Callable, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
        watched = Watched(self.model, run, steps)
        start = torch.randn(_POINTS, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        # A library's scheduler need not begin at T-1.
        timesteps, way = [self.schedule.num_timesteps - 1], [start]

        def note(i: int, lam: float, x: torch.Tensor, x0: torch.Tensor) -> None:
            timesteps.append(timestep_at(self.schedule, lam))
            way.append(x)

        way.append(walk(Denoiser(watched, self.schedule), start, steps, callback=note))
        return np.array([*timesteps, -1]), torch.stack(way).float().numpy(), len(watched.calls)

    def _frame(self, run: Run, keys: dict, frame: int) -> dict:
        shown = super()._frame(run, keys, frame)
        for name, key in keys.items():
            shown["numbers"][f"W₁ to truth, {name}"] += f", {self.memory.get(key)[2]} calls"
        return shown

"""The dial between DDIM and DDPM, driven by the student's own step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..noise_model import NoiseModel
from ..plots import missing_method
from ..pretrained import load_pretrained
from ..runtime import standard_normal
from ..schedule import NoiseSchedule
from .paint import BLACK, BLUE, GREY, VERMILION, Picture, axes, chart, curve, sheet
from .panel import Panel, Stage, View, class_menu, menu, slider, tick, whole
from .watched import Ones, Watched
from .work import Run

SWEEP = (0.0, 0.25, 0.5, 0.75, 1.0)
_GRID, _SWEPT, _STAGES = 16, 4, 9  # samples in the grid and for each eta of the sweep; pictures in the strip
DDIM, HANDOUT, DDPM = "your DDIM step", "noise on top (handout)", "your DDPM, all steps"


def eta(DDIMSampler, StochasticityController=None, sample_diversity=None, DDPMSampler=None, *,
        model: NoiseModel | None = None, schedule: NoiseSchedule | None = None) -> EtaDial:
    """A panel that turns eta: samples, their way, what the step mixes, and a sweep from one start.

    Args:
        DDIMSampler: your class.
        StochasticityController: yours; runs the sweep over eta as one batch. Without it the sweep is five runs.
        sample_diversity: your function; without it that number is left out.
        DDPMSampler: yours; without it the menu of samplers is shorter.
        model: the network; None for the shipped one. One with a `condition` method gets a menu of its classes.
        schedule: the schedule it was trained with; None for the linear one.
    """
    return EtaDial(DDIMSampler, StochasticityController, sample_diversity, DDPMSampler,
                   model or load_pretrained("mnist"), schedule or NoiseSchedule.linear())


class EtaDial(Panel):
    """The panel of `eta`; its controls are attributes, so that a cell can move them, too."""

    def __init__(self, ddim, controller, diversity, ddpm, model: NoiseModel, schedule: NoiseSchedule):
        self.ddim, self.controller, self.diversity, self.ddpm = ddim, controller, diversity, ddpm
        self.model, self.schedule = model, schedule
        T = schedule.num_timesteps
        self.sampler = menu("sampler", [DDIM, HANDOUT, *([DDPM] if ddpm is not None else [])], DDIM,
                            "whose step is taken; the handout's adds noise without making room for it")
        self.eta = slider("η (eta)", 0.0, 0.0, 1.0, 0.05, "0 is deterministic, 1 is DDPM on these steps")
        self.steps = slider("steps", min(20, T), 1, min(100, T), 1, "number of timesteps visited")
        self.all_steps = tick(f"all {T} steps", "visit every timestep; takes a while")
        self.kind = menu("spacing", ["uniform", "trailing", "quadratic"], "uniform", "how the timesteps are spread")
        self.label = class_menu(model, 7)
        self.guidance = slider("guidance", 1.0, 0.0, 5.0, 0.5, "1 is plain conditioning; more pushes harder towards the class")
        self.seed = whole("seed", 1, 0, 9999, "another seed, another starting noise")
        self.samples, self.sweep, self.strip, self.curves = View(), View(), View(), View()
        super().__init__("The dial η", [self.sampler, self.eta, self.steps, self.all_steps, self.kind, self.label,
                                        self.guidance, self.seed],
                         [[(self.samples, 1.0), (self.sweep, 1.2)], [(self.strip, 2.2)], [(self.curves, 2.2)]])

    def stages(self) -> list[Stage]:
        """The samples for eta as it is; then the sweep, which does not depend on eta."""
        sampler, value, kind, seed = self.sampler.value, self.eta.value, self.kind.value, self.seed.value
        count = self.schedule.num_timesteps if self.all_steps.value else self.steps.value
        label, guidance = self.label.value, self.guidance.value
        self.eta.disabled = self.all_steps.disabled = self.kind.disabled = sampler == DDPM
        self.steps.disabled = sampler == DDPM or self.all_steps.value
        self.guidance.disabled = label < 0
        model = self.model if label < 0 else self.model.condition(label, guidance)
        asked = (label, guidance if label >= 0 else 1.0, seed)
        if sampler == DDPM:
            return [Stage(("ddpm", asked), lambda run: self._make_ddpm(run, model, seed), self._show_samples, "DDPM")]
        way = (sampler, count, kind)
        return [Stage((way, value, asked), lambda run: self._make_samples(run, model, sampler, value, count, kind, seed),
                      self._show_samples, f"η = {value:g}"),
                Stage(("sweep", way, asked), lambda run: self._make_sweep(run, model, sampler, count, kind, seed),
                      self._show_sweep, "five values of η")]

    # --- the samples ------------------------------------------------------------------------------------------------

    def _make_samples(self, run, model, name, value, count, kind, seed) -> dict:
        watched = Watched(model, run, count, lambda x: self.glimpse(run, self.samples, square(x, "on the way")))
        sampler = self.ddim(watched, self.schedule)
        timesteps = sampler.create_timestep_schedule(count, kind).tolist()
        shape, generator = (_GRID, *model.sample_shape), torch.Generator().manual_seed(seed)
        began = time.perf_counter()
        if name == HANDOUT:
            sigma = step_parts(self.ddim, self.schedule, timesteps, 1.0, run)[1]
            x = noise_on_top(sampler, shape, timesteps, value * sigma, generator)
        else:
            x = sampler.sample(shape, timesteps, value, generator=generator)
        seconds = time.perf_counter() - began
        result = self._result(run, sampler, watched, x, seconds, f"η = {value:g}, {count} steps")
        direction, sigma = step_parts(self.ddim, self.schedule, timesteps, value, run)
        if name == HANDOUT:
            direction, _ = step_parts(self.ddim, self.schedule, timesteps, 0.0, run)
        picture, excess = mixture_chart(self.schedule, timesteps, direction, sigma, run)
        return result | {"curves": picture} | excess

    def _make_ddpm(self, run, model, seed) -> dict:
        watched = Watched(model, run, self.schedule.num_timesteps,
                          lambda x: self.glimpse(run, self.samples, square(x, "on the way")))
        generator, began = torch.Generator().manual_seed(seed), time.perf_counter()
        x = self.ddpm(watched, self.schedule).sample((_GRID, *model.sample_shape), generator=generator)
        seconds = time.perf_counter() - began
        return self._result(run, self.ddim(model, self.schedule), watched, x, seconds, "DDPM")

    def _result(self, run: Run, sampler, watched: Watched, x: Tensor, seconds: float, name: str) -> dict:
        """The pictures and numbers that every way of sampling has."""
        calls, samples = watched.calls, square(x, name)
        self.glimpse(run, self.samples, samples)  # they are waited for; strip and curves are still to be drawn
        shown = [calls[i] for i in np.unique(np.linspace(0, len(calls) - 1, _STAGES).round().astype(int))]
        guesses = [sampler.predict_x0_from_eps(x_t, eps, t)[0] for t, x_t, eps in shown]
        strip = sheet([[x_t[0] for _, x_t, _ in shown], guesses], rows=["x at t", "x₀ guessed"],
                      alt=f"One sample on its way, {name}: noisy above, the clean image guessed from it below.",
                      caption="The first sample on its way, by t", columns=[str(t) for t, _, _ in shown])
        try:
            diversity = "" if self.diversity is None else f"{float(self.diversity(x)):.4f}"
        except NotImplementedError as error:
            diversity = f"to be written: {missing_method(error)}"
        return {"samples": samples, "strip": strip, "diversity": diversity, "calls": len(calls), "seconds": seconds}

    def _show_samples(self, result: dict) -> None:
        self.samples.show(result["samples"])
        self.strip.show(result["strip"])
        if "curves" in result:
            self.curves.show(result["curves"])
        self.show_numbers({"diversity": result["diversity"], "network calls (NFE)": str(result["calls"]),
                           "seconds": f"{result['seconds']:.2f}",
                           "ms a call": f"{1000 * result['seconds'] / max(result['calls'], 1):.1f}",
                           "noise / what belongs there": result.get("excess", ""),
                           "the same, carried on to the last": result.get("carried", "")})

    # --- the sweep --------------------------------------------------------------------------------------------------

    def _make_sweep(self, run, model, name, count, kind, seed) -> dict:
        shape, watched, note = (_SWEPT, *model.sample_shape), Watched(model, run, count), "one batch"
        sampler = self.ddim(watched, self.schedule)
        if name == HANDOUT:
            timesteps = sampler.create_timestep_schedule(count, kind).tolist()
            sigma = step_parts(self.ddim, self.schedule, timesteps, 1.0, run)[1]
            each = torch.tensor(SWEEP).repeat_interleave(_SWEPT).reshape(-1, *[1] * len(model.sample_shape)).to(model.device)
            x = noise_on_top(sampler, shape, timesteps, sigma, torch.Generator().manual_seed(seed), each)
            samples = x.reshape(len(SWEEP), *shape)
        else:
            samples, note = self._swept(watched, sampler, shape, count, kind, seed)
        picture = sheet([list(samples[:, i]) for i in range(_SWEPT)], f"Four starts, each led to an image at {len(SWEEP)} values "
                        "of η, from 0 on the left to 1 on the right.", f"Same starts, η from 0 to 1 ({note})",
                        [f"η = {value:g}" for value in SWEEP])
        return {"picture": picture}

    def _swept(self, watched: Watched, sampler, shape, count: int, kind: str, seed: int) -> tuple[Tensor, str]:
        """The sampler's samples [E, B, ...] at each eta, and in words how they were made."""
        note = "five runs"
        if self.controller is not None and kind == "uniform":
            try:
                study = self.controller(sampler).analyze_eta_effects(shape, list(SWEEP), count, generator=torch.Generator().manual_seed(seed))
                return study["samples"], "one batch"
            except NotImplementedError as error:
                note = f"five runs; one batch when {missing_method(error)} is written"
        watched.total, timesteps = len(SWEEP) * count, sampler.create_timestep_schedule(count, kind).tolist()
        return torch.stack([sampler.sample(shape, timesteps, value, generator=torch.Generator().manual_seed(seed)) for value in SWEEP]), note

    def _show_sweep(self, result: dict) -> None:
        self.sweep.show(result["picture"])


def square(x: Tensor, name: str) -> Picture:
    """A batch as four rows of images."""
    columns = max(len(x) // 4, 1)
    rows = [list(x[i:i + columns]) for i in range(0, len(x), columns)]
    return sheet(rows, f"{len(x)} samples, {name}.", f"{len(x)} samples, {name}")


def pairs(timesteps: Sequence[int]) -> list[tuple[int, int]]:
    """The jumps (t, s) of a schedule, the last one to clean data."""
    return list(zip(timesteps, [*timesteps[1:], -1]))


def step_parts(ddim: Callable, schedule: NoiseSchedule, timesteps: Sequence[int], value: float, run: Run) -> tuple:
    """What a step multiplies the old noise and the fresh noise by, read off the student's own ddim_step.

    The model answers 1 whatever it is asked, and x_t holds that noise and a clean image of 0; so what comes out is
    direction * 1 + sigma * z. Float64 arrays [K], for each of the K jumps.
    """
    sampler, z = ddim(Ones(), schedule), torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    noise_level, out = (1 - schedule.alphas_cumprod).sqrt(), []
    for t, s in pairs(timesteps):
        run.check()
        out.append(sampler.ddim_step(noise_level[t].expand(2, 1).clone(), t, s, value, noise=z).reshape(2))
    without, with_noise = torch.stack(out).double().T.numpy()
    return without, with_noise - without


@torch.no_grad()
def noise_on_top(sampler, shape, timesteps: Sequence[int], sigma: np.ndarray, generator: torch.Generator, each=1.0) -> Tensor:
    """A handout's way, wrong on purpose: the deterministic step, and sigma z on top, with no room made for it.

    Args:
        sampler: a DDIMSampler.
        shape: (B, ...).
        timesteps: K timesteps, falling.
        sigma: [K], what the fresh noise is multiplied by.
        generator: source of the start and of the noise.
        each: a factor on sigma for all, or [E * B, 1, ..., 1] for E sets of B samples, which share start and noise.
    """
    sets = len(each) // shape[0] if isinstance(each, Tensor) else 1
    repeats = (sets, *[1] * (len(shape) - 1))
    x = standard_normal(shape, device=sampler.model.device, generator=generator).repeat(repeats)
    for (t, s), scale in zip(pairs(timesteps), sigma):
        x = sampler.ddim_step(x, t, s, 0.0)
        if scale > 0:
            x = x + each * float(scale) * standard_normal(shape, device=x.device, generator=generator).repeat(repeats)
    return x


def carried(direction, sigma, belongs) -> float:
    """The noise over what belongs there after the last step with noise left, where each step starts from what the one before has made.

    The model is told the level, not the excess: it scales the noise that it finds by what belongs there.
    """
    excess = 1.0
    for old, fresh, right in zip(direction, sigma, belongs):
        if right > 0:
            excess = float(np.hypot(excess * old, fresh) / right)
    return excess


def mixture_chart(schedule: NoiseSchedule, timesteps: Sequence[int], direction, sigma, run: Run) -> tuple[Picture, dict]:
    """Old noise, fresh noise and both together after each step, beside what belongs there; and how far that is off."""
    run.check()
    reached = np.array([s for _, s in pairs(timesteps)])
    belongs = np.array([float(1 - schedule.alphas_cumprod[s]) ** 0.5 if s >= 0 else 0.0 for s in reached])
    together = np.sqrt(direction**2 + sigma**2)
    figure, ((ax,),) = axes(7.0, 2.5)
    ax.plot(reached, belongs, color=GREY, linewidth=7, alpha=0.4, label="what belongs there", solid_capstyle="round")
    curve(ax, reached, together, "both together", BLACK, "--")
    curve(ax, reached, direction, "old noise (direction)", BLUE, "-", "o")
    curve(ax, reached, sigma, "fresh noise (σ)", VERMILION, "-.", "s")
    ax.set_xlabel("timestep reached, from noise (left) to data (right)", fontsize=8)
    ax.set_ylabel("standard deviation", fontsize=8)
    ax.set_xlim(schedule.num_timesteps * 1.01, -0.02 * schedule.num_timesteps)
    ax.set_ylim(-0.03, max(1.05, 1.05 * float(together.max())))
    ax.legend(fontsize=8, frameon=False, ncols=2, loc="lower left")
    ratio = together[belongs > 0] / belongs[belongs > 0]
    words = f"{np.median(ratio):.2f}×, at most {ratio.max():.2f}×" if len(ratio) else ""
    picture = chart(figure, "Noise after one step from a correct x: old noise, fresh noise, both together, and what belongs there. "
                    f"Together it is {words or 'none'}.", "The noise after one step from a correct x, read off your ddim_step")
    return picture, {"excess": words, "carried": f"{carried(direction, sigma, belongs):.2f}×" if len(ratio) else ""}

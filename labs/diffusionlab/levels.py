"""Noise levels on the scale that solvers of the diffusion ODE work on: lambda = log(sqrt(A) / sqrt(1 - A)).

Lambda is half the logarithm of Lab 5's SNR = A / (1 - A); it is called log-SNR here for short, half-log-SNR in papers. A sampler that skips
steps is a solver of an ordinary differential equation, and its natural clock is lambda: it rises from noise to data, and is infinite at clean
data. A solver of this course is `solve(denoise, x, levels, *, callback=None)`: `levels` are the lambdas to visit, and `denoise(x, lam)` is
the guess at the clean data.

Source: Lu et al. 2022, "DPM-Solver", section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .guards import check_images, check_same_shape, check_timestep, check_timesteps
from .schedule import NoiseSchedule

PREDICTIONS = ("eps", "x0", "v")

Denoise = Callable[[Tensor, float], Tensor]
"""`denoise(x, lam)` guesses the clean data in x [B, ...] at log-SNR lam."""

Callback = Callable[[int, float, Tensor, Tensor], object]
"""`callback(i, lam, x, x0)`, called once in step i, when x at lam has been denoised to x0. If it returns True, the solver
stops there and returns x0."""


def log_snr(schedule: NoiseSchedule, t: int) -> float:
    """The log-SNR at timestep t in -1..T-1, where -1 is clean data: infinity."""
    if t == -1:
        return math.inf
    check_timestep(t, schedule.num_timesteps)
    return float(table_of_log_snr(schedule)[t])


def table_of_log_snr(schedule: NoiseSchedule) -> Tensor:
    """The log-SNR at every timestep, float64 [T]; it falls."""
    A = schedule.alphas_cumprod
    return (A / (1 - A)).log() / 2


def levels_at(schedule: NoiseSchedule, timesteps: Sequence[int] | Tensor, end: int = -1) -> Tensor:
    """The log-SNR at each of n timesteps, and then at the end: float64 [n+1].

    Args:
        schedule: the noise schedule.
        timesteps: strictly falling, each in 0..T-1.
        end: where the last step leads: -1 for clean data, or a timestep below the others.

    Raises:
        ValueError: a timestep out of range, or one that does not fall.
    """
    steps = [int(t) for t in timesteps]
    check_timesteps(steps + ([] if end == -1 else [end]), schedule.num_timesteps)
    table = torch.cat([table_of_log_snr(schedule), torch.tensor([math.inf], dtype=torch.float64)])  # at -1: clean data
    return table[[*steps, end]]


def signal_noise(lam: float) -> tuple[float, float]:
    """How much signal and how much noise x holds at log-SNR lam: x = alpha x_0 + sigma eps, with alpha^2 + sigma^2 = 1.

    Written with exp of what is not positive, so that nothing overflows or cancels; infinity gives (1, 0).
    """
    if lam >= 0:
        ratio = math.exp(-lam)
        return 1 / math.sqrt(1 + ratio**2), ratio / math.sqrt(1 + ratio**2)
    ratio = math.exp(lam)
    return ratio / math.sqrt(1 + ratio**2), 1 / math.sqrt(1 + ratio**2)


def timestep_at(schedule: NoiseSchedule, lam: float) -> int:
    """The timestep whose log-SNR is nearest to lam; raises ValueError where lam lies outside the table."""
    table = table_of_log_snr(schedule)
    lowest, highest = float(table[-1]), float(table[0])
    if not lowest - 1e-6 <= lam <= highest + 1e-6:
        raise ValueError(f"the model knows log-SNRs from {lowest:.3f} to {highest:.3f}; it cannot be asked at {lam:.3f}")
    return int((table - lam).abs().argmin())


def timesteps_near(schedule: NoiseSchedule, levels: Tensor) -> Tensor:
    """The timesteps nearest to log-SNRs, none of them twice.

    Near clean data the table's log-SNRs lie far apart, so that several levels may share a nearest row. Counted from there,
    each timestep is then at least one above the one before; and all fit below T.

    Args:
        schedule: the noise schedule.
        levels: n log-SNRs, rising, within the table; n at most T.

    Returns:
        LongTensor [n], strictly falling.

    Raises:
        ValueError: a log-SNR outside the table, or more of them than timesteps.
    """
    T, n = schedule.num_timesteps, len(levels)
    if n > T:
        raise ValueError(f"there are only {T} timesteps for {n} levels")
    rising: list[int] = []
    for i, lam in enumerate(reversed(levels.tolist())):
        t = timestep_at(schedule, lam)
        rising.append(min(max(t, rising[-1] + 1) if rising else t, T - n + i))
    return torch.tensor(rising[::-1])


class Denoiser:
    """A network in the form that solvers take: `denoiser(x, lam)` guesses the clean data in x [B, ...] at log-SNR lam.

    Args:
        model: `model(x, t)` with t a LongTensor [B]; it is put into evaluation mode and called without gradients.
        schedule: the schedule that it was trained with; lam is looked up there, at the nearest timestep.
        prediction: what the network predicts: "eps"; "x0"; or "v", which is alpha eps - sigma x_0 (Salimans and Ho 2022).

    Raises:
        ValueError: another kind of prediction; when called, a lam outside the schedule, integer images, or an answer of
            another shape.
    """

    def __init__(self, model, schedule: NoiseSchedule, prediction: str = "eps"):
        if prediction not in PREDICTIONS:
            raise ValueError(f'prediction must be "eps", "x0" or "v", not {prediction!r}')
        self.model, self.schedule, self.prediction = model, schedule, prediction
        if isinstance(model, torch.nn.Module):
            model.eval()

    @torch.no_grad()
    def __call__(self, x: Tensor, lam: float) -> Tensor:
        check_images(x)
        t = timestep_at(self.schedule, lam)
        output = self.model(x, torch.full((len(x),), t, device=x.device))
        check_same_shape(x, output, "x and the model's prediction")
        alpha, sigma = signal_noise(lam)
        if self.prediction == "x0":
            return output
        return (x - sigma * output) / alpha if self.prediction == "eps" else alpha * x - sigma * output


class Trajectory:
    """A callback that keeps what a solver passes through.

    Args:
        stop_at: the step in which it asks the solver to stop, None for never.

    Attributes:
        steps: a tuple (i, lam, x, x0) for each call, the tensors as copies.
    """

    def __init__(self, stop_at: int | None = None):
        self.stop_at, self.steps = stop_at, []

    def __call__(self, i: int, lam: float, x: Tensor, x0: Tensor) -> bool:
        self.steps.append((i, float(lam), x.clone(), x0.clone()))
        return i == self.stop_at

    def after(self, result: Tensor) -> dict:
        """The run as a dict: `result`, and over its steps `i` and `lam` (lists), `x` and `x0` [steps, B, ...]."""
        i, lam, x, x0 = zip(*self.steps) if self.steps else ((),) * 4
        return {"result": result, "i": list(i), "lam": list(lam), "x": torch.stack(x) if x else torch.empty(0),
                "x0": torch.stack(x0) if x0 else torch.empty(0)}


def only_guesses(denoise: Denoise, x: Tensor, levels: Tensor, *, callback: Callback | None = None) -> Tensor:
    """A solver that takes each guess for the next x and adds no noise again: no sampler, but it shows what is handed over to one."""
    for i, lam in enumerate(levels[:-1].tolist()):
        x0 = denoise(x, lam)
        if callback is not None and callback(i, lam, x, x0):
            return x0
        x = x0
    return x


# ---------------------------------------------------------------------------------------------- refusals


def check_levels(levels: Tensor) -> None:
    """Log-SNRs to visit: a tensor of at least two, all rising or all falling, finite but for a last one of infinity."""
    if not isinstance(levels, Tensor) or not levels.is_floating_point() or levels.ndim != 1 or len(levels) < 2:
        raise ValueError("levels must be a floating-point tensor of at least two log-SNRs")
    if not bool(torch.isfinite(levels[:-1]).all()) or bool(levels[-1].isnan()) or float(levels[-1]) == -math.inf:
        raise ValueError("levels must be finite, but for the last, which may be infinity: clean data")
    steps = levels.diff()
    if not bool((steps > 0).all() or (steps < 0).all()):
        raise ValueError("levels must all rise, from noise to data, or all fall, from data to noise; none may come twice")


def check_order(order: int, num_steps: int) -> None:
    """The order of a solver: 1, 2 or 3, and no more than it has steps."""
    if order not in (1, 2, 3) or isinstance(order, bool):
        raise ValueError(f"order must be 1, 2 or 3, not {order!r}")
    if order > num_steps:
        raise ValueError(f"a solver of order {order} needs at least {order} steps, not {num_steps}")

import math

import torch
from torch import Tensor

from diffusionlab.guards import check_count, check_eta, check_finite, check_images
from diffusionlab.levels import Callback, Denoise, check_levels, signal_noise
from diffusionlab.runtime import standard_normal_like

from .dpm import solve_dpmpp_2m


def stop_when_settled(tolerance: float, patience: int = 1, after: float = 0.0) -> Callback:
    """A callback that ends a run early: it returns True once the guess at the clean data has stopped changing.

    Args:
        tolerance: a sample has not changed if its guess differs from that of the step before by at most this, as a root mean
            square.
        patience: in so many steps in a row no sample of the batch may have changed.
        after: steps at a log-SNR below this do not count: in pure noise the guess holds still because it has not begun to
            move. The guess of the last of them is what the next step is compared with.

    Returns:
        `callback(i, lam, x, x0)` for any solver. It can serve one run after another: step i = 0 begins a new one.

    Raises:
        ValueError: a tolerance that is not a finite number, 0 or larger; patience below 1.
    """
    ### BEGIN SOLUTION
    check_count(patience, "patience")
    if not math.isfinite(tolerance) or tolerance < 0:
        raise ValueError(f"tolerance must be a finite number, 0 or larger, not {tolerance}")
    before, quiet = None, 0

    def callback(i: int, lam: float, x: Tensor, x0: Tensor) -> bool:
        nonlocal before, quiet
        if i == 0 or lam < after:
            quiet = 0
        else:
            change = (x0 - before).double().flatten(1).square().mean(1).sqrt()
            quiet = quiet + 1 if bool((change <= tolerance).all()) else 0
        before = x0
        return quiet >= patience

    return callback
    ### END SOLUTION


def solve_hybrid(denoise: Denoise, x: Tensor, levels: Tensor, *, callback: Callback | None = None, switch: float = 0.0,
                 eta: float = 1.0, late=solve_dpmpp_2m, generator: torch.Generator | None = None) -> Tensor:
    """Stochastic in the noise, deterministic near data: DDIM with eta up to a level, then another solver.

    A stochastic step is x_next = alpha_next x0 + sqrt(sigma_next^2 - v) eps + sqrt(v) z, with
    v = eta^2 (sigma_next / sigma)^2 (1 - (alpha / alpha_next)^2).

    Args:
        denoise: `denoise(x, lam)` guesses the clean data.
        x: noisy data [B, ...] at levels[0].
        levels: float64 [n+1], the log-SNRs to visit, strictly rising; the last may be infinity.
        callback: called as `callback(i, lam, x, x0)` once a step, i counted over both halves; where it returns True, x0 is
            returned.
        switch: the first level of at least this log-SNR is where `late` takes over, if a level follows it. A step that ends at the last level is
            never stochastic if that is clean data: there is no noise to draw.
        eta: 0 is deterministic, 1 is DDPM on these levels.
        late: the solver of the second half, called as `late(denoise, x, levels, callback=...)`.
        generator: source of the fresh noise.

    Returns:
        x at levels[-1], with the shape and dtype of the x given.

    Raises:
        ValueError: integer images, levels that do not rise, eta negative or so large that v exceeds sigma_next^2, NaN or
            infinity in the result.
    """
    ### BEGIN SOLUTION
    check_images(x)
    check_levels(levels)
    check_eta(eta)
    steps = levels.tolist()
    if steps[1] < steps[0]:
        raise ValueError("levels must rise: a stochastic step leads from noise to data")
    for i, (lam, lam_next) in enumerate(zip(steps, steps[1:])):
        if lam >= switch:
            shifted = None if callback is None else lambda k, *rest: callback(i + k, *rest)
            return late(denoise, x, levels[i:], callback=shifted)
        x0 = denoise(x, lam)
        if callback is not None and callback(i, lam, x, x0):
            return x0
        (alpha, sigma), (alpha_next, sigma_next) = signal_noise(lam), signal_noise(lam_next)
        v = (eta * sigma_next / sigma) ** 2 * (1 - (alpha / alpha_next) ** 2)
        if v > sigma_next**2:
            raise ValueError("eta is too large for these steps: v would exceed all the noise that x_next may hold")
        x = alpha_next * x0 + math.sqrt(sigma_next**2 - v) * (x - alpha * x0) / sigma
        if v > 0:
            x = x + math.sqrt(v) * standard_normal_like(x, generator)
    check_finite(x)
    return x
    ### END SOLUTION

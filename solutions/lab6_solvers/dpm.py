import math
from collections.abc import Sequence

from torch import Tensor

from diffusionlab.guards import check_finite, check_images
from diffusionlab.levels import Callback, Denoise, check_levels, signal_noise


def solve_dpm1(denoise: Denoise, x: Tensor, levels: Tensor, *, callback: Callback | None = None) -> Tensor:
    """DPM-Solver of order 1: the linear part exactly, the predicted noise held still over a step. NFE: the steps.

    With h = lam_next - lam: x_next = alpha_next / alpha x - sigma_next (e^h - 1) eps.

    Args:
        denoise: `denoise(x, lam)` guesses the clean data.
        x: noisy data [B, ...] at levels[0].
        levels: float64 [n+1], the log-SNRs to visit, strictly rising (or falling, to encode); the last may be infinity.
        callback: called as `callback(i, lam, x, x0)` once a step; where it returns True, x0 is returned at once.

    Returns:
        x at levels[-1], with the shape and dtype of the x given.

    Raises:
        ValueError: integer images, levels that are not strictly monotone, NaN or infinity in the result.

    Source: Lu et al. 2022, "DPM-Solver", eq. 3.7.
    """
    ### BEGIN SOLUTION
    check_images(x)
    check_levels(levels)
    steps = levels.tolist()
    for i, (lam, lam_next) in enumerate(zip(steps, steps[1:])):
        x0 = denoise(x, lam)
        if callback is not None and callback(i, lam, x, x0):
            return x0
        (alpha, sigma), (alpha_next, sigma_next) = signal_noise(lam), signal_noise(lam_next)
        eps = (x - alpha * x0) / sigma
        # At clean data sigma_next (e^h - 1) is 0 times infinity; its limit is sigma / alpha.
        gain = sigma / alpha if math.isinf(lam_next) else sigma_next * math.expm1(lam_next - lam)
        x = alpha_next / alpha * x - gain * eps
    check_finite(x)
    return x
    ### END SOLUTION


def solve_dpmpp_2m(denoise: Denoise, x: Tensor, levels: Tensor, *, callback: Callback | None = None,
                   lower_order_final: bool = True, history: Sequence[tuple[float, Tensor]] = ()) -> Tensor:
    """DPM-Solver++(2M): the guess at the clean data is carried on in a line through the last two. NFE: the steps.

    With h = lam_next - lam and r = (lam - lam_before) / h:
    D = x0 + (x0 - x0_before) / (2 r), and x_next = sigma_next / sigma x - alpha_next (e^-h - 1) D.
    Where there is no guess before, in the first step, D = x0.

    Args:
        denoise: `denoise(x, lam)` guesses the clean data.
        x: noisy data [B, ...] at levels[0].
        levels: float64 [n+1], the log-SNRs to visit, strictly rising (or falling, to encode); the last may be infinity.
        callback: called as `callback(i, lam, x, x0)` once a step; where it returns True, x0 is returned at once.
        lower_order_final: whether the last step takes D = x0, too. A step to clean data always does: its h is infinite.
        history: guesses (lam, x0) made before levels[0], newest last, to go on from.

    Returns:
        x at levels[-1], with the shape and dtype of the x given.

    Raises:
        ValueError: integer images, levels that are not strictly monotone, NaN or infinity in the result.

    Source: Lu et al. 2022, "DPM-Solver++", algorithm 2.
    """
    ### BEGIN SOLUTION
    check_images(x)
    check_levels(levels)
    steps, before = levels.tolist(), history[-1] if history else None
    for i, (lam, lam_next) in enumerate(zip(steps, steps[1:])):
        x0 = denoise(x, lam)
        if callback is not None and callback(i, lam, x, x0):
            return x0
        h, D = lam_next - lam, x0
        lower_order = math.isinf(h) or (lower_order_final and i == len(steps) - 2)
        if before is not None and not lower_order:
            lam_before, x0_before = before
            r = (lam - lam_before) / h
            D = x0 + (x0 - x0_before) / (2 * r)
        (_, sigma), (alpha_next, sigma_next) = signal_noise(lam), signal_noise(lam_next)
        x = sigma_next / sigma * x - alpha_next * math.expm1(-h) * D
        before = lam, x0
    check_finite(x)
    return x
    ### END SOLUTION

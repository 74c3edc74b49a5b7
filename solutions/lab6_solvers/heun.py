import math

from torch import Tensor

from diffusionlab.guards import check_finite, check_images
from diffusionlab.levels import Callback, Denoise, check_levels, signal_noise


def solve_heun(denoise: Denoise, x: Tensor, levels: Tensor, *, callback: Callback | None = None) -> Tensor:
    """Heun's method: an Euler step, a look at the slope where it led, and the step again with the mean of both slopes.

    The step to clean data stays Euler's, for there the model cannot be asked: NFE 2n - 1, or 2n to a finite last level.

    Args:
        denoise: `denoise(x, lam)` guesses the clean data.
        x: noisy data [B, ...] at levels[0].
        levels: float64 [n+1], the log-SNRs to visit, strictly rising (or falling, to encode); the last may be infinity.
        callback: called as `callback(i, lam, x, x0)` once a step, at its start; where it returns True, x0 is returned at
            once.

    Returns:
        x at levels[-1], with the shape and dtype of the x given.

    Raises:
        ValueError: integer images, levels that are not strictly monotone, NaN or infinity in the result.

    Source: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", algorithm 1.
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
        y, width = x / alpha, sigma_next / alpha_next - sigma / alpha
        slope = (x - alpha * x0) / sigma
        x = alpha_next * (y + width * slope)
        if not math.isinf(lam_next):
            slope_next = (x - alpha_next * denoise(x, lam_next)) / sigma_next
            x = alpha_next * (y + width * (slope + slope_next) / 2)
    check_finite(x)
    return x
    ### END SOLUTION

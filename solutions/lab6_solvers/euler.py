import torch
from torch import Tensor

from diffusionlab.guards import check_finite, check_images
from diffusionlab.levels import Callback, Denoise, check_levels, signal_noise


def solve_ddim(denoise: Denoise, x: Tensor, levels: Tensor, *, callback: Callback | None = None) -> Tensor:
    """DDIM at eta = 0, which is Euler's method for dy/ds = eps with y = x / alpha, s = sigma / alpha. NFE: the steps.

    Args:
        denoise: `denoise(x, lam)` guesses the clean data.
        x: noisy data [B, ...] at levels[0].
        levels: float64 [n+1], the log-SNRs to visit, strictly rising (or falling, to encode); the last may be infinity.
        callback: called as `callback(i, lam, x, x0)` once a step; where it returns True, x0 is returned at once.

    Returns:
        x at levels[-1], with the shape and dtype of the x given.

    Raises:
        ValueError: integer images, levels that are not strictly monotone, NaN or infinity in the result.

    Source: Song et al. 2021, "Denoising Diffusion Implicit Models", eq. 13 and 14.
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
        x = alpha_next * (x / alpha + (sigma_next / alpha_next - sigma / alpha) * eps)
    check_finite(x)
    return x
    ### END SOLUTION


def measured_order(num_steps: list[int], errors: list[float]) -> float:
    """The order at which errors fall: p in error = c / n^p, the slope of a straight line through log(error) over log(n).

    Args:
        num_steps: at least two different numbers of steps.
        errors: the error at each, positive.

    Raises:
        ValueError: fewer than two different numbers of steps, not as many errors as steps, or an error that is not positive.
    """
    ### BEGIN SOLUTION
    n, error = (torch.as_tensor(each, dtype=torch.float64) for each in (num_steps, errors))
    if n.shape != error.shape or len(set(n.tolist())) < 2:
        raise ValueError("an order takes errors at two different numbers of steps, at least")
    if not bool((error > 0).all()):
        raise ValueError("every error must be positive; its logarithm is taken")
    x, y = n.log() - n.log().mean(), error.log() - error.log().mean()
    return -float((x * y).sum() / x.square().sum())
    ### END SOLUTION

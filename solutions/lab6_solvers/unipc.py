import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffusionlab.guards import check_finite, check_images
from diffusionlab.levels import Callback, Denoise, check_levels, check_order, signal_noise


def unipc_weights(ratios: Sequence[float], h: float, variant: str = "bh2") -> Tensor:
    """What the differences (x0_k - x0) / r_k weigh in a step of h, given where the other guesses lie: B(h) rho.

    With phi_1 = (e^-h - 1) / -h and phi_{n+1} = (phi_n - 1/n!) / -h, the weights w_1..w_m fulfil
    sum_k w_k r_k^(n-1) = h n! phi_{n+1} for n = 1..m. For a single guess w = B(h) / 2 is used instead, of the same order.

    Args:
        ratios: r_k = (lam_k - lam) / h of m guesses, all different, none 0; negative before, 1 for the next level.
        h: lam_next - lam, finite and not 0.
        variant: "bh1" for B(h) = h, "bh2" for B(h) = 1 - e^-h.

    Returns:
        Float64 [m].

    Raises:
        ValueError: no ratios, two alike or one of 0, h 0 or infinite, an unknown variant.

    Source: Zhao et al. 2023, "UniPC", theorem 3.1 and appendix E.
    """
    ### BEGIN SOLUTION
    if variant not in ("bh1", "bh2"):
        raise ValueError(f'variant must be "bh1" or "bh2", not {variant!r}')
    if not ratios or len(set(ratios)) < len(ratios) or 0 in ratios:
        raise ValueError("ratios must all be different, and none of them 0")
    if h == 0 or not math.isfinite(h):
        raise ValueError(f"h must be finite and not 0, not {h}")
    B = h if variant == "bh1" else -math.expm1(-h)
    if len(ratios) == 1:
        return torch.tensor([B / 2], dtype=torch.float64)
    r = torch.tensor(ratios, dtype=torch.float64)
    n = torch.arange(len(ratios), dtype=torch.float64)
    phi, wanted = math.expm1(-h) / -h, []
    for k in range(1, len(ratios) + 1):
        phi = (phi - 1 / math.factorial(k)) / -h
        wanted.append(h * math.factorial(k) * phi)
    return torch.linalg.solve(r ** n[:, None], torch.tensor(wanted, dtype=torch.float64))
    ### END SOLUTION


def unipc_step(x: Tensor, guesses: Sequence[tuple[float, Tensor]], lam_next: float, *, x0_next: Tensor | None = None,
               variant: str = "bh2") -> Tensor:
    """One step of UniP, the predictor; or of UniC, the corrector, where the guess at the next level is known already.

    x_next = sigma_next / sigma x + alpha_next ((1 - e^-h) x0 + sum_k w_k (x0_k - x0) / r_k), w from `unipc_weights`.

    Args:
        x: data [B, ...] at the log-SNR of the newest guess.
        guesses: p pairs (lam, x0), newest last; the newest is x0 above, the others are x0_k.
        lam_next: where the step leads; infinity only with a single guess and without x0_next.
        x0_next: the guess made at lam_next from the predictor's x, one more x0_k, with r = 1.
        variant: as for `unipc_weights`.

    Returns:
        x at lam_next: of order p, or p + 1 with x0_next.
    """
    ### BEGIN SOLUTION
    *older, (lam, x0) = guesses
    h = lam_next - lam
    (_, sigma), (alpha_next, sigma_next) = signal_noise(lam), signal_noise(lam_next)
    x = sigma_next / sigma * x - alpha_next * math.expm1(-h) * x0
    others = [((lam_k - lam) / h, x0_k) for lam_k, x0_k in reversed(older)]
    if x0_next is not None:
        others.append((1.0, x0_next))
    if others:
        weights = unipc_weights([r for r, _ in others], h, variant).tolist()
        x = x + alpha_next * sum(w / r * (x0_k - x0) for w, (r, x0_k) in zip(weights, others))
    return x
    ### END SOLUTION


def solve_unipc(denoise: Denoise, x: Tensor, levels: Tensor, *, callback: Callback | None = None, order: int = 2,
                variant: str = "bh2", corrector: bool = True, lower_order_final: bool = True,
                history: Sequence[tuple[float, Tensor]] = ()) -> Tensor:
    """UniPC: predict with UniP; once the guess at the new level is there, correct with UniC. NFE: the steps.

    The guess made at the predicted x serves the corrector and the next predictor alike; it is not made again at the
    corrected x. So the last step is predicted only.

    Args:
        denoise: `denoise(x, lam)` guesses the clean data.
        x: noisy data [B, ...] at levels[0].
        levels: float64 [n+1], the log-SNRs to visit, strictly rising (or falling, to encode); the last may be infinity.
        callback: called as `callback(i, lam, x, x0)` once a step, with the predicted x; where it returns True, x0 is
            returned at once.
        order: p, how many guesses the predictor rests on: 1, 2 or 3, at most n; fewer while there are fewer.
        variant: "bh1" or "bh2".
        corrector: False for UniP alone.
        lower_order_final: whether the order is at most the number of steps left. A step to clean data always is of order 1.
        history: guesses (lam, x0) made before levels[0], newest last, to go on from.

    Returns:
        x at levels[-1], with the shape and dtype of the x given.

    Raises:
        ValueError: integer images, levels that are not strictly monotone, an order above the number of steps, an unknown
            variant, NaN or infinity in the result.

    Source: Zhao et al. 2023, "UniPC", algorithms 5 to 8.
    """
    ### BEGIN SOLUTION
    check_images(x)
    check_levels(levels)
    steps, guesses, used = levels.tolist(), list(history), []
    check_order(order, len(steps) - 1)
    if variant not in ("bh1", "bh2"):
        raise ValueError(f'variant must be "bh1" or "bh2", not {variant!r}')
    for i, (lam, lam_next) in enumerate(zip(steps, steps[1:])):
        x0 = denoise(x, lam)
        if callback is not None and callback(i, lam, x, x0):
            return x0
        if corrector and i > 0:
            x = unipc_step(x_before, used, lam, x0_next=x0, variant=variant)
        guesses.append((lam, x0))
        steps_left = len(steps) - 1 - i
        p = 1 if math.isinf(lam_next) else min(order, steps_left) if lower_order_final else order
        x_before, used = x, guesses[-p:]
        x = unipc_step(x, used, lam_next, variant=variant)
    check_finite(x)
    return x
    ### END SOLUTION

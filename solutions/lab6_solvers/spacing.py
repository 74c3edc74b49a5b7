import torch
from torch import Tensor

from diffusionlab import NoiseSchedule
from diffusionlab.guards import check_count, check_images, check_num_steps
from diffusionlab.levels import Denoise, check_levels, signal_noise, table_of_log_snr, timesteps_near


def create_timesteps(schedule: NoiseSchedule, num_steps: int, spacing: str = "uniform") -> Tensor:
    """Which timesteps to visit, from noise to data.

    Args:
        schedule: the noise schedule, T timesteps.
        num_steps: n, a whole number in 1..T.
        spacing: of Lab 5, "uniform": round(linspace(T-1, 0, n)); "trailing": round(T - i T/n) - 1; "quadratic": rising,
            max(i, round((T-1) (i/(n-1))^2)). Of log-SNR, with `timesteps_near`: "log-snr": n evenly spaced lambda from the
            table's lowest to its highest; "karras": with s = e^-lambda, n evenly spaced s^(1/7) from highest to lowest s
            (Karras et al. 2022, eq. 5). For n = 1 each is T-1 alone.

    Returns:
        LongTensor [n], strictly falling, all in 0..T-1. The last jump, to clean data, is implied and not listed.

    Raises:
        ValueError: num_steps not whole or not in 1..T, or an unknown spacing.
    """
    ### BEGIN SOLUTION
    T, n = schedule.num_timesteps, num_steps
    check_num_steps(n, T)
    if spacing not in ("uniform", "trailing", "quadratic", "log-snr", "karras"):
        raise ValueError(f'spacing must be "uniform", "trailing", "quadratic", "log-snr" or "karras", not {spacing!r}')
    if n == 1:
        return torch.tensor([T - 1])
    i = torch.arange(n, dtype=torch.float64)
    if spacing == "uniform":
        return torch.linspace(T - 1, 0, n, dtype=torch.float64).round().long()
    if spacing == "trailing":
        return (T - i * T / n).round().long() - 1
    if spacing == "quadratic":
        return torch.maximum(i, ((T - 1) * (i / (n - 1)) ** 2).round()).long().flip(0)
    table = table_of_log_snr(schedule)
    lowest, highest = table[-1], table[0]
    if spacing == "log-snr":
        return timesteps_near(schedule, lowest + i / (n - 1) * (highest - lowest))
    noisiest, cleanest = torch.exp(-lowest / 7), torch.exp(-highest / 7)
    s = (noisiest + i / (n - 1) * (cleanest - noisiest)) ** 7
    # Rounding may carry the ends just out of the table; `timesteps_near` allows for that.
    return timesteps_near(schedule, -s.log())
    ### END SOLUTION


def adaptive_levels(denoise: Denoise, x: Tensor, levels: Tensor, num_steps: int) -> Tensor:
    """Put steps where errors arise: walk once over a fine grid, and let every new step have the same share of the error.

    In each interval of the grid Euler's step and Heun's, which begins with it, differ by about Euler's local error e, which
    grows like the square of a step's length: sqrt(e) is what an interval counts. The new levels cut the sum of it into equal
    parts; inside an interval it is spread evenly over log-SNR. Where no error is seen at all, the levels are evenly spaced.

    Args:
        denoise: `denoise(x, lam)` guesses the clean data; asked twice an interval.
        x: noisy data [B, ...] at levels[0]; e is the root mean square, over all of x, of x after Heun minus x after Euler.
        levels: float64 [m+1], the grid: rising log-SNRs, all finite. The walk goes on from Heun's result.
        num_steps: n, at least 1.

    Returns:
        Float64 [n+1], strictly rising, from levels[0] to levels[-1].

    Raises:
        ValueError: integer images, levels that do not rise or are not finite, num_steps below 1.
    """
    ### BEGIN SOLUTION
    check_images(x)
    check_levels(levels)
    check_count(num_steps, "num_steps")
    if not bool(torch.isfinite(levels).all()) or float(levels[1]) < float(levels[0]):
        raise ValueError("the grid must rise and be finite: at clean data the model cannot be asked")
    grid, counts = levels.tolist(), []
    for lam, lam_next in zip(grid, grid[1:]):
        (alpha, sigma), (alpha_next, sigma_next) = signal_noise(lam), signal_noise(lam_next)
        y, width = x / alpha, sigma_next / alpha_next - sigma / alpha
        slope = (x - alpha * denoise(x, lam)) / sigma
        euler = alpha_next * (y + width * slope)
        slope_next = (euler - alpha_next * denoise(euler, lam_next)) / sigma_next
        x = alpha_next * (y + width * (slope + slope_next) / 2)
        counts.append(float((x - euler).double().square().mean()) ** 0.25)
    count = torch.tensor(counts, dtype=torch.float64)
    if float(count.sum()) == 0:
        count = levels.double().diff()
    # A grain everywhere: an interval without any error would make the sum stand still, and a level in it undefined.
    count = count + 1e-9 * count.sum()
    total = torch.cat([torch.zeros(1, dtype=torch.float64), count.cumsum(0)])
    parts = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64) * total[-1]
    k = torch.searchsorted(total, parts, right=True).clamp(1, len(count)) - 1
    made = levels[k] + (parts - total[k]) / count[k] * (levels[k + 1] - levels[k])
    made[0], made[-1] = levels[0], levels[-1]
    return made
    ### END SOLUTION


def library_timesteps(num_train_timesteps: int, num_steps: int, spacing: str = "leading", steps_offset: int = 0) -> Tensor:
    """The timesteps that diffusers' DDIMScheduler visits, by its options of these names.

    Args:
        num_train_timesteps: T.
        num_steps: n, in 1..T.
        spacing: "leading": 0, k, 2k, ... with k = T // n, counted up from 0, plus steps_offset; "linspace": n evenly spaced
            points from 0 to T-1, rounded; "trailing": round(T - i T/n) - 1. Then from noise to data.
        steps_offset: added where spacing is "leading", and nowhere else.

    Returns:
        LongTensor [n], falling.

    Raises:
        ValueError: num_steps not in 1..T, or an unknown spacing.
    """
    ### BEGIN SOLUTION
    T, n = num_train_timesteps, num_steps
    check_num_steps(n, T)
    i = torch.arange(n, dtype=torch.float64)
    if spacing == "leading":
        return (torch.arange(n) * (T // n) + steps_offset).flip(0)
    if spacing == "linspace":
        return torch.linspace(0, T - 1, n, dtype=torch.float64).round().long().flip(0)
    if spacing == "trailing":
        return (T - i * T / n).round().long() - 1
    raise ValueError(f'spacing must be "leading", "linspace" or "trailing", not {spacing!r}')
    ### END SOLUTION
